"""What is brought onto a page beside its matches: _include and _revinclude.

https://hl7.org/fhir/R4/search.html#revinclude
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from gitstore.errors import TooCostly
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId, VersionId, parse_version_id
from gitstore.search import versions
from gitstore.search.filters import Include, Query
from gitstore.search.index import storage_errors
from gitstore.search.links import Canonicals, same_canonical
from gitstore.search.properties import typed
from gitstore.search.select import Match
from gitstore.search.sql import Sql, among, sql
from gitstore.version import Version


@storage_errors
def include(
    connection: sqlite3.Connection,
    query: Query,
    matches: Sequence[Match],
    limit: int,
    seen: Callable[[Sequence[int]], set[int]] | None = None,
) -> list[Version]:
    """The resources that the query's includes bring in, without the matches and each once.

    `seen` says which resources, by their keys, may be brought in; the rest is as if it weren't there.

    A reference to a version brings in that version. What is deleted or not there is left out.
    Raises TooCostly where they are more than the limit.
    """
    return _Including(connection, query.includes, limit, seen).all(matches)


class _Including:
    def __init__(
        self,
        connection: sqlite3.Connection,
        includes: Sequence[Include],
        limit: int,
        visible: Callable[[Sequence[int]], set[int]] | None,
    ) -> None:
        self._connection = connection
        self._includes = includes
        self._limit = limit
        self._visible = visible
        self._seen: dict[int, None] = {}
        """Keys of resources whose newest version is there: the matches, then what is brought in."""
        self._past: dict[tuple[ResourceId, VersionId], None] = {}
        """Versions that references name."""

    def all(self, matches: Sequence[Match]) -> list[Version]:
        if not self._includes:
            return []
        there = {match.version.resource_id: match.version.version_id for match in matches}
        matched = versions.keys_of(self._connection, there)
        self._seen = dict.fromkeys(matched)
        sources, includes = matched, self._includes
        while sources and includes:
            before = len(self._seen)
            for each in includes:
                self._seen |= dict.fromkeys(self._allowed(self._found(each, sources)))
                if len(self._seen) - len(matched) + len(self._past) > self._limit:
                    raise TooCostly(
                        f"More than {self._limit} resources would be included. Ask for smaller pages."
                    )
            sources = list(self._seen)[before:]
            includes = [each for each in self._includes if each.iterate]
        brought = list(self._seen)[len(matched) :]
        newest = versions.newest_of(self._connection, brought)
        included = [newest[key] for key in brought]
        there |= {version.resource_id: version.version_id for version in included}
        return [*included, *self._versioned(there)]

    def _allowed(self, found: Iterator[int]) -> Iterable[int]:
        if self._visible is None:
            return found
        new = [key for key in found if key not in self._seen]
        visible = self._visible(new) if new else set()
        return [key for key in new if key in visible]

    def _versioned(self, there: dict[ResourceId, VersionId]) -> Iterator[Version]:
        """The versions that were named, but for those that are there already."""
        newest = versions.tip(self._connection)
        for resource_id, number in self._past:
            if newest is None or there.get(resource_id) == number:
                continue
            found = versions.version(self._connection, resource_id, number, newest.sequence)
            if found is not None and not found.deleted:
                yield found

    def _found(self, each: Include, sources: Sequence[int]) -> Iterator[int]:
        """The keys of what one include finds; where a reference names a version, that is noted."""
        yield from self._referring(each, sources) if each.reverse else self._referred(each, sources)
        if each.urls:
            yield from self._by_url(each, sources)

    def _referred(self, each: Include, sources: Sequence[int]) -> Iterator[int]:
        query = sql(
            "SELECT DISTINCT r.key, r.type, r.id, f.version, r.deleted FROM refs f"
            " CROSS JOIN resources r ON r.key = f.target WHERE {} AND {} AND f.target > 0 AND {}"
            " ORDER BY r.key, f.version",
            among("f.resource", sources),
            among("f.parameter", each.keys),
            typed("+r.type", each.types),
        )
        for key, type, id, version, deleted in self._run(query):
            if not version:
                if not deleted:
                    yield key
            elif (number := parse_version_id(version)) is not None:
                self._past[ResourceId(RESOURCE_TYPES[type], id), number] = None

    def _referring(self, each: Include, sources: Sequence[int]) -> Iterator[int]:
        query = sql(
            "SELECT DISTINCT r.key FROM refs f CROSS JOIN resources r ON r.key = f.resource"
            " WHERE {} AND {} AND r.deleted = 0 AND {} ORDER BY r.key",
            among("f.parameter", each.keys),
            among("f.target", sources),
            typed("+r.type", each.types),
        )
        return (key for (key,) in self._run(query))

    def _by_url(self, each: Include, sources: Sequence[int]) -> Iterator[int]:
        """Along canonicals, in either direction."""
        if each.reverse:
            start, end, tables = "s", "f", "strings s CROSS JOIN urls su CROSS JOIN refs f"
        else:
            start, end, tables = "f", "s", "refs f CROSS JOIN urls su CROSS JOIN strings s"
        query = sql(
            f"SELECT DISTINCT r.key FROM {tables} CROSS JOIN resources r ON r.key = {end}.resource"
            " WHERE {} AND {} AND {} AND r.deleted = 0 AND {} ORDER BY r.key",
            among(f"{start}.resource", sources),
            among("f.parameter", each.keys),
            same_canonical("f", "s", Canonicals(each.urls, each.versions)),
            typed("+r.type", each.types),
        )
        return (key for (key,) in self._run(query))

    def _run(self, query: Sql) -> sqlite3.Cursor:
        # As many as show that the limit is passed, and not a million.
        enough = len(self._seen) + len(self._past) + self._limit + 1
        return self._connection.execute(f"{query.text} LIMIT ?", (*query.values, enough))
