"""Whether an access sees one resource, one version of it, or content that nobody has written yet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache

from gitstore.access import Access
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git.repository import Repository
from gitstore.search import index, select, versions
from gitstore.search.extract import extract
from gitstore.search.filters import All, Ids
from gitstore.search.index import Connection
from gitstore.search.rows import Rows
from gitstore.search.sight import EVERYTHING, NOTHING, Sight
from gitstore.version import Version

_REMEMBERED = 10_000


class Seeing:
    """The judgements of one `sight`, for as long as the search parameters stay as they are.

    A version is seen where its own content may be seen, and that of the newest version: a resource that was taken out
    of a compartment, as it never belonged there, takes its past with it.
    """

    def __init__(self, sight: Sight, repository: Repository) -> None:
        self.sight = sight
        self._unlabelled = Sight(Access(sight.access.grants), sight.registry)
        self._repository = repository
        # What a blob says never changes.
        self._is_seen_blob = lru_cache(_REMEMBERED)(self._judge_blob)

    def resource(self, connection: Connection, letter: str, resource_id: ResourceId) -> bool:
        """Whether a resource, as it is now or was when it was deleted, is seen. The connection is in a transaction."""
        limit = self.sight.limit(letter, (resource_id.type,))
        if limit in (EVERYTHING, NOTHING):
            return limit == EVERYTHING
        found = _newest(connection, resource_id)
        if found is None:
            return False
        if found.deleted:
            return self._is_seen(connection, letter, found)
        filter = All((Ids((resource_id.id,)), limit))
        return bool(select.matching(connection, filter, resource_id.type, 1))

    def version(self, connection: Connection, version: Version) -> bool:
        """Whether a version may be read; a deletion where what was deleted may be."""
        if not self.sight.access.history and not _is_newest(connection, version):
            return False
        return self._is_seen(connection, "r", version) and self.resource(connection, "r", version.resource_id)

    def rows(self, letter: str, resource_id: ResourceId, rows: Rows) -> bool:
        """Whether content that isn't in the record would be seen, by what searches would find it by.

        Labels that withhold it make no difference: whoever may write a resource may give it any label.
        """
        return _fits(self._unlabelled, letter, resource_id, rows)

    def keys(self, connection: Connection, letter: str, keys: Sequence[int]) -> set[int]:
        """Those of the resources, by their keys in the index, that are seen now."""
        found = versions.newest_of(connection, keys)
        return {
            key for key, version in found.items() if self.resource(connection, letter, version.resource_id)
        }

    def _is_seen(self, connection: Connection, letter: str, version: Version) -> bool:
        limit = self.sight.limit(letter, (version.resource_id.type,))
        if limit in (EVERYTHING, NOTHING):
            return limit == EVERYTHING
        if version.purged is not None:
            return False  # what it said is not known any more
        if version.deleted:
            before = versions.version(
                connection, version.resource_id, VersionId(version.version_id - 1), version.commit.sequence
            )
            return before is not None and not before.deleted and self._is_seen(connection, letter, before)
        return self._is_seen_blob(letter, version.resource_id, version.blob or "")

    def _judge_blob(self, letter: str, resource_id: ResourceId, blob: str) -> bool:
        registry = self.sight.registry
        if registry is None:
            return False
        rows = extract(registry, json.loads_trusted(self._repository.blob(blob)))
        return _fits(self.sight, letter, resource_id, rows)


def _newest(connection: Connection, resource_id: ResourceId) -> Version | None:
    tip = versions.tip(connection)
    return versions.newest(connection, resource_id, tip.sequence) if tip is not None else None


def _is_newest(connection: Connection, version: Version) -> bool:
    newest = _newest(connection, version.resource_id)
    return newest is not None and newest.version_id == version.version_id


def _fits(sight: Sight, letter: str, resource_id: ResourceId, rows: Rows) -> bool:
    limit = sight.limit(letter, (resource_id.type,))
    if limit in (EVERYTHING, NOTHING):
        return limit == EVERYTHING
    with closing(index.of_contents([(resource_id, rows)])) as alone:
        return bool(select.matching(alone, limit, resource_id.type, 1))
