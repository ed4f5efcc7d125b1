"""Replicas are told when there is something new, so that they needn't look all the time: `POST /wake`. docs/scaling.md says more."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import ClassVar, Self

import falcon

from api import log
from api.base import Base
from api.door import Door
from api.request import Request
from gitstore import NotFound, Store, TooLarge

PATH = "/wake"

TIMEOUT = 2.0
"""Seconds for each step of a call. A replica that is told too late has looked by itself before."""

MAX_BODY = 1024
"""Bytes that may come along; nobody reads them."""


class WakeDoor(Door):
    """Where a primary says that the hub has something new. Who says so doesn't matter: the replica looks for itself."""

    methods: ClassVar = ("POST",)
    name: ClassVar = "wake"

    def __init__(self, store: Store) -> None:
        self._store = store

    def on_post(self, req: Request, resp: falcon.Response) -> None:
        if self._store.cluster is None:
            raise NotFound("This record has no other nodes.")
        if (req.content_length or 0) > MAX_BODY:
            raise TooLarge("Nothing has to be said here.")
        self._store.cluster.wake()
        resp.status = 204


class Waker:
    """Calls replicas, each in a thread of its own, so that one that is down doesn't keep the others waiting.

    What is called for while a call is under way is one more call after it. `missed` counts the calls that failed.
    """

    def __init__(self, urls: Sequence[str], timeout: float = TIMEOUT) -> None:
        """Raises Invalid for what is no URL of a server."""
        self._bells = [_Bell(Base.parse("fhir.replica", url), timeout) for url in urls]

    def __call__(self) -> None:
        """Never waits."""
        for bell in self._bells:
            bell.ring()

    @property
    def missed(self) -> int:
        return sum(bell.missed for bell in self._bells)

    def close(self) -> None:
        """Make the calls that are due, and end."""
        for bell in self._bells:
            bell.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Bell:
    """One replica, and the thread that calls it: from the first ring on, as threads don't survive a fork."""

    def __init__(self, base: Base, timeout: float) -> None:
        self.missed = 0
        self._base = base
        self._timeout = timeout
        self._changed = threading.Condition()
        self._due = False
        self._ending = False
        self._thread: threading.Thread | None = None

    def ring(self) -> None:
        with self._changed:
            self._due = True
            if self._thread is None and not self._ending:
                self._thread = threading.Thread(target=self._run, name="git-fhir wake", daemon=True)
                self._thread.start()
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(2 * self._timeout)

    def _run(self) -> None:
        connection = self._base.connection(self._timeout)
        while self._wait():
            is_kept = connection.sock is not None
            try:
                try:
                    self._call(connection)
                except (OSError, HTTPException):
                    # One that was kept may have been closed at the other end, which shows only now.
                    if not is_kept:
                        raise
                    self._call(connection)
            except (OSError, HTTPException) as error:
                self.missed += 1
                log.SERVER.debug("%s was not woken: %s", self._base, error)
        connection.close()

    def _call(self, connection: HTTPConnection) -> None:
        try:
            connection.request("POST", self._base.path + PATH)
            answer = connection.getresponse()
            answer.read()
        except (OSError, HTTPException):
            connection.close()
            raise
        if answer.status >= 400:
            raise HTTPException(f"it answers {answer.status}")

    def _wait(self) -> bool:
        """Until a call is due; False when there will be none any more."""
        with self._changed:
            while not self._due and not self._ending:
                self._changed.wait()
            due, self._due = self._due, False
            return due
