"""Very many pieces of data that are much alike, kept compressed until they are wanted."""

from __future__ import annotations

import zlib
from bisect import bisect_right

import msgspec

_SIZE = 128 * 1024
"""Bytes that are compressed together."""


class Drawers:
    """Gives each piece back by its place, quickly to those who ask in the order in which the pieces were put."""

    def __init__(self) -> None:
        self._closed: list[bytes] = []
        self._firsts: list[int] = []
        self._open: list[bytes] = []
        self._size = 0
        self._count = 0
        self._looked: tuple[int, list[bytes]] = (-1, [])

    def put(self, piece: bytes) -> int:
        """Keep it; returns its place, from 0."""
        if self._size + len(piece) > _SIZE:
            self.close()
        self._open.append(piece)
        self._size += len(piece)
        self._count += 1
        return self._count - 1

    def close(self) -> None:
        """Compress what lies in the open drawer; what is put from now on lies in another one."""
        if self._open:
            self._firsts.append(self._count - len(self._open))
            self._closed.append(zlib.compress(_ENCODER.encode(self._open), 1))
            self._open, self._size = [], 0

    def get(self, place: int) -> bytes:
        """The piece that was put at this place."""
        first_open = self._count - len(self._open)
        if place >= first_open:
            return self._open[place - first_open]
        number = bisect_right(self._firsts, place) - 1
        looked = self._looked
        if looked[0] != number:
            looked = self._looked = (number, _DECODER.decode(zlib.decompress(self._closed[number])))
        return looked[1][place - self._firsts[number]]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[bytes])
