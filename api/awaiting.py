"""The header Min-Git-Commit: a request that waits until this node knows a commit. docs/scaling.md says more.

Who has written at one node, and reads at another that follows it, so reads what he wrote.
"""

from __future__ import annotations

import re
from threading import BoundedSemaphore

import falcon

from api.errors import RETRY_AFTER
from api.request import Request
from gitstore import Invalid, Issue, Store

HEADER = "Min-Git-Commit"

LONGEST = 5.0
"""Seconds that a request waits. Replicas look at the hub about every second; one that is further behind should not be asked."""

_COMMIT = re.compile("[0-9a-f]{40}", re.ASCII)


class Awaiting:
    """Keeps a request until the index has the commit that it names."""

    def __init__(self, store: Store, seconds: float, places: BoundedSemaphore) -> None:
        """Each request that waits takes one of `places`: the threads of the others are for who needn't wait."""
        self._store = store
        self._seconds = seconds
        self._places = places

    def wait(self, req: Request) -> None:
        """Raises Invalid for what is no commit's id, falcon.HTTPServiceUnavailable where it doesn't come in time."""
        id = req.get_header(HEADER)
        if id is None:
            return
        if _COMMIT.fullmatch(id) is None:
            text = f"{HEADER} is the id of a commit: 40 digits of 0-9 and a-f, as Git-Commit has it."
            raise Invalid(Issue("error", "value", text))
        if self._store.wait_for(id, 0):
            return
        if not self._places.acquire(blocking=False):
            raise _later("As many requests as may be wait for commits already.")
        try:
            if self._store.cluster is not None:
                self._store.cluster.wake()
            found = self._store.wait_for(id, self._seconds)
        finally:
            self._places.release()
        if not found:
            raise _later(f"This node has no commit {id} yet.")


def _later(text: str) -> falcon.HTTPServiceUnavailable:
    return falcon.HTTPServiceUnavailable(description=text, retry_after=RETRY_AFTER)
