"""Answering a search from the index: pages of matches, how many there are, and what conditional interactions select.

Every function takes a connection inside a read transaction, so that what it says of one query belongs together.
https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from msgspec import Struct

from gitstore.errors import Invalid, Issue, TooCostly, Unavailable
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId
from gitstore.search import matches, versions
from gitstore.search.cursors import Cursor
from gitstore.search.filters import Filter, Query
from gitstore.search.index import storage_errors
from gitstore.search.matches import Row, Rows
from gitstore.search.plans import FEW
from gitstore.search.sql import among
from gitstore.version import Version

__all__ = ["Cursor", "Match", "Page", "limited", "matching", "page", "total"]

_PORTION = 2_000
"""Steps of a statement between two looks at the limit: a look takes a microsecond, and they are some 40 apart."""


class Match(Struct, frozen=True):
    """A resource that fits; `contained` is the id of the resource in it that fits, where that was asked for."""

    version: Version
    contained: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Matches in their order; the cursors lead to the pages beside it.

    `rows` is what was found out about the query on the way.
    """

    matches: list[Match]
    next: Cursor | None
    previous: Cursor | None
    rows: Rows | None = field(default=None, repr=False, compare=False)


@storage_errors
def page(
    connection: sqlite3.Connection,
    query: Query,
    count: int,
    cursor: Cursor | None = None,
    upto: int | None = None,
    *,
    few: int = FEW,
) -> Page:
    """So many matches after a cursor, or before it where it leads backward.

    Resources whose newest version is of a later commit than `upto`, a sequence, are left out. `few` is as in plans.
    Raises Invalid for a cursor of another search.
    """
    if cursor is not None and len(cursor.values) != len(query.sort):
        raise Invalid(Issue("error", "value", f"`{str(cursor)[:80]}` is no page of this search."))
    if count < 1:
        return Page([], None, None)
    backward = cursor is not None and cursor.backward
    # One more than asked for shows whether there is another page.
    wanted = Rows(connection, query, upto, few)
    found = wanted.after(cursor, count + 1)
    more = len(found) > count
    rows = found[:count][::-1] if backward else found[:count]
    following = preceding = None
    if rows and (more or backward):
        following = Cursor(rows[-1].values, rows[-1].key)
    if rows and (more if backward else cursor is not None):
        preceding = Cursor(rows[0].values, rows[0].key, backward=True)
    return Page(_matches(connection, rows), following, preceding, wanted)


def _matches(connection: sqlite3.Connection, rows: list[Row]) -> list[Match]:
    newest = versions.newest_of(connection, [row.resource for row in rows])
    return [Match(newest[row.resource], row.contained) for row in rows]


@storage_errors
def total(
    connection: sqlite3.Connection,
    query: Query,
    upto: int | None = None,
    *,
    page: Page | None = None,
    few: int = FEW,
) -> int:
    """How many matches there are on all pages. `page` is one of them, in the same state: what it knows is of use."""
    rows = page.rows if page is not None else None
    return matches.total(rows or Rows(connection, query, upto, few))


@storage_errors
def matching(
    connection: sqlite3.Connection, filter: Filter, type: str, limit: int = 2, *, few: int = FEW
) -> list[ResourceId]:
    """The first so many resources of the type that fit."""
    found = Rows(connection, Query((type,), filter), None, few).after(None, limit)
    condition = among("key", [row.key for row in found])
    rows = connection.execute(
        f"SELECT type, id FROM resources WHERE {condition.text} ORDER BY key", condition.values
    )
    return [ResourceId(RESOURCE_TYPES[number], id) for number, id in rows]


@contextmanager
def limited(connection: sqlite3.Connection, steps: int) -> Iterator[None]:
    """Let all statements in the block together take so many steps of SQLite's machine. Raises TooCostly beyond.

    A step is about 20 ns.
    """
    left = steps

    def portion() -> bool:
        nonlocal left
        left -= _PORTION
        return left < 0

    connection.set_progress_handler(portion, _PORTION)
    try:
        yield
    except (sqlite3.OperationalError, Unavailable) as error:
        if left >= 0:
            raise
        raise TooCostly(
            "This search takes too much work. Ask for something narrower, or without _sort."
        ) from error
    finally:
        connection.set_progress_handler(None, 0)
