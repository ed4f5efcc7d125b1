"""The structure of FHIR R4: which types there are, and which elements each of them has.

The data beside this file is made from HL7's own definitions by tools/build_definitions.py, which also
describes its form. https://hl7.org/fhir/R4/structuredefinition.html
"""

from __future__ import annotations

import functools
import hashlib
import lzma
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

_FOLDER = Path(__file__).parent
_FILES = {
    "types": "definitions.jsonl.xz",
    "elements": "definitions.jsonl.xz",
    "constraints": "definitions.jsonl.xz",
    "caseSensitive": "codes.jsonl.xz",
    "codes": "codes.jsonl.xz",
    "parameters": "search.jsonl.xz",
    "compartments": "search.jsonl.xz",
}


class Element(Struct, frozen=True):
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


class ElementDefinition(Struct, frozen=True):
    """What the specification says about one element, such as `value[x]` of an Observation.

    `binding` is strength and value set (a URL without version); `targets` the types that a Reference or
    canonical may lead to, by these two words, and absent where it may be any; `profiles` the profile that a
    value of some type must fit (`{"Quantity": "SimpleQuantity"}`). `types` and `max` are as in `Element`.
    """

    name: str
    types: tuple[str, ...]
    min: int
    max: int | None
    summary: bool
    modifier: bool
    binding: tuple[str, str] | None
    targets: Mapping[str, frozenset[str]]
    profiles: Mapping[str, str]


class Constraint(NamedTuple):
    """An invariant: its key (`obs-6`), severity (error or warning) and FHIRPath expression."""

    key: str
    severity: str
    expression: str


class SearchParameter(Struct, frozen=True):
    """A search parameter of the base specification. https://hl7.org/fhir/R4/searchparameter.html

    `id` is the end of its URL (`clinical-patient`); `target` the types that a reference may lead to;
    `components` (id of a parameter, expression) where the type is composite. `expression` is None for _text,
    _content and _query.
    """

    id: str
    code: str
    base: tuple[str, ...]
    type: str
    expression: str | None
    target: frozenset[str]
    components: tuple[tuple[str, str], ...]
    modifiers: tuple[str, ...]
    comparators: tuple[str, ...]
    chain: tuple[str, ...]
    multiple_or: bool


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
    for name, description in _entry("elements", type_path).items():
        minimum = description["min"]
        maximum = None if description["max"] == "*" else int(description["max"])
        choice = name.removesuffix("[x]") if name.endswith("[x]") else None
        for type in description["types"]:
            json_name = name if choice is None else choice + type[0].upper() + type[1:]
            expanded[json_name] = Element(json_name, type, minimum, maximum, choice)
    return expanded


@functools.cache
def element_definitions(type_path: str) -> Mapping[str, ElementDefinition]:
    """What `elements` leaves out, by name in FHIR (`value[x]`), in order. Raises KeyError as `elements` does."""
    return {
        name: ElementDefinition(
            name,
            tuple(description["types"]),
            description["min"],
            None if description["max"] == "*" else int(description["max"]),
            description.get("summary", False),
            description.get("modifier", False),
            tuple(description["binding"]) if "binding" in description else None,
            {type: frozenset(targets) for type, targets in description.get("targets", {}).items()},
            description.get("profiles", {}),
        )
        for name, description in _entry("elements", type_path).items()
    }


@functools.cache
def lineage(type: str) -> tuple[str, ...]:
    """The type and what it is derived from: Age, Quantity, Element; code, string, Element.

    Backbone elements count as derived from Element only; an unknown type is alone.
    """
    if type in _PRIMITIVE_BASES:
        return type, *lineage(_PRIMITIVE_BASES[type])
    if type not in _section("types"):
        return (type, "Element") if "." in type else (type,)
    description = _entry("types", type)
    base = description.get("base")
    return (type, *lineage(base)) if base else (type,)


@functools.cache
def constraints(path: str) -> tuple[Constraint, ...]:
    """The invariants that stand on a type, backbone element, element (`Organization.telecom`) or profile.

    A type has those of what it is derived from, too. ele-1 (nothing is empty) and the rules for a narrative's
    HTML (txt-1, txt-2) are not among them.
    """
    return tuple(
        Constraint(*constraint)
        for place in lineage(path)
        if place in _section("constraints")
        for constraint in _entry("constraints", place)
    )


@functools.cache
def codes(value_set: str) -> Mapping[str, frozenset[str]] | None:
    """Code systems and codes of a value set that a required binding of the base specification names.

    None for others and for those without a list: mimetypes, ucum-units, and one of LOINC's.
    """
    if value_set not in _section("codes"):
        return None
    return {system: frozenset(codes) for system, codes in _entry("codes", value_set).items()}


def case_sensitive(system: str) -> bool | None:
    """Whether a code system of the base specification minds upper and lower case; None where it doesn't say."""
    found: bool | None = _entry("caseSensitive", system) if system in _section("caseSensitive") else None
    return found


@functools.cache
def search_parameters() -> Mapping[str, SearchParameter]:
    """The 1,375 search parameters of the base specification by id, in its order."""
    return {
        id: SearchParameter(
            id,
            parameter["code"],
            tuple(parameter["base"]),
            parameter["type"],
            parameter.get("expression"),
            frozenset(parameter.get("target", ())),
            tuple((part["definition"], part["expression"]) for part in parameter.get("component", ())),
            tuple(parameter.get("modifier", ())),
            tuple(parameter.get("comparator", ())),
            tuple(parameter.get("chain", ())),
            parameter.get("multipleOr", True),
        )
        for id, parameter in _entries("parameters")
    }


@functools.cache
def compartments() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """For each of the five compartments (`Patient`): resource type -> codes of the parameters that lead in.

    `{def}` stands for the resource itself. https://hl7.org/fhir/R4/compartmentdefinition.html
    """
    return {
        compartment: {type: tuple(parameters) for type, parameters in types.items()}
        for compartment, types in _entries("compartments")
    }


@functools.cache
def digest() -> str:
    """Changes with the data beside this file."""
    found = hashlib.sha256()
    for name in sorted(set(_FILES.values())):
        found.update((_FOLDER / name).read_bytes())
    return found.hexdigest()


@functools.cache
def _section(name: str) -> dict[str, msgspec.Raw]:
    """One line of the data: they are read one by one, so that the types cost nothing but themselves.

    Its entries stay JSON until they are asked for: to decode those of all elements takes 12 ms, and here 1.4.
    """
    opening = b'{"%s":' % name.encode("ascii")
    with lzma.open(_FOLDER / _FILES[name]) as lines:
        for line in lines:
            if line.startswith(opening):
                return msgspec.json.decode(line, type=dict[str, dict[str, msgspec.Raw]])[name]
    raise KeyError(name)


def _entry(section: str, key: str) -> Any:
    """Raises KeyError."""
    return msgspec.json.decode(_section(section)[key])


def _entries(section: str) -> Iterator[tuple[str, Any]]:
    for key in _section(section):
        yield key, _entry(section, key)


_PRIMITIVE_BASES = {
    **dict.fromkeys(("code", "id", "markdown"), "string"),
    **dict.fromkeys(("url", "canonical", "oid", "uuid"), "uri"),
    **dict.fromkeys(("unsignedInt", "positiveInt"), "integer"),
    **dict.fromkeys(
        (
            "base64Binary",
            "boolean",
            "date",
            "dateTime",
            "decimal",
            "instant",
            "integer",
            "string",
            "time",
            "uri",
            "xhtml",
        ),
        "Element",
    ),
}  # https://hl7.org/fhir/R4/datatypes.html

RESOURCE_TYPES: tuple[str, ...] = tuple(
    name
    for name, description in _entries("types")
    if description["kind"] == "resource" and not description.get("abstract", False)
)
"""The 146 concrete resource types, sorted. https://hl7.org/fhir/R4/resourcelist.html"""

_RESOURCE_TYPES = frozenset(RESOURCE_TYPES)
