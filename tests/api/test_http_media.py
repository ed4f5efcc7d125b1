"""Content negotiation, encodings and the headers of every answer. https://hl7.org/fhir/R4/http.html#mime-type"""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.media import _unpacked, accepted, takes_gzip

FHIR = "application/fhir+json"
XML = "application/fhir+xml"

ACCEPT = [
    ("application/fhir+json", FHIR),
    ("application/json", "application/json"),
    ("text/json", "text/json"),
    ("application/json+fhir", "application/json+fhir"),
    ("*/*", FHIR),
    ("application/*", FHIR),
    ("Application/FHIR+JSON", FHIR),
    ("application/fhir+json; charset=utf-8", FHIR),
    ("application/fhir+json; fhirVersion=4.0", FHIR),
    ('application/fhir+json; fhirVersion="4.0.1"', FHIR),
    ("application/fhir+json; fhirVersion=3.0", None),
    ("application/fhir+json; fhirVersion=3.0, application/json", "application/json"),
    ("application/fhir+xml, application/fhir+json;q=0.1", XML),
    ("application/fhir+xml;q=0.5, application/fhir+json", FHIR),
    ("application/fhir+xml; fhirVersion=3.0", None),
    ("application/xml", "application/xml"),
    ("text/xml", "text/xml"),
    ("application/xml+fhir", "application/xml+fhir"),
    ("application/json;q=0.5, application/fhir+json", FHIR),
    ("application/json, application/fhir+json", "application/json"),
    ("application/fhir+json;q=0, */*", "application/json"),
    ("application/json;q=0", None),
    ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/xml"),
    ("application/fhir+xml", XML),
    ("text/turtle", None),
    ("nonsense", None),
]


@pytest.mark.parametrize(("header", "expected"), ACCEPT)
def test_accept_is_understood(header, expected):
    """2.1, 2.2, 2.3, 2.4, 2.5, 2.12: q-values, wildcards, the requested type of several that mean the same."""
    assert accepted(header) == expected


@pytest.mark.parametrize("media_type", ["application/fhir+json", "application/json", "text/json"])
def test_an_answer_has_the_type_that_was_asked_for(client, patient, media_type):
    """2.1, 2.2, 2.16: so have errors."""
    client.put("Patient/example", patient)

    for url in ("Patient/example", "Patient/nobody", "_history", "metadata"):
        assert client.get(url, Accept=media_type).headers["Content-Type"] == media_type


def test_without_a_wish_it_is_fhirs_json(client):
    """2.4"""
    assert client.get("metadata").headers["Content-Type"] == FHIR


@pytest.mark.parametrize("accept", ["application/fhir+turtle", "text/turtle", "image/png"])
def test_what_can_not_be_produced_is_not_acceptable(client, patient, store, issue, accept):
    """2.5: 406; a write is refused before it happens."""
    before = store.snapshot().commit

    for response in (
        client.get("metadata", Accept=accept),
        client.put("Patient/example", patient, Accept=accept),
    ):
        assert response.status_code == 406
        assert issue(response)[:2] == ("error", "not-supported")
        assert response.headers["Content-Type"] == FHIR
    assert store.snapshot().commit == before


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("json", FHIR),
        ("application/json", "application/json"),
        ("application/fhir+json", FHIR),
        ("application/fhir%2Bjson", FHIR),
        ("application/fhir json", FHIR),
        ("application/fhir%2Bjson;fhirVersion=4.0", FHIR),
        ("text/json", "text/json"),
        ("xml", XML),
        ("application/xml", "application/xml"),
        ("text/xml", "text/xml"),
        ("application/fhir%2Bxml", XML),
        ("application/fhir xml", XML),
        ("ttl", None),
        ("", None),
    ],
)
def test_format_outweighs_accept(client, value, expected):
    """2.6, 2.7, 2.9"""
    response = client.get(f"metadata?_format={value}", Accept="application/json+fhir")

    if expected is None:
        assert response.status_code == 406
    else:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == expected


def test_format_works_everywhere(client, patient):
    """2.8: on writes, reads, histories and errors; it is no unknown parameter."""
    assert client.put("Patient/example?_format=text/json", patient).headers["Content-Type"] == "text/json"
    for url in ("Patient/example", "Patient/example/_history/1", "_history", "Patient/nobody"):
        assert client.get(f"{url}?_format=text/json").headers["Content-Type"] == "text/json"
    assert client.delete("Patient/example?_format=json").status_code == 204


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/fhir+json", 201),
        ("application/fhir+json; charset=UTF-8", 201),
        ("application/json;charset=utf-8", 201),
        ("text/json", 201),
        ("application/json+fhir", 201),
        ("application/fhir+json; fhirVersion=4.0", 201),
        ("application/fhir+json; fhirVersion=5.0", 415),
        ("application/fhir+json; charset=iso-8859-1", 415),
        ("application/fhir+turtle", 415),
        ("application/fhir+xml; charset=iso-8859-1", 415),
        ("application/fhir+xml; fhirVersion=5.0", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
def test_the_type_of_a_body_is_checked(client, patient, content_type, status):
    """2.5, 2.8, 2.11, 2.12: _format does not change how a body is read."""
    response = client.put("Patient/example?_format=json", patient, Content_Type=content_type)

    assert response.status_code == status


def test_a_byte_order_mark_is_tolerated(client):
    """2.11"""
    body = b'\xef\xbb\xbf{"resourceType":"Patient","id":"example"}'

    assert client.put("Patient/example", body).status_code == 201


def test_pretty_changes_neither_tag_nor_content(client, patient):
    """2.10"""
    client.put("Patient/example", patient)

    plain = client.get("Patient/example")
    for value in ("true", "false"):
        other = client.get(f"Patient/example?_pretty={value}")
        assert (other.json, other.headers["ETag"]) == (plain.json, plain.headers["ETag"])


def test_large_answers_are_packed_for_who_can_unpack(client):
    """2.13: Vary says on what it depends; HEAD has the same length."""
    plain = client.get("metadata")
    packed = client.get("metadata", Accept_Encoding="br, gzip;q=0.5")
    head = client.request("HEAD", "metadata", Accept_Encoding="br, gzip;q=0.5")

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept, Accept-Encoding"
    assert gzip.decompress(packed.content) == plain.content
    assert head.headers["Content-Length"] == str(len(packed.content))


def test_small_answers_are_left_alone(client, patient):
    client.put("Patient/example", patient)

    assert "Content-Encoding" not in client.get("Patient/example", Accept_Encoding="gzip").headers


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True),
        ("x-gzip", True),
        ("*", True),
        ("gzip;q=0", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("br", False),
        ("", False),
    ],
)
def test_accept_encoding_is_understood(header, expected):
    assert takes_gzip(header) is expected


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_a_packed_body_is_unpacked(client, encoding):
    """2.13: of several members too."""
    body = gzip.compress(b'{"resourceType":"Patient",') + gzip.compress(b'"id":"example"}', mtime=0)

    assert client.put("Patient/example", body, Content_Encoding=encoding).status_code == 201


def test_a_deflated_body_is_unpacked(client):
    """2.13: deflate is the zlib format. https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1.2"""
    body = zlib.compress(b'{"resourceType":"Patient","id":"example"}')

    assert client.put("Patient/example", body, Content_Encoding="deflate").status_code == 201


@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip, gzip", "gzip, identity"])
def test_an_unknown_encoding_is_refused(client, encoding):
    """2.13: 415."""
    assert client.put("Patient/example", b"x", Content_Encoding=encoding).status_code == 415


def test_a_packed_body_counts_unpacked(client, settings, issue):
    """A few bytes that unpack to more than fhir.maxBody are 413."""
    for encoding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        body = pack(b" " * (settings.max_body + 1))
        assert len(body) < 200

        response = client.put("Patient/example", body, Content_Encoding=encoding)

        assert response.status_code == 413
        assert issue(response)[1] == "too-long"


def test_a_bomb_is_not_unpacked(client, settings):
    """2.13: of 30 MB never more than the limit is in memory."""
    body = gzip.compress(b" " * 30_000_000, mtime=0)
    assert len(body) < settings.max_body
    client.get("Patient/example")  # the first request compiles the routes
    tracemalloc.start()
    response = client.put("Patient/example", body, Content_Encoding="gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert response.status_code == 413
    assert peak < 10 * settings.max_body


def test_many_small_members_take_no_long_time():
    """2.13: 200,000 empty members are 4 MB; where each copies the rest, that is 400 GB."""
    body = gzip.compress(b"", mtime=0) * 200_000 + gzip.compress(b"{}", mtime=0)
    started = time.process_time()

    assert _unpacked(body, "gzip", 1000) == b"{}"
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip",
        gzip.compress(b'{"resourceType":"Patient","id":"example"}', mtime=0)[:-9],
        zlib.compress(b"{}"),
        gzip.compress(b"{}", mtime=0) + b"x",
        b"",
    ],
)
def test_broken_gzip_is_refused(client, issue, body):
    response = client.put("Patient/example", body, Content_Encoding="gzip")

    assert response.status_code == 400
    assert issue(response)[1] == "structure"


@pytest.mark.parametrize(
    "body", [b"x", zlib.compress(b"{}" * 50)[:-3], gzip.compress(b"{}", mtime=0), zlib.compress(b"{}") + b"x"]
)
def test_broken_deflate_is_refused(client, issue, body):
    response = client.put("Patient/example", body, Content_Encoding="deflate")

    assert response.status_code == 400
    assert issue(response)[1] == "structure"


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_what_was_packed_comes_out(parts):
    """Of members that lie across the pieces in which they are read, too."""
    packed = b"".join(gzip.compress(part * 100, compresslevel=1) for part in parts)

    assert _unpacked(packed, "gzip", 200_000) == b"".join(part * 100 for part in parts)


def test_the_clients_request_id_comes_back(client):
    """3.5"""
    response = client.get("metadata", X_Request_Id="abc-1.Z")

    assert response.headers["X-Request-Id"] == "abc-1.Z"
    assert "X-Correlation-Id" not in response.headers


@pytest.mark.parametrize(
    ("given", "shown"), [("a b", "a b"), ("x" * 65, "x" * 65), ("x" * 300, "x" * 200), ("caf\xe9", "caf?")]
)
def test_an_unfit_request_id_is_replaced(client, given, shown):
    """3.5: by ours; the client's comes back as X-Correlation-Id."""
    response = client.get("metadata", X_Request_Id=given)

    assert response.headers["X-Request-Id"] == "request-1"
    assert response.headers["X-Correlation-Id"] == shown


def test_no_browser_guesses_what_an_answer_is(client, patient):
    """Section 18: nosniff on everything, errors and answers without a body too."""
    client.put("Patient/example", patient)
    for response in (
        client.get("Patient/example"),
        client.get("Patient/example", If_None_Match="*"),
        client.get("Patient/nobody"),
        client.get("metadata", Host="evil.example"),
        client.get("/nowhere"),
        client.get("/health"),
        client.request("OPTIONS", "Patient"),
        client.delete("Patient/example"),
    ):
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_every_answer_has_a_request_id(client):
    for url in ("metadata", "Patient/nobody", "/nowhere", "/health"):
        assert client.get(url).headers["X-Request-Id"].startswith("request-")
