"""A diverged commit as a unit of work that does the same on main; and which commit has done so (docs/diverged.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TypeAlias

from msgspec import Struct

from gitstore.errors import Conflict, ForeignCommit, Invalid, NotFound
from gitstore.fhir import Resource, json
from gitstore.fhir.dates import format_instant
from gitstore.fhir.drawers import Drawers
from gitstore.fhir.ids import ResourceId
from gitstore.fhir.packed import Packed, pack
from gitstore.fhir.stored import Template, template
from gitstore.git import layout
from gitstore.git.history import Step
from gitstore.git.message import Message
from gitstore.git.pack import BLOB, object_id
from gitstore.git.repository import Repository
from gitstore.interactions import Ask, Create, Delete, Interaction, Unit, Update
from gitstore.preparation import MAX_STORED
from gitstore.search.versions import Cursor
from gitstore.snapshot import Snapshot
from gitstore.version import Change, Commit, Idempotency, Version

Numbers: TypeAlias = dict[ResourceId, int | None]
"""Versions by number, 0 where a resource has none; None where there is none that would do."""

_KEPT = ("create", "update", "patch", "delete", "transaction")
"""What a commit may be again. Those that restore or adopt say more, which would not be so on main."""


class Redone(Struct, frozen=True):
    """The commit of main that did what a diverged one did, and which number each version has there, None where that has
    another content. Nothing was changed where there is no commit."""

    by: Commit | None
    numbers: Numbers


def read_files(
    repository: Repository, step: Step, message: Message
) -> Iterator[tuple[Change, Resource | None]]:
    """Each change with its resource, None for a deletion and what was purged.

    Raises ForeignCommit where a file is not what the trailers say, in the stored form.
    """
    for change in message.changes:
        blob = step.files.get(layout.path(change.resource_id))
        yield change, None if blob is None else _read_file(repository, step, message, change, blob)


def _read_file(repository: Repository, step: Step, message: Message, change: Change, blob: str) -> Resource:
    resource_id = change.resource_id
    if repository.size(blob) > MAX_STORED:
        raise _unfit(step, resource_id, f"it is larger than {MAX_STORED} bytes")
    data = repository.object(blob)
    try:
        resource = json.loads(data)
        is_ours = isinstance(resource, dict) and data == template(resource_id, resource).fill(
            change.version_id, message.last_updated
        )
    except Invalid as error:
        raise _unfit(step, resource_id, str(error)) from error
    if not is_ours:
        raise _unfit(
            step, resource_id, "it is not in the stored form, or says something else than the commit"
        )
    found: Resource = resource
    return found


def _unfit(step: Step, resource_id: ResourceId, why: str) -> ForeignCommit:
    reason = f"its file of {resource_id} can't be taken over: {why}"
    return ForeignCommit(f"Commit {step.id}: {reason}", step.id, reason=reason)


def key_of(step: Step) -> Idempotency:
    """The idempotency key by which a commit is done again at most once."""
    return Idempotency(f"diverged:{step.id}", hashlib.sha256(step.data).hexdigest())


def redone(snapshot: Snapshot, repository: Repository, step: Step, message: Message) -> Redone | None:
    """The commit of main that has done the same; None where there is none.

    It has its key: the one that it was done again with here, or that of the client, who sent the request once more when
    this node had gone.
    """
    if not message.changes:
        return None if message.interaction == "purge" else Redone(None, {})
    for key in filter(None, (message.idempotency, key_of(step))):
        commit = snapshot.commit_of_key(step.commit.author, key.key)
        if commit is not None and commit.idempotency == key:
            made = {version.resource_id: version for version in snapshot.all_changes(commit)}
            numbers: Numbers = {}
            for change in message.changes:
                version = made.get(change.resource_id)
                is_same = version is not None and _is_same(_printed(repository, step, change), version)
                numbers[change.resource_id] = version.version_id if version is not None and is_same else None
            return Redone(commit, numbers)
    return None


def said_since(
    snapshot: Snapshot,
    repository: Repository,
    step: Step,
    message: Message,
    since: Mapping[ResourceId, int],
) -> Redone | None:
    """The commit by which all resources of a diverged one have had its content on main, whoever wrote it there.

    Only versions after those that `since` numbers are looked at; None where any of the resources has no such version.
    """
    found = []
    for change in message.changes:
        ours = _printed(repository, step, change)
        later = _later(snapshot, change.resource_id, since[change.resource_id])
        version = next((version for version in later if _is_same(ours, version)), None)
        if version is None:
            return None
        found.append(version)
    if not found:
        return None
    by = max((version.commit for version in found), key=lambda commit: commit.sequence)
    return Redone(by, {version.resource_id: version.version_id for version in found})


def _later(snapshot: Snapshot, resource_id: ResourceId, number: int) -> Iterator[Version]:
    """The versions of a resource after one, newest first, without those that were purged."""
    cursor: Cursor | None = None
    try:
        while True:
            page = snapshot.history(resource_id, cursor=cursor)
            for version in page.versions:
                if version.version_id <= number:
                    return
                yield version
            if page.older is None:
                return
            cursor = page.older
    except NotFound:
        return  # there never was any, or all were purged


def _printed(repository: Repository, step: Step, change: Change) -> Template | None:
    """What a diverged commit made of a resource, None for a deletion."""
    blob = step.files.get(layout.path(change.resource_id))
    if blob is None:
        return None
    return template(change.resource_id, json.loads_trusted(repository.object(blob)))


def _is_same(ours: Template | None, version: Version) -> bool:
    """Whether a version on main says what a diverged one says, but for number and date."""
    if ours is None or version.blob is None:
        return ours is None and version.deleted and version.purged is None
    return object_id(BLOB, ours.fill(version.version_id, version.last_updated)).hex() == version.blob


def unit_of(
    snapshot: Snapshot, repository: Repository, step: Step, message: Message, before: Numbers
) -> Unit:
    """The unit of work that does the same again, where each resource is at the version `before`, 0 for none, and only there.

    Its resources are not validated: that the node has answered for them was by the rules that it had.
    """
    drawers = Drawers()
    interactions: list[Interaction] = []
    new: list[ResourceId] = []
    for change, resource in read_files(repository, step, message):
        number = before[change.resource_id]
        content = None if resource is None else pack(resource, drawers)
        interactions.append(_interaction(change, content, number))
        if not number and isinstance(interactions[-1], Update):
            new.append(change.resource_id)
    # If-None-Match is content with what was there and is deleted.
    interactions += [Ask(partial(_check_first, resource_id)) for resource_id in new]
    applied = f"Applied from {step.id}, made {format_instant(message.last_updated)} and never replicated."
    return Unit(
        interactions,
        step.commit.author,
        message.request_id,
        "\n\n".join(filter(None, (message.words, applied))),
        _kind(message),
        _key(snapshot, step, message),
        message.agent,
        accepted=True,
    )


def _interaction(change: Change, content: Packed | None, number: int | None) -> Interaction:
    target = change.resource_id
    if content is None:
        return Delete(target, if_match=frozenset({str(number)}))
    if number:
        return Update(target, content, if_match=frozenset({str(number)}))
    if change.verb == "POST":
        return Create(content, id=target.id)
    return Update(target, content, if_none_match=frozenset("*"))


def _check_first(resource_id: ResourceId, after: Snapshot) -> None:
    newest = after.newest(resource_id)
    if newest is None or newest.version_id != 1:
        raise Conflict(f"`{resource_id}` was there before, and is deleted.")


def _kind(message: Message) -> str:
    if message.interaction in _KEPT:
        return message.interaction
    if len(message.changes) > 1:
        return "transaction"
    return "delete" if message.changes[0].verb == "DELETE" else "update"


def _key(snapshot: Snapshot, step: Step, message: Message) -> Idempotency:
    """The client's own, so that it gets the same answer should it ask again; unless that stands for something else there."""
    own = message.idempotency
    if own is None or snapshot.commit_of_key(step.commit.author, own.key) is not None:
        return key_of(step)
    return own
