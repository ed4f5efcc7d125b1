"""One pack for a group of commits, made in memory. https://git-scm.com/docs/gitformat-pack

A pack of our own takes one fsync where loose objects take one each, and successive states of a tree or file within
the group are deltas of one another: 3 to 5 times fewer bytes at 8 commits a group.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
_OFS_DELTA = 6
_NAMES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
_LEVEL = 1
_SMALL = 100
_ADLER = struct.Struct(">L").pack
_COPY_COMMAND = struct.Struct("<BLH").pack
_MAX_DEPTH = 48
KEEP_TEXT = b"git-fhir writes this pack\n"
"""What a `.keep` of ours says: the pack is none of maintenance's business yet."""
_HEADER = 12
_COPY = 0x10000
_INSERT = 127


def object_id(kind: int, data: bytes) -> bytes:
    """The 20 bytes of SHA-1 that git calls this object by."""
    header = b"%b %d\x00" % (_NAMES[kind], len(data))
    return hashlib.sha1(header + data, usedforsecurity=False).digest()


class _Entry(NamedTuple):
    id: bytes
    offset: int
    depth: int
    chunk: bytes
    header: int
    """Bytes of the chunk before its zlib stream."""
    data: bytes | None
    """The object itself, where it may be the base of deltas while the pack is built."""


class Pack:
    """Objects on their way to disk. Objects that are in other packs are added all the same: those may vanish."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._by_id: dict[bytes, _Entry] = {}
        self.size = _HEADER
        """Bytes so far."""

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self,
        kind: int,
        data: bytes,
        base: bytes | None = None,
        region: tuple[int, int] | None = None,
        *,
        keep: bool = True,
    ) -> bytes:
        """Add an object, as a delta of `base` (an object id) where that is in this pack. Returns its id.

        `region` says, where it is known, that the two are of one length and differ between these places only. What
        is not to be kept takes less memory, and is nobody's base.
        """
        id = object_id(kind, data)
        if id in self._by_id:
            return id
        depth = 0
        header = _entry_header(kind, len(data))
        body = data
        parent = self._by_id.get(base) if base is not None else None
        if parent is not None and parent.data is not None and parent.depth < _MAX_DEPTH:
            keep = True  # what is a delta could not be unpacked by itself
            difference = delta(parent.data, data, region)
            if len(difference) < len(data) // 2:
                body = difference
                header = _entry_header(_OFS_DELTA, len(body)) + _distance(self.size - parent.offset)
                depth = parent.depth + 1
        chunk = header + _compress(body)
        entry = _Entry(id, self.size, depth, chunk, len(header), data if keep else None)
        self._entries.append(entry)
        self._by_id[id] = entry
        self.size += len(chunk)
        return id

    def data(self, id: bytes) -> bytes | None:
        """The object itself, None where it isn't one of these."""
        entry = self._by_id.get(id)
        if entry is None or entry.data is not None:
            return None if entry is None else entry.data
        return zlib.decompress(memoryview(entry.chunk)[entry.header :])

    def truncate(self, length: int) -> None:
        """Forget all objects but the first `length`: a unit of work failed."""
        for entry in self._entries[length:]:
            del self._by_id[entry.id]
            self.size = min(self.size, entry.offset)
        del self._entries[length:]

    def files(self) -> tuple[str, Sequence[bytes], bytes]:
        """The name (40 hex digits), the pieces of the `.pack` and the bytes of its `.idx` (version 2)."""
        head = b"PACK" + struct.pack(">LL", 2, len(self._entries))
        digest = hashlib.sha1(head, usedforsecurity=False)
        for entry in self._entries:
            digest.update(entry.chunk)
        checksum = digest.digest()
        entries = sorted(self._entries, key=lambda entry: entry.id)
        counts = [0] * 256
        for entry in entries:
            counts[entry.id[0]] += 1
        large = [entry.offset for entry in entries if entry.offset >= 2**31]
        places = iter(range(len(large)))
        index = b"".join(
            [
                b"\xfftOc\x00\x00\x00\x02",
                struct.pack(">256L", *accumulate(counts)),
                *(entry.id for entry in entries),
                struct.pack(f">{len(entries)}L", *(zlib.crc32(entry.chunk) for entry in entries)),
                struct.pack(
                    f">{len(entries)}L",
                    *(e.offset if e.offset < 2**31 else 2**31 | next(places) for e in entries),
                ),
                struct.pack(f">{len(large)}Q", *large),
                checksum,
            ]
        )
        pieces = [head, *(entry.chunk for entry in self._entries), checksum]
        return checksum.hex(), pieces, index + hashlib.sha1(index, usedforsecurity=False).digest()


def _compress(data: bytes) -> bytes:
    """A zlib stream. Setting up zlib takes 10 us, so what it could hardly shrink is stored as it is, which takes 1."""
    if len(data) > _SMALL:
        return zlib.compress(data, _LEVEL)
    return (
        b"\x78\x01\x01"
        + struct.pack("<HH", len(data), len(data) ^ 0xFFFF)
        + data
        + _ADLER(zlib.adler32(data))
    )


def delta(base: bytes, target: bytes, region: tuple[int, int] | None = None) -> bytes:
    """Git's delta of target against base: their common start and end are copied, what lies between is inserted."""
    if region is None:
        start = _common(base, target)
        limit = min(len(base), len(target)) - start
        end = _common(base[len(base) - limit :][::-1], target[len(target) - limit :][::-1]) if limit else 0
    else:
        start, end = region[0], len(target) - region[1]
    middle = target[start : len(target) - end]
    inserted = b"".join(
        bytes((len(piece),)) + piece
        for piece in (middle[at : at + _INSERT] for at in range(0, len(middle), _INSERT))
    )
    sizes = _varint(len(base)) + _varint(len(target))
    return sizes + _copies(0, start) + inserted + _copies(len(base) - end, end)


def _common(first: bytes, second: bytes) -> int:
    """How many bytes the two have in common at their start, by halving: each step is one memcmp."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _copies(offset: int, size: int) -> bytes:
    """Copy commands. Every byte of offset and size is written, also a zero: a few bytes more, and much less to do."""
    copies = b""
    while size > 0:
        length = min(size, _COPY)
        copies += _COPY_COMMAND(0xBF, offset, length % _COPY)  # a size of 0x10000 is written as 0
        offset, size = offset + length, size - length
    return copies


def _varint(number: int) -> bytes:
    if number <= 0x7F:
        return bytes((number,))
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _entry_header(kind: int, size: int) -> bytes:
    first = kind << 4 | size & 0xF
    size >>= 4
    return bytes([first | 0x80]) + _varint(size) if size else bytes([first])


def _distance(number: int) -> bytes:
    digits = [number & 0x7F]
    while number := number >> 7:
        number -= 1
        digits.append(0x80 | number & 0x7F)
    return bytes(reversed(digits))
