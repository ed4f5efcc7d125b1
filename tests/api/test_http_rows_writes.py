"""Rows of the checklist on writes, unknown types and metadata. https://hl7.org/fhir/R4/http.html"""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest

from gitstore import Settings, Store
from gitstore.fhir.summary import SUBSETTED

GURKE = {"resourceType": "Gurke", "id": "1"}
MRN = [{"system": "urn:mrn", "value": "1"}]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("url", ["Gurke/1", "Gurke?active=true"])
def test_an_unknown_type_is_not_found_whatever_the_verb(client, store, method, url):
    """1.5, 6.5, 10.10"""
    before = store.snapshot().commit

    response = client.request(method, url, GURKE if method in ("PUT", "PATCH") else None)

    assert response.status_code == 404
    assert method == "HEAD" or response.json["issue"][0]["code"] == "not-supported"
    assert store.snapshot().commit == before


@pytest.mark.parametrize("name", ["_history", "_search", "$validate"])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_words_of_the_protocol_are_no_ids(client, store, issue, method, name):
    """1.6: nothing is written under them; the verb is wrong there."""
    before = store.snapshot().commit

    response = client.request(method, f"Patient/{name}", {"resourceType": "Patient", "id": name})

    assert response.status_code == 405
    assert issue(response)[:2] == ("error", "not-supported")
    assert store.snapshot().commit == before


def test_what_is_deleted_is_gone_from_every_search(client):
    """10.6: by criteria, chained, included, of a compartment; and as a match of a condition."""
    client.put("Patient/p", {"resourceType": "Patient", "id": "p", "identifier": MRN})
    client.put(
        "Observation/o", {"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/p"}}
    )
    searches = {
        "Patient?identifier=urn:mrn|1": 1,
        "Patient?_id=p": 1,
        "Observation?subject:Patient.identifier=urn:mrn|1": 1,
        "Observation?_id=o&_include=Observation:subject": 2,
    }
    found = [len(client.get(url).json.get("entry", [])) for url in searches]
    assert found == list(searches.values())

    client.delete("Patient/p")

    found = [len(client.get(url).json.get("entry", [])) for url in searches]
    assert found == [0, 0, 0, 1]
    again = client.post(
        "Patient", {"resourceType": "Patient", "identifier": MRN}, If_None_Exist="identifier=urn:mrn|1"
    )
    assert again.status_code == 201


def test_what_is_referred_to_can_be_protected(make_client, repository, settings, clock, issue):
    """10.8: fhir.referentialIntegrity = enforce: 409 with who refers to it; without the setting it goes."""
    enforcing = replace(settings, referential_integrity="enforce")
    observation = {"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/p"}}
    with Store.open(repository, enforcing, clock=clock) as store:
        client = make_client(enforcing, store)
        client.put("Patient/p", {"resourceType": "Patient", "id": "p"})
        client.put("Observation/o", observation)

        refused = client.delete("Patient/p")

        assert refused.status_code == 409
        assert issue(refused)[:2] == ("error", "conflict")
        assert "Observation/o" in issue(refused)[2]
        assert client.get("Patient/p").status_code == 200
        client.delete("Observation/o")
        assert client.delete("Patient/p").status_code == 204


def test_ids_can_not_be_guessed_and_are_new(make_client, repository, settings, clock):
    """11.7: random UUIDs, by the store's own source; what was deleted keeps its id for itself."""
    with Store.open(repository, settings, clock=clock) as store:
        client = make_client(settings, store)
        ids = [client.post("Patient", {"resourceType": "Patient"}).json["id"] for _ in range(20)]
        client.delete(f"Patient/{ids[0]}")
        ids.append(client.post("Patient", {"resourceType": "Patient"}).json["id"])

    assert len(set(ids)) == 21
    assert {uuid.UUID(id).version for id in ids} == {4}


def test_metadata_comes_in_parts_and_forms(client):
    """13.5: `_summary`, `_elements`, `_format`, HEAD; another version of FHIR is 406."""
    whole = client.get("metadata").json
    summary = client.get("metadata?_summary=true").json
    elements = client.get("metadata?_elements=software").json

    assert summary["meta"]["tag"] == elements["meta"]["tag"] == [SUBSETTED]
    assert summary["software"] == elements["software"] == whole["software"]
    assert len(json.dumps(summary)) < len(json.dumps(whole)) / 2
    assert "rest" not in elements
    assert client.get("metadata?_format=xml").headers["Content-Type"] == "application/fhir+xml"
    assert client.request("HEAD", "metadata?_summary=true").status_code == 200
    assert client.get("metadata", Accept="application/fhir+json; fhirVersion=5.0").status_code == 406
    assert client.get("metadata?_summary=all").status_code == 400


def test_a_refusal_says_why_by_its_status(make_client, repository, clock):
    """11.4: 400 for what is no FHIR, 422 for what breaks a rule, 404 for the type; an OperationOutcome each."""
    strict = Settings(durability="off")
    with Store.open(repository, strict, clock=clock) as store:
        client = make_client(strict, store)
        before = store.snapshot().commit
        answers = [
            client.post("Patient", '{"resourceType": "Patient", "active": }'),
            client.post("Patient", {"resourceType": "Patient", "banana": 1}),
            client.post("Patient", {"resourceType": "Patient", "gender": "banana"}),
            client.post("Patient", {"resourceType": "Patient", "contact": [{"gender": "male"}]}),
            client.post("Gurke", GURKE),
        ]
        assert store.snapshot().commit == before

    assert [answer.status_code for answer in answers] == [400, 400, 422, 422, 404]
    assert {answer.json["resourceType"] for answer in answers} == {"OperationOutcome"}
