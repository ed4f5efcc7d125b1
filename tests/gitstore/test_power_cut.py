"""A power cut at any moment: what was acknowledged is there, and the rest is there whole or not at all."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import power_cut
import pytest

from gitstore import Author, Store, Update
from gitstore.fhir.ids import ResourceId
from gitstore.git import writer as writer_module

SAMPLE = os.environ.get("GIT_FHIR_POWER_CUTS", "80")
"""How many of the states are tried, or `all`: the documented run."""

ADA = Author("Ada", "ada@clinic.example")


def update(id: str, mark: str) -> Update:
    return Update(ResourceId("Patient", id), {"resourceType": "Patient", "id": id, "language": mark})


UNITS = (
    ([update("a", "first")], None),
    ([update("a", "second"), update("b", "first")], "transaction"),
    ([update("b", "second")], None),
)


@pytest.fixture
def recorded(record: str, clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list, list, Path]:
    """The steps of a run of three units, the tips after each, and the record as it was before it."""
    with Store.open(record, clock=clock) as store:
        store.commit([update("z", "before")], ADA)
    before = tmp_path / "before.git"
    shutil.copytree(record, before, symlinks=True)
    disk = power_cut.Disk(record)
    monkeypatch.setattr(writer_module, "os", disk)
    with Store.open(record, clock=clock) as store:
        tips = [store.snapshot().commit.id]
        for interactions, name in UNITS:
            store.commit(interactions, ADA, interaction=name)
            disk.acknowledged += 1
            disk._note("acknowledged")
            tips.append(store.snapshot().commit.id)
    monkeypatch.undo()
    return disk.steps, tips, before


def distinct(steps: list) -> list[tuple[str, int, dict[str, bytes | None]]]:
    """Each state once, with the highest number of acknowledged units at which it may occur."""
    found: dict[object, tuple[str, int, dict[str, bytes | None]]] = {}
    for step in steps:
        for state in step.states():
            key = frozenset((path, content) for path, content in state.items() if content is not None)
            if key not in found or found[key][1] < step.acknowledged:
                found[key] = (step.call, step.acknowledged, state)
    return list(found.values())


def restore(before: Path, record: str, state: dict[str, bytes | None]) -> None:
    shutil.rmtree(record)
    shutil.copytree(before, record, symlinks=True)
    for path, content in state.items():
        if content is None:
            Path(path).unlink(missing_ok=True)
        else:
            Path(path).write_bytes(content)


def fsck(record: str) -> tuple[int, str]:
    command = ["git", "-C", record, "fsck", "--full", "--strict", "--no-dangling"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stderr


def test_every_state_that_a_power_cut_may_leave_is_recovered(recorded, record: str, clock) -> None:
    """Before recovery plain git finds nothing wrong; after it all that was acknowledged is there, and a write works."""
    steps, tips, before = recorded
    states = distinct(steps)
    assert len(states) > 200
    if SAMPLE != "all":
        states = random.Random(1).sample(states, int(SAMPLE))
    for call, acknowledged, state in states:
        restore(before, record, state)
        assert fsck(record) == (0, ""), call
        with Store.open(record, clock=clock) as store:
            tip = store.snapshot().commit.id
            # Whole units only, at least those that were acknowledged, at most one that was on its way.
            assert tip in tips[acknowledged : acknowledged + 2], call
            store.commit([update("c", "after")], ADA)
            assert list(store.verify()) == [], call
        assert fsck(record) == (0, ""), call
        leftovers = [*Path(record).glob("refs/heads/*.lock"), *Path(record).glob("objects/pack/*tmp*")]
        assert leftovers == [], call
