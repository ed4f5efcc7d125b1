"""`--root` as a process: workers that open and close the same repositories, a folder that changes, a reload."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.api.test_http_server import PATIENCE, Running, environment, stop
from tests.conftest import copy_record

NAMES = [f"practice-{number}" for number in range(6)]


def patient(number: int, size: int = 1) -> bytes:
    text = "x" * size
    return b'{"resourceType":"Patient","id":"%d","implicitRules":"%s"}' % (number, text.encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_record: Path) -> Path:
    root = tmp_path_factory.mktemp("served") / "root"
    root.mkdir()
    for name in (*NAMES, "small", "large"):
        add(root, empty_record, name)
    return root


def add(folder: Path, template: Path, name: str) -> None:
    """It is made elsewhere and put there whole, as a restored backup would be."""
    made = copy_record(template, folder.parent / f"{name}.new")
    configure(made, "fhir.durability", "off")
    made.rename(folder / f"{name}.git")


def configure(git_dir: Path, name: str, value: str) -> None:
    subprocess.run(["git", "-C", git_dir, "config", name, value], check=True)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    """Two workers, each of which may have two open at once."""
    log = folder.parent / "log"
    command = ["-m", "cli", "serve", "--root", str(folder), "--open", "2", "--port", "0"]
    configure(folder / "large.git", "fhir.maxBundle", "200m")
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *command, "--workers", "2", "--threads", "4", "--allow-anonymous"],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env=environment(folder.parent),
        )
    assert process.stdout is not None
    greeting = process.stdout.readline()
    assert greeting.startswith(f"git-fhir serves the repositories of {folder} on http://"), log.read_text()
    running = Running(process, int(greeting.rsplit(":", 1)[1].removesuffix("/NAME/fhir\n")), log)
    yield running
    assert stop(running) == 0


def status(server: Running, method: str, path: str, body: bytes | None = None) -> int:
    return server.request(method, path, body)[0]


def test_two_workers_open_and_close_the_same_repositories_under_load(server, folder):
    """More repositories are asked for than may be open: every write happens once, and is read by whoever comes next."""
    turns = 12

    def write_and_read(client: int) -> list[int]:
        found = []
        for turn in range(turns):
            name = NAMES[(client + turn) % len(NAMES)]
            found.append(status(server, "PUT", f"/{name}/fhir/Patient/{client}", patient(client)))
            found.append(status(server, "GET", f"/{name}/fhir/Patient/{client}"))
        return found

    with ThreadPoolExecutor(6) as pool:
        answers = [code for codes in pool.map(write_and_read, range(6)) for code in codes]

    assert set(answers) == {200, 201}
    for name in NAMES:
        _, _, content = server.request("GET", f"/{name}/fhir/_history?_summary=count")
        assert json.loads(content)["total"] == 6 * turns // len(NAMES)
    open_now = [
        float(line.split()[1])
        for line in server.request("GET", "/metrics")[2].decode().splitlines()
        if line.startswith("git_fhir_repositories_open ")
    ]
    assert 1 <= open_now[0] <= 4


def test_the_folder_may_change_under_it(server, folder, empty_record):
    """A new repository is served, one that is moved away isn't, by all workers and without a restart."""
    assert status(server, "GET", "/late/fhir/metadata") == 404
    add(folder, empty_record, "late")
    for number in range(8):
        assert status(server, "PUT", f"/late/fhir/Patient/{number}", patient(number)) == 201

    (folder / "late.git").rename(folder.parent / "moved.git")

    assert {status(server, "GET", "/late/fhir/Patient/1") for _ in range(8)} == {404}


def test_a_reload_takes_up_the_settings_of_each(server, folder):
    """SIGHUP, as with one repository. Until then what is open goes by the old ones."""
    large = patient(1, 3000)
    assert status(server, "PUT", "/small/fhir/Patient/1", large) == 201
    configure(folder / "small.git", "fhir.maxBody", "2k")

    server.process.send_signal(signal.SIGHUP)
    for _ in range(10_000):
        if any(line["message"] == "settings reloaded" for line in server.lines()):
            break
        assert status(server, "GET", "/large/fhir/Patient/1") == 404

    assert status(server, "PUT", "/small/fhir/Patient/1", large) == 413
    assert status(server, "PUT", "/large/fhir/Patient/1", large) == 201


def test_a_body_may_be_as_large_as_its_own_repository_says(server):
    """The server lets all through that any takes (200 MiB here); whoever takes less refuses it, and says its own limit."""

    def announced(name: str, size: int) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        connection.putrequest("POST", f"/{name}/fhir")
        connection.putheader("Content-Type", "application/fhir+json")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    code, text = announced("small", 300 * 1024**2)
    assert (code, str(200 * 1024**2) in text) == (413, True), "nobody takes as much, so it isn't read"
    mib = 1024**2
    code, _, content = server.request("POST", "/small/fhir", b"x" * (129 * mib))
    assert code == 413
    assert str(128 * mib) in content.decode().replace(",", "")


def test_a_folder_that_is_none_is_refused(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "api", "--root", str(tmp_path / "nowhere"), "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(tmp_path),
    )

    assert done.returncode == 1
    assert done.stderr == f"git-fhir: {tmp_path}/nowhere can't be read: No such file or directory.\n"
