"""A server under full load while everything goes wrong around it: `python -m benchmarks.soak --minutes 30`.

Two workers, with authentication, access journal, full validation, and a disk of their own. Clients of all kinds ask without a pause; meanwhile workers
are killed, settings are read anew, the disk gets full, slow clients hang on, packs are merged. At the end everything that was answered is looked
up, and the record is verified. Exits with 1 where anything is found. docs/performance.md, "Soak"
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import soak_checks as checks
from benchmarks import soak_report as report
from benchmarks.soak_clients import Client
from benchmarks.soak_resources import SCOPED, SHARED, patient
from benchmarks.soak_server import MIB, Disk, Server, Use, best_disk, disk, namespace, run
from benchmarks.soak_slow import Dripper
from gitstore import Author, Store, Tokens, Update
from gitstore.fhir.ids import ResourceId
from sample_repo.build import build_once

KILL_EVERY = 20.0
"""Seconds."""

LITTLE_LEFT = 8 * MIB
"""Bytes with which writes are refused, and reads are not: there is room for the access journal."""

BAD = ("unexpected", "worker failed", "Exception", "no line of the log")
"""How messages of the log begin that nothing excuses."""

LONGEST_FULL = 20.0
"""Seconds that the disk stays full beyond its time until somebody has noticed."""

AUTHOR = Author("Ada Lovelace", "ada@clinic.example")
SCOPES = {
    "ada": "user/*.cruds git-fhir/history",
    "grace": "user/*.cruds git-fhir/history",
    "edsger": "system/*.cruds git-fhir/history",
    "monitor": "git-fhir/metrics",
}


class Event(NamedTuple):
    """Something that is done to the server, `at` so many seconds after the beginning."""

    at: float
    what: str


def timetable(seconds: float, *, fills: bool) -> list[Event]:
    """What happens when. From half time on no settings are read anew, so that the elder worker lives and can be watched."""
    every = min(KILL_EVERY, seconds / 4)
    found = [Event(every * number, "kill") for number in range(1, int((seconds - 2) / every) + 1)]
    found += [
        Event(seconds * part, "hang up") for part in ((0.1, 0.2, 0.33, 0.45) if seconds >= 60 else (0.3,))
    ]
    found += [Event(at, "maintain") for at in range(20, int(seconds), 60)] or [
        Event(seconds * 0.4, "maintain")
    ]
    lasts = min(30.0, seconds / 5)
    for part in ((0.25, 0.55, 0.8) if seconds >= 300 else (0.5,)) if fills else ():
        begin, brim = seconds * part, seconds * part + lasts / 2
        found += [
            Event(begin, "fill"),
            Event(brim, "fill up"),
            Event(brim + 0.5, "kill"),
            Event(begin + lasts, "empty"),
        ]
    return sorted(found)


class Storm(threading.Thread):
    """Does to the server what the timetable says, and watches what it uses."""

    def __init__(
        self, server: Server, room: Disk, seconds: float, seed: int, is_felt: Callable[[], bool]
    ) -> None:
        """`is_felt` says whether a client has noticed that the disk was full."""
        super().__init__(name="storm")
        self._is_felt = is_felt
        self.weather = checks.Weather()
        self.uses: list[Use] = []
        self.fault: str | None = None
        self._server = server
        self._room = room
        self._seconds = seconds
        self._chance = random.Random(seed)
        self._maintaining: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        begun, looked = time.monotonic(), 0.0
        events = timetable(self._seconds, fills=self._room.kind != "none")
        while (passed := time.monotonic() - begun) < self._seconds:
            if self._server.master.poll() is not None:
                self.fault = f"the server ended with {self._server.master.returncode} after {passed:.0f} s"
                break
            while events and events[0].at <= passed:
                self._do(events.pop(0).what, late=passed > self._seconds / 2)
            if time.monotonic() - looked >= max(0.5, self._seconds / 400):
                looked = time.monotonic()
                self.uses += self._server.uses()
            time.sleep(0.05)
        self._room.empty()
        self.weather.maintained = [each.wait() for each in self._maintaining]

    def _do(self, what: str, *, late: bool) -> None:
        weather = self.weather
        match what:
            case "kill":
                workers = self._server.workers()
                if len(workers) > 1:
                    before = time.monotonic()
                    self._server.kill(workers[-1] if late else self._chance.choice(workers))
                    weather.kills.append((before, time.monotonic()))
            case "hang up":
                weather.hang_ups.append(time.monotonic())
                self._server.hang_up()
            case "maintain":
                command = [sys.executable, "-P", "-m", "cli", "-C", self._server.record, "maintain", "--json"]
                full = ["--full"] * (len(self._maintaining) % 5 == 4)
                self._maintaining.append(
                    subprocess.Popen([*command, *full], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                )
            case "empty":
                # In a short run on a busy machine no worker may have been there to say so.
                deadline = time.monotonic() + LONGEST_FULL
                while not self._is_felt() and time.monotonic() < deadline:
                    time.sleep(0.05)
                self._room.empty()
                weather.full[-1][2] = time.monotonic()
            case "fill":
                weather.full.append([time.monotonic(), *[float("inf")] * 2])
                self._room.fill(LITTLE_LEFT)
            case "fill up":
                weather.full[-1][1] = time.monotonic()
                self._room.fill(0)


# Before


def prepare(room: Disk) -> tuple[str, dict[str, str]]:
    """The sample clinic with the Patients that everybody knows; its git directory, and the tokens' secrets by name."""
    path = room.path / "record.git"
    build_once(path)
    record = str(path)
    for name, value in {"fhir.receiveTimeout": "5", "fhir.minFree": "16m"}.items():
        run("git", "-C", record, "config", name, value)
    with Store.open(record) as store:
        for number, id in enumerate((SCOPED, *SHARED)):
            store.commit([Update(ResourceId("Patient", id), patient(f"w0-{number}") | {"id": id})], AUTHOR)
    tokens, now = Tokens(record), time.time_ns() // 1000
    mail = "soak@clinic.example"
    secrets = {
        name: tokens.create(name=name, email=mail, scope=scope, now=now, expires=None)[0]
        for name, scope in SCOPES.items()
    }
    secrets["scoped"] = tokens.create(
        name="scoped", email=mail, scope="patient/*.cruds", now=now, expires=None, patient=SCOPED
    )[0]
    return record, secrets


# The run


@contextmanager
def asking(
    server: Server, secrets: dict[str, str], clients: int, seed: int
) -> Iterator[tuple[list[Client], list[Dripper]]]:
    """Clients at work; they end with the block."""
    running = threading.Event()
    running.set()
    people = ["ada", "grace", "edsger"]
    asked = [
        Client(number, server.port, secrets[people[number % 3]], secrets["scoped"], running, seed)
        for number in range(1, clients + 1)
    ]
    slow = [Dripper(kind, server.port, secrets["ada"], running) for kind in ("header", "body", "reader")]
    for thread in (*asked, *slow):
        thread.start()
    try:
        yield asked, slow
    finally:
        running.clear()
        for thread in (*asked, *slow):
            thread.join(120)


def soak(folder: Path, room: Disk, seconds: float, clients: int, seed: int) -> dict[str, Any]:
    """The report."""
    record, secrets = prepare(room)
    with Store.open(record) as store:
        before = store.snapshot().commit.sequence
    server = Server(record, folder)
    with asking(server, secrets, clients, seed) as (asked, slow):
        storm = Storm(server, room, seconds, seed, lambda: any(client.ledger.is_full for client in asked))
        storm.start()
        while storm.is_alive():
            storm.join(30)
            told(asked, storm)
        time.sleep(checks.GRACE)
    ledgers = [client.ledger for client in asked]
    faults = [storm.fault] if storm.fault else []
    faults += [f"{thread.name} hangs" for thread in (*asked, *slow) if thread.is_alive()]
    sums = {} if storm.fault else checks.scraped(server.port, secrets["monitor"])
    if (code := server.stop()) != 0:
        faults.append(f"the server ended with {code}")
    with Store.open(record) as store:
        commits = store.snapshot().commit.sequence - before
    faults += checks.faults_of_answers(ledgers, storm.weather)
    faults += checks.faults_of_record(record, ledgers)
    if sums:
        faults += checks.faults_of_metrics(sums, ledgers, commits)
    verified = checks.verified(record)
    faults += verified.findings
    faults += [f"fsck: {verified.fsck}"] if verified.fsck else []
    faults += report.faults_of_uses(storm.uses, server.master.pid)
    log = checks.errors_in_log(server.log)
    faults += [f"the log has {count} times: {text}" for text, count in log.items() if text.startswith(BAD)]
    return (
        {"seconds": seconds, "clients": clients, "disk": room.kind, "commits": commits}
        | report.of_answers(ledgers, storm.weather)
        | report.of_weather(storm.weather, {each.kind: each.ends for each in slow})
        | report.of_uses(storm.uses, server.master.pid)
        | {"log": dict(log.most_common()), "metrics": sums, "verify": asdict(verified), "faults": faults}
    )


def told(asked: Sequence[Client], storm: Storm) -> None:
    """How it goes, on standard error."""
    count = sum(len(seconds) for client in asked for seconds in list(client.ledger.seconds.values()))
    broken = sum(len(client.ledger.broken) for client in asked)
    faults = sum(len(client.ledger.faults) for client in asked)
    heaps = ", ".join(f"{use.heap // 1024}" for use in storm.uses[-3:])
    print(
        f"{time.strftime('%H:%M:%S')} {count} answers, {len(storm.weather.kills)} kills, {broken} broken connections,"
        f" {faults} faults; heaps, MiB: {heaps}",
        file=sys.stderr,
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--clients", type=int, default=16, help="that ask without a pause (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of what is done by chance (default: %(default)s)"
    )
    parser.add_argument(
        "--size", type=int, metavar="MIB", help="of the disk; by default as much as the minutes need"
    )
    parser.add_argument("--folder", type=Path, help="for the disk and the log; a temporary one otherwise")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where to write the report for programs, too"
    )
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.apart and (apart := namespace()):
        # What is mounted ends with this process, however it ends.
        command = [*apart, sys.executable, "-m", "benchmarks.soak", *sys.argv[1:], "--apart"]
        os.execvp(command[0], command)  # noqa: S606 - a shell is not wanted
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kind = best_disk(folder) if options.apart else "none"
        size = MIB * (options.size or int(512 + 250 * options.minutes))
        with disk(folder, kind, size) as room:
            found = soak(folder, room, 60 * options.minutes, options.clients, options.seed)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(report.text(found))
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()
