"""Who of a process's threads writes: the first that comes, for itself and for all that come while it waits or writes.

Who finds nobody at it takes a lock that is free, and that is all. Whoever else has its lines put among those of the next
write and sleeps until they are there, so that many lines cost one flock and one write(2), and nobody looks again and again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from gitstore.errors import StoreError


class Waiting:
    """What a thread wants to have written that found another one at it; `deadline` in seconds of time.monotonic."""

    __slots__ = ("_turn", "deadline", "error", "leads", "texts")

    def __init__(self, texts: list[bytes], deadline: float) -> None:
        self.texts = texts
        self.deadline = deadline
        self.error: StoreError | None = None
        self.leads = False
        self._turn = threading.Lock()
        self._turn.acquire()

    def wait(self) -> None:
        """Sleep until the lines are written or refused, or until it is this thread's turn to lead."""
        self._turn.acquire()

    def wake(self) -> None:
        self._turn.release()

    def let_go(self, fault: StoreError | None) -> None:
        """Say what came of the lines."""
        # Each thread raises an error of its own: to raise one is to write to it.
        self.error = None if fault is None else type(fault)(str(fault))
        self.wake()


class Turns:
    """The threads of one process, of which one at a time leads. Who leads has to `pass_on`."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[Waiting] = deque()
        self.leads_at_once = self._mutex.acquire
        """Called with False: whether this thread leads now, because nobody else does."""

    def follow(self, waiting: Waiting) -> None:
        """Have lines written by the thread that leads, or lead: `waiting` tells which it was."""
        self._waiting.append(waiting)
        if self._mutex.acquire(False):  # Who led may have looked for others just before.
            self.pass_on()
        waiting.wait()

    def gather(self) -> list[Waiting]:
        """Those who wait, in the order in which they came; who leads has to let them go."""
        found = []
        while self._waiting:
            found.append(self._waiting.popleft())
        return found

    def pass_on(self) -> None:
        """Let the thread lead that has waited longest, or whoever comes."""
        while True:
            if self._waiting:
                first = self._waiting.popleft()
                first.leads = True
                first.wake()  # with the mutex: it is that thread's now
                return
            self._mutex.release()
            if not self._waiting or not self._mutex.acquire(False):
                return

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no thread of this process writes."""
        self._mutex.acquire()
        try:
            yield
        finally:
            self.pass_on()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)
