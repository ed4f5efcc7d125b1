"""What every kind of patch promises of its result, and the JSON values that all of them work on.

- Type and id of a resource don't change, nor what the server maintains in meta.
- Arrays and objects that are left empty are removed, since FHIR has none: https://hl7.org/fhir/R4/json.html
- Nothing lies deeper than `json.MAX_DEPTH`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gitstore.errors import Issue, TooLarge, Unprocessable
from gitstore.fhir import Resource
from gitstore.fhir.compare import SERVER_ELEMENTS
from gitstore.fhir.json import MAX_DEPTH


def refused(text: str, expression: str | None = None) -> Unprocessable:
    """The error for a patch that can't be applied; it would fail again, which is what `processing` says."""
    return Unprocessable(Issue("error", "processing", text, expression))


MAX_WORK = 1_000_000
"""Elements that the paths of one patch may look at, which takes a few seconds; all other writers wait for it."""


@dataclass(slots=True)
class Work:
    """How much the paths of a patch may still look at."""

    left: int = MAX_WORK

    def spend(self, count: int) -> None:
        """Note that so many elements are looked at. Raises TooLarge where that is more than there is left."""
        self.left -= count
        if self.left < 0:
            raise TooLarge(f"The paths of the patch would look at more than {MAX_WORK} elements.")


def size(value: Any) -> int:
    """How many values there are in a JSON value, itself included."""
    if value.__class__ is dict:
        return 1 + sum(map(size, value.values()))
    if value.__class__ is list:
        return 1 + sum(map(size, value))
    return 1


def copied(value: Any) -> Any:
    """A JSON value that shares no array and no object with the one given."""
    if value.__class__ is dict:
        return {name: copied(item) for name, item in value.items()}
    if value.__class__ is list:
        return [copied(item) for item in value]
    return value


def equal(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal as RFC 6902, section 4.6 has it: 1 is 1.0, but neither true nor "1"."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(item, right[name]) for name, item in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | Decimal) and isinstance(right, int | Decimal):
        return left == right
    return type(left) is type(right) and bool(left == right)


def depth(value: Any) -> int:
    """How many arrays and objects of a value lie in one another, counted to MAX_DEPTH + 1."""
    level = [value]
    for reached in range(MAX_DEPTH + 1):
        level = [child for child in level if child.__class__ is dict or child.__class__ is list]
        if not level:
            return reached
        level = [
            child for parent in level for child in (parent.values() if parent.__class__ is dict else parent)
        ]
    return MAX_DEPTH + 1


def finished(before: Resource, after: Any) -> Resource:
    """What a patch made of a resource, with the promises above kept; parts of `after` may be in it.

    Raises Unprocessable where it is no resource of the same type and id any more, or lies too deep.
    """
    if not isinstance(after, dict):
        raise refused("The patch would leave no resource.")
    type = str(before.get("resourceType"))
    for name in ("resourceType", "id"):
        if (name in before) != (name in after) or not equal(before.get(name), after.get(name)):
            raise refused(f"A patch can't change the {name} of a resource.", f"{type}.{name}")
    if depth(after) > MAX_DEPTH:
        raise refused(f"With the patch, objects and arrays would lie more than {MAX_DEPTH} deep.", type)
    return _without_empty(_with_server_elements(before, after))


def _with_server_elements(before: Resource, after: Resource) -> Resource:
    old, new = before.get("meta"), after.get("meta")
    kept = {name: old[name] for name in old if name in SERVER_ELEMENTS} if isinstance(old, dict) else {}
    given = new if new is not None else {}
    if not isinstance(given, dict):
        return after  # no Meta, for validation to say
    meta = kept | {name: value for name, value in given.items() if name not in SERVER_ELEMENTS}
    return {**after, "meta": meta} if meta or new is not None else after


def _without_empty(value: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, item in value.items():
        sibling = name[1:] if name.startswith("_") else f"_{name}"
        # The items of a primitive and those of its sibling belong together by their number.
        cleaned = _emptied_to_null(item) if item.__class__ is list and sibling in value else _cleaned(item)
        if not _is_empty(cleaned):
            kept[name] = cleaned
    for name in [name for name in kept if name.startswith("_") and isinstance(kept[name], list)]:
        _drop_emptied(kept, value, name)
    return kept


def _cleaned(value: Any) -> Any:
    if value.__class__ is dict:
        return _without_empty(value)
    if value.__class__ is list:
        return [item for item in map(_cleaned, value) if not _is_empty(item)]
    return value


def _is_empty(value: Any) -> bool:
    return not value and (value.__class__ is dict or value.__class__ is list)


def _emptied_to_null(items: list[Any]) -> list[Any]:
    cleaned = [_without_empty(item) if item.__class__ is dict else item for item in items]
    return [None if item.__class__ is dict and not item else item for item in cleaned]


def _drop_emptied(kept: dict[str, Any], given: dict[str, Any], sibling: str) -> None:
    """Remove the primitives of which nothing is left: no value, and an object beside it that was emptied."""
    extras, name = kept[sibling], sibling[1:]
    values = kept.get(name)
    values = values if isinstance(values, list) else []
    gone = {
        number
        for number, extra in enumerate(extras)
        if extra is None
        and given[sibling][number] is not None
        and (number >= len(values) or values[number] is None)
    }
    for key, items in ((name, values), (sibling, extras)):
        left = [item for number, item in enumerate(items) if number not in gone]
        if key in kept and isinstance(kept[key], list):
            kept[key] = left
        if not left or (key == sibling and all(item is None for item in left)):
            kept.pop(key, None)
