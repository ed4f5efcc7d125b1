"""Searches go by an index: no statement of a typical one reads a table of values from end to end."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_filters import FILTERS
from selection_model import TYPES, World, stored

from gitstore.search import filters as f
from gitstore.search.includes import include
from gitstore.search.select import page, total

DAY = 86_400_000_000
AMOUNT = f.Amount(b"\x02", b"\x01", b"\x03")
PATIENT = f.Tokens((1,), (f.TokenValue("", "a"),))
FEVER = f.All((f.Dates((1,), "ge", 0, DAY, True), f.Dates((1,), "lt", 2 * DAY, 3 * DAY, True), PATIENT))

QUESTIONS: dict[str, Any] = {
    "code=a": PATIENT,
    "code=system|": f.Tokens((1, 2), (f.TokenValue("http://example.org/a", None),)),
    "code=a,b of any system": f.Tokens((1,), (f.TokenValue(None, "a"), f.TokenValue(None, "b"))),
    "code:text=a": f.TokenTexts((11,), "starts", ("a",)),
    "name=a": f.Strings((1,), "starts", ("a",)),
    "name=a,b,c": f.Strings((1, 2), "starts", ("a", "b", "c")),
    "name:exact=Ada": f.Strings((1,), "exact", ("Ada",)),
    "name:contains=d": f.Strings((1,), "contains", ("d",)),
    "url:below=http://x": f.Strings((1,), "below", ("http://x",)),
    "date=2020": f.Dates((1,), "eq", 0, DAY),
    "date=ge2020&date=lt2021&code=a": FEVER,
    "value=gt5": f.Quantities((1,), "gt", AMOUNT),
    "value=le5|ucum|mg": f.Quantities((1,), "le", AMOUNT, canonical=("g", AMOUNT)),
    "subject=Patient/1": f.References((1,), (f.ReferenceValue("Patient", "1"),)),
    "subject=1": f.References((1, 2), (f.ReferenceValue(None, "1"),)),
    "subject=Patient/1/_history/2": f.References((1,), (f.ReferenceValue("Patient", "1", None, "2"),)),
    "subject.name=a": f.Chain((1,), ("Patient",), f.Strings((1,), "starts", ("a",))),
    "definition.name=a": f.Chain((1,), ("Patient",), f.Strings((1,), "starts", ("a",)), (3,), (3,)),
    "_has": f.ReferredBy((1,), FEVER),
    "composite": f.Composite((PATIENT, f.Quantities((1,), "gt", AMOUNT))),
    "code:not=a": f.Not(PATIENT),
    "code:missing": f.All((f.Not(f.Present("tokens", (1,))), f.Present("dates", (1,)))),
    "partof:below": f.Hierarchy((1,), "Patient", "1", (2,), "below"),
    "_lastUpdated": f.Updated("ge", 2, 3),
    "_list": f.Listed(("1",), (1,)),
    "near": f.Near((1,), 0, 0, 100),
    "_id=1,2": f.Ids(("1", "2")),
    "all": f.All(),
}
SORTS: dict[str, tuple[f.SortKey, ...]] = {
    "": (),
    "-_lastUpdated": (f.SortKey("updated", (), True),),
    "date": (f.SortKey("dates", (1,)),),
    "-date,name": (f.SortKey("dates", (1,), True), f.SortKey("strings", (1,))),
    "code,-value,subject": (
        f.SortKey("tokens", (1,)),
        f.SortKey("quantities", (1,), True),
        f.SortKey("refs", (1,)),
    ),
}
INCLUDES = tuple(f.Include(reverse, (1, 2), frozenset(TYPES), True, (3,), (3,)) for reverse in (False, True))

_READ_THROUGH = re.compile(
    r"SCAN (a|b|f|s|s?u|t\d+u?|tokens|strings|dates|quantities|refs|positions|urls|terms|resources|r)\b"
)


def plans_of(connection: Any, ask: Any) -> list[tuple[str, str]]:
    """The steps of each SELECT that is run while `ask` is, with the SELECT."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    ask()
    connection.set_trace_callback(None)
    return [
        (step, statement)
        for statement in set(statements)
        # Where nothing can fit, SQLite plans, and then does not begin.
        if statement.startswith(("SELECT", "WITH")) and not re.search(r"(WHERE|AND) \(?0\b", statement)
        for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]


@pytest.mark.parametrize("few", [0, 10_000])
@pytest.mark.parametrize("question", QUESTIONS)
def test_no_table_of_values_is_read_through(question: str, few: int) -> None:
    """Whether few fit or many, with any order: `SCAN` of such a table stands in no plan."""
    connection = stored(World(2))
    filter = QUESTIONS[question]

    def ask() -> None:
        for sort in SORTS.values():
            query = f.Query(("Patient",), filter, sort, includes=INCLUDES)
            first = page(connection, query, 2, few=few)
            if first.next:
                page(connection, query, 2, first.next, few=few)
            total(connection, query, few=few)
            include(connection, query, first.matches, 100)

    read_through = [
        (step, statement) for step, statement in plans_of(connection, ask) if _READ_THROUGH.match(step)
    ]
    assert read_through == []


@pytest.mark.parametrize("sort", ["", "-_lastUpdated", "date"])
def test_where_many_fit_nothing_is_sorted_but_a_page(sort: str) -> None:
    """Their order comes from an index; only what has the same value, or is one portion, is sorted."""
    connection = stored(World(2))
    query = f.Query(("Patient",), f.All(), SORTS[sort])
    steps = plans_of(connection, lambda: page(connection, query, 2, few=0))
    sorting = [statement for step, statement in steps if step == "USE TEMP B-TREE FOR ORDER BY"]
    assert all("r.key IN" in statement or "r.key =" in statement for statement in sorting)


@settings(max_examples=60, deadline=None)
@given(FILTERS, st.sampled_from([0, 10_000]))
def test_whatever_is_asked_is_found_by_an_index(filter: Any, few: int) -> None:
    """So it is for filters that nobody has thought of."""
    connection = stored(World(2))
    steps = plans_of(connection, lambda: page(connection, f.Query(TYPES[:1], filter), 2, few=few))
    assert [(step, text) for step, text in steps if _READ_THROUGH.match(step)] == []
