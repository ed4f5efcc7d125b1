"""References that are to name the version that a transaction makes.

A client can't know that version, so it marks the reference with an extension, which is gone once it was heeded.
http://hl7.org/fhir/StructureDefinition/resolve-as-version-specific
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gitstore.fhir import Resource

URL = "http://hl7.org/fhir/StructureDefinition/resolve-as-version-specific"


def resolve_versions(resource: Resource, versioned: Callable[[str, str], str | None]) -> Resource:
    """The resource with each marked reference as `versioned` has it, given its text and its place in FHIRPath.

    Where `versioned` returns None the reference stays as it is, with its mark. The given resource is never changed;
    the result shares with it what is the same.
    """
    resolved: Resource = _resolved(resource, "", versioned)
    return resolved


def _resolved(value: Any, place: str, versioned: Callable[[str, str], str | None]) -> Any:
    if value.__class__ is list:
        items = [_resolved(item, f"{place}[{number}]", versioned) for number, item in enumerate(value)]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if value.__class__ is not dict:
        return value
    changed = {
        name: new
        for name, child in value.items()
        if (new := _resolved(child, f"{place}.{name}" if place else name, versioned)) is not child
    }
    found = {**value, **changed} if changed else value
    return _unmarked(found, place, versioned) if _is_marked(found) else found


def _is_marked(value: dict[str, Any]) -> bool:
    extensions = value.get("extension")
    return (
        isinstance(value.get("reference"), str)
        and isinstance(extensions, list)
        and any(_is_mark(extension) for extension in extensions)
    )


def _is_mark(extension: Any) -> bool:
    return (
        isinstance(extension, dict)
        and extension.get("url") == URL
        and extension.get("valueBoolean", False) is True
    )


def _unmarked(
    reference: dict[str, Any], place: str, versioned: Callable[[str, str], str | None]
) -> dict[str, Any]:
    text = versioned(reference["reference"], f"{place}.reference")
    if text is None:
        return reference
    rest = [extension for extension in reference["extension"] if not _is_mark(extension)]
    bare = {name: value for name, value in reference.items() if name != "extension" or rest}
    return bare | ({"extension": rest} if rest else {}) | {"reference": text}
