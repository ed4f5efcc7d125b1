"""What a unit of work that is prepared without the lock takes to be so of the record, to be looked at again under it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

from msgspec import Struct

from gitstore.errors import MultipleMatches, NotFound, VersionMismatch
from gitstore.fhir import Resource, json
from gitstore.fhir.conditions import Criteria
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.search.rows import Rows
from gitstore.snapshot import Select, Snapshot
from gitstore.version import Commit, Version


class Selected(Struct, frozen=True):
    """The criteria select these resources, of which there may be more than `limit`."""

    criteria: Criteria
    limit: int
    found: tuple[ResourceId, ...]

    def holds(self, snapshot: Snapshot) -> bool:
        return tuple(snapshot.matching(self.criteria, self.limit)) == self.found


class AtVersion(Struct, frozen=True):
    """The newest version of a resource is this one, with a content or without; None where there never was one."""

    resource_id: ResourceId
    version_id: VersionId | None
    deleted: bool

    def holds(self, snapshot: Snapshot) -> bool:
        return self == self.of(self.resource_id, snapshot.standing(self.resource_id))

    @classmethod
    def of(cls, resource_id: ResourceId, newest: Version | None) -> AtVersion:
        if newest is None:
            return cls(resource_id, None, deleted=True)
        return cls(resource_id, VersionId(newest.version_id), newest.deleted)


class Kept(Struct, frozen=True):
    """A version is still there: it never changes, but may be purged."""

    resource_id: ResourceId
    version_id: VersionId

    def holds(self, snapshot: Snapshot) -> bool:
        try:
            snapshot.version(self.resource_id, self.version_id)
        except NotFound:
            return False
        return True


class Permitted(Struct, frozen=True):
    """Whoever asks may do what the letter stands for with a resource that is or was there, or may not."""

    letter: str
    resource_id: ResourceId
    permitted: bool

    def holds(self, snapshot: Snapshot) -> bool:
        return snapshot.permits(self.letter, self.resource_id) == self.permitted


Assumption: TypeAlias = Selected | AtVersion | Kept | Permitted


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
            newest = self._newest[resource_id] = self._now().standing(resource_id)
            self.assumptions.append(AtVersion.of(resource_id, newest))
        return self._newest[resource_id]

    def version(self, resource_id: ResourceId, version_id: VersionId) -> Version:
        """One version, which may be a deletion, of a resource whose `newest` is asked, too. Raises NotFound.

        A version never changes, unless it is purged, and whether it is seen depends on what itself and the newest one
        say, and on no more.
        """
        found = self._now().version(resource_id, version_id)
        self.assumptions.append(Kept(resource_id, version_id))
        return found

    def made(self, commit: Commit) -> list[Version]:
        """All that a commit changed, where the `newest` of each resource is asked, too, as for `version`.

        Raises NotFound where whoever asks may not read all of it.
        """
        return self._now().made(commit)

    def permits(self, letter: str, resource_id: ResourceId) -> bool:
        """Whether whoever asks may do what the letter stands for with a resource; not where there never was one."""
        permitted = self._now().permits(letter, resource_id)
        self.assumptions.append(Permitted(letter, resource_id, permitted))
        return permitted

    def permits_content(self, letter: str, resource_id: ResourceId, rows: Rows | None) -> bool:
        """Whether whoever asks may write what these rows would find. It depends on nothing that changes."""
        return self._now().permits_content(letter, resource_id, rows)

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
