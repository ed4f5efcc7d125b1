"""What the hub is still to get, ready to be sent: the entries of the packs of the last groups of commits, one after the other.

For a push git starts programs that look through all packs of the record and compress anew. Here are the bytes as they were written,
so that a push costs little more than they do. Nobody relies on it: what isn't here, or not as it was, git packs. Two files
take turns; when one is full, what the other holds goes. A group is:

    magic        `fhirgrp1`
    length       of its ids and entries together, 4 bytes
    crc          of all that follows, CRC-32, 4 bytes
    count        of its objects, 4 bytes
    old, new     the commit on which it builds, and its last one, 20 bytes each
    ids          of its objects, 20 bytes each
    entries      https://git-scm.com/docs/gitformat-pack
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

from msgspec import Struct

from gitstore.git import layout
from gitstore.git.pack import Pack, pack_head

_MAGIC = b"fhirgrp1"
_HEAD = struct.Struct(">8sLLL20s20s")
_ID = 20
_AFTER_CRC = 16
FILES = tuple(os.path.join(layout.LOCAL, name) for name in ("outbox.0", "outbox.1"))
"""In the git directory."""

_FULL = 2 * 1024**2
"""Bytes from which on a file takes no more. git is as quick with what doesn't fit into two of them."""

_LARGEST = _FULL // 4
"""Bytes of a pack: to copy more would keep the writer from its next group."""


class _Group(Struct, frozen=True):
    """Where one stands in what was read of a file."""

    data: bytes
    start: int
    end: int
    count: int
    old: bytes

    @property
    def ids(self) -> set[bytes]:
        start = self.start + _HEAD.size
        return {self.data[at : at + _ID] for at in range(start, start + self.count * _ID, _ID)}

    @property
    def entries(self) -> memoryview:
        return memoryview(self.data)[self.start + _HEAD.size + self.count * _ID : self.end]

    def is_whole(self) -> bool:
        crc: int = _HEAD.unpack_from(self.data, self.start)[2]
        return zlib.crc32(memoryview(self.data)[self.start + _AFTER_CRC : self.end]) == crc


class Outbox:
    """Of one node. Who puts something in holds the writer's lock; anybody may look, at any time."""

    def __init__(self, git_dir: str) -> None:
        self._paths = [os.path.join(git_dir, name) for name in FILES]

    def put(self, old: str, new: str, pack: Pack) -> None:
        """A group has been written: main moved from `old` to `new`, and the pack has all that is new."""
        if pack.size > _LARGEST:
            return
        ids, pieces = pack.entries()
        body = b"".join([*ids, *pieces])
        ends = struct.pack(">L20s20s", len(ids), bytes.fromhex(old), bytes.fromhex(new))
        crc = zlib.crc32(body, zlib.crc32(ends))
        with suppress(OSError):  # the disk is full, perhaps: the record has it, and git can pack it
            descriptor = os.open(self._next(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.writev(descriptor, [struct.pack(">8sLL", _MAGIC, len(body), crc), ends, body])
            finally:
                os.close(descriptor)

    def _next(self) -> str:
        """The file to write to, which has been emptied where both are full."""
        dated = []
        for path in self._paths:
            try:
                status = os.stat(path)
            except FileNotFoundError:
                return path
            if status.st_size < _FULL:
                return path
            dated.append((status.st_mtime_ns, path))
        path = min(dated)[1]
        os.truncate(path, 0)
        return path

    def pack(self, old: str, new: str) -> bytes | None:
        """The pack that a push from one commit to another takes; None where not all of it is here, or an object twice."""
        first, wanted = bytes.fromhex(old), bytes.fromhex(new)
        found: dict[bytes, _Group] = {}
        chain: list[_Group] = []
        for path in self._newest_first():
            found |= _groups(path)
            while wanted != first and (group := found.pop(wanted, None)) is not None:
                chain.append(group)
                wanted = group.old
            if wanted == first:
                return _joined(chain[::-1])
        return None

    def _newest_first(self) -> list[str]:
        dated = []
        for path in self._paths:
            with suppress(FileNotFoundError):
                dated.append((os.stat(path).st_mtime_ns, path))
        return [path for _, path in sorted(dated, reverse=True)]


def _groups(path: str) -> Iterator[tuple[bytes, _Group]]:
    """Those of a file, by their last commits. What a full disk or a power cut has made of others is passed over."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return
    at = data.find(_MAGIC)
    while 0 <= at <= len(data) - _HEAD.size:
        _, length, _, count, old, new = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        is_followed = end == len(data) or data.startswith(_MAGIC, end)
        if is_followed and count * _ID <= length:
            yield new, _Group(data, at, end, count, old)
            at = data.find(_MAGIC, end)
        else:
            at = data.find(_MAGIC, at + 1)


def _joined(groups: list[_Group]) -> bytes | None:
    count = sum(group.count for group in groups)
    # A hub that checks what it gets refuses a pack which has an object twice.
    if not groups or len(set().union(*(group.ids for group in groups))) != count:
        return None
    if not all(group.is_whole() for group in groups):
        return None
    joined = b"".join([pack_head(count), *(group.entries for group in groups)])
    return joined + hashlib.sha1(joined, usedforsecurity=False).digest()
