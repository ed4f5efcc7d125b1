"""Taking over commits of another record: the same versions, dates, authors and bytes.

What is taken over goes the way of every other write: validated, printed, extracted, under the writer's lock planned and
noted in the index. Only what a write would be given anew, it brings along. docs/interactions/history-bundles.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gitstore.aims import Rules
from gitstore.errors import Conflict, Invalid, NotFound, Unprocessable
from gitstore.fhir import Resource
from gitstore.fhir.dates import SECOND, format_instant
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.fhir.stored import template
from gitstore.git.commits import Sign, format_commit
from gitstore.git.message import Message, format_message, safe_author, safe_request_id, safe_words
from gitstore.git.pack import COMMIT, Pack
from gitstore.interactions import Delete, Unit, Update
from gitstore.preparation import Prepared, at_entry, prepare
from gitstore.snapshot import Snapshot
from gitstore.transaction import Planned
from gitstore.version import Author, Change, Commit, Idempotency, Verb, Version
from gitstore.writes import Write

MAX_AHEAD = 5 * 60 * SECOND
"""How far a date may be ahead of the clock: nothing could be written here until the clock has caught up."""

EARLIEST = SECOND
"""git counts seconds from 1970 on, and the first commit of the record comes before all others."""

INTERACTIONS = ("create", "update", "patch", "delete", "transaction")
_OF_VERB: dict[Verb, str] = {"POST": "create", "PUT": "update", "DELETE": "delete"}

Newest: TypeAlias = Callable[[ResourceId], Version | None]
"""The newest version of a resource, which may be a deletion."""


class ReplicaVersion(Struct, frozen=True):
    """One version to take over, a deletion where there is no resource; `entry` is its number in the Bundle."""

    verb: Verb
    resource_id: ResourceId
    version_id: VersionId
    resource: Resource | None
    entry: int = 0


class Replica(Struct, frozen=True):
    """One commit to take over, with its versions in its own order; `last_updated` in microseconds.

    Without `interaction`, which is one of INTERACTIONS, it is what one version says itself, and of several a transaction.
    """

    versions: tuple[ReplicaVersion, ...]
    author: Author
    last_updated: int
    interaction: str | None = None
    words: str | None = None
    request_id: str | None = None
    idempotency: Idempotency | None = None


class PreparedReplica(Prepared, frozen=True, kw_only=True):
    """A replica with everything done that needs no lock. The `entry` of each of its writes is that of the Bundle."""

    replica: Replica

    @property
    def idempotency(self) -> Idempotency | None:
        return self.replica.idempotency

    def blamed(self, write: Write) -> int | None:
        return write.entry


class Series(Struct, frozen=True):
    """Commits to take over, oldest first: all of them or none."""

    commits: tuple[PreparedReplica, ...]

    @property
    def size(self) -> int:
        """In bytes, about."""
        return sum(commit.size for commit in self.commits)


def prepare_series(replicas: Sequence[Replica], rules: Rules, now: int) -> Series:
    """Check, validate, print and extract; `now` is what the clock says.

    Raises Conflict where the dates don't increase from commit to commit, Unprocessable for one that no commit can have or
    that is MAX_AHEAD of the clock, Invalid for two versions of a resource in one commit, and what validation raises.
    """
    before: Replica | None = None
    commits = []
    for replica in replicas:
        with at_entry(replica.versions[0].entry):
            _check_date(replica, before, now)
        commits.append(_prepared(replica, rules))
        before = replica
    return Series(tuple(commits))


def _check_date(replica: Replica, before: Replica | None, now: int) -> None:
    date = format_instant(replica.last_updated)
    if replica.last_updated < EARLIEST:
        raise Unprocessable(f"The version is of {date}; a commit can't be older than 1970.")
    if replica.last_updated > now + MAX_AHEAD:
        raise Unprocessable(f"The version is of {date}, more than five minutes ahead of this server's clock.")
    if before is not None and replica.last_updated <= before.last_updated:
        raise Conflict(
            f"The version is of {date}, and the commit before it of {format_instant(before.last_updated)}: dates must"
            " increase from commit to commit. A history Bundle has its newest entries first."
        )


def _prepared(replica: Replica, rules: Rules) -> PreparedReplica:
    seen: set[ResourceId] = set()
    writes = []
    for version in replica.versions:
        with at_entry(version.entry):
            if version.resource_id in seen:
                raise Invalid(f"The commit makes two versions of `{version.resource_id}`.")
            seen.add(version.resource_id)
            writes.append(_write(version, replica.author, rules))
    single = _OF_VERB[replica.versions[0].verb] if len(replica.versions) == 1 else "transaction"
    return PreparedReplica(
        len(writes),
        tuple(writes),
        (),
        replica.interaction if replica.interaction in INTERACTIONS else single,
        safe_author(replica.author),
        safe_request_id(replica.request_id),
        safe_words(replica.words),
        sum(256 if (kept := write.template) is None else len(kept.tail) + 256 for write in writes),
        replica=replica,
    )


def _write(version: ReplicaVersion, author: Author, rules: Rules) -> Write:
    """The version as a write: what `prepare` refuses of an update or delete by REST, it refuses here."""
    target, resource = version.resource_id, version.resource
    interaction = Delete(target) if resource is None else Update(target, resource)
    [write] = prepare(Unit([interaction], author), rules).writes
    return replace(write, entry=version.entry, verb=version.verb)


def plan_replica(prepared: PreparedReplica, before: Commit, newest: Newest) -> list[Planned]:
    """The changes of a replica's commit, on top of the commit `before`; under the lock.

    Raises Conflict where it is not later than that, or a version is not the next one of its resource.
    """
    replica = prepared.replica
    with at_entry(replica.versions[0].entry):
        if replica.last_updated <= before.last_updated:
            raise Conflict(
                f"The record goes to {format_instant(before.last_updated)}, and a history must go on later; this version"
                f" is of {format_instant(replica.last_updated)}."
            )
    planned = []
    for write, version in zip(prepared.writes, replica.versions, strict=True):
        with at_entry(version.entry):
            _check_next(version, newest(version.resource_id))
        change = Change(version.verb, version.resource_id, version.version_id)
        planned.append(Planned(write, change, replica.last_updated, None))
    return planned


def _check_next(version: ReplicaVersion, newest: Version | None) -> None:
    resource_id, last = version.resource_id, newest.version_id if newest is not None else 0
    if version.version_id != last + 1:
        standing = f"is at version {last}" if last else "has no version yet"
        raise Conflict(f"`{resource_id}` {standing}; the next is {last + 1}, and not {version.version_id}.")
    if version.resource is None and (newest is None or newest.deleted):
        raise Conflict(f"`{resource_id}` isn't there, and version {version.version_id} would delete it.")
    if version.verb == "POST" and newest is not None:
        raise Conflict(f"`{resource_id}` is in use, and version {version.version_id} would create it.")


def earlier_first_commit(
    first: Commit, instant: int, tree: bytes, committer: Author, pack: Pack, sign: Sign
) -> Commit:
    """The first commit of a record that has no other, as if it had been made at an earlier instant.

    A history older than the empty record that takes it over could not follow the commit which is there.
    """
    text = format_message(Message(first.interaction, (), instant))
    data = sign(format_commit(tree, None, first.author, committer, instant, text))
    return replace(first, id=pack.add(COMMIT, data).hex(), last_updated=instant)


def is_held(snapshot: Snapshot, replica: Replica) -> bool:
    """Whether the record has all versions of a replica already: of the same date, by the same verb, with the same bytes."""
    return all(_is_version_held(snapshot, version, replica.last_updated) for version in replica.versions)


def _is_version_held(snapshot: Snapshot, version: ReplicaVersion, last_updated: int) -> bool:
    try:
        found = snapshot.version(version.resource_id, version.version_id)
    except NotFound:
        return False
    if (found.last_updated, found.verb) != (last_updated, version.verb):
        return False
    if version.resource is None or found.deleted:
        return version.resource is None and found.deleted
    printed = template(version.resource_id, version.resource).fill(version.version_id, last_updated)
    return snapshot.body(found) == printed
