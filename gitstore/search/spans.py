"""What changed in a span of the record: one row for each resource that has a version in it, whatever happened between.

The span is a range of sequences, so nothing is walked but the versions in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId
from gitstore.search.index import storage_errors
from gitstore.search.rows import TYPE_NUMBERS
from gitstore.search.versions import Cursor


class Span(Struct, frozen=True):
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
    conditions = "" if cursor is None else " AND (v.sequence, v.position) < (:sequence, :position)"
    values = {
        "after": after,
        "upto": upto,
        # No index is entered by a pair: without a bound of its own all that lies before the page would be read.
        "newest": upto if cursor is None else min(upto, cursor.first),
        "sequence": cursor.first if cursor else 0,
        "position": cursor.second if cursor else 0,
        "count": count,
    }
    rows: list[tuple[int, int, int, str, int, int]] = []
    # One type after the other: of each an index has the versions in the order of time.
    for part in [f" AND v.type = {TYPE_NUMBERS[type]}" for type in dict.fromkeys(types)] or [""]:
        rows += connection.execute(_SPANS.format(conditions=conditions + part), values)
    rows.sort(reverse=True)
    return [
        Span(ResourceId(RESOURCE_TYPES[type], id), first, last) for *_, type, id, first, last in rows[:count]
    ]


_SPANS = """SELECT v.sequence, v.position, v.type, r.id, coalesce((SELECT o.version FROM versions o
  WHERE o.resource = v.resource AND o.version < v.version AND o.sequence <= :after ORDER BY o.version DESC LIMIT 1), 0),
  v.version
FROM versions v JOIN resources r ON r.key = v.resource
WHERE v.sequence > :after AND v.sequence <= :newest AND v.purged IS NULL {conditions}
  AND NOT EXISTS (SELECT 1 FROM versions n
    WHERE n.resource = v.resource AND n.version = v.version + 1 AND n.sequence <= :upto)
  AND (v.blob IS NOT NULL OR (SELECT o.blob IS NOT NULL FROM versions o WHERE o.resource = v.resource
    AND o.version < v.version AND o.sequence <= :after ORDER BY o.version DESC LIMIT 1))
ORDER BY v.sequence DESC, v.position DESC LIMIT :count"""
