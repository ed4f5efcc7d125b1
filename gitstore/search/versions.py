"""Reading the index: versions, histories and commits, as of any commit of the record.

Every function takes a connection and `upto`, the sequence of the last commit to be seen: rows are only ever added, so
what it answers for one `upto` never changes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gitstore.errors import Invalid, Issue
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.search import periods
from gitstore.search.index import storage_errors
from gitstore.search.periods import Period
from gitstore.search.rows import TYPE_NUMBERS, VERBS
from gitstore.version import Author, Commit, Idempotency, Version

_COMMIT = "c.sequence, c.id, c.last_updated, c.interaction, a.name, a.email, c.request_id, c.idempotency"
_SELECT_COMMIT = f"SELECT {_COMMIT} FROM commits c JOIN authors a ON a.key = c.author"
_VERSION = f"r.type, r.id, v.version, v.verb, v.created, v.blob, v.position, v.purged, {_COMMIT}"
_POSITION, _SEQUENCE = 6, 8
"""The places of v.position and c.sequence in a row of these."""
_FROM = """
FROM versions v JOIN resources r ON r.key = v.resource
JOIN commits c ON c.sequence = v.sequence JOIN authors a ON a.key = c.author"""
_SELECT = f"SELECT {_VERSION} {_FROM}"
_BY_AUTHOR = "+v.author IN (SELECT key FROM authors WHERE name = :author OR email = :author)"


class Cursor(Struct, frozen=True):
    """A boundary between two versions of a history: the page before it (`newer`) or after it is asked for.

    For one resource `first` is a version id and `second` 0; else they are the sequence and the position.
    """

    first: int
    second: int
    newer: bool

    def __str__(self) -> str:
        return f"{'n' if self.newer else 'o'}{self.first}.{self.second}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Undoes str(). Raises Invalid."""
        first, _, second = text[1:].partition(".")
        if text[:1] not in ("n", "o") or not _is_number(first) or not _is_number(second):
            raise Invalid(Issue("error", "value", f"`{text[:80]}` is no page of this server."))
        return cls(int(first), int(second), text[0] == "n")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19


# Commits


@storage_errors
def tip(connection: sqlite3.Connection) -> Commit | None:
    """The last commit that the index holds."""
    row = connection.execute(f"{_SELECT_COMMIT} ORDER BY c.sequence DESC LIMIT 1").fetchone()
    return _commit(row) if row else None


@storage_errors
def commit_at(connection: sqlite3.Connection, sequence: int) -> Commit | None:
    """The commit of this sequence."""
    row = connection.execute(f"{_SELECT_COMMIT} WHERE c.sequence = ?", (sequence,)).fetchone()
    return _commit(row) if row else None


@storage_errors
def has_commit(connection: sqlite3.Connection, id: str, after: int) -> bool:
    """Whether a commit is among those after a sequence, which are looked at one by one."""
    rows = connection.execute(
        "SELECT 1 FROM commits WHERE sequence > ? AND id = ?", (after, bytes.fromhex(id))
    )
    return rows.fetchone() is not None


@storage_errors
def commit_of_time(connection: sqlite3.Connection, last_updated: int) -> Commit | None:
    """The one commit of this instant."""
    row = connection.execute(f"{_SELECT_COMMIT} WHERE c.last_updated = ?", (last_updated,)).fetchone()
    return _commit(row) if row else None


@storage_errors
def commit_of_import(connection: sqlite3.Connection, request_id: str, upto: int) -> Commit | None:
    """The first commit of a request id that begins with `import-`."""
    row = connection.execute(
        f"{_SELECT_COMMIT} WHERE c.request_id = ? AND c.request_id GLOB 'import-*' AND c.sequence <= ?"
        " ORDER BY c.sequence LIMIT 1",
        (request_id, upto),
    ).fetchone()
    return _commit(row) if row else None


@storage_errors
def commit_of_key(connection: sqlite3.Connection, author: Author, key: str, upto: int) -> Commit | None:
    """The commit of an author's idempotency key."""
    row = connection.execute(
        f"{_SELECT_COMMIT} WHERE c.idempotency > :key || ' ' AND c.idempotency < :key || '!'"
        " AND a.name = :name AND a.email = :email AND c.sequence <= :upto",
        {"key": key, "name": author.name, "email": author.email, "upto": upto},
    ).fetchone()
    return _commit(row) if row else None


@storage_errors
def commits_of_key(connection: sqlite3.Connection, key: str, upto: int) -> list[Commit]:
    """The commits that have this idempotency key, of whichever authors; oldest first."""
    rows = connection.execute(
        f"{_SELECT_COMMIT} WHERE c.idempotency > :key || ' ' AND c.idempotency < :key || '!'"
        " AND c.sequence <= :upto ORDER BY c.sequence",
        {"key": key, "upto": upto},
    )
    return list(map(_commit, rows))


@storage_errors
def sequence_before(connection: sqlite3.Connection, instant: int) -> int:
    """The sequence of the last commit before an instant; 0 where there is none."""
    row = connection.execute(
        "SELECT sequence FROM commits WHERE last_updated < ? ORDER BY last_updated DESC LIMIT 1", (instant,)
    ).fetchone()
    return int(row[0]) if row else 0


# Versions


@storage_errors
def newest(connection: sqlite3.Connection, resource_id: ResourceId, upto: int) -> Version | None:
    """The newest version of a resource, which may be a deletion."""
    row = connection.execute(
        f"{_SELECT} WHERE r.type = ? AND r.id = ? AND v.version = r.version",
        (TYPE_NUMBERS.get(resource_id.type), resource_id.id),
    ).fetchone()
    if row is None or row[_SEQUENCE] <= upto:
        return _version(row) if row else None
    number = _last_version(connection, resource_id, upto)
    return version(connection, resource_id, VersionId(number), upto) if number else None


@storage_errors
def version(
    connection: sqlite3.Connection, resource_id: ResourceId, version_id: VersionId, upto: int
) -> Version | None:
    """One version of a resource, which may be a deletion."""
    row = connection.execute(
        f"{_SELECT} WHERE r.type = ? AND r.id = ? AND v.version = ? AND v.sequence <= ?",
        (TYPE_NUMBERS.get(resource_id.type), resource_id.id, version_id, upto),
    ).fetchone()
    return _version(row) if row else None


@storage_errors
def newest_of(connection: sqlite3.Connection, keys: Sequence[int]) -> dict[int, Version]:
    """The newest versions of resources, by their keys in the index."""
    rows = connection.execute(
        f"SELECT r.key, {_VERSION} {_FROM}"
        " WHERE r.key IN (SELECT value FROM json_each(?)) AND v.version = r.version",
        (json.dumps(list(keys)),),
    )
    return {key: _version(row) for key, *row in rows}


@storage_errors
def keys_of(connection: sqlite3.Connection, resource_ids: Iterable[ResourceId]) -> list[int]:
    """The keys in the index of those that it knows."""
    find = "SELECT key FROM resources WHERE type = ? AND id = ?"
    rows = (connection.execute(find, (TYPE_NUMBERS[type], id)).fetchone() for type, id in resource_ids)
    return [row[0] for row in rows if row is not None]


@storage_errors
def deleted(connection: sqlite3.Connection, types: Sequence[str], limit: int) -> list[ResourceId]:
    """The first so many resources of these types that were there and are deleted."""
    rows = connection.execute(
        "SELECT type, id FROM resources WHERE type IN (SELECT value FROM json_each(?)) AND deleted = 1"
        " AND version > 0 LIMIT ?",
        (json.dumps([TYPE_NUMBERS[type] for type in types]), limit),
    )
    return [ResourceId(RESOURCE_TYPES[type], id) for type, id in rows]


@storage_errors
def newest_since(
    connection: sqlite3.Connection, sequence: int, after: int, count: int
) -> list[tuple[int, ResourceId, str | None, bool]]:
    """The next resources after the key `after` that later commits than `sequence` changed.

    Of each its key, id, and blob, and whether none but such commits have changed it.
    """
    changed = (
        "" if sequence == 0 else "AND r.key IN (SELECT resource FROM versions WHERE sequence > :sequence)"
    )
    rows = connection.execute(
        f"""SELECT r.key, r.type, r.id, v.blob,
            (SELECT sequence FROM versions WHERE resource = r.key ORDER BY version LIMIT 1) > :sequence
        FROM resources r
        JOIN versions v ON v.resource = r.key AND v.version = r.version
        WHERE r.key > :after {changed} ORDER BY r.key LIMIT :count""",
        {"sequence": sequence, "after": after, "count": count},
    )
    return [
        (key, ResourceId(RESOURCE_TYPES[type], id), blob.hex() if blob is not None else None, bool(is_new))
        for key, type, id, blob, is_new in rows
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


@storage_errors
def all_of(connection: sqlite3.Connection, resource_id: ResourceId) -> list[Version]:
    """Every version of a resource, the oldest first; also those that were purged."""
    rows = connection.execute(
        f"{_SELECT} WHERE r.type = ? AND r.id = ? ORDER BY v.version",
        (TYPE_NUMBERS.get(resource_id.type), resource_id.id),
    )
    return [_version(row) for row in rows]


class Fact(Struct, frozen=True):
    """What the index says of one version that must outlast its commit's id."""

    sequence: int
    position: int
    resource_id: ResourceId
    version_id: int
    verb: int
    created: int
    last_updated: int
    author: Author
    blob: bytes | None
    purged: bool

    def without(self) -> Fact:
        """The same once it has been purged."""
        return replace(self, created=0, blob=None, purged=True)

    def __str__(self) -> str:
        return f"{self.resource_id}/_history/{self.version_id}"


def facts(connection: sqlite3.Connection) -> Iterator[Fact]:
    """What the index says of each version, in the order in which they were made."""
    rows = connection.execute(
        "SELECT v.sequence, v.position, r.type, r.id, v.version, v.verb, v.created, c.last_updated, a.name, a.email,"
        f" v.blob, v.purged IS NOT NULL {_FROM} ORDER BY v.sequence, v.position"
    )
    for sequence, position, type, id, version, verb, created, date, name, email, blob, purged in rows:
        resource_id, author = ResourceId(RESOURCE_TYPES[type], id), Author(name, email)
        yield Fact(sequence, position, resource_id, version, verb, created, date, author, blob, bool(purged))


@storage_errors
def changes(connection: sqlite3.Connection, sequence: int) -> list[Version]:
    """What one commit changed, in its order."""
    rows = connection.execute(f"{_SELECT} WHERE v.sequence = ? ORDER BY v.position", (sequence,))
    return [_version(row) for row in rows]


@storage_errors
def last_change(connection: sqlite3.Connection, type: str, upto: int) -> str | None:
    """The id of the last commit that changed a resource of a type."""
    row = connection.execute(
        "SELECT c.id FROM versions v JOIN commits c ON c.sequence = v.sequence"
        " WHERE v.type = ? AND v.sequence <= ? ORDER BY v.sequence DESC LIMIT 1",
        (TYPE_NUMBERS.get(type), upto),
    ).fetchone()
    return row[0].hex() if row else None


@storage_errors
def current(
    connection: sqlite3.Connection, type: str | None, upto: int, after: ResourceId | None, count: int
) -> list[Version]:
    """The next so many resources `after` one, by type and id, that are there and not deleted."""
    where = "" if type is None else "AND r.type = :type"
    if after is not None:
        where += " AND (r.type, r.id) > (:after_type, :after_id)"
    rows = connection.execute(
        f"""{_SELECT} WHERE v.blob IS NOT NULL {where} AND v.version = CASE
          WHEN (SELECT n.sequence FROM versions n WHERE n.resource = r.key AND n.version = r.version) <= :upto
          THEN r.version
          ELSE (SELECT max(o.version) FROM versions o WHERE o.resource = r.key AND o.sequence <= :upto) END
        ORDER BY r.type, r.id LIMIT :count""",
        {
            "type": TYPE_NUMBERS.get(type or ""),
            "upto": upto,
            "after_type": TYPE_NUMBERS[after.type] if after else None,
            "after_id": after.id if after else None,
            "count": count,
        },
    )
    return [_version(row) for row in rows]


# Histories


@storage_errors
def instance_history(
    connection: sqlite3.Connection, resource_id: ResourceId, period: Period, cursor: Cursor | None, count: int
) -> tuple[list[Version], int]:
    """A page of one resource's history, newest first, and how many versions there are in all."""
    last = _last_version(connection, resource_id, period.last)
    first = _last_version(connection, resource_id, period.first - 1) + (0 if period.current else 1)
    first = max(first, 1, _last_version(connection, resource_id, period.since - 1) + 1)
    low, high, order = first, last, "DESC"
    if cursor is not None and cursor.newer:
        low, order = max(low, cursor.first + 1), "ASC"
    elif cursor is not None:
        high = min(high, cursor.first - 1)
    selected = "r.type = :type AND r.id = :id AND v.version BETWEEN :low AND :high AND v.purged IS NULL"
    values = {"type": TYPE_NUMBERS.get(resource_id.type), "id": resource_id.id, "author": period.author}
    # Counters have no gaps, so only what was purged needs to be counted.
    total = max(0, last - first + 1) - _purged(connection, resource_id, first, last)
    if period.author is not None:
        selected += f" AND {_BY_AUTHOR}"
        total = _count(connection, selected, values | {"low": first, "high": last})
    rows = connection.execute(
        f"{_SELECT} WHERE {selected} ORDER BY v.version {order} LIMIT :count",
        values | {"low": low, "high": high, "count": count},
    )
    return _newest_first(rows, order), total


@storage_errors
def history(
    connection: sqlite3.Connection,
    type: str | None,
    period: Period,
    cursor: Cursor | None,
    count: int,
    resources: Sequence[int] | None = None,
) -> tuple[list[Version], int | None]:
    """A page of a type's history or of everything, newest first, and how many versions there are in all.

    `resources` are keys of the index: of these alone, then, and the number is still that of all. It is None where it
    would take too long to tell.
    """
    conditions, order = [periods.IN_PERIOD, "v.purged IS NULL"], "DESC"
    values: dict[str, Any] = {
        "oldest": period.oldest,
        "first": period.first,
        "last": period.last,
        "count": count,
    }
    if resources is not None:
        conditions.append("v.resource IN (SELECT value FROM json_each(:resources))")
        values["resources"] = json.dumps(list(resources))
    if cursor is not None:
        conditions.append(f"(v.sequence, v.position) {'>' if cursor.newer else '<'} (:sequence, :position)")
        values |= {"sequence": cursor.first, "position": cursor.second}
        # No index is entered by a pair: without a bound of its own all that lies before the page would be read.
        bound, nearer = ("oldest", max) if cursor.newer else ("last", min)
        values[bound] = nearer(values[bound], cursor.first)
        order = "ASC" if cursor.newer else "DESC"
    rows: list[Any] = []
    parts = periods.parts(connection, type, period.author)
    for part in parts:
        where = " AND ".join([periods.condition(part), *conditions])
        query = f"{_SELECT} WHERE {where} ORDER BY v.sequence {order}, v.position {order} LIMIT :count"
        rows += connection.execute(query, values)
    rows.sort(key=lambda row: (row[_SEQUENCE], row[_POSITION]), reverse=order == "DESC")
    return _newest_first(rows[:count], order), periods.total(connection, period, parts)


def _purged(connection: sqlite3.Connection, resource_id: ResourceId, first: int, last: int) -> int:
    row = connection.execute(
        "SELECT count(*) FROM resources r JOIN versions v INDEXED BY versions_purged ON v.resource = r.key"
        " WHERE r.type = ? AND r.id = ? AND v.version BETWEEN ? AND ? AND v.purged IS NOT NULL",
        (TYPE_NUMBERS.get(resource_id.type), resource_id.id, first, last),
    ).fetchone()
    return int(row[0])


def _count(connection: sqlite3.Connection, selected: str, values: Mapping[str, object]) -> int:
    return int(connection.execute(f"SELECT count(*) {_FROM} WHERE {selected}", values).fetchone()[0])


def _newest_first(rows: Iterable[Sequence[Any]], order: str) -> list[Version]:
    found = [_version(row) for row in rows]
    return found if order == "DESC" else found[::-1]


def _last_version(connection: sqlite3.Connection, resource_id: ResourceId, upto: int) -> int:
    """The number of the last version up to a commit, 0 where there is none: found by halving, as numbers have no gaps."""
    row = connection.execute(
        "SELECT key, version FROM resources WHERE type = ? AND id = ?",
        (TYPE_NUMBERS.get(resource_id.type), resource_id.id),
    ).fetchone()
    if row is None:
        return 0
    key, high = row
    if upto < 1:
        return 0
    low, probe = 0, high
    while low < high:
        (sequence,) = connection.execute(
            "SELECT sequence FROM versions WHERE resource = ? AND version = ?", (key, probe)
        ).fetchone()
        if sequence <= upto:
            low = probe
        else:
            high = probe - 1
        probe = (low + high + 1) // 2
    return int(low)


def _version(row: Sequence[Any]) -> Version:
    type, id, number, verb, created, blob, position, purged, *commit = row
    return Version(
        ResourceId(RESOURCE_TYPES[type], id),
        number,
        VERBS[verb],
        bool(created),
        blob.hex() if blob is not None else None,
        _commit(commit),
        position,
        purged,
    )


def _commit(row: list[Any] | tuple[Any, ...]) -> Commit:
    sequence, id, last_updated, interaction, name, email, request_id, idempotency = row
    return Commit(
        id.hex(),
        sequence,
        last_updated,
        interaction,
        Author(name, email),
        request_id,
        Idempotency.parse(idempotency) if idempotency else None,
    )
