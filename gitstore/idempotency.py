"""Requests that are to be done once: what a unit of work is answered whose key was used before.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

from collections.abc import Iterable

from gitstore.errors import Unprocessable
from gitstore.fhir.conditions import Criteria
from gitstore.fhir.ids import ResourceId
from gitstore.fhir.packed import unpacked
from gitstore.git.message import safe_author
from gitstore.interactions import Ask, Attest, Create, Delete, Interaction, Outcome, Revert, Unit
from gitstore.preparation import VERBS
from gitstore.snapshot import Snapshot
from gitstore.version import Commit, Version


def check_keys(units: Iterable[Unit], snapshot: Snapshot) -> None:
    """That no unit has an idempotency key which was used for something else before. Raises Unprocessable.

    For units that belong together, of which none is to happen where another one is refused for its key.
    """
    for unit in units:
        _commit_of(unit, snapshot)


def done_before(unit: Unit | None, snapshot: Snapshot) -> list[Outcome] | None:
    """The outcomes of the unit of work that had the same idempotency key, None where there was none.

    Raises Unprocessable where something else was sent with the key then.
    """
    commit = None if unit is None else _commit_of(unit, snapshot)
    if unit is None or commit is None:
        return None
    then = snapshot.at(commit)
    for version in snapshot.all_changes(commit):
        # What was purged isn't made again: whoever sends it once more hears that it is Gone.
        if version.purged is not None:
            then.version(version.resource_id, version.version_id)
    made = snapshot.changes(commit)
    outcomes = []
    for interaction in unit.interactions:
        if isinstance(interaction, Ask):
            outcomes.append(Outcome(answer=interaction.question(then)))
        elif made and _may_have_made(interaction, made[0]):
            version = made.pop(0)
            others: list[Version] = []
            while made and _takes_several(interaction) and _may_have_made(interaction, made[0]):
                others.append(made.pop(0))
            outcomes.append(Outcome(version, changed=True, others=tuple(others)))
        else:
            outcomes.append(Outcome(_left(interaction, then)))
    return outcomes


def _commit_of(unit: Unit, snapshot: Snapshot) -> Commit | None:
    """The commit of the unit's key. Raises Unprocessable where it is of another request."""
    if unit.idempotency is None:
        return None
    commit = snapshot.commit_of_key(safe_author(unit.author), unit.idempotency.key)
    if commit is None or commit.idempotency is None:
        return None
    if commit.idempotency.digest != unit.idempotency.digest:
        raise Unprocessable(f"The idempotency key `{unit.idempotency.key}` was used for another request.")
    return commit


def _takes_several(interaction: Interaction) -> bool:
    return isinstance(interaction, Revert) or (
        isinstance(interaction, Delete) and isinstance(interaction.target, Criteria)
    )


def _left(interaction: Interaction, then: Snapshot) -> Version | None:
    """What an interaction that changed nothing left as it was, as far as that can be told now."""
    if isinstance(interaction, Create):
        found = then.matching(interaction.unless, 1) if interaction.unless is not None else []
        return then.newest(found[0]) if found else None
    target = getattr(interaction, "target", None)
    return then.newest(target) if isinstance(target, ResourceId) else None


def _may_have_made(interaction: Interaction, version: Version) -> bool:
    """Whether a version can be what became of an interaction."""
    if isinstance(interaction, Revert):
        return version.verb != "POST"
    verb = VERBS[type(interaction)]
    if isinstance(interaction, Create | Attest):
        return (verb, unpacked(interaction.resource).get("resourceType")) == (
            version.verb,
            version.resource_id.type,
        )
    assert not isinstance(interaction, Ask)
    target = interaction.target
    named = version.resource_id if isinstance(target, ResourceId) else version.resource_id.type
    return (verb, target if isinstance(target, ResourceId) else target.type) == (version.verb, named)
