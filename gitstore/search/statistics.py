"""Counting what the index holds, for `git fhir stats`: each number from one pass over one table."""

from __future__ import annotations

import sqlite3

from msgspec import Struct

from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.search.index import storage_errors

_NUMBER = (
    "version - (SELECT count(*) FROM versions v INDEXED BY versions_purged WHERE v.resource = r.key"
    " AND v.purged IS NOT NULL)"
)
"""How many versions a resource has: those that were purged have left gaps."""


class TypeCount(Struct, frozen=True):
    """Resources of one type: how many are current, how many deleted, and all versions of both."""

    type: str
    current: int
    deleted: int
    versions: int


class Month(Struct, frozen=True):
    """What was written in one month of UTC, such as `2026-02`."""

    month: str
    commits: int
    versions: int


@storage_errors
def by_type(connection: sqlite3.Connection) -> list[TypeCount]:
    """Counts for each type that was ever there, in the order of names."""
    rows = connection.execute(
        f"""SELECT type, sum(NOT deleted), sum(deleted AND number > 0), sum(number) FROM
             (SELECT type, deleted, {_NUMBER} AS number FROM resources r WHERE version > 0)
           GROUP BY type HAVING sum(number) > 0 ORDER BY type"""
    )
    return [TypeCount(RESOURCE_TYPES[type], *counts) for type, *counts in rows]


@storage_errors
def by_month(connection: sqlite3.Connection) -> list[Month]:
    """Counts for each month in which something was committed, the earliest first."""
    rows = connection.execute(
        """SELECT strftime('%Y-%m', last_updated / 1000000, 'unixepoch') AS month, count(*), max(versions)
           FROM commits GROUP BY month ORDER BY month"""
    )
    found, before = [], 0
    for month, commits, versions in rows:
        found.append(Month(month, commits, versions - before))
        before = versions
    return found


@storage_errors
def versions(connection: sqlite3.Connection) -> int:
    """How many versions there are, deletions included: a running count, so it costs nothing."""
    row = connection.execute("SELECT versions FROM commits ORDER BY sequence DESC LIMIT 1").fetchone()
    return int(row[0]) if row else 0


@storage_errors
def authors(connection: sqlite3.Connection) -> int:
    """How many authors have made a commit."""
    return int(connection.execute("SELECT count(*) FROM authors").fetchone()[0])


@storage_errors
def size(connection: sqlite3.Connection) -> int:
    """Bytes of the index."""
    (pages,), (page_size,) = (
        connection.execute(f"PRAGMA {pragma}").fetchone() for pragma in ("page_count", "page_size")
    )
    return int(pages * page_size)


@storage_errors
def longest(connection: sqlite3.Connection, count: int) -> list[tuple[ResourceId, VersionId]]:
    """The resources with the most versions, with how many they have."""
    rows = connection.execute(
        f"SELECT type, id, {_NUMBER} AS number FROM resources r WHERE version > 0 AND number > 0"
        " ORDER BY number DESC, type, id LIMIT ?",
        (count,),
    )
    return [(ResourceId(RESOURCE_TYPES[type], id), VersionId(version)) for type, id, version in rows]


@storage_errors
def blobs(connection: sqlite3.Connection) -> list[tuple[ResourceId, bytes]]:
    """Every current resource with the id of its file."""
    rows = connection.execute(
        """SELECT r.type, r.id, v.blob FROM resources r
           JOIN versions v ON v.resource = r.key AND v.version = r.version WHERE NOT r.deleted"""
    )
    return [(ResourceId(RESOURCE_TYPES[type], id), blob) for type, id, blob in rows]
