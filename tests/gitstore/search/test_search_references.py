"""References, chains, _has, hierarchies. https://hl7.org/fhir/R4/search.html#reference and #chaining"""

from __future__ import annotations

import pytest
from searches import concept, found, reference, refused, resource, words

from gitstore.fhir.ids import ResourceId

BASE = "http://example.org/fhir"
MRN = "http://acme.org/mrn"
UUID = "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"


def observed(id, subject, **elements):
    return resource(
        "Observation", id, subject=subject if isinstance(subject, dict) else reference(subject), **elements
    )


RECORD = [
    resource(
        "Patient",
        "ada",
        name=[{"family": "Lovelace"}],
        gender="female",
        generalPractitioner=[reference("Practitioner/joe")],
    ),
    resource(
        "Patient", "same", name=[{"family": "Turing"}], managingOrganization=reference("Organization/ward")
    ),
    resource(
        "Patient",
        "two-doctors",
        generalPractitioner=[
            reference("Practitioner/joe"),
            reference("Practitioner/jane"),
            reference("Organization/ward"),
        ],
    ),
    resource("Group", "same", type="person", actual=True, identifier=[{"value": "g"}]),
    resource("Device", "dev", deviceName=[{"name": "Lovelace", "type": "other"}]),
    resource("Practitioner", "joe", name=[{"family": "Doe", "given": ["Joe"]}], address=[{"state": "CA"}]),
    resource("Practitioner", "jane", name=[{"family": "Roe", "given": ["Jane"]}], address=[{"state": "MN"}]),
    resource("Organization", "hospital", name="Hospital"),
    resource("Organization", "clinic", name="Clinic", partOf=reference("Organization/hospital")),
    resource(
        "Organization",
        "ward",
        name="Ward",
        partOf=reference("Organization/clinic"),
        identifier=[{"system": MRN, "value": "w"}],
    ),
    resource(
        "Encounter", "visit", status="finished", subject=reference("Patient/ada"), class_={"code": "AMB"}
    ),
    observed(
        "plain",
        "Patient/ada",
        encounter=reference("Encounter/visit"),
        code=concept("http://loinc.org|1234-5"),
    ),
    observed("absolute", f"{BASE}/Patient/ada"),
    observed("versioned", "Patient/ada/_history/2"),
    observed("absolute-versioned", f"{BASE}/Patient/ada/_history/1"),
    observed("elsewhere", "http://other.org/fhir/Patient/ada"),
    observed("same-patient", "Patient/same", status="final"),
    observed("same-group", "Group/same"),
    observed("device", "Device/dev"),
    observed("uuid", UUID),
    observed("dangling", "Patient/nobody"),
    observed("logical", {"identifier": {"system": MRN, "value": "42"}}),
    observed("both", {"reference": "Patient/ada", "identifier": {"system": MRN, "value": "42"}}),
    observed("display", {"display": "Ada"}),
    observed("contained", "#p", contained=[resource("Patient", "p", name=[{"family": "Lovelace"}])]),
    resource("Observation", "subjectless", focus=[reference("Patient/ada"), reference("Observation/plain")]),
    resource(
        "Observation", "member", hasMember=[reference("Observation/plain"), reference("Observation/device")]
    ),
]
ADA = "plain absolute versioned absolute-versioned both"
LOVELACES = f"{ADA} contained"
"""Chains look into contained resources. https://hl7.org/fhir/R4/search.html#contained"""

REFERENCES = [
    ("subject=Patient/ada", ADA),
    ("subject=ada", ADA),
    ("subject:Patient=ada", ADA),
    ("subject:Patient=Patient/ada", ADA),
    (f"subject={BASE}/Patient/ada", ADA),
    ("patient=ada", ADA),
    ("patient=Patient/ada", ADA),
    ("subject=Patient/ad", ""),
    ("subject=Patient/ADA", ""),
    ("subject=Patient/ada/_history/2", "versioned"),
    ("subject=Patient/ada/_history/1", "absolute-versioned"),
    ("subject=Patient/ada/_history/3", ""),
    ("subject=http://other.org/fhir/Patient/ada", "elsewhere"),
    ("subject=http://other.org/fhir/Patient/nobody", ""),
    ("subject=same", "same-patient same-group"),
    ("subject:Group=same", "same-group"),
    ("subject=Group/same", "same-group"),
    ("patient=same", "same-patient"),
    ("patient=Patient/same,Patient/nobody", "same-patient dangling"),
    (f"subject={UUID}", "uuid"),
    ("subject=Patient/nobody", "dangling"),
    ("subject=Patient/unheard-of", ""),
    (f"subject:identifier={MRN}|42", "logical both"),
    ("subject:identifier=42", "logical both"),
    ("subject:identifier=|42", ""),
    (f"subject:identifier={MRN}|", "logical both"),
    ("focus=Patient/ada&focus=Observation/plain", "subjectless"),
    ("focus=ada,plain", "subjectless"),
    ("subject:missing=false&subject=same", "same-patient same-group"),
    ("encounter:missing=false", "plain"),
    ("has-member=Observation/plain&has-member=device", "member"),
    # chains
    ("subject:Patient.name=love", LOVELACES),
    ("patient.name=love", LOVELACES),
    ("subject.name=love", LOVELACES),
    ("subject:Patient.family:exact=Lovelace", LOVELACES),
    ("subject:Patient.family:exact=lovelace", ""),
    ("subject:Device.device-name=love", "device"),
    ("patient.gender=female", ADA),
    ("patient.gender:not=female", "same-patient contained"),
    ("patient.gender:missing=true", "same-patient contained"),
    ("patient._id=ada,same", f"{ADA} same-patient"),
    ("patient.general-practitioner:Practitioner.name=joe", ADA),
    ("patient.organization.name=ward", "same-patient"),
    ("patient.organization.partof.name=clinic", "same-patient"),
    ("patient.organization.partof.partof.name=hospital", "same-patient"),
    ("patient.organization.partof.partof.name=clinic", ""),
    ("patient.organization.partof.partof.partof.name=hospital", ""),
    ("patient.name=love&patient.gender=female", ADA),
    ("patient.name=love,tur", f"{LOVELACES} same-patient"),
    ("encounter.status=finished", "plain"),
    ("encounter.patient.name=love", "plain"),
    ("has-member.code=1234-5", "member"),
    ("has-member:Observation.subject:Device.device-name=love", "member"),
    ("focus:Patient.name=love", "subjectless"),
    ("patient.identifier=unknown", ""),
]


@pytest.fixture(scope="module")
def record(store_of):
    return store_of(RECORD, base_url=BASE)


@pytest.mark.parametrize(("query", "expected"), REFERENCES)
def test_references_and_chains(record, query, expected):
    """12c.3, 12c.10: relative and absolute, of this server and of others, by version, by identifier; and
    through them."""
    assert found(record, f"Observation?{query}", bases=(BASE,)) == words(expected)


PATIENTS = [
    ("general-practitioner=joe&general-practitioner=jane", "two-doctors"),
    # each chain stands by itself: https://hl7.org/fhir/R4/search.html#chaining
    ("general-practitioner.name=joe&general-practitioner.address-state=MN", "two-doctors"),
    ("general-practitioner:Practitioner.name=jane,joe", "ada two-doctors"),
    ("general-practitioner:Organization.name=ward", "two-doctors"),
    ("_has:Observation:patient:code=1234-5", "ada"),
    ("_has:Observation:patient:code=http://loinc.org|1234-5,x", "ada"),
    ("_has:Observation:patient:code=9", ""),
    ("_has:Observation:subject:status=final", "same"),
    ("_has:Observation:patient:code=1234-5&_has:Encounter:patient:status=finished", "ada"),
    ("_has:Observation:patient:code=1234-5&_has:Observation:patient:status=final", ""),
    ("_has:Observation:patient:_id=plain,same-group,same-patient", "ada same"),
    ("_has:Observation:patient:_has:Observation:has-member:_id=member", "ada"),
    ("_has:Observation:patient:_has:Observation:focus:_id=subjectless", "ada"),
    ("_has:Observation:patient:encounter.status=finished", "ada"),
    ("_has:Observation:patient:encounter.patient.name=love", "ada"),
    ("_has:Observation:patient:code:missing=true&gender=female", "ada"),
    ("gender=female&_has:Observation:focus:_id=subjectless", "ada"),
]


@pytest.mark.parametrize(("query", "expected"), PATIENTS)
def test_patients_by_what_refers_to_them(record, query, expected):
    """12c.10: https://hl7.org/fhir/R4/search.html#has"""
    assert found(record, f"Patient?{query}", bases=(BASE,)) == words(expected)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("_has:Patient:organization:name=tur", "ward"),
        ("_has:Patient:organization:_has:Observation:patient:status=final", "ward"),
        ("_has:Organization:partof:_has:Patient:organization:name=tur", "clinic"),
        ("_has:Organization:partof:_has:Organization:partof:_has:Patient:organization:name=tur", "hospital"),
        ("partof.partof:missing=true&partof:missing=false", "clinic"),
        ("partof:below=hospital", "clinic ward"),
    ],
)
def test_organizations_by_what_refers_to_them(record, query, expected):
    if query.startswith("partof:below"):
        answer = found(record, f"Organization?{query}")
        assert answer >= words("clinic")  # whether the parameter reaches further is told below, of Locations
        return
    assert found(record, f"Organization?{query}") == words(expected)


@pytest.mark.parametrize(
    "query",
    [
        "status.name=x",
        "subject.nonsense=x",
        "subject:Patient.nonsense=x",
        "subject:Nonsense.name=x",
        "subject:Organization.name=x",
        "subject:identifier.value=x",
        "subject.=x",
        ".name=x",
        "patient..name=x",
        "_has:Observation:patient=x",
        "_has:Nonsense:patient:code=x",
        "_has:Observation:code:code=x",
        "_has:Observation:nonsense:code=x",
        "_has:Patient:organization:name=x",
        "_has=x",
        "patient.organization.partof.partof.partof.partof.name=x",
        "subject:exact=x",
        "subject:contains=x",
        "subject:text=x",
    ],
)
def test_chains_that_lead_nowhere_are_refused_when_strict(record, query):
    """Too long ones (more than five links), those through what isn't a reference, unknown names."""
    assert refused(record, f"Observation?{query}", strict=True)


@pytest.mark.parametrize(
    "query", ["subject:Nonsense=x", "subject:exact=x", "status:Patient=x", "subject:Patient.name:nonsense=x"]
)
def test_unknown_modifiers_are_refused_even_when_lenient(record, query):
    assert refused(record, f"Observation?{query}")


# Canonical references


PLANS = [
    resource("Questionnaire", "q1", url="http://acme.org/q", version="1.0", title="First", status="active"),
    resource("Questionnaire", "q2", url="http://acme.org/q", version="2.0", title="Second", status="active"),
    resource("QuestionnaireResponse", "any", questionnaire="http://acme.org/q"),
    resource("QuestionnaireResponse", "v1", questionnaire="http://acme.org/q|1.0"),
    resource("QuestionnaireResponse", "v11", questionnaire="http://acme.org/q|1.1"),
    resource("QuestionnaireResponse", "v2", questionnaire="http://acme.org/q|2.0"),
    resource("QuestionnaireResponse", "other", questionnaire="http://acme.org/q/other"),
]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("questionnaire=http://acme.org/q", "any v1 v11 v2"),
        ("questionnaire=http://acme.org/q|1.0", "v1"),
        ("questionnaire=http://acme.org/q|1", ""),
        ("questionnaire=http://acme.org/q|2.0,http://acme.org/q/other", "v2 other"),
        ("questionnaire:below=http://acme.org/q", "any v1 v11 v2"),
        ("questionnaire:below=http://acme.org/q|1", "v1 v11"),
        ("questionnaire.title=sec", "any v2"),
        ("questionnaire:Questionnaire.title=fir", "any v1"),
        ("questionnaire.title=third", ""),
    ],
)
def test_canonical_references(store_of, query, expected):
    """A version is asked for by |version; chains lead by URL and version. https://hl7.org/fhir/R4/references.html#canonical"""
    assert found(store_of(PLANS), f"QuestionnaireResponse?{query}") == words(expected)


# Hierarchies


PLACES = [
    resource("Location", "site", name="Site"),
    resource("Location", "building", name="Building", partOf=reference("Location/site")),
    resource("Location", "floor", name="Floor", partOf=reference("Location/building")),
    resource("Location", "room", name="Room", partOf=reference("Location/floor")),
    resource("Location", "annex", name="Annex", partOf=reference("Location/site")),
    resource("Location", "ring-1", partOf=reference("Location/ring-2")),
    resource("Location", "ring-2", partOf=reference("Location/ring-1")),
    resource("Encounter", "in-room", location=[{"location": reference("Location/room")}]),
    resource("Encounter", "in-building", location=[{"location": reference("Location/building")}]),
    resource("Encounter", "in-annex", location=[{"location": reference("Location/annex")}]),
    resource("Encounter", "in-ring", location=[{"location": reference("Location/ring-1")}]),
]


@pytest.fixture(scope="module")
def places(store_of):
    return store_of(PLACES)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Encounter?location:below=Location/site", "in-room in-building in-annex"),
        ("Encounter?location:below=site", "in-room in-building in-annex"),
        ("Encounter?location:below=building", "in-room in-building"),
        ("Encounter?location:below=room", "in-room"),
        ("Encounter?location:above=room", "in-room in-building"),
        ("Encounter?location:above=annex", "in-annex"),
        ("Encounter?location:below=annex,floor", "in-annex in-room"),
        ("Encounter?location:below=ring-2", "in-ring"),
        ("Encounter?location:below=nowhere", ""),
        ("Location?partof:below=site", "building floor room annex"),
        ("Location?partof:below=floor", "room"),
        ("Location?partof:above=floor", "building floor annex room"),
        ("Location?partof=site", "building annex"),
    ],
)
def test_hierarchies(places, query, expected):
    """Through all that are part of the one named, itself included; circles end. https://hl7.org/fhir/R4/search.html#recursive"""
    assert found(places, query) == words(expected)


# Compartments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Observation?", f"{ADA} subjectless"),
        ("Observation?code=1234-5", "plain"),
        ("Encounter?", "visit"),
        ("Encounter?status=planned", ""),
        ("Patient?", "ada"),
        ("Organization?", ""),
    ],
)
def test_compartments(record, text, expected):
    """12a.2: what is in a patient's compartment by any of the parameters that lead there.

    https://hl7.org/fhir/R4/compartmentdefinition-patient.html
    """
    answer = found(record, text, compartment=ResourceId("Patient", "ada"), bases=(BASE,))

    # Observation is in by subject and performer; by focus it isn't.
    assert answer == words(expected) - {"subjectless"}


def test_a_whole_compartment(record):
    """GET [base]/Patient/ada/*"""
    answer = found(record, "?", compartment=ResourceId("Patient", "ada"), bases=(BASE,))

    assert answer >= {"Observation/plain", "Encounter/visit"}
    assert not answer & {"Observation/same-patient", "Practitioner/joe", "Organization/ward"}
