"""Many processes and threads at the same few resources, in through HTTP, the store and the CLI: one order explains it all.

The documented run, with 8 processes of 8 threads over HTTP:
`GIT_FHIR_CLIENTS=8 GIT_FHIR_TURNS=400 pytest -s tests/test_linearizable.py`
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import checker
import linearizable_client as client

from gitstore import Snapshot, Store

CLIENTS = int(os.environ.get("GIT_FHIR_CLIENTS", "3"))
"""How many processes, and how many threads each of them has."""
TURNS = int(os.environ.get("GIT_FHIR_TURNS", "30"))
"""How many each thread has: see linearizable_client."""
RESOURCES = 2 * CLIENTS
SCRIPT = Path(__file__).with_name("linearizable_client.py")


def start(*arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@clinic.example"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def values(snapshot: Snapshot) -> dict[str, list[str]]:
    """The values of all versions of each resource, from version 1."""
    found: dict[str, list[str]] = {}
    for version in reversed(snapshot.history("Patient", count=10**6).versions):
        written = found.setdefault(str(version.resource_id), [])
        written.append(client.value_of(snapshot.body(version)))
        assert len(written) == version.version_id
    return found


def test_one_order_explains_what_all_clients_saw(record: str) -> None:
    """Versions and If-Match of each resource are linearizable, also while a worker is killed and settings are reloaded."""
    server = subprocess.Popen(
        [sys.executable, "-m", "api", record, "--allow-anonymous", "--port", "0", "--workers", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    port = server.stdout.readline().rsplit(":", 1)[1].removesuffix("/fhir\n")
    processes = [start("http", port, f"http{number}", CLIENTS, TURNS, RESOURCES) for number in range(CLIENTS)]
    processes.append(start("store", record, "store", CLIENTS, TURNS, RESOURCES))
    processes.append(start("import", record, "import", 1, max(2, TURNS // 15), RESOURCES))
    assert processes[0].stdout is not None
    assert processes[0].stdout.readline() == "half\n"
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii").split()
    os.kill(int(children[0]), signal.SIGKILL)
    server.send_signal(signal.SIGHUP)
    answers = [process.communicate()[0].splitlines()[-1] for process in processes]
    server.terminate()
    assert server.wait(60) == 0
    server.stdout.close()

    assert [process.returncode for process in processes] == [0] * len(processes)
    operations = [checker.Operation(**one) for answer in answers for one in json.loads(answer)]
    with Store.open(record) as store:
        made = values(store.snapshot())
        assert checker.faults(operations, made) == []
        assert list(store.verify()) == []
    check_that_something_was_tried(operations, made)


def check_that_something_was_tried(operations: list[Any], made: dict[str, list[str]]) -> None:
    kinds = Counter((one.kind, one.if_match is not None, one.outcome) for one in operations)
    print(f"{len(operations)} operations, {sum(map(len, made.values()))} versions: {dict(kinds)}")
    assert {
        ("read", False, "ok"),
        ("write", False, "ok"),
        ("write", True, "fail"),
        ("write", True, "ok"),
    } <= set(kinds)
