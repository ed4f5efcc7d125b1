"""How many connections each worker has, so that one which has more than another lets that one take the next.

All workers wait at one socket, and whoever is awake already takes what comes: eight clients can all end up with one of two
workers, and the other's core has nothing to do. The kernel's own way, a socket for each worker (SO_REUSEPORT), deals connections out by
chance, and loses those that wait at a worker which dies.
"""

from __future__ import annotations

import mmap
import struct

_SLOTS = 1024
_COUNT = struct.Struct("=i")
_NONE = 0
"""A slot of no worker that takes connections. A worker's count is one more than its connections."""


class Balance:
    """Made before the workers are started, and shared by them. A worker's number is its slot."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _SLOTS * _COUNT.size)

    def note(self, number: int, connections: int) -> None:
        self._put(number, connections + 1)

    def leave(self, number: int) -> None:
        """The worker takes no connections any more."""
        self._put(number, _NONE)

    def _put(self, number: int, count: int) -> None:
        if number < _SLOTS:
            _COUNT.pack_into(self._map, number * _COUNT.size, count)

    def has_fewest(self, number: int, connections: int) -> bool:
        """Whether no other worker has fewer connections."""
        counts = (count for (count,) in _COUNT.iter_unpack(self._map[: (number + 64) * _COUNT.size]))
        return all(count == _NONE or count > connections for count in counts)
