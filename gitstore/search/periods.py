"""Which versions of a history a period has, and how many: versions made, resources known, resources present.

Numbers are read off the running counts in `versions` at the two ends of a period, and almost nothing is counted one by
one: a total takes as long in a record of a million commits as in one of ten.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.search.index import storage_errors
from gitstore.search.rows import TYPE_NUMBERS

MOST_COUNTED = 20_000
"""Versions that are looked at for one total."""

Part: TypeAlias = dict[str, int]
"""A part of the record that an index has in the order of time: a column of `versions` -> what it is in all of that."""


class Period(Struct, frozen=True):
    """Which versions of a history are meant, by sequence, both ends included.

    With `current` those that were current at some time in it: also what was in force when it began, but for versions
    made before `since`. With `author`, a name or a mail address, only what they wrote.
    """

    first: int
    last: int
    current: bool = False
    since: int = 1
    author: str | None = None

    @property
    def oldest(self) -> int:
        """The sequence before which there is no version of the period."""
        return self.since if self.current else self.first


IN_PERIOD = """v.sequence BETWEEN :oldest AND :last AND (v.sequence >= :first OR NOT EXISTS
  (SELECT 1 FROM versions n WHERE n.resource = v.resource AND n.version = v.version + 1 AND n.sequence < :first))"""
"""Made in it, or in force when it began: the next version, if any, came later than that."""


@storage_errors
def parts(connection: sqlite3.Connection, type: str | None, author: str | None) -> list[Part]:
    """The parts that are the versions of a type, or of everything; or what one who has this name or mail address wrote of it."""
    if author is None:
        return [{} if type is None else {"type": _number(type)}]
    rows = connection.execute(
        """WITH RECURSIVE written(author, type) AS (
          SELECT a.key, (SELECT min(v.type) FROM versions v WHERE v.author = a.key)
          FROM authors a WHERE a.name = :author OR a.email = :author
          UNION ALL
          SELECT w.author, (SELECT min(v.type) FROM versions v WHERE v.author = w.author AND v.type > w.type)
          FROM written w WHERE w.type IS NOT NULL)
        SELECT author, type FROM written WHERE type IS NOT NULL AND (:type IS NULL OR type = :type)""",
        {"author": author, "type": None if type is None else _number(type)},
    )
    return [{"author": key, "type": number} for key, number in rows]


def condition(part: Part) -> str:
    """SQL for the versions `v` of a part."""
    return " AND ".join(f"v.{column} = {number}" for column, number in part.items()) or "TRUE"


@storage_errors
def total(connection: sqlite3.Connection, period: Period, within: Sequence[Part]) -> int | None:
    """How many versions of some parts a period has; None where too many would have to be looked at one by one."""
    first = max(period.first, period.since)
    found = 0
    if first <= period.last:
        found = _made(connection, within, period.last) - _made(connection, within, first - 1)
    if not period.current or period.since >= period.first:
        return found
    before = period.first - 1
    values = {"oldest": period.since, "last": before, "first": period.first}
    if period.since == 1 and period.author is None:
        # Of each resource that had come one version was in force; those that were purged are few, if any.
        purged = "v.purged IS NOT NULL"
        found += _known(connection, within, before)
        return found - _count(connection, within, f"INDEXED BY versions_purged WHERE {purged}", values)
    if _made(connection, within, before) - _made(connection, within, period.since - 1) > MOST_COUNTED:
        return None
    return found + _count(connection, within, "WHERE v.purged IS NULL", values)


@storage_errors
def counts(connection: sqlite3.Connection, upto: int) -> dict[str, int]:
    """How many resources of each type are there and not deleted; types without any are left out."""
    found = {type: _last(connection, {"type": _number(type)}, "present", upto) for type in RESOURCE_TYPES}
    return {type: number for type, number in found.items() if number}


def _made(connection: sqlite3.Connection, within: Sequence[Part], upto: int) -> int:
    """How many versions there were by then, without those that were purged."""
    if {} in within:
        query = "SELECT versions FROM commits WHERE sequence <= ? ORDER BY sequence DESC LIMIT 1"
        row = connection.execute(query, (upto,)).fetchone()
        return int(row[0]) if row else 0
    return sum(
        _last(connection, part, "authored" if "author" in part else "ordinal", upto) for part in within
    )


def _known(connection: sqlite3.Connection, within: Sequence[Part], upto: int) -> int:
    """How many resources had a version by then, be it deleted or purged."""
    typed = [{"type": _number(type)} for type in RESOURCE_TYPES] if {} in within else within
    return sum(_last(connection, part, "known", upto) for part in typed)


def _last(
    connection: sqlite3.Connection,
    part: Part,
    column: Literal["ordinal", "authored", "known", "present"],
    upto: int,
) -> int:
    """A running count as of a commit: what the last version before has."""
    where = " AND ".join(f"{name} = :{name}" for name in part)
    row = connection.execute(
        f"SELECT {column} FROM versions WHERE {where} AND sequence <= :upto"
        " ORDER BY sequence DESC, position DESC LIMIT 1",
        part | {"upto": upto},
    ).fetchone()
    return int(row[0]) if row else 0


def _count(connection: sqlite3.Connection, within: Sequence[Part], where: str, values: dict[str, int]) -> int:
    return sum(
        connection.execute(
            f"SELECT count(*) FROM versions v {where} AND {condition(part)} AND {IN_PERIOD}", values
        ).fetchone()[0]
        for part in within
    )


def _number(type: str) -> int:
    """A type that doesn't exist has a number that none has."""
    return TYPE_NUMBERS.get(type, -1)
