"""How pages put values into words. https://hl7.org/fhir/R4/datatypes.html"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.html.links import Links
from api.html.phrases import PHRASES, Parts
from api.html.stories import lines
from api.html.summaries import cells, columns, title
from api.html.values import Value, groups_of, label, place
from gitstore.fhir.definitions import elements

LINKS = Links("http://localhost/fhir", "/fhir", "")

SAID: list[tuple[str, dict[str, Any], str, str]] = [
    ("HumanName", {"given": ["Ada", "M"], "family": "King", "use": "usual"}, "Ada M King", "usual"),
    ("HumanName", {"text": "Ada King", "family": "King"}, "Ada King", "King"),
    ("Coding", {"system": "http://loinc.org", "code": "1-8", "display": "Sodium"}, "Sodium", "LOINC 1-8"),
    ("Coding", {"code": "1-8"}, "1-8", ""),
    ("CodeableConcept", {"text": "Salt", "coding": [{"code": "1", "display": "Na"}]}, "Salt", "1 Na"),
    ("CodeableConcept", {"coding": [{"code": "1"}, {"system": "urn:x", "code": "2"}]}, "1", "x 2"),
    ("Quantity", {"value": 7, "unit": "mg", "comparator": "<"}, "< 7 mg", ""),
    (
        "Quantity",
        {"value": 7, "unit": "days", "system": "http://unitsofmeasure.org", "code": "d"},
        "7 days",
        "UCUM d",
    ),
    ("Ratio", {"numerator": {"value": 1}, "denominator": {"value": 2, "unit": "h"}}, "1 : 2 h", ""),
    ("Range", {"low": {"value": 1}}, "1 – …", ""),
    ("Period", {"start": "2026", "end": "2027-01-01T10:00:00Z"}, "2026 – 2027-01-01 10:00:00 UTC", ""),
    ("Period", {"end": "2027"}, "until 2027", ""),
    ("Identifier", {"system": "urn:mrn", "value": "7", "use": "usual"}, "7", "usual, mrn"),
    ("Address", {"line": ["1 A St"], "city": "B", "postalCode": "C"}, "1 A St, C B", ""),
    ("ContactPoint", {"system": "phone", "value": "1", "rank": 2}, "1", "phone, rank 2"),
    ("Reference", {"reference": "Patient/1", "display": "Ada"}, "Ada", "Patient/1"),
    ("Reference", {"reference": "Patient/1", "type": "Patient"}, "Patient/1", ""),
    ("Annotation", {"text": "x", "authorString": "Ada", "time": "2026-01-01"}, "x", "Ada, 2026-01-01"),
    ("Money", {"value": 3, "currency": "EUR"}, "3 EUR", ""),
]


@pytest.mark.parametrize(("type", "value", "text", "note"), SAID)
def test_data_types_are_said_as_people_say_them(
    type: str, value: dict[str, Any], text: str, note: str
) -> None:
    parts = Parts(value)
    said = PHRASES[type](parts)

    assert (said.text, said.note) == (text, note)
    assert parts.used == set(value)


@pytest.mark.parametrize(
    ("reference", "href"),
    [
        ("Patient/1", "/fhir/Patient/1"),
        ("Patient/1/_history/2", "/fhir/Patient/1/_history/2"),
        ("http://localhost/fhir/Patient/1", "/fhir/Patient/1"),
        ("#med", "#contained-med"),
        ("Nonsense/1", None),
        ("http://elsewhere.example/fhir/Patient/1", None),
        ("javascript:alert(1)", None),
        ("//evil.example/Patient/1", None),
        ("Patient/1?x", None),
        ("Patient/../x", None),
        ("urn:uuid:1", None),
    ],
)
def test_a_reference_leads_to_this_server_or_nowhere(reference: str, href: str | None) -> None:
    assert LINKS.reference(reference) == href


def test_names_become_words() -> None:
    assert (label("birthDate"), label("_birthDate"), label("valueQuantity")) == (
        "Birth date",
        "Birth date",
        "Value quantity",
    )
    resource = {"resourceType": "Patient", "telecom": [{}, {"value": "1"}], "name": [{"given": ["A"]}]}
    assert place(resource, ("telecom", 1, "value")) == "Telecom 2 › Value"
    assert place(resource, ("name", 0, "given", 0)) == "Name › Given"


def test_what_a_phrase_has_no_room_for_stands_below_it() -> None:
    """An extension, a version of a code: https://hl7.org/fhir/R4/extensibility.html"""
    resource = {
        "resourceType": "Patient",
        "birthDate": "1970",
        "_birthDate": {"extension": [{"url": "urn:time", "valueString": "noon"}]},
        "maritalStatus": {"coding": [{"code": "M", "version": "7"}]},
    }
    birth, marital = (group.values[0] for group in groups_of(resource, LINKS))

    assert birth.text == "1970"
    assert birth.groups[0].values[0].title == "urn:time"
    assert birth.groups[0].values[0].groups[0].values[0].text == "noon"
    coding = marital.groups[0].values[0]
    assert (coding.text, coding.groups[0].values[0].text) == ("M", "7")


_NAMES = st.sampled_from(
    [
        *elements("Observation"),
        *elements("Patient"),
        "_birthDate",
        "coding",
        "display",
        "reference",
        "resourceType",
        "div",
        "x",
    ]
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("Patient"),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(_NAMES, inside, max_size=4),
    max_leaves=15,
)
_RESOURCES = st.dictionaries(_NAMES, _ANYTHING, max_size=6).map(
    lambda value: {**value, "resourceType": "Observation" if "code" in value else "Patient"}
)


def words(values: tuple[Value, ...]) -> int:
    return sum(1 + words(group.values) for value in values for group in value.groups)


@settings(max_examples=80)
@given(_RESOURCES, _RESOURCES)
def test_whatever_a_record_holds_can_be_shown(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Where nothing was validated, elements may have any form."""
    for resource in (old, new):
        title(resource, LINKS)
        cells(resource, columns(resource["resourceType"]), LINKS)
        for group in groups_of(resource, LINKS):
            words(group.values)
    for line in lines(old, new, LINKS):
        assert line.mark in "+−~"
        assert line.place
