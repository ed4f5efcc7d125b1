"""What clients ask for every day goes by an index, from the text of the query to the last statement that it runs."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest

from benchmarks.patients import Person, Population
from benchmarks.questions import LONG, QUESTIONS
from gitstore import Store
from gitstore.fhir.ids import ResourceId
from gitstore.search.criteria import parse
from gitstore.search.includes import include
from gitstore.search.parameters import Registry
from gitstore.search.select import page, total

_NAMES = re.compile(r"\b(tokens|strings|dates|quantities|refs|positions)\b(?: (?!WHERE|CROSS|LEFT)(\w+))?")
"""A table of values in a statement, and the name that it has there."""
_ALL_REFERENCES = re.compile(r"\(parameter=\?( AND target>\?)?\)$")
"""The end of a step that finds no one's references but everyone's: on a large record, all there are."""


@pytest.fixture(scope="module")
def people() -> tuple[Person, list[dict[str, Any]]]:
    """One patient, with all that is said of them."""
    return Population.made().patient(0)


@pytest.fixture(scope="module")
def store(store_of: Callable[..., Store], people: tuple[Person, list[dict[str, Any]]]) -> Store:
    return store_of([*Population.made().shared, *people[1]])


@pytest.fixture
def connection(store: Store) -> Iterator[sqlite3.Connection]:
    """Inside a read transaction, as in Store.reading."""
    with store._index.reading() as reader:
        yield reader


def plans(connection: sqlite3.Connection, ask: Callable[[], object]) -> list[tuple[str, str, str]]:
    """The steps on tables of values in the plans of all SELECTs that are run while asking: table, step, SELECT."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    try:
        ask()
    finally:
        connection.set_trace_callback(None)
    found = []
    for select in dict.fromkeys(statements):
        if not select.startswith(("SELECT", "WITH")):
            continue
        tables = {name or table: table for table, name in _NAMES.findall(select)}
        for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {select}"):
            named = re.match(r"(?:SCAN|SEARCH) (\w+)", step)
            if named and named[1] in tables:
                found.append((tables[named[1]], step, select))
    return found


def read_through(steps: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    return [(step, select) for _, step, select in steps if step.startswith("SCAN")]


@pytest.mark.parametrize("few", [0, 10_000])
@pytest.mark.parametrize("question", [*QUESTIONS, LONG])
def test_no_everyday_search_reads_a_table_of_values_through(
    connection: sqlite3.Connection, people: tuple[Person, Any], question: str, few: int
) -> None:
    """Whether few resources fit each of its parts or many: the first page, the next, the total, and what is included."""
    person, _ = people
    path, _, query = question.format(**{name: getattr(person, name) for name in Person.__slots__}).partition(
        "?"
    )
    compartment = None
    types = (path,) if path else ()
    if "/" in path:
        type, id, what = path.split("/")
        compartment, types = ResourceId(type, id), () if what == "*" else (what,)
    pairs = parse_qsl(query)
    asked = parse(Registry(), types, pairs, compartment=compartment, strict=True, now=0)

    def ask() -> None:
        first = page(connection, asked, 2, few=few)
        total(connection, asked, few=few)
        include(connection, asked, first.matches, 100)
        if first.next is not None:
            page(connection, asked, 2, first.next, few=few)

    steps = plans(connection, ask)

    assert steps or all(name.startswith("_") for name, _ in pairs)
    assert read_through(steps) == []
    if few:
        assert [each for each in steps if each[0] == "refs" and _ALL_REFERENCES.search(each[1])] == []


def test_everyday_searches_of_the_made_record_find_something(
    store: Store, people: tuple[Person, Any]
) -> None:
    """A plan of a statement that is never run would prove nothing."""
    person, _ = people
    text = LONG.partition("?")[2]
    with store.reading() as snapshot:
        found = snapshot.search(("Observation",), [*parse_qsl(text), ("patient", person.id)])
    assert found.total == 10


def test_a_scan_is_noticed(connection: sqlite3.Connection) -> None:
    """The guard itself finds a statement that no index serves, and one that walks all references of a parameter."""

    def steps(query: str) -> list[tuple[str, str, str]]:
        return plans(connection, lambda: connection.execute(query).fetchall())

    query = "SELECT 1 FROM resources r CROSS JOIN dates d WHERE d.high = r.key"
    assert [select for _, select in read_through(steps(query))] == [query]
    query = "SELECT f.resource FROM refs f WHERE f.parameter = 1 AND f.target > 0"
    [(table, step, _)] = steps(query)
    assert table == "refs"
    assert _ALL_REFERENCES.search(step)
