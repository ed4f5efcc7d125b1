"""Units of work waiting to be written, and the one thread of this process that writes them in groups.

Group commit: whatever arrives while a group is on its way to disk makes up the next one, so that many commits share
one durable write. Those who wrote mostly write again, so a group waits a moment for as many as the last one had: one group
of all costs less than two. A unit that is being written always gets its outcome; only one that still waits may time out.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from gitstore.errors import Locked, Unavailable
from gitstore.interactions import Outcome
from gitstore.observing import UNOBSERVED, Observer
from gitstore.preparation import Prepared
from gitstore.replication import Series
from gitstore.version import Commit

MAX_UNITS = 128
MAX_BYTES = 32 * 1024**2
"""Of one group; a larger unit goes alone."""

_LONGEST_WAIT = 0.01
"""Seconds for which a group waits to have as many units as the last one, and no longer than that one took."""


class Pending:
    """A unit, or a series of commits to take over, on its way: at the end it has outcomes, or the error of its failure."""

    __slots__ = ("_done", "error", "gives_way", "head", "outcomes", "prepared", "taken")

    def __init__(self, prepared: Prepared | Series) -> None:
        self.prepared = prepared
        self.outcomes: list[Outcome] = []
        self.error: BaseException | None = None
        self.head: Commit | None = None
        """The last commit of the record when it was done: its own, if it made one."""

        self.taken = False
        self.gives_way = False
        """Whether it is one of many of the same caller: these let others go first."""

        # A lock is the cheapest thing that a thread can wait for with a time limit.
        self._done = threading.Lock()
        self._done.acquire()

    def finish(self) -> None:
        """Wake up the caller; at most once."""
        self._done.release()

    def wait(self, seconds: float) -> bool:
        """Whether it was finished within the time."""
        return self._done.acquire(timeout=seconds)


class WriteQueue:
    """First come, first served. The thread starts with the first unit."""

    def __init__(
        self,
        lead: Callable[[Callable[[], list[Pending]]], list[Pending]],
        timeout: float,
        observer: Observer = UNOBSERVED,
    ) -> None:
        """`lead(take)` writes one group: it takes the lock, then calls `take()`, and finishes what it was given.

        What it returns, the last of these, it has not begun: they come first in the next group.
        """
        self._lead = lead
        self._timeout = timeout
        self._observer = observer
        self._begun: float | None = None
        self._waiting: deque[Pending] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._groups = 0
        self._size = 0
        """Units of the last group."""

        self._wanted = 1
        """So many units are to be there before the thread is called."""

    def submit(self, pending: Sequence[Pending]) -> None:
        """Put units in the queue, next to one another; several give way to other processes."""
        for each in pending:
            each.gives_way = len(pending) > 1
        with self._changed:
            if self._closed:
                raise Unavailable("The store is closed.")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="git-fhir writer", daemon=True)
                self._thread.start()
            self._waiting.extend(pending)
            self._observer.queued(len(self._waiting))
            if len(self._waiting) >= self._wanted:
                self._changed.notify()

    def wait(self, pending: Pending) -> None:
        """Until the unit is finished. Raises Locked where nothing at all was written for the time-out, and withdraws it."""
        groups = self._groups
        while not pending.wait(self._timeout):
            with self._changed:
                if not pending.taken and groups == self._groups:
                    self._waiting.remove(pending)
                    self._observer.queued(len(self._waiting))
                    raise Locked(
                        f"The record is locked by another process for more than {self._timeout:g} s."
                    )
                groups = self._groups

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        count, seconds = 1, 0.0
        while True:
            with self._changed:
                self._wait_for(1, None)
                if not self._waiting:
                    return
                self._wait_for(count, min(seconds, _LONGEST_WAIT))
            self._begun = time.monotonic()
            rest = self._lead(self._take)
            count, seconds = self._size - len(rest), time.monotonic() - self._begun
            self._give_back(rest)
            self._begun = None

    def _wait_for(self, count: int, seconds: float | None) -> None:
        """Until there are so many units, or no more will come; while holding the condition."""
        self._wanted = count
        self._changed.wait_for(lambda: len(self._waiting) >= count or self._closed, seconds)

    def _give_back(self, units: Sequence[Pending]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(units))
            for pending in units:
                pending.taken = False
            self._observer.queued(len(self._waiting))

    def busy_for(self) -> float:
        """Seconds for which the thread has been at its present group, the wait for the lock included."""
        begun = self._begun
        return 0.0 if begun is None else time.monotonic() - begun

    def _take(self) -> list[Pending]:
        group: list[Pending] = []
        size = 0
        with self._changed:
            while self._waiting and len(group) < MAX_UNITS:
                size += self._waiting[0].prepared.size
                if group and size > MAX_BYTES:
                    break
                group.append(self._waiting.popleft())
                group[-1].taken = True
            self._groups += 1
            self._size = len(group)
            self._observer.queued(len(self._waiting))
        return group
