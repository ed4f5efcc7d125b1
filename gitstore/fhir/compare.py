"""What differs between two versions of a resource, element by element.

Lists are aligned before they are compared, so that an element put in front of a list is one addition and not a
change of every element behind it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Final, TypeAlias

from msgspec import Struct

from gitstore.fhir import Resource
from gitstore.fhir.alignment import aligned, frozen


class Absent(Enum):
    """The type of ABSENT, which stands where there is no element; JSON's null can't, as lists of primitives hold it."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT

Steps: TypeAlias = tuple[str | int, ...]

SERVER_ELEMENTS = frozenset({"versionId", "lastUpdated"})
"""The elements of meta that change with every version, and so say nothing about what its author changed."""


class Difference(Struct, frozen=True):
    """One element that was added (`old` is ABSENT), removed (`new` is ABSENT) or replaced.

    The steps of a removal are its place in the old resource, all others are places in the new one.
    """

    steps: Steps
    old: Any
    new: Any

    @property
    def path(self) -> str:
        """The place as FHIRPath without the resource type: `name[0].given[1]`."""
        text = ""
        for step in self.steps:
            if isinstance(step, int):
                text += f"[{step}]"
            else:
                name = (
                    step
                    if step.isidentifier()
                    else "`" + step.replace("\\", "\\\\").replace("`", "\\`") + "`"
                )
                text += f".{name}" if text else name
        return text


def differences(old: Resource | None, new: Resource | None) -> list[Difference]:
    """What turns `old` into `new`, without what the server maintains in meta; None is a resource that isn't there.

    Elements of lists are matched where they are equal, have the same `id`, `system` and `value` or `system` and
    `code`, or else are most alike. Numbers differ where their digits do (1.0 and 1.00); the order of keys says nothing.
    """
    return list(_objects((), (), _content(old), _content(new)))


def apply(resource: Resource | None, changes: Sequence[Difference]) -> Resource | None:
    """A copy of the resource with the differences made: the inverse of `differences`, in the order that it gives."""
    value: Any = copy.deepcopy(_content(resource))
    for change in reversed(changes):
        if change.new is ABSENT:
            del _parent(value, change.steps)[change.steps[-1]]
    for change in changes:
        if change.new is ABSENT:
            continue
        parent, place = _parent(value, change.steps), change.steps[-1]
        if change.old is ABSENT and isinstance(place, int):
            parent.insert(place, copy.deepcopy(change.new))
        else:
            parent[place] = copy.deepcopy(change.new)
    return value or None


def same(old: object, new: object) -> bool:
    """Whether two JSON values are equal, numbers by their digits and objects without regard to the order of keys."""
    return frozen(old) == frozen(new)


def _parent(value: Any, steps: Steps) -> Any:
    for step in steps[:-1]:
        value = value[step]
    return value


def _content(resource: Resource | None) -> Resource:
    if resource is None:
        return {}
    meta = resource.get("meta")
    if not isinstance(meta, dict) or SERVER_ELEMENTS.isdisjoint(meta):
        return resource
    kept = {name: value for name, value in meta.items() if name not in SERVER_ELEMENTS}
    return {
        name: kept if name == "meta" else value for name, value in resource.items() if name != "meta" or kept
    }


def _values(old_steps: Steps, new_steps: Steps, old: Any, new: Any) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _objects(old_steps, new_steps, old, new)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _lists(old_steps, new_steps, old, new)
    elif not same(old, new):
        yield Difference(new_steps, old, new)


def _objects(old_steps: Steps, new_steps: Steps, old: Resource, new: Resource) -> Iterator[Difference]:
    for name, value in old.items():
        if name in new:
            yield from _values((*old_steps, name), (*new_steps, name), value, new[name])
        else:
            yield Difference((*old_steps, name), value, ABSENT)
    for name, value in new.items():
        if name not in old:
            yield Difference((*new_steps, name), ABSENT, value)


def _lists(old_steps: Steps, new_steps: Steps, old: list[Any], new: list[Any]) -> Iterator[Difference]:
    for before, after in aligned(old, new):
        if after is None:
            assert before is not None  # a pair has at least one side
            yield Difference((*old_steps, before), old[before], ABSENT)
        elif before is None:
            yield Difference((*new_steps, after), ABSENT, new[after])
        else:
            yield from _values((*old_steps, before), (*new_steps, after), old[before], new[after])
