"""What a search asks for, as values: criteria.py makes them of a query's text, select.py makes SQL of them.

Parameters stand in them as the keys of their rows (parameters.py), so that a filter says by itself where to look. A
filter with several keys matches where any of them does: those of one parameter in several resource types.
https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct, field

from gitstore.errors import Issue
from gitstore.search.rows import TEXT

Keys: TypeAlias = tuple[int, ...]

Table: TypeAlias = Literal["tokens", "strings", "dates", "quantities", "refs", "positions"]
"""The tables of schema.sql that hold the values of resources."""

Comparison: TypeAlias = Literal["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"]
"""https://hl7.org/fhir/R4/search.html#prefix"""


# What a resource may have to be


class All(Struct, frozen=True):
    """Everything at once; without filters, any resource."""

    filters: tuple[Filter, ...] = ()


class Any(Struct, frozen=True):
    """At least one of them; without filters, no resource."""

    filters: tuple[Filter, ...] = ()


class Not(Struct, frozen=True):
    filter: Filter


class OfTypes(Struct, frozen=True):
    types: tuple[str, ...]


class Ids(Struct, frozen=True):
    """_id: one of these logical ids, of whatever type."""

    ids: tuple[str, ...]


class Updated(Struct, frozen=True):
    """_lastUpdated, compared with a half-open interval of instants (microseconds) as a date is."""

    comparison: Comparison
    low: int
    high: int


class Present(Struct, frozen=True):
    """There is a value: what :missing=false asks for."""

    table: Table
    keys: Keys


# What its values may have to be


class TokenValue(Struct, frozen=True):
    """`system` None stands for any, "" for none; `code` None for any. Both as the client wrote them."""

    system: str | None
    code: str | None


class Tokens(Struct, frozen=True):
    keys: Keys
    values: tuple[TokenValue, ...]


class Strings(Struct, frozen=True):
    """`values` are folded, but for `exact`, which compares the text as it is, and `uri`s, which are never folded.

    `below` is for uris: the value itself, and what follows it after a slash.
    """

    keys: Keys
    match: Literal["starts", "contains", "ends", "equals", "exact", "uri", "below"]
    values: tuple[str, ...]


class TokenTexts(Struct, frozen=True):
    """:text of tokens: the folded display of a code begins with (or contains, ...) one of these folded values.

    With another `system` than that of display texts, the codes of that system are compared so.
    """

    keys: Keys
    match: Literal["starts", "contains", "ends", "equals"]
    values: tuple[str, ...]
    system: str = TEXT


class Dates(Struct, frozen=True):
    """Compared with the half-open interval of microseconds that the search value stands for.

    For `ap` the interval is widened already: whatever overlaps it matches. `single` says that no resource has more than
    one value, so that several comparisons are of one and the same.
    """

    keys: Keys
    comparison: Comparison
    low: int
    high: int
    single: bool = False


class Amount(Struct, frozen=True):
    """A number to compare with, as keys of gitstore.fhir.decimals.

    `value` is the number as it stands; `low` and `high` are the half-open range that its digits stand for, or for
    `ap` the closed range that counts as near.
    """

    value: bytes
    low: bytes
    high: bytes


class Quantities(Struct, frozen=True):
    """Numbers (without a unit) and quantities.

    `system` and `code` select the unit: None for any, "" in `system` for a unit without one. `canonical`, where the
    unit is known to UCUM, is the canonical unit and the amount in it: rows of any unit of the kind are compared then.
    `single` as of Dates.
    """

    keys: Keys
    comparison: Comparison
    amount: Amount
    system: str | None = None
    code: str | None = None
    canonical: tuple[str, Amount] | None = None
    single: bool = False


class ReferenceValue(Struct, frozen=True):
    """Either a resource of this server (`type` None: of any), or an absolute URL or canonical without its version.

    `version`, where asked for, is a version id or a canonical's version; references without one don't match it. With
    `below` it may go on after a dot: 1 finds 1.0 and 1.1 then.
    """

    type: str | None = None
    id: str | None = None
    url: str | None = None
    version: str | None = None
    below: bool = False


class References(Struct, frozen=True):
    keys: Keys
    values: tuple[ReferenceValue, ...]


class Hierarchy(Struct, frozen=True):
    """Refers to the resource named, or to one that lies below (or above) it by its own references `parents`."""

    keys: Keys
    type: str
    id: str
    parents: Keys
    direction: Literal["below", "above"]


class Chain(Struct, frozen=True):
    """Refers to a resource of one of `types` that fits the filter.

    `urls` and `versions` are the parameters `url` and `version` of those types, by which canonicals lead to them.
    """

    keys: Keys
    types: tuple[str, ...]
    filter: Filter
    urls: Keys = ()
    versions: Keys = ()


class ReferredBy(Struct, frozen=True):
    """_has: a resource that fits the filter refers to this one. `keys` tell its type."""

    keys: Keys
    filter: Filter


class Composite(Struct, frozen=True):
    """One element of the resource fits all components, each of which is a filter of values."""

    components: tuple[ValueFilter, ...]


class Words(Struct, frozen=True):
    """_text (narrative) and _content: `query` is in the syntax of SQLite's FTS5."""

    column: Literal["narrative", "content"]
    query: str


class Listed(Struct, frozen=True):
    """_list: an entry of one of these Lists. `keys` are those of List's parameter `item`."""

    lists: tuple[str, ...]
    keys: Keys


class Near(Struct, frozen=True):
    """A position within so many kilometres."""

    keys: Keys
    latitude: float
    longitude: float
    kilometres: float


ValueFilter: TypeAlias = Tokens | TokenTexts | Strings | Dates | Quantities | References
Filter: TypeAlias = (
    All
    | Any
    | Not
    | OfTypes
    | Ids
    | Updated
    | Present
    | ValueFilter
    | Hierarchy
    | Chain
    | ReferredBy
    | Composite
    | Words
    | Listed
    | Near
)


# What is to be answered


class SortKey(Struct, frozen=True):
    """`id` and `updated` are the resource's own; else the least value of the parameter, the greatest if descending.

    Tokens are in the order of their codes, references in that of type and id or URL. Resources without a value come
    last, whatever the direction.
    """

    by: Literal["id", "updated"] | Table
    keys: Keys = ()
    descending: bool = False


class Include(Struct, frozen=True):
    """_include, or with `reverse` _revinclude, by the references `keys`; `types` is what may be brought in.

    With `iterate` it starts from what was included, too. `urls` and `versions` are as in Chain.
    """

    reverse: bool
    keys: Keys
    types: frozenset[str]
    iterate: bool = False
    urls: Keys = ()
    versions: Keys = ()


class Query(Struct, frozen=True):
    """A whole search. `types` are those searched, never none.

    `count` is the client's wish for a page; 0 asks for the total alone. `used` is what of the request had an effect,
    for the self link, and `issues` tell of the rest. `sight` is what a resource has to be, too, whichever resource in it
    the filter is asked of.
    """

    types: tuple[str, ...]
    filter: Filter
    sort: tuple[SortKey, ...] = ()
    count: int | None = None
    total: Literal["none", "estimate", "accurate"] = "accurate"
    includes: tuple[Include, ...] = ()
    contained: Literal["false", "true", "both"] = "false"
    contained_type: Literal["container", "contained"] = "container"
    summary: str = "false"
    elements: frozenset[str] = field(default=frozenset())
    used: tuple[tuple[str, str], ...] = ()
    issues: tuple[Issue, ...] = ()
    sight: Filter = field(default=All())
