"""A power cut while foreign commits are adopted, or while packs are merged: gits that are not ours write there, too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from power_cut import Disk, Step, distinct, fsck, restore, sample

from gitstore import Author, ForeignCommit, Settings, Store, Update, durable, path_of
from gitstore.fhir.ids import ResourceId
from gitstore.git import upkeep as upkeep_module
from gitstore.git import writer as writer_module
from gitstore.git.upkeep import Upkeep

ADA = Author("Ada", "ada@clinic.example")
SETTINGS = Settings(validation="off", maintenance="off")
PATIENT = ResourceId("Patient", "a")

Git = Callable[..., str]


def update(id: str, mark: str) -> Update:
    return Update(ResourceId("Patient", id), {"resourceType": "Patient", "id": id, "language": mark})


def contents(git_dir: Path) -> dict[Path, bytes]:
    """Objects and refs."""
    found = [path for name in ("objects", "refs") for path in (git_dir / name).rglob("*") if path.is_file()]
    return {path.relative_to(git_dir): path.read_bytes() for path in found}


def push_an_edit(record: str, folder: Path, git_in: Callable[[Any], Git]) -> str:
    """A commit of somebody's, whose objects are loose. Returns its id."""
    git_in(folder)("clone", "--quiet", record, "clone")
    clone = git_in(folder / "clone")
    file = folder / "clone" / path_of(PATIENT)
    file.write_text(file.read_text().replace("first", "foreign"))
    clone("commit", "--quiet", "--all", "--message", "Fix a typo")
    clone("push", "--quiet", "origin", "HEAD:main")
    return clone("rev-parse", "HEAD")


def from_the_intent_on(steps: list[Step]) -> list[Step]:
    """What a push leaves of itself is no matter of ours, until the record is about to build on it."""
    return steps[next(number for number, step in enumerate(steps) if step.call.startswith("overwrite")) :]


def test_foreign_commits_are_adopted_whole_or_not_at_all(
    record: str, clock: Any, tmp_path: Path, git_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Main is at the foreign commit or at the one that adopts it, and git finds all objects: `adopt` can be run again.

    The push that brought the foreign commit has synced nothing of it.
    """
    with Store.open(record, SETTINGS, clock=clock) as store:
        store.commit([update("a", "first")], ADA)
        good = store.snapshot().commit.id
    before = tmp_path / "before.git"
    shutil.copytree(record, before, symlinks=True)
    foreign = push_an_edit(record, tmp_path, git_in)
    disk, old = Disk(record), contents(before)
    pushed = [f"{record}/{path}" for path, data in contents(Path(record)).items() if old.get(path) != data]
    disk.wrote(path for path in pushed if "/objects/" in path)
    disk.wrote([f"{record}/refs/heads/main"])
    for module in (writer_module, durable):
        monkeypatch.setattr(module, "os", disk)
    with Store.open(record, SETTINGS, clock=clock) as store:
        adopted = store.adopt()
        disk.acknowledge()
    monkeypatch.undo()
    assert adopted is not None

    states = distinct(from_the_intent_on(disk.steps))
    assert len(states) > 40
    for call, acknowledged, state in sample(states, 12):
        restore(before, record, state)
        assert fsck(record) == (0, ""), call
        with Store.open(record, SETTINGS, clock=clock) as store:
            tip = store.snapshot().commit.id
            assert tip in ([good, adopted.id] if not acknowledged else [adopted.id]), call
            if tip == good:
                with pytest.raises(ForeignCommit, match=foreign):
                    store.commit([update("b", "after")], ADA)
            again = store.adopt()
            assert (again is not None) == (tip == good), call
            assert store.snapshot().read(PATIENT).version_id == 2
            assert b"foreign" in store.snapshot().body(store.snapshot().read(PATIENT))
            store.commit([update("b", "after")], ADA)
            assert list(store.verify()) == [], call
        assert fsck(record) == (0, ""), call


@pytest.mark.parametrize("full", [False, True])
def test_merging_packs_loses_nothing(
    record: str, clock: Any, tmp_path: Path, git_in: Any, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """Every object is in an old pack or in the new one, whatever of the renames and removals gets lost.

    Loose objects are there as well, which go when they are in a pack. git may miss its commit-graph, which says nothing
    that the commits don't, and it says so until maintenance has run again.
    """
    with Store.open(record, SETTINGS, clock=clock) as store:
        tips = [store.commit([update("a", mark)], ADA)[0].version for mark in ("first", "second")]
    push_an_edit_aside(record, git_in)
    before = tmp_path / "before.git"
    shutil.copytree(record, before, symlinks=True)
    disk, run = Disk(record), Upkeep._git
    info = f"{record}/objects/info"
    loose = [str(path) for path in Path(record, "objects").iterdir() if len(path.name) == 2]
    folders = [f"{record}/objects/pack", info, f"{info}/commit-graphs", *loose]

    def recorded(self: Upkeep, *arguments: Any) -> str:
        output = run(self, *arguments)
        disk.noticed(*folders)
        return output

    for module in (writer_module, durable):
        monkeypatch.setattr(module, "os", disk)
    monkeypatch.setattr(upkeep_module, "os", disk)
    monkeypatch.setattr(Upkeep, "_git", recorded)
    with Store.open(record, SETTINGS, clock=clock) as store:
        disk.noticed(*folders)
        store.maintain(full=full)
    monkeypatch.undo()
    assert tips[-1] is not None

    states = distinct(disk.steps)
    assert len(states) > 40
    for call, _, state in sample(states, 6):
        restore(before, record, state)
        code, said = fsck(record)
        assert code == 0, call
        assert all("commit-graph" in line for line in said.splitlines()), call
        with Store.open(record, SETTINGS, clock=clock) as store:
            assert store.snapshot().commit.id == tips[-1].commit.id, call
            assert list(store.verify()) == [], call
            store.commit([update("b", "after")], ADA)
            store.maintain()
            assert list(store.verify()) == [], call
        assert fsck(record) == (0, ""), call


def push_an_edit_aside(record: str, git_in: Callable[[Any], Git]) -> None:
    """Loose objects that a branch of somebody's leads to, and that have been synced."""
    git = git_in(record)
    blob = git("hash-object", "-w", "--stdin", input="a note\n")
    tree = git("mktree", input=f"100644 blob {blob}\tnote.txt\n")
    git("update-ref", "refs/heads/aside", git("commit-tree", tree, "-m", "A note"))
