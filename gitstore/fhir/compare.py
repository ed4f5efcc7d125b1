"""What differs between two versions of a resource, element by element.

Lists are aligned before they are compared, so that an element put in front of a list is one addition and not a
change of every element behind it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum
from typing import Any, Final, TypeAlias

from gitstore.fhir import Resource
from gitstore.fhir.json import Number


class Absent(Enum):
    """The type of ABSENT, which stands where there is no element; JSON's null can't, as lists of primitives hold it."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT

Steps: TypeAlias = tuple[str | int, ...]
_Pair: TypeAlias = tuple[int | None, int | None]

SERVER_ELEMENTS = frozenset({"versionId", "lastUpdated"})
"""The elements of meta that change with every version, and so say nothing about what its author changed."""

_LARGEST_TABLE = 40_000
"""Cells of the alignment table for what no key aligns; beyond it, elements are paired in their order."""


@dataclass(frozen=True, slots=True)
class Difference:
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
    return _frozen(old) == _frozen(new)


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
    for before, after in _alignment(old, new):
        if after is None:
            assert before is not None  # a pair has at least one side
            yield Difference((*old_steps, before), old[before], ABSENT)
        elif before is None:
            yield Difference((*new_steps, after), ABSENT, new[after])
        else:
            yield from _values((*old_steps, before), (*new_steps, after), old[before], new[after])


def _alignment(old: list[Any], new: list[Any]) -> Iterator[_Pair]:
    """Which element became which, in the order of both lists."""
    old_tokens, new_tokens = _tokens(old, new)
    matcher = SequenceMatcher(None, old_tokens, new_tokens, autojunk=False)
    for tag, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(range(old_start, old_end), range(new_start, new_end), strict=True)
        else:
            for before, after in _most_alike(old[old_start:old_end], new[new_start:new_end]):
                yield (
                    None if before is None else old_start + before,
                    None if after is None else new_start + after,
                )


def _tokens(old: list[Any], new: list[Any]) -> tuple[list[Hashable], list[Hashable]]:
    """What stands for each element when the lists are aligned: its key if it is the only one with it, else itself."""
    keys = [_key(element) for element in old], [_key(element) for element in new]
    repeated = {key for side in keys for key, count in Counter(side).items() if count > 1} | {None}
    before, after = (
        [_frozen(element) if key in repeated else key for element, key in zip(elements, side, strict=True)]
        for elements, side in zip((old, new), keys, strict=True)
    )
    return before, after


def _key(element: Any) -> Hashable | None:
    """What identifies an element among its siblings, if it has something that does."""
    if not isinstance(element, dict):
        return None
    if isinstance(element.get("id"), str):
        return ("id", element["id"])
    for name in ("value", "code"):
        if isinstance(element.get(name), str) and isinstance(element.get("system"), str):
            return (name, element["system"], element[name])
    return None


def _most_alike(old: list[Any], new: list[Any]) -> list[_Pair]:
    """The pairing with the highest sum of likeness that keeps the order of both lists."""
    if not old or not new or len(old) * len(new) > _LARGEST_TABLE:
        return _in_order(old, new)
    old_traits, new_traits = [_traits(element) for element in old], [_traits(element) for element in new]
    rows, columns = len(old), len(new)
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    likeness = [[_likeness(before, after) for after in new_traits] for before in old_traits]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            paired = likeness[i][j] + best[i + 1][j + 1] if likeness[i][j] else 0
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    pairs: list[_Pair] = []
    i = j = 0
    while i < rows and j < columns:
        if likeness[i][j] and best[i][j] == likeness[i][j] + best[i + 1][j + 1]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            pairs.append((i, None))
            i += 1
        else:
            pairs.append((None, j))
            j += 1
    return [*pairs, *((rest, None) for rest in range(i, rows)), *((None, rest) for rest in range(j, columns))]


def _in_order(old: list[Any], new: list[Any]) -> list[_Pair]:
    common = min(len(old), len(new))
    return [
        *((place, place) for place in range(common)),
        *((place, None) for place in range(common, len(old))),
        *((None, place) for place in range(common, len(new))),
    ]


def _traits(element: Any) -> Counter[Hashable]:
    """What an element is compared by when no key matches it: its id, the names in it, and the values at them."""
    traits: Counter[Hashable] = Counter()
    if not isinstance(element, dict):
        traits[("kind", "list" if isinstance(element, list) else "primitive")] = 1
        return traits
    if "id" in element:
        traits[("id", _frozen(element["id"]))] = 1
    for steps, value in _leaves((), element):
        traits[("name", steps)] += 1
        traits[("leaf", steps, value)] += 2
    return traits


def _likeness(old: Counter[Hashable], new: Counter[Hashable]) -> int:
    """How much two elements have in common; 0 where they can't be the same one, as their ids differ."""
    ids = [{trait for trait in side if isinstance(trait, tuple) and trait[0] == "id"} for side in (old, new)]
    if ids[0] and ids[1] and ids[0] != ids[1]:
        return 0
    return (old & new).total()


def _leaves(steps: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Hashable]]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _leaves((*steps, name), child)
    elif isinstance(value, list):
        for child in value:
            yield from _leaves(steps, child)
    else:
        yield steps, _frozen(value)


def _frozen(value: Any) -> Hashable:
    """A hashable stand-in for a JSON value: equal exactly for equal values."""
    if isinstance(value, dict):
        return ("object", frozenset((name, _frozen(child)) for name, child in value.items()))
    if isinstance(value, list):
        return ("array", tuple(_frozen(child) for child in value))
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    return ("number", value.lexeme if isinstance(value, Number) else str(value))
