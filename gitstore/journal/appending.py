"""Writing the journal: one chain for all workers of a repository, each line kept before its request is answered.

What a reader costs is what this costs, so who answers a request only copies its line into the ring of its process, memory that outlasts
a kill; that takes some microseconds, no call of the system and no lock of other processes. A thread of each process adds
what has come up to the chain a little later, for all processes at once, and who reads the journal does so first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from gitstore.durable import storage_error
from gitstore.errors import StorageFailed, StorageFull, StoreError
from gitstore.founding import now
from gitstore.journal.chain import MAX_FILE, Chain
from gitstore.journal.lines import Entry, bodies
from gitstore.journal.rings import SPACE, Ring

DRAIN_EVERY = 0.25
"""Seconds for which lines wait in a ring while there are some."""

SYNC_EVERY = 1.0
"""Seconds. A power cut loses the lines of no longer time than this; that a process is killed loses none."""

_MUCH = SPACE // 2
"""Bytes at which lines don't wait any longer."""


class Journal:
    """The journal of one repository, to add to. Any thread may call; open one in each process, after any fork."""

    def __init__(self, chain: Chain, clock: Callable[[], int]) -> None:
        """Use `open`."""
        self._chain = chain
        self._clock = clock
        self._adding = threading.Lock()
        """Of who adds to the ring."""
        self._draining = threading.Lock()
        """Of who uses the chain; it may take `_adding`, too, and not the other way round."""
        self._ring: Ring | None = None
        self._put: Callable[[int, list[bytes]], int] = _no_room
        """Keeps lines in the ring, unless none may come to it."""
        self._refusing: StoreError | None = None
        """Why no line came to the chain the last time that one should."""
        self._ended: str | None = None
        """Why none ever will again."""
        self._recorded = self._told = 0
        self._counted: Callable[[int], None] | None = None
        self._is_closing = False
        self._called, self._hurried = threading.Event(), threading.Event()
        if not self._try_drain():
            self._called.set()
        self._appending = threading.Thread(target=self._append, name="git-fhir journal", daemon=True)
        self._appending.start()

    @classmethod
    def open(
        cls,
        git_dir: str,
        clock: Callable[[], int] = now,
        *,
        durable: bool = True,
        max_file: int = MAX_FILE,
        timeout: float = 10.0,
    ) -> Journal:
        """The journal of a repository, which is begun where there is none; only its owner may read it.

        `clock` gives microseconds since 1970, `timeout` is how many seconds a line waits for its turn. Raises
        StorageFailed, StorageFull, Locked.
        """
        with _explained("there can be no access journal"):
            chain = Chain(git_dir, clock, durable=durable, max_file=max_file, timeout=timeout)
        return cls(chain, clock)

    def record(self, *entries: Entry) -> None:
        """Add entries, all of them or none; when this returns, they outlast this process.

        Raises StorageFull, StorageFailed and Locked: then nobody may be told what was asked for.
        """
        texts = (
            bodies(entries[0]) if len(entries) == 1 else [text for entry in entries for text in bodies(entry)]
        )
        with self._adding:
            waiting = self._put(self._clock(), texts)
            if waiting:
                self._recorded += len(texts)
                if not self._called.is_set():
                    self._called.set()
                if waiting > _MUCH:
                    self._hurried.set()
                return
        self._insist(texts)

    def count_with(self, counted: Callable[[int], None]) -> None:
        """Have `counted` told each second, by another thread, how many lines this process has added since."""
        self._counted = counted

    def drain(self) -> None:
        """Have all lines in the chain, of other processes, too. Raises what `record` does."""
        with self._draining:
            self._drain()

    def close(self) -> None:
        """Let go of the files, with all lines on the disk; those that can't be added stay for whoever comes next."""
        if self._is_closing:
            return
        self._is_closing = True
        self._called.set()
        self._hurried.set()
        self._appending.join()
        with self._draining:
            is_kept = self._ended is None
            self._end("The access journal is closed.")
            if self._ring is not None:
                self._ring.close()  # from here on it is one of the dead
            if is_kept:
                with suppress(StoreError), _explained():  # a ring that is not drained stays
                    self._chain.drain()
                    self._chain.sync()
            self._chain.close()
        self._count()

    # Who records

    def _insist(self, texts: list[bytes]) -> None:
        """Add lines for which there is no room in the ring to the chain itself. Raises what `record` does."""
        refusing = self._refusing
        if not self._draining.acquire(blocking=refusing is None):
            assert refusing is not None
            # Somebody finds out whether it is still so. To raise an error is to write to it: each has its own.
            raise type(refusing)(str(refusing))
        try:
            self._drain(texts)
        finally:
            self._draining.release()
        with self._adding:
            self._recorded += len(texts)
        self._called.set()

    # With `_draining`

    def _drain(self, texts: list[bytes] | None = None, *, waits: bool = True) -> bool:
        """As Chain.drain, and from then on lines may come to the ring again, or not. Raises StoreError."""
        if self._ended is not None:
            raise StorageFailed(self._ended)
        try:
            with _explained():
                done = self._chain.drain(texts or (), waits=waits)
        except StoreError as error:
            self._let_in(_no_room, error)
            raise
        if self._ring is None:
            self._make_ring()
        if done and self._ring is not None:
            self._let_in(self._ring.put, None)
        return done

    def _make_ring(self) -> None:
        # On a full disk lines may still find room in the file that is there.
        with suppress(StorageFull), _explained():
            self._ring = self._chain.make_ring()

    def _let_in(self, put: Callable[[int, list[bytes]], int], refusing: StoreError | None) -> None:
        with self._adding:
            self._put, self._refusing = put, refusing

    def _end(self, why: str) -> None:
        self._ended = why
        self._let_in(_no_room, None)

    # The thread that appends

    def _append(self) -> None:
        """Drain and sync while there is something; sleep while there is nothing."""
        due: float | None = None
        while True:
            self._called.wait(None if due is None else max(0.0, due - time.monotonic()))
            if self._called.is_set():
                self._hurried.wait(DRAIN_EVERY)
                self._hurried.clear()
                self._called.clear()  # before it is looked at what waits, and whether this is the end
                if self._is_closing:
                    return
                due = due or time.monotonic() + SYNC_EVERY - DRAIN_EVERY
                if not self._try_drain():
                    self._called.set()
            if due is not None and time.monotonic() >= due:
                due = None
                self._sync()

    def _try_drain(self) -> bool:
        """False where another process is at it, or it can't be done now."""
        try:
            with self._draining:
                return self._ended is not None or self._drain(waits=False)
        except StoreError:
            return False  # `_drain` has kept it for those who record

    def _sync(self) -> None:
        self._count()
        try:
            with self._draining:
                self._chain.sync()
        except OSError as error:
            # What was said to be noted may not be: from here on nothing more is.
            self._end(f"The access journal can't be kept any more: {error}.")

    def _count(self) -> None:
        new = self._recorded - self._told
        if new and self._counted is not None:
            self._told += new
            self._counted(new)


def _no_room(_time: int, _texts: list[bytes]) -> int:
    return 0


@contextmanager
def _explained(consequence: str = "the access can't be noted in the journal") -> Iterator[None]:
    """Raises StorageFull or StorageFailed for OSError."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, consequence) from error
