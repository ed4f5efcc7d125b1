"""The store: where git and the search index meet. It only sequences; each step is a named function elsewhere."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from gitstore.adoption import Adoption, examine
from gitstore.canonicals import Canonicals
from gitstore.errors import (
    ForeignCommit,
    NotFound,
    RepositoryRefused,
    StorageFailed,
    StoreError,
)
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId
from gitstore.git import layout
from gitstore.git.commits import format_commit
from gitstore.git.message import Message, format_message, parse_message
from gitstore.git.pack import BLOB, COMMIT, Pack
from gitstore.git.repository import Repository, create
from gitstore.git.trees import Trees, nest
from gitstore.git.writer import Writer
from gitstore.idempotency import done_before
from gitstore.indexing import Indexing
from gitstore.interactions import Interaction, Outcome, Unit
from gitstore.maintenance import Maintained, Maintenance
from gitstore.preparation import Prepared, Rules, prepare
from gitstore.queue import Pending, WriteQueue
from gitstore.replay import OnProgress, missing, replay
from gitstore.replication import (
    Replica,
    prepare_series,
)
from gitstore.search import index, versions
from gitstore.search.criteria import Limits
from gitstore.search.described import Indexed, described
from gitstore.search.index import Index
from gitstore.search.parameters import Parameter
from gitstore.searching import Searching
from gitstore.settings import Settings
from gitstore.snapshot import Snapshot, as_indexed
from gitstore.statistics import Statistics, take
from gitstore.verify import Finding, verify
from gitstore.version import SERVER, Author, Commit, Idempotency
from gitstore.writing import Writing


def now() -> int:
    """The clock: microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def random_id() -> str:
    """An id that no one can guess, for a created resource."""
    return str(uuid.uuid4())


def init(path: str | os.PathLike[str], *, clock: Callable[[], int] = now, author: Author = SERVER) -> str:
    """Make an empty record, a bare repository with its first commit; returns its git directory.

    Raises RepositoryRefused where the folder is not empty or can't be made.
    """
    git_dir = create(path)
    pack = Pack()
    files = {name: pack.add(BLOB, text.encode()) for name, text in layout.FIRST_FILES.items()}
    tree = Trees(lambda _: b"").edit(None, nest(files), pack)
    assert tree is not None
    instant = clock()
    text = format_message(Message("init", (), instant))
    commit = pack.add(COMMIT, format_commit(tree, None, author, SERVER, instant, text))
    writer = Writer(git_dir)
    try:
        with writer.locked():
            writer.publish(pack, None, commit.hex())
    finally:
        writer.close()
    return git_dir


class Store:
    """A record of FHIR resources in a git repository. Any thread may call; open one in each process, after any fork."""

    def __init__(
        self,
        repository: Repository,
        search_index: Index,
        settings: Settings,
        clock: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        """Use `open`."""
        self.settings = settings
        self._repository = repository
        self._index = search_index
        self._clock = clock
        self._new_id = new_id
        self._writer: Writer | None = None
        self._maintenance: Maintenance | None = None
        self._queue = WriteQueue(self._lead, settings.lock_timeout)
        self.canonicals = Canonicals(lambda: as_indexed(search_index.reader, repository))
        self._validate = self.canonicals.validator(settings.validation)
        self._indexing = Indexing(repository, search_index, None, searchable=settings.search == "on")

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        settings: Settings | None = None,
        *,
        clock: Callable[[], int] = now,
        new_id: Callable[[], str] = random_id,
        cache_folder: str | None = None,
        more_objects: Sequence[str] = (),
    ) -> Store:
        """Open the record in a git directory (see `discover`), and bring its index up to date.

        Where the git directory can't be written by us, the index is a private one in `cache_folder`.
        `more_objects` are other object folders to read, such as that of a push which its hooks are to judge: `foreign`.
        Raises RepositoryRefused where there is no record of a format that this version knows.
        """
        git_dir = os.path.abspath(path)
        repository = Repository(git_dir, more_objects)
        repository.check_format()
        folder = os.path.join(git_dir, layout.LOCAL)
        is_private = not _is_ours(git_dir)
        if is_private:
            if cache_folder is None:
                raise StorageFailed(
                    f"{git_dir} can't be written, and there is no folder for a private index."
                )
            name = hashlib.sha256(os.path.realpath(git_dir).encode()).hexdigest()[:32]
            folder = os.path.join(cache_folder, name)
        settings = settings or Settings()
        search_index = Index(
            folder,
            base_url=settings.base_url,
            all_references=settings.referential_integrity == "enforce",
        )
        store = cls(repository, search_index, settings, clock, new_id)
        if not is_private:
            store._open_writer()
        try:
            store._indexing.freshen()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Write what waits, and let go of everything."""
        self._queue.close()
        if self._maintenance is not None:
            self._maintenance.close()
        self._index.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Reading

    def snapshot(self, sequence: int | None = None) -> Snapshot:
        """The record now, or as the commit of this sequence left it. Raises NotFound where there is no such commit."""
        connection = self._reader()
        commit = versions.tip(connection) if sequence is None else versions.commit_at(connection, sequence)
        if commit is None:
            raise NotFound(f"The record has no commit number {sequence}.")
        return Snapshot(commit, self._index.reader, self._repository)

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """The record now, for the length of a block in which it can be searched: other snapshots can't be."""
        self._reader()
        with self._index.reading() as connection:
            tip = versions.tip(connection)
            assert tip is not None
            yield self._searchable(tip, connection)

    def _searchable(self, commit: Commit, connection: index.Connection) -> Snapshot:
        settings = self.settings

        def searching(source: index.Connection, commit: Commit) -> Searching:
            limits = Limits(max_chain=settings.max_chain)
            registry = self._index.registry(connection)
            return Searching(source, self._repository, registry, commit, limits, settings.search_limit)

        return Snapshot(commit, lambda: connection, self._repository, searching)

    def snapshot_before(self, instant: int) -> Snapshot:
        """The record as it was right before an instant. Raises NotFound where it did not exist yet."""
        sequence = versions.sequence_before(self._reader(), instant)
        if sequence == 0:
            raise NotFound(f"The record did not exist before {format_instant(instant)}.")
        return self.snapshot(sequence)

    def search_parameters(self, type: str) -> Mapping[str, Parameter]:
        """The search parameters of a resource type by their codes; none where `fhir.search` is off."""
        registry = self._index.registry(self._reader())
        return {} if registry is None else registry.of(type)

    def indexed(self, resource_id: ResourceId) -> list[Indexed]:
        """By which parameters and values searches find a resource; nothing for one that isn't there."""
        return described(self._reader(), resource_id)

    def statistics(self) -> Statistics:
        """The record in numbers, as it is now."""
        return take(self._repository, self._reader())

    def _reader(self) -> index.Connection:
        """An index to answer from: one that is behind catches up first."""
        if self._writer is not None and self._writer.index_is_behind():
            with self._indexing.locked():
                self._indexing.catch_up()
        return self._index.reader()

    def resolve(self, revision: str) -> Commit:
        """The commit of the record that a git revision names: an id, its beginning, a tag, `main~2`.

        Raises NotFound where git knows none, or it is not on the record.
        """
        id = self._repository.resolve(revision)
        connection = self._index.reader()
        try:
            message = parse_message(self._repository.commit(id).message)
            found = versions.commit_of_time(connection, message.last_updated)
        except StoreError as error:
            raise NotFound(f"`{revision}` is no commit of git-fhir.") from error
        if found is None or found.id != id:
            raise NotFound(f"`{revision}` is not on the record.")
        return found

    def message(self, commit: Commit) -> str:
        """The author's words in a commit's message: why; empty where there are none."""
        return parse_message(self._repository.commit(commit.id).message).words

    def maintain(self, *, full: bool = False) -> Maintained:
        """Tidy up the record now: see `gitstore.maintenance`, which mostly does so by itself. Reads and writes go on.

        With `full` all packs become one, with new deltas. Raises Locked, StorageFailed.
        """
        if self._maintenance is None:
            raise StorageFailed(f"{self._repository.git_dir} can't be written by this user.")
        return self._maintenance.run(full=full)

    def verify(self, progress: OnProgress | None = None) -> Iterator[Finding]:
        """Everything about the record and its index that contradicts itself; nothing for a sound one."""
        connection = self._index.reader()
        return verify(self._repository, connection, self._index.registry(connection), progress)

    # Writing

    def commit(
        self,
        interactions: Sequence[Interaction],
        author: Author,
        *,
        request_id: str | None = None,
        message: str | None = None,
        interaction: str | None = None,
        idempotency: Idempotency | None = None,
    ) -> list[Outcome]:
        """Do one unit of work: all interactions in one commit, or none. Durable when it returns.

        The outcomes stand in the order of the interactions. Raises any StoreError; for a "transaction" it names the
        entry at fault. Only NotConfirmed is raised for a unit that has happened.
        """
        unit = Unit(interactions, author, request_id, message, interaction, idempotency)
        if (earlier := self._done_before(unit)) is not None:
            return earlier
        pending = Pending(self._prepare(unit))
        self._queue.submit([pending])
        self._queue.wait(pending)
        return _outcomes(pending)

    def commit_each(self, units: Iterable[Unit]) -> list[list[Outcome] | StoreError]:
        """Do many units that don't depend on one another, each a commit of its own; each succeeds or fails alone."""
        results: list[Pending | list[Outcome] | StoreError] = []
        for unit in units:
            try:
                earlier = self._done_before(unit)
                results.append(Pending(self._prepare(unit)) if earlier is None else earlier)
            except StoreError as error:
                results.append(error)
        self._queue.submit([result for result in results if isinstance(result, Pending)])
        return [self._await(result) if isinstance(result, Pending) else result for result in results]

    def replicate(self, replicas: Sequence[Replica]) -> list[Outcome]:
        """Take over commits of another record as they are, oldest first: all of them, or none. Durable when it returns.

        The outcomes are those of the versions, in their order. A record that has only its first commit yet gets an
        earlier one where the history is older than that. Raises Conflict where the history doesn't go on where the
        record ends, Unprocessable for dates that can't be, and what validation raises; each with the entry at fault.
        """
        self._check_writable()
        if not replicas:
            return []
        pending = Pending(prepare_series(replicas, self._rules(self._index.reader()), self._clock()))
        self._queue.submit([pending])
        self._queue.wait(pending)
        return _outcomes(pending)

    def _done_before(self, unit: Unit) -> list[Outcome] | None:
        """What was right the first time may not be any more: a retry is answered before it is even looked at."""
        if unit.idempotency is None:
            return None
        with self.reading() as snapshot:
            return done_before(unit, snapshot)

    def _await(self, pending: Pending) -> list[Outcome] | StoreError:
        try:
            self._queue.wait(pending)
            return _outcomes(pending)
        except StoreError as error:
            return error

    def _check_writable(self) -> None:
        if self._writer is None:
            raise StorageFailed(f"{self._repository.git_dir} can't be written by this user.")
        if not self._repository.is_bare:
            raise RepositoryRefused(
                f"{self._repository.git_dir} has a work tree, which a write would leave behind; write to a bare clone."
            )

    def _prepare(self, unit: Unit) -> Prepared:
        self._check_writable()
        return self.rehearse(unit)

    def rehearse(self, unit: Unit) -> Prepared:
        """What there is to write for a unit. Raises all that `commit` refuses without a look at what is there."""
        with ExitStack() as stack:
            return prepare(
                unit, self._rules(self._index.reader()), lambda: stack.enter_context(self.reading())
            )

    def _rules(self, connection: index.Connection) -> Rules:
        return Rules(
            self._new_id,
            self._validate,
            self._index.registry(connection),
            skip_unchanged=self.settings.unchanged_update == "skip",
            max_deletes=self.settings.max_entries if self.settings.conditional_delete == "multiple" else 1,
        )

    # Writing, in the writer's thread

    def _lead(self, take: Callable[[], list[Pending]]) -> None:
        group: list[Pending] = []
        try:
            with self._indexing.locked():
                group = take()
                self._write(group)
        except Exception as error:  # noqa: BLE001  # raised again in the callers' threads, by _outcomes
            group = group or take()
            for pending in group:
                pending.error = pending.error or error
        for pending in group:
            pending.finish()
        if self._maintenance is not None:
            self._maintenance.published()

    def _write(self, group: list[Pending]) -> None:
        """Write a group of units: one transaction of the index, one pack, one move of main."""
        assert self._writer is not None
        self._writer.check_space(2 * sum(pending.prepared.size for pending in group))
        try:
            self._indexing.catch_up()
        except ForeignCommit as error:
            if self.settings.foreign_commits != "adopt" or error.problems:
                raise
            self._adopt()

        def units(head: Commit, connection: index.Connection, pack: Pack) -> Commit:
            for pending in group:
                head = self._writing.unit(pending, head, connection, pack)
            return head

        self._writing.publish(units)

    def _open_writer(self) -> None:
        git_dir, settings = self._repository.git_dir, self.settings
        durable = settings.durability == "full"
        self._writer = Writer(git_dir, durable=durable, lock_timeout=settings.lock_timeout)
        self._indexing = Indexing(
            self._repository, self._index, self._writer, searchable=settings.search == "on"
        )
        self._writing = Writing(
            self._repository,
            self._index,
            self._writer,
            settings,
            self._clock,
            self._rules,
            self._searchable,
        )
        self._maintenance = Maintenance(
            git_dir,
            self._writer.locked,
            durable=durable,
            timeout=settings.lock_timeout,
            automatic=settings.maintenance == "auto",
        )

    # Commits that are not ours

    def foreign(self, new: str | None = None) -> Adoption | None:
        """What `adopt` would come to, or would if a push moved main to the commit `new`; None where all is ours.

        Raises ForeignCommit where main, or `new`, does not build on the record: a rewound or forced main.
        """
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
        return examine(self._repository, tip, new, self.settings, self._validate) if tip.id != new else None

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
        """Take foreign commits on main into the record, in one commit; returns it, None where there are none.

        Raises ForeignCommit, with all its problems, where that can't be.
        """
        self._check_writable()
        with self._indexing.locked():
            try:
                self._indexing.catch_up()
            except ForeignCommit:
                return self._adopt()
        return None

    def _adopt(self) -> Commit:
        assert self._writer is not None
        main = self._indexing.main()
        before = versions.tip(self._index.writer())
        assert before is not None
        missing(self._repository, before, main)
        adoption = examine(self._repository, before, main, self.settings, self._validate)
        if adoption.problems:
            refusal = adoption.refusal()
            self._indexing.is_foreign(main, refusal)
            raise refusal
        self._writer.check_space(2 * adoption.prepared.size)
        self._writer.settle()
        return self._writing.publish(
            lambda head, connection, pack: self._writing.commit(adoption.prepared, head, connection, pack)[1],
            main,
        )

    def reindex(self, progress: OnProgress | None = None) -> None:
        """Make the index anew from git, beside those who read and write, and put it in place.

        SearchParameters of the record that are active take effect with it.
        """
        self._indexing.rebuild(progress)


def _outcomes(pending: Pending) -> list[Outcome]:
    if pending.error is not None:
        raise pending.error
    return pending.outcomes


def _is_ours(git_dir: str) -> bool:
    """Whether this process may write to a git directory, as its owner."""
    return os.access(git_dir, os.W_OK | os.X_OK) and os.stat(git_dir).st_uid == os.geteuid()
