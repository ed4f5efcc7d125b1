"""How a filter finds its resources: which of its parts an index answers, and which are asked of each candidate.

Parts that few resources fit are listed first, each by its index; the rest of the conjunction is then asked of what is
in all these lists.
So it goes inside of chains, too. Where no part is that sharp, everything is asked of each resource of the types, in the
order that is wanted, until the page is full: many fit, so that doesn't take long.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from msgspec import Struct

from gitstore.errors import TooCostly
from gitstore.search.conditions import Conditions
from gitstore.search.filters import (
    All,
    Any,
    Chain,
    Composite,
    Dates,
    Filter,
    Hierarchy,
    Ids,
    Listed,
    Near,
    Not,
    OfTypes,
    Present,
    Quantities,
    References,
    ReferredBy,
    Tokens,
    Updated,
    ValueFilter,
    Words,
)
from gitstore.search.links import Canonicals, Ends, chain, chain_inside, entries, exists, hierarchy, referred
from gitstore.search.properties import NONE, by_id, matched, near, of_time, typed, updated
from gitstore.search.rows import TYPE_NUMBERS
from gitstore.search.sql import FALSE, TRUE, Sql, among, either, every, joined, sql

FEW = 10_000
"""How many resources are few enough to be listed and looked at one by one: some 20 ms."""
_MOST_COUNTED = 20
"""Times as many are counted to tell which of several parts is the sharpest."""


class Together(Struct, frozen=True):
    """Several comparisons of one and the same value."""

    filters: tuple[ValueFilter, ...]


Part: TypeAlias = Filter | Together


class Plan:
    """Filters over the resources of some types (None: of any), or with `sign` -1 over contained ones.

    `few` is as FEW.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        types: Sequence[str] | None,
        *,
        few: int = FEW,
        sign: int = 1,
        names: Iterator[int] | None = None,
    ) -> None:
        self.connection = connection
        self.types = None if types is None else sorted(TYPE_NUMBERS[type] for type in set(types))
        self.table = "resources" if sign > 0 else "contained"
        self.few = few
        self.conditions = Conditions(connection, sign)
        self._contained = sign < 0
        self._names = itertools.count() if names is None else names
        self._listed: dict[tuple[Part, int], list[int] | None] = {}
        self._exact: dict[Filter, list[int] | None] = {}
        self._inner: dict[tuple[tuple[str, ...] | None, int], Plan] = {}

    def alias(self) -> str:
        """A name for a table of a statement that no other table of it has."""
        return f"t{next(self._names)}"

    def run(self, query: Sql) -> sqlite3.Cursor:
        """Raises TooCostly for a filter whose parts are nested deeper than SQLite can parse."""
        try:
            return self.connection.execute(query.text, query.values)
        except sqlite3.OperationalError as error:
            if "parser stack overflow" not in str(error):
                raise
            raise TooCostly("The parts of this search are nested too deeply.") from error

    def of_types(self, alias: str) -> Sql:
        """The resource is of the plan's types, and there."""
        # The plus keeps SQLite from walking a whole type where the resource's key is known.
        parts = [] if self.types is None else [among(f"+{alias}.type", self.types)]
        return every([*parts, *([] if self._contained else [Sql(f"+{alias}.deleted = 0")])])

    def everything(self, alias: str) -> Sql:
        """The resource is of the plan's types, and there: by the index on that."""
        types = list(TYPE_NUMBERS.values()) if self.types is None else self.types
        there = TRUE if self._contained else Sql(f"{alias}.deleted = 0")
        return every([among(f"{alias}.type", types), there])

    # Which resources

    def keys(self, filter: Filter) -> list[int] | None:
        """All resources that fit, in order; None where they may be more than few."""
        if filter not in self._exact:
            self._exact[filter] = self._keys(filter)
        return self._exact[filter]

    def _keys(self, filter: Filter) -> list[int] | None:
        found = self.driver(parts(filter))
        if found is None:
            return None
        candidates, rest = found
        query = sql(
            f"SELECT r.key FROM {self.table} r WHERE {{}} AND {{}} AND {{}} ORDER BY r.key",
            among("r.key", candidates),
            self.of_types("r"),
            every(self.probe(part, "r.key") for part in rest),
        )
        return [key for (key,) in self.run(query)]

    def all_keys(self, filter: Filter) -> list[int]:
        """All resources that fit, however many they are."""
        if (known := self._exact.get(filter)) is not None:
            return known
        query = sql(f"SELECT r.key FROM {self.table} r WHERE {{}}", self.all_of_many(parts(filter)))
        found = self._exact[filter] = [key for (key,) in self.run(query)]
        return found

    def driver(self, wanted: Sequence[Part]) -> tuple[list[int], list[Part]] | None:
        """Those that fit all sharp parts, in order, and the other parts; None where no part is sharp."""
        for limit in (self.few // 50, self.few):
            listed = {
                number: keys
                for number, part in enumerate(wanted)
                if (keys := self._few(part, limit)) is not None
            }
            if listed:
                common, *others = sorted(listed.values(), key=len)
                if others:
                    common = sorted(set(common).intersection(*others))
                return common, [part for number, part in enumerate(wanted) if number not in listed]
        return None

    def _few(self, part: Part, limit: int) -> list[int] | None:
        """All that fit one part, unless they are more than the limit; also some that aren't of the types."""
        if (part, limit) not in self._listed:
            self._listed[part, limit] = self._list(part, limit)
        return self._listed[part, limit]

    def _list(self, part: Part, limit: int) -> list[int] | None:
        if isinstance(part, All):
            return self.keys(part)
        if isinstance(part, Any):
            branches = []
            for each in part.filters:
                keys = self._few(each, limit)
                if keys is None:
                    return None
                branches.append(keys)
            union = sorted(set(itertools.chain.from_iterable(branches)))
            return union if len(union) <= limit else None
        members = self.members(part)
        if members is None:
            return None
        query = sql("SELECT DISTINCT resource FROM ({}) LIMIT {}", members, limit + 1)
        found = [key for (key,) in self.run(query)]
        return sorted(found) if len(found) <= limit else None

    # As SQL

    def members(self, part: Part) -> Sql | None:
        """SELECT of the resources that fit, as `resource`, by an index; None where there is none for it."""
        match part:
            case All() | Any() | Not():
                return None
            case Together():
                return self.conditions.members(*part.filters)
            case OfTypes():
                return self._of_given_types(part)
            case Ids():
                return None if self._contained else by_id(self.types, part.ids)
            case Updated():
                time = updated(self.connection, part, "a.sequence")
                return NONE if self._contained else of_time("a", self.types, time)
            case Present():
                return self.conditions.present(part.table, part.keys)
            case Chain():
                return joined(self._chain(part), " UNION ALL ")
            case ReferredBy():
                return NONE if self._contained else referred(self.alias(), part.keys, self._ends(part.filter))
            case Listed():
                return NONE if self._contained else entries(part)
            case Hierarchy():
                f = self.alias()
                return hierarchy(f, self.conditions.parameters(part.keys, f), part)
            case Composite():
                first = self.sharpest([self.conditions.members(each) for each in part.components])
                return self.conditions.element_members(part, first or 0)
            case Words():
                return NONE if self._contained else matched(self.connection, part)
            case Near():
                place = near(self.connection, part, "a")
                here = self.conditions.parameters(part.keys)
                return sql("SELECT a.resource FROM positions a WHERE {} AND {}", here, place)
            case _:
                return self.conditions.members(part)

    def probe(self, part: Part, column: str) -> Sql:
        """Whether the resource whose key is in the column fits. The column's table has a name of `alias`, or is `r`."""
        match part:
            case All():
                return every(self.probe(each, column) for each in parts(part))
            case Any():
                return either(self.probe(each, column) for each in part.filters)
            case Not():
                return sql("NOT ({})", self.probe(part.filter, column))
            case Together():
                return self.conditions.probe(column, *part.filters)
            case OfTypes() | Ids() | Updated():
                return self._property(part, column)
            case Present():
                return self.conditions.has(column, part.table, part.keys)
            case Chain():
                return exists(self._chain(part, column))
            case ReferredBy():
                return self._referred(part, column)
            case Hierarchy():
                f = self.alias()
                found = hierarchy(f, self.conditions.parameters(part.keys, f), part)
                return sql(f"EXISTS ({{}} AND {f}.resource = {column})", found)
            case Composite():
                return self.conditions.element_probe(column, part)
            case Listed() | Words():
                # They are the same for all resources, so SQLite makes their list once.
                return sql(f"{column} IN ({{}})", self.members(part))
            case Near():
                place = every([self.conditions.parameters(part.keys), near(self.connection, part, "a")])
                return sql(f"EXISTS (SELECT 1 FROM positions a WHERE a.resource = {column} AND {{}})", place)
            case _:
                return self.conditions.probe(column, part)

    def _of_given_types(self, part: OfTypes) -> Sql:
        there = TRUE if self._contained else Sql("deleted = 0")
        return sql(
            f"SELECT key AS resource FROM {self.table} WHERE {{}} AND {{}}", typed("type", part.types), there
        )

    def _property(self, part: OfTypes | Ids | Updated, column: str) -> Sql:
        """A condition on the row of the resource itself."""
        x = self.alias()
        match part:
            case OfTypes():
                condition = typed(f"{x}.type", part.types)
            case Ids():
                condition = among(f"{x}.id", part.ids)
            case Updated():
                condition = FALSE if self._contained else updated(self.connection, part, f"{x}.sequence")
        return sql(f"EXISTS (SELECT 1 FROM {self.table} {x} WHERE {x}.key = {column} AND {{}})", condition)

    # Other resources

    def _ends(self, filter: Filter, types: Sequence[str] | None = None, sign: int = 1) -> Ends:
        """The resources that fit the filter inside of a chain; with `sign` -1 the contained ones."""
        plan = inner = self._of(types, sign)
        keys = inner.keys(filter)
        if keys is None and _has_links(filter):
            # Chains inside of chains would be nested more deeply than SQLite can parse.
            keys = inner.all_keys(filter)

        def fits(column: str) -> Sql:
            if keys is not None:
                return among(column, keys)
            r = self.alias()
            return sql(
                f"EXISTS (SELECT 1 FROM {plan.table} {r} WHERE {r}.key = {column} AND {{}} AND {{}})",
                plan.of_types(r),
                plan.probe(filter, f"{r}.key"),
            )

        return Ends(keys, fits)

    def _of(self, types: Sequence[str] | None, sign: int) -> Plan:
        name = None if types is None else tuple(types), sign
        if name not in self._inner:
            self._inner[name] = Plan(self.connection, types, few=self.few, sign=sign, names=self._names)
        return self._inner[name]

    def _chain(self, part: Chain, column: str | None = None) -> list[Sql]:
        f, s = self.alias(), self.alias()
        references = self.conditions.parameters(part.keys, f)
        ends = self._ends(part.filter, part.types)
        selects = chain(f, s, references, ends, Canonicals(part.urls, part.versions), column)
        if not self._contained:
            inside = self._ends(part.filter, part.types, -1)
            if inside.keys != []:
                c = self.alias()
                there = self._of(part.types, -1).everything(c)
                selects.append(chain_inside(f, c, references, there, inside, column))
        return selects

    def _referred(self, part: ReferredBy, column: str) -> Sql:
        if self._contained:
            # Numbers below 0 stand for URLs in references.
            return FALSE
        ends = self._ends(part.filter)
        if ends.keys is not None:
            return sql(f"{column} IN ({{}})", referred(self.alias(), part.keys, ends))
        return sql("EXISTS ({})", referred(self.alias(), part.keys, ends, column))

    def sharpest(self, selects: Sequence[Sql | None]) -> int | None:
        """The number of the SELECT that finds the fewest, as far as a limited count tells."""
        able = [(number, select) for number, select in enumerate(selects) if select is not None]
        if len(able) < 2:
            return able[0][0] if able else None
        return min((self._counted(select), number) for number, select in able)[1]

    def _counted(self, select: Sql) -> int:
        query = sql("SELECT count(*) FROM (SELECT 1 FROM ({}) LIMIT {})", select, _MOST_COUNTED * self.few)
        return int(self.run(query).fetchone()[0])

    def all_of_many(self, wanted: Sequence[Part]) -> Sql:
        """A condition that gives the resources `r` which fit, where no part is sharp, and all of them are needed."""
        # What isn't sharp at the other end of a reference is best asked from this end.
        selects = [None if isinstance(part, Chain | ReferredBy) else self.members(part) for part in wanted]
        number = self.sharpest(selects)
        chosen = None if number is None else selects[number]
        if number is None or chosen is None or self._counted(chosen) == _MOST_COUNTED * self.few:
            return every([self.everything("r"), *(self.probe(part, "r.key") for part in wanted)])
        rest = (self.probe(part, "r.key") for part in [*wanted[:number], *wanted[number + 1 :]])
        return every([sql("r.key IN ({})", chosen), self.of_types("r"), *rest])

    def stream(self, wanted: Sequence[Part]) -> tuple[tuple[Sql, Sql], list[Part]] | None:
        """A table `a` and a condition on it that give the resources which fit one part in order, and the other parts."""
        able = [
            each for each in wanted if isinstance(each, Tokens | References) and self.conditions.is_one(each)
        ]
        number = self.sharpest([self.members(each) for each in able])
        if number is None:
            return None
        chosen = able[number]
        assert isinstance(chosen, Tokens | References)
        return self.conditions.source(chosen), [each for each in wanted if each is not chosen]


def _has_links(filter: Filter) -> bool:
    match filter:
        case Chain() | ReferredBy():
            return True
        case All() | Any():
            return any(_has_links(each) for each in filter.filters)
        case Not():
            return _has_links(filter.filter)
        case _:
            return False


def parts(filter: Filter) -> list[Part]:
    """The parts of a conjunction, with comparisons of one value together."""
    flat: list[Filter] = []
    waiting = [filter]
    while waiting:
        each = waiting.pop()
        if isinstance(each, All):
            waiting.extend(reversed(each.filters))
        else:
            flat.append(each)
    groups: dict[object, list[ValueFilter]] = {}
    found: list[Part] = []
    for each in flat:
        if isinstance(each, Dates) and each.single:
            groups.setdefault(("dates", each.keys), []).append(each)
        elif isinstance(each, Quantities) and each.single:
            # Numbers of different units are in different rows.
            canonical = each.canonical[0] if each.canonical else None
            groups.setdefault((each.keys, each.system, each.code, canonical), []).append(each)
        else:
            found.append(each)
    return [*(Together(tuple(group)) for group in groups.values()), *found]
