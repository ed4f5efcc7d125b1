"""kill -9 right before each call of the operating system that publishing makes: acknowledged, whole, clean, and it goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gitstore import Author, Store, Update, durable
from gitstore.fhir.ids import ResourceId
from gitstore.git import writer as writer_module

ADA = Author("Ada", "ada@clinic.example")
TYPES = ("Patient", "Practitioner")
CALLS = frozenset(["open", "close", "write", "pwrite", "fsync", "fdatasync", "link", "rename", "unlink"])
"""A death before one that only looks is a death before the next of these."""


class MortalOs:
    """Stands in for the module `os` where the writer calls it; the process dies right before the n-th call."""

    def __init__(self, death: int) -> None:
        self.calls: list[str] = []
        self._death = death

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in CALLS:
            return found

        def call(*arguments: Any) -> Any:
            if len(self.calls) == self._death:
                os.kill(os.getpid(), signal.SIGKILL)
            self.calls.append(name)
            return found(*arguments)

        return call


def update(type: str, mark: str) -> Update:
    return Update(ResourceId(type, "a"), {"resourceType": type, "id": "a", "language": mark})


def publish(store: Store, mark: str) -> None:
    """One unit of two resources: half of it would be noticed."""
    store.commit([update(type, mark) for type in TYPES], ADA, interaction="transaction")


def in_a_child(record: str, clock: Callable[[], int], death: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Publish in a child process: how it ended, and what it said: its calls once the write is acknowledged."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            with Store.open(record, clock=clock) as store:
                mortal = MortalOs(death)
                for module in (writer_module, durable):
                    monkeypatch.setattr(module, "os", mortal)
                publish(store, "second")
                os.write(writer, " ".join(mortal.calls).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    return os.waitpid(pid, 0)[1], said


def fsck(record: str) -> tuple[int, str]:
    command = ["git", "-C", record, "fsck", "--full", "--strict", "--no-dangling"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stderr


def languages(store: Store) -> set[str]:
    """What both resources say: one mark where the unit is whole."""
    snapshot = store.snapshot()
    bodies = [snapshot.body(snapshot.read(ResourceId(type, "a"))) for type in TYPES]
    return {body.split(b'"language": "')[1].split(b'"')[0].decode() for body in bodies}


def mark_after_recovery(record: str, clock: Callable[[], int], where: str) -> str:
    """What the record holds after the death: whole, clean before and after recovery, and open to the next write."""
    assert fsck(record) == (0, ""), where
    with Store.open(record, clock=clock) as store:
        [mark] = languages(store)
        publish(store, "third")
        assert languages(store) == {"third"}, where
        assert list(store.verify()) == [], where
    assert fsck(record) == (0, ""), where
    leftovers = [
        *Path(record).glob("refs/heads/*.lock"),
        *Path(record).glob("objects/pack/*tmp*"),
        *Path(record).glob("objects/pack/*.keep"),
        *Path(record).glob("git-fhir/main.next"),
    ]
    assert leftovers == [], where
    return mark


def test_a_leader_that_is_killed_at_any_step_leaves_all_or_nothing(
    record: str, clock: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every n of one publish: an acknowledged unit is there, one that wasn't is there whole or not at all."""
    with Store.open(record, clock=clock) as store:
        publish(store, "first")
    before = shutil.copytree(record, tmp_path / "before.git", symlinks=True)
    status, said = in_a_child(record, clock, 10**6, monkeypatch)
    assert status == 0
    calls = said.split()
    assert {"pwrite", "fdatasync", "write", "fsync", "link", "rename", "unlink"} <= set(calls)

    marks = []
    for death in range(len(calls) + 1):
        shutil.rmtree(record)
        shutil.copytree(before, record, symlinks=True)
        status, said = in_a_child(record, clock, death, monkeypatch)
        assert os.WTERMSIG(status) == signal.SIGKILL
        # The last one dies when it closes the store, after the answer.
        assert bool(said) == (death == len(calls))
        marks.append(mark_after_recovery(record, clock, f"before call {death}"))

    # The last rename is the moment at which it happens: before it nothing has, after it all has.
    happens = len(calls) - calls[::-1].index("rename")
    assert marks == ["first"] * happens + ["second"] * (len(marks) - happens)
