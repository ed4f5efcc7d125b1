"""References as SQL: chains, _has, _list and hierarchies. https://hl7.org/fhir/R4/search.html#reference

Tables have names of their own (`f`, `s`) in each statement, as chains stand inside of chains.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from msgspec import Struct

from gitstore.search.filters import Hierarchy, Keys, Listed
from gitstore.search.rows import TYPE_NUMBERS
from gitstore.search.sql import TRUE, Sql, among, every, joined, listed, sql


class Ends(Struct, frozen=True):
    """The resources at the other end: all their keys, where they are few, and what tells whether a column has one."""

    keys: list[int] | None
    fits: Callable[[str], Sql]


class Canonicals(Struct, frozen=True):
    """The parameters by which canonicals lead to resources: `url` and `version`."""

    urls: Keys
    versions: Keys


def chain(
    f: str, s: str, references: Sql, ends: Ends, canonicals: Canonicals, resource: str | None = None
) -> list[Sql]:
    """SELECTs of the resources, or of one in a column, whose `references` (a condition on the table `f`) lead to `ends`."""
    known = sql(f"{f}.resource = {resource}") if resource else TRUE
    local = every([known, references, ends.fits(f"{f}.target")])
    # The plus keeps SQLite from walking all that have a target where the index knows those that are wanted.
    direct = sql(f"SELECT {f}.resource AS resource FROM refs {f} WHERE +{f}.target > 0 AND {{}}", local)
    if not canonicals.urls:
        return [direct]
    if ends.keys is not None and resource is None:
        source = f"strings {s} CROSS JOIN urls {s}u CROSS JOIN refs {f}"
    else:
        source = f"refs {f} CROSS JOIN urls {s}u CROSS JOIN strings {s}"
    foreign = every([known, references, same_canonical(f, s, canonicals), ends.fits(f"{s}.resource")])
    by_url = sql(f"SELECT {f}.resource AS resource FROM {source} WHERE {{}}", foreign)
    return [direct, by_url]


def chain_inside(f: str, c: str, references: Sql, there: Sql, ends: Ends, resource: str | None = None) -> Sql:
    """As `chain`, to contained resources of the same container, `c`; `there` is a condition on their type.

    https://hl7.org/fhir/R4/search.html#contained
    """
    known = sql(f"{c}.container = {resource}") if resource else TRUE if ends.keys is not None else there
    return sql(
        f"SELECT {f}.resource AS resource FROM contained {c} CROSS JOIN urls {c}u CROSS JOIN refs {f}"
        f" WHERE {{}} AND {{}} AND {c}u.url = '#' || {c}.id AND {f}.resource = {c}.container"
        f" AND {f}.target = -{c}u.key AND {{}}",
        known,
        ends.fits(f"{c}.key"),
        references,
    )


def same_canonical(f: str, s: str, canonicals: Canonicals) -> Sql:
    """The reference `f` is a canonical of the resource whose URL is `s`, through `urls`, which is called `{s}u`.

    https://hl7.org/fhir/R4/references.html#canonical
    """
    # Codes of no system stand folded; that ASCII alone is, here, is enough for versions.
    # Said twice, since an index serves only the side that stands alone.
    return sql(
        f"{f}.target = -{s}u.key AND {s}u.key = -{f}.target AND {s}.value = {s}u.url AND {{}} AND ({f}.version = '' OR EXISTS ("
        f" SELECT 1 FROM tokens {s}v CROSS JOIN terms {s}t ON {s}t.key = {s}v.term"
        f" WHERE {s}v.resource = {s}.resource AND {{}} AND {s}t.code IN ({f}.version, lower({f}.version))))",
        among(f"{s}.parameter", canonicals.urls),
        among(f"{s}v.parameter", canonicals.versions),
    )


def referred(f: str, keys: Keys, ends: Ends, resource: str | None = None) -> Sql:
    """SELECT of the resources, or of one in a column, that `ends` refer to."""
    if ends.keys is not None and resource is None:
        # From each of them by the table's own key, and not through all references of the parameter.
        return sql(
            f"SELECT {f}.target AS resource FROM json_each({{}}) {f}j CROSS JOIN refs {f}"
            f" WHERE {f}.resource = {f}j.value AND {{}} AND {f}.target > 0",
            json.dumps(ends.keys),
            among(f"{f}.parameter", keys),
        )
    known = f"{f}.target = {resource}" if resource else f"{f}.target > 0"
    return sql(
        f"SELECT {f}.target AS resource FROM refs {f} WHERE {known} AND {{}} AND {{}}",
        among(f"{f}.parameter", keys),
        ends.fits(f"{f}.resource"),
    )


def entries(filter: Listed) -> Sql:
    """SELECT of what Lists have as entries."""
    return sql(
        "SELECT f.target AS resource FROM refs f WHERE +f.target > 0 AND {} AND f.resource IN"
        " (SELECT key FROM resources WHERE type = {} AND id IN ({}))",
        among("f.parameter", filter.keys),
        TYPE_NUMBERS["List"],
        listed(filter.lists),
    )


def hierarchy(f: str, references: Sql, filter: Hierarchy) -> Sql:
    """SELECT of the resources whose `references` lead to the one named, or to one below or above it."""
    here, there = ("target", "resource") if filter.direction == "below" else ("resource", "target")
    # UNION, not UNION ALL: a circle ends where it began.
    family = sql(
        "WITH RECURSIVE family (key) AS (SELECT key FROM resources WHERE type = {} AND id = {}"
        f" UNION SELECT p.{there} FROM family CROSS JOIN refs p"
        f" WHERE p.{here} = family.key AND +p.target > 0 AND {{}}) SELECT key FROM family",
        TYPE_NUMBERS[filter.type],
        filter.id,
        among("p.parameter", filter.parents),
    )
    return sql(
        f"SELECT {f}.resource AS resource FROM refs {f} WHERE {{}} AND {f}.target IN ({{}})",
        references,
        family,
    )


def exists(selects: list[Sql]) -> Sql:
    """Whether one of the SELECTs finds something."""
    return sql("({})", joined((sql("EXISTS ({})", select) for select in selects), " OR "))
