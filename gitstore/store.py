"""The store: where git and the search index meet. It only sequences; each step is a named function elsewhere."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import TypeAlias

from gitstore.adoption import Adoption, examine
from gitstore.canonicals import Canonicals
from gitstore.errors import (
    ForeignCommit,
    NotConfirmed,
    NotFound,
    RepositoryDamaged,
    RepositoryRefused,
    StorageFailed,
    StoreError,
    Unavailable,
)
from gitstore.fhir.dates import format_instant
from gitstore.git import layout
from gitstore.git.commits import format_commit
from gitstore.git.message import Message, format_message, parse_message
from gitstore.git.pack import BLOB, COMMIT, Pack
from gitstore.git.repository import Repository, create
from gitstore.git.trees import Trees, nest
from gitstore.git.writer import Writer, read_main
from gitstore.interactions import Interaction, Outcome, Unit
from gitstore.maintenance import Maintained, Maintenance
from gitstore.queue import Pending, WriteQueue
from gitstore.replay import OnProgress, missing, replay
from gitstore.search import index, versions
from gitstore.search.index import Index
from gitstore.settings import Settings
from gitstore.snapshot import Snapshot, as_indexed
from gitstore.statistics import Statistics, take
from gitstore.transaction import Prepared, plan, prepare
from gitstore.verify import Finding, verify
from gitstore.version import Author, Commit

SERVER = Author("git-fhir", "git-fhir@fhir.invalid")
"""The committer of every commit."""


MakeCommits: TypeAlias = Callable[[Commit, index.Connection, Pack], Commit]
"""Puts commits on top of one, into the index and a pack, and returns the last of them."""


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
        self._trees = Trees(lambda id: repository.object(id.hex()))
        self._queue = WriteQueue(self._lead, settings.lock_timeout)
        self.canonicals = Canonicals(lambda: as_indexed(search_index.reader, repository))
        self._validate = self.canonicals.validator(settings.validation)
        self._foreign: tuple[str, ForeignCommit] | None = None
        """What stands on main, if it is a foreign commit: the tip, and why."""

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
        store = cls(repository, Index(folder), settings or Settings(), clock, new_id)
        if not is_private:
            store._open_writer()
        try:
            store._freshen()
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

    def snapshot_before(self, instant: int) -> Snapshot:
        """The record as it was right before an instant. Raises NotFound where it did not exist yet."""
        sequence = versions.sequence_before(self._reader(), instant)
        if sequence == 0:
            raise NotFound(f"The record did not exist before {format_instant(instant)}.")
        return self.snapshot(sequence)

    def statistics(self) -> Statistics:
        """The record in numbers, as it is now."""
        return take(self._repository, self._reader())

    def _reader(self) -> index.Connection:
        """An index to answer from: one that is behind catches up first."""
        if self._writer is not None and self._writer.index_is_behind():
            with self._writer.locked():
                self._catch_up()
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
        return verify(self._repository, self._index.reader(), progress)

    # Writing

    def commit(
        self,
        interactions: Sequence[Interaction],
        author: Author,
        *,
        request_id: str | None = None,
        message: str | None = None,
        interaction: str | None = None,
    ) -> list[Outcome]:
        """Do one unit of work: all interactions in one commit, or none. Durable when it returns.

        The outcomes stand in the order of the interactions. Raises any StoreError; for a "transaction" it names the
        entry at fault. Only NotConfirmed is raised for a unit that has happened.
        """
        unit = Unit(interactions, author, request_id, message, interaction)
        pending = Pending(self._prepare(unit))
        self._queue.submit([pending])
        self._queue.wait(pending)
        return _outcomes(pending)

    def commit_each(self, units: Iterable[Unit]) -> list[list[Outcome] | StoreError]:
        """Do many units that don't depend on one another, each a commit of its own; each succeeds or fails alone."""
        results: list[Pending | StoreError] = []
        for unit in units:
            try:
                results.append(Pending(self._prepare(unit)))
            except StoreError as error:
                results.append(error)
        self._queue.submit([result for result in results if isinstance(result, Pending)])
        return [self._await(result) if isinstance(result, Pending) else result for result in results]

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
        skip = self.settings.unchanged_update == "skip"
        return prepare(unit, self._new_id, self._validate, skip_unchanged=skip)

    # Writing, in the writer's thread

    def _lead(self, take: Callable[[], list[Pending]]) -> None:
        group: list[Pending] = []
        try:
            with self._locked():
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
            self._catch_up()
        except ForeignCommit as error:
            if self.settings.foreign_commits != "adopt" or error.problems:
                raise
            self._adopt()

        def units(head: Commit, connection: index.Connection, pack: Pack) -> Commit:
            for pending in group:
                head = self._write_unit(pending, head, connection, pack)
            return head

        self._publish(units)

    def _publish(self, make: MakeCommits, main: str | None = None) -> Commit:
        """One transaction of the index, one pack, one move of main, which is at the tip or at the foreign `main`."""
        assert self._writer is not None
        connection = self._index.writer()
        tip = versions.tip(connection)
        assert tip is not None
        pack = Pack()
        index.begin(connection)
        try:
            head = make(tip, connection, pack)
            if head is tip:
                index.rollback(connection)
                return tip
            self._writer.publish(pack, main or tip.id, head.id)
        except NotConfirmed:
            self._commit_index(connection)
            raise
        except BaseException:
            index.rollback(connection)
            raise
        self._commit_index(connection)
        return head

    def _write_unit(self, pending: Pending, head: Commit, connection: index.Connection, pack: Pack) -> Commit:
        """One unit on top of `head`, in the index's transaction and the pack; a refused one leaves nothing there."""
        mark, tree = len(pack), self._tree
        try:
            with index.savepoint(connection):
                pending.outcomes, head = self._make_commit(pending.prepared, head, connection, pack)
        except Exception as error:  # raised again in the caller's thread, and nobody else's
            if not index.is_writing(connection):
                raise
            pack.truncate(mark)
            self._tree = tree
            pending.error = error
        return head

    def _make_commit(
        self, prepared: Prepared, head: Commit, connection: index.Connection, pack: Pack
    ) -> tuple[list[Outcome], Commit]:
        last_updated = max(self._clock(), head.last_updated + 1)
        planned = plan(prepared, lambda id: versions.newest(connection, id, head.sequence), last_updated)
        outcomes = [Outcome()] * prepared.entries
        made = [one for one in planned if one.change is not None]
        changes = [one.change for one in made if one.change is not None]
        if made or prepared.adopts:
            blobs = [pack.add(BLOB, one.body) if one.body is not None else None for one in made]
            paths = [layout.path(change.resource_id) for change in changes]
            tree = self._trees.edit(self._tree_of(head), nest(dict(zip(paths, blobs, strict=True))), pack)
            assert tree is not None
            text = format_message(
                Message(
                    prepared.interaction,
                    tuple(changes),
                    last_updated,
                    prepared.request_id,
                    prepared.words,
                    adopts=prepared.adopts,
                )
            )
            data = format_commit(tree, head.id, prepared.author, SERVER, last_updated, text, prepared.adopts)
            id = pack.add(COMMIT, data).hex()
            head = Commit(
                id,
                head.sequence + 1,
                last_updated,
                prepared.interaction,
                prepared.author,
                prepared.request_id,
            )
            self._tree = (id, tree)
            hexed = [blob.hex() if blob is not None else None for blob in blobs]
            for one, version in zip(made, index.apply(connection, head, changes, hexed), strict=True):
                outcomes[one.write.entry] = Outcome(version, changed=True, issues=one.write.issues)
                if version.blob is not None and one.body is not None:
                    self._repository.remember(version.blob, one.body)
        for one in planned:
            if one.change is None:
                outcomes[one.write.entry] = Outcome(one.left, issues=one.write.issues)
        snapshot = Snapshot(head, lambda: connection, self._repository)
        for entry, ask in prepared.questions:
            try:
                outcomes[entry] = Outcome(answer=ask.question(snapshot))
            except StoreError as error:
                error.at_entry(entry)
                raise
        return outcomes, head

    _tree: tuple[str, bytes] | None = None

    def _tree_of(self, commit: Commit) -> bytes:
        """The root tree of a commit: mostly that of the commit made just before."""
        if self._tree is None or self._tree[0] != commit.id:
            self._tree = (commit.id, bytes.fromhex(self._repository.commit(commit.id).tree))
        return self._tree[1]

    def _commit_index(self, connection: index.Connection) -> None:
        """Make the units visible. They have happened: where the index fails, it is behind until it has caught up."""
        assert self._writer is not None
        try:
            index.commit(connection)
        except Unavailable:
            index.rollback(connection)
            self._writer.mark_index(behind=True)

    # Commits that are not ours

    def foreign(self, new: str | None = None) -> Adoption | None:
        """What `adopt` would come to, or would if a push moved main to the commit `new`; None where all is ours.

        Raises ForeignCommit where main, or `new`, does not build on the record: a rewound or forced main.
        """
        with self._locked():
            with suppress(ForeignCommit):
                self._catch_up()
            connection = self._index.writer()
            tip = versions.tip(connection)
            assert tip is not None
            if new is None:
                new = self._main()
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
        with self._locked():
            try:
                self._catch_up()
            except ForeignCommit:
                return self._adopt()
        return None

    def _adopt(self) -> Commit:
        assert self._writer is not None
        main = self._main()
        before = versions.tip(self._index.writer())
        assert before is not None
        missing(self._repository, before, main)
        adoption = examine(self._repository, before, main, self.settings, self._validate)
        if adoption.problems:
            self._foreign = (main, adoption.refusal())
            raise self._foreign[1]
        self._writer.check_space(2 * adoption.prepared.size)
        self._writer.settle()
        return self._publish(
            lambda head, connection, pack: self._make_commit(adoption.prepared, head, connection, pack)[1],
            main,
        )

    # Keeping the index true to git

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._writer.locked() if self._writer is not None else nullcontext():
            yield

    def _open_writer(self) -> None:
        self._writer = Writer(
            self._repository.git_dir,
            durable=self.settings.durability == "full",
            lock_timeout=self.settings.lock_timeout,
        )
        self._maintenance = Maintenance(
            self._repository.git_dir,
            self._writer.locked,
            durable=self.settings.durability == "full",
            timeout=self.settings.lock_timeout,
            automatic=self.settings.maintenance == "auto",
        )

    def _freshen(self) -> None:
        """Bring the index up to main."""
        if not self._index.exists():
            with self._index.alone():
                if not self._index.exists():
                    self._rebuild()
        try:
            # A foreign commit doesn't hinder reading what came before it; a write will say what is in the way.
            with self._locked(), suppress(ForeignCommit):
                self._catch_up()
        except StorageFailed:
            # An index that can't be read is made anew; where it wasn't at fault, that fails in the same way.
            self.reindex()
        if versions.tip(self._index.reader()) is None:
            raise RepositoryRefused(
                f"{self._repository.git_dir} holds no git-fhir record: its first commit is not one of git-fhir."
            )

    def _catch_up(self) -> None:
        """Apply the commits between the index and main; under the lock. Raises ForeignCommit."""
        connection = self._index.writer()
        main = self._main()
        tip = versions.tip(connection)
        if tip is None or tip.id != main:
            if self._foreign is not None and self._foreign[0] == main:
                raise self._foreign[1]
            index.begin(connection)
            try:
                # Where there is no lock, as for a private index, another process may have done it meanwhile.
                tip = versions.tip(connection)
                replay(self._repository, connection, tip, missing(self._repository, tip, main))
            except ForeignCommit as error:
                index.commit(connection)
                self._foreign = (main, error)
                self._mark_caught_up()
                raise
            except BaseException:
                index.rollback(connection)
                raise
            index.commit(connection)
        self._mark_caught_up()

    def _main(self) -> str:
        main = read_main(self._repository.git_dir)
        if main is None:
            raise RepositoryDamaged(f"{self._repository.git_dir} has no branch {layout.BRANCH}.")
        return main

    def _mark_caught_up(self) -> None:
        if self._writer is not None and self._writer.index_is_behind():
            self._writer.mark_index(behind=False)

    def reindex(self, progress: OnProgress | None = None) -> None:
        """Make the index anew from git, beside those who read and write, and put it in place."""
        with self._index.alone():
            self._rebuild(progress)

    def _rebuild(self, progress: OnProgress | None = None) -> None:
        with self._index.rebuilding() as generation, ExitStack() as stack:
            tip = self._replay_to_main(generation, None, progress)
            stack.enter_context(self._locked())
            self._replay_to_main(generation, tip, progress)
            generation.take_over()
            self._mark_caught_up()

    def _replay_to_main(
        self, generation: index.Generation, tip: Commit | None, progress: OnProgress | None
    ) -> Commit | None:
        try:
            ids = missing(self._repository, tip, self._main())
            return replay(self._repository, generation.connection, tip, ids, progress)
        except ForeignCommit:
            # What came before it is the record; a write will say what is in the way.
            return versions.tip(generation.connection)


def _outcomes(pending: Pending) -> list[Outcome]:
    if pending.error is not None:
        raise pending.error
    return pending.outcomes


def _is_ours(git_dir: str) -> bool:
    """Whether this process may write to a git directory, as its owner."""
    return os.access(git_dir, os.W_OK | os.X_OK) and os.stat(git_dir).st_uid == os.geteuid()
