"""Conditional entries and conditional references of batch and transaction. https://hl7.org/fhir/R4/http.html#trules"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gitstore import Store

BASE = "http://localhost:8080/fhir"
MARK = "http://hl7.org/fhir/StructureDefinition/resolve-as-version-specific"
DEACTIVATE = {
    "resourceType": "Parameters",
    "parameter": [
        {
            "name": "operation",
            "part": [
                {"name": "type", "valueCode": "replace"},
                {"name": "path", "valueString": "Patient.active"},
                {"name": "value", "valueBoolean": False},
            ],
        }
    ],
}


def person(number, **elements):
    return {
        "resourceType": "Patient",
        "active": True,
        "identifier": [{"system": "urn:mrn", "value": str(number)}],
    } | elements


def criteria(number):
    return f"identifier=urn:mrn|{number}"


def observation(reference, **elements):
    return {"resourceType": "Observation", "subject": {"reference": reference}} | elements


def entry(method, url, resource=None, full_url=None, **request):
    found = {"request": {"method": method, "url": url} | request}
    if resource is not None:
        found["resource"] = resource
    if full_url is not None:
        found["fullUrl"] = full_url
    return found


def bundle(kind, *entries):
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def answers(response):
    """Status and ETag of each entry."""
    assert response.status_code == 200, response.text
    found = [each["response"] for each in response.json["entry"]]
    return [(each["status"][:3], each.get("etag", "")) for each in found]


@pytest.fixture
def ward(client):
    """Patients a (1), b and c (both 2)."""
    for id, number in (("a", 1), ("b", 2), ("c", 2)):
        client.put(f"Patient/{id}", person(number, id=id))
    return client


CASES = [
    (entry("POST", "Patient", person(7), ifNoneExist=criteria(7)), 201, 'W/"1"'),
    (entry("POST", "Patient", person(1), ifNoneExist=criteria(1)), 200, 'W/"1"'),
    (entry("POST", "Patient", person(1), ifNoneExist="?" + criteria(1)), 200, 'W/"1"'),
    (entry("POST", "Patient", person(2), ifNoneExist=criteria(2)), 412, ""),
    (entry("POST", "Patient", person(2), ifNoneExist=""), 400, ""),
    (entry("POST", "Patient", person(2), ifNoneExist="_count=1"), 400, ""),
    (entry("PUT", f"Patient?{criteria(7)}", person(7)), 201, 'W/"1"'),
    (entry("PUT", f"Patient?{criteria(7)}", person(7, id="free")), 201, 'W/"1"'),
    (entry("PUT", f"Patient?{criteria(7)}", person(7, id="a")), 409, ""),
    (entry("PUT", f"Patient?{criteria(1)}", person(1)), 200, 'W/"2"'),
    (entry("PUT", f"/Patient?{criteria(1)}", person(1, id="a")), 200, 'W/"2"'),
    (entry("PUT", f"{BASE}/Patient?{criteria(1)}", person(1), ifMatch='W/"1"'), 200, 'W/"2"'),
    (entry("PUT", f"Patient?{criteria(1)}", person(1), ifMatch='W/"7"'), 412, ""),
    (entry("PUT", f"Patient?{criteria(1)}", person(1), ifNoneMatch="*"), 412, ""),
    (entry("PUT", f"Patient?{criteria(1)}", person(1, id="z")), 400, ""),
    (entry("PUT", f"Patient?{criteria(2)}", person(2)), 412, ""),
    (entry("PUT", "Patient?banana=1", person(2)), 400, ""),
    (entry("PUT", "Patient", person(2)), 400, ""),
    (entry("PATCH", f"Patient?{criteria(1)}", DEACTIVATE), 200, 'W/"2"'),
    (entry("PATCH", f"Patient?{criteria(1)}", DEACTIVATE, ifMatch='W/"2"'), 412, ""),
    (entry("PATCH", f"Patient?{criteria(7)}", DEACTIVATE), 404, ""),
    (entry("PATCH", f"Patient?{criteria(2)}", DEACTIVATE), 412, ""),
    (entry("DELETE", f"Patient?{criteria(7)}"), 204, ""),
    (entry("DELETE", f"Patient?{criteria(1)}"), 204, 'W/"2"'),
    (entry("DELETE", f"Patient?{criteria(1)}", ifMatch='W/"2"'), 412, ""),
    (entry("DELETE", f"Patient?{criteria(2)}"), 412, ""),
    (entry("DELETE", "Patient?_count=1"), 400, ""),
    (entry("DELETE", "Patient"), 400, ""),
]


@pytest.mark.parametrize(("conditional", "status", "etag"), CASES)
def test_conditional_entries_work_as_requests_do(ward, store, conditional, status, etag):
    """7.7, 8.6, 8.7, 9.14, 10.11, 10.13, 11.8, 14.4, 14.5, 14.14: in a batch an entry fails alone, in a transaction it
    fails all."""
    other = entry("POST", "Observation", {"resourceType": "Observation"})
    before = store.snapshot().commit

    response = ward.post("", bundle("transaction", other, conditional))

    if status < 400:
        assert answers(response) == [("201", 'W/"1"'), (str(status), etag)]
        return
    assert response.status_code == status
    assert response.json["resourceType"] == "OperationOutcome"
    assert response.json["issue"][0]["expression"][0].startswith("Bundle.entry[1]")
    assert store.snapshot().commit == before
    assert answers(ward.post("", bundle("batch", other, conditional))) == [
        ("201", 'W/"1"'),
        (str(status), ""),
    ]


@pytest.mark.parametrize(("conditional", "status", "etag"), [case for case in CASES if case[1] < 400])
def test_conditional_entries_of_a_batch(ward, conditional, status, etag):
    """14.2: the same answers as in a transaction."""
    assert answers(ward.post("", bundle("batch", conditional))) == [(str(status), etag)]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_create_with_a_match_says_where_it_is(ward, store, kind):
    """11.8, 14.15: 200 with location and etag of the existing, which is not touched."""
    before = store.snapshot().commit

    response = ward.post(
        "",
        bundle(kind, entry("POST", "Patient", person(1, active=False), ifNoneExist=criteria(1))),
        Prefer="return=representation",
    )

    [answer] = response.json["entry"]
    assert answer["response"] == {
        "status": "200 OK",
        "location": f"{BASE}/Patient/a/_history/1",
        "etag": 'W/"1"',
        "lastModified": "2023-11-14T22:13:20.250000Z",
    }
    assert answer["resource"]["active"] is True
    assert store.snapshot().commit == before


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_two_creates_under_the_same_criteria_make_one(ward, kind):
    """11.9: the second finds what the first has made."""
    create = entry("POST", "Patient", person(7), ifNoneExist=criteria(7))

    response = ward.post("", bundle(kind, create, create))

    assert answers(response) == [("201", 'W/"1"'), ("200", 'W/"1"')]
    locations = {each["response"]["location"] for each in response.json["entry"]}
    assert len(locations) == 1
    assert ward.get("Patient?" + criteria(7)).json["total"] == 1


def test_references_go_to_what_a_conditional_entry_found(ward):
    """14.11: the fullUrl of a conditional create or update that matched stands for what is there."""
    response = ward.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Observation", observation("urn:uuid:made", id="x"), "urn:uuid:o1"),
            entry("POST", "Observation", observation("urn:uuid:put"), "urn:uuid:o2"),
            entry("POST", "Patient", person(1), "urn:uuid:made", ifNoneExist=criteria(1)),
            entry("PUT", f"Patient?{criteria(8)}", person(8), "urn:uuid:put"),
        ),
        Prefer="return=representation",
    )

    assert answers(response) == [("201", 'W/"1"'), ("201", 'W/"1"'), ("200", 'W/"1"'), ("201", 'W/"1"')]
    first, second, _, put = [each["resource"] for each in response.json["entry"]]
    assert first["subject"]["reference"] == "Patient/a"
    assert second["subject"]["reference"] == f"Patient/{put['id']}"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (entry("PUT", "Patient/a", person(1, id="a")), entry("PUT", f"Patient?{criteria(1)}", person(1))),
        (entry("DELETE", f"Patient?{criteria(1)}"), entry("PATCH", f"Patient?{criteria(1)}", DEACTIVATE)),
        (entry("DELETE", "Patient/a"), entry("PUT", f"Patient?{criteria(1)}", person(1))),
        (
            entry("PUT", f"Patient?{criteria(7)}", person(7)),
            entry("PUT", f"Patient?{criteria(7)}", person(7)),
        ),
        (
            entry("PUT", f"Patient?{criteria(7)}", person(7)),
            entry("POST", "Patient", person(7), ifNoneExist=criteria(7)),
        ),
    ],
)
def test_what_criteria_select_may_stand_once(ward, store, first, second):
    """14.8: 400, also where it shows only once the criteria are looked at."""
    before = store.snapshot().commit

    for entries in ((first, second), (second, first)):
        assert ward.post("", bundle("transaction", *entries)).status_code == 400
    assert store.snapshot().commit == before


def test_deletions_come_before_conditional_creates(ward):
    """14.7: what the transaction deletes is no match, wherever the deletion stands."""
    response = ward.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Patient", person(1), ifNoneExist=criteria(1)),
            entry("DELETE", "Patient/a"),
            entry("POST", "Patient", person(2), ifNoneExist=criteria(2)),
            entry("DELETE", "Patient/b"),
        ),
    )

    assert answers(response) == [("201", 'W/"1"'), ("204", 'W/"2"'), ("200", 'W/"1"'), ("204", 'W/"2"')]
    assert response.json["entry"][2]["response"]["location"] == f"{BASE}/Patient/c/_history/1"


def test_gets_see_conditional_writes(ward):
    """14.7: searches too."""
    response = ward.post(
        "",
        bundle(
            "transaction",
            entry("GET", f"Patient?{criteria(1)}&active=false"),
            entry("GET", f"Patient?{criteria(7)}"),
            entry("PATCH", f"Patient?{criteria(1)}", DEACTIVATE),
            entry("POST", "Patient", person(7), ifNoneExist=criteria(7)),
        ),
    )

    assert [each["resource"]["total"] for each in response.json["entry"][:2]] == [1, 1]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_conditional_delete_may_take_several(ward, repository, settings, make_client, clock, kind):
    """10.11: fhir.conditionalDelete = multiple; one answer without an etag."""
    several = replace(settings, conditional_delete="multiple")
    with Store.open(repository, several, clock=clock) as store:
        client = make_client(several, store)
        before = store.snapshot().commit.sequence
        response = client.post("", bundle(kind, entry("DELETE", f"Patient?{criteria(2)}")))
        assert store.snapshot().commit.sequence == before + 1

    assert answers(response) == [("204", "")]
    assert [ward.get(f"Patient/{id}").status_code for id in "abc"] == [200, 410, 410]


# Conditional references


def test_a_conditional_reference_becomes_what_it_selects(ward):
    """14.12: of what is there, and of what the same transaction writes."""
    response = ward.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Observation", observation(f"Patient?{criteria(1)}")),
            entry("POST", "Observation", observation(f"Patient?{criteria(7)}")),
            entry("POST", "Patient", person(7)),
        ),
        Prefer="return=representation",
    )

    there, here, made = [each["resource"] for each in response.json["entry"]]
    assert there["subject"]["reference"] == "Patient/a"
    assert here["subject"]["reference"] == f"Patient/{made['id']}"


@pytest.mark.parametrize(
    ("reference", "status", "code"),
    [
        (f"Patient?{criteria(7)}", 400, "not-found"),
        (f"Patient?{criteria(2)}", 412, "multiple-matches"),
        ("Patient?banana=1", 400, "not-supported"),
        ("Patient?_count=1", 400, None),
    ],
)
def test_a_conditional_reference_must_select_one(ward, store, issue, reference, status, code):
    """14.12: else the whole transaction fails, and the reference is named."""
    before = store.snapshot().commit

    response = ward.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Patient", person(8)),
            entry("POST", "Observation", observation(reference)),
        ),
    )

    assert response.status_code == status
    assert code in (None, issue(response)[1])
    assert response.json["issue"][0]["expression"][0].startswith("Bundle.entry[1]")
    assert store.snapshot().commit == before


# Version-specific references


def marked(reference, **elements):
    return {"reference": reference, "extension": [{"url": MARK, "valueBoolean": True}]} | elements


def test_a_marked_reference_names_the_version_that_is_made(ward):
    """14.13: that of the transaction, or the current one of what it doesn't write; the mark is gone."""
    targets = [
        marked("urn:uuid:new"),
        marked("Patient/a", display="A"),
        marked("Patient/b"),
        marked(f"Patient?{criteria(7)}"),
        {"reference": "Patient/a"},
        {"reference": "Patient/a/_history/1"},
    ]
    provenance = {"resourceType": "Provenance", "target": targets}

    response = ward.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Provenance", provenance),
            entry("POST", "Patient", person(7), "urn:uuid:new"),
            entry("PATCH", "Patient/a", DEACTIVATE),
        ),
        Prefer="return=representation",
    )

    assert answers(response) == [("201", 'W/"1"'), ("201", 'W/"1"'), ("200", 'W/"2"')]
    new = response.json["entry"][1]["resource"]["id"]
    assert response.json["entry"][0]["resource"]["target"] == [
        {"reference": f"Patient/{new}/_history/1"},
        {"reference": "Patient/a/_history/2", "display": "A"},
        {"reference": "Patient/b/_history/1"},
        {"reference": f"Patient/{new}/_history/1"},
        {"reference": "Patient/a"},
        {"reference": "Patient/a/_history/1"},
    ]


def test_what_a_marked_reference_names_must_be_there(ward, store, issue):
    """14.13: 400 where it was never, where it is deleted, and where this transaction deletes it."""
    ward.delete("Patient/c")
    before = store.snapshot().commit

    for reference in ("Patient/nobody", "Patient/c", "Patient/b"):
        provenance = {"resourceType": "Provenance", "target": [marked(reference)]}
        response = ward.post(
            "", bundle("transaction", entry("DELETE", "Patient/b"), entry("POST", "Provenance", provenance))
        )
        assert response.status_code == 400
        assert issue(response)[1] == "not-found"
        assert response.json["issue"][0]["expression"] == ["Bundle.entry[1].resource.target[0].reference"]
    assert store.snapshot().commit == before
