"""How much one principal may have under way at once, so that it leaves room for the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import falcon
from msgspec import Struct

from api.errors import RETRY_AFTER

THREADS = 32
"""Of a worker, by default."""


class Places(Struct, frozen=True):
    """How many threads of a process may be in two slow things at once: so some are left for whoever has neither to do.

    `waiting` for a commit that is not here yet, `passing` on what another node has to do.
    """

    waiting: threading.BoundedSemaphore
    passing: threading.BoundedSemaphore

    @classmethod
    def of(cls, threads: int = THREADS) -> Self:
        """A quarter and a half of them."""
        return cls(*(threading.BoundedSemaphore(max(threads // part, 1)) for part in (4, 2)))


class InFlight:
    """The requests that are being worked on in this process, counted by principal. Any thread may call."""

    def __init__(self, limit: int) -> None:
        """At most `limit` for each principal; 0 for as many as they like."""
        self._limit = limit
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def enter(self, key: str) -> None:
        """Begin a request of the principal with this key; each must `leave`.

        Raises falcon.HTTPTooManyRequests with Retry-After where it has as many as it may; then it has not begun.
        https://www.rfc-editor.org/rfc/rfc6585#section-4
        """
        with self._lock:
            count = self._counts.get(key, 0)
            is_full = 0 < self._limit <= count
            if not is_full:
                self._counts[key] = count + 1
        if is_full:
            raise falcon.HTTPTooManyRequests(
                description=f"You have {count} requests under way; at most {self._limit} may be.",
                retry_after=RETRY_AFTER,
            )

    def leave(self, key: str) -> None:
        """End a request that has entered. Raises KeyError where none has."""
        with self._lock:
            left = self._counts[key] - 1
            if left:
                self._counts[key] = left
            else:
                del self._counts[key]

    @contextmanager
    def held(self, key: str) -> Iterator[None]:
        """`enter`, and `leave` however the block ends."""
        self.enter(key)
        try:
            yield
        finally:
            self.leave(key)

    def count(self) -> int:
        """How many requests are under way, of all principals."""
        with self._lock:
            return sum(self._counts.values())

    def principals(self) -> int:
        """How many principals have a request under way: what the memory of this grows with."""
        with self._lock:
            return len(self._counts)
