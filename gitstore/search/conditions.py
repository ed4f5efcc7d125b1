"""Filters of values as SQL: what a row of their table has to be, and which rows an index finds for it.

Each has two forms. `probe` asks of one resource whether it has such a row, by the primary key of the table. `members`
gives the resources that have one, by the index on values. https://hl7.org/fhir/R4/search.html#ptypes
"""

from __future__ import annotations

import json
import sqlite3

from gitstore.search.filters import (
    Amount,
    Composite,
    Dates,
    Keys,
    Quantities,
    References,
    ReferenceValue,
    Strings,
    Table,
    Tokens,
    TokenTexts,
    ValueFilter,
)
from gitstore.search.rows import (
    CANONICAL,
    EVER_AFTER,
    EVER_BEFORE,
    OPEN_SPAN,
    TYPE_NUMBERS,
    exact_hash,
    fold,
    longest,
)
from gitstore.search.sql import FALSE, TRUE, Sql, among, either, every, joined, listed, sql
from gitstore.search.tokens import term_code

SPANS = (*range(13), OPEN_SPAN)
"""All classes of intervals: the 12th holds 16 million days."""
_FEW_TERMS = 50


def table_of(filter: ValueFilter) -> Table:
    """Where the filter's rows are."""
    match filter:
        case Tokens() | TokenTexts():
            return "tokens"
        case Strings():
            return "strings"
        case Dates():
            return "dates"
        case Quantities():
            return "quantities"
        case References():
            return "refs"


class Conditions:
    """Conditions on the rows of resources, or with `sign` -1 on those of contained resources."""

    def __init__(self, connection: sqlite3.Connection, sign: int = 1) -> None:
        self._connection = connection
        self._sign = sign
        self._known: dict[tuple[str, ValueFilter], Sql] = {}

    def parameters(self, keys: Keys, alias: str = "a") -> Sql:
        """The row is one of these parameters."""
        return among(f"{alias}.parameter", [self._sign * key for key in keys])

    def probe(self, column: str, *filters: ValueFilter) -> Sql:
        """Whether the resource in the column has one row that fits all filters, which are of one table."""
        row = self._row("a", *filters)
        if row == FALSE:
            return FALSE
        return sql(
            f"EXISTS (SELECT 1 FROM {table_of(filters[0])} a WHERE a.resource = {column} AND {{}})", row
        )

    def members(self, *filters: ValueFilter) -> Sql:
        """SELECT of the resources that have one row that fits all filters; of some more than once."""
        first, table, row = filters[0], table_of(filters[0]), self._row("a", *filters)
        source = sql(f"SELECT a.resource FROM {table} a")
        if isinstance(first, Dates):
            bounds = joined((sql("({}, {}, {})", *bound) for bound in date_bounds(*filters)), ", ")
            return sql(
                "SELECT a.resource FROM (VALUES {}) spans CROSS JOIN dates a"
                " WHERE a.span = spans.column1 AND a.low BETWEEN spans.column2 AND spans.column3 AND {}",
                bounds,
                row,
            )
        if isinstance(first, Quantities):
            return self._by_amount(row, filters)
        if isinstance(first, Strings) and (ranges := _ranges(first)):
            source = sql("SELECT a.resource FROM json_each({}) j CROSS JOIN strings a", json.dumps(ranges))
            within = "a.value >= j.value ->> 0 AND a.value < j.value ->> 1"
            return sql(f"{{}} WHERE {{}} AND {within}", source, self.parameters(first.keys))
        return sql("{} WHERE {}", source, row)

    def is_one(self, filter: Tokens | References) -> bool:
        """Whether the index gives the resources that fit in the order of their keys: for one term, or one target."""
        condition = self._condition("a", filter).text
        return len(filter.keys) == 1 and condition in ("a.term = ?", "a.target = ?")

    def source(self, filter: Tokens | References) -> tuple[Sql, Sql]:
        """A table `a`, and which of its rows fit."""
        return Sql(f"{table_of(filter)} a"), self._row("a", filter)

    def present(self, table: Table, keys: Keys) -> Sql:
        """SELECT of the resources that have a value at all."""
        return sql(f"SELECT a.resource FROM {table} a WHERE {{}}", self.parameters(keys))

    def has(self, column: str, table: Table, keys: Keys) -> Sql:
        """Whether the resource in the column has a value at all."""
        found = f"SELECT 1 FROM {table} a WHERE a.resource = {column} AND {{}}"
        return sql(f"EXISTS ({found})", self.parameters(keys))

    def element_probe(self, column: str, composite: Composite) -> Sql:
        """Whether the resource in the column has an element that fits all components."""
        return sql("EXISTS ({} AND {})", self._elements(composite, 0), Sql(f"a.resource = {column}"))

    def element_members(self, composite: Composite, first: int) -> Sql:
        """SELECT of the resources with an element that fits all components, from the rows of the component `first`."""
        return self._elements(composite, first)

    def _elements(self, composite: Composite, first: int) -> Sql:
        driver = composite.components[first]
        beside = [
            sql(
                f"EXISTS (SELECT 1 FROM {table_of(other)} b"
                " WHERE b.resource = a.resource AND b.element = a.element AND {})",
                self._row("b", other),
            )
            for number, other in enumerate(composite.components)
            if number != first
        ]
        return sql(
            f"SELECT a.resource FROM {table_of(driver)} a WHERE {{}} AND {{}}",
            self._row("a", driver),
            every(beside),
        )

    # What a row must be

    def _row(self, alias: str, *filters: ValueFilter) -> Sql:
        conditions = [self._condition(alias, each) for each in filters]
        if FALSE in conditions:
            return FALSE
        return every([self.parameters(filters[0].keys, alias), *conditions])

    def _condition(self, alias: str, filter: ValueFilter) -> Sql:
        known = self._known.get((alias, filter))
        if known is None:
            known = self._known[alias, filter] = self._made(alias, filter)
        return known

    def _made(self, alias: str, filter: ValueFilter) -> Sql:
        match filter:
            case Tokens():
                return self._tokens(alias, filter)
            case TokenTexts():
                texts = either(_text("t.code", filter.match, value) for value in filter.values)
                system = self._system(filter.system)
                if system is None:
                    return FALSE
                return sql(
                    f"{alias}.term IN (SELECT t.key FROM terms t WHERE t.system = {{}} AND {{}})",
                    system,
                    texts,
                )
            case Strings():
                return _strings(alias, filter)
            case Dates():
                return _dates(alias, filter)
            case Quantities():
                return _quantities(alias, filter)
            case References():
                return self._references(alias, filter)

    def _tokens(self, alias: str, filter: Tokens) -> Sql:
        systems: list[int] = []
        codes: dict[int, list[str]] = {}
        terms: list[int] = []
        for value in filter.values:
            if value.system is None and value.code is None:
                return TRUE
            if value.system is None:
                terms += self._terms_of_any_system(value.code or "")
            elif (system := self._system(value.system)) is None:
                continue
            elif value.code is None:
                systems.append(system)
            else:
                codes.setdefault(system, []).append(term_code(value.system, value.code))
        for system, of_system in codes.items():
            # By the index on codes: a system may have a hundred thousand.
            query = sql(
                "SELECT key FROM terms WHERE +system = {} AND code IN ({})", system, listed(of_system)
            )
            terms += [key for (key,) in self._connection.execute(query.text, query.values)]
        if not systems:
            return among(f"{alias}.term", self._met(filter.keys, sorted(set(terms))))
        return sql(
            f"{alias}.term IN (SELECT key FROM terms WHERE system IN ({{}})"
            " UNION ALL SELECT value FROM json_each({}))",
            listed(systems),
            json.dumps(terms),
        )

    def _met(self, keys: Keys, terms: list[int]) -> list[int]:
        """Those of a few terms that resources have: mostly one, as a code of any system is written in one only."""
        if not 1 < len(terms) <= _FEW_TERMS:
            return terms
        query = sql(
            "SELECT j.value FROM json_each({}) j WHERE EXISTS (SELECT 1 FROM tokens a WHERE {} AND a.term = j.value)",
            json.dumps(terms),
            self.parameters(keys),
        )
        return [term for (term,) in self._connection.execute(query.text, query.values)]

    def _terms_of_any_system(self, code: str) -> list[int]:
        query = sql(
            "SELECT t.key FROM terms t JOIN systems s ON s.key = t.system"
            " WHERE t.code IN ({}, {}) AND t.code = CASE WHEN s.case_sensitive THEN {} ELSE {} END",
            *(code, code.casefold()) * 2,
        )
        return [key for (key,) in self._connection.execute(query.text, query.values)]

    def _system(self, system: str) -> int | None:
        query = sql("SELECT key FROM systems WHERE system = {}", system)
        row = self._connection.execute(query.text, query.values).fetchone()
        return row[0] if row else None

    def _references(self, alias: str, filter: References) -> Sql:
        free: list[int] = []
        bound: dict[tuple[str, bool], list[int]] = {}
        for value in filter.values:
            found = self._targets(value)
            if value.version is None:
                free += found
            else:
                bound.setdefault((value.version, value.below), []).extend(found)
        conditions = [among(f"{alias}.target", free)]
        conditions += [
            every([_version(f"{alias}.version", version, below), among(f"{alias}.target", targets)])
            for (version, below), targets in bound.items()
            if targets
        ]
        fits = either(conditions)
        if fits == FALSE or not bound:
            return fits
        # The index knows the target; the version is looked at in what it finds.
        targets = [*free, *(target for each in bound.values() for target in each)]
        return every([among(f"{alias}.target", targets), fits])

    def _targets(self, value: ReferenceValue) -> list[int]:
        if value.url is not None:
            query = sql("SELECT -key FROM urls WHERE url = {}", value.url)
        else:
            types = list(TYPE_NUMBERS.values()) if value.type is None else [TYPE_NUMBERS[value.type]]
            query = sql("SELECT key FROM resources WHERE type IN ({}) AND id = {}", listed(types), value.id)
        return [key for (key,) in self._connection.execute(query.text, query.values)]

    def _by_amount(self, row: Sql, filters: tuple[ValueFilter, ...]) -> Sql:
        """By the least number; ranges that begin lower than what is looked for have an index of their own."""
        source = "SELECT a.resource FROM quantities a WHERE {} AND {}"
        lowest = [
            amount.low if filter.comparison == "ap" else amount.value
            for filter in filters
            if isinstance(filter, Quantities) and filter.comparison in ("gt", "ge", "ap")
            for amount in [filter.canonical[1] if filter.canonical else filter.amount]
        ]
        if not lowest:
            return sql(source, row, TRUE)
        least = max(lowest)
        return sql(
            f"{source} UNION ALL {source}",
            row,
            sql("a.low >= {}", least),
            row,
            sql("(a.low <> a.high AND a.low < {})", least),
        )


def prefix_end(text: str) -> str | None:
    """The least text that is greater than all that begin with this one; None where there is none."""
    while text:
        last = ord(text[-1]) + 1
        if last <= 0x10FFFF:
            # Half a surrogate pair is no character: the next one that is.
            return text[:-1] + chr(0xE000 if 0xD800 <= last < 0xE000 else last)
        text = text[:-1]
    return None


def _ranges(filter: Strings) -> list[tuple[str, str]]:
    """Half-open ranges of values for several beginnings; none where there are not several, or it is no such filter."""
    if filter.match != "starts" or len(filter.values) < 2:
        return []
    ranges = [(value, prefix_end(value)) for value in filter.values]
    # SQLite ends a text of JSON at a NUL.
    found = [(low, high) for low, high in ranges if high is not None and "\0" not in low]
    return found if len(found) == len(ranges) else []


def _text(column: str, match: str, value: str) -> Sql:
    match match:
        case "starts":
            end = prefix_end(value)
            upper = TRUE if end is None else sql(f"{column} < {{}}", end)
            return every([sql(f"{column} >= {{}}", value), upper])
        case "contains":
            return sql(f"instr({column}, {{}}) > 0", value)
        case "ends":
            return sql(f"substr({column}, {{}}) = {{}}", -len(value), value) if value else TRUE
        case _:
            return sql(f"{column} = {{}}", value)


def _version(column: str, version: str, below: bool) -> Sql:
    is_it = sql(f"{column} = {{}}", version)
    # After the dot comes whatever is less than a slash, the next character.
    return (
        either([is_it, sql(f"{column} > {{}} AND {column} < {{}}", version + ".", version + "/")])
        if below
        else is_it
    )


def _strings(alias: str, filter: Strings) -> Sql:
    column = f"{alias}.value"
    match filter.match:
        case "exact":
            folded = [(value, exact_hash(text, value)) for text in filter.values for value in [fold(text)]]
            pairs = sql(
                f"({column}, {alias}.exact) IN (SELECT j.value ->> 0, j.value ->> 1 FROM json_each({{}}) j)",
                json.dumps(folded),
            )
            # For the index the values alone: it doesn't take pairs apart.
            return every([among(column, [value for value, _ in folded]), pairs])
        case "equals" | "uri":
            return among(column, filter.values)
        case "below":
            return either(
                part
                for value in filter.values
                for part in (
                    sql(f"{column} = {{}}", value),
                    _text(column, "starts", value if value.endswith("/") else f"{value}/"),
                )
            )
        case _:
            return either(_text(column, filter.match, value) for value in filter.values)


def _dates(alias: str, filter: Dates) -> Sql:
    """https://hl7.org/fhir/R4/search.html#prefix, both sides being half-open intervals."""
    low, high = f"{alias}.low", f"{alias}.high"
    text = {
        "eq": f"({low} >= {{0}} AND {high} <= {{1}})",
        "ne": f"({low} < {{0}} OR {high} > {{1}})",
        "gt": f"{high} > {{1}}",
        "lt": f"{low} < {{0}}",
        "ge": f"({low} >= {{0}} OR {high} > {{1}})",
        "le": f"({high} <= {{1}} OR {low} < {{0}})",
        "sa": f"{low} >= {{1}}",
        "eb": f"{high} <= {{0}}",
        "ap": f"({low} < {{1}} AND {high} > {{0}})",
    }[filter.comparison]
    return _numbered(text, filter.low, filter.high)


def _numbered(template: str, *values: int | bytes) -> Sql:
    """A template whose places name the values by number: `{0}`."""
    order = [values[int(part[0])] for part in template.split("{")[1:]]
    return sql(template.replace("{0}", "{}").replace("{1}", "{}").replace("{2}", "{}"), *order)


def date_bounds(*filters: ValueFilter) -> list[tuple[int, int, int]]:
    """For each class of intervals the least and greatest `low` of those that can fit all filters."""
    bounds = []
    for span in SPANS:
        reach = EVER_AFTER - EVER_BEFORE if span == OPEN_SPAN else longest(span)
        least, most = EVER_BEFORE, EVER_AFTER
        for filter in filters:
            if not isinstance(filter, Dates):
                continue
            low, high = filter.low, filter.high
            lowest = {
                "eq": low,
                "sa": high,
                "gt": high - reach,
                "ap": low - reach,
                "ge": min(low, high - reach),
            }
            greatest = {"eq": high, "lt": low, "le": max(low, high), "eb": low, "ap": high}
            least = max(least, lowest.get(filter.comparison, least))
            most = min(most, greatest.get(filter.comparison, most))
        bounds.append((span, least, most))
    return bounds


def _quantities(alias: str, filter: Quantities) -> Sql:
    if filter.canonical is not None:
        code, amount = filter.canonical
        chosen = sql("system = {} AND code = {}", CANONICAL, code)
    else:
        amount = filter.amount
        chosen = sql("system <> {}", CANONICAL)
        if filter.system is not None:
            chosen = sql("{} AND system = {}", chosen, filter.system)
        if filter.code is not None:
            chosen = sql("{} AND code = {}", chosen, filter.code)
    unit = sql(f"{alias}.unit IN (SELECT key FROM units WHERE {{}})", chosen)
    return sql("({} AND {})", unit, _amount(alias, filter.comparison, amount))


def _amount(alias: str, comparison: str, amount: Amount) -> Sql:
    low, high = f"{alias}.low", f"{alias}.high"
    text = {
        "eq": f"({low} >= {{1}} AND {low} < {{2}} AND {high} < {{2}})",
        "ne": f"({low} < {{1}} OR {high} >= {{2}})",
        "gt": f"{high} > {{0}}",
        "lt": f"{low} < {{0}}",
        "ge": f"{high} >= {{0}}",
        "le": f"{low} <= {{0}}",
        "sa": f"{low} > {{0}}",
        "eb": f"({low} < {{0}} AND {high} < {{0}})",
        "ap": f"({low} <= {{2}} AND {high} >= {{1}})",
    }[comparison]
    return _numbered(text, amount.value, amount.low, amount.high)
