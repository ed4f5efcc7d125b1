"""Bytes on their way to a file: few are in memory, more in a file without a name, of which no crash leaves anything."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

_PIECE = 512 * 1024
"""Bytes. What a few clients write at a time is less, and never needs a file."""


class Scratch:
    """Grows at its end, and is cut there. Only one thread at a time may call."""

    def __init__(
        self,
        folder: str | None = None,
        failure: Callable[[OSError], Exception] = lambda error: error,
        in_memory: int = _PIECE,
    ) -> None:
        """The file will be in `folder`; without one, all stays in memory. `failure` makes what is raised of its errors.

        Pieces of no more than `in_memory` bytes are not put in the file yet, nor is a single one.
        """
        self._in_memory = in_memory
        self._folder = folder
        self._failure = failure
        self._file: BinaryIO | None = None
        self._written = 0
        self._rest = bytearray()

    def append(self, piece: bytes) -> None:
        """Put a piece at the end."""
        if self._folder is not None and self._rest and len(self._rest) + len(piece) > self._in_memory:
            try:
                self._write(self._folder)
            except OSError as error:
                raise self._failure(error) from error
        self._rest += piece

    def read(self, start: int, end: int) -> bytes:
        """The bytes between two places, of a single piece that was put there."""
        if start >= self._written:
            return bytes(self._rest[start - self._written : end - self._written])
        return self._read(start, end)

    def truncate(self, size: int) -> None:
        """Forget all but the first bytes, which end with a piece."""
        self._written = min(self._written, size)
        del self._rest[size - self._written :]

    def pieces(self) -> Iterator[bytes]:
        """All bytes, some hundred thousand at a time."""
        for start in range(0, self._written, _PIECE):
            yield self._read(start, min(start + _PIECE, self._written))
        yield bytes(self._rest)

    def close(self) -> None:
        """Give the room back. Nothing may be asked of it any more."""
        if self._file is not None:
            self._file.close()

    def _write(self, folder: str) -> None:
        if self._file is None:
            file = tempfile.TemporaryFile(prefix="tmp_pack_", dir=folder, buffering=0)  # noqa: SIM115  # see `close`
            self._file = cast("BinaryIO", file)
        rest, end = self._rest, self._written
        while rest:
            count = os.pwrite(self._file.fileno(), rest, end)
            rest, end = rest[count:], end + count
        self._written, self._rest = end, bytearray()

    def _read(self, start: int, end: int) -> bytes:
        assert self._file is not None
        try:
            found = os.pread(self._file.fileno(), end - start, start)
        except OSError as error:
            raise self._failure(error) from error
        if len(found) != end - start:
            raise self._failure(OSError(errno.EIO, "a file is shorter than was written"))
        return found
