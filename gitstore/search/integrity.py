"""Whether references lead to something, for records that insist on it (fhir.referentialIntegrity).

https://hl7.org/fhir/R4/http.html#transactional-integrity. All literal references of a resource to this server stand in
`refs` then, as those of parameter 0: not every reference has a search parameter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from gitstore.fhir import Resource
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId
from gitstore.fhir.references import references
from gitstore.search.rows import TYPE_NUMBERS, ReferenceRow
from gitstore.search.values import literal

ANY = 0
"""The parameter of all references."""


def rows_of(resource: Resource, base_url: str | None) -> list[ReferenceRow]:
    """Each resource of this server that a resource refers to, and in which version, without regard to where."""
    found = {row for _, text in references(resource) if (row := literal(text, base_url)) is not None}
    return [(ANY, type, id, version, 0) for type, id, version in sorted(found, key=str)]


def dangling(connection: sqlite3.Connection, resource_id: ResourceId) -> list[ResourceId]:
    """The resources that one refers to and that aren't there, or are deleted.

    A reference to a version needs none that is current: histories stay.
    """
    rows = connection.execute(
        """SELECT DISTINCT t.type, t.id FROM resources r
        JOIN refs f ON f.resource = r.key AND f.parameter = 0 JOIN resources t ON t.key = f.target
        WHERE r.type = ? AND r.id = ? AND t.deleted = 1 AND (f.version = '' OR t.version = 0) ORDER BY t.type, t.id""",
        (TYPE_NUMBERS[resource_id.type], resource_id.id),
    )
    return _named(rows.fetchall())


def referred(connection: sqlite3.Connection, resource_id: ResourceId) -> list[ResourceId]:
    """The resources that one refers to, be they there or not."""
    rows = connection.execute(
        """SELECT DISTINCT t.type, t.id FROM resources r
        JOIN refs f ON f.resource = r.key AND f.parameter = 0 JOIN resources t ON t.key = f.target
        WHERE r.type = ? AND r.id = ?""",
        (TYPE_NUMBERS[resource_id.type], resource_id.id),
    )
    return _named(rows.fetchall())


def referrers(connection: sqlite3.Connection, resource_id: ResourceId, limit: int) -> list[ResourceId]:
    """The first so many resources that refer to one, and not just to a version of it."""
    rows = connection.execute(
        """SELECT s.type, s.id FROM resources r JOIN refs f ON f.parameter = 0 AND f.target = r.key AND f.version = ''
        JOIN resources s ON s.key = f.resource
        WHERE r.type = ? AND r.id = ? AND s.key <> r.key ORDER BY s.type, s.id LIMIT ?""",
        (TYPE_NUMBERS[resource_id.type], resource_id.id, limit),
    )
    return _named(rows.fetchall())


def _named(rows: Sequence[tuple[int, str]]) -> list[ResourceId]:
    return [ResourceId(RESOURCE_TYPES[type], id) for type, id in rows]
