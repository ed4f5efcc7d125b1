"""Foreign commits on main, from finding them to the commit that takes them into the record."""

from __future__ import annotations

from contextlib import suppress

from gitstore.adoption import Adoption, examine
from gitstore.errors import ForeignCommit
from gitstore.git.repository import Repository
from gitstore.git.writer import Writer
from gitstore.indexing import Indexing
from gitstore.interactions import Validate
from gitstore.replay import missing, replay
from gitstore.search import index, versions
from gitstore.search.index import Index
from gitstore.settings import Settings
from gitstore.version import Commit
from gitstore.writing import Writing


class Adopting:
    """Of one store. Without a writer and what writes, it can only look."""

    def __init__(
        self,
        repository: Repository,
        search_index: Index,
        indexing: Indexing,
        settings: Settings,
        validate: Validate | None,
        writer: Writer | None = None,
        writing: Writing | None = None,
    ) -> None:
        self._repository = repository
        self._index = search_index
        self._indexing = indexing
        self._settings = settings
        self._validate = validate
        self._writer = writer
        self._writing = writing

    def foreign(self, new: str | None) -> Adoption | None:
        """See `Store.foreign`."""
        with self._indexing.locked():
            with suppress(ForeignCommit):
                self._indexing.catch_up()
            connection = self._index.writer()
            tip = versions.tip(connection)
            assert tip is not None
            if new is None:
                new = self._indexing.main()
                missing(self._repository, tip, new)
            if self._repository.contains(tip.id, new):
                tip = self._last_good(connection, tip, new)
        return examine(self._repository, tip, new, self._settings, self._validate) if tip.id != new else None

    def _last_good(self, connection: index.Connection, tip: Commit, new: str) -> Commit:
        """The last commit of ours on the way to `new`, which is in the index for a moment only."""
        index.begin(connection)
        try:
            with suppress(ForeignCommit):
                replay(self._repository, connection, tip, missing(self._repository, tip, new))
            return versions.tip(connection) or tip
        finally:
            index.rollback(connection)

    def adopt(self) -> Commit | None:
        """See `Store.adopt`."""
        with self._indexing.locked():
            try:
                self._indexing.catch_up()
            except ForeignCommit:
                return self.take_over()
        return None

    def take_over(self) -> Commit:
        """Make the commit that takes all of main into the record; under the lock. Raises ForeignCommit with its problems."""
        assert self._writer is not None
        assert self._writing is not None
        writing = self._writing
        main = self._indexing.main()
        before = versions.tip(self._index.writer())
        assert before is not None
        missing(self._repository, before, main)
        adoption = examine(self._repository, before, main, self._settings, self._validate)
        if adoption.problems:
            refusal = adoption.refusal()
            self._indexing.is_foreign(main, refusal)
            raise refusal
        self._writer.check_space(2 * adoption.prepared.size)
        self._writer.settle()
        return writing.publish(
            lambda head, connection, pack: writing.commit(adoption.prepared, head, connection, pack)[1],
            main,
        )
