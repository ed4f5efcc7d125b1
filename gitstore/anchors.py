"""Anchors: what is to be kept of a record elsewhere, so that nobody can change its past unnoticed.

docs/security.md, "Anchors"
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from gitstore.errors import Invalid, StoreError
from gitstore.fhir import json
from gitstore.fhir.dates import format_instant, parse_instant
from gitstore.git import layout
from gitstore.git.history import chain
from gitstore.git.repository import Repository
from gitstore.git.writer import read_main
from gitstore.journal.reading import hash_at, head
from gitstore.snapshot import Snapshot
from gitstore.verify import Finding

_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_NAMES = ("commit", "tree", "sequence", "lastUpdated", "resources", "versions")


class Anchor(Struct, frozen=True):
    """A record at one commit, in few words: `resources` are those there and not deleted, `versions` all there ever were.

    `last_updated` in microseconds since 1970 UTC. `journal` is the number of the access journal's last line, and its
    hash; None where there is no journal, or it isn't anchored.
    """

    commit: str
    tree: str
    sequence: int
    last_updated: int
    resources: int
    versions: int
    journal: tuple[int, str] | None = None

    def lines(self) -> list[str]:
        """`commit 1f0c…`, one line for each fact."""
        values = (
            self.commit,
            self.tree,
            self.sequence,
            format_instant(self.last_updated),
            self.resources,
            self.versions,
        )
        found = [f"{name} {value}" for name, value in zip(_NAMES, values, strict=True)]
        if self.journal is not None:
            found.append("journal {} {}".format(*self.journal))
        return found

    def facts(self) -> dict[str, object]:
        """The same for JSON."""
        found: dict[str, object] = {
            "commit": self.commit,
            "tree": self.tree,
            "sequence": self.sequence,
            "lastUpdated": format_instant(self.last_updated),
            "resources": self.resources,
            "versions": self.versions,
        }
        if self.journal is not None:
            found["journal"] = {"number": self.journal[0], "hash": self.journal[1]}
        return found


def parse_anchor(text: str) -> Anchor:
    """Undoes `lines`, and `facts` as JSON. Raises Invalid for anything else, saying what it misses."""
    facts = _of_json(text) if text.lstrip().startswith("{") else _of_lines(text)
    if unknown := facts.keys() - {*_NAMES, "journal"}:
        raise Invalid(f"This is no anchor: `{min(unknown)[:40]}` is none of its facts.")
    journal = None
    if "journal" in facts:
        number, _, hash = facts["journal"].partition(" ")
        journal = (
            int(_fact({"journal": number}, "journal", _NUMBER)),
            _fact({"journal": hash}, "journal", _HASH),
        )
    return Anchor(
        _fact(facts, "commit", _ID),
        _fact(facts, "tree", _ID),
        int(_fact(facts, "sequence", _NUMBER)),
        parse_instant(_fact(facts, "lastUpdated", re.compile(".+"))),
        int(_fact(facts, "resources", _NUMBER)),
        int(_fact(facts, "versions", _NUMBER)),
        journal,
    )


def _of_lines(text: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.split("\n"))):
        name, _, value = line.partition(" ")
        if name in facts:
            raise Invalid(f"This is no anchor: `{name[:40]}` stands twice.")
        facts[name] = value
    return facts


def _of_json(text: str) -> dict[str, str]:
    facts = dict(json.loads(text.encode()))
    journal = facts.get("journal")
    if isinstance(journal, dict) and journal.keys() == {"number", "hash"}:
        facts["journal"] = "{number} {hash}".format(**journal)
    return {name: str(value) for name, value in facts.items()}


def _fact(facts: dict[str, str], name: str, form: re.Pattern[str]) -> str:
    value = facts.get(name)
    if value is None or form.fullmatch(value) is None:
        found = "is missing" if value is None else f"is `{value[:80]}`"
        raise Invalid(f"This is no anchor: its `{name}` {found}.")
    return value


def take_anchor(git_dir: str, snapshot: Snapshot, *, journal: bool = True) -> Anchor:
    """The anchor of the record as a snapshot has it and, unless that isn't wanted, of the access journal as it is now.

    Raises RepositoryRefused, RepositoryDamaged, StorageFailed.
    """
    commit = snapshot.commit
    end = head(git_dir) if journal else None
    return Anchor(
        commit.id,
        Repository(git_dir).commit(commit.id).tree,
        commit.sequence,
        commit.last_updated,
        sum(snapshot.counts().values()),
        snapshot.history(count=1).total or 0,
        (end.number, end.hash) if end is not None else None,
    )


def check_anchor(
    git_dir: str, snapshot: Snapshot, anchor: Anchor, *, journal: bool = True
) -> Iterator[Finding]:
    """How the record of today, which `snapshot` is, contradicts an earlier anchor of it; nothing where it goes on from there.

    Whether index and journal are true to themselves isn't looked at: `verify` does. Raises RepositoryRefused,
    RepositoryDamaged, StorageFailed.
    """
    yield from _check_record(git_dir, snapshot, anchor)
    if journal and anchor.journal is not None:
        number, expected = anchor.journal
        found = hash_at(git_dir, number)
        if found is None:
            yield Finding("journal", f"line {number}", f"it is not here, and had the hash {expected}")
        elif found != expected:
            yield Finding("journal", f"line {number}", f"it has the hash {found}, and had {expected}")


def _check_record(git_dir: str, snapshot: Snapshot, anchor: Anchor) -> Iterator[Finding]:
    repository = Repository(git_dir)
    # By git, for the index could be told anything.
    ids = chain(repository, read_main(git_dir) or snapshot.commit.id)
    if anchor.commit not in ids:
        text = f"it is no longer on {layout.BRANCH}, which has {len(ids)} commits"
        yield Finding("anchor", anchor.commit, text)
        return
    sequence = ids.index(anchor.commit) + 1
    if sequence != anchor.sequence:
        yield Finding("anchor", anchor.commit, f"it is commit number {sequence}, and was {anchor.sequence}")
        return
    try:
        now = take_anchor(git_dir, snapshot.past(sequence), journal=False)
    except StoreError as error:
        yield Finding("anchor", anchor.commit, f"the index doesn't have it: {error}")
        return
    for mine, theirs in zip(now.lines(), anchor.lines()[: len(_NAMES)], strict=True):
        if mine != theirs:
            yield Finding("anchor", anchor.commit, f"it has `{mine}`, and had `{theirs}`")
