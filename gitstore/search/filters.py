"""What a search asks for, as values: criteria.py makes them of a query's text, select.py makes SQL of them.

Parameters stand in them as the keys of their rows (parameters.py), so that a filter says by itself where to look. A
filter with several keys matches where any of them does: those of one parameter in several resource types.
https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from gitstore.errors import Issue
from gitstore.search.rows import TEXT

Keys: TypeAlias = tuple[int, ...]

Table: TypeAlias = Literal["tokens", "strings", "dates", "quantities", "refs", "positions"]
"""The tables of schema.sql that hold the values of resources."""

Comparison: TypeAlias = Literal["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"]
"""https://hl7.org/fhir/R4/search.html#prefix"""


# What a resource may have to be


@dataclass(frozen=True, slots=True)
class All:
    """Everything at once; without filters, any resource."""

    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class Any:
    """At least one of them; without filters, no resource."""

    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    filter: Filter


@dataclass(frozen=True, slots=True)
class OfTypes:
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ids:
    """_id: one of these logical ids, of whatever type."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Updated:
    """_lastUpdated, compared with a half-open interval of instants (microseconds) as a date is."""

    comparison: Comparison
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Present:
    """There is a value: what :missing=false asks for."""

    table: Table
    keys: Keys


# What its values may have to be


@dataclass(frozen=True, slots=True)
class TokenValue:
    """`system` None stands for any, "" for none; `code` None for any. Both as the client wrote them."""

    system: str | None
    code: str | None


@dataclass(frozen=True, slots=True)
class Tokens:
    keys: Keys
    values: tuple[TokenValue, ...]


@dataclass(frozen=True, slots=True)
class Strings:
    """`values` are folded, but for `exact`, which compares the text as it is, and `uri`s, which are never folded.

    `below` is for uris: the value itself, and what follows it after a slash.
    """

    keys: Keys
    match: Literal["starts", "contains", "ends", "equals", "exact", "uri", "below"]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenTexts:
    """:text of tokens: the folded display of a code begins with (or contains, ...) one of these folded values.

    With another `system` than that of display texts, the codes of that system are compared so.
    """

    keys: Keys
    match: Literal["starts", "contains", "ends", "equals"]
    values: tuple[str, ...]
    system: str = TEXT


@dataclass(frozen=True, slots=True)
class Dates:
    """Compared with the half-open interval of microseconds that the search value stands for.

    For `ap` the interval is widened already: whatever overlaps it matches. `single` says that no resource has more than
    one value, so that several comparisons are of one and the same.
    """

    keys: Keys
    comparison: Comparison
    low: int
    high: int
    single: bool = False


@dataclass(frozen=True, slots=True)
class Amount:
    """A number to compare with, as keys of gitstore.fhir.decimals.

    `value` is the number as it stands; `low` and `high` are the half-open range that its digits stand for, or for
    `ap` the closed range that counts as near.
    """

    value: bytes
    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class Quantities:
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


@dataclass(frozen=True, slots=True)
class ReferenceValue:
    """Either a resource of this server (`type` None: of any), or an absolute URL or canonical without its version.

    `version`, where asked for, is a version id or a canonical's version; references without one don't match it. With
    `below` it may go on after a dot: 1 finds 1.0 and 1.1 then.
    """

    type: str | None = None
    id: str | None = None
    url: str | None = None
    version: str | None = None
    below: bool = False


@dataclass(frozen=True, slots=True)
class References:
    keys: Keys
    values: tuple[ReferenceValue, ...]


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Refers to the resource named, or to one that lies below (or above) it by its own references `parents`."""

    keys: Keys
    type: str
    id: str
    parents: Keys
    direction: Literal["below", "above"]


@dataclass(frozen=True, slots=True)
class Chain:
    """Refers to a resource of one of `types` that fits the filter.

    `urls` and `versions` are the parameters `url` and `version` of those types, by which canonicals lead to them.
    """

    keys: Keys
    types: tuple[str, ...]
    filter: Filter
    urls: Keys = ()
    versions: Keys = ()


@dataclass(frozen=True, slots=True)
class ReferredBy:
    """_has: a resource that fits the filter refers to this one. `keys` tell its type."""

    keys: Keys
    filter: Filter


@dataclass(frozen=True, slots=True)
class Composite:
    """One element of the resource fits all components, each of which is a filter of values."""

    components: tuple[ValueFilter, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """_text (narrative) and _content: `query` is in the syntax of SQLite's FTS5."""

    column: Literal["narrative", "content"]
    query: str


@dataclass(frozen=True, slots=True)
class Listed:
    """_list: an entry of one of these Lists. `keys` are those of List's parameter `item`."""

    lists: tuple[str, ...]
    keys: Keys


@dataclass(frozen=True, slots=True)
class Near:
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


@dataclass(frozen=True, slots=True)
class SortKey:
    """`id` and `updated` are the resource's own; else the least value of the parameter, the greatest if descending.

    Tokens are in the order of their codes, references in that of type and id or URL. Resources without a value come
    last, whatever the direction.
    """

    by: Literal["id", "updated"] | Table
    keys: Keys = ()
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Include:
    """_include, or with `reverse` _revinclude, by the references `keys`; `types` is what may be brought in.

    With `iterate` it starts from what was included, too. `urls` and `versions` are as in Chain.
    """

    reverse: bool
    keys: Keys
    types: frozenset[str]
    iterate: bool = False
    urls: Keys = ()
    versions: Keys = ()


@dataclass(frozen=True, slots=True)
class Query:
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
