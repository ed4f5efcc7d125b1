"""The matches of a query as rows of SQL, from any place in their order; select.py makes pages of them."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from gitstore.search import orders
from gitstore.search.cursors import Cursor
from gitstore.search.filters import Filter, Not, Present, Query, SortKey, Updated
from gitstore.search.orders import Columns
from gitstore.search.plans import Part, Plan, parts
from gitstore.search.properties import NONE
from gitstore.search.sql import TRUE, Sql, Value, among, every, joined, sql

_PORTION = 256
"""Candidates of a walk that are looked at together at first; then twice as many, and so on."""
_LARGEST_PORTION = 8192

_OWN = Columns("r.key", "r.id", "r.sequence")
_CONTAINED = Columns("c.key", "c.id", "r.sequence", -1)


class Row(NamedTuple):
    """A match: its own key, by which it is ordered at last, the key of the resource to be shown, and what it's sorted by.

    `contained` is an id where a contained resource is the match; its own key is below 0 then.
    """

    key: int
    resource: int
    contained: str | None
    values: tuple[Value, ...]


class Rows:
    """The matches of one query; `upto` and `few` are as in select.page."""

    def __init__(self, connection: sqlite3.Connection, query: Query, upto: int | None, few: int) -> None:
        self.query = query
        self.few = few
        self.plan = Plan(connection, query.types, few=few)
        there = TRUE if upto is None else sql("r.sequence <= {}", upto)
        self.there = every([there, self.plan.probe(query.sight, "r.key")])
        self._tied_downward = orders.is_tied_downward(query.sort)

    def after(self, cursor: Cursor | None, limit: int) -> list[Row]:
        """So many matches after the cursor, or before it, the nearest first, where it leads backward."""
        query = self.query
        if query.contained != "false":
            return self._ordered(self.with_contained(query.sort), query.sort, cursor, limit)
        wanted = parts(query.filter)
        found = None if not query.sort and self.stream(wanted) else self.plan.driver(wanted)
        if found is None:
            return self._of_many(wanted, query.sort, cursor, limit)
        candidates, rest = found
        if not query.sort:
            return self._of_few(candidates, rest, cursor, limit)
        condition = every([among("r.key", candidates), self.fits(rest)])
        return self._ordered([self.select(condition, query.sort)], query.sort, cursor, limit)

    def stream(self, wanted: Sequence[Part]) -> tuple[tuple[Sql, Sql], list[Part]] | None:
        """As that of the plan, where nothing else is asked for: no list of what fits is needed then."""
        return self.plan.stream(wanted) if len(wanted) == 1 else None

    def fits(self, wanted: Sequence[Part]) -> Sql:
        """The resource `r` is of the types, is there, and fits."""
        return every(
            [self.plan.of_types("r"), self.there, *(self.plan.probe(each, "r.key") for each in wanted)]
        )

    def select(self, condition: Sql, sort: Sequence[SortKey]) -> Sql:
        """SELECT of resources, with what they are sorted by."""
        return sql(
            "SELECT r.key AS key, r.key AS resource, NULL AS contained{} FROM resources r WHERE {}",
            _values(sort, _OWN),
            condition,
        )

    def _ordered(
        self, selects: Sequence[Sql], sort: Sequence[SortKey], cursor: Cursor | None, limit: int
    ) -> list[Row]:
        backward = cursor is not None and cursor.backward
        tied_downward = self._tied_downward
        place = TRUE
        if cursor is not None:
            place = orders.beyond(
                sort, cursor.values, cursor.key, backward=backward, tied_downward=tied_downward
            )
        order = orders.ordering(sort, backward=backward, tied_downward=tied_downward)
        # The inner LIMIT keeps SQLite from working out the values once for each mention of them.
        return self._run(
            sql(
                f"SELECT * FROM (SELECT * FROM ({{}}) LIMIT -1) WHERE {{}} ORDER BY {order} LIMIT {{}}",
                joined(selects, " UNION ALL "),
                place,
                limit,
            )
        )

    def _run(self, query: Sql) -> list[Row]:
        return [Row(row[0], row[1], row[2], row[3:]) for row in self.plan.run(query)]

    def _of_few(
        self, candidates: Sequence[int], rest: Sequence[Part], cursor: Cursor | None, limit: int
    ) -> list[Row]:
        """In the order of keys, which the candidates have: no more of them than it takes to fill a page."""
        backward = cursor is not None and cursor.backward
        if cursor is not None and backward:
            candidates = candidates[: bisect_left(candidates, cursor.key)][::-1]
        elif cursor is not None:
            candidates = candidates[bisect_right(candidates, cursor.key) :]
        found: list[Row] = []
        fits, start, size = self.fits(rest), 0, _PORTION
        while start < len(candidates) and len(found) < limit:
            portion = sorted(candidates[start : start + size])
            condition = every([among("r.key", portion), fits])
            found += self._ordered([self.select(condition, ())], (), cursor, limit - len(found))
            start, size = start + size, min(2 * size, _LARGEST_PORTION)
        return found

    # Where many fit

    def _of_many(
        self, wanted: Sequence[Part], sort: tuple[SortKey, ...], cursor: Cursor | None, limit: int
    ) -> list[Row]:
        if not sort:
            return self._by_key(wanted, cursor, limit)
        if not orders.can_walk(self.plan, sort[0]):
            condition = every([self.there, self.plan.all_of_many(wanted)])
            return self._ordered([self.select(condition, sort)], sort, cursor, limit)
        if sort[0].by in ("id", "updated"):
            return self._walked(wanted, sort, cursor, limit)
        # Those with a value come first, whatever the direction, and an index has them in order.
        stages = [self._walked, self._without_value]
        backward = cursor is not None and cursor.backward
        if backward:
            stages.reverse()
        if cursor is not None and (cursor.values[0] is None) != backward:
            stages = stages[1:]
        found: list[Row] = []
        for stage in stages:
            if len(found) < limit:
                found += stage(wanted, sort, cursor, limit - len(found))
        return found

    def _without_value(
        self, wanted: Sequence[Part], sort: tuple[SortKey, ...], cursor: Cursor | None, limit: int
    ) -> list[Row]:
        first, *rest = sort
        assert first.by != "id"
        assert first.by != "updated"
        missing = Not(Present(first.by, first.keys))
        if cursor is not None:
            cursor = (
                Cursor(cursor.values[1:], cursor.key, cursor.backward) if cursor.values[0] is None else None
            )
        rows = self._of_many([*wanted, missing], tuple(rest), cursor, limit)
        return [row._replace(values=(None, *row.values)) for row in rows]

    def _walked(
        self, wanted: Sequence[Part], sort: tuple[SortKey, ...], cursor: Cursor | None, limit: int
    ) -> list[Row]:
        """Along the index that has the order of the first sort key, until there are enough."""
        backward = cursor is not None and cursor.backward
        start = cursor.values[0] if cursor is not None else None
        found: list[Row] = []
        fits = self.fits(wanted)
        with orders.walk(self.plan, sort[0], wanted, start, backward=backward) as walk:
            for portion in _portions(walk):
                candidates = sorted({key for _, key in portion})
                condition = every([among("r.key", candidates), fits])
                # A resource with several values has its place at one of them.
                met = set(portion)
                rows = self._ordered([self.select(condition, sort)], sort, cursor, -1)
                found += [row for row in rows if (row.values[0], row.key) in met]
                if len(found) >= limit:
                    break
        return found[:limit]

    def _by_key(self, wanted: Sequence[Part], cursor: Cursor | None, limit: int) -> list[Row]:
        """In the order of keys, along the index of one part where it has that order, or else of all resources."""
        downward = self._tied_downward != (cursor is not None and cursor.backward)
        direction = "DESC" if downward else "ASC"
        stream = self.plan.stream(wanted)
        table, rest, column = Sql("resources r"), wanted, "r.key"
        chosen = TRUE
        if stream is not None:
            (rows, chosen), rest = stream
            table, column = sql("{} CROSS JOIN resources r ON r.key = a.resource", rows), "a.resource"
        elif self.plan.types is not None and len(self.plan.types) == 1:
            chosen = self.plan.everything("r")
        place = TRUE if cursor is None else sql(f"{column} {'<' if downward else '>'} {{}}", cursor.key)
        return self._run(
            sql(
                "SELECT r.key, r.key, NULL FROM {} WHERE {} AND {} AND {}"
                f" GROUP BY {column} ORDER BY {column} {direction} LIMIT {{}}",
                table,
                chosen,
                place,
                self.fits(rest),
                limit,
            )
        )

    # Contained resources. https://hl7.org/fhir/R4/search.html#contained

    def with_contained(self, sort: Sequence[SortKey]) -> list[Sql]:
        """SELECTs of the matches of a query that looks into contained resources, without duplicates."""
        query = self.query
        inside = Plan(self.plan.connection, query.types, few=self.few, sign=-1)
        fits = every([inside.of_types("c"), _all_of(inside, query.filter, "c.key")])
        own = every([self.plan.of_types("r"), _all_of(self.plan, query.filter, "r.key")])
        both = query.contained == "both"
        if query.contained_type == "container":
            containers = sql("r.key IN (SELECT c.container FROM contained c WHERE {})", fits)
            condition = sql("({} OR {})", containers, own) if both else containers
            return [self.select(every([Sql("r.deleted = 0"), self.there, condition]), sort)]
        contained = sql(
            "SELECT c.key AS key, c.container AS resource, c.id AS contained{} FROM contained c"
            " CROSS JOIN resources r ON r.key = c.container WHERE r.deleted = 0 AND {} AND {}",
            _values(sort, _CONTAINED),
            self.there,
            fits,
        )
        return [contained, *([self.select(every([self.there, own]), sort)] if both else [])]


def _all_of(plan: Plan, filter: Filter, column: str) -> Sql:
    """The filter, by its sharpest part where there is one."""
    found = plan.driver(parts(filter))
    if found is None:
        return plan.probe(filter, column)
    candidates, rest = found
    return every([among(column, candidates), *(plan.probe(each, column) for each in rest)])


def _values(sort: Sequence[SortKey], columns: Columns) -> Sql:
    return joined(
        (sql(f", {{}} AS s{number}", orders.value(each, columns)) for number, each in enumerate(sort)), ""
    )


def _portions(walk: Iterator[tuple[Value, int]]) -> Iterator[list[tuple[Value, int]]]:
    """Portions of a walk, each of which ends where a value does."""
    size, ahead = _PORTION, list(islice(walk, 1))
    while ahead:
        portion = [*ahead, *islice(walk, size)]
        ahead = []
        for each in walk:
            if each[0] != portion[-1][0]:
                ahead = [each]
                break
            portion.append(each)
        yield portion
        size = min(2 * size, _LARGEST_PORTION)


def total(rows: Rows) -> int:
    """How many matches there are."""
    plan, query = rows.plan, rows.query
    if query.contained != "false":
        return _count(plan, joined(rows.with_contained(()), " UNION ALL "))
    wanted = parts(query.filter)
    if len(wanted) == 1 and isinstance(wanted[0], Updated) and rows.there == TRUE:
        # They are of the types, there, and each is listed once.
        return _count(plan, plan.members(wanted[0]) or NONE)
    stream = rows.stream(wanted)
    found = plan.driver(wanted) if stream is None else None
    if found is not None:
        candidates, rest = found
        condition = every([among("r.key", candidates), rows.fits(rest)])
        return _count(plan, rows.select(condition, ()))
    stream = stream or plan.stream(wanted)
    if stream is None:
        return _count(plan, rows.select(every([rows.there, plan.all_of_many(wanted)]), ()))
    (table, chosen), rest = stream
    source = "SELECT DISTINCT a.resource FROM {} CROSS JOIN resources r ON r.key = a.resource WHERE {} AND {}"
    return _count(plan, sql(source, table, chosen, rows.fits(rest)))


def _count(plan: Plan, select: Sql) -> int:
    return int(plan.run(sql("SELECT count(*) FROM ({})", select)).fetchone()[0])
