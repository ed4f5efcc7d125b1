"""What a node knows of itself and of the hub, in files that all its processes share: role, suspension, what the hub has.

    role        primary or replica, since when and why; nothing there means primary. Changed only under the writer's lock
    suspended   why there are no writes for now; absent most of the time
    hub         up to which commit the hub is known to have the record, and when it was last looked at
    primary     where the primary is, as far as a lease tells

A byte in a FIFO beside the git directory brings forward the next look at the hub, in whichever process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, cast

from msgspec import Struct

from gitstore.durable import replace_file, storage_error, sync_folder
from gitstore.errors import Invalid, RepositoryDamaged
from gitstore.fhir import json
from gitstore.fhir.dates import format_instant, parse_instant
from gitstore.git import layout
from gitstore.git.hub import runtime_folder
from gitstore.git.writer import boot_id

Role = Literal["primary", "replica"]

_RECORD = 192
"""Bytes of `hub`, overwritten in place."""


class Standing(Struct, frozen=True):
    """A node's role, since when (microseconds since 1970, 0 for one that it always had), and why."""

    role: Role
    since: int = 0
    why: str = ""


class Seen(Struct, frozen=True):
    """What the hub is known to have: a commit by sequence and id; `at` in microseconds since 1970.

    `begun` is when the last look at the hub that succeeded was begun, in nanoseconds of this machine's monotonic clock;
    `since` is that of the role in which it was done.
    """

    sequence: int
    id: str
    at: int
    begun: int
    since: int


class State:
    """The files of one node. Any thread may call; open one in each process, after any fork."""

    def __init__(self, git_dir: str, url: str, *, durable: bool) -> None:
        """What is noted of the hub is of the one with this URL. Raises StorageFailed."""
        self._of = hashlib.sha256(url.encode()).hexdigest()[:16]
        self._folder = os.path.join(git_dir, layout.LOCAL)
        self._durable = durable
        self._mutex = threading.Lock()
        try:
            os.makedirs(self._folder, exist_ok=True)
            self._lock = self._open("hub.lock")
            self._hub = self._open("hub")
            wake = os.path.join(runtime_folder(git_dir), "wake")
            with suppress(FileExistsError):
                os.mkfifo(wake, 0o600)
            # Open for both, so that there is always a reader, and a byte waits for who comes to read it.
            self.wake = os.open(wake, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error(error, "this node can't note where it stands") from error

    def close(self) -> None:
        for descriptor in (self._lock, self._hub, self.wake):
            os.close(descriptor)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _open(self, name: str) -> int:
        return os.open(self._path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Be the only one of this node who talks to the hub. Always taken before the writer's lock, never after it."""
        with self._mutex:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    # Role

    def standing(self) -> Standing:
        """Raises RepositoryDamaged for a file that nobody of us wrote: better no writes than two who write."""
        try:
            with open(self._path("role"), encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            return Standing("primary")
        try:
            found = cast(dict[str, Any], json.loads(text.encode()))
            role, since = found["role"], parse_instant(found["since"])
        except (ValueError, KeyError, TypeError, Invalid) as error:
            raise RepositoryDamaged(f"{self._path('role')} can't be read.") from error
        if role not in ("primary", "replica"):
            raise RepositoryDamaged(f"{self._path('role')} says `{role}`.")
        return Standing(role, since, found.get("why", ""))

    def has_role(self) -> bool:
        """Whether this node has ever been given a role."""
        return os.path.exists(self._path("role"))

    def become(self, role: Role, why: str, instant: int) -> None:
        """Take a role; under the writer's lock. Raises StorageFailed."""
        facts = {"role": role, "since": format_instant(instant), "why": why}
        self._put("role", json.dumps(facts) + b"\n")

    def suspension(self) -> str | None:
        """Why there are no writes for now; None where there may be."""
        return self._text("suspended")

    def suspend(self, why: str) -> None:
        self._put("suspended", f"{why}\n".encode())

    def resume(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path("suspended"))

    def holds_lease(self) -> bool:
        """Whether the keeper of the lease, which may be stuck, has noted that it is held until a time that is still to come.

        In the file are the lease, the time in nanoseconds since the machine's start, a file's number, and that start's id.
        """
        fields = (self._text("lease") or "").split()
        if len(fields) != 4 or not fields[1].isdecimal() or fields[3] != boot_id().decode():
            return False
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) < int(fields[1])

    def primary(self) -> str | None:
        """The URL of the node that holds the lease."""
        return self._text("primary") or None

    def _text(self, name: str) -> str | None:
        try:
            with open(self._path(name), encoding="utf-8") as file:
                return file.read().strip()
        except FileNotFoundError:
            return None

    def _put(self, name: str, data: bytes) -> None:
        """Replace a file as a whole, on the disk when this returns."""
        try:
            replace_file(self._path(name), data, 0o644, durable=self._durable)
            if self._durable:
                sync_folder(self._folder)
        except OSError as error:
            raise storage_error(error, "this node can't note where it stands") from error

    # What the hub has

    def seen(self) -> Seen | None:
        """None where nothing is known, as after a power cut: then the hub will tell."""
        fields = os.pread(self._hub, _RECORD, 0).split()
        if len(fields) != 6 or fields[0] != self._of.encode():
            return None
        _, sequence, id, at, begun, since = fields
        return Seen(int(sequence), id.decode(), int(at), int(begun), int(since))

    def note(self, sequence: int, id: str, at: int, begun: int) -> None:
        """The hub has this commit; by who is talking to it."""
        text = f"{self._of} {sequence} {id} {at} {begun} {self.standing().since}\n".encode()
        os.pwrite(self._hub, text.ljust(_RECORD), 0)

    # Waking

    def call(self) -> None:
        """Wake whoever waits for news of the hub, in whichever process."""
        with suppress(BlockingIOError):  # so many calls wait there already that one more says nothing new
            os.write(self.wake, b"!")

    def heard(self) -> bool:
        """Whether somebody has called since the last time that anybody asked."""
        with suppress(BlockingIOError):
            return bool(os.read(self.wake, 65536))
        return False


def ticks() -> int:
    """Nanoseconds of a clock that all processes of this machine share and nobody sets."""
    return time.monotonic_ns()
