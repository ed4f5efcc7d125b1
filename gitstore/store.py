"""The store: where git and the search index meet. It only sequences; each step is a named function elsewhere."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import lru_cache

from gitstore.access import FULL_ACCESS, Access
from gitstore.adopting import Adopting
from gitstore.adoption import Adoption
from gitstore.aims import Rules
from gitstore.canonicals import Canonicals
from gitstore.cluster.cluster import Cluster
from gitstore.errors import (
    ForeignCommit,
    Locked,
    NotFound,
    Outdated,
    RepositoryRefused,
    StorageFailed,
    StoreError,
    TooCostly,
)
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId
from gitstore.founding import now
from gitstore.git import layout
from gitstore.git.commits import Sign, unsigned
from gitstore.git.message import parse_message
from gitstore.git.pack import Pack
from gitstore.git.repository import CACHE_BYTES, Repository
from gitstore.git.rewritten import successor
from gitstore.git.signing import signer
from gitstore.git.writer import Writer
from gitstore.hindsight import Hindsight
from gitstore.idempotency import done_before
from gitstore.indexing import Indexing
from gitstore.interactions import Interaction, Outcome, Unit
from gitstore.journal.checking import check
from gitstore.maintenance import Maintained, Maintenance
from gitstore.observing import UNOBSERVED, Observer
from gitstore.past import PATIENCE, Past, Sources
from gitstore.preparation import Prepared, prepare
from gitstore.purgeable import Selection, Target
from gitstore.purging import Erased, Purging
from gitstore.queue import Pending, WriteQueue
from gitstore.replay import OnProgress
from gitstore.replication import (
    Replica,
    prepare_series,
)
from gitstore.restricted import Restricted
from gitstore.rewinding import Rewinding
from gitstore.search import index, versions
from gitstore.search.criteria import Limits
from gitstore.search.described import Indexed, described
from gitstore.search.index import Index
from gitstore.search.parameters import Parameter
from gitstore.search.sight import Sight
from gitstore.search.states import States
from gitstore.searching import Searching
from gitstore.seeing import Seeing
from gitstore.settings import Settings
from gitstore.snapshot import Snapshot, as_indexed
from gitstore.statistics import Statistics, take
from gitstore.verify import Finding, verify
from gitstore.version import Author, Commit, Idempotency, Version
from gitstore.vitals import Vitals
from gitstore.writing import Writing

_LOOK_AGAIN = 0.005
"""Seconds between looks whether the index has a commit that is waited for."""

_RECENT = 1000
"""Commits among which one that is waited for is looked for first: mostly it is one of the last."""

_ACCESSES = 256
"""So many of them are known at once, each with what it has been found to see."""


def random_id() -> str:
    """An id that no one can guess, for a created resource."""
    return str(uuid.uuid4())


class Store:
    """A record of FHIR resources in a git repository. Any thread may call; open one in each process, after any fork."""

    def __init__(
        self,
        repository: Repository,
        search_index: Index,
        settings: Settings,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        observer: Observer = UNOBSERVED,
    ) -> None:
        """Use `open`."""
        self.settings = settings
        self._repository = repository
        self._index = search_index
        self._clock = clock
        self._new_id = new_id
        self._observer = observer
        self.cluster: Cluster | None = None
        """What there is to do with other nodes; None where fhir.hub isn't set, or the record belongs to someone else."""

        self._writer: Writer | None = None
        self._maintenance: Maintenance | None = None
        self._queue = WriteQueue(self._lead, settings.lock_timeout, observer)
        self.canonicals = Canonicals(lambda: as_indexed(search_index.reader, repository))
        self._validate = self.canonicals.validator(settings.validation)
        self._indexing = Indexing(repository, search_index, None, searchable=settings.search == "on")
        self._adopting = Adopting(repository, search_index, self._indexing, settings, self._validate)
        # What was found out about an access is of use to its next request.
        self._judges = lru_cache(_ACCESSES)(
            lambda access, registry: Seeing(Sight(access, registry), repository)
        )
        self.vitals = Vitals(repository, search_index, self._indexing, settings, clock, observer)
        durable = settings.durability == "full"
        states = States(search_index, settings.as_of_cache, min_free=settings.min_free, durable=durable)
        self.rewinding = Rewinding(repository, states)
        self._sources = Sources(
            repository,
            search_index,
            self.rewinding,
            Hindsight(repository),
            settings,
            observer,
            self.snapshot,
            self._seeing,
        )

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
        observer: Observer = UNOBSERVED,
        cache_bytes: int = CACHE_BYTES,
    ) -> Store:
        """Open the record in a git directory (see `discover`), and bring its index up to date.

        Where the git directory can't be written by us, the index is a private one in `cache_folder`.
        `more_objects` are other object folders to read, such as that of a push which its hooks are to judge: `foreign`.
        `cache_bytes` are how much of git's objects is kept in memory.
        Raises RepositoryRefused where there is no record of a format that this version knows, Invalid for a signing key
        that can't be used.
        """
        git_dir = os.path.abspath(path)
        repository = Repository(git_dir, more_objects, cache_bytes)
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
        sign = unsigned if is_private else signer(settings.signing_key, git_dir)
        search_index = Index(
            folder,
            base_url=settings.base_url,
            all_references=settings.referential_integrity == "enforce",
        )
        search_index.on_other = repository.forget
        store = cls(repository, search_index, settings, clock, new_id, observer)
        if not is_private:
            store._open_writer(sign)
        try:
            store._indexing.freshen()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Write what waits, and let go of everything."""
        self.rewinding.close()
        self._queue.close()
        if self.cluster is not None:
            self.cluster.close()
        if self._maintenance is not None:
            self._maintenance.close()
        self._index.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._repository.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Reading

    def snapshot(self, sequence: int | None = None, access: Access = FULL_ACCESS) -> Snapshot:
        """The record now, or as the commit of this sequence left it, as the access sees it.

        Raises NotFound where there is no such commit.
        """
        connection = self._reader()
        commit = versions.tip(connection) if sequence is None else versions.commit_at(connection, sequence)
        if commit is None:
            raise NotFound(f"The record has no commit number {sequence}.")
        if access.is_full:
            return Snapshot(commit, self._index.reader, self._repository)
        seeing = self._seeing(access, connection)
        return Restricted(commit, self._index.reader, self._repository, None, seeing, self._index.steadily)

    @contextmanager
    def reading(self, access: Access = FULL_ACCESS) -> Iterator[Snapshot]:
        """The record now, for the length of a block in which it can be searched: other snapshots can't be."""
        self._reader()
        with self._index.reading() as connection:
            tip = versions.tip(connection)
            assert tip is not None
            try:
                yield self._searchable(tip, connection, access)
            except TooCostly:
                self._observer.refused_as_too_costly()
                raise

    def _searchable(
        self, commit: Commit, connection: index.Connection, access: Access = FULL_ACCESS
    ) -> Snapshot:
        settings = self.settings
        seeing = None if access.is_full else self._seeing(access, connection)

        def searching(source: index.Connection, commit: Commit) -> Searching:
            limits = Limits(max_chain=settings.max_chain)
            registry = self._index.registry(connection)
            return Searching(
                source, self._repository, registry, commit, limits, settings.search_limit, seeing
            )

        if seeing is None:
            return Snapshot(commit, lambda: connection, self._repository, searching)
        return Restricted(
            commit, lambda: connection, self._repository, searching, seeing, lambda: nullcontext(connection)
        )

    def _seeing(self, access: Access, connection: index.Connection) -> Seeing:
        return self._judges(access, self._index.registry(connection))

    def snapshot_before(self, instant: int, access: Access = FULL_ACCESS) -> Snapshot:
        """The record as it was right before an instant. Raises NotFound where it did not exist yet."""
        sequence = versions.sequence_before(self._reader(), instant)
        if sequence == 0:
            raise NotFound(f"The record did not exist before {format_instant(instant)}.")
        return self.snapshot(sequence, access)

    def body(self, version: Version) -> bytes:
        """A resource as it is stored, for the server's own use. Not for a deletion."""
        return self._repository.blob(version.blob or "")

    @property
    def git_dir(self) -> str:
        return self._repository.git_dir

    def past(self, commit: Commit, patience: float | None = PATIENCE) -> Past:
        """The record as a commit of it left it; its first search may have to wait, `patience` seconds at most."""
        return Past(self._sources, commit, patience)

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
            try:
                with self._indexing.locked():
                    self._indexing.catch_up()
            except Outdated:
                self._indexing.replace_outdated()
        return self._index.reader()

    def resolve(self, revision: str) -> Commit:
        """The commit of the record that a git revision names: an id, its beginning, a tag, `main~2`.

        Raises NotFound where git knows none, or it is not on the record.
        """
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
        """Whether the commit of this id is on the record as it can be read here, within so many seconds."""
        deadline = time.monotonic() + seconds
        seen = self.snapshot().commit.sequence - _RECENT
        if versions.has_commit(self._reader(), id, seen):
            return True
        with suppress(NotFound):
            return bool(self.resolve(id))
        while not versions.has_commit(connection := self._reader(), id, seen):
            if time.monotonic() >= deadline:
                return False
            tip = versions.tip(connection)
            seen = tip.sequence - 1 if tip is not None else 0
            time.sleep(_LOOK_AGAIN)
        return True

    def confirm(self, commit: Commit) -> None:
        """What has been read as of a commit may be told: in sync the primary waits until the hub has it.

        Raises NotReplicated, Fenced.
        """
        if self.cluster is not None:
            self.cluster.confirm(commit)

    def message(self, commit: Commit) -> str:
        """The author's words in a commit's message: why; empty where there are none."""
        return parse_message(self._repository.commit(commit.id).message).words

    def add_tag(self, name: str, commit: Commit, author: Author, message: str) -> bool:
        """An annotated tag on a commit of the record; False, and nothing is done, where there is one of this name."""
        self._check_writable()
        return self._repository.add_tag(name, commit.id, author, message, self._clock())

    def maintain(self, *, full: bool = False) -> Maintained:
        """Tidy up the record now: see `gitstore.maintenance`, which mostly does so by itself. Reads and writes go on.

        With `full` all packs become one, with new deltas. Raises Locked, StorageFailed.
        """
        if self._maintenance is None:
            raise StorageFailed(f"{self._repository.git_dir} can't be written by this user.")
        return self._maintenance.run(full=full)

    def verify(self, progress: OnProgress | None = None) -> Iterator[Finding]:
        """Everything about the record, its index and its access journal that contradicts itself; nothing for sound ones."""
        connection = self._index.reader()
        yield from verify(self._repository, connection, self._index.registry(connection), progress)
        yield from check(self._repository.git_dir)

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
        agent: str | None = None,
        access: Access = FULL_ACCESS,
    ) -> list[Outcome]:
        """Do one unit of work: all interactions in one commit, or none. Durable when it returns.

        The outcomes stand in the order of the interactions. Raises any StoreError; for a "transaction" it names the
        entry at fault. Only NotConfirmed is raised for a unit that has happened.
        """
        unit = Unit(interactions, author, request_id, message, interaction, idempotency, agent, access)
        if (earlier := self._done_before(unit)) is not None:
            return earlier
        pending = Pending(self._prepare(unit))
        self._queue.submit([pending])
        self._queue.wait(pending)
        return self._outcomes(pending)

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
        return self._outcomes(pending)

    def _outcomes(self, pending: Pending) -> list[Outcome]:
        if pending.error is not None:
            raise pending.error
        if self.cluster is not None and pending.head is not None:
            self.cluster.confirm(pending.head)
        return pending.outcomes

    def _done_before(self, unit: Unit) -> list[Outcome] | None:
        """What was right the first time may not be any more: a retry is answered before it is even looked at."""
        if unit.idempotency is None:
            return None
        with self.reading(unit.access) as snapshot:
            earlier = done_before(unit, snapshot)
        if earlier is not None and self.cluster is not None:
            self.cluster.confirm(snapshot.commit)
        return earlier

    def _await(self, pending: Pending) -> list[Outcome] | StoreError:
        try:
            self._queue.wait(pending)
            return self._outcomes(pending)
        except StoreError as error:
            return error

    def _check_writable(self) -> None:
        if self._writer is None:
            raise StorageFailed(f"{self._repository.git_dir} can't be written by this user.")
        if self._writer.is_rewriting():
            raise Locked("Something is being purged from the record. It can be written to when that is done.")
        if not self._repository.is_bare:
            raise RepositoryRefused(
                f"{self._repository.git_dir} has a work tree, which a write would leave behind; write to a bare clone."
            )
        if self.cluster is not None:
            self.cluster.check_writable()

    def _prepare(self, unit: Unit) -> Prepared:
        self._check_writable()
        return self.rehearse(unit)

    def rehearse(self, unit: Unit) -> Prepared:
        """What there is to write for a unit. Raises all that `commit` refuses without a look at what is there."""
        with ExitStack() as stack:
            return prepare(
                unit,
                self._rules(self._index.reader()),
                lambda: stack.enter_context(self.reading(unit.access)),
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
            self.vitals.wrote(None)
        except Exception as error:  # noqa: BLE001  # raised again in the callers' threads, by _outcomes
            self.vitals.wrote(error)
            group = group or take()
            for pending in group:
                pending.error = pending.error or error
            if isinstance(error, Outdated):
                self._replace_outdated()
        if self.cluster is not None:
            self.cluster.published()
        for pending in group:
            pending.finish()
        self._tidy_up()

    def _tidy_up(self) -> None:
        if self._maintenance is not None:
            self._maintenance.published()

    def _replace_outdated(self) -> None:
        """A purge that died has been finished: its readers, and the next group, need an index of what is left."""
        try:
            self._indexing.replace_outdated()
        except StoreError as error:
            self.vitals.wrote(error)

    def _write(self, group: list[Pending]) -> None:
        """Write a group of units: one transaction of the index, one pack, one move of main."""
        assert self._writer is not None
        if self.cluster is not None:
            self.cluster.check_writable()
        self._writer.check_space(2 * sum(pending.prepared.size for pending in group))
        try:
            self._indexing.catch_up()
        except ForeignCommit as error:
            if self.settings.foreign_commits != "adopt" or error.problems:
                raise
            self._adopting.take_over()

        def units(head: Commit, connection: index.Connection, pack: Pack) -> Commit:
            for pending in group:
                head = self._writing.unit(pending, head, connection, pack)
            return head

        self._writing.publish(units)

    def _open_writer(self, sign: Sign) -> None:
        git_dir, settings = self._repository.git_dir, self.settings
        durable = settings.durability == "full"
        observer = self._observer
        self._writer = Writer(git_dir, durable=durable, lock_timeout=settings.lock_timeout, observer=observer)
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
            observer,
            sign,
        )
        self._adopting = Adopting(
            self._repository,
            self._index,
            self._indexing,
            settings,
            self._validate,
            self._writer,
            self._writing,
        )
        self._maintenance = Maintenance(
            git_dir,
            self._writer.locked,
            durable=durable,
            timeout=settings.lock_timeout,
            automatic=settings.maintenance == "auto",
            observer=observer,
        )
        self._purging = Purging(
            self._repository,
            self._index,
            self._writer,
            self._indexing,
            self._maintenance,
            self.rewinding.states,
            settings,
            self._clock,
            sign,
        )
        if settings.hub is not None:
            self.cluster = Cluster(
                self._repository,
                self._index,
                self._indexing,
                self._writer,
                settings,
                self._clock,
                sign,
                self._tidy_up,
            )
        self.vitals.can_write(self._indexing, self._writer, self._queue, self._maintenance)

    # Purging

    def purge(
        self, targets: Sequence[Target], author: Author, reason: str, progress: OnProgress | None = None
    ) -> Erased:
        """Take resources, or past versions of them, out of all history, which is made anew. See `gitstore.purging`.

        Raises NotFound, Gone for what was purged before, Unprocessable for a current version, Conflict for what is
        referred to, RepositoryRefused where git would keep what has to go, and what `commit` raises.
        """
        self._check_purgeable()
        return self._purging.purge(targets, author, reason, progress)

    def purgeable(self, targets: Sequence[Target]) -> Selection:
        """What `purge` would do. Raises the same."""
        self._check_purgeable()
        return self._purging.select(self._reader(), targets)

    def _check_purgeable(self) -> None:
        self._check_writable()
        if self.cluster is not None:
            raise RepositoryRefused(
                "A purge makes all history anew, and the hub and its nodes hold the old one: docs/scaling.md says how to go about it."
            )

    # Commits that are not ours

    def foreign(self, new: str | None = None) -> Adoption | None:
        """What `adopt` would come to, or would if a push moved main to the commit `new`; None where all is ours.

        Raises ForeignCommit where main, or `new`, does not build on the record: a rewound or forced main.
        """
        return self._adopting.foreign(new)

    def adopt(self) -> Commit | None:
        """Take foreign commits on main into the record, in one commit; returns it, None where there are none.

        Raises ForeignCommit, with all its problems, where that can't be.
        """
        self._check_writable()
        return self._adopting.adopt()

    def reindex(self, progress: OnProgress | None = None) -> None:
        """Make the index anew from git, beside those who read and write, and put it in place.

        SearchParameters of the record that are active take effect with it.
        """
        self._indexing.rebuild(progress)


def _is_ours(git_dir: str) -> bool:
    """Whether this process may write to a git directory, as its owner."""
    return os.access(git_dir, os.W_OK | os.X_OK) and os.stat(git_dir).st_uid == os.geteuid()
