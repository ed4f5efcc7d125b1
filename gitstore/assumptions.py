"""What a unit of work that is prepared without the lock takes to be so of the record, to be looked at again under it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from gitstore.errors import MultipleMatches, VersionMismatch
from gitstore.fhir import Resource, json
from gitstore.fhir.conditions import Criteria
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.search.rows import Rows
from gitstore.snapshot import Select, Snapshot
from gitstore.version import Version


@dataclass(frozen=True, slots=True)
class Selected:
    """The criteria select these resources, of which there may be more than `limit`."""

    criteria: Criteria
    limit: int
    found: tuple[ResourceId, ...]

    def holds(self, snapshot: Snapshot) -> bool:
        return tuple(snapshot.matching(self.criteria, self.limit)) == self.found


@dataclass(frozen=True, slots=True)
class AtVersion:
    """The newest version of a resource is this one; None where there never was one."""

    resource_id: ResourceId
    version_id: VersionId | None

    def holds(self, snapshot: Snapshot) -> bool:
        newest = snapshot.newest(self.resource_id)
        return (newest.version_id if newest is not None else None) == self.version_id


Assumption: TypeAlias = Selected | AtVersion


class Asked:
    """The record as one unit of work sees it: every answer is noted in `assumptions`.

    `state` gives a snapshot that can be searched, and is called at the first question.
    """

    def __init__(self, state: Callable[[], Snapshot] | None) -> None:
        self.assumptions: list[Assumption] = []
        self._state = state
        self._snapshot: Snapshot | None = None
        self._newest: dict[ResourceId, Version | None] = {}

    @property
    def commit(self) -> str | None:
        """The id of the commit that was asked; None where nothing was."""
        return None if self._snapshot is None else self._snapshot.commit.id

    def matching(self, criteria: Criteria, limit: int) -> tuple[ResourceId, ...]:
        found = tuple(self._now().matching(criteria, limit))
        self.assumptions.append(Selected(criteria, limit, found))
        return found

    def only(self, criteria: Criteria, without: Collection[ResourceId] = ()) -> ResourceId | None:
        """The one resource that the criteria select, leaving some out. Raises MultipleMatches."""
        found = [each for each in self.matching(criteria, 2 + len(without)) if each not in without]
        if len(found) > 1:
            raise MultipleMatches(f"`{criteria}` selects more than one resource; it must select one.")
        return found[0] if found else None

    def newest(self, resource_id: ResourceId) -> Version | None:
        """The newest version, which may be a deletion; None where there never was one."""
        if resource_id not in self._newest:
            newest = self._newest[resource_id] = self._now().newest(resource_id)
            self.assumptions.append(AtVersion(resource_id, newest.version_id if newest else None))
        return self._newest[resource_id]

    def content(self, version: Version) -> Resource:
        """A resource as it is stored."""
        resource: Resource = json.loads_trusted(self._now().body(version))
        return resource

    def among(self, contents: list[tuple[ResourceId, Rows]]) -> Select:
        """How to search in resources that are not written yet."""
        return self._now().among(contents)

    def _now(self) -> Snapshot:
        if self._snapshot is None:
            assert self._state is not None
            self._snapshot = self._state()
        return self._snapshot


def listed(tags: frozenset[str]) -> str:
    return ", ".join(sorted(tags))


def check_if_match(resource_id: ResourceId, tags: frozenset[str] | None, newest: Version | None) -> None:
    """Raises VersionMismatch where the newest version is none of those that If-Match names.

    It compares weakly, with the deletion's number where the resource is deleted; `*` asks for one that exists.
    https://hl7.org/fhir/R4/http.html#concurrency
    """
    if tags is None:
        return
    if newest is None:
        raise VersionMismatch(f"`{resource_id}` does not exist; If-Match asked for {listed(tags)}.")
    if not ("*" in tags and not newest.deleted) and str(newest.version_id) not in tags:
        raise VersionMismatch(
            f"`{resource_id}` is at version {newest.version_id}; If-Match asked for {listed(tags)}."
        )
