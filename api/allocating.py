"""How glibc's malloc keeps what has been freed. On another C library nothing happens here.

By itself it learns from the first large body that is freed to keep all up to 32 MiB for later, and gives each of many threads an arena with
leftovers of its own: a worker that has read one large Bundle keeps its memory for good. https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_SETTINGS = {_MMAP_THRESHOLD: 128 * 1024, _TRIM_THRESHOLD: 512 * 1024, _ARENA_MAX: 2}


def give_back() -> None:
    """Have this process return to the system what is large and free."""
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _SETTINGS.items():
            mallopt(parameter, value)
