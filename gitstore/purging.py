"""Taking resources, or single past versions, out of all history for good. docs/architecture.md, "Erasure"

    maintenance, past states, new indexes, writers   all wait
    git.rewriting   history without what goes, beside the one that is there
    indexing        the index of that history, which must be the old one but for what goes
    git.swap        decides; the refs move; the index moves; what is old is removed

Until the decision nothing has happened. After it, whoever takes the writer's lock goes on: gitstore.git.writer.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest

from msgspec import Struct

from gitstore.durable import storage_error
from gitstore.errors import RepositoryDamaged, RepositoryRefused, StorageFailed, Unavailable
from gitstore.fhir.ids import ResourceId
from gitstore.git import layout
from gitstore.git.commits import Sign, format_commit, unsigned
from gitstore.git.message import Message, format_message, safe_author, safe_words
from gitstore.git.references import Move, Ref, all_refs
from gitstore.git.repository import Repository
from gitstore.git.rewriting import Rewriting, Targets, pack_reachable, packed_ids
from gitstore.git.rewritten import merged
from gitstore.git.swap import Swap
from gitstore.git.upkeep import Upkeep, storage
from gitstore.git.writer import Writer
from gitstore.indexing import Indexing
from gitstore.maintenance import Maintenance
from gitstore.purgeable import Selection, Target, select
from gitstore.replay import OnProgress
from gitstore.search import states, statistics, versions
from gitstore.search.index import Connection, Index
from gitstore.settings import Settings
from gitstore.version import NO_FILE, SERVER, Author, Commit, Purged, Version

_LOG = logging.getLogger("git-fhir.purging")
_NOTES = "refs/notes/"
_REFUSED = {
    "objects/info/alternates": "borrows objects from another repository, which would keep them",
    "shallow": "is a shallow clone",
    "worktrees": "has linked work trees, whose files and refs would keep them",
    "refs/replace": "has replaced objects (`git replace -l`)",
}
"""What git may have beside the refs that leads to objects."""


class Erased(Struct, frozen=True):
    """What a purge has done. Commits are named by the ids that they have now."""

    commit: Commit
    versions: tuple[Version, ...]
    commits: int
    """Commits that were made anew."""
    cut: tuple[str, ...]
    """Adopt commits that lost the foreign commits which they had adopted."""
    refs: tuple[str, ...]
    """What points at another object now."""


class _History(Struct, frozen=True):
    """A new history, in one pack of its own, and how the refs get there."""

    tip: str
    pack: str
    moves: tuple[Move, ...]
    commits: dict[str, str]
    cut: tuple[str, ...]


class Purging:
    """One store's way to purge. Any thread may call."""

    def __init__(
        self,
        repository: Repository,
        search_index: Index,
        writer: Writer,
        indexing: Indexing,
        maintenance: Maintenance,
        past: states.States,
        settings: Settings,
        clock: Callable[[], int],
        sign: Sign,
    ) -> None:
        self._repository = repository
        self._index = search_index
        self._writer = writer
        self._indexing = indexing
        self._maintenance = maintenance
        self._past = past
        self._settings = settings
        self._clock = clock
        self._sign = sign
        self._durable = settings.durability == "full"

    def select(self, connection: Connection, targets: Sequence[Target]) -> Selection:
        """What a purge of these would take out. Raises what `purgeable.select` does, and RepositoryRefused."""
        self._check_repository()
        intact = self._settings.referential_integrity == "enforce"
        return select(self._repository, connection, targets, intact=intact)

    def purge(
        self, targets: Sequence[Target], author: Author, reason: str, progress: OnProgress | None = None
    ) -> Erased:
        """Do it; all of it is gone from the git directory when this returns. `reason` is the body of the new commit.

        Raises what `select` does, ForeignCommit, Locked, Unavailable where a ref moves meanwhile, and StorageFailed.
        """
        with self._maintenance.paused() as upkeep:
            with self._alone():
                self._indexing.catch_up()
                connection = self._index.writer()
                selection = self.select(connection, targets)
                self._check_space(connection)
                try:
                    done = self._replace(connection, selection, author, reason, progress)
                except OSError as error:
                    raise storage_error(
                        error, "the purge was cut off; the next write undoes or finishes it"
                    ) from error
            self._index.on_other()
            _tidy(upkeep)
        return done

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self._past.alone(threading.Event()))
            stack.enter_context(self._index.alone())
            stack.enter_context(self._indexing.locked())
            yield

    def _check_repository(self) -> None:
        for path, why in _REFUSED.items():
            place = os.path.join(self._repository.git_dir, path)
            if os.path.isfile(place) or (os.path.isdir(place) and os.listdir(place)):
                raise RepositoryRefused(f"{self._repository.git_dir} {why}. Nothing was purged.")
        packs = os.path.join(self._repository.git_dir, "objects", "pack")
        if any(name.endswith(".promisor") for name in os.listdir(packs)):
            raise RepositoryRefused(f"{self._repository.git_dir} is a partial clone. Nothing was purged.")

    def _check_space(self, connection: Connection) -> None:
        """Everything is there twice for a while, and the new commits three times."""
        size = 2 * storage(self._repository.git_dir).bytes + 2 * statistics.size(connection)
        self._writer.check_space(size)

    def _replace(
        self,
        connection: Connection,
        selection: Selection,
        author: Author,
        reason: str,
        progress: OnProgress | None,
    ) -> Erased:
        git_dir = self._repository.git_dir
        swap = Swap(git_dir, durable=self._durable, timeout=self._settings.lock_timeout)
        swap.begin()
        decided = False
        try:
            refs = all_refs(git_dir)
            history = self._rewrite(swap, connection, selection, refs, author, reason, progress)
            repository = Repository(git_dir, [swap.objects])
            with self._indexing.to_be(repository, history.tip) as generation:
                _compare(connection, generation.connection, selection)
                commit = versions.tip(generation.connection)
                swap.prepare(history.pack, history.moves, merged(git_dir, history.commits))
                _check_unmoved(git_dir, refs)
                swap.decide()
                decided = True
                swap.publish()
                generation.take_over()
            states.forget(self._index.folder)
            swap.clean()
        except BaseException:
            if not decided:
                swap.undo()
            raise
        assert commit is not None
        moved = tuple(move.name for move in history.moves)
        return Erased(commit, selection.versions, len(history.commits), history.cut, moved)

    # The new history

    def _rewrite(
        self,
        swap: Swap,
        connection: Connection,
        selection: Selection,
        refs: Sequence[Ref],
        author: Author,
        reason: str,
        progress: OnProgress | None,
    ) -> _History:
        main = self._indexing.main()
        targets = _targets(connection, selection)
        rewriting = Rewriting(self._repository, targets, swap.pack_folder, self._sign)
        tips = [ref.commit for ref in refs if not ref.name.startswith(_NOTES)]
        rewriting.commits(tips, main, progress)
        tip = self._record(rewriting, connection, selection, main, author, reason)
        moves = []
        for ref in refs:
            if ref.name == layout.REFERENCE:
                new = tip
            elif ref.name.startswith(_NOTES):
                new = rewriting.notes(ref.commit, targets.marks.keys(), self._clock())
            else:
                new = rewriting.tag(ref.id) if ref.kind == "tag" else rewriting.commit(ref.id)
            if new != ref.id:
                moves.append(Move(ref.name, ref.id, new))
        rewriting.flush()
        news = {move.name: move.new for move in moves}
        pack = pack_reachable(
            self._repository.git_dir, swap.objects, [news.get(ref.name, ref.id) for ref in refs]
        )
        there = packed_ids(os.path.join(swap.pack_folder, f"pack-{pack}.idx"))
        for version in selection.versions:
            if version.blob is not None and bytes.fromhex(version.blob) in there:
                raise RepositoryRefused(
                    f"The file of `{version}` also lies at another path in history: `git log --all"
                    f" --find-object={version.blob}` tells where. Nothing was purged."
                )
        done = rewriting.done
        return _History(tip, pack, tuple(moves), done.commits, tuple(done.commits[id] for id in done.cut))

    def _record(
        self,
        rewriting: Rewriting,
        connection: Connection,
        selection: Selection,
        main: str,
        author: Author,
        reason: str,
    ) -> str:
        """The commit that says what was purged, on top of the new history."""
        head = versions.tip(connection)
        assert head is not None
        instant = max(self._clock(), head.last_updated + 1)
        purged = tuple(
            Purged(version.resource_id, version.version_id, self._digest(version))
            for version in selection.versions
        )
        done = rewriting.done
        told = f"Commits made anew: {len(done.commits)}."
        if done.signed:
            told += f" {'Signatures gone' if self._sign is unsigned else 'Signed anew'}: {done.signed}."
        words = "\n\n".join(filter(None, (safe_words(reason), told)))
        text = format_message(Message("purge", (), instant, words=words, purged=purged))
        tree, parent = done.trees[main], rewriting.commit(main)
        return rewriting.add(format_commit(tree, parent, safe_author(author), SERVER, instant, text))

    def _digest(self, version: Version) -> str:
        if version.blob is None:
            return NO_FILE
        return hashlib.sha256(self._repository.object(version.blob)).hexdigest()


def _check_unmoved(git_dir: str, refs: Sequence[Ref]) -> None:
    if all_refs(git_dir) != refs:
        raise Unavailable("Refs have come or gone meanwhile. Nothing was purged; try again.")


def _targets(connection: Connection, selection: Selection) -> Targets:
    gone = {(version.resource_id, version.version_id) for version in selection.versions}
    stays = {
        layout.path(resource_id): frozenset(
            bytes.fromhex(version.blob)
            for version in versions.all_of(connection, resource_id)
            if version.blob is not None and (resource_id, version.version_id) not in gone
        )
        for resource_id in selection.resources
    }
    marks: dict[str, tuple[Purged, ...]] = {}
    for version in selection.versions:
        mark = Purged(version.resource_id, version.version_id)
        marks[version.commit.id] = (*marks.get(version.commit.id, ()), mark)
    return Targets(stays, marks)


def _compare(old: Connection, new: Connection, selection: Selection) -> None:
    """That the new history is the old one but for what goes, and for one commit more. Raises RepositoryDamaged."""
    gone: set[tuple[ResourceId, int]] = {
        (version.resource_id, version.version_id) for version in selection.versions
    }
    for before, after in zip_longest(versions.facts(old), versions.facts(new)):
        is_gone = before is not None and (before.resource_id, before.version_id) in gone
        if (before.without() if before is not None and is_gone else before) != after:
            raise RepositoryDamaged(
                f"The rewritten history differs at {before or after}. Nothing was purged; `git fhir verify` may tell why."
            )


def _tidy(upkeep: Upkeep) -> None:
    try:
        upkeep.write_graph(whole=True)
    except StorageFailed as error:
        # It is gone all the same, and the next maintenance writes one.
        _LOG.warning("the commit-graph was not written after a purge: %s", error)
