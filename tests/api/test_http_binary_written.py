"""Writing what a Binary holds. https://hl7.org/fhir/R4/binary.html#rest"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gitstore import Store

FHIR = "application/fhir+json"
PDF = b"%PDF-1.7\n\x00\xff\r\n" * 3
BASE = "http://localhost:8080/fhir"


RESOURCE = {
    "resourceType": "Binary",
    "id": "b",
    "contentType": "application/pdf",
    "data": base64.b64encode(PDF).decode(),
}


def send(client, data=PDF, content_type="application/pdf", url="Binary/b", **headers):
    method = "PUT" if "/" in url else "POST"
    return client.request(method, url, data, Content_Type=content_type, **headers)


def test_a_content_is_created(client):
    """2.18: POST of anything; the answer is the resource."""
    response = send(client, url="Binary", X_Security_Context="DocumentReference/d")

    assert response.status_code == 201
    assert response.headers["Location"] == f"{BASE}/Binary/new-1/_history/1"
    assert response.json["contentType"] == "application/pdf"
    assert response.json["securityContext"] == {"reference": "DocumentReference/d"}
    assert base64.b64decode(response.json["data"]) == PDF
    assert client.get("Binary/new-1").content == PDF


def test_a_content_is_updated(client):
    """2.18, 6.1, 6.2, 7.1: PUT creates, updates, and minds If-Match."""
    assert send(client).status_code == 201
    assert send(client, b"two", "text/plain", If_Match='W/"1"').status_code == 200
    assert send(client, b"three", "text/plain", If_Match='W/"1"').status_code == 412

    response = client.get("Binary/b")

    assert (response.content, response.headers["Content-Type"]) == (b"two", "text/plain")
    assert response.headers["ETag"] == 'W/"2"'


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"<ClinicalDocument xmlns='urn:hl7-org:v3'/>", "text/xml"),
        (b"<?xml version='1.0'?><!-- Binary --><a><Binary/></a>", "application/xml"),
        ("<?xml version='1.0' encoding='UTF-16'?><a/>".encode("utf-16"), "text/xml; charset=utf-16"),
        (b'{"a": 1}', "application/json"),
        (b'{"resourceType": "Patient"}', FHIR),
        (b'{"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Binary"}}]}', FHIR),
        (b"<Patient xmlns='http://hl7.org/fhir'/>", "application/fhir+xml"),
        (b"[1]", "application/json"),
        (b"not json", "application/json"),
        (b"a=b", "application/x-www-form-urlencoded"),
        (b"\x00", "application/octet-stream"),
        (b"{}", "application/json; charset=iso-8859-1"),
    ],
)
def test_what_is_no_binary_is_the_content_of_one(client, data, content_type):
    """ "Accepted as is …, including when the content type is "application/fhir+xml" or "application/fhir+json"."""
    assert send(client, data, content_type).status_code == 201

    response = client.get("Binary/b")

    assert (response.content, response.headers["Content-Type"]) == (data, content_type)


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (json.dumps(RESOURCE), FHIR),
        (json.dumps(RESOURCE), "application/json"),
        (
            '<?xml version="1.0"?><Binary xmlns="http://hl7.org/fhir"><id value="b"/>'
            '<contentType value="application/pdf"/></Binary>',
            "text/xml",
        ),
    ],
)
def test_a_body_that_is_a_binary_is_the_resource(client, data, content_type):
    """ "Except for the special case where the content is actually a Binary resource"."""
    response = send(client, data, content_type)

    assert response.status_code == 201
    assert client.get("Binary/b", Accept=FHIR).json["contentType"] == "application/pdf"


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b'{"resourceType": "Binary", "id": "b",}', FHIR),
        (b'{"resourceType": "Binary", "id": "b", "id": "b"}', "application/json"),
        (b'<Binary xmlns="http://hl7.org/fhir"><nonsense/></Binary>', FHIR.replace("json", "xml")),
        (b'<Binary xmlns="http://hl7.org/fhir">', "text/xml"),
        (b'{"resourceType": "Binary", "id": "other"}', FHIR),
    ],
)
def test_a_binary_with_mistakes_does_not_become_a_content(client, store, data, content_type):
    """400: who meant a resource is told what is wrong with it."""
    before = store.snapshot().commit

    assert send(client, data, content_type).status_code == 400
    assert store.snapshot().commit == before


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"x", "", 415),
        (b"x", "text", 415),
        (b"x", "text/", 415),
        (b"x", "text/plain; charset", 415),
        (b"x", "text/pl\xe4in", 415),
        (b"{}", f"{FHIR}; fhirVersion=5.0", 415),
        (b"{}", f"{FHIR}; charset=iso-8859-1", 415),
        (b"", "application/pdf", 400),
        (b"", FHIR, 400),
    ],
)
def test_what_can_not_be_kept_is_refused(client, issue, data, content_type, status):
    """2.5, 2.12: a type is needed that can be given back, and bytes."""
    response = send(client, data, content_type)

    assert response.status_code == status
    assert issue(response)[0] == "error"


def test_a_type_keeps_its_parameters(client):
    send(client, b"x", "text/plain;  charset=utf-8")

    assert client.get("Binary/b").headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("given", ["Patient/p", "Patient/p/_history/3"])
def test_the_security_context_comes_and_goes_as_a_header(client, given):
    """https://hl7.org/fhir/R4/binary.html#rest, the table of headers."""
    send(client, X_Security_Context=given)

    assert client.get("Binary/b").headers["X-Security-Context"] == given


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Patient",
        "Patient/",
        "Gurke/1",
        "Patient/a_b",
        "Patient/1/_history/0",
        "Patient/1/x/1",
        "http://x/Patient/1",
        "#a",
    ],
)
def test_a_security_context_that_is_no_reference_is_refused(client, issue, given):
    """400: what access is decided by is not guessed."""
    response = send(client, X_Security_Context=given)

    assert response.status_code == 400
    assert issue(response)[1] == "value"


def test_a_security_context_beside_a_resource_is_refused(client):
    """It would otherwise be ignored, though it is about who may read."""
    response = send(client, json.dumps(RESOURCE), FHIR, X_Security_Context="Patient/p")

    assert response.status_code == 400


def test_the_limit_counts_the_base64(client, settings, issue):
    """fhir.maxBody is of the resource: three quarters of it are left for the content."""
    room = settings.max_body // 4 * 3

    assert send(client, b"x" * room).status_code == 201
    for data, content_type in ((b"x" * (room + 1), "text/plain"), (b"[" * (room + 1), "application/json")):
        response = send(client, data, content_type)
        assert response.status_code == 413
        assert str(room) in issue(response)[2]


def test_a_packed_content_is_unpacked(client, settings):
    """2.13: Content-Encoding is of the way, not of the content; the limit is of what was unpacked."""
    assert send(client, gzip.compress(PDF), Content_Encoding="gzip").status_code == 201
    assert client.get("Binary/b").content == PDF
    assert send(client, gzip.compress(b" " * settings.max_body), Content_Encoding="gzip").status_code == 413


def test_what_is_wrapped_is_valid(make_client, repository, settings, clock):
    """With validation on: the media type with its parameters, and the reference."""
    settings = replace(settings, validation="full")
    with Store.open(repository, settings, clock=clock) as store:
        client = make_client(settings, store)

        response = send(client, b"x", "text/plain; charset=utf-8", X_Security_Context="Patient/p")

        assert response.status_code == 201, response.text
        assert client.get("Binary/b/$validate").json["issue"][0]["severity"] != "error"


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.binary(min_size=1, max_size=200))
def test_what_is_sent_is_what_comes_back(client, data):
    """Byte for byte, whatever it is."""
    assert send(client, data, "application/octet-stream").status_code in (200, 201)

    assert client.get("Binary/b").content == data
