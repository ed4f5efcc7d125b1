"""A resource in a line: what it is called, and what a table of its kind shows of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from api.html.links import Links
from api.html.values import Value, groups_of, label
from gitstore.fhir import Resource, definitions

_NAMES = (
    "name",
    "title",
    "code",
    "vaccineCode",
    "medicationCodeableConcept",
    "medicationReference",
    "type",
    "serviceType",
    "class",
    "category",
    "description",
)
"""Where a resource may say what it is, the best place first."""

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "AllergyIntolerance": ("code", "clinicalStatus", "criticality", "patient"),
    "Appointment": ("description", "status", "start", "end"),
    "CarePlan": ("title", "status", "period", "subject"),
    "Condition": ("code", "clinicalStatus", "onset[x]", "subject"),
    "DiagnosticReport": ("code", "status", "effective[x]", "subject"),
    "Encounter": ("type", "status", "period", "subject"),
    "Immunization": ("vaccineCode", "status", "occurrence[x]", "patient"),
    "MedicationDispense": ("medication[x]", "status", "whenHandedOver", "subject"),
    "MedicationRequest": ("medication[x]", "status", "authoredOn", "subject"),
    "Observation": ("code", "value[x]", "status", "effective[x]", "subject"),
    "Organization": ("name", "type", "telecom"),
    "Patient": ("name", "birthDate", "gender", "address"),
    "Practitioner": ("name", "qualification", "telecom"),
    "PractitionerRole": ("practitioner", "organization", "code"),
    "Procedure": ("code", "status", "performed[x]", "subject"),
    "QuestionnaireResponse": ("questionnaire", "status", "authored", "subject"),
    "RelatedPerson": ("name", "relationship", "patient"),
    "ServiceRequest": ("code", "status", "authoredOn", "subject"),
}
_ANY = ("status", "date", "subject", "patient")
"""What else is worth a column in a table of other types."""

SHORT = 120

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d", re.ASCII)


def title(resource: Resource, links: Links) -> str:
    """What a resource is called by people, "" where it doesn't say."""
    for name in _NAMES:
        if name in resource:
            text = next((value.text for value in _values(resource, name, links) if value.text), "")
            if text:
                return shortened(text)
    return ""


def columns(type: str | None) -> tuple[str, ...]:
    """The elements that a table of a type shows, as FHIR names them: `value[x]`. None for resources of many types."""
    if type is None:
        return ()
    if type in _COLUMNS:
        return _COLUMNS[type]
    known = definitions.element_definitions(type)
    named = next((name for name in _NAMES if name in known), None)
    return (*((named,) if named else ()), *(name for name in _ANY if name in known))


def heading(column: str) -> str:
    return label(column.removesuffix("[x]"))


def cells(resource: Resource, names: tuple[str, ...], links: Links) -> list[Value | None]:
    """What stands in the columns; None for an empty one. Of several values the first that says something."""
    found: list[Value | None] = []
    for name in names:
        values = _values(resource, _own_name(resource, name), links)
        said = [value for value in values if value.text]
        found.append(_short(said[0]) if said else None)
    return found


def shortened(text: str, length: int = SHORT) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _own_name(resource: Resource, name: str) -> str:
    """Which of a choice of types a resource has."""
    if not name.endswith("[x]"):
        return name
    stem = name.removesuffix("[x]")
    return next(
        (each for each in resource if each.startswith(stem) and each[len(stem) : len(stem) + 1].isupper()),
        name,
    )


def _values(resource: Resource, name: str, links: Links) -> tuple[Value, ...]:
    if name not in resource:
        return ()
    part: dict[str, Any] = {"resourceType": resource.get("resourceType"), name: resource[name]}
    groups = groups_of(part, links)
    return groups[0].values if groups else ()


def _short(value: Value) -> Value:
    """To the minute: a table is to look through."""
    text = value.text[:16] if _MOMENT.match(value.text) else shortened(value.text)
    return Value(text, value.href, outside=value.outside)
