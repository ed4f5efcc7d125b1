"""The structure of FHIR R4: which types there are, and which elements each of them has.

The data beside this file is made from HL7's own definitions by tools/build_definitions.py, which also
describes its form. https://hl7.org/fhir/R4/structuredefinition.html
"""

from __future__ import annotations

import functools
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

_DATA = Path(__file__).with_name("definitions.jsonl.xz")


@dataclass(frozen=True, slots=True)
class Element:
    """One property that the JSON of a type may have, such as `valueQuantity` of an Observation.

    `type` is the one FHIR type that the property has, or for a backbone element the path under which
    `elements` knows its children (`Patient.contact`). `choice` is the name before [x] of a choice of types
    (`value`), and then `min` and `max` are those of the choice as a whole. `max` is None for `*`, and
    otherwise how many there may be; the JSON is an array where it is not 1.
    """

    name: str
    type: str
    min: int
    max: int | None
    choice: str | None = None


def is_resource_type(name: str) -> bool:
    """Whether R4 has a concrete resource type of this name; upper and lower case matter."""
    return name in _RESOURCE_TYPES


def is_primitive(type: str) -> bool:
    """Whether values of the type are single JSON values, with ids and extensions in a sibling `_name`."""
    return type[:1].islower()


@functools.cache
def elements(type_path: str) -> Mapping[str, Element]:
    """The elements of a resource type, data type or backbone element by JSON property name, in order.

    Choices are expanded (`valueQuantity`, `valueString`, ...). `resourceType` and the `_name` siblings of
    primitive elements are not among them; the latter have the type Element. An element of type Resource
    (contained, Bundle.entry.resource, Parameters.parameter.resource) has the type that its own resourceType
    names. Raises KeyError for primitive and unknown types.
    """
    expanded: dict[str, Element] = {}
    for name, description in _section("elements")[type_path].items():
        minimum = description["min"]
        maximum = None if description["max"] == "*" else int(description["max"])
        choice = name.removesuffix("[x]") if name.endswith("[x]") else None
        for type in description["types"]:
            json_name = name if choice is None else choice + type[0].upper() + type[1:]
            expanded[json_name] = Element(json_name, type, minimum, maximum, choice)
    return expanded


@functools.cache
def _section(name: str) -> dict[str, Any]:
    """One line of the data: they are read one by one, so that the types cost nothing but themselves."""
    opening = b'{"%s":' % name.encode("ascii")
    with lzma.open(_DATA) as lines:
        for line in lines:
            if line.startswith(opening):
                section: dict[str, Any] = msgspec.json.decode(line)[name]
                return section
    raise KeyError(name)


RESOURCE_TYPES: tuple[str, ...] = tuple(
    name
    for name, description in _section("types").items()
    if description["kind"] == "resource" and not description.get("abstract", False)
)
"""The 146 concrete resource types, sorted. https://hl7.org/fhir/R4/resourcelist.html"""

_RESOURCE_TYPES = frozenset(RESOURCE_TYPES)
