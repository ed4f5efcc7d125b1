"""What validation needs to know of each type, made ready once: its JSON properties, and what must be there.

https://hl7.org/fhir/R4/json.html
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from msgspec import Struct

from gitstore.fhir import definitions
from gitstore.fhir.definitions import Element, ElementDefinition
from gitstore.fhir.invariants import Invariant, invariants
from gitstore.fhir.primitives import IS_VALID, Check

IsCode: TypeAlias = Callable[[str], bool]


class Property(Struct, frozen=True):
    """One JSON property of a type.

    `path_name` is its name in FHIRPath (`value` of `valueString`). `is_valid` is there for primitives.
    `sibling_of` is the name before which a `_` stands, for ids and extensions of a primitive. `value_set` is
    there for a required binding, and `is_code` too where the value is a code and can be judged. `targets` are
    the types that a reference may lead to, None for any.
    """

    name: str
    path_name: str
    type: str
    max: int | None
    is_choice: bool
    is_valid: Check | None
    sibling_of: str | None = None
    value_set: str | None = None
    is_code: IsCode | None = None
    targets: frozenset[str] | None = None
    invariants: tuple[Invariant, ...] = ()


class Shape(Struct, frozen=True):
    """A type: its properties by JSON name; name in FHIRPath and JSON names of each element that must be there."""

    type: str
    properties: Mapping[str, Property]
    required: tuple[tuple[str, tuple[str, ...]], ...]
    invariants: tuple[Invariant, ...]


@functools.cache
def shape(type: str) -> Shape:
    """The shape of a resource type, data type or backbone element. Raises KeyError for others."""
    properties: dict[str, Property] = {}
    required: dict[str, list[str]] = {}
    described = definitions.element_definitions(type)
    for element in definitions.elements(type).values():
        definition = described[element.name if element.choice is None else element.choice + "[x]"]
        found = [_property(type, element, definition)]
        if found[0].is_valid is not None:
            found.append(_sibling(found[0]))
        for property in found:
            properties[property.name] = property
            if element.min > 0:
                required.setdefault(property.path_name, []).append(property.name)
    names = tuple((path_name, tuple(names)) for path_name, names in required.items())
    return Shape(type, properties, names, invariants(type))


def _property(parent: str, element: Element, definition: ElementDefinition) -> Property:
    value_set = None
    if definition.binding is not None and definition.binding[0] == "required":
        value_set = definition.binding[1]
    rules = invariants(f"{parent}.{definition.name}") if element.type != f"{parent}.{element.name}" else ()
    if element.type in definition.profiles:
        rules += invariants(definition.profiles[element.type])
    targets = definition.targets.get(element.type) if element.type == "Reference" else None
    return Property(
        element.name,
        element.choice or element.name,
        element.type,
        element.max,
        element.choice is not None,
        IS_VALID.get(element.type),
        value_set=value_set,
        is_code=_is_code(value_set) if value_set and element.type == "code" else None,
        targets=None if targets is None or targets & _ANY else targets,
        invariants=rules,
    )


def _sibling(property: Property) -> Property:
    return Property(
        "_" + property.name,
        property.path_name,
        "Element",
        property.max,
        property.is_choice,
        None,
        sibling_of=property.name,
    )


_ANY = frozenset({"Resource"})


@functools.cache
def _is_code(value_set: str) -> IsCode | None:
    """Whether a code is in a value set; None where that can't be told."""
    if value_set in _BY_RULE:
        return _BY_RULE[value_set]
    systems = definitions.codes(value_set)
    if systems is None:
        return None
    return frozenset().union(*systems.values()).__contains__


_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9*][\w!#$&^.+-]{0,126}(?:\s*;.*)?", re.ASCII
)
_BY_RULE: Mapping[str, IsCode] = {
    # https://www.rfc-editor.org/info/bcp13: any media type, with parameters; and FHIR's own words for its formats,
    # which HL7's CapabilityStatements and TestScripts have
    "http://hl7.org/fhir/ValueSet/mimetypes": lambda code: (
        code in ("json", "xml", "ttl") or _MEDIA_TYPE.fullmatch(code) is not None
    ),
}
_WHOLE_SYSTEMS: Mapping[str, str] = {"http://hl7.org/fhir/ValueSet/ucum-units": "http://unitsofmeasure.org"}


def has_coding(value_set: str, system: object, code: object) -> bool | None:
    """Whether the value set has the code of a Coding; None where that can't be told."""
    if value_set in _WHOLE_SYSTEMS:
        return system == _WHOLE_SYSTEMS[value_set]
    systems = definitions.codes(value_set)
    if systems is None:
        return None
    return isinstance(system, str) and code in systems.get(system, ())


def expected_codes(value_set: str) -> str:
    """The codes of a value set for a message, or its URL where they are many."""
    systems = definitions.codes(value_set) or {}
    codes = [code for codes in systems.values() for code in sorted(codes)]
    return f"one of {', '.join(codes)}" if 0 < len(codes) <= 12 else f"a code of {value_set}"
