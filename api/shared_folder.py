"""The folder in which the workers of one server count together. It goes with the server; where that was killed, and all of
its workers with it, with the next server that starts.

Whoever made it holds a lock on a file in it, and so do the workers, who are forked from him, until the last of them ends.
Nothing else tells whether a folder is still used: not its age, and not a process id, which others get again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PREFIX = "git-fhir-metrics-"
_LOCK = "owner.lock"


@contextmanager
def shared_folder(place: str | None = None) -> Iterator[str]:
    """A folder that only this user may use, for the length of the block, in the folder for temporary files or in `place`."""
    place = place or tempfile.gettempdir()
    sweep(place)
    folder, lock = _made(place)
    try:
        yield folder
    finally:
        # What can't be removed now, the next server removes.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(place: str) -> None:
    """Remove the folders of this user's servers that are gone, from where they were made, as far as that can be done."""
    names: list[str] = []
    with suppress(PermissionError):  # to make a folder there is enough
        names = os.listdir(place)
    for name in names:
        with suppress(OSError):  # it is used, or somebody else's, or it goes while we look
            if name.startswith(PREFIX):
                _remove_unused(os.path.join(place, name))


def _remove_unused(folder: str) -> None:
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    lock = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)


def _made(place: str) -> tuple[str, int]:
    """A new folder, and the descriptor that holds its lock."""
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=place)
        path = os.path.join(folder, _LOCK)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Another server that starts just now may have locked it first, as one of nobody's, and removed it.
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(path), os.fstat(lock)):
                return folder, lock
        os.close(lock)
