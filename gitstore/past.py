"""The record as one of its commits left it, as a store that is only read. docs/audit.md, "As of"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import NoReturn

from msgspec import Struct

from gitstore.access import FULL_ACCESS, Access
from gitstore.canonicals import Canonicals
from gitstore.errors import NotAllowed, NotFound
from gitstore.fhir.dates import format_instant
from gitstore.git.repository import Repository
from gitstore.hindsight import Hindsight
from gitstore.reading import Reading
from gitstore.rewinding import Rewinding
from gitstore.search import versions
from gitstore.search.index import Connection, Index
from gitstore.search.parameters import Parameter, Registry
from gitstore.seeing import Seeing
from gitstore.settings import Settings
from gitstore.snapshot import Snapshot
from gitstore.version import Commit, Version

PATIENCE = 1.0
"""Seconds that a search waits for what it needs to be made."""


class Sources(Struct, frozen=True):
    """What a store lends to the states of its past."""

    repository: Repository
    index: Index
    rewinding: Rewinding
    hindsight: Hindsight
    settings: Settings
    reading: Reading


class Past:
    """The record as the commit `at` left it. What the methods mean stands in Store; whatever came later isn't there.

    Reads and histories answer from the index of now, which has all versions. Searches need one of their own: the first
    makes it, and raises Preparing where that takes longer than `patience`, in seconds; None waits as long as it takes.
    """

    def __init__(self, sources: Sources, commit: Commit, patience: float | None = PATIENCE) -> None:
        """Use `Store.past`."""
        self.at = commit
        self._sources = sources
        self._patience = patience
        self.canonicals = Canonicals(lambda: sources.reading.snapshot(commit.sequence))

    def snapshot(self, sequence: int | None = None, access: Access = FULL_ACCESS) -> Snapshot:
        if sequence is not None and sequence > self.at.sequence:
            raise NotFound(f"The record had no commit number {sequence}.")
        return self._sources.reading.snapshot(sequence or self.at.sequence, access)

    def snapshot_before(self, instant: int, access: Access = FULL_ACCESS) -> Snapshot:
        sequence = versions.sequence_before(self._sources.index.reader(), instant)
        if sequence == 0:
            raise NotFound(f"The record did not exist before {format_instant(instant)}.")
        return self.snapshot(min(sequence, self.at.sequence), access)

    @contextmanager
    def reading(self, access: Access = FULL_ACCESS) -> Iterator[Snapshot]:
        """As `Store.reading`. Raises Preparing."""
        sources = self._sources
        if sources.settings.search == "off":
            # Then there is one index only, and what can be asked of it says so when it can't be searched.
            with sources.index.reading() as now:
                seeing = None if access.is_full else sources.reading.seeing(access, now)
                yield sources.reading.searchable(self.at, now, lambda: None, seeing)
            return
        with closing(sources.rewinding.open(self.at, self._patience)) as then:
            registry = sources.rewinding.states.registry(then)
            seeing = None if access.is_full else self._seeing(access, then, registry)
            with sources.reading.counting_costs():
                yield sources.reading.searchable(self.at, then, lambda: registry, seeing)

    def _seeing(self, access: Access, then: Connection, registry: Registry) -> Seeing:
        sources = self._sources
        with sources.index.reading() as now:
            return sources.hindsight.seeing(sources.reading.seeing(access, now), now, self.at, then, registry)

    def search_parameters(self, type: str) -> Mapping[str, Parameter]:
        """Those that searches of this state know: with the SearchParameters that were active then."""
        sources = self._sources
        if sources.settings.search == "off":
            return {}
        return sources.rewinding.registry(sources.index, self.at).of(type)

    def body(self, version: Version) -> bytes:
        return self._sources.repository.blob(version.blob or "")

    # What has been can't be changed. HTTP and the command line refuse before they come here.

    def commit(self, *_interactions: object, **_about: object) -> NoReturn:
        """Raises NotAllowed."""
        raise NotAllowed("This is the record as it was: nothing can be written there.")

    commit_each = replicate = commit
