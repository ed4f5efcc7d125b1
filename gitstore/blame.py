"""Which version last set each element of a resource.

An element keeps what is known of it when another one is put in front of it, and when it is moved within its list:
lists are aligned as differences align them. A deletion ends everything: after it, all is set anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeAlias

from msgspec import Struct

from gitstore.fhir.alignment import matched
from gitstore.fhir.compare import SERVER_ELEMENTS, Steps
from gitstore.fhir.element_paths import element_path
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.fhir.json import Number, dumps_pretty, loads_trusted
from gitstore.search.versions import Cursor
from gitstore.snapshot import Snapshot
from gitstore.version import Version

_PAGE = 500

_Origin: TypeAlias = Any
"""In the place of a primitive the number of the version that set it; else an object or list of the same shape."""


class Blamed(Struct, frozen=True):
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
    elements: dict[bytes, _Element] = {}
    for version in life:
        elements = _after(elements, snapshot.body(version), version.version_id)
    named: dict[int, Version] = {version.version_id: version for version in life}
    resource = {each.name: each.value for each in elements.values()}
    origin = {each.name: each.origin for each in elements.values()}
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


class _Element(Struct, frozen=True):
    """An element of the resource itself, such as Patient.name, with all that is in it."""

    name: str
    value: Any
    origin: _Origin


def _after(elements: dict[bytes, _Element], body: bytes, number: int) -> dict[bytes, _Element]:
    """The elements of a version, by their bytes, from those of the version before it: most versions change one or two,
    and what has the same bytes need not be looked into.
    """
    found: dict[bytes, _Element] = {}
    before = {each.name: each for each in elements.values()}
    for piece in _pieces(body):
        if piece.startswith((b'resourceType": ', b'id": ')):
            continue
        known = elements.get(piece)
        if known is None:
            ((name, value),) = loads_trusted(b'{"%b}' % piece).items()
            if name == "meta" and isinstance(value, dict):
                value = {key: each for key, each in value.items() if key not in SERVER_ELEMENTS}
            old = before.get(name)
            known = _Element(
                name,
                value,
                _all_from(value, number) if old is None else carried(old.value, old.origin, value, number),
            )
        found[piece] = known
    return found


def _pieces(body: bytes) -> list[bytes]:
    """The elements of a resource, each from behind its first quotation mark on, as the stored form prints them: no other
    lines begin with just two spaces and a quotation mark.
    """
    begin, end = b'{\n  "', b"\n}\n"
    if not (body.startswith(begin) and body.endswith(end)):
        body = dumps_pretty(loads_trusted(body))
    return body[len(begin) : -len(end)].split(b',\n  "')


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
