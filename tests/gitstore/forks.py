"""Two nodes whose histories part: what the one has not pushed is kept as diverged in the record of the other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gitstore import Author, Diverged, Outcome, Settings, Store, StoreError, Unit, Update, path_of
from gitstore.fhir.ids import ResourceId
from tests.conftest import START, Clock, copy_record

OFF = Settings(durability="off", validation="off")
ADA = Author("Ada Lovelace", "ada@clinic.example")
GRACE = Author("Grace Hopper", "grace@clinic.example")
A, B, C = (ResourceId("Patient", id) for id in "abc")
NAME = "20260101T130000Z-"
MINUTE = 60_000_000
HOUR = 60 * MINUTE

Git = Callable[..., str]


def update(id: ResourceId, **elements: Any) -> Update:
    return Update(id, {"resourceType": id.type, "id": id.id} | elements)


class Nodes:
    """A record of which a node has written what it never pushed, while another one has written, too.

    Everything before `fork` both have. After it `old` is the node that was fenced, and `store` the one that took over.
    """

    def __init__(self, record: str, git_in: Callable[[Any], Git]) -> None:
        self.record = Path(record)
        self.git = git_in(record)
        self.store = self._open(self.record, START, "new")
        self.old = self.store

    def _open(self, path: Path, start: int, name: str, settings: Settings = OFF) -> Store:
        numbers = itertools.count(1)
        return Store.open(path, settings, clock=Clock(start), new_id=lambda: f"{name}-{next(numbers)}")

    def fork(self) -> None:
        self.store.close()
        old = copy_record(self.record, self.record.parent / "old.git")
        self.old = self._open(old, START + MINUTE, "old")
        self.reopen(OFF)

    def reopen(self, settings: Settings) -> None:
        self.store.close()
        self.store = self._open(self.record, START + HOUR, "new", settings)

    def keep(self, revision: str = "main", name: str = NAME) -> str:
        """What a node does that is fenced: its commits are kept under a ref. Returns the ref."""
        self.git("fetch", "--quiet", str(self.old.git_dir), revision)
        return self.refer(self.git("rev-parse", "FETCH_HEAD"), name)

    def refer(self, id: str, name: str = NAME) -> str:
        ref = f"refs/git-fhir/diverged/{name}{id[:8]}"
        self.git("update-ref", ref, id)
        return ref

    def close(self) -> None:
        self.store.close()
        self.old.close()


class Beside:
    """A store in which something else happens right before each write."""

    def __init__(self, store: Store, happens: Callable[[], object]) -> None:
        self._store = store
        self._happens = happens
        self.git_dir = store.git_dir
        self.snapshot = store.snapshot
        self.resolve = store.resolve

    def commit_each(self, units: Iterable[Unit]) -> list[list[Outcome] | StoreError]:
        self._happens()
        return self._store.commit_each(units)


@contextmanager
def forked(record: str, git_in: Callable[[Any], Git]) -> Iterator[Nodes]:
    """Patient a and b are there, at version 1; what is written from now on has diverged, or is on main."""
    nodes = Nodes(record, git_in)
    try:
        nodes.store.commit([update(A, gender="female")], ADA)
        nodes.store.commit([update(B, gender="male")], ADA)
        nodes.fork()
        yield nodes
    finally:
        nodes.close()


def states(found: Iterable[Diverged]) -> list[str]:
    return [one.state for one in found]


def reasons(one: Diverged) -> str:
    return "; ".join(obstacle.text for obstacle in one.obstacles)


def content(store: Store, id: ResourceId) -> bytes | None:
    """What the current version says, versionId and lastUpdated aside; None where the resource isn't there."""
    newest = store.snapshot().newest(id)
    return None if newest is None or newest.deleted else masked(store.body(newest))


def masked(body: bytes) -> bytes:
    return re.sub(rb'"(versionId|lastUpdated)": "[^"]*"', rb'"\1": ""', body)


def head(nodes: Nodes) -> str:
    return nodes.git("log", "-1", "--format=%an <%ae>%n%B", "main")


def sound(store: Store) -> None:
    assert list(store.verify()) == []


def hand_made(nodes: Nodes, tip: str, path: str, text: str, message: str = "By hand") -> str:
    """A commit on top of one, with another file."""
    blob = nodes.git("hash-object", "-w", "--stdin", input=text)
    index = {"GIT_INDEX_FILE": str(nodes.record / "index.tmp")}
    nodes.git("read-tree", tip, **index)
    nodes.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", **index)
    tree = nodes.git("write-tree", **index)
    return nodes.git("commit-tree", tree, "-p", tip, input=message)


def hand_made_update(nodes: Nodes) -> str:
    """A commit of ours of another node."""
    message = nodes.git("log", "-1", "--format=%B", "FETCH_HEAD").replace("12:01:01", "12:02:01")
    body = nodes.git("show", f"FETCH_HEAD:{path_of(A)}") + "\n"
    body = body.replace("12:01:01", "12:02:01").replace('"male"', '"unknown"')
    return hand_made(nodes, "main", path_of(A), body, message)
