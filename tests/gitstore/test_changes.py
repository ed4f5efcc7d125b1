"""What changed between two commits, net, and the points at which people name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitstore import Author, Delete, Invalid, NotFound, Settings, Store, Unit, Update, changes, commit_at
from gitstore.changes import Net
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId
from gitstore.snapshot import Snapshot

IDS = [ResourceId("Patient", "a"), ResourceId("Patient", "b"), ResourceId("Basic", "c")]


def write(store: Store, author: Author, steps: list[tuple[int, bool]]) -> None:
    """One commit in which each of the resources is updated or deleted; what isn't there can't be deleted."""
    there = {version.resource_id for version in store.snapshot().resources()}
    interactions = [
        Update(IDS[which], {"resourceType": IDS[which].type, "id": IDS[which].id})
        if written
        else Delete(IDS[which])
        for which, written in dict(steps).items()
        if written or IDS[which] in there
    ]
    if interactions:
        [result] = store.commit_each([Unit(interactions, author, interaction="transaction")])
        assert isinstance(result, list), result


def state(snapshot: Snapshot) -> dict[ResourceId, int]:
    return {version.resource_id: version.version_id for version in snapshot.resources()}


def all_changes(snapshot: Snapshot, after: int, **options: Any) -> list[Net]:
    """All pages, of two entries each."""
    found: list[Net] = []
    cursor = None
    while True:
        page = changes(snapshot, snapshot.past(after).commit, cursor=cursor, count=2, **options)
        found += page.entries
        if page.older is None:
            return found
        assert len(page.entries) == 2
        cursor = page.older


steps = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=3)


@given(st.lists(steps, max_size=6))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_changes_are_the_difference_of_the_states(
    new_record: Callable[[], str], clock: Callable[[], int], commits: list[list[tuple[int, bool]]]
) -> None:
    """Between any two commits of any history: each resource once, and only where the two states differ."""
    author = Author("Grace", "grace@clinic.example")
    with Store.open(new_record(), Settings(durability="off", validation="off"), clock=clock) as store:
        for each in commits:
            write(store, author, each)
        last = store.snapshot().commit.sequence
        for upto in range(1, last + 1):
            snapshot = store.snapshot(upto)
            new = state(snapshot)
            for after in range(1, upto + 1):
                old = state(snapshot.past(after))
                found = all_changes(snapshot, after)
                expected = {
                    id: ("deleted" if id not in new else "updated" if id in old else "created")
                    for id in old.keys() | new.keys()
                    if old.get(id) != new.get(id)
                }
                assert {net.version.resource_id: net.kind for net in found} == expected
                assert len(found) == len(expected)
                places = [(net.version.commit.sequence, net.version.position) for net in found]
                assert places == sorted(places, reverse=True)
                for net in found:
                    before = old.get(net.version.resource_id)
                    assert (net.before.version_id if net.before else None) == before
                of_type = [net for net in found if net.version.resource_id.type == "Basic"]
                assert all_changes(snapshot, after, types=["Basic"]) == of_type
                assert all_changes(snapshot, after, types=["Basic", "Patient", "Basic"]) == found


def test_changes_go_forward(store: Store, grace: Author) -> None:
    write(store, grace, [(0, True)])

    with pytest.raises(Invalid, match="end before they begin"):
        changes(store.snapshot(1), store.snapshot().commit)


def test_a_created_resource_that_was_changed_is_told_as_created(store: Store, grace: Author) -> None:
    """And one that was deleted and revived as updated: as one write would have made it."""
    write(store, grace, [(0, True)])
    middle = store.snapshot().commit
    for written in (False, True):
        write(store, grace, [(0, written)])
    for _ in range(2):
        write(store, grace, [(1, True)])

    found = changes(store.snapshot(), middle).entries

    assert [(net.kind, net.as_written.created, net.as_written.verb) for net in found] == [
        ("created", True, "PUT"),
        ("updated", False, "PUT"),
    ]


# Points


def test_a_point_is_an_instant_a_day_a_commit_or_a_tag(store: Store, grace: Author, git: Any) -> None:
    write(store, grace, [(0, True)])
    first = store.snapshot().commit
    git("tag", "v1.0", first.id)
    write(store, grace, [(1, True)])
    second = store.snapshot().commit

    assert commit_at(store, format_instant(first.last_updated)) == first
    assert commit_at(store, format_instant(first.last_updated - 1)).sequence == first.sequence - 1
    assert commit_at(store, format_instant(second.last_updated)[:10]) == second
    assert commit_at(store, "2999-12-31") == second
    assert commit_at(store, "2999-12-31T23:59:59+01:00") == second
    assert commit_at(store, first.id) == first
    assert commit_at(store, "v1.0") == first


@pytest.mark.parametrize(
    "point", ["v2", "main", "0" * 40, "1970-01-01", "1970-01-01T00:00:00Z", "2026", "-n"]
)
def test_an_unknown_point_is_not_found(store: Store, point: str) -> None:
    """Also a branch: it is no tag, and would name another commit tomorrow."""
    with pytest.raises(NotFound):
        commit_at(store, point)


@pytest.mark.parametrize(
    "point",
    [
        "",
        "a b",
        "HEAD~1",
        "refs/tags/v1",
        "v1^{tree}",
        "2026-02-30",
        "2026-13-01",
        "2026-01-01T25:00:00Z",
        "é",
    ],
)
def test_what_can_be_no_point_is_refused(store: Store, point: str) -> None:
    """Nothing of what is asked over HTTP is a revision to git."""
    with pytest.raises(Invalid):
        commit_at(store, point)
