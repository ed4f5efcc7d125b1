"""From git to the index: reading commits as the versions that they made. Rebuild, catch-up and verify all read so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

from gitstore.errors import ForeignCommit, Invalid, RepositoryDamaged
from gitstore.fhir.ids import ResourceId
from gitstore.git import layout
from gitstore.git.history import Step, chain, walk
from gitstore.git.message import Message, parse_message
from gitstore.git.repository import Repository
from gitstore.search import noting
from gitstore.search.index import Connection
from gitstore.version import Commit

OnProgress = Callable[[int, int], None]
"""Called with how many commits are done and how many there are."""

Standing = Callable[[ResourceId], Literal["there", "absent", "purged"]]
"""Whether a resource has a file in the tree; "purged" where only its newest version has been purged."""

_EVERY = 1000


def replay(
    repository: Repository,
    connection: Connection,
    tip: Commit | None,
    ids: Iterable[str],
    progress: OnProgress | None = None,
) -> Commit | None:
    """Apply the commits `ids`, which follow `tip`, to the index; returns the last one.

    Raises ForeignCommit at the first that isn't one of ours; those before it are applied.
    """
    ids = list(ids)
    for step in walk(repository, ids, tip.id if tip else None):
        commit, message = read_step(step, tip, partial(noting.standing, connection))
        blobs = [step.files.get(layout.path(change.resource_id)) for change in message.changes]
        try:
            if message.interaction == "purge":
                noting.apply(connection, commit, (), ())
                noting.note_purged(connection, commit, message.purged)
            else:
                purged = {one.resource_id for one in message.purged}
                noting.apply(connection, commit, message.changes, blobs, purged=purged)
        except RepositoryDamaged as error:
            raise _foreign(step.id, str(error)) from error
        tip = commit
        if progress is not None and tip.sequence % _EVERY == 0:
            progress(tip.sequence, len(ids))
    return tip


def missing(repository: Repository, tip: Commit | None, main: str) -> list[str]:
    """The commits between the index's tip and main, oldest first.

    Raises ForeignCommit where main does not build on the tip.
    """
    if tip is not None and not repository.contains(tip.id, main):
        raise ForeignCommit(
            f"{layout.BRANCH} was moved to {main}, which no longer holds {tip.id}: reads go on from there, and nothing"
            f" is written. That can't be adopted: move {layout.BRANCH} back, or accept it with `git fhir reindex`.",
            main,
        )
    return chain(repository, main, tip.id if tip else None)


def read_step(step: Step, before: Commit | None, standing: Standing) -> tuple[Commit, Message]:
    """A commit of the chain, which follows `before`, as one of ours. Raises ForeignCommit, saying what it isn't.

    `standing` says of a resource how `before` left it.
    """
    try:
        message = parse_message(step.commit.message)
    except Invalid as error:
        raise _foreign(step.id, str(error)) from error
    if (message.interaction == "adopt") != (message.adopts is not None or message.cut):
        raise _foreign(step.id, "an adopt commit, and no other, has an FHIR-Adopts trailer")
    if list(step.commit.parents) != [id for id in (before and before.id, message.adopts) if id]:
        raise _foreign(step.id, f"it has the parents {', '.join(step.commit.parents) or 'none'}")
    if before is not None and message.last_updated <= before.last_updated:
        raise _foreign(step.id, "its FHIR-Last-Updated is not later than that of the commit before it")
    expected: dict[str, bool] = dict.fromkeys(layout.FIRST_FILES, False) if before is None else {}
    expected |= _expected(message, standing, step.id)
    if len({change.resource_id for change in message.changes}) != len(message.changes):
        raise _foreign(step.id, "it makes two versions of one resource")
    found = {path: blob is None for path, blob in step.files.items()}
    if expected != found or step.odd_modes:
        odd = sorted(set(expected.items()) ^ set(found.items())) or [("a link or executable", False)]
        raise _foreign(step.id, f"its trailers and its tree differ at {odd[0][0]}")
    commit = Commit(
        step.id,
        before.sequence + 1 if before else 1,
        message.last_updated,
        message.interaction,
        step.commit.author,
        message.request_id,
        message.idempotency,
    )
    return commit, message


def _expected(message: Message, standing: Standing, id: str) -> dict[str, bool]:
    """Which paths a commit of ours changes, and whether the file is gone: what was purged left none behind."""
    if message.interaction == "purge":
        if message.changes or not message.purged:
            raise _foreign(id, "a purge commit makes no version, and says what it took out")
        return {}
    if message.interaction in ("promote", "settle") and (message.changes or message.purged):
        raise _foreign(id, f"a {message.interaction} commit makes no version")
    purged = {(one.resource_id, one.version_id) for one in message.purged}
    if purged - {(change.resource_id, change.version_id) for change in message.changes}:
        raise _foreign(id, "an FHIR-Purged trailer names a version that it doesn't make")
    expected = {}
    for change in message.changes:
        is_purged = (change.resource_id, change.version_id) in purged
        stands = standing(change.resource_id) if is_purged or change.verb == "DELETE" else "there"
        # A deletion of what isn't there is none of ours, unless it isn't there any more.
        if stands == "there" or not (is_purged or stands == "purged"):
            expected[layout.path(change.resource_id)] = is_purged or change.verb == "DELETE"
    return expected


def _foreign(id: str, reason: str) -> ForeignCommit:
    return ForeignCommit(
        f"Commit {id} on {layout.BRANCH} was not made by git-fhir ({reason}). Reads go on from the commit before it;"
        " nothing is written until it is gone, or taken over with `git fhir adopt`.",
        id,
        reason=reason,
    )
