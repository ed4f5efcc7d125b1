"""Which version last set each element of a resource.

An element keeps what is known of it when another one is put in front of it, and when it is moved within its list:
lists are aligned as differences align them. A deletion ends everything: after it, all is set anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from gitstore.fhir import Resource
from gitstore.fhir.alignment import matched
from gitstore.fhir.compare import SERVER_ELEMENTS, Steps
from gitstore.fhir.element_paths import element_path
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.fhir.json import Number, loads_trusted
from gitstore.search.versions import Cursor
from gitstore.snapshot import Snapshot
from gitstore.version import Version

_PAGE = 500

_Origin: TypeAlias = Any
"""In the place of a primitive the number of the version that set it; else an object or list of the same shape."""


@dataclass(frozen=True, slots=True)
class Blamed:
    """One primitive of a resource, its value, and the version that set it. `path` is FHIRPath."""

    path: str
    steps: Steps
    value: Any
    version: Version


def blame(
    snapshot: Snapshot, resource_id: ResourceId, version_id: VersionId | None = None
) -> Iterator[Blamed]:
    """Each primitive of a version, in the order of its JSON, or of the current version.

    Left out are what the server maintains, id and resourceType. Raises NotFound, Gone for a deletion.
    """
    last = snapshot.read(resource_id) if version_id is None else snapshot.vread(resource_id, version_id)
    life = _life(snapshot, last)
    resource: Resource = {}
    origin: _Origin = {}
    for version in life:
        found = _told(loads_trusted(snapshot.body(version)))
        origin = carried(resource, origin, found, version.version_id)
        resource = found
    named: dict[int, Version] = {version.version_id: version for version in life}
    whole = {"resourceType": resource_id.type, **resource}
    for steps, value, number in _leaves((), resource, origin):
        yield Blamed(element_path(whole, steps), steps, value, named[number])


def _life(snapshot: Snapshot, last: Version) -> list[Version]:
    """The versions since the resource came, was revived, or came to its oldest one: the oldest first."""
    found = [last]
    while not found[-1].created:
        cursor = Cursor(found[-1].version_id, 0, newer=False)
        page = snapshot.history(last.resource_id, cursor=cursor, count=_PAGE).versions
        if not page:
            break
        for version in page:
            found.append(version)
            if version.created:
                break
    found.reverse()
    return [found[0], *(later for earlier, later in pairwise(found) if earlier.blob != later.blob)]


def _told(resource: Resource) -> Resource:
    told = {name: value for name, value in resource.items() if name not in ("resourceType", "id")}
    if isinstance(told.get("meta"), dict):
        told["meta"] = {name: value for name, value in told["meta"].items() if name not in SERVER_ELEMENTS}
    return told


def carried(old: Any, origin: _Origin, new: Any, number: int) -> _Origin:
    """Where the parts of a new value are from: of an equal part of the old value as it was known, else `number`."""
    if isinstance(new, dict):
        known = old if isinstance(old, dict) else {}
        return {
            name: carried(known[name], origin[name], value, number)
            if name in known
            else _all_from(value, number)
            for name, value in new.items()
        }
    if isinstance(new, list):
        if not isinstance(old, list):
            return _all_from(new, number)
        return [
            _all_from(value, number) if place is None else carried(old[place], origin[place], value, number)
            for value, place in zip(new, _places(old, new), strict=True)
        ]
    return origin if _is_same(old, new) else number


def _places(old: list[Any], new: list[Any]) -> list[int | None]:
    """Which element each was; mostly there is nothing to align. 1.0 and 1.00 are in the same place then, if not the same."""
    if old == new:
        return list(range(len(new)))
    return matched(old, new)


def _all_from(value: Any, number: int) -> _Origin:
    if isinstance(value, dict):
        return {name: _all_from(child, number) for name, child in value.items()}
    if isinstance(value, list):
        return [_all_from(child, number) for child in value]
    return number


def _is_same(old: Any, new: Any) -> bool:
    """Whether two primitives are the same, numbers by their digits."""
    if isinstance(old, Number) or isinstance(new, Number):
        return isinstance(old, Number) and isinstance(new, Number) and old.lexeme == new.lexeme
    return type(old) is type(new) and bool(old == new)


def _leaves(steps: Steps, value: Any, origin: _Origin) -> Iterator[tuple[Steps, Any, int]]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _leaves((*steps, name), child, origin[name])
    elif isinstance(value, list):
        for place, child in enumerate(value):
            yield from _leaves((*steps, place), child, origin[place])
    elif value is not None:
        yield steps, value, origin
