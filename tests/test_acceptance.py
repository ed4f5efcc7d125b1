"""The whole product on real input: HTTP, CLI and plain git at once."""

from __future__ import annotations

import http.client
import json as plain_json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gitstore import Store, path_of
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId
from tools.build_definitions import EXAMPLES, PackageMissingError, instances, package


@pytest.fixture
def server(record: str) -> Iterator[int]:
    """The port of a server of the record, with two workers, that takes any resource: nine examples have faults."""
    for name in ("fhir.validation", "fhir.durability"):
        subprocess.run(["git", "--git-dir", record, "config", name, "off"], check=True)
    command = [sys.executable, "-m", "api", record, "--allow-anonymous", "--port", "0", "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    yield int(process.stdout.readline().rsplit(":", 1)[1].removesuffix("/fhir\n"))
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()


def request(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        return ask(connection, method, path, body, **headers)


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(
        method,
        path,
        body,
        {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json", **named},
    )
    response = connection.getresponse()
    return response.status, response.read()


def as_sent(resource: dict[str, Any]) -> bytes:
    """All that the server must give back as it came: every key in its order and every number's digits."""
    meta = {
        key: value
        for key, value in resource.get("meta", {}).items()
        if key not in ("versionId", "lastUpdated")
    }
    rest = {key: value for key, value in resource.items() if key not in ("resourceType", "id", "meta")}
    return json.dumps([resource["resourceType"], resource["id"], meta, rest])


def test_every_official_instance_comes_back_as_it_was_sent(record: str, server: int) -> None:
    """PUT, GET, and a line in `git log` for each of the 726 instances of HL7's examples."""
    try:
        examples = dict(instances(package(*EXAMPLES)))
    except PackageMissingError as error:
        pytest.skip(str(error))
    assert len(examples) == 726
    paths = set()
    connection = http.client.HTTPConnection("127.0.0.1", server, timeout=60)
    for name, body in examples.items():
        resource = json.loads(body)
        url = f"/fhir/{resource['resourceType']}/{resource['id']}"
        status, answer = ask(connection, "PUT", url, body)
        assert status in (200, 201), (name, answer)
        status, answer = ask(connection, "GET", url)
        assert status == 200
        assert as_sent(json.loads(answer)) == as_sent(resource), name
        paths.add(path_of(ResourceId(resource["resourceType"], resource["id"])))
    connection.close()
    log = subprocess.run(
        ["git", "-C", record, "log", "--format=", "--name-only"], capture_output=True, text=True, check=True
    )
    assert paths <= set(log.stdout.split())


def test_of_fifty_updates_with_one_if_match_one_succeeds(record: str, server: int) -> None:
    """Exactly one 200, 49 times 412. https://hl7.org/fhir/R4/http.html#concurrency"""
    request(server, "PUT", "/fhir/Patient/example", b'{"resourceType":"Patient","id":"example"}')
    statuses: list[int] = []

    def update(number: int) -> None:
        body = plain_json.dumps(
            {"resourceType": "Patient", "id": "example", "language": f"n-{number}"}
        ).encode()
        statuses.append(request(server, "PUT", "/fhir/Patient/example", body, If_Match='W/"1"')[0])

    threads = [threading.Thread(target=update, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [200] + [412] * 49
    with Store.open(record) as store:
        assert store.snapshot().read(ResourceId("Patient", "example")).version_id == 2


def test_http_and_cli_write_to_the_same_resources_at_once(record: str, server: int, tmp_path: Path) -> None:
    """Every accepted write is a version of its own: none is lost, none is numbered twice."""
    lines = [f'{{"resourceType":"Patient","id":"p-{n % 5}","language":"c-{n}"}}\n' for n in range(200)]
    (tmp_path / "patients.ndjson").write_text("".join(lines))
    command = [
        sys.executable,
        "-m",
        "cli",
        "-C",
        record,
        "import",
        "--force",
        "--author",
        "Grace <grace@clinic.example>",
        str(tmp_path / "patients.ndjson"),
    ]
    imports = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    accepted: list[int] = []

    def update(client: int) -> None:
        for number in range(25):
            body = f'{{"resourceType":"Patient","id":"p-{number % 5}","language":"h-{client}-{number}"}}'.encode()
            status, _ = request(server, "PUT", f"/fhir/Patient/p-{number % 5}", body)
            accepted.append(status)

    threads = [threading.Thread(target=update, args=(client,)) for client in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in imports] == [0, 0]

    assert set(accepted) <= {200, 201}
    with Store.open(record) as store:
        assert store.snapshot().history().total == 8 * 25 + 2 * 200
        assert list(store.verify()) == []
