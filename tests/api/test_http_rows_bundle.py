"""Rows of the checklist on entries of batches and transactions. https://hl7.org/fhir/R4/http.html#transaction"""

from __future__ import annotations

import pytest

BASE = "http://localhost:8080/fhir"
ELSEWHERE = "http://elsewhere.example/fhir"
PATIENT = {"resourceType": "Patient"}
EXAMPLE = {"resourceType": "Patient", "id": "example"}
DEACTIVATE = {
    "resourceType": "Parameters",
    "parameter": [
        {
            "name": "operation",
            "part": [
                {"name": "type", "valueCode": "add"},
                {"name": "path", "valueString": "Patient"},
                {"name": "name", "valueString": "active"},
                {"name": "value", "valueBoolean": False},
            ],
        }
    ],
}


def bundle(kind, *entries):
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def entry(method, url, resource=None, full_url=None, **request):
    made = {"request": {"method": method, "url": url, **request}}
    if resource is not None:
        made["resource"] = resource
    if full_url is not None:
        made["fullUrl"] = full_url
    return made


WRITES = {
    "PUT": entry("PUT", "Patient/example", EXAMPLE, ifMatch='W/"1"'),
    "PATCH": entry("PATCH", "Patient/example", DEACTIVATE, ifMatch='W/"1"'),
    "DELETE": entry("DELETE", "Patient/example", ifMatch='W/"1"'),
    "conditional PUT": entry("PUT", "Patient?_id=example", EXAMPLE, ifMatch='W/"1"'),
    "conditional PATCH": entry("PATCH", "Patient?_id=example", DEACTIVATE, ifMatch='W/"1"'),
    "conditional DELETE": entry("DELETE", "Patient?_id=example", ifMatch='W/"1"'),
}


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_if_match_of_an_entry_protects_as_the_header_does(client, store, kind, write):
    """7.7, 14.14: of each kind of write; stale 412, and nothing is written, current goes through."""
    client.put("Patient/example", EXAMPLE)
    current = client.post("", bundle(kind, write))
    assert current.json["entry"][0]["response"]["status"][:3] in ("200", "204"), current.text
    before = store.snapshot().commit

    stale = client.post("", bundle(kind, write))

    if kind == "batch":
        assert stale.json["entry"][0]["response"]["status"].startswith("412")
    else:
        assert stale.status_code == 412
    assert store.snapshot().commit == before


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(
    ("since", "status"),
    [
        ("2023-11-14T22:13:20.25Z", "304"),
        ("2023-11-14T23:13:20.250+01:00", "304"),
        ("2023-11-14T22:13:20.249Z", "200"),
        ("Tue, 14 Nov 2023 22:13:21 GMT", "304"),
        ("yesterday", "200"),
    ],
)
def test_an_entry_is_not_modified_since_an_instant(client, kind, since, status):
    """14.14: Bundle.entry.request.ifModifiedSince is an instant, and finer than the header. HTTP's dates work too."""
    client.put("Patient/example", EXAMPLE)

    response = client.post("", bundle(kind, entry("GET", "Patient/example", ifModifiedSince=since)))

    [answer] = response.json["entry"]
    assert answer["response"]["status"].startswith(status)
    assert ("resource" in answer) == (status == "200")


UNSOUND = {
    "two entries of one fullUrl": (
        entry("POST", "Patient", PATIENT, "urn:uuid:1"),
        entry("POST", "Patient", PATIENT, "urn:uuid:1"),
    ),
    "a PUT without a resource": (entry("PUT", "Patient/example"),),
    "a PATCH without a resource": (entry("PATCH", "Patient/example"),),
    "no url": ({"resource": PATIENT, "request": {"method": "POST"}},),
    "no method": ({"resource": PATIENT, "request": {"url": "Patient"}},),
    "a type that is not the URL's": (entry("POST", "Observation", PATIENT),),
}


@pytest.mark.parametrize("entries", UNSOUND.values(), ids=UNSOUND)
def test_an_unsound_transaction_is_refused(client, store, issue, entries):
    """14.1: 400, and nothing of it is written."""
    before = store.snapshot().commit

    response = client.post("", bundle("transaction", entry("POST", "Patient", PATIENT), *entries))

    assert response.status_code == 400
    assert issue(response)[0] == "error"
    assert store.snapshot().commit == before


REFERENCES = {
    # fullUrl of the patient, fullUrl of the observation, reference: whether it is to the patient
    "urn:uuid": ("urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9", None, None, True),
    "urn:oid": ("urn:oid:1.2.3", None, None, True),
    "absolute": (f"{ELSEWHERE}/Patient/7", None, None, True),
    "relative to its own fullUrl": (
        f"{ELSEWHERE}/Patient/7",
        f"{ELSEWHERE}/Observation/1",
        "Patient/7",
        True,
    ),
    "relative to another base": (
        f"{ELSEWHERE}/Patient/7",
        "http://third.example/Observation/1",
        "Patient/7",
        False,
    ),
    "to a version": (f"{ELSEWHERE}/Patient/7", None, f"{ELSEWHERE}/Patient/7/_history/2", False),
    "a longer name": (f"{ELSEWHERE}/Patient/7", None, f"{ELSEWHERE}/Patient/77", False),
}


@pytest.mark.parametrize(
    ("patient", "observation", "reference", "resolved"), REFERENCES.values(), ids=REFERENCES
)
def test_references_are_resolved_by_full_url(client, patient, observation, reference, resolved):
    """14.9, 14.13: of each kind, and relative ones by the base of their own entry; to versions never."""
    sent = {"resourceType": "Observation", "subject": {"reference": reference or patient}}

    response = client.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Observation", sent, observation),
            entry("POST", "Patient", PATIENT, patient),
        ),
        Prefer="return=representation",
    )

    assert response.status_code == 200, response.text
    made, target = (each["resource"] for each in response.json["entry"])
    expected = f"Patient/{target['id']}" if resolved else reference
    assert made["subject"]["reference"] == expected


def test_the_order_of_entries_does_not_matter(client):
    """14.7: a deletion is done before a creation, a creation before an update, and reads see all of them."""
    client.put("Patient/old", EXAMPLE | {"id": "old", "identifier": [{"value": "1"}]})
    writes = [
        entry("POST", "Patient", PATIENT | {"identifier": [{"value": "1"}]}, ifNoneExist="identifier=1"),
        entry("DELETE", "Patient/old"),
    ]

    response = client.post("", bundle("transaction", entry("GET", "Patient?identifier=1"), *writes))

    found, created, deleted = response.json["entry"]
    assert [each["response"]["status"][:3] for each in (created, deleted)] == ["201", "204"]
    assert [each["resource"]["id"] for each in found["resource"]["entry"]] == ["new-1"]
