"""How a record is doing, for monitors: what keeps it from being answered from or written to, and what it takes up.

Each check is a sentence about what is wrong, None where nothing is. None of them waits for a lock, and none needs more
than a few system calls.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from msgspec import Struct

from gitstore.errors import NotConfirmed, StorageFailed
from gitstore.fhir.dates import SECOND
from gitstore.git.history import chain
from gitstore.git.repository import Repository
from gitstore.git.upkeep import storage
from gitstore.git.writer import Writer
from gitstore.indexing import Indexing
from gitstore.maintenance import Maintenance
from gitstore.observing import Observer
from gitstore.queue import WriteQueue
from gitstore.search import statistics, versions
from gitstore.search.index import Index
from gitstore.settings import Settings
from gitstore.version import Commit

PATIENCE = 60.0
"""Seconds that one group may take, the wait for the lock included. A Bundle of 20,000 entries takes a quarter of it."""

MAINTENANCE_PATIENCE = 3600.0
"""Seconds that maintenance may take. All packs of a million commits are merged in a tenth of it."""

FAILURE_HOLDS = 30.0
"""Seconds for which a write that the disk refused counts. Then somebody has to try whether the next one succeeds."""


class Sizes(Struct, frozen=True):
    """What a record has and takes up; sizes in bytes, `lag` in commits that are on main and not in the index."""

    last: Commit
    versions: int
    lag: int
    packs: int
    object_bytes: int
    index_bytes: int
    free_bytes: int


class Vitals:
    """Of one store. Any thread may ask."""

    patience = PATIENCE

    def __init__(
        self,
        repository: Repository,
        search_index: Index,
        indexing: Indexing,
        settings: Settings,
        clock: Callable[[], int],
        observer: Observer,
    ) -> None:
        """Until `can_write`, as where the record belongs to someone else, writing is nothing that could fail."""
        self._repository = repository
        self._index = search_index
        self._indexing = indexing
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self._writer: Writer | None = None
        self._queue: WriteQueue | None = None
        self._maintenance: Maintenance | None = None
        self._failure: tuple[float, str] | None = None

    def can_write(self, writer: Writer, queue: WriteQueue, maintenance: Maintenance) -> None:
        """The store has these, so they are looked at as well."""
        self._writer = writer
        self._queue = queue
        self._maintenance = maintenance

    def wrote(self, error: Exception | None) -> None:
        """A group was written, or could not be."""
        self._failure = None
        if error is not None:
            self._observer.failed()
        if isinstance(error, StorageFailed | NotConfirmed):
            self._failure = (time.monotonic(), str(error))

    # Checks. All may raise StoreError, which is as good an answer.

    def index(self) -> str | None:
        """Whether all of main is in the index. Commits of ours that aren't yet, because another has died, go there now."""
        error = self._indexing.foreign()
        if error is None or (self._settings.foreign_commits == "adopt" and not error.problems):
            return None
        return str(error)

    def disk(self) -> str | None:
        """Whether there is room for what is to come."""
        free = self._free()
        if free >= self._settings.min_free:
            return None
        return f"{free} bytes are free on the disk, less than the {self._settings.min_free} of fhir.minFree."

    def maintenance(self) -> str | None:
        """Whether maintenance, whichever process does it, comes to an end."""
        since = self._maintenance.running_since() if self._maintenance is not None else None
        if since is None or (seconds := self._clock() / SECOND - since) <= MAINTENANCE_PATIENCE:
            return None
        return f"Maintenance has been running for {seconds:.0f} s."

    def writer(self) -> str | None:
        """Whether writes go through: nobody is in their way, and the disk took the last one."""
        if self._writer is None or self._queue is None:
            return None
        if self._queue.busy_for() > self.patience:
            return f"The writing thread has been at one group for more than {self.patience:g} s."
        if self._failure is not None and time.monotonic() < self._failure[0] + FAILURE_HOLDS:
            return self._failure[1]
        if self._is_locked_out(self._writer):
            return f"Another git holds main.lock for more than {self._settings.lock_timeout:g} s."
        return None

    def _is_locked_out(self, writer: Writer) -> bool:
        """Whether a main.lock stands for too long that isn't the leftover of a writer of ours that died."""
        if not self._is_old(writer.main_locked_since()):
            return False
        with writer.locked_at_once() as locked:  # which takes away such leftovers
            return locked and self._is_old(writer.main_locked_since())

    def _is_old(self, since: float | None) -> bool:
        return since is not None and self._clock() / SECOND - since > self._settings.lock_timeout

    # Sizes

    def sizes(self) -> Sizes:
        """Look at everything: a directory listing, and the sizes of some files. Raises StoreError."""
        connection = self._index.reader()
        main = self._indexing.main()
        last = versions.tip(connection)
        if last is None:
            raise StorageFailed("The search index holds no commit.")
        # From the tip on, and not from main: that may have been moved back.
        lag = 0 if last.id == main else len(chain(self._repository, main, last.id))
        try:
            objects = storage(self._repository.git_dir)
        except OSError as error:
            raise StorageFailed(f"The files of the record can't be counted: {error.strerror}.") from error
        return Sizes(
            last,
            statistics.versions(connection),
            lag,
            objects.packs,
            objects.bytes,
            statistics.size(connection),
            self._free(),
        )

    def _free(self) -> int:
        try:
            disk = os.statvfs(self._repository.git_dir)
        except OSError as error:
            raise StorageFailed(f"The disk can't be asked for its room: {error.strerror}.") from error
        return disk.f_bavail * disk.f_frsize
