"""What resources say, in the tables of the search index: rows go in with a new version, and out with the next one."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Hashable, Iterator
from typing import TypeAlias, TypeVar

from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.search.rows import TYPE_NUMBERS, Contained, Rows
from gitstore.search.tokens import term_code

VALUES = ("tokens", "strings", "dates", "quantities", "refs", "positions")
"""The tables that hold the values of resources."""
_COLUMNS = {
    "tokens": "resource, parameter, term, element",
    "strings": "resource, parameter, value, exact, element",
    "dates": "resource, parameter, low, high, span, element",
    "quantities": "resource, parameter, unit, low, high, element",
    "refs": "resource, parameter, target, version, element",
    "positions": "resource, parameter, latitude, longitude",
}
_SELECT = {table: f"SELECT {columns} FROM {table} WHERE resource = ?" for table, columns in _COLUMNS.items()}
_INSERT = {
    table: f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(columns.split()))})"
    for table, columns in _COLUMNS.items()
}
_DELETE = {
    table: f"DELETE FROM {table} WHERE {columns.replace(', ', ' = ? AND ')} = ?"
    for table, columns in _COLUMNS.items()
}
_MOST_KNOWN = 200_000

_K = TypeVar("_K", bound=Hashable)
_Record: TypeAlias = tuple[object, ...]
"""A row as its table has it."""


class Keys:
    """The keys of terms, units, URLs and resources, as one connection has met them.

    They are never taken away again, but what a transaction adds is gone when that is rolled back: `forget`. No more
    are remembered than memory has room for; the others are looked up again.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}
        self._young: dict[Hashable, int] = {}

    def key(self, name: _K, look_up: Callable[[_K], int]) -> int:
        key = self._known.get(name) or self._young.get(name)
        if key is None:
            key = look_up(name)
            # A rebuild is one transaction, however many resources there are.
            if len(self._young) >= _MOST_KNOWN:
                self._young.clear()
            self._young[name] = key
        return key

    def keep(self) -> None:
        """What was met is there for good: the transaction is committed."""
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known |= self._young
        self._young.clear()

    def forget(self) -> None:
        """What was met may not be there: a transaction, or a part of it, is rolled back."""
        self._young.clear()


class Contents:
    """Writes the rows of resources, over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.keys = Keys()
        self._connection = connection

    def put(self, resource: int, rows: Rows) -> None:
        """Add the rows of a resource, which has none."""
        for table, records in self._records(resource, rows, 1):
            self._connection.executemany(_INSERT[table], records)
        self._put_text(resource, rows)
        self._put_contained(resource, rows)

    def replace(self, resource: int, rows: Rows) -> None:
        """Put these rows in the place of those that the resource has. Most are the same, and are left alone."""
        many = self._connection.executemany
        wanted = dict(self._records(resource, rows, 1))
        for table in VALUES:
            standing = set(self._connection.execute(_SELECT[table], (resource,)))
            records = set(wanted.get(table, ()))
            if records != standing:
                many(_DELETE[table], standing - records)
                many(_INSERT[table], records - standing)
        self._remove_contained(resource)
        digest = self._connection.execute(
            "SELECT digest FROM texts WHERE resource = ?", (resource,)
        ).fetchone()
        if (digest[0] if digest else None) != _digest(rows):
            self._connection.execute("DELETE FROM texts WHERE resource = ?", (resource,))
            self._put_text(resource, rows)
        self._put_contained(resource, rows)

    def remove(self, resource: int) -> None:
        """Take out all rows of a resource."""
        self._remove_values(resource)
        self._remove_contained(resource)
        self._connection.execute("DELETE FROM texts WHERE resource = ?", (resource,))

    def _remove_values(self, resource: int) -> None:
        for table in VALUES:
            self._connection.execute(f"DELETE FROM {table} WHERE resource = ?", (resource,))

    def _remove_contained(self, resource: int) -> None:
        execute = self._connection.execute
        contained = execute("SELECT key FROM contained WHERE container = ?", (resource,)).fetchall()
        for (key,) in contained:
            self._remove_values(key)
        if contained:
            execute("DELETE FROM contained WHERE container = ?", (resource,))

    def _put_text(self, resource: int, rows: Rows) -> None:
        if (digest := _digest(rows)) is not None:
            key = self._insert("INSERT INTO texts (resource, digest) VALUES (?, ?)", resource, digest)
            self._connection.execute(
                "INSERT INTO words (rowid, narrative, content) VALUES (?, ?, ?)",
                (key, rows.narrative, rows.content),
            )

    def _put_contained(self, resource: int, rows: Rows) -> None:
        for contained in rows.contained:
            key = self._contained_key(resource, contained)
            for table, records in self._records(key, contained.rows, -1):
                self._connection.executemany(_INSERT[table], records)

    def _records(self, resource: int, rows: Rows, sign: int) -> Iterator[tuple[str, list[_Record]]]:
        """The rows for each table that gets any; `sign` is -1 for a contained resource, whose parameters are negated."""
        if rows.tokens:
            yield (
                "tokens",
                [
                    (resource, sign * parameter, self.keys.key(("term", system, code), self._term), element)
                    for parameter, system, code, element in rows.tokens
                ],
            )
        if rows.strings:
            yield "strings", [(resource, sign * parameter, *row) for parameter, *row in rows.strings]
        if rows.dates:
            yield (
                "dates",
                [
                    (resource, sign * parameter, low, high, span, element)
                    for parameter, span, low, high, element in rows.dates
                ],
            )
        if rows.quantities:
            yield (
                "quantities",
                [
                    (
                        resource,
                        sign * parameter,
                        self.keys.key(("unit", system, code), self._unit),
                        low,
                        high,
                        element,
                    )
                    for parameter, system, code, low, high, element in rows.quantities
                ],
            )
        if rows.references:
            yield (
                "refs",
                [
                    (resource, sign * parameter, self._target(type, name), version or "", element)
                    for parameter, type, name, version, element in rows.references
                ],
            )
        if rows.positions:
            yield "positions", [(resource, sign * parameter, *row) for parameter, *row in rows.positions]

    def _contained_key(self, container: int, contained: Contained) -> int:
        (least,) = self._connection.execute("SELECT min(key) FROM contained").fetchone()
        key: int = (least or 0) - 1
        self._connection.execute(
            "INSERT INTO contained VALUES (?, ?, ?, ?)",
            (key, container, TYPE_NUMBERS[contained.type], contained.id),
        )
        return key

    def _target(self, type: str | None, name: str) -> int:
        if type is None:
            return -self.keys.key(("url", name), self._url)
        return self.keys.key((type, name), self._resource)

    # Each finds the key of what is there, or adds it.

    def _term(self, name: tuple[str, str, str]) -> int:
        _, system, code = name
        system_key = self.keys.key(("system", system), self._system)
        return self._find(
            "SELECT key FROM terms WHERE code = ? AND system = ?",
            "INSERT INTO terms (code, system) VALUES (?, ?)",
            code,
            system_key,
        )

    def _system(self, name: tuple[str, str]) -> int:
        system = name[1]
        found = self._connection.execute("SELECT key FROM systems WHERE system = ?", (system,)).fetchone()
        if found:
            return int(found[0])
        return self._insert(
            "INSERT INTO systems (system, case_sensitive) VALUES (?, ?)",
            system,
            term_code(system, "A") == "A",
        )

    def _unit(self, name: tuple[str, str, str]) -> int:
        return self._find(
            "SELECT key FROM units WHERE code = ? AND system = ?",
            "INSERT INTO units (code, system) VALUES (?, ?)",
            name[2],
            name[1],
        )

    def _url(self, name: tuple[str, str]) -> int:
        return self._find("SELECT key FROM urls WHERE url = ?", "INSERT INTO urls (url) VALUES (?)", name[1])

    def _resource(self, name: tuple[str, str]) -> int:
        """A resource that is referred to has a key, whether it is there or not."""
        return self._find(
            "SELECT key FROM resources WHERE type = ? AND id = ?",
            "INSERT INTO resources (type, id, version, deleted, sequence) VALUES (?, ?, 0, 1, 0)",
            TYPE_NUMBERS[name[0]],
            name[1],
        )

    def _find(self, select: str, insert: str, *values: int | str) -> int:
        found = self._connection.execute(select, values).fetchone()
        return int(found[0]) if found else self._insert(insert, *values)

    def _insert(self, insert: str, *values: int | str) -> int:
        key = self._connection.execute(insert, values).lastrowid
        assert key is not None
        return key


def _digest(rows: Rows) -> int | None:
    """Tells whether a text has changed; None where there is none."""
    if not rows.narrative and not rows.content:
        return None
    text = f"{rows.narrative}\0{rows.content}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)


# Reading back, to tell whether the index says what it should

_READ = {
    "tokens": """SELECT t.parameter, s.system, m.code, t.element FROM tokens t
        JOIN terms m ON m.key = t.term JOIN systems s ON s.key = m.system WHERE t.resource = ?""",
    "strings": "SELECT parameter, value, exact, element FROM strings WHERE resource = ?",
    "dates": "SELECT parameter, span, low, high, element FROM dates WHERE resource = ?",
    "quantities": """SELECT q.parameter, u.system, u.code, q.low, q.high, q.element FROM quantities q
        JOIN units u ON u.key = q.unit WHERE q.resource = ?""",
    "references": """SELECT f.parameter, r.type, coalesce(r.id, u.url), f.version, f.element FROM refs f
        LEFT JOIN resources r ON r.key = f.target LEFT JOIN urls u ON u.key = -f.target WHERE f.resource = ?""",
    "positions": "SELECT parameter, latitude, longitude FROM positions WHERE resource = ?",
}
"""The rows of one resource in each table, in the form that `Rows` has."""


def stored(connection: sqlite3.Connection, resource: int) -> set[tuple[object, ...]]:
    """What the index holds of a resource, of the words of its text only a digest: one tuple for each row."""
    contained = connection.execute("SELECT key, type, id FROM contained WHERE container = ?", (resource,))
    found = _read(connection, resource, 1, "")
    texts = connection.execute("SELECT digest FROM texts WHERE resource = ?", (resource,))
    found |= {("text", digest) for (digest,) in texts}
    for key, type, id in contained.fetchall():
        found |= {("contained", RESOURCE_TYPES[type], id), *_read(connection, key, -1, id)}
    return found


def _read(connection: sqlite3.Connection, resource: int, sign: int, within: str) -> set[tuple[object, ...]]:
    return {
        (table, within, sign * parameter, *rest)
        for table, query in _READ.items()
        for parameter, *rest in connection.execute(query, (resource,))
    }


def meant(rows: Rows, within: str = "") -> set[tuple[object, ...]]:
    """What the index should hold, in the form of `stored`."""
    found: set[tuple[object, ...]] = {
        ("references", within, parameter, TYPE_NUMBERS[type] if type else None, name, version or "", element)
        for parameter, type, name, version, element in rows.references
    }
    if not within and (digest := _digest(rows)) is not None:
        found.add(("text", digest))
    for table in ("tokens", "strings", "dates", "quantities", "positions"):
        found |= {(table, within, *row) for row in getattr(rows, table)}
    for contained in rows.contained:
        found |= {("contained", contained.type, contained.id), *meant(contained.rows, contained.id)}
    return found
