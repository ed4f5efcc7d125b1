"""Histories: which versions, in which order, in pages that hold still. https://hl7.org/fhir/R4/http.html#history"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore import Cursor, Delete, HistoryPage, NotFound, Settings, Snapshot, Store, Unit, Update, Version
from gitstore.fhir.ids import ResourceId
from gitstore.version import ANONYMOUS

SECOND = 1_000_000
START = 1_767_268_800_000_000
A, B = ResourceId("Patient", "a"), ResourceId("Observation", "b")


@pytest.fixture
def told(store: Store, ada: Any) -> Snapshot:
    """At START + 1 s … 6 s: a created, b created, a updated, a deleted, both in one transaction, b deleted."""
    put_a = Update(A, {"resourceType": "Patient", "id": "a"})
    put_b = Update(B, {"resourceType": "Observation", "id": "b"})
    for unit in ([put_a], [put_b], [put_a], [Delete(A)], [put_b, put_a], [Delete(B)]):
        store.commit(unit, ada)
    return store.snapshot()


def names(page: HistoryPage) -> str:
    """`a3 b1`: id and number of each version."""
    return " ".join(f"{version.resource_id.id}{version.version_id}" for version in page.versions)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (None, "b3 a4 b2 a3 a2 b1 a1"),
        ("Patient", "a4 a3 a2 a1"),
        ("Observation", "b3 b2 b1"),
        ("Encounter", ""),
        (A, "a4 a3 a2 a1"),
        (B, "b3 b2 b1"),
    ],
)
def test_a_history_has_every_version_once_newest_first(told, scope, expected):
    """15.2, 15.3: deletions too; within a commit, the later in the Bundle is the newer."""
    page = told.history(scope)

    assert names(page) == expected
    assert page.total == len(expected.split())
    assert page.older is page.newer is None


def test_the_instance_must_have_existed(told):
    with pytest.raises(NotFound):
        told.history(ResourceId("Patient", "b"))


def seconds(number: float) -> int:
    return START + round(number * SECOND)


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (seconds(-100), "b3 a4 b2 a3 a2 b1 a1"),
        (seconds(1), "b3 a4 b2 a3 a2 b1 a1"),
        (seconds(1) + 1, "b3 a4 b2 a3 a2 b1"),
        (seconds(3), "b3 a4 b2 a3 a2"),
        (seconds(3.5), "b3 a4 b2 a3"),
        (seconds(5), "b3 a4 b2"),
        (seconds(6), "b3"),
        (seconds(6) + 1, ""),
        (seconds(1e6), ""),
    ],
)
def test_since_is_at_or_after_an_instant(told, since, expected):
    """15.8: inclusive, to the microsecond."""
    assert names(told.history(since=since)) == expected
    assert told.history(since=since).total == len(expected.split())
    for scope, letter in ((A, "a"), ("Patient", "a"), (B, "b"), ("Observation", "b")):
        of_scope = [name for name in expected.split() if name[0] == letter]
        assert names(told.history(scope, since=since)) == " ".join(of_scope)
        assert told.history(scope, since=since).total == len(of_scope)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((-100, 1), ""),
        ((-100, 1.000001), "a1"),
        ((0, 2), "a1"),
        ((1, 1.000001), "a1"),
        ((1.5, 1.6), "a1"),
        ((2, 3), "b1 a1"),
        ((2.5, 3.000001), "a2 b1 a1"),
        ((3, 3.000001), "a2 b1"),
        ((3.000001, 3.5), "a2 b1"),
        ((4, 4.5), "a3 b1"),
        ((4.9, 5), "a3 b1"),
        ((5, 5.1), "a4 b2"),
        ((4.9, 5.1), "a4 b2 a3 b1"),
        ((6, 7), "b3 a4"),
        ((100, 200), "b3 a4"),
        ((-100, 100), "b3 a4 b2 a3 a2 b1 a1"),
    ],
)
def test_at_is_what_was_current_at_some_time_in_the_period(told, at, expected):
    """15.9: a version is current from its instant until that of the next one, a deletion from then on."""
    period = seconds(at[0]), seconds(at[1])

    assert names(told.history(at=period)) == expected
    assert told.history(at=period).total == len(expected.split())
    for scope, letter in ((A, "a"), ("Patient", "a"), (B, "b"), ("Observation", "b")):
        of_scope = [name for name in expected.split() if name[0] == letter]
        assert names(told.history(scope, at=period)) == " ".join(of_scope)
        assert told.history(scope, at=period).total == len(of_scope)


@pytest.mark.parametrize(
    ("since", "at", "expected"),
    [
        (3, (2, 3.5), "a2"),
        (2.5, (-100, 100), "b3 a4 b2 a3 a2"),
        (5, (4.5, 5.5), "a4 b2"),
        (5.5, (4.5, 5.2), ""),
        (0, (4, 4.5), "a3 b1"),
    ],
)
@pytest.mark.parametrize("scope", [None, A, "Patient"])
def test_since_and_at_together_ask_for_both(told, since, at, expected, scope):
    if scope is not None:
        expected = " ".join(name for name in expected.split() if name[0] == "a")

    page = told.history(scope, since=seconds(since), at=(seconds(at[0]), seconds(at[1])))

    assert (names(page), page.total) == (expected, len(expected.split()))


def test_what_comes_later_changes_no_answer_about_the_past(store, ada, told):
    """Nor one about the future, which a pinned page may ask about."""
    questions: list[dict[str, Any]] = [
        {},
        {"since": seconds(3)},
        {"since": seconds(6.5)},
        {"at": (seconds(6.5), seconds(100))},
        {"at": (seconds(7.5), seconds(100))},
        {"at": (seconds(3), seconds(7.5))},
    ]
    scopes = (None, "Patient", A, B)
    before = [told.history(scope, **question) for question in questions for scope in scopes]
    current = list(told.resources()), told.counts(), told.read(A)

    for _ in range(3):
        store.commit([Update(A, {"resourceType": "Patient", "id": "a"})], ada)
        store.commit([Delete(A)], ada)

    for snapshot in (told, store.snapshot(told.commit.sequence)):
        assert [snapshot.history(scope, **question) for question in questions for scope in scopes] == before
        assert (list(snapshot.resources()), snapshot.counts(), snapshot.read(A)) == current


@pytest.mark.parametrize("sequence", [0, -1, 8, 10**12])
def test_a_commit_that_never_was_has_no_snapshot(store, told, sequence):
    with pytest.raises(NotFound, match=f"no commit number {sequence}"):
        store.snapshot(sequence)


def test_every_snapshot_is_the_record_as_it_was(store, told):
    counts = [store.snapshot(sequence).counts() for sequence in range(1, 8)]

    one, two = {"Patient": 1}, {"Observation": 1, "Patient": 1}
    assert counts == [{}, one, two, two, {"Observation": 1}, two, one]


# Pages


def walk(store: Store, scope: Any, count: int, write: Any, **question: Any) -> list[Version]:
    """All pages to the oldest and back, pinned to the first snapshot, while `write` goes on between them."""
    snapshot = store.snapshot()
    pages = [snapshot.history(scope, count=count, **question)]
    pin = snapshot.commit.sequence
    assert pages[0].newer is None
    while pages[-1].older is not None:
        write()
        link = str(pages[-1].older)
        pages.append(store.snapshot(pin).history(scope, cursor=Cursor.parse(link), count=count, **question))
        assert len(pages) < 1000
    back = [pages[-1]]
    while back[-1].newer is not None:
        write()
        link = str(back[-1].newer)
        back.append(store.snapshot(pin).history(scope, cursor=Cursor.parse(link), count=count, **question))
        assert len(back) < 1000
    assert [page.older for page in reversed(back)] == [page.older for page in pages], (
        "it goes on from anywhere"
    )
    assert {page.total for page in [*pages, *back]} == {pages[0].total}
    assert all(0 < len(page.versions) <= count for page in pages if pages[0].total)
    forward = [version for page in pages for version in page.versions]
    assert [version for page in reversed(back) for version in page.versions] == forward
    return forward


SCOPES = [None, "Patient", "Observation", A, B]


@given(
    st.lists(st.sampled_from("ab+AB"), min_size=1, max_size=12),
    st.sampled_from(SCOPES),
    st.integers(1, 4),
    st.none() | st.integers(0, 8),
    st.none() | st.tuples(st.integers(0, 8), st.integers(1, 4)),
)
@settings(deadline=None, max_examples=40, derandomize=True)
def test_pages_hold_still_while_versions_are_added(new_record, story, scope, count, since, at):
    """15.13: nothing twice and nothing missing, forward and back, for each of the three histories."""
    instants = iter(range(START + SECOND, START + 10**12, SECOND))
    with Store.open(
        new_record(), Settings(durability="off", validation="off"), clock=lambda: next(instants)
    ) as store:

        def step(letter: str) -> None:
            put_a = Update(A, {"resourceType": "Patient", "id": "a"})
            put_b = Update(B, {"resourceType": "Observation", "id": "b"})
            units = {"a": [put_a], "b": [put_b], "+": [put_a, put_b], "A": [Delete(A)], "B": [Delete(B)]}
            store.commit(units[letter], ANONYMOUS)

        for letter in ["+", *story]:
            step(letter)
        question: dict[str, Any] = {"since": seconds(since)} if since is not None else {}
        if at is not None:
            question["at"] = seconds(at[0]), seconds(at[0] + at[1])
        snapshot = store.snapshot()
        expected = snapshot.history(scope, count=1000, **question)

        found = walk(store, scope, count, lambda: step("+"), **question)

        assert found == expected.versions
        assert expected.total == len(found) == len(set(found))


def test_a_count_of_zero_only_counts(told):
    """https://hl7.org/fhir/R4/search.html#count"""
    page = told.history(count=0)

    assert (page.versions, page.total, page.older, page.newer) == ([], 7, None, None)


@pytest.mark.parametrize(
    "cursor", ["o0.0", "n999999999.0", "o999999999.5", "n0.0", "o3.99", f"o{'9' * 18}.{'9' * 18}"]
)
def test_a_cursor_from_nowhere_gives_a_page(told, cursor):
    """A link that someone edited: versions in order, or none; never an error."""
    for scope in SCOPES:
        page = told.history(scope, cursor=Cursor.parse(cursor), count=2)
        everything = told.history(scope).versions
        assert [version for version in everything if version in page.versions] == page.versions


def test_resources_are_listed_in_pieces(store, ada, monkeypatch):
    """By type and id, however many; a new index in between changes nothing."""
    monkeypatch.setattr("gitstore.snapshot._PIECE", 3)
    ids = [f"{number}" for number in range(10)]
    store.commit_each(
        [
            Unit([Update(ResourceId(type, id), {"resourceType": type, "id": id})], ada)
            for id in ids
            for type in ("Patient", "Encounter")
        ]
    )
    listing = store.snapshot().resources()
    first = [next(listing) for _ in range(4)]
    store.reindex()
    assert store.snapshot().counts() == {"Encounter": 10, "Patient": 10}

    found = [str(version.resource_id) for version in [*first, *listing]]

    assert found == [f"{type}/{id}" for type in ("Encounter", "Patient") for id in ids]
    assert [str(v.resource_id) for v in store.snapshot().resources("Patient")] == found[10:]
    assert list(store.snapshot().resources("Nothing")) == []
