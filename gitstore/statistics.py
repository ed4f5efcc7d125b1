"""A record in numbers: what is in it, how it grew, what it takes up."""

from __future__ import annotations

import heapq

from msgspec import Struct

from gitstore.errors import RepositoryDamaged
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git.repository import Repository
from gitstore.git.sizes import ObjectFiles, object_files, object_sizes
from gitstore.search import statistics, versions
from gitstore.search.index import Connection
from gitstore.search.statistics import Month, TypeCount
from gitstore.version import Commit

TOP = 5
"""How many of the largest resources and the longest histories are named."""


class Statistics(Struct, frozen=True):
    """The record as it is now."""

    types: list[TypeCount]
    authors: int
    first: Commit
    last: Commit
    months: list[Month]
    files: ObjectFiles
    index_bytes: int
    largest: list[tuple[ResourceId, int]]
    """Bytes of their files, the largest first."""
    longest: list[tuple[ResourceId, VersionId]]
    """How many versions they have, the most first."""

    @property
    def versions(self) -> int:
        """Of all resources, deletions included."""
        return sum(count.versions for count in self.types)


def take(repository: Repository, connection: Connection) -> Statistics:
    """Count. All comes from the index but for the sizes of files, which git knows."""
    first, last = versions.commit_at(connection, 1), versions.tip(connection)
    if first is None or last is None:
        raise RepositoryDamaged("The index holds no commit. `git fhir reindex` makes it anew.")
    files = statistics.blobs(connection)
    sizes = object_sizes(repository.git_dir, (blob for _, blob in files))
    named = [(resource_id, size) for (resource_id, _), size in zip(files, sizes, strict=True)]
    return Statistics(
        statistics.by_type(connection),
        statistics.authors(connection),
        first,
        last,
        statistics.by_month(connection),
        object_files(repository.git_dir),
        statistics.size(connection),
        heapq.nsmallest(TOP, named, key=lambda one: (-one[1], one[0])),
        statistics.longest(connection, TOP),
    )
