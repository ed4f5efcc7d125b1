"""Indexes of past states: each is the index as one commit left it, in a file that never changes again.

They lie in the folder `as-of` beside the index, under the ids of their commits. All are made of the index in use, and are
gone when another takes its place. So many are kept, those that were used last.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from gitstore.errors import StorageFailed, StorageFull, Unavailable
from gitstore.fhir import Resource, json
from gitstore.search import index, noting
from gitstore.search.index import SCHEMA, Connection, Generation, Index, storage_errors
from gitstore.search.parameters import Registry
from gitstore.search.rows import Rows
from gitstore.version import Commit

FOLDER = "as-of"
PORTION = 4096
"""Pages that are copied between two reports of how far it is."""

_LOCK, _DRAFT, _SUFFIX = "lock", ".draft", ".sqlite"
_MADE_OF = "as-of"
"""The fact that names the generation of which an index was made; only whole ones have it."""
_PATIENCE = 0.05
"""Seconds between two looks whether the lock is free."""

Part = Callable[[float], None]
"""Called with how much is done, from 0 to 1. What it raises ends the making."""


def forget(folder: str) -> None:
    """Throw away all past states beside the index in a folder. Connections that are open keep what they read."""
    with suppress(FileNotFoundError):
        for name in os.listdir(os.path.join(folder, FOLDER)):
            if name != _LOCK:
                _remove(os.path.join(folder, FOLDER, name))


class States:
    """The indexes of past states beside one index. Any thread may call."""

    def __init__(self, search_index: Index, count: int, *, min_free: int = 0, durable: bool = True) -> None:
        """At most `count` are kept; making one leaves `min_free` bytes of the disk."""
        self._index = search_index
        self._folder = os.path.join(search_index.folder, FOLDER)
        self._count = count
        self._min_free = min_free
        self._durable = durable
        self._registries: dict[int, Registry] = {}

    def open(self, id: str) -> Connection | None:
        """The index as the commit of this id left it, for the caller to close; None where it has to be made."""
        path, made_of = self._path(id), self._index.generation()
        try:
            connection = index.beside(path, _number(made_of, id))
        except StorageFailed:
            return None
        if not _is_made_of(connection, made_of):
            connection.close()
            return None
        with suppress(OSError):
            os.utime(path)  # so that it is seen to be of use
        return connection

    def registry(self, connection: Connection) -> Registry:
        """The search parameters that such an index was made with."""
        number = index.generation(connection)
        found = self._registries.get(number)
        if found is None:
            found = self._index.read_registry(connection)
            assert found is not None  # where there is no search there are no past states
            if len(self._registries) >= 2 * self._count:
                self._registries.clear()
            self._registries[number] = found
        return found

    @contextmanager
    def alone(self, stopped: threading.Event) -> Iterator[None]:
        """Wait until no one else makes one, of any process, and keep them waiting. Raises Unavailable when stopped."""
        try:
            os.makedirs(self._folder, exist_ok=True)
            lock = os.open(os.path.join(self._folder, _LOCK), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageFailed(f"There is no place for past states: {error}.") from error
        try:
            while not _locked(lock):
                if stopped.wait(_PATIENCE):
                    raise Unavailable("The record is being closed.")
            yield
        finally:
            os.close(lock)

    @contextmanager
    def drafting(self, commit: Commit) -> Iterator[Draft]:
        """The index of a state that is to be made; only when `alone`. It is thrown away unless it is `finished`.

        Raises StorageFull.
        """
        self._make_room()
        path = self._path(commit.id)
        with self._index.reading() as now:
            self._check_space(now)
            draft = Draft(self._index, now, commit, path + _DRAFT)
            try:
                yield draft
                if draft.is_finished:
                    self._put_in_place(path, draft)
            except StorageFailed:
                # Its files are taken away where the index is made anew meanwhile, and then nobody wants it.
                if self._index.generation() == draft.made_of:
                    raise
            finally:
                draft.close()

    def _put_in_place(self, path: str, draft: Draft) -> None:
        try:
            if self._durable:
                with open(path + _DRAFT, "rb") as file:
                    os.fsync(file.fileno())
            os.rename(path + _DRAFT, path)
        except FileNotFoundError:
            return  # the index was made anew meanwhile, and with it all states were thrown away
        except OSError as error:
            raise StorageFailed(f"The index of a past state can't take its place: {error}.") from error
        if self._index.generation() != draft.made_of:
            _remove(path)

    def _make_room(self) -> None:
        """Throw away what dead processes left, and what was not used for longest."""
        kept: list[tuple[int, str]] = []
        for name in os.listdir(self._folder):
            path = os.path.join(self._folder, name)
            if name.endswith(_SUFFIX):
                with suppress(FileNotFoundError):
                    kept.append((os.stat(path).st_mtime_ns, path))
            elif name != _LOCK:
                _remove(path)
        for _, path in sorted(kept, reverse=True)[self._count - 1 :]:
            _remove(path)

    def _check_space(self, now: Connection) -> None:
        disk = os.statvfs(self._folder)
        needed = index_bytes(now) + self._min_free
        if disk.f_bavail * disk.f_frsize < needed:
            raise StorageFull(f"There is no room for the index of a past state: it needs {needed} bytes.")

    def _path(self, id: str) -> str:
        return os.path.join(self._folder, id + _SUFFIX)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _number(made_of: int, id: str) -> int:
    """The generation of a past state: no other has it, so that its pages are of no use elsewhere."""
    return int.from_bytes(hashlib.sha256(f"{made_of} {id}".encode()).digest()[:7], "big")


def _is_made_of(connection: Connection, made_of: int) -> bool:
    try:
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        fact = connection.execute("SELECT value FROM facts WHERE name = ?", (_MADE_OF,)).fetchone()
    except sqlite3.Error:
        return False
    return schema == SCHEMA and fact is not None and fact[0] == str(made_of)


@storage_errors
def index_bytes(connection: Connection) -> int:
    """How large an index is."""
    (pages,), (size,) = (
        connection.execute(f"PRAGMA {each}").fetchone() for each in ("page_count", "page_size")
    )
    return int(pages * size)


class Draft:
    """The index of a past state that is being made of that of now: `near` it by changing a copy, else anew.

    Either gives the resources whose contents have to be put, by key, with their blobs then; `renew` puts them.
    """

    def __init__(self, search_index: Index, now: Connection, commit: Commit, path: str) -> None:
        self.now = now
        self.made_of = index.generation(now)
        self.is_finished = False
        self._index = search_index
        self._commit = commit
        self._path = path
        self._connection: Connection | None = None
        self._generation: Generation | None = None

    def close(self) -> None:
        for each in (self._connection, self._generation):
            if each is not None:
                each.close()
        _remove(self._path)

    @storage_errors
    def is_near(self, stored: Sequence[Resource]) -> bool:
        """Whether most resources are as they were, and searches had the same parameters, with these SearchParameters."""
        registry = self._index.registry(self.now)
        if registry is None or registry.digest != self._index.registry_with(stored).digest:
            return False
        count = "SELECT count(DISTINCT resource) FROM versions WHERE sequence"
        (changed,), (there,) = (
            self.now.execute(f"{count} {operator} ?", (self._commit.sequence,)).fetchone()
            for operator in (">", "<=")
        )
        return bool(2 * changed <= there)

    @contextmanager
    def near(
        self, stored: Sequence[Resource], part: Part
    ) -> Iterator[tuple[Registry, list[tuple[int, str | None]]]]:
        """The block in which a copy of the index of now is changed; `part` says how far the copying is."""
        connection = self._connection = index.beside(self._path)
        storage_errors(self.now.backup)(
            connection,
            pages=PORTION,
            progress=lambda _, left, all: part(1 - left / max(all, 1)),
        )
        storage_errors(connection.execute)("PRAGMA journal_mode = OFF")
        index.begin(connection)
        changed = _cut_back(connection, self._commit.sequence)
        _store_parameters(connection, stored)
        yield self._index.registry_with(stored), changed
        self._finish(connection)

    @contextmanager
    def anew(self, stored: Sequence[Resource]) -> Iterator[tuple[Registry, list[tuple[int, str | None]]]]:
        """The block in which all contents are put into an empty index that knows what was there."""
        generation = self._generation = self._index.draft(self._path)
        _copy_past(self.now, generation.connection, self._commit.sequence)
        with generation.filling(stored) as registry:
            yield registry, _all(generation.connection)
        self._finish(generation.connection)

    def renew(self, key: int, rows: Rows | None) -> None:
        """Put the contents of a resource, None where it wasn't there."""
        connection = self._generation.connection if self._generation is not None else self._connection
        assert connection is not None
        noting.renew(connection, key, rows, is_new=self._generation is not None)

    @storage_errors
    def _finish(self, connection: Connection) -> None:
        connection.execute("INSERT INTO facts VALUES (?, ?)", (_MADE_OF, str(self.made_of)))
        index.commit(connection)
        # A file by itself, which can be read where nothing can be written.
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()
        self.is_finished = True


@storage_errors
def _cut_back(connection: Connection, sequence: int) -> list[tuple[int, str | None]]:
    """Take out what came after a commit; returns the resources that it changed, with the blobs that they had then."""
    execute = connection.execute
    execute("CREATE TEMP TABLE changed (key INTEGER PRIMARY KEY)")
    execute("INSERT INTO changed SELECT DISTINCT resource FROM versions WHERE sequence > ?", (sequence,))
    execute("DELETE FROM versions WHERE sequence > ?", (sequence,))
    execute("DELETE FROM commits WHERE sequence > ?", (sequence,))
    execute("DELETE FROM authors WHERE key NOT IN (SELECT author FROM commits)")
    # What others refer to keeps its key.
    execute(
        "UPDATE resources SET version = 0, deleted = 1, sequence = 0 WHERE key IN (SELECT key FROM changed)"
    )
    execute(
        """UPDATE resources SET version = v.version, deleted = v.blob IS NULL, sequence = v.sequence
        FROM (SELECT resource, max(version) AS version, blob, sequence FROM versions
              WHERE resource IN (SELECT key FROM changed) GROUP BY resource) v
        WHERE resources.key = v.resource"""
    )
    return _blobs(connection, "WHERE r.key IN (SELECT key FROM changed)")


@storage_errors
def _copy_past(now: Connection, connection: Connection, sequence: int) -> None:
    """Put everything but contents into an empty index, as a commit left it."""
    for table, query in {
        "commits": "SELECT * FROM commits WHERE sequence <= ?",
        "authors": "SELECT * FROM authors WHERE key IN (SELECT author FROM commits WHERE sequence <= ?)",
        "versions": "SELECT * FROM versions WHERE sequence <= ?",
        "resources": """SELECT r.key, r.type, r.id, v.version, v.blob IS NULL, v.sequence FROM resources r
            JOIN (SELECT resource, max(version) AS version, blob, sequence FROM versions
                  WHERE sequence <= ? GROUP BY resource) v ON v.resource = r.key""",
    }.items():
        rows = now.execute(query, (sequence,))
        places = ", ".join("?" * len(rows.description))
        connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)


def _all(connection: Connection) -> list[tuple[int, str | None]]:
    return _blobs(connection, "WHERE r.deleted = 0")


@storage_errors
def _blobs(connection: Connection, where: str) -> list[tuple[int, str | None]]:
    rows = connection.execute(
        f"""SELECT r.key, v.blob FROM resources r
        LEFT JOIN versions v ON v.resource = r.key AND v.version = r.version {where} ORDER BY r.key"""
    )
    return [(key, blob.hex() if blob is not None else None) for key, blob in rows]


@storage_errors
def _store_parameters(connection: Connection, stored: Sequence[Resource]) -> None:
    """Say with which SearchParameters the index is made: what is no part of the search parameters may differ."""
    connection.execute("DELETE FROM stored_parameters")
    connection.executemany(
        "INSERT INTO stored_parameters VALUES (?, ?)",
        [(resource["url"], json.dumps(resource).decode()) for resource in stored],
    )
