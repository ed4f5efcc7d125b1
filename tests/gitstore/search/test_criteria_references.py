"""What values of references mean. https://hl7.org/fhir/R4/search.html#reference"""

from __future__ import annotations

import pytest
from asked import asked, key, referring, refused

from gitstore.search.filters import Any, Hierarchy, References, ReferenceValue, Tokens, TokenValue

SUBJECT, PATIENT_REF = key("Observation", "subject"), key("Immunization", "patient")
ELSEWHERE = "http://elsewhere.org/fhir/Patient/1"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("subject", "1", ReferenceValue(id="1")),
        ("subject", "Patient/1", ReferenceValue("Patient", "1")),
        ("subject", "Group/1", ReferenceValue("Group", "1")),
        ("subject", "Practitioner/1", ReferenceValue("Practitioner", "1")),
        ("subject", "Patient/1/_history/2", ReferenceValue("Patient", "1", version="2")),
        ("subject", "http://localhost:8080/fhir/Patient/1", ReferenceValue("Patient", "1")),
        (
            "subject",
            "http://localhost:8080/fhir/Patient/1/_history/2",
            ReferenceValue("Patient", "1", version="2"),
        ),
        ("subject", "http://localhost:8080/fhir/else", ReferenceValue(url="http://localhost:8080/fhir/else")),
        ("subject", "http://localhost:8080/fhirs/1", ReferenceValue(url="http://localhost:8080/fhirs/1")),
        ("subject", ELSEWHERE, ReferenceValue(url=ELSEWHERE)),
        ("subject", "urn:uuid:0-1", ReferenceValue(url="urn:uuid:0-1")),
        ("subject", "http://a/b|1.0", ReferenceValue(url="http://a/b", version="1.0")),
        ("subject", r"http://a/b\|c", ReferenceValue(url="http://a/b|c")),
        ("subject:Patient", "1", ReferenceValue("Patient", "1")),
        ("subject:Patient", "Patient/1", ReferenceValue("Patient", "1")),
        ("subject:Patient", ELSEWHERE, ReferenceValue(url=ELSEWHERE)),
    ],
)
def test_forms_of_a_reference(name, text, expected):
    assert asked("Observation", [(name, text)]) == referring(SUBJECT, expected)


def test_a_bare_id_is_of_the_only_type_that_there_may_be():
    """So one look-up is enough."""
    assert asked("Immunization", "patient=1") == referring(PATIENT_REF, ReferenceValue("Patient", "1"))


def test_several_values_are_alternatives():
    expected = (ReferenceValue(id="1"), ReferenceValue("Group", "2"))
    assert asked("Observation", "subject=1,Group/2") == referring(SUBJECT, *expected)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("subject", "a b"),
        ("subject", "Foo/1"),
        ("subject", "Patient/"),
        ("subject", "Patient/1/_history"),
        ("subject", "Patient/1/2"),
        ("subject", "Patient/a_b"),
        ("subject", "#x"),
        ("subject", "1|2"),
        ("subject", "http://a|1|2"),
        ("subject", "http://a|"),
        (
            "subject",
            "..",
        ),
        ("subject:Patient", "Group/1"),
    ],
)
def test_what_is_no_reference(name, text):
    code, issue = refused("Observation", [(name, text)])
    assert code == "value"
    assert "subject" in issue


def test_the_type_has_to_be_one_that_the_parameter_leads_to():
    code, issue = refused("Observation", "subject:Practitioner=1")
    assert code == "not-supported"
    assert "Device, Group, Location, Patient" in issue


def test_identifiers_of_references():
    """https://hl7.org/fhir/R4/search.html#reference: the identifier in the reference, not that of the resource."""
    keys = (key("Observation", "subject", "identifier"),)
    assert asked("Observation", "subject:identifier=http://a|1") == Tokens(
        keys, (TokenValue("http://a", "1"),)
    )


@pytest.mark.parametrize("direction", ["below", "above"])
@pytest.mark.parametrize("text", ["1", "Location/1", "http://localhost:8080/fhir/Location/1"])
def test_hierarchies_by_part_of(direction, text):
    keys, parents = (key("Encounter", "location"),), (key("Location", "partof"),)
    expected = Hierarchy(keys, "Location", "1", parents, direction)
    assert asked("Encounter", f"location:{direction}={text}") == expected


def test_several_hierarchies_are_alternatives():
    found = asked("Encounter", "location:below=1,2")
    assert isinstance(found, Any)
    assert [each.id for each in found.filters] == ["1", "2"]


@pytest.mark.parametrize(
    ("type", "query", "code"),
    [
        ("Immunization", "patient:below=1", "not-supported"),
        ("Observation", "subject:below=Patient/1", "not-supported"),
        ("Encounter", "location:below=Location/1/_history/1", "not-supported"),
        ("Encounter", "location:below=http://elsewhere/Location/1", "not-supported"),
        ("Provenance", "target:below=1", "value"),
    ],
)
def test_where_there_is_no_hierarchy(type, query, code):
    assert refused(type, query)[0] == code


def test_below_a_canonical_are_all_its_versions():
    """Of one version those that go on where it ends; above it there is no telling, as not all versions have an order."""
    keys = (key("QuestionnaireResponse", "questionnaire"),)
    expected = References(keys, (ReferenceValue(url="http://q"),))
    assert asked("QuestionnaireResponse", "questionnaire:below=http://q") == expected
    expected = References(keys, (ReferenceValue(url="http://q", version="1", below=True),))
    assert asked("QuestionnaireResponse", "questionnaire:below=http://q|1") == expected
    assert refused("QuestionnaireResponse", "questionnaire:above=http://q")[0] == "not-supported"
    assert refused("Encounter", "location:below=http://q")[0] == "not-supported"


def test_a_hierarchy_of_one_of_many_types():
    found = asked("Provenance", "target:below=Organization/1")
    assert (found.type, found.parents) == ("Organization", (key("Organization", "partof"),))
