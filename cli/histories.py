"""Moving a record by its history: what `export --history` writes and `import --history` takes over."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile
from typing import Any

from cli.documents import Document, Inputs, Refusal
from cli.importing import Fatal, Refused, Report, uninterrupted
from gitstore import (
    Author,
    Commit,
    Invalid,
    Replica,
    Snapshot,
    Store,
    StoreError,
    Version,
    commit_extensions,
    history_entry,
    is_held,
    replicas_of,
)
from gitstore.fhir import json

MAX_ENTRIES = 1000
MAX_BYTES = 16 * 1024**2
"""Of one Bundle, so that any server takes it; a commit that has more goes alone."""


# Writing


def history_lines(
    store: Store, upto: Commit, base: str, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
) -> Iterator[bytes]:
    """The history up to a commit, one Bundle a line, the oldest Bundle first and in each the newest version first.

    A commit is never cut. No more than one Bundle is in memory, however long the history is.
    """
    entries: list[bytes] = []
    size = 0
    # The first commit makes no version.
    for sequence in range(2, upto.sequence + 1):
        snapshot = store.snapshot(sequence)
        added = list(_entries(store, snapshot, base))
        more = sum(map(len, added))
        if entries and (len(entries) + len(added) > max_entries or size + more > max_bytes):
            yield _bundle(entries)
            entries, size = [], 0
        entries += added
        size += more
    if entries:
        yield _bundle(entries)


def _entries(store: Store, snapshot: Snapshot, base: str) -> Iterator[bytes]:
    """The versions that a commit made, the oldest first."""
    commit = snapshot.commit
    more = commit_extensions(commit, store.message(commit))
    for version in snapshot.changes(commit):
        entry = history_entry(base, version, _resource(snapshot, version))
        entry["response"]["extension"] += more
        yield json.dumps(entry)


def _resource(snapshot: Snapshot, version: Version) -> Any:
    return None if version.deleted else json.loads_trusted(snapshot.body(version))


def _bundle(entries: list[bytes]) -> bytes:
    return b'{"resourceType":"Bundle","type":"history","entry":[%b]}\n' % b",".join(reversed(entries))


# Reading


def take_over(store: Store, inputs: Inputs, author: Author, report: Report) -> Iterator[None]:
    """Take over the history Bundles of the inputs, each of them whole or not at all; a step for each.

    Commits that the record has already are left as they are, so that an import which ended early can be run again. The
    first Bundle that is refused is the last, as all later ones build on it. Raises Refused then.
    """
    for document in inputs:
        try:
            if isinstance(document, Refusal):
                report.refused.append(document)
                raise Refused
            replicas = _replicas(document, author)
            snapshot = store.snapshot()
            new = list(dropwhile(lambda replica: is_held(snapshot, replica), replicas))  # noqa: B023 - used up here
            with uninterrupted():
                outcomes = store.replicate(new)
        except StoreError as error:
            if isinstance(error, Fatal):
                raise
            report.refused.append(Refusal.of(document.place, error))
            raise Refused from error
        report.counts["already imported"] += _count(replicas) - _count(new)
        for version in (outcome.version for outcome in outcomes):
            assert version is not None
            kind = "deleted" if version.deleted else "created" if version.created else "updated"
            report.counts[kind] += 1
        yield


def _count(replicas: list[Replica]) -> int:
    return sum(len(replica.versions) for replica in replicas)


def _replicas(document: Document, author: Author) -> list[Replica]:
    bundle = json.loads(document.data)
    if not isinstance(bundle, dict) or (bundle.get("resourceType"), bundle.get("type")) != (
        "Bundle",
        "history",
    ):
        raise Invalid("It is no Bundle of type history.")
    return replicas_of(bundle, author)
