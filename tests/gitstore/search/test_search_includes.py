"""_include, _revinclude, contained resources. https://hl7.org/fhir/R4/search.html#include and #contained"""

from __future__ import annotations

import pytest
from searches import concept, found, included, put, reference, refused, resource, search, words

from gitstore import Invalid

RECORD = [
    resource("Organization", "top", name="Top"),
    resource("Organization", "mid", name="Mid", partOf=reference("Organization/top")),
    resource("Organization", "low", name="Low", partOf=reference("Organization/mid")),
    resource(
        "Patient",
        "a",
        managingOrganization=reference("Organization/low"),
        link=[{"other": reference("Patient/b")}],
    ),
    resource("Patient", "b", link=[{"other": reference("Patient/a")}]),
    resource("Practitioner", "p"),
    resource("Encounter", "e", subject=reference("Patient/a")),
    resource(
        "Observation",
        "o1",
        subject=reference("Patient/a"),
        encounter=reference("Encounter/e"),
        performer=[reference("Practitioner/p"), reference("Organization/top")],
    ),
    resource("Observation", "o2", subject=reference("Patient/a"), hasMember=[reference("Observation/o1")]),
    resource(
        "Observation",
        "o3",
        subject=reference("Patient/nobody"),
        derivedFrom=[reference("http://other.org/Observation/9")],
    ),
    resource("Observation", "o4", hasMember=[reference("Observation/o4"), reference("Observation/o2")]),
]


@pytest.fixture(scope="module")
def cases(store_of):
    return store_of(RECORD)


INCLUDES = [
    ("Observation?_id=o1&_include=Observation:subject", "Patient/a"),
    ("Observation?_id=o1,o2&_include=Observation:subject", "Patient/a"),
    ("Observation?_id=o3&_include=Observation:subject", ""),
    ("Observation?_id=o3&_include=Observation:derived-from", ""),
    ("Observation?_id=o1&_include=Observation:performer", "Practitioner/p Organization/top"),
    ("Observation?_id=o1&_include=Observation:performer:Organization", "Organization/top"),
    ("Observation?_id=o1&_include=Observation:performer:Patient", ""),
    (
        "Observation?_id=o1&_include=Observation:subject&_include=Observation:encounter",
        "Patient/a Encounter/e",
    ),
    ("Observation?_id=o1&_include=Patient:organization", ""),
    ("Observation?_id=o1&_include=Observation:subject&_include=Patient:organization", "Patient/a"),
    (
        "Observation?_id=o1&_include=Observation:subject&_include:iterate=Patient:organization",
        "Patient/a Organization/low",
    ),
    (
        "Observation?_id=o1&_include=Observation:subject&_include:iterate=Patient:organization"
        "&_include:iterate=Organization:partof",
        "Patient/a Organization/low Organization/mid Organization/top",
    ),
    ("Organization?_id=low&_include=Organization:partof", "Organization/mid"),
    ("Organization?_id=low&_include:iterate=Organization:partof", "Organization/mid Organization/top"),
    ("Organization?_id=low,mid&_include=Organization:partof", "Organization/top"),
    ("Patient?_id=a&_include:iterate=Patient:link", "Patient/b"),
    ("Patient?_include:iterate=Patient:link", ""),
    ("Observation?_id=o4&_include=Observation:has-member", "Observation/o2"),
    ("Observation?_id=o4&_include:iterate=Observation:has-member", "Observation/o2 Observation/o1"),
    ("Observation?_id=o1&_include=*", "Patient/a Encounter/e Practitioner/p Organization/top"),
    ("Observation?_id=o1&_include=Observation:*", "Patient/a Encounter/e Practitioner/p Organization/top"),
    ("Patient?_id=a&_revinclude=Observation:subject", "Observation/o1 Observation/o2"),
    ("Patient?_id=a&_revinclude=Observation:subject:Patient", "Observation/o1 Observation/o2"),
    (
        "Patient?_id=a&_revinclude=Observation:patient&_revinclude=Encounter:patient",
        "Observation/o1 Observation/o2 Encounter/e",
    ),
    ("Patient?_id=b&_revinclude=Observation:subject", ""),
    ("Encounter?_revinclude=Observation:encounter", "Observation/o1"),
    (
        "Encounter?_revinclude:iterate=Observation:encounter&_revinclude:iterate=Observation:has-member",
        "Observation/o1 Observation/o2 Observation/o4",
    ),
    ("Organization?_id=top&_revinclude:iterate=Organization:partof", "Organization/mid Organization/low"),
    (
        "Observation?_id=o2&_include=Observation:has-member&_revinclude=Observation:has-member",
        "Observation/o1 Observation/o4",
    ),
]


@pytest.mark.parametrize(("query", "expected"), INCLUDES)
def test_includes(cases, query, expected):
    """12c.12: each resource once, never a match again; :iterate goes on from what was brought in."""
    assert included(cases, query) == words(expected)


def test_includes_do_not_count(cases):
    page = search(cases, "Observation?_id=o1,o2&_include=Observation:subject&_count=1")

    assert page.total == 2
    assert len(page.matches) == 1
    assert [str(one.resource_id) for one in page.included] == ["Patient/a"]


@pytest.mark.parametrize(
    "value",
    [
        "Observation",
        "Observation:nonsense",
        "Nonsense:subject",
        "Observation:code",
        "Observation:subject:Nonsense",
        "",
    ],
)
def test_includes_of_nothing_known(cases, value):
    """12b.12: refused when strict; when lenient they are left out of what was used, and said."""
    text = f"Observation?_id=o1&_include={value}"
    if value:
        assert refused(cases, text, strict=True)
        try:
            page = search(cases, text)
        except Invalid:  # as good an answer
            return
        assert page.query.issues
    else:
        page = search(cases, text)
    assert ("_include", value) not in page.query.used
    assert page.included == []


def test_a_versioned_reference_brings_that_version(store):
    """12c.12: https://hl7.org/fhir/R4/search.html#versions"""
    put(store, resource("Patient", "a", active=True))
    put(store, resource("Patient", "a", active=False))
    put(store, resource("Observation", "old", subject=reference("Patient/a/_history/1")))
    put(store, resource("Observation", "new", subject=reference("Patient/a")))

    def brought(query):
        return sorted(str(one) for one in search(store, query).included)

    assert brought("Observation?_id=old&_include=Observation:subject") == ["Patient/a/_history/1"]
    assert brought("Observation?_id=new&_include=Observation:subject") == ["Patient/a/_history/2"]
    assert brought("Observation?_include=Observation:subject") == [
        "Patient/a/_history/1",
        "Patient/a/_history/2",
    ]
    assert len(brought("Patient?_id=a&_revinclude=Observation:subject")) == 2


def test_canonical_references_are_followed(store):
    put(store, resource("Questionnaire", "q", url="http://acme.org/q", version="1.0"))
    put(store, resource("QuestionnaireResponse", "r", questionnaire="http://acme.org/q|1.0"))
    put(store, resource("QuestionnaireResponse", "s", questionnaire="http://acme.org/q|2.0"))

    assert included(store, "QuestionnaireResponse?_id=r&_include=QuestionnaireResponse:questionnaire") == {
        "Questionnaire/q"
    }
    assert (
        included(store, "QuestionnaireResponse?_id=s&_include=QuestionnaireResponse:questionnaire") == set()
    )
    assert included(store, "Questionnaire?_revinclude=QuestionnaireResponse:questionnaire") == {
        "QuestionnaireResponse/r"
    }


CONTAINERS = [
    resource("Medication", "free", ingredient=[{"itemCodeableConcept": concept("http://acme.org/m|abc")}]),
    resource(
        "MedicationRequest",
        "with",
        status="active",
        medicationReference=reference("#m"),
        contained=[
            resource(
                "Medication", "m", ingredient=[{"itemCodeableConcept": concept("http://acme.org/m|abc")}]
            ),
            resource("Practitioner", "dr", name=[{"family": "Roe"}]),
        ],
    ),
    resource(
        "MedicationRequest", "free-one", status="active", medicationReference=reference("Medication/free")
    ),
    resource("MedicationRequest", "without", status="active"),
]


@pytest.fixture(scope="module")
def containers(store_of):
    return store_of(CONTAINERS)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ingredient-code=abc", "free"),
        ("ingredient-code=abc&_contained=false", "free"),
        ("ingredient-code=abc&_contained=true", "with"),
        ("ingredient-code=abc&_contained=both", "free with"),
        ("ingredient-code=xyz&_contained=both", ""),
        ("_contained=true", "with"),
    ],
)
def test_contained_resources(containers, query, expected):
    """12c.15: by default they are no results of their own; else their containers are, or they themselves."""
    page = search(containers, f"Medication?{query}")

    assert {match.version.resource_id.id for match in page.matches} == words(expected)
    assert page.total == len(words(expected))
    assert [match.contained for match in page.matches] == [None] * len(page.matches)

    themselves = search(containers, f"Medication?{query}&_containedType=contained")

    assert {(match.version.resource_id.id, match.contained) for match in themselves.matches} == {
        (id, "m" if id == "with" else None) for id in words(expected)
    }


def test_contained_practitioners_are_searched_by_name(containers):
    assert found(containers, "Practitioner?name=roe") == set()
    assert found(containers, "Practitioner?name=roe&_contained=true") == {"with"}
    assert found(containers, "Practitioner?name=doe&_contained=true") == set()


def test_a_chain_leads_into_contained_resources(containers):
    """R4 says so, with this example. https://hl7.org/fhir/R4/search.html#contained"""
    assert found(containers, "MedicationRequest?medication.ingredient-code=abc") == {"with", "free-one"}


@pytest.mark.parametrize("query", ["_contained=maybe", "_containedType=both"])
def test_unknown_ways_to_treat_contained_resources_are_refused(containers, query):
    assert refused(containers, f"Medication?{query}")
