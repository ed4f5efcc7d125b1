"""What is brought in beside the matches. https://hl7.org/fhir/R4/search.html#revinclude"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_model import PARAMETERS, TYPES, URL, VERSION, One, World, leads, stored

from gitstore.errors import TooCostly
from gitstore.search import filters as f
from gitstore.search.includes import include
from gitstore.search.select import page

INCLUDES = st.lists(
    st.builds(
        f.Include,
        st.booleans(),
        st.lists(st.sampled_from(PARAMETERS), min_size=1, unique=True).map(tuple),
        st.lists(st.sampled_from(TYPES), min_size=1).map(frozenset),
        st.booleans(),
        st.sampled_from([(), (URL,)]),
        st.just((VERSION,)),
    ),
    max_size=3,
).map(tuple)


def brought_in(world: World, includes: tuple[f.Include, ...], matches: list[One]) -> set[str]:
    """What includes bring in, told one reference at a time: as `Type/id` or `Type/id/_history/n`."""
    there, past = {one.key for one in matches}, set()
    sources, first = list(matches), True
    while sources:
        found: list[One] = []
        for each in includes:
            if not (first or each.iterate):
                continue
            for source in sources:
                found += _step(world, each, source, past)
        sources = [one for one in {one.key: one for one in found}.values() if one.key not in there]
        there |= {one.key for one in sources}
        first = False
    newest = {f"{world.name(one)}" for one in world.ones if one.key in there}
    named = {
        str(world.name(one))
        for one in world.ones
        if one.key in past and one.key not in there and not one.deleted
    }
    return (newest | named) - {str(world.name(one)) for one in matches}


def _step(world: World, each: f.Include, source: One, past: set[int]) -> list[One]:
    found = []
    for other in world.current():
        start, end = (other, source) if each.reverse else (source, other)
        for target, version, _ in start.of("refs", each.keys):
            if other.type not in each.types:
                continue
            if isinstance(target, str):
                if each.urls and leads(target, version, end, each.urls, each.versions):
                    found.append(other)
            elif target == end.key:
                if each.reverse or not version:
                    found.append(other)
                elif version == "1":
                    past.add(end.key)
    return found


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), INCLUDES, st.sampled_from(TYPES))
def test_what_is_brought_in_is_what_references_lead_to(seed: int, includes: Any, type: str) -> None:
    """Each once, never a match again, nothing that is deleted, and a named version as that version."""
    world = World(seed)
    connection = stored(world)
    query = f.Query((type,), f.All(), includes=includes)
    matches = page(connection, query, 3).matches
    keys = {str(world.name(one)): one for one in world.ones}

    found = include(connection, query, matches, 100)

    names = [str(version.resource_id) for version in found]
    assert len(names) == len(set(names))
    expected = brought_in(world, includes, [keys[str(match.version.resource_id)] for match in matches])
    assert set(names) == expected
    assert not [version for version in found if version.deleted]


def test_a_reference_to_a_version_brings_in_that_version() -> None:
    """And the newest beside it where something refers to that. https://hl7.org/fhir/R4/references.html#Reference"""
    world = World(1)
    connection = stored(world)
    first, second = [one for one in world.current() if one.type == "Patient"][:2]
    connection.execute("DELETE FROM refs")
    connection.execute("UPDATE resources SET version = 2 WHERE key = ?", (second.key,))
    connection.execute(
        "INSERT INTO versions SELECT resource, 2, 5, 100, type, 1, 100, 0, 0, 0, 1, 0, blob, NULL FROM versions WHERE resource = ?",
        (second.key,),
    )
    connection.execute("INSERT INTO refs VALUES (?, 1, ?, '1', 0)", (first.key, second.key))
    query = f.Query(
        ("Patient",), f.Ids((first.id,)), includes=(f.Include(False, (1,), frozenset({"Patient"})),)
    )
    matches = page(connection, query, 3).matches

    assert [str(version) for version in include(connection, query, matches, 10)] == [
        f"{world.name(second)}/_history/1"
    ]

    connection.execute("INSERT INTO refs VALUES (?, 1, ?, '', 0)", (first.key, second.key))
    connection.execute("INSERT INTO refs VALUES (?, 1, ?, '7', 0)", (first.key, second.key))

    assert [str(version) for version in include(connection, query, matches, 10)] == [
        f"{world.name(second)}/_history/2",
        f"{world.name(second)}/_history/1",
    ]


def test_more_than_the_limit_is_too_costly() -> None:
    """As many as the limit are not."""
    world = World(1)
    connection = stored(world)
    connection.execute("DELETE FROM refs")
    target, *others = world.current()
    for one in others:
        connection.execute("INSERT INTO refs VALUES (?, 1, ?, '', 0)", (one.key, target.key))
    query = f.Query(
        TYPES,
        f.All((f.Ids((target.id,)), f.OfTypes((target.type,)))),
        includes=(f.Include(True, (1,), frozenset(TYPES)),),
    )
    matches = page(connection, query, 10).matches
    assert len(matches) == 1

    assert len(include(connection, query, matches, len(others))) == len(others)
    with pytest.raises(TooCostly):
        include(connection, query, matches, len(others) - 1)
