"""One pack for a group of commits, before it is in its place. https://git-scm.com/docs/gitformat-pack

A pack of our own takes one fsync where loose objects take one each, and successive states of a tree or file within
the group are deltas of one another: 3 to 5 times fewer bytes at 8 commits a group.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from array import array
from collections.abc import Iterator
from itertools import accumulate, chain, islice

from isal import isal_zlib

from gitstore.git.scratch import Scratch

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
_OFS_DELTA = 6
_NAMES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
_SMALL = 100
_LONGEST_STORED = 0xFFFF
"""Bytes of a stored block. https://www.rfc-editor.org/rfc/rfc1951#section-3.2.4"""

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


class Pack:
    """Objects on their way to disk. Objects that are in other packs are added all the same: those may vanish.

    One thread adds; others may read meanwhile.
    """

    def __init__(self, scratch: Scratch | None = None) -> None:
        """`scratch` is for the compressed objects; without one they are in memory."""
        self._scratch = scratch or Scratch()
        self._lock = threading.Lock()
        self._numbers: dict[bytes, int] = {}
        self._offsets = array("Q")
        self._checksums = array("I")
        self._bases: dict[bytes, tuple[bytes, int]] = {}
        """Objects that may be the base of deltas while the pack is built, and how many deltas each is away from a whole one."""
        self.size = _HEADER
        """Bytes so far."""

    def __len__(self) -> int:
        return len(self._numbers)

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
        Raises what the scratch makes of an error of the disk; then the object is not there.
        """
        id = object_id(kind, data)
        if id in self._numbers:
            return id
        depth = 0
        header = _entry_header(kind, len(data))
        body = data
        parent = self._bases.get(base) if base is not None else None
        if base is not None and parent is not None and parent[1] < _MAX_DEPTH:
            keep = True  # what is a delta could not be unpacked by itself
            difference = delta(parent[0], data, region)
            if len(difference) < len(data) // 2:
                body = difference
                distance = self.size - self._offsets[self._numbers[base]]
                header = _entry_header(_OFS_DELTA, len(body)) + _distance(distance)
                depth = parent[1] + 1
        chunk = header + _compress(kind, body)
        with self._lock:
            self._scratch.append(chunk)
            self._numbers[id] = len(self._numbers)
            self._offsets.append(self.size)
            self._checksums.append(zlib.crc32(chunk))
            self.size += len(chunk)
            if keep:
                self._bases[id] = data, depth
        return id

    def data(self, id: bytes) -> bytes | None:
        """The object itself, None where it isn't one of these."""
        kept = self._bases.get(id)
        if kept is not None:
            return kept[0]
        with self._lock:
            number = self._numbers.get(id)
            if number is None:
                return None
            end = self._offsets[number + 1] if number + 1 < len(self._offsets) else self.size
            chunk = self._scratch.read(self._offsets[number] - _HEADER, end - _HEADER)
        start = next(at for at, byte in enumerate(chunk, 1) if byte < 0x80)
        return zlib.decompress(memoryview(chunk)[start:])

    def truncate(self, length: int) -> None:
        """Forget all objects but the first `length`: a unit of work failed."""
        with self._lock:
            for id in list(islice(self._numbers, length, None)):
                del self._numbers[id]
                self._bases.pop(id, None)
            if length < len(self._offsets):
                self.size = self._offsets[length]
            del self._offsets[length:], self._checksums[length:]
            self._scratch.truncate(self.size - _HEADER)

    def close(self) -> None:
        """Let go of all that it holds: whoever still reads finds nothing here."""
        with self._lock:
            self._numbers.clear()
            self._bases.clear()
            self._scratch.close()

    def entries(self) -> tuple[list[bytes], Iterator[bytes]]:
        """The ids of its objects, and the pieces of what stands in the `.pack` between its head and its checksum."""
        return list(self._numbers), self._scratch.pieces()

    def files(self) -> tuple[str, Iterator[bytes], bytes]:
        """The name (40 hex digits), the pieces of the `.pack` and the bytes of its `.idx` (version 2)."""
        head = pack_head(len(self._numbers))
        digest = hashlib.sha1(head, usedforsecurity=False)
        for piece in self._scratch.pieces():
            digest.update(piece)
        checksum = digest.digest()
        ids = sorted(self._numbers)
        counts = [0] * 256
        for id in ids:
            counts[id[0]] += 1
        numbers = [self._numbers[id] for id in ids]
        offsets = [self._offsets[number] for number in numbers]
        large = [offset for offset in offsets if offset >= 2**31]
        places = iter(range(len(large)))
        index = b"".join(
            [
                b"\xfftOc\x00\x00\x00\x02",
                struct.pack(">256L", *accumulate(counts)),
                *ids,
                struct.pack(f">{len(ids)}L", *(self._checksums[number] for number in numbers)),
                struct.pack(
                    f">{len(ids)}L",
                    *(offset if offset < 2**31 else 2**31 | next(places) for offset in offsets),
                ),
                struct.pack(f">{len(large)}Q", *large),
                checksum,
            ]
        )
        pieces = chain([head], self._scratch.pieces(), [checksum])
        return checksum.hex(), pieces, index + hashlib.sha1(index, usedforsecurity=False).digest()


def pack_head(count: int) -> bytes:
    """What a pack of so many objects begins with."""
    return b"PACK" + struct.pack(">LL", 2, count)


def _compress(kind: int, data: bytes) -> bytes:
    """A zlib stream. What can hardly be shrunk, trees of hashes and small deltas, is stored as it is, which takes 1 us.

    A resource of 1.5 KB takes ISA-L 10 us where zlib takes 94 for as many bytes; maintenance packs it again, and smaller.
    """
    if len(data) > _SMALL and (kind != TREE or len(data) > _LONGEST_STORED):
        return isal_zlib.compress(data, 1)
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
