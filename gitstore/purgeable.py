"""What a purge takes out of the record, and what it leaves that may be about the same."""

from __future__ import annotations

from collections.abc import Sequence, Set

from msgspec import Struct

from gitstore.errors import Conflict, Gone, NotFound, Unprocessable
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.fhir.stored import template
from gitstore.git.message import parse_message
from gitstore.git.repository import Repository
from gitstore.search import integrity, versions
from gitstore.search.index import Connection
from gitstore.version import Commit, Version


class Target(Struct, frozen=True):
    """What is to go: a whole resource, all versions of it, or with a number one past version."""

    resource_id: ResourceId
    version_id: VersionId | None = None


class Selection(Struct, frozen=True):
    """The versions that go, each once."""

    versions: tuple[Version, ...]
    alike: tuple[Version, ...]
    """Versions of the same resources that stay, and say the same as one that goes."""
    wordy: tuple[Commit, ...]
    """Commits whose words stay, although they made versions that go: they also made others."""

    @property
    def resources(self) -> list[ResourceId]:
        return list(dict.fromkeys(version.resource_id for version in self.versions))


_Names = Set[tuple[ResourceId, VersionId]]


def select(
    repository: Repository, connection: Connection, targets: Sequence[Target], *, intact: bool
) -> Selection:
    """What targets mean. `intact` says that references must lead to something.

    Raises NotFound, Gone for what was purged before, Unprocessable for the newest version of a resource, and Conflict
    for a resource that others refer to, where that matters.
    """
    chosen: dict[tuple[ResourceId, VersionId], Version] = {}
    for target in targets:
        for version in _meant(target, versions.all_of(connection, target.resource_id)):
            chosen[version.resource_id, version.version_id] = version
    if intact:
        _check_references(connection, {target.resource_id for target in targets if target.version_id is None})
    gone = tuple(chosen.values())
    alike: list[Version] = []
    for resource_id in dict.fromkeys(version.resource_id for version in gone):
        alike += _alike(repository, versions.all_of(connection, resource_id), chosen.keys())
    commits = dict.fromkeys(version.commit for version in gone)
    wordy = [commit for commit in commits if _keeps_words(repository, connection, commit, chosen.keys())]
    return Selection(gone, tuple(alike), tuple(wordy))


def _meant(target: Target, found: Sequence[Version]) -> list[Version]:
    if not found:
        raise NotFound(f"`{target.resource_id}` is not known.")
    if target.version_id is None:
        there = [version for version in found if version.purged is None]
        if not there:
            last = found[-1]
            raise Gone(f"`{target.resource_id}` was purged before.", last.version_id, last.last_updated)
        return there
    for version in found:
        if version.version_id == target.version_id:
            if version.purged is not None:
                raise Gone(f"`{version}` was purged before.", version.version_id, version.last_updated)
            if version is found[-1]:
                raise Unprocessable(
                    f"`{version}` is the newest version of its resource. Write another one first, or purge the whole"
                    f" of `{target.resource_id}`."
                )
            return [version]
    raise NotFound(f"`{target.resource_id}` has no version {target.version_id}.")


def _check_references(connection: Connection, whole: set[ResourceId]) -> None:
    for resource_id in sorted(whole):
        others = [
            each for each in integrity.referrers(connection, resource_id, len(whole) + 1) if each not in whole
        ]
        if others:
            raise Conflict(
                f"`{resource_id}` can't be purged: `{others[0]}` refers to it (fhir.referentialIntegrity)."
            )


def _alike(repository: Repository, found: Sequence[Version], gone: _Names) -> list[Version]:
    contents = {
        version: template(version.resource_id, json.loads(repository.object(version.blob))).tail
        for version in found
        if version.blob is not None
    }
    said = {content for version, content in contents.items() if _name(version) in gone}
    return [
        version for version, content in contents.items() if content in said and _name(version) not in gone
    ]


def _keeps_words(repository: Repository, connection: Connection, commit: Commit, gone: _Names) -> bool:
    made = versions.changes(connection, commit.sequence)
    stays = any(version.purged is None and _name(version) not in gone for version in made)
    return stays and bool(parse_message(repository.commit(commit.id).message).words)


def _name(version: Version) -> tuple[ResourceId, VersionId]:
    return version.resource_id, VersionId(version.version_id)
