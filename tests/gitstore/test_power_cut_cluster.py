"""A power cut while a node goes to where the hub is: what it follows with, gives up, or is promoted by, is on its disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from power_cut import Disk, State, distinct, fsck, restore, sample

from gitstore import Author, Settings, Store, Update, durable, init
from gitstore.cluster import state as state_module
from gitstore.cluster.cluster import Cluster
from gitstore.fhir.ids import ResourceId
from gitstore.git import writer as writer_module
from gitstore.git.hub import Hub

ADA = Author("Ada", "ada@clinic.example")
SETTINGS = Settings(validation="off", maintenance="off", hub_timeout=60.0, poll_interval=3600.0)
HUB = "refs/git-fhir/hub"
REFS = ("refs", "refs/git-fhir", "refs/git-fhir/diverged")


def write(store: Store, id: str) -> str:
    body = {"resourceType": "Patient", "id": id}
    version = store.commit([Update(ResourceId("Patient", id), body)], ADA)[0].version
    assert version is not None
    return version.commit.id


def cluster(store: Store) -> Cluster:
    assert store.cluster is not None
    return store.cluster


def turn(store: Store) -> None:
    cluster(store)._turn(asked=True)


class Nodes:
    """A hub and two nodes: the primary, and the other one, whose disk is looked at."""

    def __init__(self, folder: Path, clock: Callable[[], int], opened: ExitStack) -> None:
        self._folder = folder
        self._clock = clock
        subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", folder / "hub.git"], check=True)
        init(folder / "primary.git", clock=clock)
        self.primary = opened.enter_context(self.open("primary"))
        turn(self.primary)
        self.other = str(folder / "other.git")
        subprocess.run(["git", "clone", "--quiet", "--bare", folder / "hub.git", self.other], check=True)
        with self.open("other") as store:
            cluster(store).follow()
            turn(store)

    def open(self, name: str) -> Store:
        settings = replace(SETTINGS, hub=str(self._folder / "hub.git"))
        return Store.open(self._folder / f"{name}.git", settings, clock=self._clock)


@pytest.fixture
def nodes(tmp_path: Path, clock: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Cluster, "_begin", lambda self: None)
    with ExitStack() as opened:
        yield Nodes(tmp_path, clock, opened)


def recorded(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, does: Callable[[Store], object]
) -> tuple[Path, list[tuple[str, int, State]]]:
    """What the other node's folder was before it does something, and the states that a power cut may leave of it."""
    record = nodes.other
    before = Path(record).parent / "before.git"
    shutil.copytree(record, before, symlinks=True)
    disk, run, sync = Disk(record), Hub._run, Hub._sync_folders
    folders = [f"{record}/objects/{number:02x}" for number in range(256)] + [f"{record}/objects/pack"]
    folders += [f"{record}/{folder}" for folder in REFS]

    def running(self: Hub, *arguments: Any) -> tuple[int, str, str]:
        result = run(self, *arguments)
        disk.noticed(*folders)
        return result

    def syncing(self: Hub, path: str) -> None:
        disk.noticed(*folders)
        sync(self, path)

    with monkeypatch.context() as patched:
        for module in (writer_module, state_module, durable):
            patched.setattr(module, "os", disk)
        patched.setattr(Hub, "_run", running)
        patched.setattr(Hub, "_sync_folders", syncing)
        with nodes.open("other") as store:
            disk.noticed(*folders)
            does(store)
            disk.acknowledge()
    return before, distinct(disk.steps)


def faults(record: str) -> list[str]:
    """What git finds wrong, but for the ref by which we remember where the hub was."""
    return [line for line in fsck(record)[1].splitlines() if not line.startswith(f"error: {HUB}: ")]


def leads_to(record: str, commit: str) -> bool:
    """Whether any ref does."""
    command = ["git", "-C", record, "for-each-ref", "--contains", commit]
    return bool(subprocess.run(command, check=True, capture_output=True).stdout)


def test_a_replica_follows_whole_or_not_at_all(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Main is where it was or at the hub's commit, with all that leads to it; the next look brings what is missing."""
    old = nodes.primary.snapshot().commit.id
    write(nodes.primary, "a")
    new = write(nodes.primary, "b")
    turn(nodes.primary)
    before, states = recorded(nodes, monkeypatch, turn)
    assert len(states) > 30
    for call, acknowledged, state in sample(states, 10):
        restore(before, nodes.other, state)
        assert faults(nodes.other) == [], call
        with nodes.open("other") as store:
            tip = store.snapshot().commit.id
            assert tip in ([new] if acknowledged else [old, new]), call
            turn(store)
            assert store.snapshot().commit.id == new
            assert list(store.verify()) == [], call
        assert fsck(nodes.other) == (0, ""), call


def test_what_a_fenced_node_gives_up_is_kept(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever main stands, a ref leads to what the node has written and never pushed; then it follows the other one."""
    with nodes.open("other") as store:
        cluster(store).promote(ADA, "for the test")
        own = write(store, "mine")
        monkeypatch.setattr(Cluster, "_last_push", lambda self: None)
    cluster(nodes.primary).step_down("for the test")
    cluster(nodes.primary).promote(ADA, "back again")
    new = write(nodes.primary, "theirs")
    turn(nodes.primary)
    before, states = recorded(nodes, monkeypatch, turn)
    assert len(states) > 30
    for call, _, state in sample(states, 8):
        restore(before, nodes.other, state)
        assert faults(nodes.other) == [], call
        assert leads_to(nodes.other, own), call
        with nodes.open("other") as store:
            turn(store)
            assert store.snapshot().commit.id == new, call
            assert list(store.verify()) == [], call
        assert leads_to(nodes.other, own), call
        assert fsck(nodes.other) == (0, ""), call


def test_a_promotion_is_at_the_hub_and_can_be_followed_or_done_again(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is the primary, at the commit that makes it one, or a replica that will follow that commit."""
    before, states = recorded(nodes, monkeypatch, lambda store: cluster(store).promote(ADA, "for the test"))
    promoted = subprocess.run(
        ["git", "-C", nodes.other, "rev-parse", "main"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert len(states) > 30
    for call, acknowledged, state in sample(states, 8):
        restore(before, nodes.other, state)
        assert faults(nodes.other) == [], call
        with nodes.open("other") as store:
            if acknowledged or cluster(store).role == "primary":
                assert (cluster(store).role, store.snapshot().commit.id) == ("primary", promoted), call
            turn(store)
            assert list(store.verify()) == [], call
        assert fsck(nodes.other) == (0, ""), call
