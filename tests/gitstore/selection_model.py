"""A record made up at random, in the tables of the search index and as lists, and what filters say of the lists."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gitstore.search
from gitstore.fhir.ids import ResourceId
from gitstore.search import filters as f
from gitstore.search.properties import distance
from gitstore.search.rows import CANONICAL, EVER_AFTER, EVER_BEFORE, TYPE_NUMBERS, exact_hash, fold, span_of

TYPES = ("List", "Observation", "Patient")
PARAMETERS = (1, 2, 3)
URL, VERSION = 3, 3
"""Parameters of the tables strings and tokens that stand for the url and version of a canonical."""
SYSTEMS = ("", "http://example.org/a", "http://unitsofmeasure.org")
CODES = ("a", "A", "b", "1.0", "ß")
TEXTS = (
    "Ada",
    "ada",
    "Ädä",
    "adam",
    "b",
    "bob",
    "\U0010ffff",
    "http://x",
    "http://x/1",
    "http://x/1/2",
    "http://x1",
)
WORDS = ("fever", "cough", "Fieber")
DAY = 86_400_000_000
INSTANTS = (-3 * DAY, 0, 1, DAY, 2 * DAY, 40 * DAY, 400 * DAY)
NUMBERS = (*(bytes([number]) for number in range(6)), b"\x02\x01")
UNITS = (("", ""), ("http://unitsofmeasure.org", "mg"), (CANONICAL, "g"), ("", "mg"))
PLACES = ((0.0, 0.0), (0.0, 179.9), (10.0, -179.9), (89.9, 10.0), (89.9, -170.0), (-90.0, 0.0), (48.1, 11.5))
IDS = ("1", "2", "3", "4")


@dataclass
class One:
    """A resource, or a contained one: then `container` is the key of that which contains it. Its rows by table."""

    key: int
    type: str
    id: str
    deleted: bool
    sequence: int
    version: int = 1
    container: int | None = None
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def of(self, table: str, keys: f.Keys) -> list[tuple[Any, ...]]:
        """Rows of these parameters, with the element last and without the parameter."""
        return [row[1:] for row in self.rows.get(table, []) if row[0] in keys]


class World:
    """Resources with random rows. Commits are one microsecond apart, at their sequences."""

    def __init__(self, seed: int, size: int = 14) -> None:
        self.random = random.Random(seed)
        self.ones = [One(n + 1, *self._named(n), self.random.random() < 0.2, n % 5 + 1) for n in range(size)]
        self.contained = [
            One(-n - 1, self.random.choice(TYPES), f"c{n}", False, one.sequence, container=one.key)
            for n in range(size // 3)
            for one in [self.random.choice(self.ones)]
            if not one.deleted
        ]
        for one in [*self.ones, *self.contained]:
            if not one.deleted:
                self._fill(one)

    def _named(self, number: int) -> tuple[str, str]:
        return TYPES[number % 3], IDS[number // 3 % 4] + "x" * (number // 12)

    def _fill(self, one: One) -> None:
        choose, some = self.random.choice, lambda: range(self.random.choice((0, 0, 1, 1, 2)))
        rows: dict[str, set[tuple[Any, ...]]] = {table: set() for table in TABLES}
        for parameter in PARAMETERS:
            for _ in some():
                rows["tokens"].add((parameter, choose(SYSTEMS), choose(CODES), choose((0, 1))))
            for _ in some():
                rows["tokens"].add((parameter + 10, "text", fold(choose(TEXTS)), 0))
            for _ in some():
                text = choose(TEXTS)
                rows["strings"].add((parameter, text, choose((0, 1))))
            for _ in some():
                low, high = sorted(self.random.sample((EVER_BEFORE, *INSTANTS, EVER_AFTER), 2))
                rows["dates"].add((parameter, low, high, choose((0, 1))))
            for _ in some():
                number = choose(NUMBERS)
                low, high = choose(
                    ((number, number), (number, number), tuple(sorted((number, choose(NUMBERS)))))
                )
                rows["quantities"].add((parameter, choose(UNITS), low, high, choose((0, 1))))
            for _ in some():
                target: Any = choose(self.ones).key if self.random.random() < 0.7 else choose(TEXTS)
                rows["refs"].add((parameter, target, choose(("", "", "1", "2", "1.0")), choose((0, 1))))
            for _ in some():
                rows["positions"].add((parameter, *choose(PLACES)))
        if one.container is None:
            words = [
                " ".join(self.random.sample(WORDS, 2)) if self.random.random() < 0.5 else "" for _ in "nc"
            ]
            rows["texts"].add(tuple(words))
        one.rows = {table: sorted(found, key=repr) for table, found in rows.items()}

    def current(self) -> list[One]:
        return [one for one in self.ones if not one.deleted]

    def name(self, one: One) -> ResourceId:
        return ResourceId(one.type, one.id)


TABLES = ("tokens", "strings", "dates", "quantities", "refs", "positions", "texts")


def stored(world: World) -> sqlite3.Connection:
    """The world in the tables of schema.sql."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    folder = Path(gitstore.search.__file__).parent
    connection.executescript((folder / "schema.sql").read_text(encoding="utf-8"))
    execute = connection.execute
    execute("BEGIN")
    execute("INSERT INTO authors VALUES (1, 'Ada', 'ada@example.org')")
    for sequence in range(1, 6):
        execute(
            "INSERT INTO commits (sequence, id, last_updated, interaction, author, versions) VALUES (?, ?, ?, 'update', 1, 0)",
            (sequence, bytes(20), sequence),
        )
    for one in world.ones:
        row = (one.key, TYPE_NUMBERS[one.type], one.id, one.version, one.deleted, one.sequence)
        execute("INSERT INTO resources VALUES (?, ?, ?, ?, ?, ?)", row)
        version = (one.key, one.version, one.sequence, one.key, row[1], one.key)
        execute(
            "INSERT INTO versions VALUES (?, ?, ?, ?, ?, 1, ?, 0, 0, 0, 1, 1, ?, NULL)",
            (*version, None if one.deleted else bytes(20)),
        )
    for one in world.contained:
        execute(
            "INSERT INTO contained VALUES (?, ?, ?, ?)",
            (one.key, one.container, TYPE_NUMBERS[one.type], one.id),
        )
    for one in [*world.ones, *world.contained]:
        _store(connection, one)
    execute("COMMIT")
    return connection


def _store(connection: sqlite3.Connection, one: One) -> None:
    sign = 1 if one.key > 0 else -1
    execute = connection.execute

    def key(insert: str, select: str, *values: Any) -> int:
        execute(insert, values)
        return int(execute(select, values[:2]).fetchone()[0])

    for parameter, system, code, element in one.rows.get("tokens", []):
        minds = system == "http://unitsofmeasure.org"
        execute("INSERT OR IGNORE INTO systems (system, case_sensitive) VALUES (?, ?)", (system, minds))
        (number,) = execute("SELECT key FROM systems WHERE system = ?", (system,)).fetchone()
        term = key(
            "INSERT OR IGNORE INTO terms (system, code) VALUES (?, ?)",
            "SELECT key FROM terms WHERE system = ? AND code = ?",
            number,
            code if minds else code.casefold(),
        )
        execute(
            "INSERT OR IGNORE INTO tokens VALUES (?, ?, ?, ?)", (one.key, sign * parameter, term, element)
        )
    for parameter, text, element in one.rows.get("strings", []):
        # What looks like a URL is one.
        value = text if text.startswith("http") else fold(text)
        row = (one.key, sign * parameter, value, exact_hash(text, value), element)
        execute("INSERT OR IGNORE INTO strings VALUES (?, ?, ?, ?, ?)", row)
    for parameter, low, high, element in one.rows.get("dates", []):
        row = (one.key, sign * parameter, low, high, span_of(low, high), element)
        execute("INSERT INTO dates VALUES (?, ?, ?, ?, ?, ?)", row)
    for parameter, unit, low, high, element in one.rows.get("quantities", []):
        unit_key = key(
            "INSERT OR IGNORE INTO units (system, code) VALUES (?, ?)",
            "SELECT key FROM units WHERE system = ? AND code = ?",
            *unit,
        )
        execute(
            "INSERT INTO quantities VALUES (?, ?, ?, ?, ?, ?)",
            (one.key, sign * parameter, unit_key, low, high, element),
        )
    for parameter, target, version, element in one.rows.get("refs", []):
        number = target
        if isinstance(target, str):
            number = -key(
                "INSERT OR IGNORE INTO urls (url) VALUES (?)", "SELECT key FROM urls WHERE url = ?", target
            )
        execute(
            "INSERT INTO refs VALUES (?, ?, ?, ?, ?)", (one.key, sign * parameter, number, version, element)
        )
    for parameter, latitude, longitude in one.rows.get("positions", []):
        execute("INSERT INTO positions VALUES (?, ?, ?, ?)", (one.key, sign * parameter, latitude, longitude))
    for narrative, content in one.rows.get("texts", []):
        text = execute("INSERT INTO texts (resource, digest) VALUES (?, 0)", (one.key,)).lastrowid
        execute("INSERT INTO words (rowid, narrative, content) VALUES (?, ?, ?)", (text, narrative, content))


# What filters mean


def fits(world: World, filter: Any, one: One) -> bool:
    """https://hl7.org/fhir/R4/search.html, read for one resource at a time."""
    match filter:
        case f.All(parts):
            return all(fits(world, part, one) for part in _together(parts)) and all(
                _comparisons_together(one, group) for group in _singles(filter)
            )
        case f.Any(parts):
            return any(fits(world, part, one) for part in parts)
        case f.Not(part):
            return not fits(world, part, one)
        case f.OfTypes(types):
            return one.type in types
        case f.Ids(ids):
            return one.id in ids
        case f.Updated(comparison, low, high):
            return one.container is None and compare(comparison, one.sequence, one.sequence + 1, low, high)
        case f.Present(table, keys):
            return bool(one.of(table, keys))
        case f.Chain(keys, types, inner, urls, versions):
            return any(
                other.type in types and fits(world, inner, other)
                for target, version, _ in one.of("refs", keys)
                for other in world.current()
                if leads(target, version, other, urls, versions)
            )
        case f.ReferredBy(keys, inner):
            return any(
                target == one.key and fits(world, inner, other)
                for other in world.current()
                for target, *_ in other.of("refs", keys)
            )
        case f.Hierarchy():
            return _in_hierarchy(world, filter, one)
        case f.Listed(lists, keys):
            return any(
                other.type == "List" and other.id in lists and target == one.key
                for other in world.current()
                for target, *_ in other.of("refs", keys)
            )
        case f.Composite(components):
            return any(
                all(element_fits(world, part, one, element) for part in components) for element in (0, 1)
            )
        case f.Words(column, query):
            number = ("narrative", "content").index(column)
            return any(query.lower() in row[number].lower().split() for row in one.rows.get("texts", []))
        case f.Near(keys, latitude, longitude, kilometres):
            return any(distance(latitude, longitude, *row) <= kilometres for row in one.of("positions", keys))
        case _:
            return any(element_fits(world, filter, one, element) for element in (0, 1))


def _singles(filter: f.All) -> list[list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for part in _flat(filter):
        if isinstance(part, f.Dates) and part.single:
            groups.setdefault(part.keys, []).append(part)
    return list(groups.values())


def _flat(filter: f.All) -> list[Any]:
    return [each for part in filter.filters for each in (_flat(part) if isinstance(part, f.All) else [part])]


def _together(parts: Any) -> list[Any]:
    return [part for part in parts if not (isinstance(part, f.Dates) and part.single)]


def _comparisons_together(one: One, group: list[Any]) -> bool:
    return any(
        all(compare(part.comparison, low, high, part.low, part.high) for part in group)
        for low, high, _ in one.of("dates", group[0].keys)
    )


def leads(target: Any, version: str, other: One, urls: f.Keys, versions: f.Keys) -> bool:
    if not isinstance(target, str):
        return bool(target == other.key)
    if target.startswith("http") and target not in [text for text, _ in other.of("strings", urls)]:
        return False
    if not target.startswith("http") and target not in [
        fold(text) for text, _ in other.of("strings", urls) if not text.startswith("http")
    ]:
        return False
    return not version or version in [code.casefold() for _, code, _ in other.of("tokens", versions)]


def _in_hierarchy(world: World, filter: f.Hierarchy, one: One) -> bool:
    family = {each.key for each in world.ones if (each.type, each.id) == (filter.type, filter.id)}
    before: set[int] = set()
    while family != before:
        before = set(family)
        for each in world.current():
            parents = {target for target, *_ in each.of("refs", filter.parents) if isinstance(target, int)}
            if filter.direction == "below" and parents & family:
                family.add(each.key)
            if filter.direction == "above" and each.key in family:
                family |= parents
    return any(target in family for target, *_ in one.of("refs", filter.keys))


def compare(comparison: str, low: Any, high: Any, from_: Any, to: Any) -> bool:
    """Half-open intervals: the resource's, then the search's."""
    return bool(
        {
            "eq": from_ <= low and high <= to,
            "ne": not (from_ <= low and high <= to),
            "gt": high > to,
            "lt": low < from_,
            "ge": low >= from_ or high > to,
            "le": high <= to or low < from_,
            "sa": low >= to,
            "eb": high <= from_,
            "ap": low < to and high > from_,
        }[comparison]
    )


def element_fits(world: World, filter: Any, one: One, element: int) -> bool:
    """Whether an element, by its number, has a value that fits."""
    match filter:
        case f.Tokens(keys, values):
            return any(
                (value.system is None or value.system == system)
                and (value.code is None or _same_code(system, value.code, code))
                for system, code, number in one.of("tokens", keys)
                for value in values
                if number == element
            )
        case f.TokenTexts(keys, match, values):
            return any(
                system == "text" and _text(match, code, value)
                for system, code, number in one.of("tokens", keys)
                for value in values
                if number == element
            )
        case f.Strings(keys, match, values):
            return any(
                _string(match, text, value)
                for text, number in one.of("strings", keys)
                for value in values
                if number == element
            )
        case f.Dates(keys, comparison, from_, to):
            return any(
                compare(comparison, low, high, from_, to)
                for low, high, number in one.of("dates", keys)
                if number == element
            )
        case f.Quantities(keys):
            return any(
                _quantity(filter, unit, low, high)
                for unit, low, high, number in one.of("quantities", keys)
                if number == element
            )
        case f.References(keys, values):
            return any(
                _reference(world, target, version, value)
                for target, version, number in one.of("refs", keys)
                for value in values
                if number == element
            )
    raise AssertionError(filter)


def _same_code(system: str, wanted: str, code: str) -> bool:
    if system == "http://unitsofmeasure.org":
        return wanted == code
    return wanted.casefold() == code.casefold()


def _text(match: str, text: str, value: str) -> bool:
    return {
        "starts": text.startswith(value),
        "contains": value in text,
        "ends": text.endswith(value),
        "equals": text == value,
    }[match]


def _string(match: str, text: str, value: str) -> bool:
    url = text.startswith("http")
    held = text if url else fold(text)
    match match:
        case "exact":
            return (text == value) if not url else False
        case "uri":
            return held == value
        case "below":
            return held == value or held.startswith(value.rstrip("/") + "/")
        case _:
            return _text(match, held, value)


def _quantity(filter: f.Quantities, unit: tuple[str, str], low: bytes, high: bytes) -> bool:
    amount = filter.amount
    if filter.canonical is not None:
        code, amount = filter.canonical
        if unit != (CANONICAL, code):
            return False
    elif unit[0] == CANONICAL or filter.system not in (None, unit[0]) or filter.code not in (None, unit[1]):
        return False
    eq = amount.low <= low and high < amount.high
    return {
        "eq": eq,
        "ne": not eq,
        "gt": high > amount.value,
        "lt": low < amount.value,
        "ge": high >= amount.value,
        "le": low <= amount.value,
        "sa": low > amount.value,
        "eb": high < amount.value,
        "ap": low <= amount.high and high >= amount.low,
    }[filter.comparison]


def _reference(world: World, target: Any, version: str, value: f.ReferenceValue) -> bool:
    if value.version not in (None, version):
        return False
    if value.url is not None or isinstance(target, str):
        return bool(target == value.url)
    other = world.ones[target - 1]
    return value.type in (None, other.type) and value.id == other.id


# What matches are sorted by


def sort_value(world: World, sort: f.SortKey, one: One) -> Any:
    """None where there is none."""
    keys = sort.keys
    match sort.by:
        case "id":
            return one.id
        case "updated":
            return one.sequence
        case "strings":
            found: list[Any] = [
                text if text.startswith("http") else fold(text) for text, _ in one.of("strings", keys)
            ]
        case "dates":
            found = [low for low, *_ in one.of("dates", keys)]
        case "tokens":
            found = [
                code if system == "http://unitsofmeasure.org" else code.casefold()
                for system, code, _ in one.of("tokens", keys)
            ]
        case "quantities":
            rows = one.of("quantities", keys)
            canonical = [row for row in rows if row[0][0] == CANONICAL]
            found = [low for _, low, *_ in canonical or rows]
        case "refs":
            found = [
                target
                if isinstance(target, str)
                else f"{TYPE_NUMBERS[world.ones[target - 1].type]:03}/{world.ones[target - 1].id}"
                for target, *_ in one.of("refs", keys)
            ]
        case "positions":
            found = [latitude for latitude, _ in one.of("positions", keys)]
    if not found:
        return None
    return max(found) if sort.descending else min(found)


def in_order(world: World, sort: tuple[f.SortKey, ...], found: list[One]) -> list[One]:
    ordered = sorted(found, key=lambda one: one.key, reverse=bool(sort) and sort[-1].descending)
    for each in reversed(sort):
        with_value = [one for one in ordered if sort_value(world, each, one) is not None]
        without = [one for one in ordered if sort_value(world, each, one) is None]
        with_value.sort(key=lambda one, each=each: sort_value(world, each, one), reverse=each.descending)
        ordered = [*with_value, *without]
    return ordered
