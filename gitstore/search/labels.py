"""Which profiles, tags and security labels there are among current resources, for `$meta` of more than one of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from gitstore.errors import TooCostly
from gitstore.search import versions
from gitstore.search.index import storage_errors
from gitstore.search.parameters import Registry
from gitstore.search.sql import among
from gitstore.version import Version

LIMIT = 1000
"""Of different labels."""

_LABELS = (("strings", "value", ("_profile",)), ("tokens", "term", ("_tag", "_security")))


@storage_errors
def carriers(connection: sqlite3.Connection, registry: Registry, types: Sequence[str]) -> list[Version]:
    """Resources of these types that together carry every label there is among them.

    The index has codes folded and no displays, so the labels themselves have to be read in the resources.
    Raises TooCostly where there are more than LIMIT labels.
    """
    found: dict[int, None] = {}
    for table, column, codes in _LABELS:
        named = [registry.find(type, code) for type in types for code in codes]
        keys = among("parameter", [each.key for each in named if each is not None])
        rows = connection.execute(
            f"SELECT min(resource) FROM {table} WHERE {keys.text} GROUP BY {column} LIMIT ?",
            (*keys.values, LIMIT + 1),
        ).fetchall()
        if len(rows) > LIMIT:
            raise TooCostly(
                f"There are more than {LIMIT} labels. Ask for those of one type, or of a resource."
            )
        found |= dict.fromkeys(key for (key,) in rows)
    newest = versions.newest_of(connection, list(found))
    return [newest[key] for key in sorted(found)]
