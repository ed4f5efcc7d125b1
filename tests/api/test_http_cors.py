"""Web pages of other origins. https://fetch.spec.whatwg.org/#http-cors-protocol"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from api.cors import origins
from gitstore import Invalid, init

APP = "https://app.example.org"


@pytest.fixture
def pages(make_client, settings):
    """A client of a server that the pages of two origins may use."""
    return make_client(replace(settings, cors_origin=(APP, "http://localhost:3000")))


def preflight(client, path="Patient/example", origin=APP, method="PUT", **headers):
    return client.request("OPTIONS", path, Origin=origin, Access_Control_Request_Method=method, **headers)


def names(header):
    return {each.strip().lower() for each in header.split(",")}


def cors_headers(response):
    return [name for name in response.headers if name.lower().startswith("access-control")]


def test_a_preflight_says_what_a_page_may_send(pages):
    """3.8: 204, every method and every header that a client of FHIR needs, whatever it asked for."""
    response = preflight(pages, Access_Control_Request_Headers="x-evil")

    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert names(response.headers["Access-Control-Allow-Methods"]) == {
        "get", "head", "post", "put", "patch", "delete",
    }  # fmt: skip
    allowed = names(response.headers["Access-Control-Allow-Headers"])
    assert allowed >= {
        "accept", "authorization", "content-type", "prefer", "if-match", "if-none-match", "if-modified-since",
        "if-none-exist", "x-request-id", "x-provenance", "x-requested-with", "x-commit-message", "idempotency-key",
    }  # fmt: skip
    assert "x-evil" not in allowed
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert "Origin" in response.headers["Vary"]


def test_an_answer_says_what_a_page_may_see(pages, patient):
    """3.8: also where it is a 304, or has no body."""
    for response in (
        pages.put("Patient/example", patient, Origin=APP),
        pages.get("Patient/example", Origin="http://localhost:3000"),
        pages.get("Patient/example", Origin=APP, If_None_Match="*"),
        pages.delete("Patient/example", Origin=APP),
    ):
        assert response.status_code in (200, 201, 204, 304)
        assert response.headers["Access-Control-Allow-Origin"] in (APP, "http://localhost:3000")
        exposed = names(response.headers["Access-Control-Expose-Headers"])
        assert exposed >= {
            "etag", "location", "content-location", "last-modified", "x-request-id", "x-correlation-id",
            "git-commit", "accept-patch",
        }  # fmt: skip
        assert "origin" in names(response.headers["Vary"])


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "Patient/nobody", {}, 404),
        ("GET", "Gurke/1", {}, 404),
        ("GET", "/nowhere", {}, 404),
        ("GET", "Patient/a_b", {}, 400),
        ("GET", "metadata", {"Accept": "text/turtle"}, 406),
        ("GET", "metadata", {"Host": "evil.example"}, 421),
        ("DELETE", "metadata", {}, 405),
        ("POST", "Patient", {"Content_Type": "text/plain"}, 415),
    ],
)
def test_a_page_may_read_errors(pages, issue, method, path, headers, status):
    """Otherwise it would see a network error, and nobody would know why."""
    response = pages.request(method, path, Origin=APP, **headers)

    assert response.status_code == status
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert issue(response)[0] == "error"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.org.evil.example",
        "http://app.example.org",
        "null",
        "*",
        "",
    ],
)
def test_another_origin_gets_no_permission(pages, patient, origin):
    """The answer is the usual one; without the header the browser keeps it from the page. Vary keeps caches from mixing."""
    pages.put("Patient/example", patient)

    for response in (pages.get("Patient/example", Origin=origin), preflight(pages, origin=origin)):
        assert response.status_code in (200, 204)
        assert cors_headers(response) == []
        assert "origin" in names(response.headers["Vary"])


def test_options_that_is_no_preflight_is_as_ever(pages):
    """3.9: 204 and Allow."""
    for response in (
        pages.request("OPTIONS", "Patient/example", Origin=APP),
        pages.request("OPTIONS", "Patient/example"),
        preflight(pages, origin="https://evil.example"),
    ):
        assert response.status_code == 204
        assert "PUT" in response.headers["Allow"]
        assert "Access-Control-Allow-Methods" not in response.headers


def test_without_origins_there_is_no_word_of_cors(client):
    """The default."""
    for response in (client.get("metadata", Origin=APP), preflight(client)):
        assert cors_headers(response) == []
        assert "Origin" not in response.headers.get("Vary", "")


def test_a_preflight_under_a_foreign_host_is_refused(pages):
    """DNS rebinding: nothing is answered there."""
    assert preflight(pages, Host="evil.example").status_code == 421


def test_the_statement_says_whether_pages_may_come(pages, client):
    """https://hl7.org/fhir/R4/capabilitystatement-definitions.html#CapabilityStatement.rest.security.cors"""
    assert pages.get("metadata").json["rest"][0]["security"]["cors"] is True
    assert client.get("metadata").json["rest"][0]["security"]["cors"] is False


@pytest.mark.parametrize("given", [APP, "HTTPS://App.example.org", APP + "/", f" {APP} "])
def test_an_origin_may_be_written_in_several_ways(given):
    assert origins([given]) == {APP}


@pytest.mark.parametrize(
    "given",
    [
        "*",
        " * ",
        "null",
        "",
        "app.example.org",
        "https://",
        "https://a/b",
        "https://a b",
        "https://*.example",
    ],
)
def test_what_is_no_origin_is_refused(given):
    """It would never match, and `*` would let every page on the web in."""
    with pytest.raises(Invalid, match=r"fhir\.corsOrigin is"):
        origins([given])


@pytest.mark.parametrize(("variable", "value"), [("corsOrigin", "*"), ("trustedProxy", "all")])
def test_a_server_does_not_start_with_such_a_setting(tmp_path, variable, value):
    """Design 7: one line says which it is."""
    init(tmp_path / "record.git")
    subprocess.run(["git", "-C", tmp_path / "record.git", "config", f"fhir.{variable}", value], check=True)

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "api",
            tmp_path / "record.git",
            "--allow-anonymous",
            "--port",
            "0",
            "--workers",
            "1",
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert f"fhir.{variable} is `{value}`" in done.stderr.splitlines()[-1]
