"""Diverged commits that somebody has looked at: a commit of main without versions says so, and why (docs/diverged.md)."""

from __future__ import annotations

import hashlib

from gitstore.interactions import Unit
from gitstore.snapshot import Snapshot
from gitstore.version import Author, Commit, Idempotency

SETTLE = "settle"
"""What FHIR-Interaction says of such a commit."""


def settlement(snapshot: Snapshot, id: str) -> Commit | None:
    """The commit of main that says that a diverged one is settled; None where none does.

    Its key tells, whoever its author is. A client may choose the same key for something else: that is no settlement.
    """
    key = _key_of(id)
    found = (commit for commit in snapshot.commits_of_key(key.key) if commit.interaction == SETTLE)
    return next((commit for commit in found if commit.idempotency == key), None)


def settling(id: str, author: Author, words: str) -> Unit:
    """The unit of work that says so. It changes no resource."""
    text = "\n\n".join(filter(None, (words.strip(), f"Settled: {id}, which is kept as it is.")))
    return Unit([], author, message=text, interaction=SETTLE, idempotency=_key_of(id))


def _key_of(id: str) -> Idempotency:
    return Idempotency(f"settled:{id}", hashlib.sha256(id.encode()).hexdigest())
