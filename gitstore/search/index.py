"""The search index as a whole: where its file lies, its connections, and its transactions."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import ParamSpec, TypeAlias, TypeVar

from gitstore.errors import Locked, StorageFailed, StorageFull, Unavailable
from gitstore.fhir import Resource, json
from gitstore.fhir.ids import ResourceId
from gitstore.search.contents import VALUES, Contents
from gitstore.search.parameters import Registry, registry_of
from gitstore.search.rows import TYPE_NUMBERS, Rows

SCHEMA = 4
"""Of schema.sql; an index of another schema is made anew."""

Connection: TypeAlias = sqlite3.Connection
"""To be handed on; only this room calls it."""

_NAME = "index.sqlite"
_ROOM = 65_536
"""KiB of an index that are kept in memory while it is made."""
_NOT_SEARCHABLE = "none"
_IN_VALUES = ", ".join("?" * len(VALUES))
_P = ParamSpec("_P")
_T = TypeVar("_T")


def storage_errors(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let SQLite's errors leave the function as errors of the store."""

    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    return called


def _unavailable(error: sqlite3.Error) -> Unavailable:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"No room for the search index: {error}.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Locked(f"The search index is busy: {error}.")
    return StorageFailed(f"The search index failed: {error}. `git fhir reindex` makes it anew.")


class Index:
    """The index of one repository, in a folder of its own choice.

    `index.sqlite` is a link to the file of the newest generation. A rebuild writes another file and moves the link;
    every connection looks at the link before it is used.
    """

    def __init__(self, folder: str, *, base_url: str | None = None, all_references: bool = False) -> None:
        """`base_url` and `all_references` are as in `Registry`; where they change, the index is made anew."""
        self._new_registry = partial(registry_of, base_url=base_url, all_references=all_references)
        self.folder = self._folder = folder
        self._link = os.path.join(folder, _NAME)
        self._local = threading.local()
        self._writing: _Connection | None = None
        self._registry: tuple[str, Registry | None] | None = None
        self.on_other: Callable[[], None] = lambda: None
        """Called when a thread finds another index in the place of the one that it has used."""

    def exists(self, *, searchable: bool = True) -> bool:
        """Whether there is an index of this schema that has the rows of searches, or is not to have them.

        Its search parameters must be those of this version.
        """
        try:
            generation = os.readlink(self._link)
            connection = _connect(os.path.join(self._folder, generation))
        except (OSError, sqlite3.Error):
            return False
        try:
            found: int = connection.execute("PRAGMA user_version").fetchone()[0]
            if found != SCHEMA:
                return False
            row = connection.execute("SELECT value FROM facts WHERE name = 'registry'").fetchone()
            if (
                row is None
            ):  # a power cut has left the schema of a new index, and nothing of what was put into it
                return False
            (fact,) = row
            if not searchable:
                return bool(fact == _NOT_SEARCHABLE)
            registry = self._registry_of(connection)
            if fact == registry.digest:
                # It is wanted next, and takes some milliseconds to make.
                self._registry = (generation, registry)
            return bool(fact == registry.digest)
        except sqlite3.Error:
            return False
        finally:
            connection.close()

    def generation(self) -> int:
        """The number of the index in use: each rebuild makes another one."""
        return _number(self._generation())

    def registry_with(self, stored: Sequence[Resource]) -> Registry:
        """The search parameters that an index with these SearchParameters of the record would have."""
        return self._new_registry(stored)

    def draft(self, path: str) -> Generation:
        """A new, empty index in a file of its own, that never takes over: whoever makes it has another use for it."""
        folder, name = os.path.split(path)
        return Generation(folder, name, [], self._new_registry)

    def reader(self) -> sqlite3.Connection:
        """This thread's connection for reading."""
        return self._current(getattr(self._local, "connection", None), self._keep_reader)

    def _keep_reader(self, connection: _Connection) -> None:
        connection.execute("PRAGMA query_only = 1")
        self._local.connection = connection

    def writer(self) -> sqlite3.Connection:
        """The connection for writing; only one thread at a time may use it, under the writer's lock."""
        return self._current(self._writing, self._keep_writer)

    def _keep_writer(self, connection: _Connection) -> None:
        self._writing = connection

    def registry(self, connection: sqlite3.Connection) -> Registry | None:
        """The search parameters that the index behind a connection was made with; None where it can't be searched."""
        generation = own(connection).generation
        known = self._registry
        if known is None or known[0] != generation:
            known = self._registry = (generation, self.read_registry(connection))
        return known[1]

    @storage_errors
    def read_registry(self, connection: sqlite3.Connection) -> Registry | None:
        """As `registry`, from the rows of an index that may be another one than that in use."""
        (fact,) = connection.execute("SELECT value FROM facts WHERE name = 'registry'").fetchone()
        return None if fact == _NOT_SEARCHABLE else self._registry_of(connection)

    def _registry_of(self, connection: sqlite3.Connection) -> Registry:
        rows = connection.execute("SELECT resource FROM stored_parameters ORDER BY url")
        return self._new_registry([json.loads_trusted(row.encode()) for (row,) in rows])

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection, which sees one state of the index until the block ends."""
        connection = self.reader()
        execute = storage_errors(connection.execute)
        execute("BEGIN")
        try:
            yield connection
        finally:
            execute("COMMIT")

    @contextmanager
    def steadily(self) -> Iterator[sqlite3.Connection]:
        """As `reading`, also within such a block."""
        connection = getattr(self._local, "connection", None)
        if connection is not None and connection.in_transaction:
            yield connection
        else:
            with self.reading() as connection:
                yield connection

    @storage_errors
    def _current(self, connection: _Connection | None, keep: Callable[[_Connection], None]) -> _Connection:
        generation = self._generation()
        if connection is not None:
            if connection.generation == generation:
                return connection
            connection.close()
            self.on_other()
        opened = _connect(os.path.join(self._folder, generation))
        opened.generation = generation
        keep(opened)
        return opened

    def _generation(self) -> str:
        try:
            return os.readlink(self._link)
        except OSError as error:
            raise StorageFailed(
                f"There is no search index: {error}. `git fhir reindex` makes one."
            ) from error

    def close(self) -> None:
        """Close this thread's connections; those of other threads go with their threads."""
        for connection in (self._writing, getattr(self._local, "connection", None)):
            if connection is not None:
                connection.close()
        self._writing = None
        self._local = threading.local()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no one else makes a new index, of any process, and keep them waiting."""
        try:
            os.makedirs(self._folder, exist_ok=True)
            lock = os.open(os.path.join(self._folder, "rebuild.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageFailed(f"There is no place for a search index: {error}.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def rebuilding(self) -> Iterator[Generation]:
        """A new, empty index to fill; only when `alone`. It is thrown away unless it takes over before the block ends."""
        try:
            old = [name for name in os.listdir(self._folder) if name.startswith("index-")]
        except OSError as error:
            raise StorageFailed(f"There is no place for a search index: {error}.") from error
        numbers = [
            int(part) for name in old if (part := name.removeprefix("index-").partition(".")[0]).isdigit()
        ]
        generation = Generation(
            self._folder, f"index-{max(numbers, default=0) + 1}.sqlite", old, self._new_registry
        )
        try:
            yield generation
        finally:
            generation.close()


class Generation:
    """An index that is being made beside the one in use."""

    @storage_errors
    def __init__(
        self, folder: str, name: str, old: list[str], new_registry: Callable[[Sequence[Resource]], Registry]
    ) -> None:
        self._new_registry = new_registry
        self._folder = folder
        self._name = name
        self._old = old
        self._in_use = False
        self.connection = _connect(os.path.join(folder, name), create=True)
        # All is one transaction: what there is no room for goes to the disk each time that it changes.
        self.connection.execute(f"PRAGMA cache_size = -{_ROOM}")
        self.connection.executescript(_schema())
        self.connection.execute(f"PRAGMA user_version = {SCHEMA}")
        self.connection.execute("BEGIN")
        self.registry: Registry | None = None

    @storage_errors
    @contextmanager
    def filling(self, stored: Sequence[Resource]) -> Iterator[Registry]:
        """A block in which all contents are put, with the search parameters `stored` beside those of R4.

        An index on values that is made at the end is made several times as fast.
        """
        self.registry = self._new_registry(stored)
        execute = self.connection.execute
        self.connection.executemany("INSERT INTO parameters VALUES (?, ?, ?, ?)", self.registry.rows())
        self.connection.executemany(
            "INSERT INTO stored_parameters VALUES (?, ?)",
            [(resource["url"], json.dumps(resource).decode()) for resource in stored],
        )
        execute("INSERT INTO facts VALUES ('registry', ?)", (self.registry.digest,))
        later = execute(
            f"SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN ({_IN_VALUES})",
            VALUES,
        ).fetchall()
        for name, _ in later:
            execute(f"DROP INDEX {name}")
        yield self.registry
        for _, sql in later:
            execute(sql)

    @storage_errors
    def leave_unsearchable(self) -> None:
        """No search will be asked of this index, and no resource has contents in it."""
        self.connection.execute("INSERT INTO facts VALUES ('registry', ?)", (_NOT_SEARCHABLE,))

    @storage_errors
    def take_over(self) -> None:
        """Become the index that every connection uses from its next transaction on; under the writer's lock."""
        commit(self.connection)
        link = os.path.join(self._folder, f"{_NAME}.{os.getpid()}")
        try:
            with suppress(FileNotFoundError):
                os.unlink(link)
            os.symlink(self._name, link)
            os.rename(link, os.path.join(self._folder, _NAME))
        except OSError as error:
            raise StorageFailed(f"The new search index can't take its place: {error}.") from error
        self._in_use = True
        for name in self._old:
            # Connections that are still open keep what they read.
            _remove(os.path.join(self._folder, name))

    def close(self) -> None:
        self.connection.close()
        if not self._in_use:
            _remove(os.path.join(self._folder, self._name))


def _schema() -> str:
    return Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")


class _Connection(sqlite3.Connection):
    generation = ""

    @cached_property
    def contents(self) -> Contents:
        return Contents(self)


def own(connection: sqlite3.Connection) -> _Connection:
    """The connection with what is remembered beside it: all that are handed out have it."""
    assert isinstance(connection, _Connection)
    return connection


def _connect(path: str, *, create: bool = False) -> _Connection:
    mode = "rwc" if create else "rw"
    connection = sqlite3.connect(
        f"{Path(path).as_uri()}?mode={mode}",
        uri=True,
        timeout=10,
        isolation_level=None,
        check_same_thread=False,
        factory=_Connection,
    )
    # NORMAL loses at most the newest transactions in a power cut, and git has those: the index catches up.
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "temp_store = MEMORY",
        "mmap_size = 268435456",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _remove(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


@storage_errors
def of_contents(contents: Sequence[tuple[ResourceId, Rows]]) -> sqlite3.Connection:
    """An index in memory of resources that are nowhere else."""
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=_Connection)
    connection.executescript(_schema())
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO resources VALUES (?, ?, ?, 1, 0, 1)",
        [(key, TYPE_NUMBERS[name.type], name.id) for key, (name, _) in enumerate(contents, 1)],
    )
    # After all of them, as a reference to a resource that isn't there takes a key, too.
    for key, (_, rows) in enumerate(contents, 1):
        connection.contents.put(key, rows)
    return connection


@storage_errors
def beside(path: str, number: int | None = None) -> sqlite3.Connection:
    """A connection to a file that is not the index in use. With a `number`, its generation, nobody changes it any more.

    Raises StorageFailed where there is no such file then; else one is made.
    """
    mode = "rwc" if number is None else "ro&immutable=1"
    connection = sqlite3.connect(
        f"{Path(path).as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        factory=_Connection,
    )
    if number is not None:
        connection.generation = f"index-{number}.sqlite"
    for pragma in ("temp_store = MEMORY", "mmap_size = 268435456"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def generation(connection: sqlite3.Connection) -> int:
    """The number of the index behind a connection: each rebuild makes another one."""
    return _number(own(connection).generation)


def _number(generation: str) -> int:
    return int(generation.removeprefix("index-").removesuffix(".sqlite"))


# Transactions of the writing connection. Their COMMIT waits for git: see gitstore.store.


@storage_errors
def begin(connection: sqlite3.Connection) -> None:
    """Start writing."""
    connection.execute("BEGIN IMMEDIATE")


@storage_errors
def commit(connection: sqlite3.Connection) -> None:
    """Make what was written visible to every connection; where that fails, forget it."""
    try:
        connection.execute("COMMIT")
    except sqlite3.Error:
        rollback(connection)
        raise
    own(connection).contents.keys.keep()


def rollback(connection: sqlite3.Connection) -> None:
    """Forget what was written."""
    own(connection).contents.keys.forget()
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def is_writing(connection: sqlite3.Connection) -> bool:
    """Whether there is a transaction: after some errors, such as a full disk, SQLite has rolled back all of it."""
    return connection.in_transaction


@contextmanager
def savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    """Leave the block well and its rows stay; leave it badly and they are gone."""
    execute = storage_errors(connection.execute)
    execute("SAVEPOINT unit")
    try:
        yield
    except BaseException:
        own(connection).contents.keys.forget()
        if is_writing(connection):
            execute("ROLLBACK TO unit")
            execute("RELEASE unit")
        raise
    execute("RELEASE unit")
