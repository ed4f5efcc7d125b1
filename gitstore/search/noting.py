"""What a commit does to the index: the one place that notes commits, versions and what searches find them by."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from gitstore.errors import RepositoryDamaged
from gitstore.fhir.ids import ResourceId
from gitstore.search.index import own, storage_errors
from gitstore.search.rows import TYPE_NUMBERS, VERBS, Rows
from gitstore.version import Author, Change, Commit, Purged, Version


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
    # All that can be refused is refused before the first row is written.
    standing = [_standing(connection, change, commit.id) for change in changes]
    author = _author_key(connection, commit.author)
    _note_commit(connection, commit, author, len(changes) - len(purged))
    made, keys = [], []
    for position, (change, blob, stands) in enumerate(zip(changes, blobs, standing, strict=True)):
        key, created = _advance(connection, stands, change, commit.sequence, deleted=blob is None)
        keys.append((key, stands.is_absent))
        gone = 0 if change.resource_id in purged else None
        version = Version(
            change.resource_id, change.version_id, change.verb, created, blob, commit, position, gone
        )
        _note_version(connection, key, author, version, stands)
        made.append(version)
    if contents is not None:
        # Last, as a reference to a resource of the same commit must find it.
        for (key, is_new), rows in zip(keys, contents, strict=True):
            renew(connection, key, rows, is_new=is_new)
    return made


def _note_commit(connection: sqlite3.Connection, commit: Commit, author: int, versions: int) -> None:
    connection.execute(
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
            versions,
            commit.sequence - 1,
        ),
    )


_COUNTED = """SELECT ordinal, known, present FROM versions WHERE type = ?
ORDER BY sequence DESC, position DESC LIMIT 1"""
_AUTHORED = """SELECT authored FROM versions WHERE author = ? AND type = ?
ORDER BY sequence DESC, position DESC LIMIT 1"""


class _Standing(NamedTuple):
    """How a resource stands before a commit: its key, None for a new one; whether it is deleted or new; whether it has a file.

    Once it has been purged neither of the last two is so.
    """

    key: int | None
    is_absent: bool
    has_file: bool


def _note_version(
    connection: sqlite3.Connection, key: int, author: int, version: Version, before: _Standing
) -> None:
    """Note a version of the resource `key`, with the counts up to it."""
    execute = connection.execute
    type = TYPE_NUMBERS[version.resource_id.type]
    ordinal, known, present = execute(_COUNTED, (type,)).fetchone() or (0, 0, 0)
    (authored,) = execute(_AUTHORED, (author, type)).fetchone() or (0,)
    counts = version.purged is None
    execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key,
            version.version_id,
            version.commit.sequence,
            version.position,
            type,
            author,
            ordinal + counts,
            authored + counts,
            known + (version.version_id == 1),
            present + (version.blob is not None) - before.has_file,
            VERBS.index(version.verb),
            version.created,
            bytes.fromhex(version.blob) if version.blob else None,
            version.purged,
        ),
    )


def _standing(connection: sqlite3.Connection, change: Change, commit: str) -> _Standing:
    """Raises RepositoryDamaged where the change doesn't make the next version of its resource."""
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
    is_absent = key is None or (bool(deleted) and not _was_there(connection, key, version))
    return _Standing(key, is_absent, not deleted)


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
    standing: _Standing,
    change: Change,
    sequence: int,
    *,
    deleted: bool,
) -> tuple[int, bool]:
    """Move a resource to its next version: its key, and whether it was not there before."""
    key = standing.key
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
    return key, standing.is_absent and not deleted


@storage_errors
def renew(connection: sqlite3.Connection, key: int, rows: Rows | None, *, is_new: bool = False) -> None:
    """Replace the contents of a resource by those of its newest version, None for a deletion."""
    contents = own(connection).contents
    if rows is None:
        contents.remove(key)
    elif is_new:
        contents.put(key, rows)
    else:
        contents.replace(key, rows)


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
