"""Time that doesn't pass, and many who write at once. docs/architecture.md, "Writing" """

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gitstore import (
    Ask,
    Author,
    Create,
    Locked,
    Settings,
    Snapshot,
    StorageFull,
    Store,
    StoreError,
    Unit,
    Update,
    VersionMismatch,
    durable,
)
from gitstore.errors import NotConfirmed, StorageFailed
from gitstore.fhir.ids import ResourceId
from gitstore.git import writer
from gitstore.git.writer import Writer
from gitstore.queue import Pending

START = 1_767_268_800_000_000
PATIENT = ResourceId("Patient", "p")


def update(if_match: int | None = None, **elements: Any) -> Update:
    resource = {"resourceType": "Patient", "id": "p"} | elements
    return Update(PATIENT, resource, if_match=frozenset([str(if_match)]) if if_match else None)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([1, 1, 1], [1, 2, 3]),
        ([10, 5, 0, 11, 20], [10, 11, 12, 13, 20]),
        ([-(10**9), 3], [1, 3]),
        ([0, 0], [1, 2]),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_last_updated_increases_whatever_the_clock_does(record, ada, times, expected, grouped):
    """Strictly along the branch, by a microsecond where the clock stands still or steps back."""
    ticks = iter([START + time for time in times])
    with Store.open(record, Settings(durability="off", validation="off"), clock=lambda: next(ticks)) as store:
        if grouped:
            results = store.commit_each([Unit([update()], ada) for _ in times])
            made = [result[0].version for result in results if not isinstance(result, StoreError)]
        else:
            made = [store.commit([update()], ada)[0].version for _ in times]

        assert [version.last_updated - START for version in made if version] == expected
        assert list(store.verify()) == []


def test_units_so_large_that_little_is_kept_of_them_share_a_group(store, ada):
    """What comes after them builds on their trees, which are only on their way to disk, and nothing on one that failed."""

    def large(id: str) -> Update:
        resource = {"resourceType": "Binary", "id": id, "contentType": "text/plain", "data": "AAAA" * 400_000}
        return Update(ResourceId("Binary", id), resource)

    def refuse(snapshot: Snapshot) -> None:
        raise Locked(f"{snapshot.read(ResourceId('Binary', 'b'))} may not be there.")

    units = [Unit([large("a")], ada), Unit([update()], ada)]
    units.append(Unit([large("b"), Ask(refuse)], ada, interaction="transaction"))
    units += [Unit([large("c")], ada), Unit([update(language="en")], ada)]
    results = store.commit_each(units)

    assert [isinstance(result, Locked) for result in results] == [False, False, True, False, False]
    snapshot = store.snapshot()
    assert [snapshot.newest(ResourceId("Binary", id)) is not None for id in "abc"] == [True, False, True]
    assert snapshot.read(PATIENT).version_id == 2
    assert list(store.verify()) == []


def test_many_threads_write_and_every_version_is_there(store, ada):
    """No gap, nothing lost, each told the version that is its own."""
    told: list[tuple[int, str]] = []

    def work(name: str) -> None:
        for number in range(25):
            [outcome] = store.commit([update(language=f"{name}-{number}")], ada)
            assert outcome.version is not None
            told.append((outcome.version.version_id, f"{name}-{number}"))

    run_all([lambda name=str(n): work(name) for n in range(8)])

    assert sorted(version for version, _ in told) == list(range(1, 201))
    snapshot = store.snapshot()
    for version_id, language in told:
        assert f'"language": "{language}"'.encode() in snapshot.body(snapshot.vread(PATIENT, version_id))
    assert snapshot.history(PATIENT, count=1000).total == 200
    assert list(store.verify()) == []


def run_all(works: list[Any]) -> None:
    """Each in a thread of its own; the first error of any is raised here."""
    errors: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # raised again below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_of_many_with_one_if_match_exactly_one_wins(store, ada):
    """7.8: check and write are one step."""
    store.commit([update()], ada)
    results: list[Any] = []

    def work() -> None:
        try:
            results.append(store.commit([update(if_match=1)], ada)[0].version)
        except VersionMismatch as error:
            results.append(error)

    run_all([work] * 30)

    won = [result for result in results if not isinstance(result, VersionMismatch)]
    assert [version.version_id for version in won] == [2]
    assert len(results) == 30
    assert store.snapshot().history(PATIENT).total == 2


def test_two_stores_on_one_record_see_each_other_at_once(record, store, clock, ada):
    """As two processes do: what one has acknowledged, the other reads, and builds upon."""
    with Store.open(record, Settings(durability="off", validation="off"), clock=clock) as other:
        for number in range(1, 20, 2):
            store.commit([update(number - 1 or None)], ada)
            assert other.snapshot().read(PATIENT).version_id == number
            other.commit([update(number)], ada)
            assert store.snapshot().read(PATIENT).version_id == number + 1
            assert store.snapshot().body(store.snapshot().read(PATIENT))
    assert list(store.verify()) == []


def test_a_lock_that_is_held_too_long_is_said_and_nothing_was_written(record, clock, ada, git):
    """503 never means "perhaps": the unit is withdrawn."""
    with Store.open(
        record, Settings(durability="off", validation="off", lock_timeout=0.05), clock=clock
    ) as store:
        before = git("rev-parse", "main")
        holder = Writer(record)
        with holder.locked():
            with pytest.raises(Locked, match=r"locked by another process for more than 0\.05 s"):
                store.commit([update()], ada)
            [refused] = store.commit_each([Unit([update()], ada)])
            assert isinstance(refused, Locked)
        holder.close()

        store._queue._timeout = 30
        [outcome] = store.commit([update()], ada)

        assert outcome.version is not None
        assert outcome.version.version_id == 1
        assert git("rev-list", f"{before}..main").count("\n") == 0


def test_a_unit_that_is_being_written_is_waited_for_however_long_it_takes(record, clock, ada, monkeypatch):
    """Only one that still waits for its turn may time out: the other might happen after all."""
    waits: list[bool] = []
    started, enough = threading.Event(), threading.Event()
    wait = Pending.wait

    def answer(_: Any) -> bool:
        started.set()
        return enough.wait(30)

    def counted(pending: Pending, seconds: float) -> bool:
        started.wait(30)
        waits.append(wait(pending, seconds))
        if len(waits) == 3:
            enough.set()
        return waits[-1]

    monkeypatch.setattr(Pending, "wait", counted)
    with Store.open(
        record, Settings(durability="off", validation="off", lock_timeout=0.01), clock=clock
    ) as store:
        slow = [Ask(answer), update()]

        asked, written = store.commit(slow, ada, interaction="transaction")

    assert asked.answer is True
    assert written.version is not None
    assert waits[:3] == [False, False, False]


def test_a_lock_of_a_foreign_git_is_said_too(record, clock, ada):
    lock = Path(record, "refs", "heads", "main.lock")
    with Store.open(
        record, Settings(durability="off", validation="off", lock_timeout=0.05), clock=clock
    ) as store:
        lock.write_text("")
        store._queue._timeout = 30  # only the wait for the foreign lock is to be short
        with pytest.raises(Locked, match="Another git holds"):
            store.commit([update()], ada)
        assert store.snapshot().counts() == {}
        lock.unlink()

        assert store.commit([update()], ada)[0].changed
        assert list(store.verify()) == []


class FailingOs:
    """Stands for `os` in the writer's module: calls of one name fail, from the n-th on."""

    def __init__(self, name: str, code: int, first: int = 1) -> None:
        self.name, self.code, self.left = name, code, first

    def __getattr__(self, name: str) -> Any:
        if name != self.name:
            return getattr(os, name)
        self.left -= 1
        if self.left > 0:
            return getattr(os, name)

        def fail(*_: Any, **__: Any) -> Any:
            raise OSError(self.code, os.strerror(self.code))

        return fail


@pytest.mark.parametrize(("name", "code", "error"), [("write", 28, StorageFull), ("open", 5, StorageFailed)])
def test_a_disk_that_fails_fails_the_whole_group_and_the_store_goes_on(
    store, ada, git, monkeypatch, name, code, error
):
    """Nothing lost, no version burnt, and no restart needed when the cause is gone."""
    store.commit([update()], ada)
    before = git("rev-parse", "main"), store.snapshot().commit
    with monkeypatch.context() as patched:
        failing = FailingOs(name, code)
        for module in (writer, durable):
            patched.setattr(module, "os", failing)

        results = store.commit_each([Unit([update()], ada), Unit([Create({"resourceType": "Patient"})], ada)])

        assert [type(result) for result in results] == [error, error]
        assert (git("rev-parse", "main"), store.snapshot().commit) == before
    [outcome] = store.commit([update()], ada)
    assert outcome.version is not None
    assert outcome.version.version_id == 2
    assert list(store.verify()) == []
    assert git("fsck", "--full", "--strict", "--no-dangling") == ""


def test_what_the_disk_did_not_confirm_has_happened_and_is_read(record, clock, ada, git, monkeypatch):
    """NotConfirmed is the one error after which the units are there."""
    with Store.open(record, clock=clock) as store:
        with monkeypatch.context() as patched:
            failing = FailingOs("fsync", 5, first=5)  # main.next, pack, idx, folder: then main's
            for module in (writer, durable):
                patched.setattr(module, "os", failing)
            with pytest.raises(NotConfirmed, match="is in the record as") as unconfirmed:
                store.commit([update()], ada)

        assert git("rev-parse", "main") in str(unconfirmed.value)
        assert store.snapshot().read(PATIENT).version_id == 1
        [outcome] = store.commit([update()], ada)
        assert outcome.version is not None
        assert outcome.version.version_id == 2
        assert list(store.verify()) == []
    assert not list(Path(record, "objects", "pack").glob("*.keep"))


def test_an_index_without_room_fails_the_units_and_not_the_record(store, ada, git):
    """SQLite forgets the whole transaction then: nothing of the group may be published on top of what is gone."""
    store.commit([update()], ada)
    connection: Any = store._index.writer()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    head = git("rev-parse", "main")

    results = store.commit_each([Unit([Create({"resourceType": "Patient"})], ada) for _ in range(300)])

    made = [result for result in results if not isinstance(result, StoreError)]
    assert {type(result) for result in results if isinstance(result, StoreError)} == {StorageFull}
    connection.execute("PRAGMA max_page_count = 1000000")
    assert int(git("rev-list", "--count", f"{head}..main")) == len(made)
    assert store.snapshot().counts() == {"Patient": 1 + len(made)}
    assert store.commit([Create({"resourceType": "Patient"})], ada)[0].changed
    assert list(store.verify()) == []


def test_an_index_that_can_not_commit_has_to_catch_up_before_it_answers(store, ada):
    """The units have happened with main's move; the index is derived. Nothing is answered from one that is behind."""
    connection: Any = store._index.writer()

    def deny_commit(action: int, argument: str, *_: Any) -> int:
        is_commit = action == sqlite3.SQLITE_TRANSACTION and argument == "COMMIT"
        return sqlite3.SQLITE_DENY if is_commit else sqlite3.SQLITE_OK

    connection.set_authorizer(deny_commit)
    [outcome] = store.commit([update()], ada)
    assert outcome.version is not None
    for _ in range(2):
        with pytest.raises(StorageFailed, match="not authorized"):
            store.snapshot()
    connection.set_authorizer(None)

    assert store.snapshot().read(PATIENT) == outcome.version
    assert store.commit([update(1)], ada)[0].changed
    assert list(store.verify()) == []


PROCESS = """
import sys
from gitstore import Author, Settings, Store, Update
from gitstore.fhir.ids import ResourceId
name = sys.argv[2]
with Store.open(sys.argv[1], Settings(durability="off", validation="off")) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(40):
        resource = {"resourceType": "Patient", "id": "p", "language": f"{name}-{number}"}
        store.commit([Update(ResourceId("Patient", "p"), resource)], Author(name, "x@example.org"))
"""


def test_processes_that_write_at_once_take_turns(record):
    """Each commit of each is there, once; and none has to wait until the others are done."""
    names = ["one", "two", "three"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, record, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for name in names
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        process.communicate(b"go\n")

    assert [process.returncode for process in processes] == [0, 0, 0]
    with Store.open(record, Settings(durability="off", validation="off")) as store:
        versions = store.snapshot().history(PATIENT, count=1000).versions
        assert [version.version_id for version in versions] == list(range(120, 0, -1))
        for name in names:
            own = [version for version in versions if version.commit.author == Author(name, "x@example.org")]
            assert len(own) == 40
        assert list(store.verify()) == []
