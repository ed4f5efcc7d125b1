"""Whether the index agrees with itself: what it counts and remembers must follow from the versions that it holds."""

from __future__ import annotations

import sqlite3

from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.search.index import storage_errors

_CHECKS = {
    "its newest version is not the last of its versions": """
        SELECT r.type, r.id, 'resource' FROM resources r
        WHERE r.version <> coalesce((SELECT max(v.version) FROM versions v WHERE v.resource = r.key), 0)""",
    "it is deleted or not, and its last version says otherwise": """
        SELECT r.type, r.id, 'resource' FROM resources r
        JOIN versions v ON v.resource = r.key AND v.version = r.version WHERE r.deleted <> (v.blob IS NULL)""",
    "it never was, and is not said to be deleted": """
        SELECT type, id, 'resource' FROM resources WHERE version = 0 AND (deleted, sequence) <> (1, 0)""",
    "its newest version is of another commit": """
        SELECT r.type, r.id, 'resource' FROM resources r
        JOIN versions v ON v.resource = r.key AND v.version = r.version WHERE v.sequence <> r.sequence""",
    "a version of it is of another type": """
        SELECT r.type, r.id, 'resource' FROM versions v LEFT JOIN resources r ON r.key = v.resource
        WHERE v.type IS NOT r.type""",
    "whether it was created does not follow from the version before it": """
        SELECT v.type, r.id, v.version FROM versions v JOIN resources r ON r.key = v.resource
        LEFT JOIN versions b ON b.resource = v.resource AND b.version = v.version - 1
        WHERE v.created <> (v.blob IS NOT NULL AND b.blob IS NULL AND (b.purged IS NULL OR b.verb = 2
          OR b.purged BETWEEN 1 AND v.sequence))""",
    "it was purged, and something of it is there": """
        SELECT v.type, r.id, v.version FROM versions v JOIN resources r ON r.key = v.resource
        WHERE v.purged IS NOT NULL AND v.blob IS NOT NULL""",
    "a version of it has another author than its commit": """
        SELECT v.type, r.id, v.version FROM versions v JOIN resources r ON r.key = v.resource
        JOIN commits c ON c.sequence = v.sequence WHERE v.author <> c.author""",
    "it is miscounted among the versions of its type": """
        SELECT type, id, version FROM (
          SELECT v.type, r.id, v.version, v.ordinal,
            sum(v.purged IS NULL) OVER (PARTITION BY v.type ORDER BY v.sequence, v.position) AS counted
          FROM versions v JOIN resources r ON r.key = v.resource)
        WHERE ordinal <> counted""",
    "it is miscounted among the versions of its type by its author": """
        SELECT type, id, version FROM (
          SELECT v.type, r.id, v.version, v.authored,
            sum(v.purged IS NULL) OVER (PARTITION BY v.author, v.type ORDER BY v.sequence, v.position) AS counted
          FROM versions v JOIN resources r ON r.key = v.resource)
        WHERE authored <> counted""",
    "the resources of its type up to it are miscounted": """
        SELECT type, id, version FROM (
          SELECT v.type, r.id, v.version, v.known, v.present, sum(v.version = 1) OVER earlier AS counted,
            sum((v.blob IS NOT NULL) - (b.blob IS NOT NULL)) OVER earlier AS there
          FROM versions v JOIN resources r ON r.key = v.resource
          LEFT JOIN versions b ON b.resource = v.resource AND b.version = v.version - 1
          WINDOW earlier AS (PARTITION BY v.type ORDER BY v.sequence, v.position))
        WHERE (known, present) <> (counted, there)""",
    "the versions up to it are miscounted": """
        SELECT NULL, sequence, 'commit' FROM (
          SELECT c.sequence, c.versions, sum(count(v.version)) OVER (ORDER BY c.sequence) AS counted
          FROM commits c LEFT JOIN versions v ON v.sequence = c.sequence AND v.purged IS NULL GROUP BY c.sequence)
        WHERE versions <> counted""",
}
"""What is wrong -> the rows of which it is true: type, id, and a version or which kind of row it is."""


@storage_errors
def contradictions(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Where, and what is wrong there."""
    found = []
    for text, query in _CHECKS.items():
        for type, id, row in connection.execute(query):
            if row == "commit":
                found.append((f"commit number {id}", text))
            else:
                name = f"{RESOURCE_TYPES[type] if type is not None else '?'}/{id}"
                found.append((name if row == "resource" else f"{name}/_history/{row}", text))
    return found
