"""A ring: where the lines of one process wait until they are chained, in memory that outlasts the process.

It is a file that is mapped into memory, `git-fhir/journal/rings/NAME`: what was copied there is in the system's page cache, so
that a kill takes none of it, and the file has its room on the disk from the beginning. Its owner holds a flock on it; who gets
that flock knows that the owner is dead. Only the owner adds frames, and whoever holds the journal's lock does all the rest.

A ring has 128 bytes of 64-bit words, then room for frames, of which each begins at a multiple of eight bytes and goes on at the
beginning where it comes to the end: length and CRC of the body, the time, the number of the line that was made of it or 0, the body.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from heapq import merge
from typing import NamedTuple
from zlib import crc32

SPACE = 512 * 1024
"""Bytes of frames: several times what a busy worker has waiting, and few enough to stay in the processor's cache."""

_HEADER = 128
_SIZE = _HEADER + SPACE
_END = _SIZE
_FORMAT, _INODE, _DURABLE, _WRITTEN, _DRAINED, _BOOT = 0, 1, 2, 3, 4, 5
"""Places of words. `_WRITTEN` and `_DRAINED` count bytes from when the ring was made; each is stored in one piece."""
_MAGIC = int.from_bytes(b"gfring 1", "little")
_FRAME = struct.Struct("=IIqQ")
_NUMBER_AT = 16
"""Where the number stands in a frame."""


class Frame(NamedTuple):
    """A line that waits: when it was recorded, and what follows the links of the chain.

    `number` is that of the line which somebody was about to make of it, 0 for none. It begins at `place` in its ring.
    """

    time: int
    body: bytes
    ring: Ring | None = None
    place: int = 0
    number: int = 0

    def note(self, number: int) -> None:
        """Keep the number of its line, for whoever goes on after a crash."""
        if self.ring is not None:
            self.ring.note(self.place, number)


class Ring:
    """The ring in a file that has been opened; `path` is its name."""

    def __init__(self, path: str, descriptor: int, access: int = mmap.ACCESS_WRITE) -> None:
        """Use `make`, `open` or `look`."""
        self.path = path
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, _SIZE, access=access)
        self._words = memoryview(self._map).cast("Q")
        self._written = self._words[_WRITTEN]

    @classmethod
    def make(cls, folder: str, *, durable: bool) -> Ring:
        """A new ring that this process owns; with the journal's lock. Raises OSError."""
        path = os.path.join(folder, os.urandom(8).hex())
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(descriptor, 0, _SIZE)
            ring = cls(path, descriptor)
        except BaseException:
            os.close(descriptor)
            os.unlink(path)
            raise
        words = ring._words
        words[_INODE], words[_DURABLE] = os.fstat(descriptor).st_ino, int(durable)
        words[_BOOT], words[_BOOT + 1] = _boot()
        words[_FORMAT] = _MAGIC
        return ring

    @classmethod
    def open(cls, path: str) -> Ring | None:
        """A ring of whomever; with the journal's lock. None where it is gone, or another format has it. Raises OSError.

        One that its maker has not finished, because of a crash, is removed.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if os.fstat(descriptor).st_size == _SIZE:
            ring = cls(path, descriptor)
            if ring._words[_FORMAT] == _MAGIC:
                return ring
            is_begun = ring._words[_FORMAT] == 0
            ring.close()
        else:
            is_begun = os.fstat(descriptor).st_size < _SIZE
            os.close(descriptor)
        if is_begun:
            os.unlink(path)
        return None

    @classmethod
    def look(cls, path: str) -> Ring | None:
        """A ring to read, without any lock. None where there is none. Raises OSError."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if os.fstat(descriptor).st_size == _SIZE:
            ring = cls(path, descriptor, mmap.ACCESS_READ)
            if ring._words[_FORMAT] == _MAGIC:
                return ring
            ring.close()
        else:
            os.close(descriptor)
        return None

    def close(self) -> None:
        """Let go of the file, and of its ownership."""
        self._words.release()
        self._map.close()
        os.close(self._descriptor)

    def remove(self) -> None:
        """Let go of the file, and be rid of it."""
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        self.close()

    # The owner, one thread at a time

    def put(self, time: int, bodies: Iterable[bytes]) -> int:
        """Have lines wait, all or none: when this returns, they outlast the process.

        Gives how many bytes wait; 0 where there is no room for them.
        """
        place = self._written
        drained = self._words[_DRAINED]
        for body in bodies:
            start = _HEADER + place % SPACE
            frame = _FRAME.pack(len(body), crc32(body, place & 0xFFFFFFFF), time, 0) + body
            place += -(-len(frame) // 8) * 8
            if place - drained > SPACE:
                return 0
            end = start + len(frame)
            if end <= _END:
                self._map[start:end] = frame
            else:
                self._map[start:] = frame[: _END - start]
                self._map[_HEADER : _HEADER + end - _END] = frame[_END - start :]
        self._words[_WRITTEN] = self._written = place  # not before all the rest is there
        return place - drained

    # Whoever has the journal's lock

    @property
    def is_durable(self) -> bool:
        """Whether its lines are to be synced."""
        return bool(self._words[_DURABLE])

    @property
    def is_waiting(self) -> bool:
        return self._words[_DRAINED] != self._words[_WRITTEN]

    @property
    def is_strange(self) -> bool:
        """Whether this is a copy, or from before the system was started: then nothing says how much of it is chained."""
        words = self._words
        return (words[_BOOT], words[_BOOT + 1]) != _boot() or words[_INODE] != os.fstat(
            self._descriptor
        ).st_ino

    def is_dead(self) -> bool:
        """Whether nobody owns it; then this process does from here on."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def frames(self) -> tuple[list[Frame], int]:
        """What waits, oldest first, and where that ends: a frame that can't be read ends it, and should be none."""
        place, written = self._words[_DRAINED], self._words[_WRITTEN]
        start, size = place % SPACE, min(written - place, SPACE)
        data = self._map[_HEADER + start : min(_HEADER + start + size, _END)]
        data += self._map[_HEADER : _HEADER + size - len(data)]
        found, at = [], 0
        while at + _FRAME.size <= len(data):
            length, crc, time, number = _FRAME.unpack_from(data, at)
            body = data[at + _FRAME.size : at + _FRAME.size + length]
            if len(body) != length or crc32(body, place & 0xFFFFFFFF) != crc:
                break
            found.append(Frame(time, body, self, place, number))
            step = -(-(_FRAME.size + length) // 8) * 8
            at, place = at + step, place + step
        return found, place

    def is_whole(self, end: int) -> bool:
        """Whether the frames end where they should."""
        return end == self._words[_WRITTEN]

    def note(self, place: int, number: int) -> None:
        """Keep the number of the line that is made of the frame at a place."""
        self._words[(_HEADER + (place + _NUMBER_AT) % SPACE) // 8] = number

    def drain(self, end: int) -> None:
        """Give the room up to `end` to other frames."""
        self._words[_DRAINED] = end


def in_order(waiting: Iterable[Iterable[Frame]]) -> Iterator[Frame]:
    """The frames of several rings by time; those of each stay in their order."""
    return merge(*waiting, key=lambda frame: frame.time)


@cache
def _boot() -> tuple[int, int]:
    """What the system made up when it was started. https://man7.org/linux/man-pages/man4/random.4.html"""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        found = uuid.UUID(file.read().strip()).int
    return found >> 64, found & (2**64 - 1)
