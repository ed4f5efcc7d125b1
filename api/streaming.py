"""An answer that is sent while it is made, and what has to happen at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack


class Stream:
    """The pieces of a body. Whoever sends it closes it, also where the client has gone before the end.

    `size` is the number of bytes so far.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.size = 0
        self._pieces = pieces
        self._ends = ExitStack()

    def at_end(self, call: Callable[[], object]) -> None:
        """Call this, too, when nothing more will be sent; what came last is called first, and all are, once."""
        self._ends.callback(call)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Raises what the pieces raise; an OSError makes the server close the connection, so that nobody takes this for all."""
        piece = next(self._pieces)
        self.size += len(piece)
        return piece

    def close(self) -> None:
        self._ends.close()
