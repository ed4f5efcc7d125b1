"""Between processes the writer's lock goes from hand to hand: who writes without a pause doesn't keep others waiting."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gitstore import Author, Settings, Store, Unit, Update, leading
from gitstore.errors import NotConfirmed, StorageFull, StoreError
from gitstore.fhir.ids import ResourceId
from gitstore.git.writer import Writer, read_main

TURNS = 20
ADA = Author("Ada", "ada@clinic.example")


def write_when_told(record: str, told: int, tell: int) -> None:
    """A process that says when it is ready, then writes one unit for each byte that it reads; ends with 0."""
    code = 1
    try:
        with Store.open(record, Settings(durability="off", validation="off")) as store:
            os.write(tell, b".")
            while os.read(told, 1):
                store.commit(
                    [Update(ResourceId("Patient", "a"), {"resourceType": "Patient", "id": "a"})], ADA
                )
            code = 0
    finally:
        os._exit(code)


@contextmanager
def another_process(record: str) -> Iterator[tuple[int, int]]:
    """One that writes when it is told to: its id, and the descriptor for telling. It ends well with the block."""
    Store.open(record).close()
    (child_told, tell), (told, child_tell) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(tell)
        write_when_told(record, child_told, child_tell)
    assert os.read(told, 1)
    yield pid, tell
    for descriptor in (tell, told, child_told, child_tell):
        os.close(descriptor)
    assert os.waitpid(pid, 0)[1] == 0


def wait_until_it_waits(pid: int) -> None:
    """Until the process waits for a lock. https://www.kernel.org/doc/html/latest/filesystems/proc.html"""
    while not any(
        line[1] == "->" and line[5] == str(pid)
        for line in map(str.split, Path("/proc/locks").read_text(encoding="ascii").splitlines())
    ):
        os.sched_yield()


def test_the_lock_goes_to_who_waits_and_not_back_to_who_lets_go(record: str) -> None:
    """Each time: a process that lets go of the lock and wants it back at once finds that the waiting one has written."""
    commits = []
    with another_process(record) as (pid, tell):
        writer = Writer(record, durable=False)
        for _ in range(TURNS):
            with writer.locked():
                commits.append(read_main(record))
                os.write(tell, b".")
                wait_until_it_waits(pid)
        with writer.locked():
            commits.append(read_main(record))
        writer.close()

    assert len(set(commits)) == TURNS + 1


def test_a_long_group_ends_when_another_process_waits(record: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What of it is not begun comes after the other's turn: a PUT beside an import doesn't wait for all that has queued up."""
    monkeypatch.setattr(leading, "_TURN", 0.0)
    instants = itertools.count(1_800_000_000_000_000)
    names = [f"b{number}" for number in range(5)]
    units = [
        Unit([Update(ResourceId("Patient", id), {"resourceType": "Patient", "id": id})], ADA) for id in names
    ]
    with another_process(record) as (pid, tell):

        def clock() -> int:
            """Looked at under the lock, once for each unit: with the first one the other process begins to wait."""
            if (instant := next(instants)) == 1_800_000_000_000_000:
                os.write(tell, b".")
                wait_until_it_waits(pid)
            return instant

        with Store.open(record, Settings(durability="off", validation="off"), clock=clock) as store:
            outcomes = store.commit_each(units)
            history = store.snapshot().history(count=10).versions

    assert [isinstance(outcome, list) for outcome in outcomes] == [True] * 5
    assert [version.resource_id.id for version in reversed(history)] == ["b0", "a", "b1", "b2", "b3", "b4"]


@pytest.mark.parametrize(
    "fails", [NotConfirmed("It is in the record, but not confirmed."), StorageFull("No room.")]
)
def test_what_was_not_begun_does_not_share_the_fate_of_the_group(
    record: str, monkeypatch: pytest.MonkeyPatch, fails: StoreError
) -> None:
    """It is told neither that it may be in the record nor that there was no room: it is written in its turn."""
    monkeypatch.setattr(leading, "_TURN", 0.0)
    wanted, failing = iter([True]), iter([fails])
    monkeypatch.setattr(Writer, "is_wanted", lambda self: next(wanted, False))
    publish = Writer.publish

    def published(self: Writer, *arguments: Any) -> None:
        error = next(failing, None)
        if not isinstance(error, StorageFull):
            publish(self, *arguments)
        if error is not None:
            raise error

    units = [
        Unit([Update(ResourceId("Patient", id), {"resourceType": "Patient", "id": id})], ADA) for id in "ab"
    ]
    with Store.open(record, Settings(durability="off", validation="off")) as store:
        monkeypatch.setattr(Writer, "publish", published)
        first, second = store.commit_each(units)
    assert isinstance(first, StoreError)
    assert isinstance(second, list)
