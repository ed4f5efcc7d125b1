"""create over HTTP. https://hl7.org/fhir/R4/http.html#create"""

from __future__ import annotations

import pytest

BASE = "http://localhost:8080/fhir"


def test_creating_gives_an_id_and_a_version(client, store):
    """11.1: 201, Location with the version, ETag, Last-Modified, and the commit that was made."""
    response = client.post("Patient", {"resourceType": "Patient", "active": True})

    assert response.status_code == 201
    assert response.headers["Location"] == f"{BASE}/Patient/new-1/_history/1"
    assert response.headers["ETag"] == 'W/"1"'
    assert response.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert response.headers["Git-Commit"] == store.snapshot().commit.id
    assert response.json["id"] == "new-1"
    assert response.content == client.get("Patient/new-1").content


def test_the_clients_id_and_version_are_ignored(client):
    """11.2, 11.3: tags and profiles are kept."""
    tag = {"system": "http://example.org", "code": "a"}
    meta = {"versionId": "7", "lastUpdated": "1999-01-01T00:00:00Z", "tag": [tag]}

    created = client.post("Patient", {"resourceType": "Patient", "id": "mine", "meta": meta}).json

    assert created["id"] == "new-1"
    assert created["meta"]["versionId"] == "1"
    assert created["meta"]["lastUpdated"].startswith("2023-11-14T22:13:20.25")
    assert created["meta"]["tag"] == [tag]
    assert client.get("Patient/mine").status_code == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"resourceType": "Observation"}', "invalid"),
        ('{"active": true}', "invalid"),
        ("[]", "structure"),
        ('{"resourceType": "Patient",\n  nonsense}', "structure"),
        ('{"resourceType": "Patient", "id": "a", "id": "b"}', "structure"),
        (b'{"resourceType": "Patient", "language": "\xff"}', "structure"),
        (" ", "structure"),
    ],
)
def test_a_body_that_is_no_patient_is_refused(client, store, issue, body, code):
    """11.4, 11.5: 400, and nothing is written."""
    before = store.snapshot().commit

    response = client.post("Patient", body)

    assert response.status_code == 400
    assert issue(response)[:2] == ("error", code)
    assert store.snapshot().commit == before


def test_malformed_json_is_refused_with_its_place(client):
    """Line and column stand in diagnostics."""
    response = client.post("Patient", '{"resourceType": "Patient",\n  nonsense}')

    assert response.json["issue"][0]["diagnostics"] == "line 2, column 3"


def test_an_unknown_type_is_not_found(client, issue):
    """11.4, 1.5"""
    response = client.post("Gurke", {"resourceType": "Gurke"})

    assert response.status_code == 404
    assert issue(response)[1] == "not-supported"


def test_posting_to_an_instance_is_not_allowed(client, patient, issue):
    """11.6: 405 and what is."""
    response = client.post("Patient/example", patient)

    assert response.status_code == 405
    assert response.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"
    assert issue(response)[1] == "not-supported"


def test_a_form_belongs_to_search(client):
    """11.11: 415."""
    response = client.post("Patient", "name=Ada", Content_Type="application/x-www-form-urlencoded")

    assert response.status_code == 415


@pytest.mark.parametrize(
    ("preference", "kind"),
    [
        ("return=minimal", None),
        ("return=representation", "Patient"),
        ("return=OperationOutcome", "OperationOutcome"),
        ("RETURN=Minimal", None),
        ('respond-async, wait=10, handling=lenient, return="minimal"', None),
        ("return=minimal, return=representation", None),
        ("return=everything", "Patient"),
        ("", "Patient"),
    ],
)
def test_prefer_chooses_the_body(client, preference, kind):
    """3.11.1, 3.11.2, 3.11.3, 3.11.4, 3.11.6, 3.11.8: status and headers stay the same; the first of several counts, the unknown is ignored."""
    response = client.post("Patient", {"resourceType": "Patient"}, Prefer=preference)

    assert response.status_code == 201
    assert response.headers["ETag"] == 'W/"1"'
    assert "Location" in response.headers
    if kind is None:
        assert response.content == b""
    else:
        assert response.json["resourceType"] == kind
    if kind == "OperationOutcome":
        assert [each["severity"] for each in response.json["issue"]] == ["information"]


def test_a_failure_always_says_why(client, issue):
    """3.11.5"""
    response = client.post("Patient", "{", Prefer="return=minimal")

    assert issue(response)[0] == "error"
