"""The store: where git and the search index meet. It only sequences; each step is a named function elsewhere."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from gitstore.access import FULL_ACCESS, Access
from gitstore.adopting import Adopting
from gitstore.adoption import Adoption
from gitstore.ahead import Ahead, do_in_order
from gitstore.canonicals import Canonicals
from gitstore.cluster.cluster import Cluster
from gitstore.errors import Locked, RepositoryRefused, StorageFailed, StoreError
from gitstore.fhir.ids import ResourceId
from gitstore.founding import now
from gitstore.git import layout
from gitstore.git.commits import Sign, unsigned
from gitstore.git.message import parse_message
from gitstore.git.outbox import Outbox
from gitstore.git.repository import CACHE_BYTES, Repository
from gitstore.git.signing import signer
from gitstore.git.writer import Writer
from gitstore.hindsight import Hindsight
from gitstore.idempotency import done_before
from gitstore.indexing import Indexing
from gitstore.interactions import Interaction, Outcome, Unit
from gitstore.journal.checking import check
from gitstore.leading import Leading
from gitstore.maintenance import Maintained, Maintenance
from gitstore.observing import UNOBSERVED, Observer
from gitstore.past import PATIENCE, Past, Sources
from gitstore.preparation import Prepared
from gitstore.purgeable import Selection, Target
from gitstore.purging import Erased, Purging
from gitstore.queue import Pending, WriteQueue
from gitstore.reading import Reading
from gitstore.rehearsing import Rehearsing
from gitstore.replay import OnProgress
from gitstore.replication import Replica, prepare_series
from gitstore.rewinding import Rewinding
from gitstore.search.described import Indexed, described
from gitstore.search.index import Index
from gitstore.search.parameters import Parameter
from gitstore.search.states import States
from gitstore.settings import Settings
from gitstore.snapshot import Snapshot, as_indexed
from gitstore.statistics import Statistics, take
from gitstore.verify import Finding, verify
from gitstore.version import Author, Commit, Idempotency, Version
from gitstore.vitals import Vitals
from gitstore.writing import Writing


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
        writer: Writer | None = None,
        sign: Sign = unsigned,
    ) -> None:
        """Use `open`."""
        self.settings = settings
        self._repository = repository
        self._index = search_index
        self._writer = writer
        self._clock = clock
        self._observer = observer
        self.cluster: Cluster | None = None
        """What there is to do with other nodes; None where fhir.hub isn't set, or the record belongs to someone else."""

        self._maintenance: Maintenance | None = None
        self._queue: WriteQueue | None = None
        self.canonicals = Canonicals(lambda: as_indexed(search_index.reader, repository))
        self._validate = self.canonicals.validator(settings.validation)
        self._indexing = Indexing(repository, search_index, writer, searchable=settings.search == "on")
        self._reading = Reading(repository, search_index, self._indexing, settings, observer)
        self._rehearsing = Rehearsing(
            search_index, self._reading, self.canonicals, self._validate, settings, new_id
        )
        self.vitals = Vitals(repository, search_index, self._indexing, settings, clock, observer)
        durable = settings.durability == "full"
        states = States(search_index, settings.as_of_cache, min_free=settings.min_free, durable=durable)
        self.rewinding = Rewinding(repository, states)
        hindsight = Hindsight(repository)
        self._sources = Sources(repository, search_index, self.rewinding, hindsight, settings, self._reading)
        if writer is None:
            self._adopting = Adopting(repository, search_index, self._indexing, settings, self._validate)
        else:
            self._begin_writing(writer, sign)

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
        is_private = not _is_ours(git_dir)
        folder = _private(git_dir, cache_folder) if is_private else os.path.join(git_dir, layout.LOCAL)
        settings = settings or Settings()
        sign = unsigned if is_private else signer(settings.signing_key, git_dir)
        search_index = Index(
            folder,
            base_url=settings.base_url,
            all_references=settings.referential_integrity == "enforce",
        )
        search_index.on_other = repository.forget
        writer = None
        if not is_private:
            writer = Writer(
                git_dir,
                durable=settings.durability == "full",
                lock_timeout=settings.lock_timeout,
                observer=observer,
            )
        store = cls(repository, search_index, settings, clock, new_id, observer, writer, sign)
        try:
            store._indexing.freshen()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Write what waits, and let go of everything."""
        self.rewinding.close()
        if self._queue is not None:
            self._queue.close()
        if self.cluster is not None:
            self.cluster.close()
        if self._maintenance is not None:
            self._maintenance.close()
        self._index.close()
        if self._writer is not None:
            self._indexing.close()
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
        return self._reading.snapshot(sequence, access)

    def reading(self, access: Access = FULL_ACCESS) -> AbstractContextManager[Snapshot]:
        """The record now, for the length of a block in which it can be searched: other snapshots can't be."""
        return self._reading.reading(access)

    def snapshot_before(self, instant: int, access: Access = FULL_ACCESS) -> Snapshot:
        """The record as it was right before an instant. Raises NotFound where it did not exist yet."""
        return self._reading.snapshot_before(instant, access)

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
        registry = self._index.registry(self._indexing.reader())
        return {} if registry is None else registry.of(type)

    def indexed(self, resource_id: ResourceId) -> list[Indexed]:
        """By which parameters and values searches find a resource; nothing for one that isn't there."""
        return described(self._indexing.reader(), resource_id)

    def statistics(self) -> Statistics:
        """The record in numbers, as it is now."""
        return take(self._repository, self._indexing.reader())

    def resolve(self, revision: str) -> Commit:
        """The commit of the record that a git revision names: an id, its beginning, a tag, `main~2`.

        Raises NotFound where git knows none, or it is not on the record.
        """
        return self._reading.resolve(revision)

    def wait_for(self, id: str, seconds: float) -> bool:
        """Whether the commit of this id is on the record as it can be read here, within so many seconds."""
        return self._reading.wait_for(id, seconds)

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
        self._submit([pending])
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
        self._submit([result for result in results if isinstance(result, Pending)])
        return [self._await(result) if isinstance(result, Pending) else result for result in results]

    def commit_in_order(self, units: Iterable[Unit | Ahead]) -> list[list[Outcome] | StoreError]:
        """Do many units, each a commit of its own, as if each was prepared when those before it were done.

        They may be prepared ahead: see `gitstore.ahead`. Idempotency keys are not for these.
        """
        return do_in_order(units, self.prepare_ahead, self._rehearsing.holds, self._commit_prepared)

    def prepare_ahead(self, unit: Unit) -> Ahead:
        """What there is to write for a unit, or why it is refused, to be done later by `commit_in_order`."""
        return self._rehearsing.prepare_ahead(unit)

    def handed_over(self, data: bytes) -> object:
        """What another process of the same record gave by `hand_over`."""
        return self._rehearsing.handed_over(data)

    def _commit_prepared(self, prepared: Sequence[Prepared]) -> list[list[Outcome] | StoreError]:
        try:
            self._check_writable()
        except StoreError as error:
            return [error] * len(prepared)
        pending = list(map(Pending, prepared))
        self._submit(pending)
        return list(map(self._await, pending))

    def replicate(self, replicas: Sequence[Replica]) -> list[Outcome]:
        """Take over commits of another record as they are, oldest first: all of them, or none. Durable when it returns.

        The outcomes are those of the versions, in their order. A record that has only its first commit yet gets an
        earlier one where the history is older than that. Raises Conflict where the history doesn't go on where the
        record ends, Unprocessable for dates that can't be, and what validation raises; each with the entry at fault.
        """
        self._check_writable()
        if not replicas:
            return []
        pending = Pending(
            prepare_series(replicas, self._rehearsing.rules(self._index.reader()), self._clock())
        )
        self._submit([pending])
        return self._outcomes(pending)

    def _submit(self, pending: Sequence[Pending]) -> None:
        if self._queue is not None:  # where there is none nothing could be prepared
            self._queue.submit(pending)

    def _outcomes(self, pending: Pending) -> list[Outcome]:
        assert self._queue is not None
        self._queue.wait(pending)
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
        return self._rehearsing.rehearse(unit)

    def _begin_writing(self, writer: Writer, sign: Sign) -> None:
        """What a store has besides where the record belongs to the user of this process."""
        repository, search_index, indexing = self._repository, self._index, self._indexing
        settings, observer, clock = self.settings, self._observer, self._clock
        rules, searchable = self._rehearsing.rules, self._reading.now
        outbox = Outbox(repository.git_dir) if settings.hub is not None else None
        writing = Writing(
            repository, search_index, writer, settings, clock, rules, searchable, observer, sign, outbox
        )
        self._adopting = Adopting(
            repository, search_index, indexing, settings, self._validate, writer, writing
        )
        maintenance = self._maintenance = Maintenance(
            repository.git_dir,
            writer.locked,
            durable=settings.durability == "full",
            timeout=settings.lock_timeout,
            automatic=settings.maintenance == "auto",
            observer=observer,
        )
        states = self.rewinding.states
        self._purging = Purging(
            repository, search_index, writer, indexing, maintenance, states, settings, clock, sign
        )
        if outbox is not None:
            followed = maintenance.published
            self.cluster = Cluster(
                repository, search_index, indexing, writer, settings, clock, sign, outbox, followed
            )
        leading = Leading(
            writer, indexing, self._adopting, writing, maintenance, self.cluster, self.vitals, settings
        )
        self._queue = WriteQueue(leading.lead, settings.lock_timeout, observer)
        self.vitals.can_write(writer, self._queue, maintenance)

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
        return self._purging.select(self._indexing.reader(), targets)

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


def _private(git_dir: str, cache_folder: str | None) -> str:
    """Where the index of a record that can't be written lies. Raises StorageFailed."""
    if cache_folder is None:
        raise StorageFailed(f"{git_dir} can't be written, and there is no folder for a private index.")
    name = hashlib.sha256(os.path.realpath(git_dir).encode()).hexdigest()[:32]
    return os.path.join(cache_folder, name)
