"""Keeping the index true to git: catching up with commits that it hasn't seen, and making it anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress

from gitstore.errors import ForeignCommit, Outdated, RepositoryDamaged, RepositoryRefused, StorageFailed
from gitstore.fhir import Resource, json
from gitstore.git import layout, rewritten
from gitstore.git.history import chain, walk
from gitstore.git.repository import Repository
from gitstore.git.writer import Writer, read_main
from gitstore.replay import OnProgress, missing, read_step, replay
from gitstore.search import index, noting, states, versions
from gitstore.search.extract import extract
from gitstore.search.index import Index
from gitstore.search.parameters import Registry
from gitstore.version import Commit

_PIECE = 1000


class Indexing:
    """One store's upkeep of its index. Without a writer, as for a private index, it takes no lock."""

    def __init__(
        self,
        repository: Repository,
        search_index: Index,
        writer: Writer | None,
        *,
        searchable: bool,
        main: str | None = None,
    ) -> None:
        """`main` is another commit than that at which main stands: that of a history to be."""
        self._main = main
        self._repository = repository
        self._index = search_index
        self._writer = writer
        self._searchable = searchable
        self._closed = False
        self._foreign: tuple[str, ForeignCommit] | None = None
        """What stands on main, if it is a foreign commit: the tip, and why."""

    def foreign(self) -> ForeignCommit | None:
        """Why main can't be taken for the record; None where all of it is in the index, or is on its way there.

        Doesn't wait for a lock: who has it catches up before he writes, and remembers what he finds.
        """
        main = self.main()
        tip = versions.tip(self._index.reader())
        if tip is not None and tip.id == main:
            return None
        if self._foreign is not None and self._foreign[0] == main:
            return self._foreign[1]
        with self._writer.locked_at_once() if self._writer is not None else nullcontext(True) as locked:
            if locked:
                try:
                    self.catch_up()
                except ForeignCommit as error:
                    return error
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The writer's lock, for those who have one."""
        with self._writer.locked() if self._writer is not None else nullcontext():
            yield

    def main(self) -> str:
        """The commit that main stands at."""
        main = self._main or read_main(self._repository.git_dir)
        if main is None:
            raise RepositoryDamaged(f"{self._repository.git_dir} has no branch {layout.BRANCH}.")
        return main

    def reader(self) -> index.Connection:
        """An index to answer from: one that is behind catches up first."""
        if self._writer is not None and not self._closed and self._writer.index_is_behind():
            try:
                with self.locked():
                    self.catch_up()
            except Outdated:
                self.replace_outdated()
        return self._index.reader()

    def close(self) -> None:
        """The writer is about to be closed: who still reads gets what the index holds."""
        self._closed = True

    def freshen(self) -> None:
        """Bring the index up to main. Raises RepositoryRefused where no record is."""
        if not self._exists():
            with self._index.alone():
                if not self._exists():
                    self._rebuild()
        try:
            # A foreign commit doesn't hinder reading what came before it; a write will say what is in the way.
            with self.locked(), suppress(ForeignCommit):
                self.catch_up()
        except StorageFailed:
            # An index that can't be read is made anew; where it wasn't at fault, that fails in the same way.
            self.rebuild()
        if versions.tip(self._index.reader()) is None:
            raise RepositoryRefused(
                f"{self._repository.git_dir} holds no git-fhir record: its first commit is not one of git-fhir."
            )

    def _exists(self) -> bool:
        return self._index.exists(searchable=self._searchable)

    def catch_up(self) -> None:
        """Apply the commits between the index and main; under the lock. Raises ForeignCommit."""
        connection = self._index.writer()
        main = self.main()
        tip = versions.tip(connection)
        if tip is None or tip.id != main:
            if tip is not None and rewritten.successor(self._repository.git_dir, tip.id) is not None:
                raise Outdated("The search index is of the record before a purge, and has to be made anew.")
            if self._foreign is not None and self._foreign[0] == main:
                raise self._foreign[1]
            index.begin(connection)
            try:
                # Where there is no lock, as for a private index, another process may have done it meanwhile.
                tip = self._on_main(connection, versions.tip(connection), main)
                self._replay(connection, tip, missing(self._repository, tip, main))
            except ForeignCommit as error:
                index.commit(connection)
                self.is_foreign(main, error)
                self._mark_caught_up()
                raise
            except BaseException:
                index.rollback(connection)
                raise
            index.commit(connection)
        self._mark_caught_up()

    def _on_main(self, connection: index.Connection, tip: Commit | None, main: str) -> Commit | None:
        """The tip; None where the record was empty, and a history that it took over has put an earlier first commit there.

        Who did so notes it in the index himself. This is for one who died before, and for private indexes.
        """
        was_written = self._writer is None or self._writer.index_is_behind()
        if tip is None or tip.sequence > 1 or not was_written or self._repository.contains(tip.id, main):
            return tip
        [step] = walk(self._repository, chain(self._repository, main, None)[:1], None)
        with suppress(ForeignCommit):
            read_step(step, None, lambda _: "absent")
            noting.forget_first(connection)
            return None
        return tip

    def is_foreign(self, main: str, error: ForeignCommit) -> None:
        """Remember why main can't be taken for the record, until it moves."""
        self._foreign = (main, error)

    def _mark_caught_up(self) -> None:
        if self._writer is not None and self._writer.index_is_behind():
            self._writer.mark_index(behind=False)

    def _replay(self, connection: index.Connection, tip: Commit | None, ids: list[str]) -> None:
        registry = self._index.registry(connection)
        foreign = None
        try:
            replay(self._repository, connection, tip, ids)
        except ForeignCommit as error:
            foreign = error
        if registry is not None:
            self._renew(connection, registry, tip.sequence if tip else 0)
        if foreign is not None:
            raise foreign

    def _renew(self, connection: index.Connection, registry: Registry, sequence: int) -> None:
        """Give the contents of their newest version to all resources that later commits changed."""
        after = 0
        while piece := versions.newest_since(connection, sequence, after, _PIECE):
            for key, _, blob, is_new in piece:
                rows = extract(registry, self._resource(blob)) if blob is not None else None
                noting.renew(connection, key, rows, is_new=is_new)
            after = piece[-1][0]

    def _resource(self, blob: str) -> Resource:
        resource: Resource = json.loads_trusted(self._repository.blob(blob))
        return resource

    def rebuild(self, progress: OnProgress | None = None) -> None:
        """Make the index anew from git, beside those who read and write, and put it in place."""
        with self._index.alone():
            self._rebuild(progress)

    def replace_outdated(self) -> None:
        """Make the index anew where it is that of a history which has been rewritten."""
        with self._index.alone():
            try:
                with self.locked(), suppress(ForeignCommit):
                    self.catch_up()
            except Outdated:
                self._rebuild()

    @contextmanager
    def to_be(
        self, repository: Repository, main: str, progress: OnProgress | None = None
    ) -> Iterator[index.Generation]:
        """The index of a rewritten history, in which main is to stand at `main`; `repository` can read it already.

        Only under the writer's lock, and when alone. Raises RepositoryDamaged where it is no record.
        """
        other = Indexing(repository, self._index, None, searchable=self._searchable, main=main)
        with self._index.rebuilding() as generation:
            tip = other._fill(generation, progress)
            if tip is None or tip.id != main:
                raise RepositoryDamaged(
                    f"The rewritten history can't be read beyond {tip.id if tip else 'nothing'}."
                )
            yield generation

    def _fill(self, generation: index.Generation, progress: OnProgress | None) -> Commit | None:
        tip = self._replay_to_main(generation, None, progress)
        if self._searchable:
            with generation.filling(self._stored_parameters(generation.connection)) as registry:
                self._renew(generation.connection, registry, 0)
        else:
            generation.leave_unsearchable()
        return tip

    def _rebuild(self, progress: OnProgress | None = None) -> None:
        with self._index.rebuilding() as generation, ExitStack() as stack:
            tip = self._fill(generation, progress)
            stack.enter_context(self.locked())
            seen = tip.sequence if tip else 0
            self._replay_to_main(generation, tip, progress)
            if generation.registry is not None:
                self._renew(generation.connection, generation.registry, seen)
            generation.take_over()
            states.forget(self._index.folder)
            self._mark_caught_up()

    def _stored_parameters(self, connection: index.Connection) -> list[Resource]:
        tip = versions.tip(connection)
        return [] if tip is None else stored_parameters(self._repository, connection, tip.sequence)

    def _replay_to_main(
        self, generation: index.Generation, tip: Commit | None, progress: OnProgress | None
    ) -> Commit | None:
        try:
            ids = missing(self._repository, tip, self.main())
            return replay(self._repository, generation.connection, tip, ids, progress)
        except ForeignCommit:
            # What came before it is the record; a write will say what is in the way.
            return versions.tip(generation.connection)


def stored_parameters(repository: Repository, connection: index.Connection, sequence: int) -> list[Resource]:
    """The SearchParameters of the record that are active, as a commit left it. https://hl7.org/fhir/R4/searchparameter.html"""
    stored = []
    after = None
    while page := versions.current(connection, "SearchParameter", sequence, after, _PIECE):
        stored += page
        after = page[-1].resource_id
    found: dict[str, Resource] = {}
    # Of several under one URL the one that was written last counts.
    for version in sorted(stored, key=lambda version: version.last_updated):
        resource = json.loads_trusted(repository.blob(version.blob or ""))
        if resource.get("status") == "active" and isinstance(resource.get("url"), str):
            found[resource["url"]] = resource
    return [found[url] for url in sorted(found)]
