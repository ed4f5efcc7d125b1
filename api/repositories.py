"""The repositories below one folder: which of them are open, for whom, and until when.

Each is opened when it is first asked for, and is closed when it has been idle or another needs its room; never while
somebody has a lease of it. docs/many-repositories.md
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Condition

from msgspec import Struct

from api.log import SERVER
from api.metrics import ManyMetrics
from api.opening import Application
from gitstore import NotFound, RepositoryRefused, Settings, StoreError, Unavailable, read_settings

MOST = 32
"""Repositories that one worker has open at once, by default."""

IDLE = 300.0
"""Seconds without a request after which one is closed."""

PATIENCE = 10.0
"""Seconds that a request waits for its repository to be open."""

RETRY = 1.0
"""Seconds for which one that couldn't be opened isn't tried again."""

RESERVED = frozenset({"health", "ready", "metrics"})
"""No names of repositories: the server itself is asked there."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SUFFIX = ".git"

Identity = tuple[int, int]
"""Device and inode of a git directory: another one under the same name is another repository."""


class Found(Struct, frozen=True):
    """A git directory, as it lies below the folder now."""

    path: str
    identity: Identity


def find(folder: str, name: str) -> Found | None:
    """The bare repository of this name: `NAME.git`, or `NAME`, directly in the folder. None where there is none.

    Either may be a symbolic link to wherever the owner of the folder wants it; below the two nothing is looked up.
    """
    if not _NAME.fullmatch(name) or name.lower().endswith(_SUFFIX) or name in RESERVED:
        return None
    for entry in (name + _SUFFIX, name):
        path = os.path.join(folder, entry)
        try:
            found = os.stat(path)
            is_bare = stat.S_ISREG(os.stat(os.path.join(path, "HEAD")).st_mode) and stat.S_ISDIR(
                os.stat(os.path.join(path, "objects")).st_mode
            )
        except OSError:  # it isn't there, or is a file, or a link to nowhere, or not for us
            continue
        if is_bare:
            return Found(path, (found.st_dev, found.st_ino))
    return None


def listed(folder: str) -> Iterator[Found]:
    """Every repository of the folder, for a look at each. Raises OSError where the folder can't be read."""
    names = sorted({entry.removesuffix(_SUFFIX) for entry in os.listdir(folder)})
    return (found for name in names if (found := find(folder, name)) is not None)


def largest_body(folder: str) -> int:
    """The bytes of the largest body that any repository of the folder takes now, or one with the defaults would.

    Raises OSError where the folder can't be read.
    """
    most = _body(Settings())
    for found in listed(folder):
        with suppress(StoreError):  # which is told to whoever asks for that repository
            most = max(most, _body(read_settings(found.path)))
    return most


def _body(settings: Settings) -> int:
    return max(settings.max_body, settings.max_bundle)


@dataclass
class _Place:
    """A repository that is open, or is being opened: then `application` is None.

    `leases` counts who uses it. One that is `gone` is no longer found, and is closed with its last lease.
    """

    name: str
    found: Found
    application: Application | None = None
    closing: ExitStack = field(default_factory=ExitStack)
    leases: int = 1
    used: float = 0.0
    gone: bool = False


class _Failure(Struct, frozen=True):
    """Why a repository could not be opened: it is none of ours, or there is something wrong with it."""

    identity: Identity
    until: float
    is_ours: bool


class Lease:
    """The right to use a repository's application, until it is released."""

    def __init__(self, application: Application, release: Callable[[], None]) -> None:
        self.application = application
        self._release = release
        self._released = False

    def release(self) -> None:
        """Needs to be called; once more does nothing."""
        if not self._released:
            self._released = True
            self._release()


class Repositories:
    """Those of one process. Any thread may call; what is slow, opening and closing, keeps nobody else waiting."""

    def __init__(
        self,
        folder: str,
        open_one: Callable[[str], AbstractContextManager[Application]],
        metrics: ManyMetrics,
        *,
        most: int = MOST,
        idle: float = IDLE,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_one` opens the repository at a path. At most `most` are open at once; `clock` gives seconds."""
        self.folder = folder
        self._open_one = open_one
        self._metrics = metrics
        self._most = most
        self._idle = idle
        self._patience = patience
        self._clock = clock
        self._changed = Condition()
        self._places: OrderedDict[str, _Place] = OrderedDict()  # the one that was used last is the last
        self._failures: dict[str, _Failure] = {}
        self._held = 0  # places, and those that are gone but not closed yet

    @property
    def held(self) -> int:
        """How many repositories take up room: open, being opened, being closed."""
        return self._held

    def lease(self, name: str) -> Lease:
        """The repository of this name, opened if need be; the caller releases it.

        Raises NotFound where there is none, Unavailable where it can't be opened, or all that may be open are in use.
        """
        found = find(self.folder, name)
        deadline = time.monotonic() + self._patience
        with self._changed:
            if found is None:
                self._remove(name)
                raise _unknown()
            while True:
                place = self._places.get(name)
                if place is None:
                    self._check_failure(name, found)
                    if self._has_room(deadline):
                        return self._open(name, found)
                elif place.found != found:
                    self._remove(name)
                elif place.application is None:
                    self._wait(deadline)
                else:
                    place.leases += 1
                    return self._lease(place, place.application)

    def close_idle(self) -> None:
        """Close what nobody has asked for in a while, and what has been taken away."""
        with self._changed:
            places = list(self._places.values())
        for place in places:
            is_there = find(self.folder, place.name) == place.found
            with self._changed:
                is_idle = not place.leases and self._clock() - place.used >= self._idle
                if self._places.get(place.name) is place and (is_idle or not is_there):
                    self._remove(place.name)

    def close(self) -> None:
        """Close all; only when no more requests come. Who still has a lease has had its time."""
        with self._changed:
            while self._places:
                _, place = self._places.popitem()
                place.gone = True
                self._close(place)

    # Under the lock

    def _lease(self, place: _Place, application: Application) -> Lease:
        return Lease(application, lambda: self._release(place))

    def _release(self, place: _Place) -> None:
        with self._changed:
            place.leases -= 1
            place.used = self._clock()
            if not place.gone:
                self._places.move_to_end(place.name)
            if not place.leases:
                if place.gone:
                    self._close(place)
                self._changed.notify_all()

    def _has_room(self, deadline: float) -> bool:
        """Whether one more may be opened at once; else something has been done about it, and all may be different."""
        if self._held < self._most:
            return True
        unused = next((name for name, place in self._places.items() if not place.leases), None)
        if unused is None:
            self._wait(deadline)
        else:
            self._remove(unused)
        return False

    def _wait(self, deadline: float) -> None:
        if not self._changed.wait(deadline - time.monotonic()):
            raise Unavailable("The server has no room for this repository at the moment; try again.")

    def _open(self, name: str, found: Found) -> Lease:
        place = _Place(name, found)
        self._places[name] = place
        self._held += 1
        begun = time.perf_counter()
        try:
            with self._unlocked():
                application = place.closing.enter_context(self._open_one(found.path))
        except BaseException as error:
            self._held -= 1
            if self._places.get(name) is place:
                del self._places[name]
            if isinstance(error, Exception):
                # What a damaged repository makes fail can't be foreseen, and must do no harm to the others.
                self._failed(name, found, error)
                self._check_failure(name, found)
            raise
        finally:
            self._changed.notify_all()
        place.application = application
        self._metrics.repository_opened(time.perf_counter() - begun)
        return self._lease(place, application)

    def _failed(self, name: str, found: Found, error: Exception) -> None:
        now = self._clock()
        is_ours = not isinstance(error, RepositoryRefused) or os.path.isdir(
            os.path.join(found.path, "git-fhir")
        )
        self._failures = {each: known for each, known in self._failures.items() if known.until > now}
        self._failures[name] = _Failure(found.identity, now + RETRY, is_ours)
        if is_ours:
            self._metrics.repository_failed()
            known = isinstance(error, StoreError)
            SERVER.error(
                "the repository %s can't be opened: %s",
                found.path,
                error if known else type(error).__name__,
                exc_info=None if known else error,
            )

    def _check_failure(self, name: str, found: Found) -> None:
        """Raises what there is to tell about a repository that could not be opened a moment ago."""
        failure = self._failures.get(name)
        if failure is None or failure.identity != found.identity or failure.until <= self._clock():
            return
        if not failure.is_ours:
            raise _unknown()
        raise Unavailable("This repository can't be opened. The server's log says why.")

    def _remove(self, name: str) -> None:
        """Find it no longer, and close it, unless somebody uses it: then that happens at the end of the last lease."""
        place = self._places.pop(name, None)
        if place is not None:
            place.gone = True
            if not place.leases:
                self._close(place)

    def _close(self, place: _Place) -> None:
        try:
            with self._unlocked():
                place.closing.close()
        except (StoreError, OSError) as error:  # such as that of a folder that is gone
            SERVER.error("the repository %s could not be closed well: %s", place.found.path, error)
        finally:
            self._held -= 1
            self._metrics.repository_closed()
            self._changed.notify_all()

    @contextmanager
    def _unlocked(self) -> Iterator[None]:
        self._changed.release()
        try:
            yield
        finally:
            self._changed.acquire()


def _unknown() -> NotFound:
    """The same for all that is no repository, whatever else it may be."""
    return NotFound("There is nothing here.")
