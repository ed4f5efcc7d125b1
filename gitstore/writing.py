"""What the writer's thread does under the lock: units of work become commits, in the pack and in the index alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from gitstore.access import Access
from gitstore.aims import Rules
from gitstore.errors import NotConfirmed, StoreError, Unavailable
from gitstore.git import layout
from gitstore.git.commits import Sign, format_commit, unsigned
from gitstore.git.message import Message, format_message
from gitstore.git.outbox import Outbox
from gitstore.git.pack import BLOB, COMMIT, Pack
from gitstore.git.repository import Repository
from gitstore.git.trees import ENTRY_BYTES, Trees, nest
from gitstore.git.writer import Writer
from gitstore.idempotency import done_before
from gitstore.interactions import Outcome
from gitstore.observing import UNOBSERVED, Observer
from gitstore.preparation import Prepared, prepare
from gitstore.queue import Pending
from gitstore.replication import Series, earlier_first_commit, plan_replica
from gitstore.search import index, noting, versions
from gitstore.search.index import Index
from gitstore.settings import Settings
from gitstore.snapshot import Snapshot
from gitstore.transaction import Planned, check_references, contents_of, outcomes_of, plan
from gitstore.version import SERVER, Commit, Version

MakeCommits: TypeAlias = Callable[[Commit, index.Connection, Pack], Commit]
"""Puts commits on top of one, into the index and a pack, and returns the last of them."""

_REMEMBERED = 1024**2
"""Bytes of a unit of work whose files and trees are kept in memory: those of a larger one would push out what is read."""


class Writing:
    """The one place that makes commits. Only one thread at a time may call, under the writer's lock."""

    def __init__(
        self,
        repository: Repository,
        search_index: Index,
        writer: Writer,
        settings: Settings,
        clock: Callable[[], int],
        rules: Callable[[index.Connection], Rules],
        searchable: Callable[[Commit, index.Connection, Access], Snapshot],
        observer: Observer = UNOBSERVED,
        sign: Sign = unsigned,
        outbox: Outbox | None = None,
    ) -> None:
        """`rules` and `searchable` are the store's, for what the index behind a connection says; `outbox` is for the hub."""
        self._repository = repository
        self._index = search_index
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._outbox = outbox
        self._rules = rules
        self._searchable = searchable
        self._observer = observer
        self._sign = sign
        most = repository.cache_bytes // ENTRY_BYTES
        self._trees = Trees(self._tree_object, most)
        self._tree: tuple[str, bytes] | None = None

    def publish(self, make: MakeCommits, main: str | None = None) -> Commit:
        """One transaction of the index, one pack, one move of main, which is at the tip or at the foreign `main`."""
        connection = self._index.writer()
        tip = versions.tip(connection)
        assert tip is not None
        pack = self._writer.pack()
        index.begin(connection)
        self._repository.unwritten = pack
        try:
            head = make(tip, connection, pack)
            if head is tip:
                index.rollback(connection)
                return tip
            begun = time.monotonic()
            self._writer.publish(pack, main or tip.id, head.id)
            # A history that is taken over may begin before the record did: then nothing builds on the tip.
            if self._outbox is not None and versions.commit_at(connection, tip.sequence) == tip:
                self._outbox.put(main or tip.id, head.id, pack)
            self._observer.published(head.sequence - tip.sequence, time.monotonic() - begun)
        except NotConfirmed:
            self._commit_index(connection)
            raise
        except BaseException:
            index.rollback(connection)
            raise
        finally:
            self._repository.unwritten = None
            pack.close()
        self._commit_index(connection)
        return head

    def unit(self, pending: Pending, head: Commit, connection: index.Connection, pack: Pack) -> Commit:
        """One unit on top of `head`, in the index's transaction and the pack; a refused one leaves nothing there."""
        mark, tree = len(pack), self._tree
        try:
            with index.savepoint(connection):
                work = pending.prepared
                if isinstance(work, Series):
                    pending.outcomes, head = self._series(work, head, connection, pack)
                else:
                    pending.outcomes, head = self.commit(work, head, connection, pack)
        except Exception as error:  # raised again in the caller's thread, and nobody else's
            if not index.is_writing(connection):
                raise
            pack.truncate(mark)
            self._tree = tree
            pending.error = error
        pending.head = head
        return head

    def commit(
        self, prepared: Prepared, head: Commit, connection: index.Connection, pack: Pack
    ) -> tuple[list[Outcome], Commit]:
        state = self._searchable(head, connection, prepared.access)
        if (earlier := done_before(prepared.unit, state)) is not None:
            return earlier, head
        if prepared.unit is not None and not prepared.holds(state):
            prepared = prepare(prepared.unit, self._rules(connection), lambda: state)
        last_updated = max(self._clock(), head.last_updated + 1)
        planned = plan(prepared, lambda id: versions.newest(connection, id, head.sequence), last_updated)
        versions_made: list[Version] = []
        made = [one for one in planned if one.change is not None]
        if made or prepared.adopts or prepared.interaction == "settle":
            head, versions_made = self._append(prepared, made, last_updated, head, connection, pack)
        outcomes = outcomes_of(
            prepared, planned, versions_made, lambda id: versions.newest(connection, id, head.sequence)
        )
        for entry, ask in prepared.questions:
            try:
                outcomes[entry] = Outcome(answer=ask.question(state.at(head)))
            except StoreError as error:
                error.at_entry(entry)
                raise
        return outcomes, head

    def _append(
        self,
        prepared: Prepared,
        made: list[Planned],
        last_updated: int,
        head: Commit,
        connection: index.Connection,
        pack: Pack,
    ) -> tuple[Commit, list[Version]]:
        """Put the commit of a unit on top of `head`: blobs, trees and commit into the pack, its versions into the index."""
        changes = [one.change for one in made if one.change is not None]
        blobs = [None if (body := one.body()) is None else pack.add(BLOB, body, keep=False) for one in made]
        paths = (layout.path(change.resource_id) for change in changes)
        edits = nest(dict(zip(paths, blobs, strict=True)))
        is_large = prepared.size > _REMEMBERED
        tree = self._trees.edit(self._tree_of(head), edits, pack, keep=not is_large)
        del edits
        assert tree is not None
        text = format_message(
            Message(
                prepared.interaction,
                tuple(changes),
                last_updated,
                prepared.request_id,
                prepared.words,
                adopts=prepared.adopts,
                idempotency=prepared.idempotency,
                agent=prepared.agent,
                restores=tuple(one.restores for one in made if one.restores is not None),
            )
        )
        data = self._sign(
            format_commit(tree, head.id, prepared.author, SERVER, last_updated, text, prepared.adopts)
        )
        id = pack.add(COMMIT, data, keep=False).hex()
        del text, data  # of very many writes it is long
        head = Commit(
            id,
            head.sequence + 1,
            last_updated,
            prepared.interaction,
            prepared.author,
            prepared.request_id,
            prepared.idempotency,
        )
        self._tree = (id, tree)
        hexed = [blob.hex() if blob is not None else None for blob in blobs]
        del blobs
        contents = contents_of(made, self._index.registry(connection))
        versions_made = noting.apply(connection, head, changes, hexed, contents)
        if self._settings.referential_integrity == "enforce":
            check_references(prepared, self._searchable(head, connection, prepared.access))
        if not is_large:
            for one, version in zip(made, versions_made, strict=True):
                if version.blob is not None and (body := one.body()) is not None:
                    self._repository.remember(version.blob, body)
        return head, versions_made

    def _series(
        self, series: Series, head: Commit, connection: index.Connection, pack: Pack
    ) -> tuple[list[Outcome], Commit]:
        outcomes: list[Outcome] = []
        first = series.commits[0].replica.last_updated
        if head.sequence == 1 and first <= head.last_updated:
            tree = self._tree_of(head)
            head = earlier_first_commit(head, first - 1, tree, SERVER, pack, self._sign)
            noting.replace_first(connection, head)
            self._tree = (head.id, tree)
        for commit in series.commits:
            planned = plan_replica(commit, head, partial(versions.newest, connection, upto=head.sequence))
            date = commit.replica.last_updated
            head, made = self._append(commit, planned, date, head, connection, pack)
            outcomes += [Outcome(version, changed=True) for version in made]
        return outcomes, head

    def _tree_object(self, id: bytes) -> bytes:
        """The bytes of a tree, which may be of a unit just before in the group."""
        pack = self._repository.unwritten
        data = pack.data(id) if pack is not None else None
        return self._repository.object(id.hex()) if data is None else data

    def _tree_of(self, commit: Commit) -> bytes:
        """The root tree of a commit: mostly that of the commit made just before."""
        if self._tree is None or self._tree[0] != commit.id:
            self._tree = (commit.id, bytes.fromhex(self._repository.commit(commit.id).tree))
        return self._tree[1]

    def _commit_index(self, connection: index.Connection) -> None:
        """Make the units visible. They have happened: where the index fails, it is behind until it has caught up."""
        try:
            index.commit(connection)
        except Unavailable:
            index.rollback(connection)
            self._writer.mark_index(behind=True)
