"""SIGHUP: the settings are read anew by workers that take over one after the other, and no request fails by it."""

from __future__ import annotations

import http.client
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PATIENT = b'{"resourceType":"Patient","id":"example"}'
LARGE = b'{"resourceType":"Patient","id":"large","implicitRules":"%b"}' % (b"x" * 3000)
JSON = {"Content-Type": "application/fhir+json"}
WORKERS = 2
PATIENCE = 30


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    record: str

    def lines(self, message: str) -> list[dict[str, object]]:
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return [line for line in found if str(line["message"]).startswith(message)]

    def configure(self, name: str, value: str) -> None:
        subprocess.run(["git", "-C", self.record, "config", name, value], check=True)

    def put(self, body: bytes) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("PUT", f"/fhir/Patient/{json.loads(body)['id']}", body, JSON)
        status = connection.getresponse().status
        connection.close()
        return status


@pytest.fixture
def server(record: str, tmp_path: Path) -> Iterator[Running]:
    log = tmp_path / "log"
    command = [
        sys.executable,
        "-m",
        "api",
        record,
        "--allow-anonymous",
        "--port",
        "0",
        "--workers",
        str(WORKERS),
    ]
    with log.open("wb") as stream:
        process = subprocess.Popen([*command, "--threads", "4"], stdout=subprocess.PIPE, stderr=stream)
    assert process.stdout is not None
    port = int(process.stdout.readline().rsplit(b":", 1)[1].removesuffix(b"/fhir\n"))
    yield Running(process, port, log, record)
    process.terminate()
    assert process.wait(PATIENCE) == 0
    process.stdout.close()


class Client(threading.Thread):
    """Sends one request after the other, on one connection for as long as it is left open or on ever new ones."""

    def __init__(self, server: Running, running: threading.Event, *, keeps_alive: bool) -> None:
        super().__init__()
        self.server = server
        self.running = running
        self.keeps_alive = keeps_alive
        self.answers: list[int] = []
        self.told_to_close = 0
        self.failures: list[Exception] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        while self.running.is_set():
            method = "GET" if len(self.answers) % 2 else "PUT"
            try:
                body = PATIENT if method == "PUT" else None
                connection.request(method, "/fhir/Patient/example", body, JSON if body else {})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                return
            self.answers.append(response.status)
            self.told_to_close += response.will_close
            if not self.keeps_alive:
                connection.close()
        connection.close()


def wait_for(server: Running, message: str, count: int) -> None:
    """Ask the server again and again until its log has so many such lines."""
    for _ in range(10_000):
        if len(server.lines(message)) >= count:
            return
        server.put(PATIENT)
    pytest.fail(f"the log has no {count} lines `{message}`")


def test_new_workers_take_over_without_a_failed_request(server: Running) -> None:
    """Clients in a loop see no error, neither on new connections nor on one that they keep; the settings are the new ones."""
    assert server.put(LARGE) == 201
    before = {line["worker"] for line in server.lines("worker ready")}
    running = threading.Event()
    running.set()
    clients = [Client(server, running, keeps_alive=number % 2 == 0) for number in range(6)]
    for client in clients:
        client.start()
    server.configure("fhir.maxBody", "2k")
    for turn in range(1, 4):
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, "settings reloaded", turn)
    running.clear()
    for client in clients:
        client.join()

    assert [client.failures for client in clients] == [[]] * 6
    assert {status for client in clients for status in client.answers} <= {200, 201}
    assert sum(client.told_to_close for client in clients) > 0, "kept connections move to the new workers"
    ready = [line["worker"] for line in server.lines("worker ready")]
    assert len(ready) == (1 + 3) * WORKERS
    assert not before & set(ready[WORKERS:])
    assert server.put(LARGE) == 413


def test_a_connection_that_is_idle_at_that_moment_gets_its_next_answer(server: Running) -> None:
    """Whether or not it has carried a request before; the answer says that it is the last one."""
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE) for _ in range(8)]
    for number, connection in enumerate(connections):
        connection.connect()
        if number % 2:
            connection.request("GET", "/health")
            connection.getresponse().read()
    server.process.send_signal(signal.SIGHUP)
    wait_for(server, "settings reloaded", 1)

    for connection in connections:
        connection.request("GET", "/health")
        response = connection.getresponse()
        assert (response.status, response.headers["Connection"]) == (200, "close")
        connection.close()


def test_a_setting_that_makes_no_sense_is_refused_and_the_old_ones_stay(server: Running) -> None:
    """The workers go on as they are; the log says which setting is wrong. Once it is right, SIGHUP works."""
    server.configure("fhir.maxBody", "much")
    server.process.send_signal(signal.SIGHUP)
    wait_for(server, "the settings are not reloaded", 1)

    assert server.put(LARGE) == 201
    assert len(server.lines("worker ready")) == WORKERS
    assert "fhir.maxBody" in str(server.lines("the settings are not reloaded")[0]["message"])

    server.configure("fhir.maxBody", "2k")
    server.process.send_signal(signal.SIGHUP)
    wait_for(server, "settings reloaded", 1)
    assert server.put(LARGE) == 413


def test_a_terminal_that_is_closed_ends_the_server(record: str) -> None:
    """SIGHUP comes to everything that was started in a terminal when that goes; a server is no exception."""
    master, slave = pty.openpty()
    program = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); os.login_tty(int(sys.argv[1])); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    command = [
        sys.executable,
        "-c",
        program,
        str(slave),
        "-m",
        "api",
        record,
        "--allow-anonymous",
        "--port",
        "0",
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, pass_fds=[slave])
    os.close(slave)
    said = b""
    while b"/fhir\r\n" not in said:  # the whole line, or its end would fail
        said += os.read(master, 4096)

    os.close(master)

    assert process.wait(PATIENCE) == 0
