"""Whoever speaks XML gets all of it: bodies, answers, Bundles, errors. https://hl7.org/fhir/R4/http.html#mime-type"""

from __future__ import annotations

from typing import Any

import pytest

from gitstore import Settings
from gitstore.fhir import json, xml

XML = "application/fhir+xml"
JSON = "application/fhir+json"
ADA = b'<Patient xmlns="http://hl7.org/fhir"><id value="ada"/><active value="true"/></Patient>'


def resource_of(response: Any, media_type: str = XML) -> dict[str, Any]:
    assert response.headers["Content-Type"] == media_type, response.text
    return xml.loads(response.content)


def test_what_is_written_as_xml_is_stored_as_json(client, store):
    """The record has one form; the answer has the one that was asked for."""
    response = client.put("Patient/ada", ADA, Content_Type=XML)

    assert response.status_code == 201
    assert response.json["active"] is True
    [version] = store.snapshot().resources("Patient")
    assert store.snapshot().body(version) == response.content
    assert response.content.startswith(b'{\n  "resourceType": "Patient",\n  "id": "ada"')


@pytest.mark.parametrize("media_type", [XML, "application/xml", "text/xml", "application/xml+fhir"])
def test_each_name_of_xml_is_read_and_answered(client, media_type):
    """2.1, 2.2, 2.3: under the name that was asked for."""
    created = client.post("Patient", ADA, Content_Type=media_type, Accept=media_type)

    assert created.status_code == 201
    assert resource_of(created, media_type)["id"] == "new-1"
    assert resource_of(client.get("Patient/new-1", Accept=media_type), media_type)["active"] is True
    assert client.get("Patient/new-1", Accept=media_type).headers["Vary"] == "Accept, Accept-Encoding"


def test_every_interaction_answers_in_xml(client, patient):
    """2.8: read, vread, update, histories, capabilities; headers are the same in both forms."""
    client.put("Patient/example", patient)
    for url in ("Patient/example", "Patient/example/_history/1", "_history", "Patient/_history", "metadata"):
        plain, response = client.get(url), client.get(url, Accept=XML)
        assert json.dumps(ordered(resource_of(response))) == json.dumps(ordered(json.loads(plain.content)))
        for header in ("ETag", "Last-Modified", "Content-Location", "Cache-Control"):
            assert response.headers.get(header) == plain.headers.get(header)
        assert client.request("HEAD", url, Accept=XML).headers["Content-Length"] == str(len(response.content))


def ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [ordered(each) for each in value] if isinstance(value, list) else value


def test_numbers_keep_their_digits_on_all_ways(client):
    """17.1: XML in, JSON out, XML out."""
    sent = (
        b'<Observation xmlns="http://hl7.org/fhir"><id value="o"/><status value="final"/>'
        b'<code><text value="x"/></code><valueQuantity><value value="1.00"/></valueQuantity></Observation>'
    )
    client.put("Observation/o", sent, Content_Type=XML)

    assert b'"value": 1.00\n' in client.get("Observation/o").content
    assert b'<value value="1.00"/>' in client.get("Observation/o", Accept=XML).content


def test_errors_are_xml_too(client):
    """2.16: of the store, of HTTP, of Falcon."""
    for url, status in (
        ("Patient/nobody", 404),
        ("Gurke/1", 404),
        ("a/b/c/d/e/f", 404),
        ("_history?_count=x", 400),
    ):
        response = client.get(url, Accept=XML)
        assert response.status_code == status
        outcome = resource_of(response)
        assert outcome["resourceType"] == "OperationOutcome"
        assert outcome["issue"][0]["details"]["text"]


def test_an_error_that_xml_has_no_room_for_is_json(client):
    """A client's text in a message may hold characters that XML excludes."""
    response = client.get("Patient/example?_gurke%EF%BF%BF=1", Accept=XML)

    assert response.status_code == 400
    assert response.headers["Content-Type"] == JSON
    assert response.json["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize(
    ("body", "expression", "text"),
    [
        (b"<Patient", None, "not XML"),
        (b'<Patient xmlns="http://hl7.org/fhir"><gurke/></Patient>', "Patient.gurke", "does not have there"),
        (b'<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/hostname">]><p>&x;</p>', None, "document type"),
        (b"<a>" * 10_000, None, "namespace"),
        (b'{"resourceType":"Patient"}', None, "not XML"),
    ],
)
def test_what_is_no_fhir_xml_is_refused(client, store, body, expression, text):
    """400 with the place, and nothing is written."""
    before = store.snapshot().commit

    response = client.put("Patient/ada", body, Content_Type=XML, Accept=JSON)

    assert response.status_code == 400
    [issue] = response.json["issue"]
    assert issue["code"] == "structure"
    assert text in issue["details"]["text"]
    assert issue["diagnostics"].startswith("line ")
    assert expression is None or issue["expression"] == [expression]
    assert store.snapshot().commit == before


def test_the_limit_of_a_body_counts_for_xml(make_client):
    """413 as for JSON."""
    client = make_client(Settings(durability="off", validation="off", max_body=50))

    assert client.put("Patient/ada", ADA, Content_Type=XML).status_code == 413


def test_transactions_and_batches_in_xml(client):
    """Resources of entries and of answers are within an element of their own."""
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": "urn:uuid:0d1f6f3c-0ee2-4b54-b1a8-000000000001",
                "resource": {"resourceType": "Patient"},
                "request": {"method": "POST", "url": "Patient"},
            },
            {
                "resource": {
                    "resourceType": "Observation",
                    "status": "final",
                    "code": {"text": "x"},
                    "subject": {"reference": "urn:uuid:0d1f6f3c-0ee2-4b54-b1a8-000000000001"},
                },
                "request": {"method": "POST", "url": "Observation"},
            },
        ],
    }

    response = client.post(
        "", xml.dumps(bundle), Content_Type=XML, Accept=XML, Prefer="return=representation"
    )

    assert response.status_code == 200
    answer = resource_of(response)
    assert answer["type"] == "transaction-response"
    patient, observation = (entry["resource"] for entry in answer["entry"])
    assert observation["subject"] == {"reference": f"Patient/{patient['id']}"}
    batch = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"request": {"method": "GET", "url": "Gurke/1"}}],
    }
    [entry] = resource_of(client.post("", xml.dumps(batch), Content_Type=XML, Accept=XML))["entry"]
    assert entry["response"]["outcome"]["resourceType"] == "OperationOutcome"


def test_pretty_has_a_line_for_each_element(client, patient):
    """2.10"""
    client.put("Patient/example", patient)

    assert client.get("Patient/example?_format=xml").content.count(b"\n") == 0
    pretty = client.get("Patient/example?_format=xml&_pretty=true").content
    assert b'\n  <id value="example"/>\n' in pretty
    assert pretty.endswith(b"</Patient>\n")


def test_an_outcome_is_xml_where_it_is_preferred(client):
    """Prefer: return=OperationOutcome; and return=minimal has no body in any form."""
    response = client.put("Patient/ada", ADA, Content_Type=XML, Accept=XML, Prefer="return=OperationOutcome")
    minimal = client.put("Patient/ada", ADA, Content_Type=XML, Accept=XML, Prefer="return=minimal")

    assert resource_of(response)["resourceType"] == "OperationOutcome"
    assert minimal.content == b""


def test_what_xml_has_no_room_for_is_not_acceptable(client, issue):
    """406 for a read; a write has happened, and is answered in JSON."""
    strange = {"resourceType": "Patient", "id": "p", "language": "a\uffff"}

    written = client.put("Patient/p", strange, Accept=XML)
    assert written.status_code == 201
    assert written.headers["Content-Type"] == JSON
    assert written.json["id"] == "p"
    read = client.get("Patient/p", Accept=XML)
    assert read.status_code == 406
    assert "U+FFFF" in resource_of(read)["issue"][0]["details"]["text"]
    assert client.get("Patient/p").status_code == 200
