"""Parts of a resource: what _summary and _elements leave of it. https://hl7.org/fhir/R4/search.html#summary

What is left says so by the tag SUBSETTED, so that nobody takes it for the whole. The given resource stays as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from gitstore.fhir import Resource, definitions
from gitstore.fhir.definitions import ElementDefinition, is_primitive, is_resource_type

MODES = ("true", "text", "data", "false")
"""Values of _summary that one resource can have; a Bundle can have "count" too."""

SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}

_ALWAYS = ("resourceType", "id", "meta")


def summary(resource: Resource, mode: str) -> Resource:
    """What `_summary` asks for of one resource: with "false" the resource itself, otherwise a part.

    - "true": the elements that the definitions mark as summary, the mandatory ones and the modifiers, at every
      level. An element of which nothing would be left stays whole, and so do extensions.
    - "text": text, id, meta and the mandatory elements.
    - "data": all but text.

    Properties that R4 doesn't have are no part of a summary. Raises ValueError for another mode, and KeyError
    where the resource has no type that R4 knows.
    """
    if mode not in MODES:
        raise ValueError(f"a resource has no summary {mode!r}")
    if mode == "false":
        return resource
    if mode == "data":
        return _tagged({name: value for name, value in resource.items() if name not in ("text", "_text")})
    type = resource["resourceType"]
    if mode == "text":
        return _tagged(_top_level(resource, lambda name, definition: name == "text" or definition.min > 0))
    return _tagged(_summarised(resource, type))


def elements(resource: Resource, names: Collection[str]) -> Resource:
    """What `_elements` asks for: the named elements of the top level, whole; the mandatory ones and the modifiers.

    A choice is named `value`, `value[x]` or `valueQuantity`; the type may stand before a name (`Patient.name`).
    Names that the type doesn't have are ignored. Raises KeyError where the resource has no type that R4 knows.
    """
    prefix = f"{resource['resourceType']}."
    wanted = frozenset(name.removeprefix(prefix) for name in names)

    def is_kept(name: str, definition: ElementDefinition) -> bool:
        return (
            definition.min > 0
            or definition.modifier
            or name in wanted
            or definition.name in wanted
            or definition.name.removesuffix("[x]") in wanted
        )

    return _tagged(_top_level(resource, is_kept))


def _top_level(resource: Resource, is_kept: Callable[[str, ElementDefinition], bool]) -> Resource:
    described = _by_property(resource["resourceType"])
    kept: Resource = {}
    for key, value in resource.items():
        name = key.removeprefix("_")
        if name in _ALWAYS or (name in described and is_kept(name, described[name])):
            kept[key] = value
    return kept


@functools.cache
def _by_property(type: str) -> dict[str, ElementDefinition]:
    """The definitions of a type's elements by JSON property."""
    described = definitions.element_definitions(type)
    return {
        name: described[name if element.choice is None else element.choice + "[x]"]
        for name, element in definitions.elements(type).items()
    }


def _summarised(value: dict[str, Any], type: str) -> dict[str, Any]:
    """The summary of an object of this type, without those of its properties that are no part of one."""
    described, types = _by_property(type), definitions.elements(type)
    kept: dict[str, Any] = {}
    for key, item in value.items():
        name = key.removeprefix("_")
        if name in _ALWAYS and is_resource_type(type):
            kept[key] = item
        elif name in described and _is_summary(described[name]):
            if key == name:
                kept[key] = _part(item, types[name].type)
            elif _has_gaps(value.get(name)):
                kept[key] = item  # why there is no value
    return kept


def _is_summary(definition: ElementDefinition) -> bool:
    return definition.summary or definition.modifier or definition.min > 0


def _has_gaps(value: Any) -> bool:
    return value is None or (isinstance(value, list) and None in value)


def _part(item: Any, type: str) -> Any:
    if isinstance(item, list):
        return [_part(each, type) for each in item]
    if not isinstance(item, dict) or is_primitive(type) or type == "Extension":
        return item
    if type == "Resource":
        inner = item.get("resourceType")
        return summary(item, "true") if isinstance(inner, str) and is_resource_type(inner) else item
    return _summarised(item, type) or item


def _tagged(part: Resource) -> Resource:
    """The part with the tag, after id where there is no meta yet; a copy where it is changed."""
    meta = part.get("meta", {})
    if not isinstance(meta, dict):
        return part
    tags = meta.get("tag", [])
    if not isinstance(tags, list) or any(_is_subsetted(tag) for tag in tags):
        return part
    meta = {**meta, "tag": [*tags, dict(SUBSETTED)]}
    if "meta" in part:
        return {**part, "meta": meta}
    tagged: Resource = {}
    for name, value in part.items():
        tagged[name] = value
        if name == ("id" if "id" in part else "resourceType"):
            tagged["meta"] = meta
    return tagged


def _is_subsetted(tag: Any) -> bool:
    return isinstance(tag, dict) and all(tag.get(key) == value for key, value in SUBSETTED.items())
