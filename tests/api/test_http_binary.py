"""Reading a Binary as what it holds. https://hl7.org/fhir/R4/binary.html#rest"""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from api.binary import OCTETS, wants_content

FHIR = "application/fhir+json"
PDF = b"%PDF-1.7\n\x00\xff\r\n" * 3
BASE = "http://localhost:8080/fhir"


def binary(data=PDF, content_type="application/pdf", **more):
    encoded = {"data": base64.b64encode(data).decode()} if data else {}
    return {"resourceType": "Binary", "id": "b", "contentType": content_type, **more, **encoded}


ACCEPT = [
    # Accept, contentType, whether it is the content that is wanted
    (FHIR, "application/pdf", False),
    ("application/fhir+xml", "application/pdf", False),
    ("application/json+fhir", "application/pdf", False),
    (f"{FHIR}, */*;q=0.1", "application/pdf", False),
    (f"{FHIR}, */*", "application/pdf", False),
    (f"{FHIR};q=0.5, application/pdf", "application/pdf", True),
    (f"{FHIR}, application/pdf;q=0.5", "application/pdf", False),
    (f"{FHIR};q=0, */*", "application/pdf", True),
    (FHIR, FHIR, False),
    ("*/*", FHIR, True),
    ("*/*", "application/pdf", True),
    ("application/pdf", "application/pdf", True),
    ("Application/PDF", "application/pdf", True),
    ("application/*", "application/pdf", True),
    ("text/plain", "text/plain; charset=utf-8", True),
    ("image/png", "application/pdf", True),
    ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/pdf", True),
    ("application/json", "application/pdf", False),
    ("text/xml", "application/pdf", False),
    ("application/json", "application/json", True),
    ("application/json", "application/vnd.xacml+json", True),
    ("text/xml", "application/hl7-cda+xml", True),
    ("application/xml", "text/xml; charset=utf-8", True),
    ("application/json", "text/xml", False),
    ("application/json, application/pdf", "application/pdf", True),
    ("application/json, application/pdf;q=0", "application/pdf", False),
    ("nonsense", "application/pdf", True),
]


@pytest.mark.parametrize(("accept", "content_type", "expected"), ACCEPT)
def test_accept_decides_between_resource_and_content(accept, content_type, expected):
    """2.18: FHIR's own types ask for the resource, generic ones for a content of that format, all else for the content."""
    assert wants_content(accept, content_type) is expected


@pytest.mark.parametrize("accept", [None, "*/*", "application/pdf", "image/*", "text/html, */*;q=0.5"])
@pytest.mark.parametrize("url", ["Binary/b", "Binary/b/", "Binary/b/_history/1"])
def test_a_read_answers_with_the_content(client, url, accept):
    """2.18: with the headers of a read, and no chance for a browser to run it."""
    client.put("Binary/b", binary(securityContext={"reference": "Patient/p"}))

    response = client.get(url, **({"Accept": accept} if accept else {}))

    assert (response.status_code, response.content) == (200, PDF)
    headers = response.headers
    assert headers["Content-Type"] == "application/pdf"
    assert headers["ETag"] == 'W/"1"'
    assert headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert headers["Content-Location"] == f"{BASE}/Binary/b/_history/1"
    assert "Git-Commit" in headers
    assert "Accept" in headers["Vary"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert headers["Content-Disposition"] == "attachment"
    assert headers["X-Security-Context"] == "Patient/p"


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("Binary/b", {"Accept": FHIR}),
        ("Binary/b/_history/1", {"Accept": FHIR}),
        ("Binary/b?_format=json", {}),
        ("Binary/b?_format=application/json", {"Accept": "application/pdf"}),
        ("Binary/b", {"Accept": "application/json"}),
    ],
)
def test_a_read_answers_with_the_resource(client, url, headers):
    """2.18, 2.6: `_format` outweighs Accept, and generic types are then FHIR's."""
    client.put("Binary/b", binary())

    response = client.get(url, **headers)

    assert response.status_code == 200
    assert response.json["resourceType"] == "Binary"
    assert base64.b64decode(response.json["data"]) == PDF
    assert "Content-Disposition" not in response.headers


def test_the_resource_comes_as_xml_too(client):
    """2.18"""
    client.put("Binary/b", binary())

    for response in (
        client.get("Binary/b", Accept="application/fhir+xml"),
        client.get("Binary/b?_format=xml"),
    ):
        assert response.headers["Content-Type"] == "application/fhir+xml"
        assert b'<contentType value="application/pdf"/>' in response.content


def test_the_content_of_a_fhir_type_is_not_the_resource(client, patient):
    """ "This applies even when the binary data itself has a FHIR mime type": JSON in a Binary, by both names."""
    inner = json.dumps(patient).encode()
    client.put("Binary/b", binary(inner, FHIR))

    assert client.get("Binary/b").content == inner
    assert client.get("Binary/b").headers["Content-Type"] == FHIR
    assert client.get("Binary/b", Accept=FHIR).json["resourceType"] == "Binary"


def test_head_has_the_headers_alone(client):
    """5.7"""
    client.put("Binary/b", binary())

    got, head = client.get("Binary/b"), client.request("HEAD", "Binary/b")

    assert head.content == b""
    for name in ("Content-Type", "Content-Length", "ETag", "Content-Disposition"):
        assert head.headers[name] == got.headers[name]
    assert head.headers["Content-Length"] == str(len(PDF))


def test_who_has_the_content_is_told_so(client):
    """4.6: 304 by ETag, and by date."""
    client.put("Binary/b", binary())

    for headers in ({"If_None_Match": 'W/"1"'}, {"If_Modified_Since": "Tue, 14 Nov 2034 22:13:20 GMT"}):
        response = client.get("Binary/b", **headers)
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == 'W/"1"'
    assert client.get("Binary/b", If_None_Match='W/"2"').status_code == 200


def test_a_version_keeps_its_content(client):
    """5.8, 5.9"""
    client.put("Binary/b", binary())
    client.put("Binary/b", binary(b"other", "text/plain"))

    old, new = client.get("Binary/b/_history/1"), client.get("Binary/b")

    assert (old.content, old.headers["Content-Type"], old.headers["ETag"]) == (
        PDF,
        "application/pdf",
        'W/"1"',
    )
    assert (new.content, new.headers["Content-Type"], new.headers["ETag"]) == (
        b"other",
        "text/plain",
        'W/"2"',
    )
    assert "immutable" in old.headers["Cache-Control"]


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("Binary/nobody", 404, "not-found"),
        ("Binary/gone", 410, "deleted"),
        ("Binary/a_b", 400, "value"),
        ("Binary/b/_history/9", 404, "not-found"),
        ("Binary/b?x=y", 400, "not-supported"),
    ],
)
def test_errors_are_outcomes_whatever_was_asked_for(client, issue, url, status, code):
    """4.2, 4.3: in FHIR's JSON."""
    client.put("Binary/b", binary())
    client.put("Binary/gone", binary() | {"id": "gone"})
    client.delete("Binary/gone")

    response = client.get(url, Accept="application/pdf")

    assert response.status_code == status
    assert issue(response)[:2] == ("error", code)
    assert response.headers["Content-Type"] == FHIR


@pytest.mark.parametrize("parameter", ["_summary=true", "_summary=data", "_elements=contentType"])
def test_a_content_has_no_parts(client, issue, parameter):
    """400; of the resource they are what they always are."""
    client.put("Binary/b", binary())

    refused = client.get(f"Binary/b?{parameter}")

    assert refused.status_code == 400
    assert issue(refused)[1] == "not-supported"
    assert client.get(f"Binary/b?{parameter}", Accept=FHIR).json["resourceType"] == "Binary"


@pytest.mark.parametrize(
    ("url", "accept"),
    [
        ("Binary/b", f"{FHIR}; fhirVersion=5.0"),
        ("Binary/b?_format=ttl", "*/*"),
        ("Binary/b?_format=application/pdf", "*/*"),
    ],
)
def test_a_form_of_the_resource_that_there_is_not_is_not_acceptable(client, url, accept):
    """2.5, 2.12: 406."""
    client.put("Binary/b", binary())

    assert client.get(url, Accept=accept).status_code == 406


def test_only_binary_has_content(client, patient):
    """2.5: other types are asked for by FHIR's names, and so are histories."""
    client.put("Patient/example", patient)
    client.put("Binary/b", binary())

    for url in ("Patient/example", "Binary/b/_history", "Binary/_history", "Binary"):
        assert client.get(url, Accept="application/pdf").status_code == 406


@pytest.mark.parametrize("accept", ["*/*", "text/plain"])
def test_a_binary_without_data_is_empty(client, accept):
    """200 and no bytes: there is a resource, with a media type and a version."""
    client.put("Binary/b", binary(b"", "text/plain"))

    response = client.get("Binary/b", Accept=accept)

    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Length"] == "0"
    assert response.headers["Content-Type"] == "text/plain"


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("text/html; charset=utf-8", "text/html; charset=utf-8"),
        ('multipart/related; boundary="a b"', 'multipart/related; boundary="a b"'),
        ("image/svg+xml", "image/svg+xml"),
        ("text/plain\r\nSet-Cookie: a=b", OCTETS),
        ("text/plain\n", OCTETS),
        ("text/plän", OCTETS),
        ("text", OCTETS),
        ("text/*", OCTETS),
        ("", OCTETS),
        (7, OCTETS),
        (None, OCTETS),
    ],
)
def test_a_stored_type_that_is_no_header_is_not_sent(client, stored, shown):
    """With validation off anything may be in a record; no header can be made up with it."""
    client.put(
        "Binary/b",
        binary(b"x", stored) if stored is not None else {"resourceType": "Binary", "id": "b", "data": "eA=="},
    )

    response = client.get("Binary/b")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == shown
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("reference", ["Patient/p\r\nX: y", "Päter/1", "", 7, "x" * 2000])
def test_a_stored_reference_that_is_no_header_is_not_sent(client, reference):
    client.put("Binary/b", binary(securityContext={"reference": reference}))

    response = client.get("Binary/b")

    assert response.status_code == 200
    assert "X-Security-Context" not in response.headers


@pytest.mark.parametrize("data", ["no base64!", "eA=", "\u00e9", 7, True, ["eA=="]])
def test_data_that_is_no_base64_is_not_acceptable(client, issue, data):
    """406, as for a resource that XML has no room for; the resource itself can be read."""
    client.put("Binary/b", binary() | {"data": data})

    response = client.get("Binary/b")

    assert response.status_code == 406
    assert issue(response)[1] == "not-supported"
    assert client.get("Binary/b", Accept=FHIR).json["data"] == data


def test_base64_with_line_breaks_is_read(client):
    """https://hl7.org/fhir/R4/datatypes.html#base64Binary"""
    client.put("Binary/b", binary() | {"data": "aGVs\r\n bG8=\t"})

    assert client.get("Binary/b").content == b"hello"


def test_a_large_content_is_packed_like_any_answer(client):
    """2.13"""
    client.put("Binary/b", binary(b"text " * 1000, "text/plain"))

    response = client.get("Binary/b", Accept_Encoding="gzip")

    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(response.content) == b"text " * 1000


def test_in_a_bundle_it_is_the_resource(client):
    """ "The Binary resource is always represented in the native FHIR format when wrapped in a Bundle"."""
    client.put("Binary/b", binary())
    batch = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"request": {"method": "GET", "url": "Binary/b"}}],
    }

    assert client.post("", batch).json["entry"][0]["resource"]["resourceType"] == "Binary"
    assert client.get("Binary/b/_history").json["entry"][0]["resource"]["resourceType"] == "Binary"
