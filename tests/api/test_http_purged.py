"""What was purged over HTTP: 410, and nothing of it from any worker once the purge has returned. docs/security.md, "Erasure" """

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitstore import Author, Purgeable, Settings, Store, Update
from gitstore.fhir.ids import ResourceId, VersionId

PATIENT = ResourceId("Patient", "example")
GRACE = Author("Grace Hopper", "grace@clinic.example")
JSON = {"Content-Type": "application/fhir+json"}
MARK = b"Marker"
ASKED = (
    "Patient/example",
    "Patient/example/_history/1",
    "Patient/example/_history",
    "Patient/_history?_count=20",
    "Patient?name=marker",
    "_history?_count=50",
    "Patient/other",
)
PATIENCE = 60


def patient(family: str, id: str = "example") -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, "name": [{"family": family}]}


# The answers


def test_a_purged_version_is_gone(client: Any, store: Store) -> None:
    """410 with the code `deleted`; who and when, but not why. https://hl7.org/fhir/R4/http.html#vread"""
    for family in ("Marker", "Second"):
        client.put("Patient/example", patient(family))
    store.purge([Purgeable(PATIENT, VersionId(1))], GRACE, "A secret reason.")

    result = client.get("Patient/example/_history/1")

    assert result.status_code == 410
    [issue] = result.json["issue"]
    assert issue["code"] == "deleted"
    assert "was purged by Grace Hopper on 20" in result.text
    assert "secret reason" not in result.text
    history = client.get("Patient/example/_history").json
    assert (history["total"], len(history["entry"])) == (1, 1)
    assert client.get("Patient/example").headers["ETag"] == 'W/"2"'
    assert client.get("Patient/example/$diff?fromVersion=1&toVersion=2").status_code == 410
    assert client.get("Patient/example/_history/1", If_None_Match='W/"1"').status_code == 410


def test_a_purged_resource_is_gone_until_it_is_written_again(client: Any, store: Store) -> None:
    """Reads and its history are 410, searches don't find it, and the next version has the next number."""
    client.put("Patient/example", patient("Marker"))
    client.put("Patient/example", patient("Marker"))
    store.purge([Purgeable(PATIENT)], GRACE, "Why.")

    assert client.get("Patient/example").status_code == 410
    assert client.get("Patient/example/_history").status_code == 410
    assert client.get("Patient?name=marker").json["total"] == 0
    result = client.put("Patient/example", patient("New"))
    assert (result.status_code, result.json["meta"]["versionId"]) == (201, "3")


# A server that runs meanwhile


@pytest.fixture
def port(record: str, tmp_path: Path) -> Iterator[int]:
    subprocess.run(["git", "-C", record, "config", "fhir.validation", "off"], check=True)
    subprocess.run(["git", "-C", record, "config", "fhir.durability", "off"], check=True)
    with Store.open(record, Settings(durability="off", validation="off")) as opened:
        opened.commit([Update(PATIENT, patient("Marker"))], GRACE)
        for number in range(300):
            name = ResourceId("Patient", f"p-{number % 50}")
            opened.commit([Update(name, patient("Other", name.id))], GRACE)
        opened.commit([Update(ResourceId("Patient", "other"), patient("Other", "other"))], GRACE)
    command = [sys.executable, "-m", "api", record, "--allow-anonymous", "--port", "0"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--workers", "2", "--threads", "4"], stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    yield int(process.stdout.readline().rsplit(b":", 1)[1].removesuffix(b"/fhir\n"))
    process.terminate()
    assert process.wait(PATIENCE) == 0
    process.stdout.close()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, str | None]:
    """On a connection of its own, so that any worker may answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, f"/fhir/{path}", body, JSON if body else {})
        response = connection.getresponse()
        return response.status, response.read(), response.getheader("Retry-After")
    finally:
        connection.close()


class Client(threading.Thread):
    """Asks for all of it again and again, and writes."""

    def __init__(self, port: int, stopped: threading.Event) -> None:
        super().__init__()
        self.port = port
        self.stopped = stopped
        self.answers: list[tuple[str, int, str | None]] = []
        self.failures: list[Exception] = []

    def run(self) -> None:
        body = json.dumps(patient("Other", "other")).encode()
        while not self.stopped.is_set():
            try:
                for path in ASKED:
                    status, _, after = ask(self.port, "GET", path)
                    self.answers.append((path, status, after))
                status, _, after = ask(self.port, "PUT", "Patient/other", body)
                self.answers.append(("PUT", status, after))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                return


def test_no_worker_gives_out_anything_of_it_afterwards(record: str, port: int) -> None:
    """Before and meanwhile 200, then 410; 503 for writes that have to wait, with Retry-After; never a 500."""
    assert MARK in ask(port, "GET", "Patient/example")[1]
    stopped = threading.Event()
    clients = [Client(port, stopped) for _ in range(3)]
    for client in clients:
        client.start()
    command = [
        sys.executable,
        "-P",
        "-m",
        "cli",
        "-C",
        record,
        "purge",
        "Patient/example",
        "--yes",
        "-m",
        "Why.",
    ]
    result = subprocess.run(
        [*command, "--author", "Grace <grace@clinic.example>"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    after = [(path, *ask(port, "GET", path)) for _ in range(8) for path in ASKED]
    stopped.set()
    for client in clients:
        client.join()

    assert result.returncode == 0, result.stderr
    assert [path for path, _, body, _ in after if MARK in body] == []
    gone = {"Patient/example", "Patient/example/_history/1", "Patient/example/_history"}
    assert {(path, status) for path, status, _, _ in after} == {
        (path, 410 if path in gone else 200) for path in ASKED
    }
    answers = [answer for client in clients for answer in client.answers]
    assert [client.failures for client in clients] == [[], [], []]
    assert {status for _, status, _ in answers} <= {200, 404, 410, 503}, sorted(set(answers))
    assert all(after for _, status, after in answers if status == 503)
    assert ask(port, "PUT", "Patient/other", json.dumps(patient("Last", "other")).encode())[0] == 200
    with Store.open(record) as opened:
        assert list(opened.verify()) == []
