"""Durable commits a second of the store beside its baselines, in one run: `make bench`.

Every contestant writes the same bodies and makes each write, or each group of writes, durable. The rounds are interleaved
and the table gives medians, so that a machine whose speed drifts shifts all of them together: read the ratios.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from gitstore import Author, Settings, Store, Unit, Update, init
from gitstore.fhir.ids import ResourceId
from gitstore.git import layout

AUTHOR = Author("Ada Lovelace", "ada@clinic.example")
GROUP = 32

Contestant = Callable[[float], int]
"""Writes for so many seconds, and says how many writes became durable."""


def resource(number: int) -> dict[str, Any]:
    """An Observation of about 1.4 KB as the store prints it, different for each number."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    coding = {"system": "http://loinc.org", "code": "8480-6", "display": "Systolic blood pressure"}
    quantity = {
        "value": number % 200,
        "unit": "mmHg",
        "system": "http://unitsofmeasure.org",
        "code": "mm[Hg]",
    }
    return {
        "resourceType": "Observation",
        "id": f"o-{number % 1000}",
        "status": "final",
        "category": [{"coding": [{"code": "vital-signs", "display": "Vital Signs"}]}],
        "code": {"coding": [coding], "text": "Systolic blood pressure"},
        "subject": {"reference": f"Patient/{digest[:36]}", "display": "A patient of the clinic"},
        "effectiveDateTime": "2026-11-21T22:30:00Z",
        "performer": [{"reference": f"Practitioner/{digest[36:60]}"}],
        "note": [{"text": digest * 4}],
        "valueQuantity": quantity,
    }


def update(number: int) -> Update:
    body = resource(number)
    return Update(ResourceId("Observation", body["id"]), body)


def clients(count: int, write: Callable[[int], None]) -> Contestant:
    """So many threads that each write one number after the other, and wait for each."""

    def run(seconds: float) -> int:
        counts = [0] * count
        end = time.perf_counter() + seconds

        def client(which: int) -> None:
            while time.perf_counter() < end:
                numbers[which] += count
                write(numbers[which])
                counts[which] += 1

        threads = [threading.Thread(target=client, args=(which,)) for which in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts)

    numbers = list(range(count))
    return run


Body = tuple[int, bytes]


@contextmanager
def grouped(write_group: Callable[[list[Body]], None]) -> Iterator[Callable[[int], None]]:
    """Group commit for a baseline: one thread writes all that its clients have handed in, as the store does it."""
    waiting: queue.SimpleQueue[tuple[Body, threading.Lock] | None] = queue.SimpleQueue()

    def lead() -> None:
        while (first := waiting.get()) is not None:
            group = [first]
            while len(group) < GROUP and not waiting.empty() and (one := waiting.get()) is not None:
                group.append(one)
            write_group([body for body, _ in group])
            for _, done in group:
                done.release()

    def write(number: int) -> None:
        done = threading.Lock()
        done.acquire()
        waiting.put(((number, printed(number)), done))
        done.acquire()

    thread = threading.Thread(target=lead)
    thread.start()
    try:
        yield write
    finally:
        waiting.put(None)
        thread.join()


def printed(number: int) -> bytes:
    return msgspec.json.format(msgspec.json.encode(resource(number)), indent=2)


@contextmanager
def git_fhir(folder: Path, count: int) -> Iterator[Contestant]:
    """The store, validation off, with so many clients."""
    with Store.open(init(folder / "record.git"), Settings(validation="off", search="off")) as store:
        store.commit_each([Unit([update(number)], AUTHOR) for number in range(1000)])
        yield clients(count, lambda number: store.commit([update(number)], AUTHOR) and None)


@contextmanager
def fast_import(folder: Path, count: int) -> Iterator[Contestant]:
    """`git fast-import`, a `checkpoint` for each group of commits, with core.fsync = all."""
    git_dir = folder / "fast.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(git_dir)], check=True)
    fsync = ["-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync"]
    command = ["git", "-C", str(git_dir), *fsync, "fast-import", "--quiet"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def write_group(group: list[Body]) -> None:
        for number, body in group:
            path = layout.path(ResourceId("Observation", f"o-{number % 1000}"))
            head = f"commit refs/heads/main\ncommitter A <a@b> {number} +0000\ndata 6\nupdate\n"
            stdin.write(f"{head}M 100644 inline {path}\ndata {len(body)}\n".encode() + body + b"\n")
        # The answer to `progress` says that the checkpoint before it is on disk.
        stdin.write(b"checkpoint\n\nprogress done\n")
        stdin.flush()
        stdout.readline()

    try:
        with grouped(write_group) as write:
            yield clients(count, write)
    finally:
        stdin.close()
        process.wait()
        stdout.close()


@contextmanager
def sqlite_full(folder: Path, count: int) -> Iterator[Contestant]:
    """The same bodies in SQLite, WAL and synchronous=FULL: a current and a history table, a transaction for each group."""
    connection = sqlite3.connect(folder / "peer.sqlite", isolation_level=None, check_same_thread=False)
    connection.executescript(
        """PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
        CREATE TABLE current (type TEXT, id TEXT, version INTEGER, body BLOB, PRIMARY KEY (type, id)) WITHOUT ROWID;
        CREATE TABLE history (type TEXT, id TEXT, version INTEGER, body BLOB, PRIMARY KEY (type, id, version));"""
    )

    def write_group(group: list[Body]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for number, body in group:
            id = f"o-{number % 1000}"
            row = connection.execute(
                "SELECT version FROM current WHERE type = 'Observation' AND id = ?", (id,)
            ).fetchone()
            version = row[0] + 1 if row else 1
            connection.execute("REPLACE INTO current VALUES ('Observation', ?, ?, ?)", (id, version, body))
            connection.execute("INSERT INTO history VALUES ('Observation', ?, ?, ?)", (id, version, body))
        connection.execute("COMMIT")

    try:
        with grouped(write_group) as write:
            yield clients(count, write)
    finally:
        connection.close()


@contextmanager
def fsync_floor(folder: Path, count: int) -> Iterator[Contestant]:
    """Appending the same bodies to a file, one fsync for each group: what the disk allows."""
    with (folder / "floor").open("ab", buffering=0) as file:

        def write_group(group: list[Body]) -> None:
            file.write(b"".join(body for _, body in group))
            os.fsync(file.fileno())

        with grouped(write_group) as write:
            yield clients(count, write)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each contestant in each round")
    parser.add_argument("--json", action="store_true", help="all rounds, for programs")
    parser.add_argument("--folder", help="where to write; a temporary folder beside this checkout otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(
        dir=arguments.folder or Path(__file__).parent.parent, prefix=".bench-"
    ) as folder:
        results = measure(Path(folder), arguments.rounds, arguments.seconds)
    print(json.dumps(results, indent=2) if arguments.json else table(results))


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Durable writes a second, by contestant and round."""
    contestants = {
        f"{name}, {count} client{'s' if count > 1 else ''}": contestant(_new(folder), count)
        for count in (1, GROUP)
        for name, contestant in (
            ("git-fhir", git_fhir),
            ("git fast-import + checkpoint", fast_import),
            ("SQLite FULL", sqlite_full),
            ("fsync floor", fsync_floor),
        )
    }
    results: dict[str, list[float]] = {name: [] for name in contestants}
    with ExitStack() as stack:
        runs = {name: stack.enter_context(contestant) for name, contestant in contestants.items()}
        for round in range(rounds + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                done = run(seconds)
                if round:  # the first is a warm-up
                    results[name].append(done / (time.perf_counter() - start))
    return results


def _new(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def table(results: dict[str, list[float]]) -> str:
    """A Markdown table of medians, with the ratio of git-fhir to each other contestant of its kind."""
    medians = {name: statistics.median(rates) for name, rates in results.items()}
    lines = ["| durable writes/s | median | lowest | highest | git-fhir is |", "|---|---|---|---|---|"]
    ours = 1.0
    for name, rates in results.items():
        if name.startswith("git-fhir"):
            ours, ratio = medians[name], ""
        else:
            ratio = f"{ours / medians[name]:.2f} x"
        lines.append(f"| {name} | {medians[name]:,.0f} | {min(rates):,.0f} | {max(rates):,.0f} | {ratio} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
