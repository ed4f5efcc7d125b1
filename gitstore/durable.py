"""Files that outlast a power cut, and what the store says where the disk refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

from gitstore.errors import StorageFailed, StorageFull

_AT_ONCE = 1024**2
_FULL = (errno.ENOSPC, errno.EDQUOT)


def replace_file(path: str, data: bytes, mode: int, *, durable: bool = True) -> None:
    """Put a file in place: at every moment, also after a power cut, it is the old or the new one.

    It is made beside it, under the name with `.new`, so only one may do this at a time; `mode` is subject to the umask.
    The new one is there for good after `sync_folder`. Raises OSError; then the old one is there.
    """
    making = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(making)
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        write_all(descriptor, [data])
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(making, path)


def sync_folder(path: str) -> None:
    """Have the names in a folder on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, pieces: Iterable[bytes]) -> None:
    """Write to an empty file until all bytes are out, however few the system takes at a time. Raises OSError."""
    size = 0
    for data in _joined(pieces):
        size += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    if os.fstat(descriptor).st_size != size:
        raise OSError(errno.EIO, "the file has another size than was written")


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in few pieces, without all of them a second time in memory."""
    together: list[bytes] = []
    size = 0
    for piece in pieces:
        together.append(piece)
        size += len(piece)
        if size >= _AT_ONCE:
            yield b"".join(together)
            together, size = [], 0
    yield b"".join(together)


def storage_error(error: OSError, consequence: str) -> StorageFull | StorageFailed:
    """The error of the store for an error of the operating system."""
    kind = StorageFull if error.errno in _FULL else StorageFailed
    where = f" ({error.filename})" if error.filename else ""
    return kind(f"{error.strerror or error}{where}: {consequence}.")
