"""What a restore and a revert come to (docs/audit.md): which version's content each resource gets back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gitstore.assumptions import Asked, check_if_match
from gitstore.errors import Conflict, Forbidden, Invalid, Issue, NotFound, Unprocessable
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.interactions import Attest, Interaction, Restore, Revert
from gitstore.version import Commit, Version


class Undone(NamedTuple):
    """A resource that a commit changed, and the version that it had before: None where it was not there."""

    resource_id: ResourceId
    before: Version | None


def check_alone(interactions: Sequence[Interaction]) -> None:
    """That whoever asks for a unit of work does not mix what is restored with other writes. Raises ValueError.

    What a commit restores is told by its trailers, and a restore commit does nothing else.
    """
    writes = [each for each in interactions if not isinstance(each, Attest)]
    if len(writes) > 1 and any(isinstance(each, Restore | Revert) for each in writes):
        raise ValueError("a Restore or Revert stands alone in its unit")


def source(asked: Asked, restore: Restore) -> Version:
    """The version whose content a restore brings back.

    Raises NotFound, VersionMismatch, Unprocessable for a deletion, Conflict for the current version, and Invalid where
    no version is named and none is missing.
    """
    target, number = restore.target, restore.version_id
    newest = asked.newest(target)
    if newest is None:
        raise NotFound(f"`{target}` is not known.")
    check_if_match(target, restore.if_match, newest)
    if number is None:
        if not newest.deleted:
            text = f"`{target}` is not deleted: it has to be said which version is to be restored."
            raise Invalid(Issue("error", "required", text))
        number = VersionId(newest.version_id - 1)
    found = asked.version(target, number)
    if found.deleted:
        raise Unprocessable(f"`{found}` is a deletion: it has no content that could be restored.")
    if number == newest.version_id:
        raise Conflict(f"`{found}` is the current version of `{target}`: there is nothing to restore.")
    return found


def undone(asked: Asked, commit: Commit, check: Callable[[str, ResourceId], None]) -> list[Undone]:
    """What undoing a commit comes to, in the order of its trailers.

    `check` raises Forbidden for a letter of "cruds" and a resource. Raises NotFound where whoever asks may not read all
    that the commit changed, Forbidden where they may not write all of it, neither telling what; Conflict with an issue
    for each resource that has later versions; Unprocessable for a commit that can't be undone.
    """
    made = asked.made(commit)
    if commit.interaction == "purge":
        text = (
            f"Commit {commit.id} took versions out of the record for good: they are not there to be restored."
        )
        raise Unprocessable(text)
    if not made:
        raise Unprocessable(
            f"Commit {commit.id} ({commit.interaction}) changed no resource: there is nothing to undo."
        )
    found = [Undone(version.resource_id, _before(asked, version)) for version in made]
    try:
        for each in found:
            check("d" if each.before is None else "u", each.resource_id)
    except Forbidden as error:
        raise Forbidden("To undo all that this commit did is not allowed with these scopes.") from error
    newest = [asked.newest(version.resource_id) for version in made]
    in_the_way = [
        late for late, version in zip(newest, made, strict=True) if late != version and late is not None
    ]
    if in_the_way:
        raise Conflict(*map(_standing, in_the_way))
    return found


def _before(asked: Asked, version: Version) -> Version | None:
    if version.version_id == 1:
        return None
    before = asked.version(version.resource_id, VersionId(version.version_id - 1))
    return None if before.deleted else before


def _standing(version: Version) -> str:
    """What is in the way of a revert."""
    commit, what = version.commit, "deleted" if version.deleted else "made"
    return (
        f"`{version.resource_id}` is at version {version.version_id}, {what} by {commit.author.name}"
        f" on {format_instant(version.last_updated)} ({commit.interaction} {commit.id})."
    )


def words(given: str | None, interactions: Sequence[Interaction]) -> str | None:
    """The body of the commit: the author's why, and which commit it undoes, in the words that git has for that."""
    reverted = [f"This reverts commit {each.commit.id}." for each in interactions if isinstance(each, Revert)]
    return "\n\n".join(filter(None, (given, *reverted)))
