"""Snapshots of a record for those who read: as which commit left it, as whom it is seen by, with a search or without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache

from gitstore.access import FULL_ACCESS, Access
from gitstore.errors import NotFound, StoreError, TooCostly
from gitstore.fhir.dates import format_instant
from gitstore.git.message import parse_message
from gitstore.git.repository import Repository
from gitstore.git.rewritten import successor
from gitstore.indexing import Indexing
from gitstore.observing import Observer
from gitstore.restricted import Restricted
from gitstore.search import versions
from gitstore.search.criteria import Limits
from gitstore.search.index import Connection, Index
from gitstore.search.parameters import Registry
from gitstore.search.sight import Sight
from gitstore.searching import Searching
from gitstore.seeing import Seeing
from gitstore.settings import Settings
from gitstore.snapshot import Snapshot
from gitstore.version import Commit

_LOOK_AGAIN = 0.005
"""Seconds between looks whether the index has a commit that is waited for."""

_RECENT = 1000
"""Commits among which one that is waited for is looked for first: mostly it is one of the last."""

_ACCESSES = 256
"""So many of them are known at once, each with what it has been found to see."""


class Reading:
    """Of one store. Any thread may call. What the methods with a name of Store's mean stands there."""

    def __init__(
        self,
        repository: Repository,
        search_index: Index,
        indexing: Indexing,
        settings: Settings,
        observer: Observer,
    ) -> None:
        self._repository = repository
        self._index = search_index
        self._indexing = indexing
        self._settings = settings
        self._observer = observer
        # What was found out about an access is of use to its next request.
        self._judges = lru_cache(_ACCESSES)(
            lambda access, registry: Seeing(Sight(access, registry), repository)
        )

    def snapshot(self, sequence: int | None = None, access: Access = FULL_ACCESS) -> Snapshot:
        connection = self._indexing.reader()
        commit = versions.tip(connection) if sequence is None else versions.commit_at(connection, sequence)
        if commit is None:
            raise NotFound(f"The record has no commit number {sequence}.")
        if access.is_full:
            return Snapshot(commit, self._index.reader, self._repository)
        seeing = self.seeing(access, connection)
        return Restricted(commit, self._index.reader, self._repository, None, seeing, self._index.steadily)

    def snapshot_before(self, instant: int, access: Access) -> Snapshot:
        sequence = versions.sequence_before(self._indexing.reader(), instant)
        if sequence == 0:
            raise NotFound(f"The record did not exist before {format_instant(instant)}.")
        return self.snapshot(sequence, access)

    @contextmanager
    def reading(self, access: Access) -> Iterator[Snapshot]:
        self._indexing.reader()
        with self._index.reading() as connection:
            tip = versions.tip(connection)
            assert tip is not None
            with self.counting_costs():
                yield self.now(tip, connection, access)

    @contextmanager
    def counting_costs(self) -> Iterator[None]:
        """A block in which a search that is refused as too costly is told to the monitors."""
        try:
            yield
        except TooCostly:
            self._observer.refused_as_too_costly()
            raise

    def now(self, commit: Commit, connection: Connection, access: Access) -> Snapshot:
        """A snapshot that can be searched, of a commit which is the newest one in the index in use."""
        seeing = None if access.is_full else self.seeing(access, connection)
        return self.searchable(commit, connection, lambda: self._index.registry(connection), seeing)

    def searchable(
        self,
        commit: Commit,
        connection: Connection,
        registry: Callable[[], Registry | None],
        seeing: Seeing | None,
    ) -> Snapshot:
        """A snapshot that can be searched, of the commit whose state the index behind the connection has.

        `registry` tells its search parameters; whoever sees everything needs no `seeing`.
        """
        settings, repository = self._settings, self._repository

        def searching(source: Connection, commit: Commit) -> Searching:
            limits = Limits(max_chain=settings.max_chain)
            return Searching(source, repository, registry(), commit, limits, settings.search_limit, seeing)

        if seeing is None:
            return Snapshot(commit, lambda: connection, repository, searching)
        return Restricted(
            commit, lambda: connection, repository, searching, seeing, lambda: nullcontext(connection)
        )

    def seeing(self, access: Access, connection: Connection) -> Seeing:
        """What an access sees of the index in use."""
        return self._judges(access, self._index.registry(connection))

    def resolve(self, revision: str) -> Commit:
        id = self._commit_id(revision)
        connection = self._index.reader()
        try:
            message = parse_message(self._repository.commit(id).message)
            found = versions.commit_of_time(connection, message.last_updated)
        except StoreError as error:
            raise NotFound(f"`{revision}` is no commit of git-fhir.") from error
        if found is None or found.id != id:
            raise NotFound(f"`{revision}` is not on the record.")
        return found

    def _commit_id(self, revision: str) -> str:
        """A commit that a purge has replaced is cited by its old id, or the beginning of it, for all time."""
        git_dir = self._repository.git_dir
        if len(revision) == 40 and (new := successor(git_dir, revision)) is not None:
            return new
        try:
            return self._repository.resolve(revision)
        except NotFound:
            if (new := successor(git_dir, revision)) is None:
                raise
            return new

    def wait_for(self, id: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        seen = self.snapshot().commit.sequence - _RECENT
        if versions.has_commit(self._indexing.reader(), id, seen):
            return True
        with suppress(NotFound):
            return bool(self.resolve(id))
        while not versions.has_commit(connection := self._indexing.reader(), id, seen):
            if time.monotonic() >= deadline:
                return False
            tip = versions.tip(connection)
            seen = tip.sequence - 1 if tip is not None else 0
            time.sleep(_LOOK_AGAIN)
        return True
