"""FHIRPath Patch: operations in a Parameters, with paths to the elements. https://hl7.org/fhir/R4/fhirpatch.html

    add      path, name, value           appends to the element at the path, which must be there
    insert   path, index, value          puts an item into the list at the path, 0 to its length
    delete   path                        removes the element, if it is there
    replace  path, value                 puts another element in its place, of another type where it is a choice
    move     path, source, destination   moves an item within the list at the path

A value replaces an element with its id and extensions. Values of types that value[x] does not have, such as
backbone elements and extensions, are given as parts: one for each of their elements, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from gitstore.errors import Invalid, Issue, TooLarge
from gitstore.fhir import Resource, definitions, validation
from gitstore.fhir.definitions import Element
from gitstore.fhir.patch import places
from gitstore.fhir.patch.places import Pair, Path, Place, append, pairs, write
from gitstore.fhir.patch.result import Work, copied, finished, refused
from gitstore.fhir.xml_elements import shown

MAX_OPERATIONS = 1_000
"""Each of them walks through the resource."""

_PARTS: Mapping[str, frozenset[str]] = {
    "add": frozenset({"path", "name", "value"}),
    "insert": frozenset({"path", "index", "value"}),
    "delete": frozenset({"path"}),
    "replace": frozenset({"path", "value"}),
    "move": frozenset({"path", "source", "destination"}),
}


class Typed(Struct, frozen=True):
    """A value of the type that the Parameters say; `extra` is the object beside a primitive."""

    type: str
    value: Any
    extra: Any


class Parts(Struct, frozen=True):
    """A value as the names and values of its elements."""

    items: tuple[tuple[str, Value], ...]


Value: TypeAlias = Typed | Parts


class Operation(Struct, frozen=True):
    """One step of a patch. What an operation does not have is empty; `number` is its place, from 0."""

    number: int
    type: str
    path: Path
    name: str
    value: Value
    index: int
    source: int
    destination: int

    def __str__(self) -> str:
        return f"operation {self.number + 1} ({self.type} `{shown(self.path.text)}`)"


class FHIRPathPatch(Struct, frozen=True):
    """The operations of one Parameters, in order."""

    operations: tuple[Operation, ...]

    def apply(self, resource: Resource) -> Resource:
        """As `patch.Patch` says."""
        result: Resource = copied(resource)
        work = Work()
        for operation in self.operations:
            _OPERATIONS[operation.type](operation, result, work)
        return finished(resource, result)


# From Parameters.


def parse(parameters: Any) -> FHIRPathPatch:
    """The patch in a Parameters. Raises Invalid for what is malformed, TooLarge beyond MAX_OPERATIONS."""
    if not isinstance(parameters, dict) or parameters.get("resourceType") != "Parameters":
        raise Invalid(Issue("error", "structure", "A FHIRPath Patch must be a Parameters resource."))
    given = parameters.get("parameter", [])
    if isinstance(given, list) and len(given) > MAX_OPERATIONS:
        raise TooLarge(f"The patch has {len(given)} operations; at most {MAX_OPERATIONS} may be.")
    refusal = validation.refusal(validation.issues(parameters, structure_only=True))
    if refusal is not None:
        raise refusal
    return FHIRPathPatch(tuple(_operation(number, parameter) for number, parameter in enumerate(given)))


def _operation(number: int, parameter: dict[str, Any]) -> Operation:
    place = f"Parameters.parameter[{number}]"
    if parameter.get("name") != "operation":
        raise _malformed(place, f"`{place}` must have the name `operation`")
    parts: dict[str, dict[str, Any]] = {}
    for part in parameter.get("part", ()):
        if part["name"] in parts:
            raise _malformed(place, f"`{place}` has two parts `{shown(part['name'])}`")
        parts[part["name"]] = part
    type = _text(parts, "type", place)
    if type not in _PARTS:
        raise _malformed(
            place, f"`{place}` has the type `{shown(type)}`; expected one of {', '.join(_PARTS)}"
        )
    for name in sorted(parts.keys() ^ _PARTS[type] ^ {"type"}):
        fault = f"a part `{shown(name)}`, which {type} has not" if name in parts else f"no part `{name}`"
        raise _malformed(place, f"`{place}` has {fault}")
    wanted = _PARTS[type]
    return Operation(
        number,
        type,
        places.compile(_text(parts, "path", place)),
        _text(parts, "name", place) if "name" in wanted else "",
        _value(parts["value"], place) if "value" in wanted else Parts(()),
        *(
            _number(parts, name, place) if name in wanted else 0
            for name in ("index", "source", "destination")
        ),
    )


def _text(parts: Mapping[str, Mapping[str, Any]], name: str, place: str) -> str:
    value = _primitive(parts, name, place)
    if not isinstance(value, str):
        raise _malformed(place, f"`{name}` of `{place}` must be text")
    return value


def _number(parts: Mapping[str, Mapping[str, Any]], name: str, place: str) -> int:
    value = _primitive(parts, name, place)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _malformed(place, f"`{name}` of `{place}` must be a whole number")
    return value


def _primitive(parts: Mapping[str, Mapping[str, Any]], name: str, place: str) -> Any:
    if name not in parts:
        raise _malformed(place, f"`{place}` has no part `{name}`")
    return next((value for key, value in parts[name].items() if key.startswith("value")), None)


def _value(part: Mapping[str, Any], place: str) -> Value:
    """The value of a part: value[x], a resource, or parts of its own."""
    for name, element in definitions.elements("Parameters.parameter").items():
        if element.choice is None:
            continue
        if name in part or f"_{name}" in part:
            if "part" in part or "resource" in part:
                break
            return Typed(element.type, part.get(name), part.get(f"_{name}"))
    else:
        if "resource" in part and "part" not in part:
            return Typed(part["resource"]["resourceType"], part["resource"], None)
        if "part" in part and "resource" not in part:
            return Parts(tuple((item["name"], _value(item, place)) for item in part["part"]))
    text = f"`{shown(part['name'])}` of `{place}` must have either a value, a resource or parts"
    raise _malformed(place, text)


def _malformed(place: str, text: str) -> Invalid:
    return Invalid(Issue("error", "structure", f"This is no FHIRPath Patch: {text}.", place))


# To a resource.


def _add(operation: Operation, resource: Resource, work: Work) -> None:
    target = _only(operation, resource, work)
    _put(target.inside(), target.type, operation.name, operation.value, f"{operation}", target.text)


def _put(holder: dict[str, Any], type: str, name: str, value: Value, what: str, place: str) -> None:
    """Give a value to an object under a name: as the last of several, or as the one that it can have."""
    name = name.removesuffix("[x]")
    element, pair = _fit(type, name, value, what, place)
    if element.max != 1:
        append(holder, element, pair)
        return
    for choice in places.choices(type, name):
        if choice.name in holder or f"_{choice.name}" in holder:
            raise refused(f"In {what}, `{place}` has a `{name}` already, and can have one.", place)
    _rewrite(holder, element, element, pair)


def _insert(operation: Operation, resource: Resource, work: Work) -> None:
    parent, element = _list(operation, resource, work)
    holder = parent.inside()
    items = pairs(holder, element)
    work.spend(len(items))
    if not 0 <= operation.index <= len(items):
        raise _beyond(operation, "index", operation.index, len(items))
    assert operation.path.name is not None  # or it would be no list
    _, pair = _fit(parent.type, operation.path.name, operation.value, f"{operation}", parent.text)
    items.insert(operation.index, pair)
    write(holder, element, items)


def _move(operation: Operation, resource: Resource, work: Work) -> None:
    parent, element = _list(operation, resource, work)
    holder = parent.inside()
    items = pairs(holder, element)
    work.spend(len(items))
    for name, number in (("source", operation.source), ("destination", operation.destination)):
        if not 0 <= number < len(items):
            raise _beyond(operation, name, number, len(items) - 1)
    items.insert(operation.destination, items.pop(operation.source))
    write(holder, element, items)


def _delete(operation: Operation, resource: Resource, work: Work) -> None:
    found = operation.path.places(resource, work)
    if not found:
        return  # an element is deleted if it is there
    place = _one(operation, found)
    element = _element(operation, place)
    if place.index is None:
        _rewrite(place.holder, element, element, (None, None))
    else:
        items = pairs(place.holder, element)
        del items[place.index]
        write(place.holder, element, items)


def _replace(operation: Operation, resource: Resource, work: Work) -> None:
    place = _only(operation, resource, work)
    old = _element(operation, place)
    name = old.choice or old.name
    new, pair = _fit(place.holder_type, name, operation.value, f"{operation}", place.text)
    if place.index is None:
        _rewrite(place.holder, old, new, pair)
    else:
        items = pairs(place.holder, old)
        items[place.index] = pair
        write(place.holder, old, items)


_OPERATIONS: Mapping[str, Callable[[Operation, Resource, Work], None]] = {
    "add": _add,
    "insert": _insert,
    "delete": _delete,
    "replace": _replace,
    "move": _move,
}


def _only(operation: Operation, resource: Resource, work: Work) -> Place:
    found = operation.path.places(resource, work)
    if not found:
        raise refused(f"In {operation}, the path leads to no element of this resource.", operation.path.text)
    return _one(operation, found)


def _one(operation: Operation, found: list[Place]) -> Place:
    if len(found) > 1:
        text = f"In {operation}, the path leads to {len(found)} elements, and must lead to one."
        raise refused(text, operation.path.text)
    return found[0]


def _element(operation: Operation, place: Place) -> Element:
    if place.element is None:
        raise refused(f"In {operation}, the path leads to the resource itself, which can't be changed so.")
    return place.element


def _list(operation: Operation, resource: Resource, work: Work) -> tuple[Place, Element]:
    """The element that has the list at the path, and the element that repeats; it may be empty yet."""
    name = operation.path.name
    if name is None:
        raise refused(f"In {operation}, the path must end in the name of a list.", operation.path.text)
    found = operation.path.parents(resource, work)
    if not found:
        raise refused(f"In {operation}, the path leads to no element of this resource.", operation.path.text)
    parent = _one(operation, found)
    elements = places.choices(parent.type, name)
    if not elements:
        raise _unknown(f"{operation}", parent.text, parent.type, name)
    if elements[0].max == 1:
        raise refused(f"In {operation}, `{parent.text}.{name}` is no list.", parent.text)
    return parent, elements[0]


def _fit(type: str, name: str, value: Value, what: str, place: str) -> tuple[Element, Pair]:
    """The JSON property of a type that can have the value, and what it is to hold.

    Raises Unprocessable where the type has no such element, or one of another type.
    """
    elements = places.choices(type, name)
    if not elements:
        raise _unknown(what, place, type, name)
    if isinstance(value, Typed):
        for element in elements:
            if _accepts(element, value.type):
                return element, (copied(value.value), copied(value.extra))
        types = ", ".join(element.type for element in elements)
        raise refused(f"In {what}, `{name}` can't be a {value.type}; expected {types}.", place)
    complex = [element for element in elements if not definitions.is_primitive(element.type)]
    if len(complex) != 1 or len(elements) != 1 or complex[0].type == "Resource":
        raise refused(f"In {what}, `{name}` can't be given as parts; give it as a value.", place)
    made: dict[str, Any] = {}
    for part, item in value.items:
        _put(made, complex[0].type, part, item, what, f"{place}.{name}")
    return complex[0], (made, None)


def _accepts(element: Element, type: str) -> bool:
    """Whether an element can have a value of a type, or of one derived from its own where it is no choice."""
    if element.type == "Resource":
        return definitions.is_resource_type(type)
    if element.type == "xhtml":
        return type == "string"  # value[x] has no xhtml
    return type == element.type or (element.choice is None and element.type in definitions.lineage(type))


def _rewrite(holder: dict[str, Any], old: Element, new: Element, pair: Pair) -> None:
    """Put a property where another one is, or at the end; (None, None) only removes."""
    given = {new.name: pair[0], f"_{new.name}": pair[1]}
    written = {name: item for name, item in given.items() if item is not None}
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    part = before
    for name, item in holder.items():
        if name in (old.name, f"_{old.name}"):
            part = after
        else:
            part[name] = item
    holder.clear()
    holder.update(before | written | after)


def _unknown(what: str, place: str, type: str, name: str) -> Invalid:
    return refused(f"In {what}, `{place}` is a {type}, which has no `{shown(name)}`.", place)


def _beyond(operation: Operation, name: str, number: int, last: int) -> Invalid:
    allowed = f"0 to {last} may be" if last >= 0 else "the list is empty"
    return refused(f"In {operation}, the {name} is {number}; {allowed}.", operation.path.text)
