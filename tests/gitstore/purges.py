"""Purging in tests: what is said of a record, and where a text is left in it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from gitstore import Author, Gone, Purgeable, Settings, Store, Update, Version
from gitstore.fhir.ids import ResourceId, VersionId

ADA = Author("Ada Lovelace", "ada@clinic.example")
GRACE = Author("Grace Hopper", "grace@clinic.example")
PATIENT = ResourceId("Patient", "a")
OTHER = ResourceId("Patient", "b")
PLAIN = Settings(durability="off", validation="off")


def update(resource_id: ResourceId, family: str, **elements: Any) -> Update:
    body = {"resourceType": resource_id.type, "id": resource_id.id, "name": [{"family": family}], **elements}
    return Update(resource_id, body)


def put(store: Store, resource_id: ResourceId, family: str, words: str | None = None) -> Version:
    [outcome] = store.commit([update(resource_id, family)], ADA, message=words)
    assert outcome.version is not None
    return outcome.version


def purge(store: Store, *references: str, reason: str = "It was the wrong one.") -> Any:
    return store.purge([target(reference) for reference in references], GRACE, reason)


def target(reference: str) -> Purgeable:
    name, _, number = reference.partition("/_history/")
    type, id = name.split("/")
    return Purgeable(ResourceId(type, id), VersionId(int(number)) if number else None)


def told(store: Store) -> dict[str, tuple[Any, ...]]:
    """All that there is to know of every version, but for the ids of commits."""
    found: dict[str, tuple[Any, ...]] = {}
    snapshot, cursor = store.snapshot(), None
    while True:
        page = snapshot.history(cursor=cursor, count=7)
        for version in page.versions:
            body = None if version.deleted else snapshot.body(version)
            commit = version.commit
            facts = (version.verb, version.created, version.last_updated, commit.sequence, version.position)
            found[str(version)] = (*facts, commit.author, commit.interaction, body)
        cursor = page.older
        if cursor is None:
            assert page.total == len(found)
            return found


def traces(record: str, mark: str) -> list[str]:
    """Where in a git directory a text is: in files as they lie, and in objects."""
    found = [
        str(path) for path in Path(record).rglob("*") if path.is_file() and mark.encode() in path.read_bytes()
    ]
    found += [path.name for path in Path(record).rglob("*") if mark in path.name]
    command = ["git", "-C", record, "cat-file", "--batch-all-objects", "--unordered", "--batch"]
    objects = subprocess.run(command, capture_output=True, check=True).stdout
    return [*found, *(["an object"] if mark.encode() in objects else [])]


def unreachable(record: str) -> list[str]:
    """Objects that no ref leads to."""
    run = ["git", "-C", record]
    there = subprocess.run(
        [*run, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    reached = subprocess.run(
        [*run, "rev-list", "--objects", "--all"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return sorted(set(there) - {line.split(" ")[0] for line in reached})


def gone(store: Store, reference: str) -> str:
    wanted = target(reference)
    snapshot = store.snapshot()
    with pytest.raises(Gone) as refusal:
        snapshot.vread(wanted.resource_id, wanted.version_id) if wanted.version_id else snapshot.read(
            wanted.resource_id
        )
    assert [issue.code for issue in refusal.value.issues] == ["deleted"]
    return str(refusal.value)
