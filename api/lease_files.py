"""The files by which the keepers of one repository know of one another, and tell the workers what they found.

keeper.lock  a flock: who has it is at work, the others wait
keepers      a flock that all share: who can have it alone is the last one
lease        the lease that is held: its id, until when it is trusted, and by which file, since which start, that was noted
primary      the URL of another node, where that one holds the lease
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from contextlib import suppress

from gitstore import StorageFailed

_NOTE = 128
"""Bytes of `lease`, overwritten in place."""

_PRIMARY = "primary"
_BOOT = "/proc/sys/kernel/random/boot_id"


def uptime() -> float:
    """Seconds since this machine was started; unlike those of the monotonic clock, they go on while it is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Files:
    """Those of one keeper, in the folder `git-fhir` of its repository."""

    def __init__(self, folder: str) -> None:
        """Waits for a keeper that is giving the lease back. Raises StorageFailed."""
        self._folder = folder
        self._leading: int | None = None
        self._pointed: str | None = None
        try:
            with open(_BOOT, encoding="ascii") as file:
                self._boot = file.read().strip()
            self._lease = self._open("lease")
            self._keepers = self._open("keepers")
            fcntl.flock(self._keepers, fcntl.LOCK_SH)
        except OSError as error:
            raise _failed(error) from error

    def close(self) -> None:
        for descriptor in (self._leading, self._keepers, self._lease):
            if descriptor is not None:
                os.close(descriptor)

    def _open(self, name: str) -> int:
        return os.open(os.path.join(self._folder, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def lead(self) -> bool:
        """Whether this keeper is the one at work; it stays so until it is closed."""
        if self._leading is None:
            descriptor = self._open("keeper.lock")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._leading = descriptor
        return True

    def is_last(self) -> bool:
        """No longer be one of the keepers. Whether there is no other; then none can begin until this one is closed."""
        fcntl.flock(self._keepers, fcntl.LOCK_UN)
        try:
            fcntl.flock(self._keepers, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def noted(self) -> tuple[int | None, float]:
        """The lease that was noted last, and until when it is trusted.

        None in a copy of the repository, which is another node. What was noted before the machine's last start says nothing
        of when.
        """
        fields = os.pread(self._lease, _NOTE, 0).decode("ascii", "replace").split()
        if len(fields) != 4 or not all(field.isdecimal() for field in fields[:3]):
            return None, -math.inf
        lease, until, file = map(int, fields[:3])
        if lease == 0 or file != os.fstat(self._lease).st_ino:
            return None, -math.inf
        return lease, until / 1e9 if fields[3] == self._boot else -math.inf

    def note(self, lease: int | None, until: float) -> None:
        """Keep what a next keeper goes on with. `until`, in seconds of `uptime`, is written in nanoseconds; 0 for not now."""
        text = f"{lease or 0} {math.floor(until * 1e9)} {os.fstat(self._lease).st_ino} {self._boot}\n"
        os.pwrite(self._lease, text.encode().ljust(_NOTE), 0)

    def point(self, url: str) -> None:
        """Note where writes are to be passed on to; nowhere where it is empty. Raises StorageFailed."""
        if url == self._pointed:
            return
        if url:
            path = os.path.join(self._folder, _PRIMARY)
            try:
                with open(f"{path}.new", "w", encoding="utf-8") as file:
                    file.write(f"{url}\n")
                os.rename(f"{path}.new", path)
            except OSError as error:
                raise _failed(error) from error
        else:
            forget_primary(self._folder)
        self._pointed = url


def forget_primary(folder: str) -> None:
    """Pass writes on to nobody that a lease names. Raises StorageFailed."""
    try:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, _PRIMARY))
    except OSError as error:
        raise _failed(error) from error


def _failed(error: OSError) -> StorageFailed:
    return StorageFailed(f"The keeper of the lease can't note what it knows: {error.strerror}.")
