"""Clients of several nodes, what they note, and whether the hub's record, and what has diverged, explains all of it.

A value is written once and never again, so it says which write it was. In sync, nothing that was acknowledged or shown
may be missing from the record. In async it is on the record or has diverged, and never both.
"""

from __future__ import annotations

import http.client
import random
import re
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import checker
import hubs
from cluster import Answer, Lab, Node

from gitstore import Store
from gitstore.fhir.ids import ResourceId
from gitstore.git import layout

Record = Mapping[str, Sequence[str]]
"""The values of all versions of each resource, from version 1."""
Diverged = Mapping[tuple[str, int], set[str]]
"""The values of the versions that are beside the record."""

PATIENCE = 4.0
"""Seconds after which a client gives up; longer than fhir.hubTimeout of the nodes."""
_PACE = 0.01
"""Seconds between two requests of a client, so that a small machine has room for what else happens."""
_SHARED = 4


@dataclass(frozen=True, slots=True)
class Deed:
    """What a client asked of a node; otherwise as checker.Operation. A create whose answer didn't come has no resource."""

    node: str
    kind: Literal["read", "write"]
    resource: str | None
    invoked: int
    completed: int
    outcome: Literal["ok", "fail", "unknown"]
    value: str | None
    version: int | None
    if_match: int | None = None


@dataclass
class Story:
    """What all clients have done so far; shared by their threads."""

    deeds: list[Deed] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    """Answers that a client should never get."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    acknowledged: int = 0

    def note(self, deed: Deed) -> None:
        with self.changed:
            self.deeds.append(deed)
            self.acknowledged += deed.kind == "write" and deed.outcome == "ok"
            self.changed.notify_all()

    def wait(self, writes: int, seconds: float) -> None:
        """Until so many more writes have been acknowledged, or that long."""
        with self.changed:
            enough = self.acknowledged + writes
            self.changed.wait_for(lambda: self.acknowledged >= enough, seconds)


def patient(value: str, id: str | None = None) -> dict[str, Any]:
    return {"resourceType": "Patient", **({"id": id} if id else {}), "language": value}


def value_of(body: bytes) -> str:
    match = re.search(rb'"language": "(.*)"', body)
    assert match is not None, body
    return match[1].decode()


class Client(threading.Thread):
    """Reads from all nodes, and writes to the one that took the last write, or else another."""

    def __init__(self, lab: Lab, story: Story, seed: str, end: threading.Event) -> None:
        super().__init__(name=f"client {seed}")
        self._wires = [(node, lab.wire(node, PATIENCE)) for node in lab.nodes]
        self._story = story
        self._seed = seed
        self._chance = random.Random(seed)
        self._end = end
        self._primary = 0
        self._turn = 0

    def run(self) -> None:
        while not self._end.wait(_PACE):
            self._turn += 1
            shared = f"shared-{self._chance.randrange(_SHARED)}"
            match self._chance.choice(["read", "put", "if-match", "create", "own"]):
                case "read":
                    self._read(self._chance.randrange(len(self._wires)), shared)
                case "put":
                    self._write(shared)
                case "if-match":
                    seen = self._read(self._primary, shared)
                    if seen is not None and seen > 0:
                        self._write(shared, seen)
                case "create":
                    self._write(None)
                case "own":
                    self._write(f"own-{self._seed}-{self._turn}")
        for _, wire in self._wires:
            wire.close()

    def _read(self, index: int, id: str) -> int | None:
        """The version that was seen, 0 for none; None where there was no answer."""
        node, wire = self._wires[index]
        begun = time.monotonic_ns()
        try:
            answer = wire.ask("GET", f"Patient/{id}")
        except (OSError, http.client.HTTPException):
            return None
        if answer.status == 200:
            value, version = value_of(answer.content), answer.version
        elif answer.status == 404:
            value, version = None, 0
        else:
            self._surprise(node, answer, 503, 504)
            return None
        now = time.monotonic_ns()
        self._story.note(Deed(node.name, "read", f"Patient/{id}", begun, now, "ok", value, version))
        return version

    def _write(self, id: str | None, if_match: int | None = None) -> None:
        """An update, or without an id a create."""
        node, wire = self._wires[self._primary]
        value = f"{self._seed}-{self._turn}"
        headers = {} if if_match is None else {"If_Match": f'W/"{if_match}"'}
        method, path = ("POST", "Patient") if id is None else ("PUT", f"Patient/{id}")
        begun = time.monotonic_ns()
        outcome: Literal["ok", "fail", "unknown"] = "unknown"
        version, resource = None, f"Patient/{id}" if id else None
        try:
            answer = wire.ask(method, path, patient(value, id), **headers)
        except ConnectionRefusedError:
            self._try_another()
            return
        except (OSError, http.client.HTTPException):
            self._try_another()
        else:
            if answer.status in (200, 201):
                outcome, version = "ok", answer.version
                resource = f"Patient/{answer.json['id']}"
            elif answer.status == 412 and if_match is not None:
                outcome = "fail"
            elif answer.status == 504:
                self._try_another()
            else:
                self._surprise(node, answer, 503)
                self._try_another()
                return
        now = time.monotonic_ns()
        self._story.note(Deed(node.name, "write", resource, begun, now, outcome, value, version, if_match))

    def _try_another(self) -> None:
        self._primary = self._chance.randrange(len(self._wires))

    def _surprise(self, node: Node, answer: Answer, *expected: int) -> None:
        if answer.status not in expected:
            self._story.surprises.append(f"{node.name}: {answer.status} {answer.content[:500]!r}")


@dataclass(frozen=True, slots=True)
class Reign:
    """Who was made primary, begun and done at instants of the monotonic clock; None where that is not certain."""

    node: str | None
    begun: int
    done: int


def was_primary(deed: Deed, reigns: Sequence[Reign]) -> bool:
    """Whether this node was the one primary for as long as it took: what others show may be older."""
    before = [reign for reign in reigns if reign.begun <= deed.completed]
    return before[-1].node == deed.node and before[-1].done <= deed.invoked


# What the record says


def record_of(lab: Lab) -> dict[str, list[str]]:
    """Read from a new clone of the hub, so that no node's index has a say in it. Versions are without gaps."""
    path = lab.folder / "truth.git"
    command = ["git", "clone", "--quiet", "--bare", "--no-hardlinks", str(lab.hub.git_dir), str(path)]
    subprocess.run(command, check=True, env=lab.hub.environment)
    found: dict[str, list[str]] = {}
    with Store.open(path) as store:
        snapshot = store.snapshot()
        for version in reversed(snapshot.history("Patient", count=10**6).versions):
            values = found.setdefault(str(version.resource_id), [])
            values.append(value_of(snapshot.body(version)))
            assert len(values) == version.version_id
        assert list(store.verify()) == []
    return found


def diverged_of(*git_dirs: Path) -> dict[tuple[str, int], set[str]]:
    """What refs/git-fhir/diverged of any of them hold that main does not."""
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    trailers = "%(trailers:key=FHIR-Version,valueonly,separator=%x20)"
    for git_dir in git_dirs:
        refs = _git(git_dir, "for-each-ref", "--format=%(refname)", "refs/git-fhir/diverged").split()
        lines = _git(git_dir, "log", f"--format=%H {trailers}", *refs, "^refs/heads/main") if refs else ""
        for line in lines.splitlines():
            commit, *words = line.split()
            for word in words[1::2]:
                name, _, number = word.partition("/_history/")
                path = layout.path(ResourceId(*name.split("/")))
                body = _git(git_dir, "cat-file", "blob", f"{commit}:{path}")
                found[name, int(number)].add(value_of(body.encode()))
    return found


def _git(git_dir: Path, *words: str) -> str:
    command = ["git", "-C", str(git_dir), *words]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **hubs.HARMLESS}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


# Whether it fits


def sync_faults(deeds: Iterable[Deed], record: Record, reigns: Sequence[Reign]) -> list[str]:
    """All that contradicts: nothing that was acknowledged or shown is ever lost, and there is one order."""
    deeds = _with_resources(deeds, record)
    operations = [
        checker.Operation(
            deed.kind,
            deed.resource or "",
            deed.invoked,
            deed.completed,
            deed.outcome,
            deed.value,
            deed.version,
            deed.if_match,
        )
        for deed in deeds
        if (deed.kind == "write" and deed.outcome != "fail") or was_primary(deed, reigns)
    ]
    shown = [
        f"shown, and not on the record: {deed}"
        for deed in deeds
        if deed.kind == "read" and deed.version and _on(record, deed.resource, deed.version) != deed.value
    ]
    return checker.faults(operations, record) + shown + _steps_back(deeds) + _twice(deeds)


def async_faults(deeds: Sequence[Deed], record: Record, diverged: Diverged) -> list[str]:
    """All that contradicts: what was acknowledged is on the record or has diverged, and no write is in both."""
    tried = {deed.value for deed in deeds if deed.kind == "write"}
    deeds = _with_resources(deeds, record)
    beside = {value for values in diverged.values() for value in values}
    on_main = [value for values in record.values() for value in values]
    found = [f"on the record and beside it: {value}" for value in sorted(beside & {*on_main})]
    found += [f"on the record twice: {value}" for value in sorted({*on_main}) if on_main.count(value) > 1]
    found += [f"nobody wrote {value}" for value in sorted({*on_main, *beside} - tried)]
    for deed in deeds:
        if deed.outcome == "ok" and deed.version:
            there = diverged.get((str(deed.resource), deed.version), set())
            if _on(record, deed.resource, deed.version) != deed.value and deed.value not in there:
                found.append(f"neither on the record nor beside it: {deed}")
        if deed.outcome == "fail" and deed.value in {*on_main, *beside}:
            found.append(f"refused, and yet there: {deed}")
    return found + _steps_back([deed for deed in deeds if deed.value not in beside])


def _with_resources(deeds: Iterable[Deed], record: Record) -> list[Deed]:
    """Creates whose answer didn't come, as far as they are on the record, are of the resource that they made."""
    places = {value: resource for resource, values in record.items() for value in values}
    found = [replace(deed, resource=deed.resource or places.get(deed.value or "")) for deed in deeds]
    return [deed for deed in found if deed.resource is not None]


def _on(record: Record, resource: str | None, version: int) -> str | None:
    values = record.get(resource or "", ())
    return values[version - 1] if version <= len(values) else None


def _steps_back(deeds: Iterable[Deed]) -> list[str]:
    """Reads of one node that began after another had shown something newer, or something else of that version."""
    by_place: dict[tuple[str, str | None], list[Deed]] = defaultdict(list)
    for deed in deeds:
        if deed.kind == "read":
            by_place[deed.node, deed.resource].append(deed)
    found = []
    for reads in by_place.values():
        ended = sorted(reads, key=lambda deed: deed.completed)
        newest, position = 0, 0
        for read in sorted(reads, key=lambda deed: deed.invoked):
            while ended[position].completed < read.invoked:
                newest = max(newest, ended[position].version or 0)
                position += 1
            if (read.version or 0) < newest:
                found.append(f"a node goes back from version {newest}: {read}")
    return found


def _twice(deeds: Iterable[Deed]) -> list[str]:
    """Versions of which two contents were acknowledged."""
    contents: dict[tuple[str | None, int], set[str | None]] = defaultdict(set)
    for deed in deeds:
        if deed.outcome == "ok" and deed.version:
            contents[deed.resource, deed.version].add(deed.value)
    return [f"several contents: {place} {values}" for place, values in contents.items() if len(values) > 1]
