"""Pages of a search: each match once, in order, in both directions. https://hl7.org/fhir/R4/search.html#sort"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_filters import FILTERS
from selection_model import IDS, TYPES, World, fits, in_order, stored

from gitstore.errors import Invalid
from gitstore.search import filters as f
from gitstore.search.select import Cursor, Page, page, total

SORT = st.lists(
    st.builds(
        f.SortKey,
        st.sampled_from(["tokens", "strings", "dates", "quantities", "refs", "positions", "id", "updated"]),
        st.sampled_from([(1,), (2,), (1, 2)]),
        st.booleans(),
    ),
    max_size=3,
).map(tuple)
SIMPLE = st.one_of(st.just(f.All()), FILTERS)


def names(found: Page) -> list[Any]:
    return [match.version.resource_id for match in found.matches]


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 10_000),
    SIMPLE,
    SORT,
    st.lists(st.sampled_from(TYPES), min_size=1, unique=True),
    st.integers(1, 5),
    st.sampled_from([0, 10_000]),
)
def test_pages_show_each_match_once_and_in_order_in_both_directions(
    seed: int, filter: Any, sort: Any, types: list[str], count: int, few: int
) -> None:
    """Forward to the end and back to the beginning, with links that are written down on the way."""
    world = World(seed)
    connection = stored(world)
    matching = [one for one in world.current() if one.type in types and fits(world, filter, one)]
    expected = [world.name(one) for one in in_order(world, sort, matching)]
    query = f.Query(tuple(types), filter, sort)

    pages = [page(connection, query, count, few=few)]
    while (cursor := pages[-1].next) is not None:
        assert len(pages) <= len(expected)
        pages.append(page(connection, query, count, Cursor.parse(str(cursor)), few=few))

    assert [name for each in pages for name in names(each)] == expected
    assert pages[0].previous is None
    assert [len(each.matches) for each in pages[:-1]] == [count] * (len(pages) - 1)
    for before, after in zip(pages[-2::-1], pages[:0:-1], strict=True):
        assert after.previous is not None
        back = page(connection, query, count, Cursor.parse(str(after.previous)), few=few)
        assert names(back) == names(before)
        assert (back.previous is None) == (before.previous is None)
        assert back.next is not None
        assert names(page(connection, query, count, back.next, few=few)) == names(after)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), SIMPLE, SORT, st.integers(1, 3), st.sampled_from(["true", "both"]), st.booleans()
)
def test_pages_of_contained_resources_show_each_match_once(
    seed: int, filter: Any, sort: Any, count: int, contained: Any, containers: bool
) -> None:
    """https://hl7.org/fhir/R4/search.html#contained"""
    connection = stored(World(seed))
    shown: Any = "container" if containers else "contained"
    query = f.Query(TYPES, filter, sort, contained=contained, contained_type=shown)
    whole = page(connection, query, 1000)

    pages = [page(connection, query, count)]
    while (cursor := pages[-1].next) is not None:
        pages.append(page(connection, query, count, cursor))

    assert [match for each in pages for match in each.matches] == whole.matches
    assert len(whole.matches) == total(connection, query)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), SORT, st.integers(1, 5), st.sampled_from([0, 10_000]))
def test_later_pages_leave_out_what_has_changed_since_the_first(
    seed: int, sort: Any, upto: int, few: int
) -> None:
    """Nothing is seen twice, and nothing that has not changed is missed."""
    world = World(seed)
    connection = stored(world)
    query = f.Query(TYPES, f.All(), sort)
    expected = [one for one in world.current() if one.sequence <= upto]

    found = page(connection, query, 1000, upto=upto, few=few)

    assert names(found) == [world.name(one) for one in in_order(world, sort, expected)]
    assert total(connection, query, upto, few=few) == len(expected)


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.integers(-(2**63) + 1, 2**63 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(max_size=200),
            st.binary(max_size=64),
        ),
        max_size=5,
    ).map(tuple),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.booleans(),
)
def test_a_cursor_reads_back_as_it_was_written(values: Any, key: int, backward: bool) -> None:
    """Blobs, texts and numbers alike, in characters that need no escaping in a URL."""
    cursor = Cursor(values, key, backward)
    text = str(cursor)
    assert Cursor.parse(text) == cursor
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(
    st.one_of(
        st.text(max_size=80),
        st.binary(max_size=80).map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("=")),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
            lambda inner: st.lists(inner, max_size=4),
        ).map(lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")),
    )
)
def test_a_cursor_that_was_made_up_is_refused_or_harmless(text: str) -> None:
    """400 `value`, or a place like any other: never a failure of the server."""
    connection = stored(World(1))
    query = f.Query(TYPES, f.All(), (f.SortKey("strings", (1,)),))
    refusal = None
    try:
        page(connection, query, 3, Cursor.parse(text))
    except Invalid as refused:
        refusal = refused
    assert refusal is None or refusal.issues[0].code == "value"


def test_cursors_of_absurd_size_or_depth_are_refused() -> None:
    """They come from outside."""
    deep = base64.urlsafe_b64encode(b"[" * 14_000).decode()
    for text in (deep, "A" * 1_000_000, base64.urlsafe_b64encode(b"[0,1,1e999]").decode().rstrip("=")):
        with pytest.raises(Invalid):
            Cursor.parse(text)


def test_a_cursor_of_another_search_is_refused() -> None:
    """Its values don't belong to what this one is sorted by."""
    with pytest.raises(Invalid):
        page(stored(World(1)), f.Query(TYPES, f.Ids(IDS)), 3, Cursor((1,), 1))


def test_texts_of_any_length_make_short_links() -> None:
    """They are sorted by their beginnings, and equal beginnings by nothing that a link has to hold."""
    world = World(1)
    connection = stored(world)
    connection.execute("DELETE FROM strings")
    for one in world.current():
        text = "ä" * 100_000 + chr(100 - one.key)
        connection.execute("INSERT INTO strings VALUES (?, 1, ?, 0, 0)", (one.key, text))
    for few in (0, 10_000):
        for descending in (False, True):
            query = f.Query(TYPES, f.All(), (f.SortKey("strings", (1,), descending),))
            seen: list[Any] = []
            cursor = None
            while True:
                found = page(connection, query, 2, cursor, few=few)
                seen += names(found)
                cursor = found.next
                if cursor is None:
                    break
                assert len(str(cursor)) < 1000
            keys = sorted((one.key for one in world.current()), reverse=descending)
            assert seen == [world.name(world.ones[key - 1]) for key in keys]
