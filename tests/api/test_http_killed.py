"""kill -9 of workers and masters while clients write: what was answered is there, and nothing is half there."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from gitstore import Store
from gitstore.fhir.ids import ResourceId, VersionId

KILLS = int(os.environ.get("GIT_FHIR_KILLS", "6"))
MASTERS = 4
"""Each fourth kill is that of a master."""
CLIENTS = 16
TYPES = ("Patient", "Practitioner", "Location")


class Client(threading.Thread):
    """Writes version after version of its own resources; keeps what was answered with success."""

    def __init__(
        self, number: int, server: Server, running: threading.Event, answered: threading.Semaphore
    ) -> None:
        super().__init__()
        self.number = number
        self.server = server
        self.running = running
        self.answered = answered
        self.acknowledged: list[tuple[str, str, int, str]] = []
        """Type, id, version and the language that says which write it was."""
        self.failures: list[tuple[int, bytes]] = []

    def run(self) -> None:
        turn = 0
        while self.running.is_set():
            turn += 1
            try:
                self.write(f"t-{self.number}-{turn}")
            except (OSError, http.client.HTTPException):
                continue  # the worker died: the outcome is unknown, as it is for any client

    def write(self, mark: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            if self.number % 4 == 0:
                self.transaction(connection, mark)
            else:
                self.update(connection, mark)
        finally:
            connection.close()

    def update(self, connection: http.client.HTTPConnection, mark: str) -> None:
        body = {"resourceType": "Patient", "id": f"one-{self.number}", "language": mark}
        status, answer = self.send(connection, "PUT", f"/fhir/Patient/one-{self.number}", body)
        if status in (200, 201):
            self.acknowledge("Patient", f"one-{self.number}", answer["meta"]["versionId"], mark)

    def transaction(self, connection: http.client.HTTPConnection, mark: str) -> None:
        id = f"three-{self.number}"
        entries = [
            {
                "resource": {"resourceType": type, "id": id, "language": mark},
                "request": {"method": "PUT", "url": f"{type}/{id}"},
            }
            for type in TYPES
        ]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        status, answer = self.send(connection, "POST", "/fhir", bundle)
        if status == 200:
            for type, entry in zip(TYPES, answer["entry"], strict=True):
                self.acknowledge(type, id, re.sub(r"\D", "", entry["response"]["etag"]), mark)

    def send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any]
    ) -> tuple[int, Any]:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/fhir+json"})
        response = connection.getresponse()
        content = response.read()
        if response.status >= 300:
            self.failures.append((response.status, content))
        return response.status, json.loads(content)

    def acknowledge(self, type: str, id: str, version: str, mark: str) -> None:
        self.acknowledged.append((type, id, int(version), mark))
        self.answered.release()


class Server:
    """`python -m api` with two workers, and after the death of its master another one."""

    def __init__(self, record: str) -> None:
        self.record = record
        self.start()

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "api",
            self.record,
            "--allow-anonymous",
            "--port",
            "0",
            "--workers",
            "2",
        ]
        self.master = subprocess.Popen(
            [*command, "--threads", "16"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.master.stdout is not None
        self.port = int(self.master.stdout.readline().rsplit(":", 1)[1].removesuffix("/fhir\n"))

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children").read_text(
            encoding="ascii"
        )
        return [int(pid) for pid in children.split()]

    def kill_master(self) -> None:
        """Another server begins at once, beside the workers that end by themselves, as nothing else could end them."""
        orphans = []
        for pid in self.workers():
            # A worker that was killed just before may be gone by now.
            with suppress(ProcessLookupError):
                orphans.append(os.pidfd_open(pid))
        self.master.kill()
        self.close()
        self.start()
        for orphan in orphans:
            ended = select.poll()
            ended.register(orphan, select.POLLIN)
            assert ended.poll(60_000), "a worker outlives its master"
            os.close(orphan)

    def stop(self) -> int:
        self.master.terminate()
        return self.close()

    def close(self) -> int:
        assert self.master.stdout is not None
        self.master.stdout.close()
        return self.master.wait(60)


def test_kills_lose_nothing_that_was_answered(record: str) -> None:
    """A dead worker is replaced, a dead master takes its workers along and another server starts; each answered write is there."""
    server = Server(record)
    running, answered = threading.Event(), threading.Semaphore(0)
    running.set()
    clients = [Client(number, server, running, answered) for number in range(CLIENTS)]
    chance = random.Random(20260101)
    for client in clients:
        client.start()
    try:
        for kill in range(KILLS):
            for _ in range(chance.randint(5, 150)):
                assert answered.acquire(timeout=60), "no write was answered for a minute"
            if kill % MASTERS == MASTERS - 1:
                server.kill_master()
            else:
                for worker in chance.sample(server.workers(), k=1):
                    os.kill(worker, signal.SIGKILL)
    finally:
        running.clear()
        for client in clients:
            client.join()
        assert server.stop() == 0
    check_record(record, clients)


def check_record(record: str, clients: list[Client]) -> None:
    assert [failure for client in clients for failure in client.failures] == []
    fsck = ["git", "-C", record, "fsck", "--full", "--strict", "--no-dangling"]
    result = subprocess.run(fsck, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    with Store.open(record) as store:
        snapshot = store.snapshot()
        for client in clients:
            for type, id, version, mark in client.acknowledged:
                body = snapshot.body(snapshot.vread(ResourceId(type, id), VersionId(version)))
                assert f'"language": "{mark}"'.encode() in body
        commits = Counter(
            (version.resource_id.id, version.commit.id)
            for type in TYPES
            for version in snapshot.history(type, count=10**6).versions
            if version.resource_id.id.startswith("three-")
        )
        assert set(commits.values()) == {len(TYPES)}, "a transaction is half there"
        assert list(store.verify()) == []
