"""What leads from one resource to another, as a FHIRPath Patch. https://hl7.org/fhir/R4/fhirpatch.html

    >>> difference({"resourceType": "Patient", "active": True}, {"resourceType": "Patient"})
    {'resourceType': 'Parameters', 'parameter': [{'name': 'operation', 'part': [{'name': 'type', 'valueCode': 'delete'}, \
{'name': 'path', 'valueString': 'Patient.active'}]}]}

Applied to the first resource it gives the second exactly: each element with its ids, extensions and the digits of its
numbers, each list in its order, narratives to the character. Only the order of the names within an object may be
another, which has no meaning in JSON. Left out are the type and the id of the resource and what the server maintains
in meta, as no patch can change them.

Of a list first goes what is gone, from its end; then what stayed is moved, then what came is inserted, each at its
final place; and what changed within an element is told last.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from gitstore.errors import Invalid, Issue, Unprocessable
from gitstore.fhir import Resource, definitions
from gitstore.fhir.alignment import matched, rising
from gitstore.fhir.compare import SERVER_ELEMENTS, same
from gitstore.fhir.definitions import Element
from gitstore.fhir.patch.places import Pair, pairs
from gitstore.fhir.xml_elements import shown

Operation: TypeAlias = dict[str, Any]

_NOT_TOLD = ("resourceType", "id")


def difference(before: Resource, after: Resource, *, meta: bool = True) -> Resource:
    """A Parameters with the operations, none where nothing differs; without `meta` what is in there doesn't count.

    There is no bound to their number, while a PATCH takes `fhirpath_patch.MAX_OPERATIONS`.
    Raises Invalid for resources of two types; Unprocessable for content that R4 doesn't have, which paths can't name.
    """
    type = before.get("resourceType")
    if not isinstance(type, str) or type != after.get("resourceType"):
        text = f"A {shown(str(type))} and a {shown(str(after.get('resourceType')))} can't be compared."
        raise Invalid(Issue("error", "invalid", text))
    operations = list(_objects(type, type, *_told(before, after, meta=meta)))
    parameters: Resource = {"resourceType": "Parameters"}
    return {**parameters, "parameter": operations} if operations else parameters


def _told(before: Resource, after: Resource, *, meta: bool) -> tuple[Resource, Resource]:
    left_out = _NOT_TOLD if meta else (*_NOT_TOLD, "meta")
    told = [{name: value for name, value in side.items() if name not in left_out} for side in (before, after)]
    metas = [side.get("meta") for side in told]
    if isinstance(metas[0], dict) and not SERVER_ELEMENTS.isdisjoint(metas[0]):
        told[1].setdefault("meta", {})  # the patched resource has one in any case
    for side in told:
        if isinstance(side.get("meta"), dict):
            side["meta"] = {
                name: value for name, value in side["meta"].items() if name not in SERVER_ELEMENTS
            }
    if metas[0] is None and not told[1].get("meta"):
        told[1].pop("meta", None)
    return told[0], told[1]


# Elements of an object.


def _objects(
    type: str, path: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Operation]:
    """The operations on the children of an element of a type."""
    old, new = _elements(type, path, before), _elements(type, path, after)
    for name, was in old.items():
        if name not in new:
            yield from _deleted(f"{path}.{name}", before, was)
        elif was.max != 1:
            yield from _lists(path, name, was, pairs(dict(before), was), pairs(dict(after), was))
        else:
            yield from _changed(f"{path}.{name}", was, _pair(before, was), new[name], _pair(after, new[name]))
    for name, came in new.items():
        if name not in old:
            items = pairs(dict(after), came) if came.max != 1 else [_pair(after, came)]
            for item in items:
                yield _added(path, name, _value("value", came, item, f"{path}.{name}"))


def _elements(type: str, path: str, holder: Mapping[str, Any]) -> dict[str, Element]:
    """The elements that an object has, by their names in FHIRPath. Raises Unprocessable for what its type doesn't have."""
    known = _known(type, path)
    found: dict[str, Element] = {}
    for name in holder:
        element = known.get(name.removeprefix("_"))
        if element is None or (name.startswith("_") and not definitions.is_primitive(element.type)):
            if name == "resourceType":
                continue
            raise _beyond(f"{path}.{shown(name)}")
        if found.setdefault(element.choice or element.name, element) is not element:
            raise _beyond(f"{path}.{shown(name)}")
    return found


def _known(type: str, path: str) -> Mapping[str, Element]:
    try:
        return definitions.elements(type)
    except KeyError as error:
        raise _beyond(path) from error


def _pair(holder: Mapping[str, Any], element: Element) -> Pair:
    extra = holder.get(f"_{element.name}") if definitions.is_primitive(element.type) else None
    return holder.get(element.name), extra


def _changed(path: str, was: Element, old: Pair, now: Element, new: Pair) -> Iterator[Operation]:
    """The operations that make one element another, which is at the same place."""
    type = _common_type(was, old, now, new)
    if type is not None:
        yield from _objects(type, path, old[0], new[0])
    elif was is not now or not same(old, new):
        yield _operation("replace", path, _value("value", now, new, path))


def _common_type(was: Element, old: Pair, now: Element, new: Pair) -> str | None:
    """The type of two objects that can be compared by their elements."""
    if was is not now or not isinstance(old[0], dict) or not isinstance(new[0], dict):
        return None
    if was.type != "Resource":
        return None if definitions.is_primitive(was.type) else was.type
    types = old[0].get("resourceType"), new[0].get("resourceType")
    return types[0] if isinstance(types[0], str) and types[0] == types[1] else None


def _deleted(path: str, before: Mapping[str, Any], element: Element) -> Iterator[Operation]:
    if element.max == 1:
        yield _operation("delete", path)
    else:
        for index in reversed(range(len(pairs(dict(before), element)))):
            yield _operation("delete", f"{path}[{index}]")


# Items of a list.


def _lists(
    parent: str, name: str, element: Element, before: list[Pair], after: list[Pair]
) -> Iterator[Operation]:
    path = f"{parent}.{name}"
    if len(before) == len(after) and all(map(same, before, after)):
        return
    origins = matched([_comparable(item) for item in before], [_comparable(item) for item in after])
    kept = set(origins)
    for index in reversed(range(len(before))):
        if index not in kept:
            yield _operation("delete", f"{path}[{index}]")
    yield from _moves(path, [origin for origin in origins if origin is not None])
    count = len(kept - {None})
    for index, origin in enumerate(origins):
        if origin is None:
            value = _value("value", element, after[index], f"{path}[{index}]")
            if index == count:
                yield _added(parent, name, value)
            else:
                yield _operation("insert", path, _whole("index", index), value)
            count += 1
    for index, origin in enumerate(origins):
        if origin is not None:
            yield from _changed(f"{path}[{index}]", element, before[origin], element, after[index])


def _comparable(item: Pair) -> Any:
    value, extra = item
    return value if extra is None else [value, extra]


def _moves(path: str, wanted: Sequence[int]) -> Iterator[Operation]:
    """The fewest moves after which the items, which now stand by their numbers, stand in the wanted order."""
    stays = {wanted[place] for place in rising(wanted)}
    if len(stays) == len(wanted):
        return
    now = sorted(wanted)
    for place, item in enumerate(wanted):
        if item in stays:
            continue
        source = now.index(item)
        del now[source]
        destination = now.index(wanted[place - 1]) + 1 if place else 0
        now.insert(destination, item)
        if source != destination:
            yield _operation("move", path, _whole("source", source), _whole("destination", destination))


# Parts of Parameters.


def _operation(type: str, path: str, *parts: dict[str, Any]) -> Operation:
    given = [{"name": "type", "valueCode": type}, {"name": "path", "valueString": path}, *parts]
    return {"name": "operation", "part": given}


def _added(path: str, name: str, value: dict[str, Any]) -> Operation:
    return _operation("add", path, {"name": "name", "valueString": name}, value)


def _whole(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "valueInteger": number}


def _value(name: str, element: Element, item: Pair, path: str) -> dict[str, Any]:
    """A part with a value: as value[x] where that has the type, as a resource, or else as parts of its own."""
    value, extra = item
    if definitions.is_primitive(element.type):
        if (
            isinstance(value, dict | list)
            or not (extra is None or isinstance(extra, dict))
            or item == (None, None)
        ):
            raise _beyond(path)
        key = _value_names()["string" if element.type == "xhtml" else element.type]
        both = {key: value, f"_{key}": extra}
        return {"name": name} | {key: part for key, part in both.items() if part is not None}
    if not isinstance(value, dict) or not value:
        raise _beyond(path)
    if element.type == "Resource":
        return {"name": name, "resource": value}
    if element.type in _value_names():
        return {"name": name, _value_names()[element.type]: value}
    return {"name": name, "part": list(_parts(element.type, value, path))}


def _parts(type: str, value: Mapping[str, Any], path: str) -> Iterator[dict[str, Any]]:
    for name, element in _elements(type, path, value).items():
        for item in [_pair(value, element)] if element.max == 1 else pairs(dict(value), element):
            yield _value(name, element, item, f"{path}.{name}")


@functools.cache
def _value_names() -> Mapping[str, str]:
    """The properties of a parameter that can have a value of a type."""
    elements = definitions.elements("Parameters.parameter").values()
    return {element.type: element.name for element in elements if element.choice is not None}


def _beyond(path: str) -> Unprocessable:
    text = (
        f"`{path}` is none of R4's elements as the resource has it, so that no FHIRPath Patch can tell of it."
    )
    return Unprocessable(Issue("error", "processing", text, path))
