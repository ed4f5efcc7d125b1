"""A power cut at any moment: what was acknowledged is there, and the rest is there whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from power_cut import Disk, distinct, fsck, restore, sample

from gitstore import Author, Store, Update, durable
from gitstore.fhir.ids import ResourceId
from gitstore.git import writer as writer_module

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
    disk = Disk(record)
    for module in (writer_module, durable):
        monkeypatch.setattr(module, "os", disk)
    with Store.open(record, clock=clock) as store:
        tips = [store.snapshot().commit.id]
        for interactions, name in UNITS:
            store.commit(interactions, ADA, interaction=name)
            disk.acknowledge()
            tips.append(store.snapshot().commit.id)
    monkeypatch.undo()
    return disk.steps, tips, before


def test_every_state_that_a_power_cut_may_leave_is_recovered(recorded, record: str, clock) -> None:
    """Before recovery plain git finds nothing wrong; after it all that was acknowledged is there, and a write works."""
    steps, tips, before = recorded
    states = distinct(steps)
    assert len(states) > 200
    for call, acknowledged, state in sample(states, 80):
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
