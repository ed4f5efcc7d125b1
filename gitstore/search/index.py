"""The search index as a whole: where its file lies, its connections, and the one function that writes it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import Literal, ParamSpec, TypeAlias, TypeVar

from gitstore.errors import Locked, RepositoryDamaged, StorageFailed, StorageFull, Unavailable
from gitstore.fhir import Resource, json
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId
from gitstore.search.contents import VALUES, Contents
from gitstore.search.parameters import Registry, registry_of
from gitstore.search.rows import TYPE_NUMBERS, Rows
from gitstore.version import Author, Change, Commit, Purged, Verb, Version

SCHEMA = 4
"""Of schema.sql; an index of another schema is made anew."""
VERBS: tuple[Verb, ...] = ("POST", "PUT", "DELETE")

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
            (fact,) = connection.execute("SELECT value FROM facts WHERE name = 'registry'").fetchone()
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
        generation = _own(connection).generation
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


def _own(connection: sqlite3.Connection) -> _Connection:
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
    return _number(_own(connection).generation)


def _number(generation: str) -> int:
    return int(generation.removeprefix("index-").removesuffix(".sqlite"))


@storage_errors
def apply(
    connection: sqlite3.Connection,
    commit: Commit,
    changes: Sequence[Change],
    blobs: Sequence[str | None],
    contents: Iterable[Rows | None] | None = None,
    purged: Collection[ResourceId] = (),
) -> list[Version]:
    """Note one commit and what it changed, `blobs` being the new files' ids, and `contents` what searches find them by.

    Without contents those of the resources stay as they are, to be renewed with `renew` in the same transaction.
    `purged` are those whose version of this commit has been taken out of the record.
    Raises RepositoryDamaged where a version is not the next one of its resource.
    """
    execute = connection.execute
    # All that can be refused is refused before the first row is written.
    standing = [_standing(connection, change, commit.id) for change in changes]
    author = _author_key(connection, commit.author)
    execute(
        """INSERT INTO commits VALUES
        (?, ?, ?, ?, ?, ?, ?, ? + coalesce((SELECT versions FROM commits WHERE sequence = ?), 0))""",
        (
            commit.sequence,
            bytes.fromhex(commit.id),
            commit.last_updated,
            commit.interaction,
            author,
            commit.request_id,
            str(commit.idempotency) if commit.idempotency else None,
            len(changes) - len(purged),
            commit.sequence - 1,
        ),
    )
    made, keys = [], []
    for position, (change, blob, stands) in enumerate(zip(changes, blobs, standing, strict=True)):
        type = TYPE_NUMBERS[change.resource_id.type]
        key, created = _advance(connection, stands, change, commit.sequence, deleted=blob is None)
        is_purged = change.resource_id in purged
        keys.append((key, stands[1]))
        ordinal, known, present = execute(_COUNTED, (type,)).fetchone() or (0, 0, 0)
        (authored,) = execute(_AUTHORED, (author, type)).fetchone() or (0,)
        counts = not is_purged
        execute(
            "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                change.version_id,
                commit.sequence,
                position,
                type,
                author,
                ordinal + counts,
                authored + counts,
                known + (change.version_id == 1),
                present + (blob is not None) - stands[2],
                VERBS.index(change.verb),
                created,
                bytes.fromhex(blob) if blob else None,
                0 if is_purged else None,
            ),
        )
        gone = 0 if is_purged else None
        made.append(
            Version(change.resource_id, change.version_id, change.verb, created, blob, commit, position, gone)
        )
    if contents is not None:
        # Last, as a reference to a resource of the same commit must find it.
        for (key, is_new), rows in zip(keys, contents, strict=True):
            renew(connection, key, rows, is_new=is_new)
    return made


_COUNTED = """SELECT ordinal, known, present FROM versions WHERE type = ?
ORDER BY sequence DESC, position DESC LIMIT 1"""
_AUTHORED = """SELECT authored FROM versions WHERE author = ? AND type = ?
ORDER BY sequence DESC, position DESC LIMIT 1"""


def _standing(connection: sqlite3.Connection, change: Change, commit: str) -> tuple[int | None, bool, bool]:
    """The key of the resource, None for a new one, whether it is deleted, and whether it has a file: once it has been
    purged neither is so. Raises RepositoryDamaged.
    """
    row = connection.execute(
        "SELECT key, version, deleted FROM resources WHERE type = ? AND id = ?",
        (TYPE_NUMBERS[change.resource_id.type], change.resource_id.id),
    ).fetchone()
    key, version, deleted = row or (None, 0, 1)
    if change.version_id != version + 1:
        raise RepositoryDamaged(
            f"Commit {commit} makes version {change.version_id} of {change.resource_id}, whose last one is {version}.",
            commit,
        )
    return key, key is None or (bool(deleted) and not _was_there(connection, key, version)), not deleted


def _was_there(connection: sqlite3.Connection, key: int, version: int) -> bool:
    """Whether a resource without content had one when this version was the newest: it has been purged since."""
    row = connection.execute(
        "SELECT verb FROM versions WHERE resource = ? AND version = ? AND purged = 0", (key, version)
    ).fetchone()
    return row is not None and VERBS[row[0]] != "DELETE"


@storage_errors
def standing(connection: sqlite3.Connection, resource_id: ResourceId) -> Literal["there", "absent", "purged"]:
    """Whether the newest version of a resource has a file; "purged" where it had one."""
    row = connection.execute(
        """SELECT r.deleted, v.purged FROM resources r JOIN versions v ON v.resource = r.key AND v.version = r.version
        WHERE r.type = ? AND r.id = ?""",
        (TYPE_NUMBERS[resource_id.type], resource_id.id),
    ).fetchone()
    if row is None or not row[0]:
        return "absent" if row is None else "there"
    return "absent" if row[1] is None else "purged"


@storage_errors
def note_purged(connection: sqlite3.Connection, commit: Commit, purged: Iterable[Purged]) -> None:
    """Note that a commit says of versions that they are gone. Raises RepositoryDamaged where one is there."""
    for one in purged:
        cursor = connection.execute(
            """UPDATE versions SET purged = ? WHERE purged = 0 AND version = ?
            AND resource = (SELECT key FROM resources WHERE type = ? AND id = ?)""",
            (commit.sequence, one.version_id, TYPE_NUMBERS[one.resource_id.type], one.resource_id.id),
        )
        if cursor.rowcount != 1:
            name = f"{one.resource_id}/_history/{one.version_id}"
            raise RepositoryDamaged(
                f"Commit {commit.id} says that {name} was purged, and it is there.", commit.id
            )


def _advance(
    connection: sqlite3.Connection,
    standing: tuple[int | None, bool, bool],
    change: Change,
    sequence: int,
    *,
    deleted: bool,
) -> tuple[int, bool]:
    """Move a resource to its next version: its key, and whether it was not there before."""
    key, was_deleted, _ = standing
    if key is None:
        cursor = connection.execute(
            "INSERT INTO resources (type, id, version, deleted, sequence) VALUES (?, ?, ?, ?, ?)",
            (
                TYPE_NUMBERS[change.resource_id.type],
                change.resource_id.id,
                change.version_id,
                deleted,
                sequence,
            ),
        )
        key = cursor.lastrowid
        assert key is not None
    else:
        connection.execute(
            "UPDATE resources SET version = ?, deleted = ?, sequence = ? WHERE key = ?",
            (change.version_id, deleted, sequence, key),
        )
    return key, was_deleted and not deleted


@storage_errors
def renew(connection: sqlite3.Connection, key: int, rows: Rows | None, *, is_new: bool = False) -> None:
    """Replace the contents of a resource by those of its newest version, None for a deletion."""
    contents = _own(connection).contents
    if rows is None:
        contents.remove(key)
    elif is_new:
        contents.put(key, rows)
    else:
        contents.replace(key, rows)


@storage_errors
def newest_since(
    connection: sqlite3.Connection, sequence: int, after: int, count: int
) -> list[tuple[int, ResourceId, str | None]]:
    """The next resources after the key `after` that later commits than `sequence` changed: key, id, and blob."""
    changed = (
        "" if sequence == 0 else "AND r.key IN (SELECT resource FROM versions WHERE sequence > :sequence)"
    )
    rows = connection.execute(
        f"""SELECT r.key, r.type, r.id, v.blob FROM resources r
        JOIN versions v ON v.resource = r.key AND v.version = r.version
        WHERE r.key > :after {changed} ORDER BY r.key LIMIT :count""",
        {"sequence": sequence, "after": after, "count": count},
    )
    return [
        (key, ResourceId(RESOURCE_TYPES[type], id), blob.hex() if blob is not None else None)
        for key, type, id, blob in rows
    ]


@storage_errors
def changed_after(connection: sqlite3.Connection, sequence: int) -> list[ResourceId]:
    """The resources of which later commits than this made a version."""
    rows = connection.execute(
        """SELECT DISTINCT r.type, r.id FROM versions v JOIN resources r ON r.key = v.resource
        WHERE v.sequence > ?""",
        (sequence,),
    )
    return [ResourceId(RESOURCE_TYPES[type], id) for type, id in rows]


def _author_key(connection: sqlite3.Connection, author: Author) -> int:
    found = connection.execute(
        "SELECT key FROM authors WHERE name = ? AND email = ?", (author.name, author.email)
    ).fetchone()
    if found:
        return int(found[0])
    inserted = connection.execute(
        "INSERT INTO authors (name, email) VALUES (?, ?)", (author.name, author.email)
    ).lastrowid
    assert inserted is not None
    return inserted


@storage_errors
def replace_first(connection: sqlite3.Connection, commit: Commit) -> None:
    """Note another first commit for a record that has no other."""
    connection.execute(
        "UPDATE commits SET id = ?, last_updated = ? WHERE sequence = 1",
        (bytes.fromhex(commit.id), commit.last_updated),
    )


@storage_errors
def forget_first(connection: sqlite3.Connection) -> None:
    """Forget the first commit of a record that has no other, within a transaction."""
    connection.execute("DELETE FROM commits")


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
    _own(connection).contents.keys.keep()


def rollback(connection: sqlite3.Connection) -> None:
    """Forget what was written."""
    _own(connection).contents.keys.forget()
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
        _own(connection).contents.keys.forget()
        if is_writing(connection):
            execute("ROLLBACK TO unit")
            execute("RELEASE unit")
        raise
    execute("RELEASE unit")
