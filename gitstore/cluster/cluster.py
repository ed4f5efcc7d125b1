"""One node among several: it pushes what it writes to the hub, or follows what another has pushed.

    primary    after each group of units: push main.   Rejected? Another node has written: fenced, from now on a replica
    replica    when called, or at times: fetch, move main on, bring the index up to it
    promote    a commit on top of the hub's main, pushed: whose push is taken is the primary

A push is a compare-and-swap, so of two nodes that both believe to be the primary one learns that it isn't before
the hub has anything of it. What it had not pushed is kept under refs/git-fhir/diverged. Locks are taken in this order: hub.lock, the
index's, writer.lock.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from gitstore.cluster.state import Role, Standing, State, ticks
from gitstore.errors import (
    Conflict,
    Fenced,
    ForeignCommit,
    HubUnreachable,
    NotReplicated,
    Outdated,
    ReadOnly,
    RepositoryDamaged,
    StoreError,
)
from gitstore.fhir.dates import SECOND
from gitstore.git.commits import Sign, format_commit
from gitstore.git.hub import Hub
from gitstore.git.message import Message, format_message, safe_author, safe_words
from gitstore.git.outbox import Outbox
from gitstore.git.repository import Repository
from gitstore.git.writer import Writer
from gitstore.indexing import Indexing
from gitstore.search import versions
from gitstore.search.index import Index
from gitstore.settings import Settings
from gitstore.version import SERVER, Author, Commit

_QUIET = 10
"""Looks of a replica, after which a primary that has written nothing looks whether it still is one."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds after a failure."""

_SPACING = 0.1
"""Seconds from one push of a node to its next, in async, at most: a push takes some 50 ms of processor time. After one that
took less than half of it the next begins when as much time again has passed.
"""

_CLOSING = 5.0
"""Seconds for which a node that stops tries to bring the hub what it has not."""


class Status(Struct, frozen=True):
    """Where a node stands. `seen` is the last commit that the hub is known to have, `pending` how many are not there yet,
    `seconds` for how long the oldest of them has been waiting; for a replica since when it has not been able to look.
    """

    role: Role
    since: int
    why: str
    suspended: str | None
    hub: str
    replication: str
    tip: Commit
    seen: int | None
    pending: int
    seconds: float
    error: str | None


class Cluster:
    """What a node has to do with the others. Any thread may call."""

    def __init__(
        self,
        repository: Repository,
        search_index: Index,
        indexing: Indexing,
        writer: Writer,
        settings: Settings,
        clock: Callable[[], int],
        sign: Sign,
        outbox: Outbox,
        followed: Callable[[], None],
    ) -> None:
        """`outbox` has what was written last; `followed` is called when main has moved to where another node has brought it."""
        assert settings.hub is not None
        self.is_sync = settings.replication == "sync"
        self.on_push: Callable[[], None] = _nothing
        """Called when the hub has something new of this node."""

        self.on_role: Callable[[Standing], None] = _unheard
        """Called with the role in which the thread begins, and with each other one that it finds later."""

        self._repository = repository
        self._index = search_index
        self._indexing = indexing
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._sign = sign
        self._followed = followed
        self._hub = Hub(repository, settings.hub, settings.hub_timeout, outbox)
        self._state = State(repository.git_dir, settings.hub, durable=settings.durability == "full")
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._error: str | None = None
        self._failing_since: float | None = None
        self._told: Standing | None = None
        self._spacing = _SPACING
        self._unsent = True
        """Whether something that has diverged may not be at the hub yet."""

    # Being asked

    @property
    def role(self) -> Role:
        return self._state.standing().role

    def standing(self) -> Standing:
        return self._state.standing()

    def check_writable(self) -> None:
        """Raises ReadOnly where this node doesn't write. What it says holds only under the writer's lock."""
        standing = self._state.standing()
        if standing.role == "replica":
            why = f" ({standing.why})" if standing.why else ""
            raise ReadOnly(f"This node is a replica{why}; the primary writes.")
        if (suspended := self._state.suspension()) is not None:
            raise ReadOnly(f"This node may not write for now: {suspended}")
        if self._settings.etcd and not self._state.holds_lease():
            raise ReadOnly("This node may not write for now: its lease has run out.")
        if self.is_sync and self._is_away():
            raise HubUnreachable(
                "The hub can't be reached, and nothing is written without it; nothing was written."
            )

    def known_primary(self) -> str | None:
        """Where writes are to be sent: what the lease says, or else fhir.primary."""
        return self._state.primary() or self._settings.primary

    @property
    def leader(self) -> str | None:
        """The URL of the other node that holds the lease, as far as is known here; None without etcd."""
        return self._state.primary() if self._settings.etcd else None

    def status(self) -> Status:
        """Raises StoreError."""
        connection = self._index.reader()
        tip = versions.tip(connection)
        assert tip is not None
        standing, seen, now = self._state.standing(), self._state.seen(), self._clock()
        pending, since = 0, now
        if standing.role == "primary":
            pending = tip.sequence - (seen.sequence if seen else 0)
            oldest = versions.commit_at(connection, tip.sequence - pending + 1) if pending > 0 else None
            since = oldest.last_updated if oldest is not None else now
        elif seen is not None:
            since = seen.at
        return Status(
            standing.role,
            standing.since,
            standing.why,
            self._state.suspension(),
            self._hub.url,
            self._settings.replication,
            tip,
            seen.sequence if seen else None,
            max(pending, 0),
            max(now - since, 0) / SECOND,
            self._error,
        )

    # Waiting for the hub

    def published(self) -> None:
        """The writing thread has made commits."""
        self._begin()
        os.eventfd_write(self._event, 1)

    def confirm(self, commit: Commit) -> None:
        """In sync, wait until the hub has a commit of this node.

        Raises NotReplicated when that takes longer than fhir.hubTimeout, Fenced when it never will.
        """
        if self.has(commit):
            return
        deadline = time.monotonic() + self._settings.hub_timeout
        self.published()
        with self._changed:
            while not self._has(commit):
                left = deadline - time.monotonic()
                if left <= 0 or self._is_away():
                    raise NotReplicated(
                        f"This is written here as {commit.id}, but the hub has not confirmed it in time."
                    )
                self._changed.wait(min(left, 1.0))

    def _is_away(self) -> bool:
        """Whether the hub hasn't been reached for so long that nobody needs to wait for it. What takes longer than a time-out
        to fail would keep all threads busy.
        """
        since = self._failing_since
        return since is not None and time.monotonic() - since > self._settings.hub_timeout

    def has(self, commit: Commit) -> bool:
        """Whether `confirm` would not have to wait. Raises Fenced."""
        return not self.is_sync or self._has(commit)

    def _has(self, commit: Commit) -> bool:
        """Whether the hub has a commit. Raises Fenced where it has another one in its place."""
        seen, standing = self._state.seen(), self._state.standing()
        if seen is None or seen.since != standing.since:  # a change of roles is under way
            return False
        if seen.id == commit.id:
            return True
        if standing.role == "primary" and seen.sequence < commit.sequence:
            return False
        there = versions.commit_at(self._index.reader(), commit.sequence)
        if there is None or there.id != commit.id:
            raise self._fenced(commit)
        return True

    def _fenced(self, commit: Commit) -> Fenced:
        return Fenced(
            f"Another node has become the primary: {commit.id} is not on the record. git fhir diverged lists it."
        )

    def wake(self) -> None:
        """The hub may have something new."""
        self._state.call()

    # The thread

    def start(self) -> None:
        """Push and follow from now on. Without it, a node begins to push with its first write."""
        self._begin()

    def _begin(self) -> None:
        if self._thread is None:
            with self._changed:
                if self._thread is None and not self._closing.is_set():
                    self._thread = threading.Thread(target=self._run, name="git-fhir hub", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        """Bring the hub what it has not, as far as it can be had, and let go of everything."""
        with self._changed:
            if self._closing.is_set():
                return
            self._closing.set()
            thread = self._thread
        if thread is not None:
            os.eventfd_write(self._event, 1)
            thread.join()
            with suppress(StoreError):
                self._last_push()
        self._hub.close()
        self._state.close()
        os.close(self._event)

    def _last_push(self) -> None:
        deadline = time.monotonic() + _CLOSING
        while self.role == "primary" and time.monotonic() < deadline:
            with suppress(HubUnreachable):
                self._turn(asked=True)
                return
            time.sleep(_FIRST_PAUSE)

    def _run(self) -> None:
        pause, failed = 0.0, False
        while True:
            self._closing.wait(pause)
            asked = pause > 0 or self._is_called()
            if self._closing.is_set():
                return
            try:
                self._tell()
                pause = self._turn(asked=asked, spaced=not self.is_sync)
                self._error, self._failing_since, failed = None, None, False
            except (StoreError, OSError) as error:
                self._error = str(error)
                self._failing_since = self._failing_since or time.monotonic()
                pause = min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE) if failed else _FIRST_PAUSE
                failed = True
            with self._changed:
                self._changed.notify_all()

    def _tell(self) -> None:
        standing = self._state.standing()
        if standing != self._told:
            self._told = standing
            self.on_role(standing)

    def _is_called(self) -> bool:
        """Wait until somebody calls, or it is time for a look; whether somebody has called."""
        select.select([self._event, self._state.wake], [], [], self._settings.poll_interval)
        is_called = False
        with suppress(BlockingIOError):
            is_called = bool(os.eventfd_read(self._event))
        # A byte that another process took calls that one: a second look would only keep the next call waiting.
        return self._state.heard() or is_called

    def _turn(self, *, asked: bool, spaced: bool = False) -> float:
        """One push or one look, unless another process has just done it. Where pushes are `spaced`: in how many seconds it is
        time for it, 0 where it has been done. Raises StoreError.
        """
        called = ticks()
        with self._state.talking():
            seen = self._state.seen()
            # What was noted before the machine's last start says nothing.
            begun = seen.begun if seen is not None and seen.begun <= ticks() else 0
            if self._state.standing().role == "primary":
                # In async nobody waits: what comes meanwhile goes with the next push, and git leaves time for the server.
                if spaced and begun <= called and (early := self._spacing - (called - begun) / 1e9) > 0:
                    return early
                self._push(idle=called - begun < _QUIET * self._settings.poll_interval * 1e9)
            elif begun < called and (asked or called - begun >= 0.9 * self._settings.poll_interval * 1e9):
                self._follow()
            if self._unsent:
                self._hub.push_diverged()
                self._unsent = False
        return 0.0

    # As primary

    def _push(self, *, idle: bool = False) -> None:
        """Bring the hub what it has not; while holding hub.lock. With `idle`, only if there is something. Raises StoreError."""
        tip = versions.tip(self._index.reader())
        assert tip is not None
        seen, begun = self._state.seen(), ticks()
        if seen is not None and seen.id == tip.id and idle:
            return
        if not self._hub.push(tip.id, seen.id if seen is not None else None):
            self._fence("another node has become the primary")
            return
        self._state.note(tip.sequence, tip.id, self._clock(), begun)
        self._spacing = min(_SPACING, 2 * (ticks() - begun) / 1e9)
        if seen is None or seen.id != tip.id:
            self.on_push()

    def _fence(self, why: str) -> None:
        """Stop writing at once, keep what the hub hasn't, and follow. Raises StoreError."""
        begun = ticks()
        main = self._fetch()
        with self._writer.locked():
            self._state.become("replica", why, self._clock())
        self._arrive(main, begun)

    # As replica

    def _follow(self) -> None:
        """Bring main and the index to where the hub is; while holding hub.lock. Raises StoreError."""
        begun = ticks()
        self._arrive(self._fetch(), begun)

    def _fetch(self) -> str:
        """The hub's main, which is here now, and is of this record. Raises HubUnreachable."""
        main = self._hub.fetch()
        if main is None:
            raise HubUnreachable("The hub has no branch main yet.")
        connection = self._index.reader()
        # Mostly it builds on what is here: a walk over what is new shows that, and only otherwise one over all history.
        for known in (versions.tip(connection), versions.commit_at(connection, 1)):
            if known is not None and self._repository.contains(known.id, main):
                return main
        raise HubUnreachable("The hub holds another record: fhir.hub names the wrong one.")

    def _arrive(self, main: str, begun: int) -> None:
        if self._go_to(main):
            self._followed()
        tip = versions.tip(self._index.reader())
        assert tip is not None
        self._state.note(tip.sequence, tip.id, self._clock(), begun)

    def _go_to(self, main: str) -> bool:
        """Whether anything has changed."""
        with self._writer.locked():
            here = self._indexing.main()
            changed = here != main and not self._repository.contains(main, here)
            if changed:
                if not self._repository.contains(here, main):
                    self._keep(here)
                self._writer.move(here, main)
            tip = versions.tip(self._index.reader())
            changed = changed or tip is None or tip.id != here
            is_other = False
            if changed:
                try:
                    self._indexing.catch_up()
                except Outdated:
                    is_other = True
                except ForeignCommit:
                    tip = versions.tip(self._index.reader())
                    is_other = tip is not None and not self._repository.contains(
                        tip.id, self._indexing.main()
                    )
                    if not is_other:
                        raise
        if is_other:
            self._indexing.rebuild()
        return changed

    def _keep(self, commit: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock() // SECOND))
        self._hub.keep_diverged(f"{stamp}-{commit[:8]}", commit)
        self._unsent = True

    # Changing roles

    def follow(self) -> None:
        """Be a replica from now on, unless this node has been given a role before: for one that is started as a replica."""
        if not self._state.has_role():
            self.step_down("started as one")

    def step_down(self, why: str) -> None:
        """Become a replica. What the hub hasn't goes there first, if it can; else it will have diverged. Raises StoreError."""
        with self._state.talking():
            if self.role == "primary":
                with suppress(HubUnreachable):
                    self._push()
                with self._writer.locked():
                    self._state.become("replica", why, self._clock())
        self.wake()

    def suspend(self, why: str) -> None:
        """No writes for now, in no process of this node. Those that are under way are finished first. Raises StorageFailed."""
        with self._writer.locked():
            self._state.suspend(why)

    def resume(self) -> None:
        """Writes again, unless the hub says that another node has taken over meanwhile. Raises StoreError."""
        with self._state.talking():
            if self.role == "primary":
                with suppress(HubUnreachable):
                    self._push()
            self._state.resume()

    def promote(self, author: Author, words: str) -> Commit:
        """Make this node the primary, by a commit without versions that the hub takes from one node only.

        Raises Conflict where another one was faster or this is the primary already, HubUnreachable, ForeignCommit.
        """
        with self._state.talking():
            if self.role == "primary":
                raise Conflict("This node is the primary already.")
            self._follow()
            with self._writer.locked():
                self._indexing.catch_up()
                tip = versions.tip(self._index.reader())
                if tip is None or tip.id != self._indexing.main():
                    raise RepositoryDamaged("The index can't be brought up to main.")
                begun = ticks()
                id = self._hub.add(self._promotion(tip, author, words))
                if not self._hub.push(id):
                    raise Conflict("Another node was faster: the hub has moved on.")
                self._writer.move(tip.id, id)
                self._indexing.catch_up()
                self._state.become("primary", words, self._clock())
                self._state.note(tip.sequence + 1, id, self._clock(), begun)
        self._followed()
        self.on_push()
        commit = versions.tip(self._index.reader())
        assert commit is not None
        return commit

    def _promotion(self, tip: Commit, author: Author, words: str) -> bytes:
        instant = max(self._clock(), tip.last_updated + 1)
        text = format_message(Message("promote", (), instant, words=safe_words(words)))
        tree = bytes.fromhex(self._repository.commit(tip.id).tree)
        return self._sign(format_commit(tree, tip.id, safe_author(author), SERVER, instant, text))

    def fetch_diverged(self) -> None:
        """Have here what has diverged on other nodes, too. Raises HubUnreachable."""
        with self._state.talking():
            self._hub.fetch()


def _nothing() -> None:
    """Nobody is to be told."""


def _unheard(_standing: Standing) -> None:
    """Nobody is to be told."""
