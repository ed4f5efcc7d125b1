"""What the server is measured beside, on the same waitress, with as many workers and threads: `python -m benchmarks.peers`.

    fixed            a WSGI handler that answers every request with the same bytes
    sqlite GITDIR    the server itself, but that the Store puts the bodies into SQLite, and nothing into git or the index

The second has all of the first two thirds of a write: HTTP, Falcon, the gate, validation, printing, extraction of what is
searched. Then there is one transaction for each group of writes, synchronous=FULL, a current and a history table.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import api.opening
import api.serving
from api.server import Master, Ready, bind, server
from benchmarks.processes import WORKERS
from gitstore import FULL_ACCESS, Access, NotFound, Outcome, Snapshot, Store
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.preparation import Prepared
from gitstore.queue import Pending, WriteQueue
from gitstore.version import SERVER, Commit, Version
from gitstore.writes import Write

THREADS = 32
SIZE = 1400
"""Bytes of the fixed answer: those of the resources that are read."""


def fixed(_environ: Any, start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
    start_response(
        "200 OK", [("Content-Type", "application/fhir+json"), ("Content-Length", str(len(_BYTES)))]
    )
    return [_BYTES]


_BYTES = b"x" * SIZE


def serve_fixed() -> int:
    def work(listener: socket.socket, _number: int, ready: Ready) -> None:
        web = server(fixed, listener, threads=THREADS, max_body=1024**2)
        ready(web)
        web.serve(os.getppid())

    listener = bind("127.0.0.1", 0)
    master = Master(listener, work, WORKERS, sys.stdout, sys.stderr)
    return master.run(f"fixed bytes on http://127.0.0.1:{listener.getsockname()[1]}/fhir")


class Bodies:
    """The two tables. One thread of each process writes; processes take turns by a flock, which is not polled for."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "peer.sqlite")
        self._lock = open(os.path.join(folder, "peer.lock"), "wb")  # noqa: SIM115 - as long as the process
        self._local = threading.local()
        self.connection.executescript(
            """PRAGMA journal_mode = WAL;
            CREATE TABLE IF NOT EXISTS current
            (type TEXT, id TEXT, version INTEGER, body BLOB, PRIMARY KEY (type, id)) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS history
            (type TEXT, id TEXT, version INTEGER, body BLOB, PRIMARY KEY (type, id, version));"""
        )

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's."""
        if not hasattr(self._local, "connection"):
            self._local.connection = sqlite3.connect(self._path, isolation_level=None, timeout=10)
            self._local.connection.execute("PRAGMA synchronous = FULL")
        found: sqlite3.Connection = self._local.connection
        return found

    def newest(self, resource_id: ResourceId) -> tuple[int, bytes | None] | None:
        found = self.connection.execute(
            "SELECT version, body FROM current WHERE type = ? AND id = ?", (resource_id.type, resource_id.id)
        ).fetchone()
        return found and (found[0], found[1])

    def lock(self) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.connection.execute("BEGIN IMMEDIATE")

    def unlock(self) -> None:
        self.connection.execute("COMMIT")
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def write(self, write: Write, instant: int) -> Version:
        place = (write.resource_id.type, write.resource_id.id)
        before = self.newest(write.resource_id)
        number = VersionId(1 if before is None else before[0] + 1)
        body = None if write.template is None else write.template.fill(number, instant)
        self.connection.execute("REPLACE INTO current VALUES (?, ?, ?, ?)", (*place, number, body))
        self.connection.execute("INSERT INTO history VALUES (?, ?, ?, ?)", (*place, number, body))
        created = before is None or before[1] is None
        return _version(write.resource_id, number, instant, created=created, deleted=body is None)


def _version(
    resource_id: ResourceId, number: int, instant: int, *, created: bool = False, deleted: bool = False
) -> Version:
    commit = Commit("0" * 40, 1, instant, "create", SERVER, None)
    return Version(resource_id, VersionId(number), "PUT", created, None if deleted else "", commit, 0)


class Reading(Snapshot):
    """What reads need of a Snapshot."""

    def __init__(self, store: Peer) -> None:
        self.commit = Commit("0" * 40, 1, 0, "create", SERVER, None)
        self.noted = None
        self._bodies = store.bodies

    def read(self, resource_id: ResourceId) -> Version:
        found = self._bodies.newest(resource_id)
        if found is None or found[1] is None:
            raise NotFound(f"`{resource_id}` is not known.")
        return _version(resource_id, found[0], 0)

    def body(self, version: Version) -> bytes:
        found = self._bodies.newest(version.resource_id)
        return (found and found[1]) or b""


class Peer(Store):
    """A Store of bodies in SQLite."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.bodies = Bodies(self.git_dir)
        self._queue = WriteQueue(self._lead, self.settings.lock_timeout)

    def snapshot(self, sequence: int | None = None, access: Access = FULL_ACCESS) -> Snapshot:
        assert sequence is None
        assert access.is_full
        return Reading(self)

    def _lead(self, take: Callable[[], list[Pending]]) -> list[Pending]:
        self.bodies.lock()
        group = take()
        for pending in group:
            assert isinstance(pending.prepared, Prepared)
            instant = time.time_ns() // 1000
            made = [self.bodies.write(write, instant) for write in pending.prepared.writes]
            pending.outcomes = [Outcome(version, changed=True) for version in made]
        self.bodies.unlock()
        for pending in group:
            pending.finish()
        return []


def serve_sqlite(record: str) -> int:
    assert "Store" in vars(api.opening)
    vars(api.opening)["Store"] = Peer
    options = ["--allow-anonymous", "--port", "0", "--workers", str(WORKERS), "--threads", str(THREADS)]
    return api.serving.main([record, *options])


if __name__ == "__main__":
    sys.exit(serve_fixed() if sys.argv[1] == "fixed" else serve_sqlite(sys.argv[2]))
