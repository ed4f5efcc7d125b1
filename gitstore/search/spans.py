"""What changed in a span of the record: one row for each resource that has a version in it, whatever happened between.

The span is a range of sequences, so nothing is walked but the versions in it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId
from gitstore.search.index import storage_errors
from gitstore.search.rows import TYPE_NUMBERS
from gitstore.search.versions import Cursor


@dataclass(frozen=True, slots=True)
class Span:
    """The numbers of a resource's version at the beginning, 0 where there was none, and at the end of the span."""

    resource_id: ResourceId
    first: int
    last: int


@storage_errors
def spans(
    connection: sqlite3.Connection,
    after: int,
    upto: int,
    types: Sequence[str],
    cursor: Cursor | None,
    count: int,
) -> list[Span]:
    """A page of the resources that are not at the sequence `upto` what they were at `after`, the newest change first.

    Left out is what was absent at both. Of all types where none is given; `cursor` is the place of the last one before.
    """
    conditions = ""
    if types:
        conditions += " AND v.type IN (SELECT value FROM json_each(:types))"
    if cursor is not None:
        conditions += " AND (v.sequence, v.position) < (:sequence, :position)"
    rows = connection.execute(
        f"""SELECT r.type, r.id, coalesce((SELECT o.version FROM versions o WHERE o.resource = v.resource
              AND o.version < v.version AND o.sequence <= :after ORDER BY o.version DESC LIMIT 1), 0), v.version
        FROM versions v JOIN resources r ON r.key = v.resource
        WHERE v.sequence > :after AND v.sequence <= :upto AND v.purged IS NULL {conditions}
          AND NOT EXISTS (SELECT 1 FROM versions n
            WHERE n.resource = v.resource AND n.version = v.version + 1 AND n.sequence <= :upto)
          AND (v.blob IS NOT NULL OR (SELECT o.blob IS NOT NULL FROM versions o WHERE o.resource = v.resource
            AND o.version < v.version AND o.sequence <= :after ORDER BY o.version DESC LIMIT 1))
        ORDER BY v.sequence DESC, v.position DESC LIMIT :count""",
        {
            "after": after,
            "upto": upto,
            "types": json.dumps([TYPE_NUMBERS[type] for type in types]),
            "sequence": cursor.first if cursor else 0,
            "position": cursor.second if cursor else 0,
            "count": count,
        },
    )
    return [Span(ResourceId(RESOURCE_TYPES[type], id), first, last) for type, id, first, last in rows]
