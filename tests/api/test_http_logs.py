"""The log: what a line says, one id from request to commit, and nothing of what patients are called."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from wsgiref.validate import WSGIWarning

import pytest

from api.app import create_app
from api.log import configure
from gitstore import Store

NAMES = ("Zebulon", "Quagmire", "1897-05-23", "999-88-7777")
"""Of a patient who is nobody's: a given name, a family name, a birthday, a number."""

PERSON = {
    "resourceType": "Patient",
    "id": "example",
    "identifier": [{"system": "http://hospital.example/ssn", "value": "999-88-7777"}],
    "name": [{"given": ["Zebulon"], "family": "Quagmire"}],
    "birthDate": "1897-05-23",
}
QUERY = "name=Quagmire&given=Zebulon&birthdate=1897-05-23&identifier=999-88-7777"
PATIENCE = 30


class Lines:
    """All that the process logs, as the server writes it."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def __call__(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self() if line["message"] == "request"]


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    flags = logging.logThreads, logging.logProcesses, logging.logMultiprocessing
    found = Lines()
    configure(found.stream)
    yield found
    root.handlers[:] = before
    root.setLevel(level)
    logging.logThreads, logging.logProcesses, logging.logMultiprocessing = flags


class Failing(Store):
    """Writes, and then fails in a way that quotes what it was about."""

    def commit(self, *arguments: Any, **named: Any) -> Any:
        super().commit(*arguments, **named)
        try:
            {}[f"{arguments}"]
        except KeyError as error:
            raise ZeroDivisionError(json.dumps(PERSON)) from error


@pytest.fixture
def failing(repository, settings, clock, make_client):
    with Failing.open(repository, settings, clock=clock) as store:
        client = make_client()
        client._http.app = create_app(store, settings, clock=clock)
        yield client


@pytest.mark.parametrize(
    ("method", "url", "status", "interaction"),
    [
        ("GET", "Patient/nobody?_format=json", 404, "read"),
        ("HEAD", "Patient/nobody", 404, "read"),
        ("GET", "metadata", 200, "capabilities"),
        ("GET", "/nowhere", 404, "other"),
        ("GET", "/health", 200, "health"),
    ],
)
def test_a_line_names_the_interaction_and_the_principal(client, lines, method, url, status, interaction):
    """FHIR's code; how the sender was recognised, and by which key."""
    client.request(method, url)

    [line] = lines.requests()
    assert (line["method"], line["status"], line["interaction"]) == (method, status, interaction)
    assert line["principal"] == {"kind": "anonymous", "key": "anonymous"}
    assert line["author"] == "anonymous"
    assert "denied" not in line


def test_a_line_says_why_somebody_was_refused(client, lines):
    client.get("metadata", Host="evil.example")

    [line] = lines.requests()
    assert (line["status"], line["denied"]) == (421, "host")


def test_a_method_that_nobody_knows_is_other(client, lines):
    """It is a client's text."""
    with pytest.warns(WSGIWarning, match="ZEBULON"):
        client.request("ZEBULON", "Patient/1")

    [line] = lines.requests()
    assert (line["method"], line["status"]) == ("other", 501)


def test_one_id_from_request_to_commit(failing, repository, lines):
    """X-Request-Id, all lines of the log, the trailer of the commit, and the OperationOutcome of a 500."""
    response = failing.put("Patient/example", PERSON, X_Request_Id="ward-7.42")

    assert response.status_code == 500
    assert response.headers["X-Request-Id"] == "ward-7.42"
    [issue] = response.json["issue"]
    assert "request ward-7.42" in issue["details"]["text"]
    assert [(line["message"], line["requestId"]) for line in lines()] == [
        ("unexpected", "ward-7.42"),
        ("request", "ward-7.42"),
    ]
    command = [
        "git",
        "-C",
        repository,
        "log",
        "-1",
        "--format=%(trailers:key=FHIR-Request-Id,valueonly)",
        "main",
    ]
    trailer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert trailer == "ward-7.42"


def test_an_unexpected_error_tells_where_and_not_what(failing, lines):
    """The kinds of the errors in their order, and the lines of code: enough to find it."""
    failing.put("Patient/example", PERSON)

    [line] = [line for line in lines() if line["message"] == "unexpected"]
    first, _, last = line["traceback"].partition("led to")
    assert first.strip().endswith("builtins.KeyError")
    assert last.strip().endswith("builtins.ZeroDivisionError")
    assert f'File "{__file__}"' in first
    assert "on_put" in last
    assert not any(name in str(lines()) for name in NAMES)


BUNDLE = {
    "resourceType": "Bundle",
    "type": "transaction",
    "entry": [
        {
            "fullUrl": "urn:uuid:Zebulon-Quagmire",
            "resource": PERSON,
            "request": {"method": "PUT", "url": f"Patient?{QUERY}", "ifNoneExist": QUERY},
        }
    ],
}
BROKEN = json.dumps(PERSON).replace(",", ",,").encode()
TELLING: list[tuple[str, str, Any, dict[str, str]]] = [
    ("GET", f"Patient?{QUERY}", None, {}),
    ("GET", f"Patient?{QUERY}&nonsense:Zebulon=Quagmire", None, {"Prefer": "handling=strict"}),
    ("GET", f"?_type=Quagmire&{QUERY}", None, {}),
    ("GET", f"Observation?patient.{QUERY}&_sort=Zebulon", None, {}),
    ("POST", "Patient/_search", QUERY.encode(), {"Content_Type": "application/x-www-form-urlencoded"}),
    ("POST", "_search", b"\xff%zz" + QUERY.encode(), {"Content_Type": "application/x-www-form-urlencoded"}),
    ("POST", "Patient", PERSON, {"If_None_Exist": QUERY}),
    ("POST", "Patient", BROKEN, {}),
    ("POST", "Patient", BROKEN, {"Content_Type": "application/fhir+xml"}),
    ("POST", "Patient", b"<Patient><name>Zebulon Quagmire</nam>", {"Content_Type": "application/fhir+xml"}),
    ("POST", "Patient", PERSON | {"gender": "Zebulon", "Quagmire": "999-88-7777"}, {}),
    ("POST", "Patient", PERSON | {"birthDate": "1897-05-23 Zebulon"}, {}),
    ("POST", "Patient", PERSON | {"resourceType": "Quagmire"}, {}),
    ("PUT", "Patient/example", PERSON | {"id": "Zebulon"}, {}),
    ("PUT", f"Patient?{QUERY}", PERSON, {}),
    (
        "PUT",
        "Patient/example",
        PERSON,
        {"If_Match": 'W/"Zebulon"', "X_Commit_Message": "Zebulon\x01Quagmire"},
    ),
    (
        "PUT",
        "Patient/example",
        PERSON,
        {"X_Provenance": '{"resourceType": "Quagmire"', "Prefer": "return=Zebulon"},
    ),
    ("PUT", "Patient/example", PERSON, {"Content_Type": "Zebulon/Quagmire", "Accept": "Quagmire/Zebulon"}),
    ("PUT", "Patient/example", PERSON, {"Content_Encoding": "Zebulon", "Accept_Language": "Quagmire"}),
    ("PATCH", "Patient/example", b'[{"op": "test", "path": "/Quagmire", "value": "Zebulon"}]', {}),
    ("DELETE", f"Patient?{QUERY}", None, {}),
    ("POST", "", BUNDLE, {"Idempotency_Key": "Zebulon Quagmire 999-88-7777"}),
    ("POST", "", BUNDLE | {"type": "batch"}, {}),
    ("POST", "", BUNDLE | {"type": "Zebulon"}, {}),
    ("POST", "Patient/$validate", PERSON | {"gender": "Quagmire"}, {}),
    ("GET", f"Patient/example/$everything?{QUERY}", None, {}),
    (
        "GET",
        "Patient/example",
        None,
        {"Authorization": "Basic WmVidWxvbjpRdWFnbWlyZQ==", "Host": "Zebulon.example"},
    ),
    (
        "GET",
        "metadata",
        None,
        {"X_Request_Id": "Zebulon Quagmire", "Cookie": "name=Quagmire", "Origin": "http://Zebulon"},
    ),
    ("GET", f"/ready?{QUERY}", None, {"Referer": "http://localhost/Zebulon", "User_Agent": "Quagmire"}),
]


@pytest.mark.parametrize("validation", ["off", "full"])
def test_nothing_that_names_a_patient_is_logged(repository, settings, make_client, lines, validation):
    """In whatever part of a request but its path it stands, and whatever is wrong with it."""
    with Store.open(repository, replace(settings, validation=validation)) as store:
        client = make_client(store=store)
        for method, url, body, headers in TELLING:
            client.request(method, url, body, **headers)

    assert len(lines.requests()) == len(TELLING)
    logged = lines.stream.getvalue()
    assert [name for name in NAMES if name.lower() in logged.lower()] == []
    assert "WmVidWxv" not in logged, "nor what it is in Base64"


@pytest.mark.parametrize("body", [PERSON, BUNDLE], ids=["resource", "bundle"])
def test_nor_when_the_server_itself_fails(failing, lines, body):
    """Its own errors quote the request."""
    url = "" if body is BUNDLE else "Patient/example"
    response = failing.request("POST" if body is BUNDLE else "PUT", url, body)

    assert response.status_code == 500
    assert [name for name in NAMES if name in lines.stream.getvalue()] == []


def test_nor_what_is_wrong_with_a_foreign_commit(repository, settings, make_client, lines, tmp_path):
    """Somebody pushed a patient that can't be adopted: neither the log nor the answers to writes quote the file."""
    settings = replace(settings, foreign_commits="adopt", validation="full")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", tmp_path / "clone"]
    with Store.open(repository, settings) as store:
        client = make_client(settings, store)
        client.put("Patient/example", {"resourceType": "Patient", "id": "example"})
        subprocess.run(["git", "clone", "--quiet", repository, tmp_path / "clone"], check=True)
        [file] = (tmp_path / "clone" / "Patient").rglob("example.json")
        file.write_text(json.dumps(PERSON | {"gender": "Zebulon", "birthDate": "Quagmire"}))
        subprocess.run([*git, "commit", "--quiet", "-a", "-m", "Zebulon"], check=True)
        subprocess.run([*git, "push", "--quiet", "origin", "HEAD:main"], check=True)

        written = client.put("Patient/example", {"resourceType": "Patient", "id": "example"})
        assert written.status_code == client.get("/ready").status_code == 503

    assert {"error", "warning"} <= {line["level"] for line in lines()}
    assert [name for name in NAMES if name in lines.stream.getvalue() + written.text] == []


def test_paths_are_logged_and_with_them_ids(client, lines):
    """docs/operations.md says so: ids of resources should be nobody's number."""
    client.get("Patient/some-id")

    assert lines.requests()[0]["path"] == "/fhir/Patient/some-id"


MALFORMED = (
    b"GET /fhir/Patient?name=Quagmire HTTP/1.1\r\nHost: localhost\r\nHost: Zebulon\r\n\r\n",
    b"GET /fhir/Patient?name=Quagmire HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"Zebulon Quagmire 999-88-7777\r\n\r\n",
    b"GET /fhir/Patient?name=Quagmire HTTP/1.1\r\nHost: localhost\r\n Zebulon: Quagmire\r\n\r\n",
    b"GET /fhir/Patient?name=Quagmire HTTP/1.1\r\nHost: localhost\r\nZebulon Quagmire\r\n\r\n",
    b"GET http://[Zebulon/fhir/Patient?name=Quagmire HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nContent-Length: Zebulon\r\n\r\nQuagmire",
    b"POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZebulon Quagmire\r\n",
    b"GET /fhir/Patient?name=Quagmire HTTP/1.1\r\nHost: localhost\r\nX: " + b"Zebulon" * 20_000 + b"\r\n\r\n",
)


@pytest.fixture
def exchange(repository: Path, tmp_path: Path) -> Iterator[Callable[[bytes], bytes]]:
    """Sends bytes to a server as they are, and gives the answer until it closes."""
    command = [sys.executable, "-m", "api", str(repository), "--port", "0", "--workers", "1"]
    with (tmp_path / "log").open("w") as stream:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stream, env={**os.environ, "TMPDIR": str(tmp_path)}
        )
    assert process.stdout is not None
    port = int(process.stdout.readline().rsplit(b":", 1)[1].removesuffix(b"/fhir\n"))

    def send(data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    yield send
    process.terminate()
    assert process.wait(PATIENCE) == 0
    process.stdout.close()


def test_nor_is_what_no_server_can_read(exchange, tmp_path):
    """What waitress refuses before it is a request: a line each, without what was sent."""
    for data in MALFORMED:
        assert exchange(data).startswith(b"HTTP/1.")

    logged = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in logged.splitlines()]
    assert len([line for line in lines if line["message"] == "request"]) == len(MALFORMED)
    assert [name for name in NAMES if name.lower() in logged.lower()] == []
