"""On which cores this process and its children run.

The threads of a Python process take turns, and each turn that goes to a thread on another core costs tens of microseconds: a server answers
two thirds more requests where each of its workers keeps to one core (docs/performance.md). git's children are no part of that.
"""

from __future__ import annotations

import os
from contextlib import suppress

_ALL = tuple(sorted(os.sched_getaffinity(0)))
"""Those that this process may use, as it was when it began."""


def keep_to_one(number: int) -> None:
    """Have this thread, and all that it starts, run on one core from now on; with another number mostly on another one."""
    with suppress(OSError):  # where the system doesn't let us, it is only slower
        os.sched_setaffinity(0, {_ALL[number % len(_ALL)]})


def release(pid: int) -> None:
    """Have a child process run wherever there is room."""
    with suppress(OSError):  # it may have ended
        os.sched_setaffinity(pid, _ALL)
