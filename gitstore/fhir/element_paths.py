"""Places in the JSON of a resource, told as FHIRPath: `Observation.value.coding[0].code` and not `valueCodeableConcept`.

http://hl7.org/fhirpath/N1/#path-selection
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gitstore.fhir import Resource, definitions


def element_path(resource: Resource, steps: Sequence[str | int]) -> str:
    """The path to what lies at the steps; what is in `_birthDate` belongs to `birthDate`.

    Names that R4 doesn't have stand as they are in the JSON.
    """
    type, value = _type_of(resource), resource
    text = type
    node: Any = value
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            element = _known(type).get(step.removeprefix("_"))
            text += f".{step if element is None else element.choice or element.name}"
            type = "" if element is None else "Element" if step.startswith("_") else element.type
        node = node[step]
        if isinstance(node, dict) and "resourceType" in node and type in ("Resource", ""):
            type = _type_of(node)
    return text


def _type_of(resource: Resource) -> str:
    return str(resource.get("resourceType"))


def _known(type: str) -> Any:
    try:
        return definitions.elements(type)
    except KeyError:
        return {}
