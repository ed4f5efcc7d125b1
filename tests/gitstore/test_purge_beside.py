"""A purge beside others who read and write, and who had begun before. docs/security.md, "Erasure" """

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from purges import (
    ADA,
    OTHER,
    PATIENT,
    PLAIN,
    gone,
    purge,
    put,
    told,
    traces,
)

from gitstore import (
    Access,
    Gone,
    Grant,
    Locked,
    NotFound,
    Patch,
    Restore,
    Settings,
    Store,
    StoreError,
    Unit,
)
from gitstore.fhir.ids import VersionId
from gitstore.git import swap as swap_module
from gitstore.queue import Pending


def test_another_store_that_is_open_serves_nothing_of_it(
    store: Store, record: str, clock: Callable[[], int]
) -> None:
    """Neither from its memory nor from packs that it has open, from its next look on."""
    version = put(store, PATIENT, "Marker")
    put(store, PATIENT, "Second")
    with Store.open(record, PLAIN, clock=clock) as other:
        assert b"Marker" in other.snapshot().body(version)

        purge(store, "Patient/a/_history/1")

        gone(other, "Patient/a/_history/1")
        with pytest.raises(StoreError):
            other.snapshot().body(version)  # as one that had asked for the version before would
        put(other, OTHER, "It goes on")
        assert list(other.verify()) == []


def test_writes_are_refused_meanwhile_and_reads_go_on(
    store: Store, record: str, clock: Callable[[], int]
) -> None:
    """503 at once, rather than after a time-out; what is read is the record as it was."""
    put(store, PATIENT, "Marker")
    seen: list[object] = []
    with Store.open(record, PLAIN, clock=clock) as other:

        def look(_done: int, _total: int) -> None:
            seen.append(other.snapshot().read(PATIENT).version_id)
            try:
                put(other, OTHER, "Not now")
            except Locked as error:
                seen.append(str(error))

        swap_begin = swap_module.Swap.prepare

        def prepare(self: Any, *arguments: Any) -> None:
            thread = threading.Thread(target=look, args=(0, 0))
            thread.start()
            thread.join()
            swap_begin(self, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(swap_module.Swap, "prepare", prepare)
            purge(store, "Patient/a")

        assert seen[0] == 1
        assert "being purged" in str(seen[1])
        gone(other, "Patient/a")


def test_a_ref_that_moves_meanwhile_ends_it(store: Store, record: str, git: Callable[..., str]) -> None:
    """Nothing has happened then."""
    put(store, PATIENT, "Marker")
    before = told(store)
    begin = swap_module.Swap.prepare

    def prepare(self: Any, *arguments: Any) -> None:
        git("tag", "meanwhile")
        begin(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swap_module.Swap, "prepare", prepare)
        with pytest.raises(StoreError, match="meanwhile"):
            purge(store, "Patient/a")

    assert told(store) == before
    assert not Path(record, "git-fhir", "purge").exists()
    assert not list(Path(record, "refs").rglob("*.lock"))
    purge(store, "Patient/a")
    assert traces(record, "Marker") == []


def waiting(store: Store, interaction: Any) -> Pending:
    """A write that was prepared, and waits for the lock."""
    return Pending(store._prepare(Unit([interaction], ADA)))


def test_what_was_prepared_before_does_not_bring_it_back(store: Store, record: str) -> None:
    """A restore of what is purged while it waits, and a patch of it, are refused as Gone."""
    put(store, PATIENT, "Marker")
    put(store, PATIENT, "Second")
    put(store, OTHER, "Marker")
    with Store.open(record, PLAIN) as other:
        restore = waiting(other, Restore(PATIENT, VersionId(1)))
        patch = waiting(other, Patch(OTHER, lambda before: ({**before, "gender": "female"}, ())))

        purge(store, "Patient/a/_history/1", "Patient/b")

        for pending in (restore, patch):
            other._queue.submit([pending])
            other._queue.wait(pending)
        assert isinstance(restore.error, Gone)
        assert isinstance(patch.error, Gone)
    assert traces(record, "Marker") == []


def test_who_sees_a_part_only_does_not_hear_that_there_was_something(store: Store) -> None:
    """Whether they might have seen it can't be told any more: 404, and not 410."""
    put(store, PATIENT, "First")
    put(store, PATIENT, "Second")
    purge(store, "Patient/a/_history/1")
    access = Access((Grant("Patient", frozenset("rs"), query=(("_id", "a"),)),))

    with pytest.raises(NotFound) as refusal:
        store.snapshot(access=access).vread(PATIENT, VersionId(1))
    assert not isinstance(refusal.value, Gone)
    assert store.snapshot(access=access).read(PATIENT).version_id == 2


def test_a_record_without_search_is_purged_as_any(record: str, clock: Callable[[], int]) -> None:
    with Store.open(record, Settings(durability="off", validation="off", search="off"), clock=clock) as store:
        put(store, PATIENT, "Marker")
        purge(store, "Patient/a")

        gone(store, "Patient/a")
        assert traces(record, "Marker") == []
        assert list(store.verify()) == []
