"""When a record is tidied up: by itself, as its packs add up, and when somebody asks. docs/architecture.md, "Maintenance"

    32 packs that the multi-pack-index doesn't cover    a new multi-pack-index
    64 packs                                            the small ones are merged; then multi-pack-index, commit-graph
    128 packs                                           it is no longer nicer than the writers, who make packs faster than it
    more than 256 packs                                 writers wait after each group, the longer the more packs there are

One at a time for a repository, whichever process begins: `git-fhir/maintenance.lock` is a flock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from msgspec import Struct

from gitstore.errors import Locked, StorageFailed, StoreError
from gitstore.git import layout
from gitstore.git.upkeep import Storage, Upkeep, count_packs, smallest, storage
from gitstore.observing import UNOBSERVED, Observer

INDEX_AT = 32
MERGE_AT = 64
HURRY_AT = 128
WAIT_ABOVE = 256
"""Packs."""

STALE_AFTER = 3600.0
"""Seconds after which a temporary file belongs to no git that still lives."""

_LOOK_EVERY = 8
_AFTER_FAILURE = 256
"""Groups of a process from one look at the packs to the next."""
_POLL = 0.01
_LOG = logging.getLogger("git-fhir.maintenance")


class Maintained(Struct, frozen=True):
    """What the objects took up before maintenance, and what they take up after it."""

    before: Storage
    after: Storage


class Maintenance:
    """Tidies up one repository. Any thread may call."""

    def __init__(
        self,
        git_dir: str,
        locked: Callable[[], AbstractContextManager[None]],
        *,
        durable: bool = True,
        timeout: float = 10.0,
        automatic: bool = True,
        clock: Callable[[], float] = time.time,
        observer: Observer = UNOBSERVED,
    ) -> None:
        """`locked` holds the writer's lock; `timeout` is `fhir.lockTimeout`, `clock` gives seconds since 1970."""
        self._git_dir = git_dir
        self._locked = locked
        self._durable = durable
        self._timeout = timeout
        self._automatic = automatic
        self._clock = clock
        self._observer = observer
        self._path = os.path.join(git_dir, layout.LOCAL, "maintenance.lock")
        self._groups = 0
        self._next_look = 0
        self._thread: threading.Thread | None = None

    # By itself

    def published(self) -> None:
        """Called after each group that was written, in the writer's thread, outside its lock.

        Looks at the packs at times, and where maintenance is due begins it, in a thread of its own. Where there are
        far too many packs, waits for it: a few milliseconds at first, so that a single write hardly notices, and with
        twice as many a tenth of the time-out, so that nobody's write times out meanwhile.
        """
        self._groups += 1
        if not self._automatic or self._groups <= self._next_look:
            return
        try:
            packs, indexed = count_packs(self._git_dir)
            self._next_look = self._groups + (0 if packs > WAIT_ABOVE else _LOOK_EVERY)
            if packs >= MERGE_AT or packs - indexed >= INDEX_AT:
                self._begin()
            if packs > WAIT_ABOVE:
                self._wait(self._timeout / 10 * min(packs / WAIT_ABOVE - 1, 1))
        except OSError as error:
            self._failed(error)

    def _begin(self) -> None:
        lock = self._take()
        if lock is not None:
            self._thread = threading.Thread(
                target=self._run, args=(lock,), name="git-fhir maintenance", daemon=True
            )
            self._thread.start()

    def _run(self, lock: int) -> None:
        try:
            self._observed(lock, merging=count_packs(self._git_dir)[0] >= MERGE_AT)
        except (StoreError, OSError) as error:
            self._failed(error)
        finally:
            os.close(lock)

    def _failed(self, error: Exception) -> None:
        """Writes go on without it; the log says so, and it is tried again after a while."""
        self._next_look = self._groups + _AFTER_FAILURE
        _LOG.warning("maintenance of %s failed: %s", self._git_dir, error)

    def _wait(self, seconds: float) -> None:
        """Until nobody tidies up, but not for longer."""
        deadline = time.monotonic() + seconds
        while (lock := self._take()) is None:
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL)
        os.close(lock)

    def close(self) -> None:
        """Wait until what this process has begun is done."""
        self._automatic = False
        if self._thread is not None:
            self._thread.join()

    # When asked

    def run(self, *, full: bool = False) -> Maintained:
        """Merge the small packs at once; with `full` all of them, with new deltas, which takes longest and least room.

        Raises Locked where it is being done already, for longer than the time-out, and StorageFailed.
        """
        lock = self._take_in_time()
        try:
            before = storage(self._git_dir)
            self._observed(lock, merging=True, full=full)
            return Maintained(before, storage(self._git_dir))
        except OSError as error:
            raise StorageFailed(f"Maintenance failed: {error}.") from error
        finally:
            os.close(lock)

    # Kept away

    @contextmanager
    def paused(self) -> Iterator[Upkeep]:
        """Keep everybody from tidying up, as soon as nobody does. Raises Locked, StorageFailed."""
        try:
            lock = self._take_in_time()
        except OSError as error:
            raise StorageFailed(f"The maintenance lock can't be taken: {error}.") from error
        try:
            yield Upkeep(self._git_dir, durable=self._durable, inherited=(lock,))
        finally:
            os.close(lock)

    # For monitors

    def running_since(self) -> float | None:
        """When the maintenance that is under way began, in seconds since 1970; None where nobody is at it.

        Raises StorageFailed.
        """
        try:
            if (lock := self._take(begin=False)) is None:
                return os.stat(self._path).st_mtime
            os.close(lock)
        except OSError as error:
            raise StorageFailed(f"The maintenance lock can't be looked at: {error.strerror}.") from error
        return None

    # The work

    def _observed(self, lock: int, *, merging: bool, full: bool = False) -> None:
        begun, succeeded = time.monotonic(), False
        try:
            self._tidy(lock, merging=merging, full=full)
            succeeded = True
        finally:
            self._observer.maintained(time.monotonic() - begun, succeeded=succeeded)

    def _take_in_time(self) -> int:
        deadline = time.monotonic() + self._timeout
        while (lock := self._take()) is None:
            if time.monotonic() > deadline:
                raise Locked(f"{self._git_dir} has been under maintenance for more than {self._timeout:g} s.")
            time.sleep(_POLL)
        return lock

    def _take(self, *, begin: bool = True) -> int | None:
        """A descriptor that holds the maintenance lock; None where another has it. The file is as old as the work is."""
        lock = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if begin:
                now = self._clock()
                os.utime(lock, (now, now))
        except BlockingIOError:
            os.close(lock)
            return None
        except OSError:
            os.close(lock)
            raise
        return lock

    def _tidy(self, lock: int, *, merging: bool, full: bool = False) -> None:
        hurried = count_packs(self._git_dir)[0] >= HURRY_AT
        upkeep = Upkeep(self._git_dir, durable=self._durable, inherited=(lock,), hurried=hurried)
        if not merging:
            upkeep.write_index()
            return
        before = self._clock() - STALE_AFTER
        if upkeep.leftovers(
            before
        ):  # or those of the write that is under way: only the writer's lock can tell
            with self._locked():
                upkeep.remove_leftovers(before)
        loose = upkeep.has_loose_objects()
        if full:
            upkeep.merge_all()
        elif (chosen := smallest(upkeep.packs())) or loose:
            upkeep.merge(chosen)
        if loose:
            with self._locked():
                upkeep.prune_packed()
        upkeep.write_graph(whole=full)
