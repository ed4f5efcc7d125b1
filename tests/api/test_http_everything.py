"""$everything over HTTP. https://hl7.org/fhir/R4/patient-operation-everything.html"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gitstore import ANONYMOUS, Store, Update
from gitstore.everything import _CARE_DATES, _dated
from gitstore.fhir.definitions import search_parameters
from gitstore.fhir.ids import ResourceId
from tests.api.conftest import START
from tests.api.ward import BASE, client_of, link
from tests.conftest import copy_record

ADA = {"reference": "Patient/ada"}
STORY = [
    {
        "resourceType": "Patient",
        "id": "ada",
        "generalPractitioner": [{"reference": "PractitionerRole/role"}],
        "link": [{"other": {"reference": "Patient/eve"}, "type": "seealso"}],
    },
    {"resourceType": "Patient", "id": "eve"},
    {"resourceType": "Practitioner", "id": "doc"},
    {"resourceType": "PractitionerRole", "id": "role", "practitioner": {"reference": "Practitioner/doc"}},
    {"resourceType": "Organization", "id": "clinic"},
    {"resourceType": "Location", "id": "room", "managingOrganization": {"reference": "Organization/clinic"}},
    {"resourceType": "Medication", "id": "drug"},
    {
        "resourceType": "Encounter",
        "id": "visit",
        "subject": ADA,
        "period": {"start": "2020-02-01", "end": "2020-02-03"},
        "location": [{"location": {"reference": "Location/room"}}],
    },
    {
        "resourceType": "MedicationRequest",
        "id": "order",
        "subject": ADA,
        "encounter": {"reference": "Encounter/visit"},
        "authoredOn": "2021-01-01",
        "medicationReference": {"reference": "Medication/drug"},
    },
    {"resourceType": "Coverage", "id": "card", "beneficiary": ADA},
    *(
        {
            "resourceType": "Observation",
            "id": f"o{number}",
            "subject": ADA,
            **({"effectiveDateTime": f"202{number}-06-01"} if number else {}),
            "performer": [{"reference": "Practitioner/doc"}],
        }
        for number in range(4)
    ),
    {"resourceType": "Observation", "id": "eves", "subject": {"reference": "Patient/eve"}},
    {
        "resourceType": "Observation",
        "id": "both",
        "subject": ADA,
        "effectiveDateTime": "2020-02-02",
        "encounter": {"reference": "Encounter/visit"},
        "hasMember": [{"reference": "Observation/eves"}],
    },
    {"resourceType": "Practitioner", "id": "stranger"},
]
COMPARTMENT = [
    "Patient/ada",
    "Coverage/card",
    "Encounter/visit",
    "MedicationRequest/order",
    "Observation/both",
    *(f"Observation/o{number}" for number in range(4)),
]
SUPPORT = [
    "Location/room",
    "Medication/drug",
    "Organization/clinic",
    "Practitioner/doc",
    "PractitionerRole/role",
]


@pytest.fixture(scope="module")
def clinic(empty_record, settings, tmp_path_factory):
    path = copy_record(empty_record, tmp_path_factory.mktemp("clinic") / "record.git")
    with Store.open(path, settings, clock=lambda: START, new_id=lambda: "new") as store:
        store.commit([Update(ResourceId(one["resourceType"], one["id"]), one) for one in STORY], ANONYMOUS)
    return path


@pytest.fixture(scope="module")
def reader(clinic, settings):
    with Store.open(clinic, settings) as store:
        yield client_of(store, settings)


@pytest.fixture
def repository(clinic, tmp_path):
    return copy_record(clinic, tmp_path / "record.git")


def names(bundle, mode=None):
    return [
        f"{each['resource']['resourceType']}/{each['resource']['id']}"
        for each in bundle.get("entry", [])
        if mode in (None, each["search"]["mode"])
    ]


def parameters(*given):
    return {"resourceType": "Parameters", "parameter": [{"name": name, **value} for name, value in given]}


def test_everything_about_a_patient(reader):
    """16.5: the patient first, then the compartment, then what these refer to, each once; no other patient's."""
    response = reader.get("Patient/ada/$everything")

    assert response.status_code == 200
    bundle = response.json
    assert (bundle["resourceType"], bundle["type"], bundle["total"]) == (
        "Bundle",
        "searchset",
        len(COMPARTMENT),
    )
    assert names(bundle, "match") == COMPARTMENT
    assert names(bundle, "include") == SUPPORT
    assert names(bundle) == COMPARTMENT + SUPPORT
    assert bundle["entry"][0]["fullUrl"] == f"{BASE}/Patient/ada"
    assert link(bundle, "next") is None
    assert response.headers["Git-Commit"]


def test_everything_about_an_encounter(reader):
    """16.5: with its patient, who is not in its compartment but referred to."""
    bundle = reader.get("Encounter/visit/$everything").json

    assert names(bundle, "match") == ["Encounter/visit", "MedicationRequest/order", "Observation/both"]
    assert names(bundle, "include") == [
        "Location/room",
        "Medication/drug",
        "Organization/clinic",
        "Patient/ada",
    ]


@pytest.mark.parametrize(
    ("query", "dated"),
    [
        ("start=2022", ["o2", "o3"]),
        ("end=2020-02-02", ["visit", "both"]),
        ("start=2020-02-03&end=2021-01-01", ["visit", "order"]),
        ("start=2021-01-01&end=2021", ["order", "o1"]),
        ("start=2020-02-03T00:00:00%2B00:00&end=2020-12-31", ["visit"]),
        ("start=2020-02-03T00:00:00+00:00&end=2020-12-31", ["visit"]),
        ("start=2020-02-02&end=2020-02-02", ["visit", "both"]),
        ("start=2030", []),
    ],
)
def test_dates_are_those_of_care(reader, query, dated):
    """16.5: what overlaps the period; what has no date of care is kept, and so is what lacks one."""
    found = names(reader.get(f"Patient/ada/$everything?{query}").json, "match")

    undated = {"Patient/ada", "Coverage/card", "Observation/o0"}
    assert undated <= set(found)
    assert {name.partition("/")[2] for name in set(found) - undated} == set(dated)
    assert found[0] == "Patient/ada"


def test_what_is_referred_to_from_outside_of_the_dates_is_not_there(reader):
    """16.5: what supports the rest is chosen by the rest."""
    bundle = reader.get("Patient/ada/$everything?start=2030").json

    assert names(bundle, "include") == ["Practitioner/doc", "PractitionerRole/role"]


def test_the_encounter_itself_is_in_its_everything_whatever_its_date(reader):
    """16.5"""
    assert names(reader.get("Encounter/visit/$everything?start=2030").json, "match") == ["Encounter/visit"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("_type=Observation,Coverage", ["Coverage/card", *COMPARTMENT[4:]]),
        ("_type=Coverage&_type=Medication", ["Coverage/card", "Medication/drug"]),
        ("_type=Practitioner", ["Practitioner/doc"]),
        ("_type=Patient", ["Patient/ada"]),
        ("_type=Encounter&start=2030", []),
        ("_type=ValueSet", []),
    ],
)
def test_types_narrow_it(reader, query, expected):
    """16.5: what is brought in, and the patient itself, just as the rest."""
    assert names(reader.get(f"Patient/ada/$everything?{query}").json) == expected


def test_since_is_about_the_record(client, clock):
    """16.5: versions of that instant and later; 1.3 of histories has the same."""
    clock.forward(60)
    client.put("Observation/o1", STORY[11] | {"status": "amended"})

    assert names(client.get("Patient/ada/$everything?_since=2023-11-14T22:14:00Z").json) == ["Observation/o1"]
    everything = client.get("Patient/ada/$everything?_since=2023-11-14T22:13:20.25Z").json
    assert len(names(everything)) == len(COMPARTMENT + SUPPORT)


def pages(client, url):
    found = [client.get(url).json]
    while (following := link(found[-1], "next")) is not None:
        found.append(client.follow(following).json)
    return found


@pytest.mark.parametrize("count", [1, 2, 5, 13, 14, 15])
def test_pages_have_each_resource_once(reader, count):
    """16.5: in the same order as without pages, and with one total."""
    found = pages(reader, f"Patient/ada/$everything?_count={count}")

    assert [name for page in found for name in names(page)] == COMPARTMENT + SUPPORT
    assert {page["total"] for page in found} == {len(COMPARTMENT)}
    assert all(len(page["entry"]) == count for page in found[:-1])


def test_pages_are_of_one_state(client):
    """16.5: what changes meanwhile is as it was, what is new is not there, what is deleted may be missing."""
    first = client.get("Patient/ada/$everything?_count=6").json
    client.put("Observation/o2", STORY[12] | {"status": "amended"})
    client.put("Observation/a0", STORY[11] | {"id": "a0"})
    client.put("Observation/o4", STORY[11] | {"id": "o4"})
    client.delete("Observation/o3")

    rest = client.follow(link(first, "next")).json
    last = client.follow(link(rest, "next")).json

    assert [*names(first), *names(rest), *names(last)] == [
        name for name in COMPARTMENT + SUPPORT if name != "Observation/o3"
    ]
    assert "status" not in next(each for each in rest["entry"] if each["resource"]["id"] == "o2")["resource"]
    assert rest["total"] == first["total"]
    assert rest["meta"] == first["meta"]


def test_count_zero_asks_for_the_number_alone(reader):
    """16.5"""
    bundle = reader.get("Patient/ada/$everything?_count=0").json

    assert bundle["total"] == len(COMPARTMENT)
    assert "entry" not in bundle
    assert link(bundle, "next") is None


def test_a_post_says_the_same_in_parameters(reader):
    """16.1: in the body, in the URL or both; the links are for GET."""
    body = parameters(
        ("start", {"valueDate": "2021"}),
        ("_type", {"valueCode": "Observation"}),
        ("_type", {"valueCode": "Coverage"}),
        ("_count", {"valueInteger": 2}),
    )
    posted = reader.post("Patient/ada/$everything", body)
    got = reader.get("Patient/ada/$everything?start=2021&_type=Observation&_type=Coverage&_count=2")

    assert posted.status_code == 200
    assert posted.json == got.json
    assert names(reader.follow(link(posted.json, "next")).json) == ["Observation/o1", "Observation/o2"]
    assert (
        reader.request("POST", "Patient/ada/$everything").json == reader.get("Patient/ada/$everything").json
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (parameters(("start", {})), "value"),
        (parameters(("start", {"valueBoolean": True})), "value"),
        (parameters(("start", {"valueDate": "x"})), "value"),
        (parameters(("_count", {"valueInteger": True})), "value"),
        (parameters(("_count", {"valueInteger": -1})), "value"),
        (parameters(("_count", {"valueInteger": 1.5})), "value"),
        (parameters(("x", {"valueDate": "2020"})), "not-supported"),
        (parameters(("_page", {"valueString": "1"})), "not-supported"),
        (parameters(("end", {"valueDate": "2020"}), ("end", {"valueDate": "2020"})), "value"),
        ({"resourceType": "Patient"}, "structure"),
        ({"resourceType": "Parameters", "parameter": {}}, "structure"),
        ({"resourceType": "Parameters", "parameter": ["x"]}, "not-supported"),
    ],
)
def test_a_post_that_can_not_be_meant_is_refused(reader, issue, body, code):
    """16.1"""
    response = reader.post("Patient/ada/$everything", json.dumps(body))

    assert (response.status_code, issue(response)[1]) == (400, code)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("start=banana", 400),
        ("end=2020-02-30", 400),
        ("_since=2020", 400),
        ("_type=Gurke", 400),
        ("_count=x", 400),
        ("_count=-1", 400),
        ("x=y", 400),
        ("_include=*", 400),
        ("start=2020&start=2021", 400),
        ("_page=1", 400),
        ("_page=1.1.Patient", 400),
        ("_page=99999.1.Patient/ada", 404),
        ("_page=%F0", 400),
    ],
)
def test_parameters_that_can_not_be_meant_are_refused(reader, issue, query, status):
    """1.5: never another answer than to what was asked."""
    response = reader.get(f"Patient/ada/$everything?{query}")

    assert response.status_code == status
    assert issue(response)[0] == "error"


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("Patient/nobody/$everything", 404, "not-found"),
        ("Patient/gone/$everything", 410, "deleted"),
        ("Encounter/nobody/$everything", 404, "not-found"),
        ("Practitioner/doc/$everything", 404, "not-supported"),
        ("Gurke/1/$everything", 404, "not-supported"),
        ("Patient/a_b/$everything", 400, "value"),
        ("Patient/$everything", 404, "not-supported"),
    ],
)
def test_everything_about_what_is_not_there(client, issue, url, status, code):
    """16.5, 10.6"""
    client.put("Patient/gone", {"resourceType": "Patient", "id": "gone"})
    client.delete("Patient/gone")

    response = client.get(url)

    assert (response.status_code, issue(response)[1]) == (status, code)
    if url.count("/") == 2:
        assert client.request("POST", url).status_code == status


def test_what_is_deleted_is_not_part_of_it(client):
    """10.6: neither of the compartment, nor of what is referred to."""
    client.delete("Observation/o1")
    client.delete("Practitioner/doc")

    found = names(client.get("Patient/ada/$everything").json)

    assert set(COMPARTMENT + SUPPORT) - set(found) == {"Observation/o1", "Practitioner/doc"}


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_it_can_be_an_entry_of_a_bundle(client, kind):
    """16.5: a GET like others; in a transaction it sees what that has written."""
    entries = [
        {"request": {"method": "GET", "url": "Patient/ada/$everything?_type=Coverage"}},
        {
            "request": {"method": "PUT", "url": "Coverage/new"},
            "resource": {"resourceType": "Coverage", "id": "new", "beneficiary": ADA},
        },
    ]

    answer = client.post("", {"resourceType": "Bundle", "type": kind, "entry": entries}).json

    assert names(answer["entry"][0]["resource"]) == ["Coverage/card", "Coverage/new"]


def test_an_entry_that_fails_fails_as_a_request_does(reader):
    """16.5: in a batch that entry, in a transaction all of it."""
    entry = {"request": {"method": "GET", "url": "Patient/nobody/$everything"}}
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [entry]}

    assert reader.post("", bundle).json["entry"][0]["response"]["status"].startswith("404")
    assert reader.post("", bundle | {"type": "transaction"}).status_code == 404


def test_it_comes_in_every_form(reader):
    """2.8"""
    assert reader.request("HEAD", "Patient/ada/$everything").status_code == 200
    assert b"<Bundle" in reader.get("Patient/ada/$everything?_format=xml").content
    assert reader.request("PUT", "Patient/ada/$everything").status_code == 405


def test_it_needs_the_search(repository, settings, clock, make_client):
    """16.5: 501 with fhir.search = off, and no claim of it."""
    off = replace(settings, search="off")
    with Store.open(repository, off, clock=clock) as store:
        client = make_client(off, store)
        assert client.get("Patient/ada/$everything").status_code == 501
        claims = client.get("metadata").json["rest"][0]["resource"]
        assert "everything" not in {each["name"] for claim in claims for each in claim["operation"]}


def test_there_is_a_limit(reader, monkeypatch):
    """16.5: 422, naming what makes it less."""
    monkeypatch.setattr("gitstore.everything.LIMIT", 3)

    response = reader.get("Patient/ada/$everything")

    assert response.status_code == 422
    assert "_type" in response.text


def test_each_date_of_care_is_a_date_parameter_of_its_type():
    """16.5: what the table names is there; a birthday is no date of care."""
    known = {
        (type, each.code)
        for each in search_parameters().values()
        if each.type == "date"
        for type in each.base
    }

    assert set(_CARE_DATES.items()) <= known
    assert not {"Patient", "Person", "RelatedPerson"} & (_CARE_DATES.keys() | _dated())
