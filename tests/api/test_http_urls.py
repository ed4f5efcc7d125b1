"""URLs, ids, routing and methods. https://hl7.org/fhir/R4/http.html#root"""

from __future__ import annotations

from dataclasses import replace
from wsgiref.validate import WSGIWarning

import pytest
from falcon.testing import TestClient

from api.app import ROUTES, create_app
from gitstore import RepositoryDamaged

PATIENT = {"resourceType": "Patient"}


def test_urls_and_ids_are_case_sensitive(client):
    """1.1"""
    client.put("Patient/A", PATIENT | {"id": "A"})
    client.put("Patient/a", PATIENT | {"id": "a", "active": True})

    assert client.get("patient/A").status_code == 404
    assert "active" not in client.get("Patient/A").json
    assert client.get("Patient/a").json["active"] is True


@pytest.mark.parametrize("id", ["x" * 65, "a_b", "a b", "a@b", ".", "..", "ä", "%00"])
def test_what_can_not_be_an_id_is_refused(client, issue, id):
    """1.2, 1.3: also `.` and `..`, which clients would normalise away."""
    for response in (client.get(f"Patient/{id}"), client.put(f"Patient/{id}", PATIENT | {"id": id})):
        assert response.status_code == 400
        assert issue(response)[:2] == ("error", "value")


@pytest.mark.parametrize("id", ["x" * 64, ".git", "-", "1.2.840", "CON"])
def test_every_other_id_of_the_grammar_is_welcome(client, id):
    """1.2, 1.3: `.git` too."""
    assert client.put(f"Patient/{id}", PATIENT | {"id": id}).status_code == 201
    assert client.get(f"Patient/{id}").json["id"] == id


def test_ids_are_decoded_once(client):
    """1.4"""
    client.put("Patient/abc", PATIENT | {"id": "abc"})

    assert client.get("Patient/%61bc").status_code == 200
    assert client.get("Patient/%2561bc").status_code == 400


@pytest.mark.parametrize(
    "path", ["Patient/%2e%2e", "Patient/..%2fObservation%2f1", "%2e%2e/git-fhir.json", "..%2f..%2fHEAD"]
)
def test_nothing_escapes_its_folder(client, path):
    """1.4"""
    assert client.get(path).status_code in (400, 404)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["Gurke", "Resource", "DomainResource", "metadata2", "$", "_foo"])
def test_an_unknown_type_is_not_found(client, issue, method, path):
    """1.5, 1.6: abstract types are none either."""
    response = client.request(method, path, PATIENT if method == "POST" else None)

    assert response.status_code == 404
    assert issue(response)[:2] == ("error", "not-supported")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "$export"),
        ("POST", "$convert"),
        ("POST", "Patient/$everything"),
        ("GET", "Patient/$everything"),
        ("GET", "Patient/1/$graph"),
        ("POST", "Patient/1/$graph"),
    ],
)
def test_an_operation_is_no_type_and_no_id(client, issue, method, path):
    """1.6, 16.1: unknown ones are 404."""
    response = client.request(method, path, {"resourceType": "Parameters"} if method == "POST" else None)

    assert response.status_code == 404
    assert issue(response)[:2] == ("error", "not-supported")


def test_a_slash_at_the_end_makes_no_difference(client):
    """1.7"""
    client.put("Patient/a/", PATIENT | {"id": "a"})

    for path in ("Patient/a", "Patient/a/_history", "Patient/a/_history/1", "_history", "metadata"):
        plain, slashed = client.get(path), client.get(path + "/")
        assert plain.status_code == slashed.status_code == 200
    assert client.post("Patient/", PATIENT).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "Patient", "GET, HEAD, OPTIONS, POST"),
        ("PATCH", "Patient", "GET, HEAD, OPTIONS, POST"),
        ("POST", "Patient/1", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("DELETE", "metadata", "GET, HEAD, OPTIONS"),
        ("PUT", "", "GET, HEAD, OPTIONS, POST"),
        ("POST", "_history", "GET, HEAD, OPTIONS"),
        ("PATCH", "Patient/1/_history/1", "GET, HEAD, OPTIONS"),
        ("GET", "Patient/_search", "OPTIONS, POST"),
        ("TRACE", "Patient/1", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_verb_is_answered_with_the_right_ones(client, issue, method, path, allowed):
    """1.11"""
    response = client.request(method, path, PATIENT)

    assert response.status_code == 405
    assert response.headers["Allow"] == allowed
    assert issue(response)[:2] == ("error", "not-supported")


def test_an_unknown_method_is_not_implemented(client, issue):
    """https://www.rfc-editor.org/rfc/rfc9110#section-9.1"""
    with pytest.warns(WSGIWarning, match="BREW"):
        response = client.request("BREW", "Patient/1")

    assert response.status_code == 501
    assert issue(response)[1] == "not-supported"


@pytest.mark.parametrize("path", ["/", "/fhir2", "/fhir/Patient/1/_history/1/2", "/fhir//", "/favicon.ico"])
def test_other_paths_are_not_found(client, issue, path):
    """2.16: Falcon's own 404 is an OperationOutcome."""
    response = client.get(path)

    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/fhir+json"
    assert issue(response)[0] == "error"


def test_options_tells_what_works(client):
    """3.9: 204 and Allow, on every path."""
    for path, endpoint in ROUTES:
        response = client.request("OPTIONS", path.format(type="Patient", id="1", vid="1", name="Observation"))
        assert response.status_code == 204
        assert response.content == b""
        assert response.headers["Allow"] == endpoint.allow()


def test_the_method_can_not_be_overridden(client):
    client.put("Patient/a", PATIENT | {"id": "a"})

    response = client.post("Patient", PATIENT, X_HTTP_Method_Override="DELETE")

    assert response.status_code == 201
    assert client.get("Patient/a", X_HTTP_Method_Override="DELETE").status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "[::1]:8080", "record.localhost", "127.8.8.8"]
)
def test_loopback_names_are_answered(client, host):
    assert client.get("metadata", Host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "192.168.0.1", "localhost.evil.example", "a@localhost", "[::1", ""],
)
def test_foreign_names_are_refused(client, patient, issue, host):
    """A page that binds its own name to 127.0.0.1 must not read or write the record (DNS rebinding)."""
    for response in (client.get("metadata", Host=host), client.put("Patient/example", patient, Host=host)):
        assert response.status_code == 421
        assert issue(response)[:2] == ("error", "forbidden")
    assert client.get("Patient/example").status_code == 404


def test_configured_names_are_answered(make_client, settings):
    """fhir.hostName"""
    client = make_client(replace(settings, host_name=("Fhir.Example.org",)))

    statement = client.get("metadata", Host="fhir.example.org")
    assert statement.status_code == 200
    assert statement.json["implementation"]["url"] == "http://fhir.example.org/fhir"
    assert client.get("metadata", Host="example.org").status_code == 421


def test_the_base_follows_the_host(client, patient):
    """1.8: every URL that the server makes is well-formed."""
    response = client.put("Patient/example", patient, Host="[::1]:99")

    assert response.headers["Location"] == "http://[::1]:99/fhir/Patient/example/_history/1"


def test_health_needs_no_name(client):
    """A load balancer asks by address."""
    response = client.get("/health", Host="10.0.0.1")

    assert response.status_code == 200
    assert response.json == {"status": "pass"}
    assert response.headers["Content-Type"] == "application/json"


def test_health_fails_when_the_clock_is_behind_the_record(client, clock, patient, issue):
    """Five minutes are tolerated."""
    client.put("Patient/example", patient)
    clock.forward(-300)
    assert client.get("/health").status_code == 200

    clock.forward(-1)
    response = client.get("/health")
    assert response.status_code == 503
    assert "Retry-After" in response.headers
    assert issue(response)[0] == "error"


def test_health_fails_when_the_record_can_not_be_read(settings):
    """503, whatever the reason."""

    class Damaged:
        cluster = None

        def snapshot(self):
            raise RepositoryDamaged("a blob is missing")

    response = TestClient(create_app(Damaged(), settings)).simulate_get("/health")

    assert response.status_code == 503
    assert "a blob is missing" in response.json["issue"][0]["diagnostics"]
