"""Whatever is asked, the index finds what the values themselves say. https://hl7.org/fhir/R4/search.html"""

from __future__ import annotations

import itertools
import math
import random
import sqlite3
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import asdict
from random_filters import FILTERS, LEAVES
from selection_model import INSTANTS, NUMBERS, TYPES, World, fits, stored

from gitstore.errors import Invalid, TooCostly
from gitstore.fhir.ids import ResourceId
from gitstore.search import filters as f
from gitstore.search.plans import Plan, parts
from gitstore.search.properties import distance
from gitstore.search.rows import EVER_AFTER, EVER_BEFORE
from gitstore.search.select import limited, matching, page, total
from gitstore.search.sql import sql

QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
COMPARED: tuple[f.Comparison, ...] = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
FEW = st.sampled_from([0, 100, 10_000])
"""With 0 nothing is listed beforehand, and all is asked of each resource; with 100 a first round lists up to two."""


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), FILTERS, st.lists(st.sampled_from(TYPES), min_size=1, unique=True), FEW)
def test_the_matches_are_those_whose_values_fit(seed: int, filter: Any, types: list[str], few: int) -> None:
    """Each filter, nested in any way, agrees with what is said of the lists that the tables were made of."""
    world = World(seed)
    connection = stored(world)
    expected = [one for one in world.current() if one.type in types and fits(world, filter, one)]
    query = f.Query(tuple(types), filter)

    found = page(connection, query, 1000, few=few)

    assert [match.version.resource_id for match in found.matches] == [world.name(one) for one in expected]
    assert total(connection, query, few=few) == len(expected)
    first = [world.name(one) for one in expected if one.type == types[0]][:2]
    assert matching(connection, filter, types[0], few=few) == first


def both_forms(connection: sqlite3.Connection, world: World, filters: Iterable[Any]) -> None:
    """By the index, and asked of each resource, each filter says what the lists say."""
    plan = Plan(connection, TYPES)
    for filter in filters:
        expected = {one.key for one in world.current() if fits(world, filter, one)}
        [part] = parts(filter)
        if (members := plan.members(part)) is not None:
            there = {one.key for one in world.current()}
            assert {key for (key,) in plan.run(members)} & there == expected, filter
        probe = sql("SELECT r.key FROM resources r WHERE r.deleted = 0 AND {}", plan.probe(filter, "r.key"))
        assert {key for (key,) in plan.run(probe)} == expected, filter


def test_each_comparison_of_dates_finds_what_it_says() -> None:
    """All of https://hl7.org/fhir/R4/search.html#prefix, over intervals that touch, hold, overlap and miss each other."""
    world = World(7, size=150)
    ends = list(itertools.combinations([EVER_BEFORE, *INSTANTS, EVER_AFTER], 2))
    alone = [f.Dates((1, 2), comparison, *pair) for comparison in COMPARED for pair in ends]
    some = random.Random(1)
    together = [
        f.All(tuple(f.Dates((1,), some.choice(COMPARED), *some.choice(ends), True) for _ in "ab"))
        for _ in range(300)
    ]
    both_forms(stored(world), world, [*alone, *together])


def test_each_comparison_of_numbers_finds_what_it_says() -> None:
    """Numbers and ranges, with and without units, and in canonical ones."""
    world = World(8, size=150)
    amounts = [f.Amount(low, low, high) for low, high in itertools.combinations(sorted(NUMBERS), 2)]
    amounts += [f.Amount(b"\x02\x01", b"\x02", b"\x03"), f.Amount(b"\x03", b"\x01", b"\x04")]
    units: list[tuple[Any, ...]] = [
        (None, None),
        ("", None),
        (None, "mg"),
        ("http://unitsofmeasure.org", "mg"),
    ]
    filters = [
        f.Quantities((1, 2), comparison, amount, *unit)
        for comparison in COMPARED
        for amount in amounts
        for unit in units
    ]
    canonical = [
        f.Quantities((1,), each.comparison, amounts[0], canonical=("g", each.amount)) for each in filters
    ]
    both_forms(stored(world), world, [*filters, *canonical[::4]])


@settings(max_examples=30, deadline=None, phases=QUICK)
@given(st.integers(0, 10_000), st.lists(LEAVES, min_size=15, max_size=15))
def test_asked_by_an_index_or_of_each_resource_a_filter_says_the_same(seed: int, filters: list[Any]) -> None:
    """What a plan takes first is a matter of time alone."""
    world = World(seed, size=60)
    both_forms(stored(world), world, filters)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10_000),
    FILTERS,
    st.lists(st.sampled_from(TYPES), min_size=1, unique=True),
    FEW,
    st.sampled_from(["true", "both"]),
    st.sampled_from(["container", "contained"]),
)
def test_contained_resources_are_looked_at_where_that_is_asked_for(
    seed: int, filter: Any, types: list[str], few: int, contained: Any, shown: Any
) -> None:
    """https://hl7.org/fhir/R4/search.html#contained"""
    world = World(seed)
    connection = stored(world)
    query = f.Query(tuple(types), filter, contained=contained, contained_type=shown)
    inside = [one for one in world.contained if one.type in types and fits(world, filter, one)]
    own = [one for one in world.current() if one.type in types and fits(world, filter, one)]
    by_key = {one.key: one for one in world.ones}
    expected: list[Any] = [(world.name(one), None) for one in own] if contained == "both" else []
    if shown == "contained":
        expected += [(world.name(by_key[one.container or 0]), one.id) for one in inside]
    else:
        expected += [(world.name(by_key[one.container or 0]), None) for one in inside]
        expected = list(set(expected))

    found = page(connection, query, 1000, few=few).matches

    assert sorted((str(match.version.resource_id), match.contained or "") for match in found) == sorted(
        (str(resource_id), id or "") for resource_id, id in expected
    )
    assert total(connection, query, few=few) == len(expected)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), FILTERS, FILTERS)
def test_no_value_of_a_client_gets_into_a_statement(seed: int, filter: Any, other: Any) -> None:
    """What a statement says depends on how a question is built alone: other texts in it make no other words."""
    connection = stored(World(seed))
    for each in (filter, other):
        spoiled = _spoiled(each)
        if "') --" in repr(spoiled):
            plan = Plan(connection, TYPES, few=0)
            assert "') --" not in plan.probe(spoiled, "r.key").text
            assert all(
                "') --" not in (members.text if (members := plan.members(part)) else "") for part in [spoiled]
            )


def _spoiled(filter: Any) -> Any:
    """The filter with every free text in it made to look like SQL."""
    if isinstance(filter, tuple):
        return tuple(_spoiled(each) for each in filter)
    if not isinstance(filter, Struct):
        return filter
    free = {"code", "system", "values", "ids", "id", "url", "version", "lists"}
    changed = {}
    for name, value in asdict(filter).items():
        if name in free and isinstance(value, str):
            changed[name] = value + "') --"
        elif name in free and isinstance(value, tuple):
            changed[name] = tuple(v + "') --" if isinstance(v, str) else _spoiled(v) for v in value)
        else:
            changed[name] = _spoiled(value)
    return type(filter)(**changed)


def test_words_that_the_index_cannot_take_are_the_clients_fault() -> None:
    """400, not 500: `value` of https://hl7.org/fhir/R4/valueset-issue-type.html"""
    connection = stored(World(1))
    for query in ('"', "a AND", "fever) OR narrative : (cough", "*", "NEAR(a b)"):
        with pytest.raises(Invalid) as refused:
            page(connection, f.Query(("Patient",), f.Words("content", query)), 10)
        assert refused.value.issues[0].code == "value"


def test_half_a_surrogate_pair_is_refused() -> None:
    """JSON can hold one, UTF-8 can't."""
    connection = stored(World(1))
    with pytest.raises(Invalid):
        page(connection, f.Query(("Patient",), f.Strings((1,), "starts", ("\ud800",))), 10)


def test_thousands_of_values_may_be_asked_for() -> None:
    """Value sets are that large, and SQLite's expressions may not be."""
    world = World(3)
    connection = stored(world)
    codes = tuple(f.TokenValue("", f"code{number}") for number in range(5000))
    texts = tuple(f"text{number}" for number in range(3000))
    for filter in (
        f.Tokens((1,), (*codes, f.TokenValue(None, "a"))),
        f.Strings((1,), "starts", (*texts, "ada")),
        f.Strings((1,), "exact", (*texts, "Ada")),
        f.Any((*(f.Strings((1,), "equals", (text,)) for text in texts[:1100]), f.Not(f.Ids(("1",))))),
        f.Ids((*texts, "1")),
    ):
        expected = [world.name(one) for one in world.current() if fits(world, filter, one)]
        for few in (0, 10_000):
            found = page(connection, f.Query(("List", "Observation", "Patient"), filter), 100, few=few)
            assert [match.version.resource_id for match in found.matches] == expected


@pytest.mark.parametrize("few", [0, 10_000])
def test_chains_may_have_many_links(few: int) -> None:
    """Each is asked of what the next one finds, so that no statement gets deeper than SQLite can parse."""
    world = World(4, size=40)
    connection = stored(world)
    filter: Any = f.Not(f.Ids(("none",)))
    for _ in range(4):
        filter = f.Chain((1, 2, 3), TYPES, f.ReferredBy((1, 2, 3), filter), (3,), (3,))
    expected = [world.name(one) for one in world.current() if fits(world, filter, one)]

    found = page(connection, f.Query(TYPES, filter), 100, few=few).matches

    assert [match.version.resource_id for match in found] == expected
    assert total(connection, f.Query(TYPES, filter), few=few) == len(expected)


def test_what_is_nested_too_deeply_is_too_costly() -> None:
    """And no failure of the server."""
    filter: Any = f.Ids(("1",))
    for _ in range(60):
        filter = f.Not(f.Any((filter, f.Ids(("2",)))))
    with pytest.raises(TooCostly):
        page(stored(World(1)), f.Query(TYPES, filter), 10)


def test_a_search_beyond_its_limit_is_too_costly() -> None:
    """`too-costly`, and the connection is as good as before."""
    connection = stored(World(1, size=300))
    query = f.Query(("Patient",), f.All())
    costly = f.Not(f.Chain((1, 2, 3), TYPES, f.Not(f.Strings((1, 2), "contains", ("a",)))))
    with pytest.raises(TooCostly) as refused, limited(connection, 10_000):
        total(connection, f.Query(TYPES, costly), few=0)
    assert refused.value.issues[0].code == "too-costly"
    assert total(connection, query) >= 0
    with pytest.raises(sqlite3.OperationalError), limited(connection, 10_000_000):
        connection.execute("SELECT nothing FROM nowhere")


def test_distances_are_those_of_a_sphere() -> None:
    """Half way round the earth, over the pole, and across the 180th meridian."""
    half = 6371.0088 * math.pi
    assert math.isclose(distance(0, 0, 0, 180), half)
    assert math.isclose(distance(89, 0, 89, 180), half / 90)
    assert math.isclose(distance(0, 179.5, 0, -179.5), half / 180)


def test_what_is_deleted_or_only_mentioned_never_matches() -> None:
    """A row of resources is made for every target of a reference, whether it is there or not."""
    connection = stored(World(5))
    connection.execute("INSERT INTO resources VALUES (900, 102, 'ghost', 0, 1, 0)")
    connection.execute("INSERT INTO refs VALUES (1, 1, 900, '', 0)")
    for filter in (f.Ids(("ghost",)), f.Not(f.Ids(("1",))), f.ReferredBy((1,), f.All()), f.All()):
        for few in (0, 10_000):
            found = page(connection, f.Query(TYPES, filter), 1000, few=few).matches
            assert ResourceId("Patient", "ghost") not in [match.version.resource_id for match in found]
