"""The server as a process: what only waitress, sockets and signals can show."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gitstore import init

PATIENT = b'{"resourceType":"Patient","id":"example"}'
JSON = {"Content-Type": "application/fhir+json"}
MAX_BUNDLE = 2_000_000
PATIENCE = 20


def environment(home: Path) -> dict[str, str]:
    """Without the settings of whoever runs the tests."""
    return {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}


@dataclass
class Running:
    """`python -m api` on a free port."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def request(self, method: str, path: str, body: Any = None, **named: Any) -> tuple[int, Any, bytes]:
        connection = self.connect()
        connection.request(method, path, body, JSON if body is not None else {}, **named)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers, content

    def raw(self, data: bytes) -> tuple[int, Any, dict[str, Any]]:
        """Bytes as they are, and the answer until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(data)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, response.headers, json.loads(response.read())

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def workers(self) -> list[int]:
        return [line["worker"] for line in self.lines() if line["message"] == "worker ready"]


def start(folder: Path, *options: str, anonymous: bool = True) -> Running:
    path = folder / "record.git"
    init(path)
    subprocess.run(["git", "-C", path, "config", "fhir.durability", "off"], check=True)
    subprocess.run(["git", "-C", path, "config", "fhir.maxBundle", str(MAX_BUNDLE)], check=True)
    subprocess.run(["git", "-C", path, "config", "fhir.maxBody", "1000000"], check=True)
    log = folder / "log"
    open_door = ["--allow-anonymous"] if anonymous else []
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "api", path, *open_door, "--port", "0", "--threads", "4", *options],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env=environment(folder),
        )
    assert process.stdout is not None
    greeting = process.stdout.readline()
    assert greeting.startswith(f"git-fhir serves {path} on http://127.0.0.1:"), log.read_text()
    assert greeting.endswith("/fhir\n")
    return Running(process, int(greeting.rsplit(":", 1)[1].removesuffix("/fhir\n")), log)


def stop(running: Running) -> int:
    running.process.terminate()
    code = running.process.wait(PATIENCE)
    running.process.stdout.close()
    return code


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = start(tmp_path_factory.mktemp("server"), "--workers", "1")
    yield running
    assert stop(running) == 0


@pytest.fixture
def own_server(tmp_path):
    """For a test that stops it or its workers."""
    running = start(tmp_path, "--workers", "2")
    yield running
    if running.process.poll() is None:
        stop(running)
    running.process.stdout.close()


def test_it_writes_and_reads(server):
    status, headers, _ = server.request("PUT", "/fhir/Patient/example", PATIENT)
    assert status in (200, 201)
    assert headers["Location"].startswith(f"http://127.0.0.1:{server.port}/fhir/Patient/example/_history/")
    assert "Server" not in headers

    status, headers, body = server.request("GET", "/fhir/Patient/example")
    assert (status, json.loads(body)["id"]) == (200, "example")
    assert "Transfer-Encoding" not in headers


def test_head_over_the_wire_has_length_and_no_body(server):
    """5.7"""
    server.request("PUT", "/fhir/Patient/example", PATIENT)
    _, got, body = server.request("GET", "/fhir/Patient/example")

    status, head, nothing = server.request("HEAD", "/fhir/Patient/example")

    assert (status, nothing) == (200, b"")
    assert head["Content-Length"] == got["Content-Length"] == str(len(body))


def test_answers_without_a_body_keep_the_connection(server):
    """204 and 304 end with their header; waitress alone would close."""
    server.request("PUT", "/fhir/Patient/example", PATIENT)
    connection = server.connect()
    for method, path, headers, status in [
        ("DELETE", "/fhir/Patient/nobody", {}, 204),
        ("GET", "/fhir/Patient/example", {"If-None-Match": "*"}, 304),
        ("OPTIONS", "/fhir/Patient", {}, 204),
        ("GET", "/fhir/Patient/example", {}, 200),
    ]:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        response.read()
        assert response.status == status
        assert connection.sock is not None, f"closed after {method} {path}"
    connection.close()


def test_a_chunked_body_is_read(server):
    status, _, body = server.request("POST", "/fhir/Patient", [PATIENT[:9], PATIENT[9:]], encode_chunked=True)

    assert status == 201, body


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "invalid"),
        (b"get /fhir/metadata HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "invalid"),
        (b"GET /fhir/metadata HTTP/1.1\r\nHost localhost\r\n\r\n", 400, "invalid"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431, "too-long"),
        (b"POST /fhir HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400, "invalid"),
        (b"POST /fhir HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "not-supported"),
        (
            b"POST /fhir HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
            "invalid",
        ),
        (
            b"POST /fhir HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000001\r\n\r\n" + b"x" * 2_000_001,
            413,
            "too-long",
        ),
    ],
)
def test_what_waitress_refuses_is_an_outcome_too(server, data, status, code):
    """2.16: also where the client is still sending when the answer is there; the log has a line for it."""
    got, headers, outcome = server.raw(data)

    assert got == status
    assert headers["Content-Type"] == "application/fhir+json"
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["issue"][0]["code"] == code
    lines = [line for line in server.lines() if line.get("requestId") == headers["X-Request-Id"]]
    assert [line["status"] for line in lines] == [status]


def test_a_large_bundle_may_come_in_chunks_until_its_limit(server):
    """413 while reading, without a Content-Length."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = b"POST /fhir HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

    status, _, outcome = server.raw(head + chunk * (MAX_BUNDLE // 0x10000 + 1))

    assert (status, outcome["issue"][0]["code"]) == (413, "too-long")


def test_a_resource_above_its_limit_is_refused(server):
    """fhir.maxBody, from git's configuration."""
    status, _, body = server.request("POST", "/fhir/Patient", b" " * 1_000_001)

    assert status == 413
    assert b"1000000" in body


def test_a_stop_lets_requests_finish(own_server):
    """A request whose body is still on its way when SIGTERM comes is carried out and answered; then all exit with 0."""
    request = (
        b"PUT /fhir/Patient/example HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(PATIENT)
    )
    idle = own_server.connect()
    idle.connect()
    with socket.create_connection(("127.0.0.1", own_server.port), timeout=PATIENCE) as connection:
        connection.sendall(request)
        assert connection.recv(100).startswith(b"HTTP/1.1 100")

        own_server.process.send_signal(signal.SIGTERM)
        assert idle.sock.recv(1) == b"", "an idle connection is closed: the workers have begun to stop"
        connection.sendall(PATIENT)

        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 201
        assert response.headers["Connection"] == "close"
        assert json.loads(response.read())["id"] == "example"
    idle.close()
    assert own_server.process.wait(PATIENCE) == 0
    with pytest.raises(ConnectionRefusedError):
        own_server.connect().connect()


def test_a_killed_worker_is_replaced(own_server):
    """kill -9 of both: the next request is answered by a new one, and what was acknowledged is there."""
    status, _, _ = own_server.request("PUT", "/fhir/Patient/example", PATIENT)
    assert status == 201
    before = own_server.workers()
    assert len(before) == 2

    for pid in before:
        os.kill(pid, signal.SIGKILL)

    status, _, body = own_server.request("GET", "/fhir/Patient/example")
    assert (status, json.loads(body)["id"]) == (200, "example")
    assert set(own_server.workers()) > set(before)


def sockets(pid: int) -> int:
    names = (os.path.join(f"/proc/{pid}/fd", name) for name in os.listdir(f"/proc/{pid}/fd"))
    return sum(os.path.islink(name) and os.readlink(name).startswith("socket:") for name in names)


def test_connections_are_shared_out_among_the_workers(own_server):
    """Eight that one worker takes leave the other's core with nothing to do."""
    workers = own_server.workers()
    before = [sockets(worker) for worker in workers]
    connections = [own_server.connect() for _ in range(8)]
    for connection in connections:
        connection.request("GET", "/health")
        connection.getresponse().read()
    taken = [sockets(worker) - count for worker, count in zip(workers, before, strict=True)]
    for connection in connections:
        connection.close()
    assert sum(taken) == 8
    assert min(taken) >= 2


def test_workers_that_can_not_start_any_more_end_the_server(tmp_path):
    """No endless fork: after a few tries the master says why, once, and exits with 1."""
    running = start(tmp_path, "--workers", "1")
    (tmp_path / "record.git").rename(tmp_path / "elsewhere.git")

    os.kill(running.workers()[0], signal.SIGKILL)

    assert running.process.wait(PATIENCE) == 1
    running.process.stdout.close()
    last = running.log.read_text().splitlines()[-1]
    assert last.startswith("git-fhir: ")
    assert str(tmp_path / "record.git") in last


def test_of_parallel_updates_over_processes_one_gets_through(own_server):
    """7.8: 50 PUTs with one If-Match through two workers: one 200, 49 times 412."""
    own_server.request("PUT", "/fhir/Patient/example", PATIENT)

    def update(_):
        connection = own_server.connect()
        connection.request("PUT", "/fhir/Patient/example", PATIENT, {**JSON, "If-Match": 'W/"1"'})
        status = connection.getresponse().status
        connection.close()
        return status

    with ThreadPoolExecutor(16) as threads:
        statuses = sorted(threads.map(update, range(50)))

    assert statuses == [200] + [412] * 49
    _, headers, _ = own_server.request("GET", "/fhir/Patient/example")
    assert headers["ETag"] == 'W/"2"'


def test_sigint_stops_it_too(own_server):
    own_server.process.send_signal(signal.SIGINT)

    assert own_server.process.wait(PATIENCE) == 0


def refusal(home: Path, *arguments: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "api", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(home),
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_nobody_is_answered_without_credentials_unless_that_is_meant(tmp_path):
    """It is right by default, on whatever address."""
    running = start(tmp_path, "--workers", "1", anonymous=False)
    try:
        status, headers, _ = running.request("GET", "/fhir/Patient")
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="git-fhir"')
        assert running.request("GET", "/fhir/metadata")[0] == 200
    finally:
        assert stop(running) == 0


def test_what_is_no_record_is_refused_with_one_line(tmp_path):
    (tmp_path / "empty").mkdir()

    code, out, err = refusal(
        tmp_path, tmp_path / "empty", "--allow-anonymous", "--port", "0", "--workers", "3"
    )

    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1, err


def test_a_setting_that_makes_no_sense_is_refused_with_one_line(tmp_path):
    init(tmp_path / "record.git")
    subprocess.run(["git", "-C", tmp_path / "record.git", "config", "fhir.maxBody", "much"], check=True)

    code, out, err = refusal(tmp_path, tmp_path / "record.git", "--allow-anonymous", "--port", "0")

    assert (code, out) == (1, "")
    assert "fhir.maxBody" in err
    assert len(err.splitlines()) == 1, err


def test_a_port_in_use_is_refused_with_one_line(tmp_path):
    init(tmp_path / "record.git")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = refusal(tmp_path, tmp_path / "record.git", "--port", taken.getsockname()[1])

    assert code == 1
    assert len(err.splitlines()) == 1, err
