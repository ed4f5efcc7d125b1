"""kill -9 of processes that write: what was acknowledged is there, and nothing is half there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from gitstore import Store
from gitstore.fhir.ids import ResourceId, VersionId

SCRIPT = Path(__file__).with_name("killed_writer.py")
ROUNDS = int(os.environ.get("GIT_FHIR_KILLS", "6"))
"""The documented run is GIT_FHIR_KILLS=1000."""


def run_until_killed(git_dir: str, writers: int, kill_after: int) -> list[str]:
    """The acknowledgements of a process that is killed after so many of them: those that it got out before it died."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), git_dir, str(writers)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if len(lines) == kill_after:
            process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return lines


def check_acknowledged(store: Store, acknowledged: list[str]) -> None:
    snapshot = store.snapshot()
    for line in acknowledged:
        kind, _, rest = line.partition(" ")
        if not rest:
            continue
        key, number = rest.split()
        types = ("Patient", "Practitioner", "Location") if kind == "three" else ("Patient",)
        for type in types:
            version = snapshot.version(ResourceId(type, f"{kind}-{key}"), VersionId(int(number)))
            if not version.deleted:
                assert f'"language": "n-{number}"'.encode() in snapshot.body(version)


def check_whole_transactions(store: Store) -> None:
    snapshot = store.snapshot()
    for patient in snapshot.resources("Patient"):
        if patient.resource_id.id.startswith("three-"):
            for type in ("Practitioner", "Location"):
                other = snapshot.read(ResourceId(type, patient.resource_id.id))
                assert (other.version_id, other.commit) == (patient.version_id, patient.commit)


def test_a_killed_writer_loses_nothing_that_it_acknowledged(record: str) -> None:
    """After each kill -9: every acknowledged version, whole transactions, and plain git finds nothing wrong."""
    chance = random.Random(20260101)
    acknowledged: list[str] = []
    for _ in range(ROUNDS):
        acknowledged += run_until_killed(record, 16, kill_after=chance.randint(2, 400))
        fsck = subprocess.run(
            ["git", "-C", record, "fsck", "--full", "--strict", "--no-dangling"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (fsck.returncode, fsck.stderr) == (0, "")
        with Store.open(record) as store:
            check_acknowledged(store, acknowledged)
            check_whole_transactions(store)
            assert list(store.verify()) == []
    assert len(acknowledged) > ROUNDS
    assert not list(Path(record, "objects", "pack").glob("*.keep"))
    assert not list(Path(record, "refs", "heads").glob("*.lock"))


def test_several_processes_write_at_once_and_one_is_killed(record: str) -> None:
    """The lock of a dead process is free at once; the other goes on, and what it was told holds."""
    survivor = subprocess.Popen(
        [sys.executable, str(SCRIPT), record, "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert survivor.stdout is not None
    lines = [survivor.stdout.readline().strip() for _ in range(20)]
    # The other one writes to the same resources with If-Match, so each may be refused: it only has to die.
    other = subprocess.Popen(
        [sys.executable, str(SCRIPT), record, "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"ready\n"
    other.kill()
    other.wait()
    other.stdout.close()
    lines += [survivor.stdout.readline().strip() for _ in range(100)]
    survivor.kill()
    lines += [line.strip() for line in survivor.stdout]
    survivor.stdout.close()
    survivor.wait()
    with Store.open(record) as store:
        check_acknowledged(store, [line for line in lines if line.startswith("one")])
        check_whole_transactions(store)
        assert list(store.verify()) == []
