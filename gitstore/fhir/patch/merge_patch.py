"""Merge patches: an object that looks like the resource, with null for what is to go (RFC 7396).

Not a kind of patch that FHIR R4 names. Arrays are replaced as a whole, and nothing can be tested.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from gitstore.errors import Invalid, Issue
from gitstore.fhir import Resource
from gitstore.fhir.patch.result import copied, finished


class MergePatch(Struct, frozen=True):
    """What the resource is merged with."""

    document: dict[str, Any]

    def apply(self, resource: Resource) -> Resource:
        """As `patch.Patch` says."""
        return finished(resource, _merged(resource, self.document))


def parse(document: Any) -> MergePatch:
    """The patch in a JSON document. Raises Invalid where that is no object."""
    if not isinstance(document, dict):
        text = "A merge patch for a resource must be an object; anything else would replace the resource."
        raise Invalid(Issue("error", "structure", text))
    return MergePatch(document)


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copied(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
