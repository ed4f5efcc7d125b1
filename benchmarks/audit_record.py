"""A record with much of a past, for benchmarks/audit.py: many commits by many people, over five years."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from benchmarks.scripts import content, name
from gitstore import Author, Delete, Settings, Store, Unit, Update, init
from gitstore.fhir.dates import SECOND
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.fhir.stored import template
from gitstore.git import layout
from gitstore.git.message import Message, format_message
from gitstore.version import SERVER, Change

THROWAWAY = Settings(durability="off", validation="off", maintenance="off")
AUTHORS = tuple(Author(f"Nurse {number}", f"nurse-{number}@clinic.example") for number in range(20))
"""The first writes a quarter of everything, the last least."""
BUSY = ResourceId(*name(0))
"""Every 50th commit is one more version of it."""

_YEARS = 5 * 365 * 24 * 3600 * SECOND


def of(number: int, round: int, people: int) -> tuple[ResourceId, dict[str, Any]]:
    """A resource as it is after so many units of work: an identifier changes with each, and now and then a text."""
    type, id = name(number)
    body = content(number, id, people)
    told = {"text": {"status": "generated", "div": f"<div>Round {round // 3}</div>"}} if round % 3 else {}
    number_of_round = {"system": "http://clinic.example/round", "value": str(round)}
    return ResourceId(type, id), body | told | {"identifier": [*body.get("identifier", []), number_of_round]}


def units(resources: int, seed: int = 1) -> Iterator[Unit]:
    """Without end: creates, updates, mostly of what is old, transactions of five, and a few deletions."""
    chance = random.Random(seed)
    people, known = max(1, resources // 5), 0

    def update(number: int, round: int) -> Update:
        return Update(*of(number, round, people))

    def some() -> int:
        return int(known * chance.random() ** 2)

    round = 0
    while True:
        author = AUTHORS[0] if chance.random() < 0.25 else AUTHORS[int(20 * chance.random() ** 1.5)]
        if known < resources and (round % 5 == 0 or known < 10):
            yield Unit([update(known, round)], author)
            known += 1
        elif round % 50 == 1:
            yield Unit([update(0, round)], author)
        elif round % 100 == 7:
            numbers = sorted({some() for _ in range(5)})
            yield Unit([update(number, round) for number in numbers], author, interaction="transaction")
        elif round % 500 == 13:
            yield Unit([Delete(ResourceId(*name(1 + some())))], author)
        else:
            yield Unit([update(some(), round)], author, message="As the patient says." if round % 4 else None)
        round += 1


class _Stream:
    """The record as `git fast-import` takes it: what the store would write, without the work of writing it durably."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._known: dict[ResourceId, tuple[int, bool]] = {}
        """The last version of each resource, and whether it is there."""

    def put(self, unit: Unit, instant: int) -> bool:
        """A commit for a unit; none where it changes nothing."""
        changes, files = [], []
        for each in unit.interactions:
            assert isinstance(each, Update | Delete)
            assert isinstance(each.target, ResourceId)
            number, is_there = self._known.get(each.target, (0, False))
            version, body = VersionId(number + 1), None
            if isinstance(each, Update):
                assert isinstance(each.resource, dict)
                body = template(each.target, each.resource).fill(version, instant)
            elif not is_there:
                continue
            self._known[each.target] = version, body is not None
            changes.append(Change("DELETE" if body is None else "PUT", each.target, version))
            files.append((layout.path(each.target), body))
        if not changes:
            return False
        first = "update" if changes[0].verb == "PUT" else "delete"
        message = Message(unit.interaction or first, tuple(changes), instant, words=unit.message or "")
        text, time = format_message(message).encode(), f"{instant // SECOND} +0000"
        write = self._out.write
        write(
            f"commit {layout.REFERENCE}\nauthor {unit.author.name} <{unit.author.email}> {time}\n"
            f"committer {SERVER.name} <{SERVER.email}> {time}\ndata {len(text)}\n".encode()
        )
        write(text + (b"\n" if self._has_begun else b"\nfrom %b^0\n" % layout.REFERENCE.encode()))
        self._has_begun = True
        for path, body in files:
            if body is None:
                write(f"D {path}\n".encode())
            else:
                write(f"M 100644 inline {path}\ndata {len(body)}\n".encode() + body + b"\n")
        return True

    _has_begun = False
    """Whether there is a commit of this stream to build on."""


def filled(path: Path, resources: int, commits: int) -> Path:
    """A record of so many commits, made where there is none yet. Its index is made in the end, since that is faster."""
    begin = time.time_ns() // 1000 - _YEARS
    step = _YEARS // (commits + 1)
    if not path.exists():
        git_dir = init(path, clock=lambda: begin)
        command = ["git", "--git-dir", git_dir, "-c", "fastimport.unpackLimit=1", "fast-import", "--quiet"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            stream, work, done = _Stream(process.stdin), units(resources), 1
            while done < commits:
                done += stream.put(next(work), begin + step * done)
        if process.returncode:
            raise SystemExit("git fast-import failed")
    Store.open(path, THROWAWAY).close()
    return path
