"""The order of matches: what they are sorted by, what comes after a place in it, and indexes that have it already.

https://hl7.org/fhir/R4/search.html#sort
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from msgspec import Struct

from gitstore.search.conditions import date_bounds, prefix_end
from gitstore.search.filters import Dates, SortKey, Updated
from gitstore.search.plans import Part, Plan, Together
from gitstore.search.properties import updated
from gitstore.search.rows import CANONICAL
from gitstore.search.sql import FALSE, TRUE, Sql, Value, among, either, every, sql

_MOST = 200
"""Characters of a text that count: what a place holds must fit into a link."""
_MOST_BYTES = 64


class Columns(Struct, frozen=True):
    """Where a statement has what may be sorted by: the key that values are under, the id, and the sequence.

    `sign` is -1 for contained resources.
    """

    key: str
    id: str
    sequence: str
    sign: int = 1


def value(sort: SortKey, columns: Columns) -> Sql:
    """What a resource is sorted by; NULL where it has no value."""
    least = "max" if sort.descending else "min"
    here = sql(
        f"a.resource = {columns.key} AND {{}}",
        among("a.parameter", [columns.sign * key for key in sort.keys]),
    )
    match sort.by:
        case "id":
            return Sql(columns.id)
        case "updated":
            return Sql(columns.sequence)
        case "strings":
            return sql(f"(SELECT substr({least}(a.value), 1, {_MOST}) FROM strings a WHERE {{}})", here)
        case "dates":
            return sql(f"(SELECT {least}(a.low) FROM dates a WHERE {{}})", here)
        case "tokens":
            return sql(
                f"(SELECT substr({least}(t.code), 1, {_MOST}) FROM tokens a CROSS JOIN terms t ON t.key = a.term"
                " WHERE {})",
                here,
            )
        case "quantities":
            # Canonical amounts can be compared with one another, so they count where there are any.
            return sql(
                f"(SELECT substr(coalesce({least}(CASE WHEN u.system = {{}} THEN a.low END), {least}(a.low)), 1, {_MOST_BYTES})"
                " FROM quantities a CROSS JOIN units u ON u.key = a.unit WHERE {})",
                CANONICAL,
                here,
            )
        case "refs":
            # The numbers of the types are in the order of their names.
            return sql(
                f"(SELECT substr({least}(coalesce(u.url, printf('%03d/%s', x.type, x.id))), 1, {_MOST}) FROM refs a"
                " LEFT JOIN urls u ON u.key = -a.target LEFT JOIN resources x ON x.key = a.target WHERE {})",
                here,
            )
        case "positions":
            return sql(f"(SELECT {least}(a.latitude) FROM positions a WHERE {{}})", here)


def is_tied_downward(sort: Sequence[SortKey]) -> bool:
    """Whether resources that are alike come by falling key: as the last part of the order, so that an index has both."""
    return bool(sort) and sort[-1].descending


def beyond(
    sort: Sequence[SortKey], values: Sequence[Value], key: int, *, backward: bool, tied_downward: bool
) -> Sql:
    """The row, with its columns `s0`, `s1`, ... and `key`, comes after the place, or before it."""
    conditions: list[Sql] = []
    same: list[Sql] = []
    for number, (each, place) in enumerate(zip(sort, values, strict=True)):
        column = f"s{number}"
        conditions.append(every([*same, _past(column, place, downward=each.descending, backward=backward)]))
        same.append(sql(f"{column} IS {{}}", place))
    operator = "<" if tied_downward != backward else ">"
    conditions.append(every([*same, sql(f"key {operator} {{}}", key)]))
    return either(conditions)


def _past(column: str, place: Value, *, downward: bool, backward: bool) -> Sql:
    """What has no value comes last in either direction of the sort."""
    if place is None:
        return Sql(f"{column} IS NOT NULL") if backward else FALSE
    compared = sql(f"{column} {'<' if downward != backward else '>'} {{}}", place)
    return compared if backward else sql(f"({{}} OR {column} IS NULL)", compared)


def ordering(sort: Sequence[SortKey], *, backward: bool, tied_downward: bool) -> str:
    """The inside of ORDER BY."""
    terms = []
    for number, each in enumerate(sort):
        if each.by not in ("id", "updated"):
            terms.append(f"s{number} IS NULL{' DESC' if backward else ''}")
        terms.append(f"s{number}{' DESC' if each.descending != backward else ''}")
    return ", ".join([*terms, f"key{' DESC' if tied_downward != backward else ''}"])


# Walking an index


def can_walk(plan: Plan, sort: SortKey) -> bool:
    """Whether an index has the order already."""
    match sort.by:
        case "updated":
            return True
        case "id":
            return plan.types is not None and len(plan.types) == 1
        case "dates" | "strings":
            return len(sort.keys) == 1
        case _:
            return False


@contextmanager
def walk(
    plan: Plan, sort: SortKey, wanted: Sequence[Part], start: Value, *, backward: bool
) -> Iterator[Iterator[tuple[Value, int]]]:
    """Values and resources in order, from the value `start` on, if any.

    A resource comes with each of its values, and some that do not fit `wanted` are left out.
    """
    downward = sort.descending != backward
    with ExitStack() as stack:
        cursors = [
            stack.enter_context(closing(plan.run(select)))
            for select in _selects(plan, sort, wanted, start, downward)
        ]
        yield heapq.merge(*cursors, reverse=downward) if len(cursors) > 1 else iter(cursors[0])


def _selects(plan: Plan, sort: SortKey, wanted: Sequence[Part], start: Value, downward: bool) -> list[Sql]:
    direction = "DESC" if downward else "ASC"
    match sort.by:
        case "dates":
            return _by_date(sort, wanted, start, downward)
        case "strings":
            source = f"SELECT substr(value, 1, {_MOST}), resource FROM strings WHERE {{}} AND {{}}"
            order = f"ORDER BY value {direction}, resource {direction}"
            return [sql(f"{source} {order}", among("parameter", sort.keys), _text_from(start, downward))]
        case "id":
            types = among("type", plan.types or ())
            source = "SELECT id, key FROM resources WHERE {} AND +deleted = 0 AND {}"
            return [sql(f"{source} ORDER BY id {direction}", types, _from("id", start, downward))]
        case _:
            return [_by_time(plan, wanted, start, downward)]


def _by_time(plan: Plan, wanted: Sequence[Part], start: Value, downward: bool) -> Sql:
    table, key, types = "versions", "resource", TRUE
    if plan.types is not None and len(plan.types) == 1:
        table, key, types = "resources", "key", sql("type = {} AND deleted = 0", plan.types[0])
    direction = "DESC" if downward else "ASC"
    times = (updated(plan.connection, part, "sequence") for part in wanted if isinstance(part, Updated))
    return sql(
        f"SELECT sequence, {key} FROM {table} WHERE {{}} AND {{}} AND {{}}"
        f" ORDER BY sequence {direction}, {key} {direction}",
        types,
        every(times),
        _from("sequence", start, downward),
    )


def _from(column: str, start: Value, downward: bool) -> Sql:
    return TRUE if start is None else sql(f"{column} {'<=' if downward else '>='} {{}}", start)


def _text_from(start: Value, downward: bool) -> Sql:
    if start is None or not downward:
        return _from("value", start, downward)
    end = prefix_end(str(start))
    return TRUE if end is None else sql("value < {}", end)


def _by_date(sort: SortKey, wanted: Sequence[Part], start: Value, downward: bool) -> list[Sql]:
    """One for each class of intervals. Where the values are bounded by the filter, they are from there on only."""
    same = [
        each
        for part in wanted
        if isinstance(part, Together)
        for each in part.filters
        if isinstance(each, Dates) and each.keys == sort.keys
    ]
    direction = "DESC" if downward else "ASC"
    return [
        sql(
            "SELECT low, resource FROM dates WHERE {} AND span = {} AND low BETWEEN {} AND {} AND {}"
            f" ORDER BY low {direction}, resource {direction}",
            among("parameter", sort.keys),
            span,
            least,
            most,
            _from("low", start, downward),
        )
        for span, least, most in date_bounds(*same)
    ]
