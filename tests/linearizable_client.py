"""Threads of one process that read and write a few resources through one way in, and note what they saw.

    python linearizable_client.py http PORT NAME THREADS COUNT RESOURCES
    python linearizable_client.py store GIT_DIR NAME THREADS COUNT RESOURCES
    python linearizable_client.py import GIT_DIR NAME THREADS COUNT RESOURCES

Each thread does COUNT turns: a read, a write, or a read and then a write with If-Match. The first line on stdout is `half`, when a thread has done half of it; the second
is a JSON list of all, as `checker.Operation` has them. The clock is CLOCK_MONOTONIC, one for all processes of a machine.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from gitstore import Author, NotFound, Store, Update, VersionMismatch
from gitstore.fhir.ids import ResourceId

AUTHOR = Author("Grace", "grace@clinic.example")
Answer = tuple[str, int | None, str | None]
"""Outcome, version and value; the outcome `nothing` is for what surely has not happened and tells nothing."""


class HttpClient:
    """A connection for as long as the server keeps it."""

    def __init__(self, port: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)

    def read(self, id: str) -> Answer:
        status, content = self._send("GET", id)
        if status == 404:
            return "ok", 0, None
        if status != 200:
            return "nothing", None, None
        resource = json.loads(content)
        return "ok", int(resource["meta"]["versionId"]), resource["language"]

    def write(self, id: str, value: str, if_match: int | None) -> Answer:
        headers = {"Content-Type": "application/fhir+json"}
        if if_match is not None:
            headers["If-Match"] = f'W/"{if_match}"'
        status, content = self._send("PUT", id, json.dumps(patient(id, value)), headers)
        if status in (200, 201):
            return "ok", int(json.loads(content)["meta"]["versionId"]), value
        return ("fail" if status == 412 else "nothing"), None, value

    def _send(self, method: str, id: str, body: str | None = None, headers: Any = None) -> tuple[int, bytes]:
        try:
            self._connection.request(method, f"/fhir/Patient/{id}", body, headers or {})
            response = self._connection.getresponse()
            return response.status, response.read()
        except ConnectionRefusedError:
            return 503, b""
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unknown from error


class StoreClient:
    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, id: str) -> Answer:
        snapshot = self._store.snapshot()
        try:
            version = snapshot.read(ResourceId("Patient", id))
        except NotFound:
            return "ok", 0, None
        return "ok", version.version_id, value_of(snapshot.body(version))

    def write(self, id: str, value: str, if_match: int | None) -> Answer:
        tags = None if if_match is None else frozenset([str(if_match)])
        try:
            [outcome] = self._store.commit(
                [Update(ResourceId("Patient", id), patient(id, value), if_match=tags)], AUTHOR
            )
        except VersionMismatch:
            return "fail", None, value
        assert outcome.version is not None
        return "ok", outcome.version.version_id, value


class Unknown(Exception):
    """The connection broke before the answer was there."""


def patient(id: str, value: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, "language": value}


def value_of(body: bytes) -> str:
    match = re.search(rb'"language": "(.*)"', body)
    assert match is not None
    return match[1].decode()


class Worker(threading.Thread):
    """One client: does one operation after the other."""

    def __init__(self, name: str, client: HttpClient | StoreClient, count: int, resources: int) -> None:
        super().__init__(name=name)
        self.client = client
        self.count = count
        self.resources = resources
        self.chance = random.Random(name)
        self.operations: list[dict[str, Any]] = []

    def run(self) -> None:
        for turn in range(self.count):
            if turn == self.count // 2 and self.name.endswith(".0"):
                print("half", flush=True)
            id = f"r{self.chance.randrange(self.resources)}"
            kind = self.chance.choice(["read", "write", "if-match"])
            seen = None if kind == "write" else self.read(id)
            if kind == "write":
                self.write(id, f"{self.name}-{turn}", None)
            elif kind == "if-match" and seen:
                self.write(id, f"{self.name}-{turn}", seen)

    def read(self, id: str) -> int | None:
        """The version that was seen; None where the outcome is unknown."""
        begun = time.monotonic_ns()
        try:
            answer = self.client.read(id)
        except Unknown:
            return None
        self.note(note("read", id, begun, answer))
        return answer[1]

    def write(self, id: str, value: str, if_match: int | None) -> None:
        begun = time.monotonic_ns()
        try:
            answer = self.client.write(id, value, if_match)
        except Unknown:
            answer = ("unknown", None, value)
        self.note(note("write", id, begun, answer, if_match))

    def note(self, operation: dict[str, Any] | None) -> None:
        if operation is not None:
            self.operations.append(operation)


def note(
    kind: str, id: str, begun: int, answer: Answer, if_match: int | None = None
) -> dict[str, Any] | None:
    """An operation that ends now, as `checker.Operation` has it; None where it says nothing."""
    outcome, version, value = answer
    if outcome == "nothing":
        return None
    return {
        "kind": kind,
        "resource": f"Patient/{id}",
        "invoked": begun,
        "completed": time.monotonic_ns(),
        "outcome": outcome,
        "value": value,
        "version": version,
        "if_match": if_match,
    }


def imports(git_dir: str, name: str, count: int, resources: int) -> list[dict[str, Any]]:
    """`git fhir import`, again and again: each line of its input is a write whose version it isn't told."""
    operations = []
    command = [sys.executable, "-P", "-m", "cli", "-C", git_dir, "import", "--json", "-"]
    for turn in range(count):
        if turn == count // 2:
            print("half", flush=True)
        values = {f"r{number}": f"{name}-{turn}-{number}" for number in range(resources)}
        lines = "".join(json.dumps(patient(*each)) + "\n" for each in values.items())
        begun = time.monotonic_ns()
        done = subprocess.run(command, input=lines, text=True, capture_output=True, check=True)
        report = json.loads(done.stdout)
        assert report["created"] + report["updated"] == resources, report
        for id, value in values.items():
            operations.append(note("write", id, begun, ("ok", None, value)))
    return [one for one in operations if one is not None]


def workers(
    make: Callable[[], HttpClient | StoreClient], name: str, threads: int, count: int, resources: int
) -> Any:
    clients = [Worker(f"{name}.{number}", make(), count, resources) for number in range(threads)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return [operation for client in clients for operation in client.operations]


def main() -> None:
    kind, where, name = sys.argv[1:4]
    threads, count, resources = map(int, sys.argv[4:7])
    if kind == "import":
        found = imports(where, name, count, resources)
    elif kind == "store":
        with Store.open(where) as store:
            found = workers(lambda: StoreClient(store), name, threads, count, resources)
    else:
        found = workers(lambda: HttpClient(where), name, threads, count, resources)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
