"""What must hold after a soak: what was answered is true, what was refused had its reason, nothing grew or was lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.soak_clients import Broken, Ledger, Refused
from benchmarks.soak_resources import MARK, TRIPLE, TYPES
from benchmarks.soak_server import Use
from gitstore import Settings, Store

SHOWN = 20
"""Faults of one kind that the report has in full."""

GRACE = 2.0
"""Seconds for which a disk may count as full after it has been emptied: a request may have begun before."""

LONG = 300.0
"""Seconds that a worker must have lived for its last third to be judged by how flat it is; others are still warming up."""

FLAT_HEAP, WARMING_HEAP = 24 * 1024, 128 * 1024
"""KiB that a worker may grow by in its last third. Its caches have bounds, and at some 100 requests a second they take more than
a quarter of an hour to fill.
"""

FLAT_DESCRIPTORS, WARMING_DESCRIPTORS = 12, 96


@dataclass
class Weather:
    """What was done to the server, and when, in seconds of the monotonic clock."""

    kills: list[tuple[float, float]] = field(default_factory=list)
    """Each with the times before, and when the worker was dead."""

    hang_ups: list[float] = field(default_factory=list)
    full: list[list[float]] = field(default_factory=list)
    """Each time for which the disk was full: when there was too little for writes, when nothing, and when there was room."""

    maintained: list[int] = field(default_factory=list)
    """Exit codes of `git fhir maintain`."""

    def was_full(self, begun: float, ended: float, *, to_the_brim: bool = False) -> bool:
        """Whether the disk was full at some time of a request, or so full that not even the access journal had room."""
        return any(
            begun <= room + GRACE and ended >= (brim if to_the_brim else little)
            for little, brim, room in self.full
        )


def excused(refused: Refused, weather: Weather) -> bool:
    """Whether the answer is one that docs/operations.md announces for what was going on."""
    if refused.status == 503 and refused.retry_after is not None:
        return True
    is_of_full_disk = refused.status == 507 or (refused.status == 500 and "did not confirm" in refused.text)
    is_read = refused.text.startswith("GET ")
    return is_of_full_disk and weather.was_full(refused.begun, refused.ended, to_the_brim=is_read)


def faults_of_answers(ledgers: Sequence[Ledger], weather: Weather) -> Iterator[str]:
    """What clients saw that no disturbance explains."""
    for ledger in ledgers:
        yield from ledger.faults
        for refused in ledger.refused:
            if not excused(refused, weather):
                yield f"{refused.kind}: unexpected {refused.status}: {refused.text}"
        for broken in ledger.broken:
            if not _was_killed(broken, weather):
                yield f"{broken.kind}: the connection broke, and nobody was killed: {broken.text}; {_around(broken, weather)}"


def _around(broken: Broken, weather: Weather) -> str:
    """What had been done before it was seen, for who looks for the reason."""
    said = [f"sound {broken.seen - broken.sound:.3f} s before"]
    for name, times in (("kill", [after for _, after in weather.kills]), ("SIGHUP", weather.hang_ups)):
        earlier = [time for time in times if time <= broken.seen]
        if earlier:
            said.append(f"{name} {broken.seen - max(earlier):.3f} s before")
    return ", ".join(said)


def _was_killed(broken: Broken, weather: Weather) -> bool:
    return any(broken.sound <= after and before <= broken.seen for before, after in weather.kills)


def faults_of_record(record: str, ledgers: Sequence[Ledger]) -> Iterator[str]:
    """Acknowledged writes that aren't there, refused ones that are, and what is half there or twice."""
    made: dict[tuple[str, int], str | None] = {}
    commits: dict[str, list[str]] = {}
    with Store.open(record, Settings(maintenance="off")) as store:
        snapshot = store.snapshot()
        for type in TYPES:
            for version in snapshot.history(type, count=10**9).versions:
                mark = None
                if version.blob is not None and (found := MARK.search(snapshot.body(version))):
                    mark = found[1].decode()
                    commits.setdefault(mark, []).append(version.commit.id)
                made[str(version.resource_id), version.version_id] = mark
    triples = {mark for ledger in ledgers for mark in ledger.triples}
    for ledger in ledgers:
        for resource, number, mark in ledger.acknowledged:
            if (resource, number) not in made:
                yield f"{resource}, version {number}, was acknowledged ({mark}) and is not there"
            elif made[resource, number] != mark:
                yield f"{resource}, version {number}, should be {mark} and is {made[resource, number]}"
        for mark in ledger.undone & commits.keys():
            yield f"the write {mark} was refused, and is there all the same"
    for mark, ids in commits.items():
        if len(ids) != (len(TRIPLE) if mark in triples else 1) or len(set(ids)) != 1:
            yield f"{mark} is in {len(ids)} versions of {len(set(ids))} commits"


@dataclass
class Verified:
    """What `git fhir verify` and `git fsck` say. `torn` are lines of the access journal that a kill has cut short."""

    torn: list[str]
    findings: list[str]
    fsck: str


def verified(record: str) -> Verified:
    command = [sys.executable, "-P", "-m", "cli", "-C", record, "verify", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    texts = [f"{each['kind']}: {each['where']}: {each['text']}" for each in found]
    torn = [text for text in texts if text.startswith("journal:") and "it was torn by a crash" in text]
    others = [text for text in texts if text not in torn]
    if done.returncode != bool(found):
        others.append(f"verify ended with {done.returncode}: {done.stderr[-500:]}")
    fsck = ["git", "-C", record, "fsck", "--full", "--strict", "--no-dangling"]
    checked = subprocess.run(fsck, capture_output=True, text=True, check=False)
    return Verified(torn, others, f"{checked.stdout}{checked.stderr}".strip() if checked.returncode else "")


# What it used


@dataclass
class Growth:
    """Of one process: how long it was watched, and by how much it grew in the last third of that, along a straight line."""

    pid: int
    seconds: float
    rss: float
    heap: float
    descriptors: float
    most_rss: int
    most_descriptors: int

    def faults(self, name: str) -> Iterator[str]:
        is_warm = self.seconds >= LONG
        if self.heap > (FLAT_HEAP if is_warm else WARMING_HEAP):
            yield f"{name} has grown by {self.heap / 1024:.1f} MiB in the last third of {self.seconds:.0f} s"
        if self.descriptors > (FLAT_DESCRIPTORS if is_warm else WARMING_DESCRIPTORS):
            yield f"{name} has {self.descriptors:.0f} more descriptors after the last third of {self.seconds:.0f} s"


def growth(uses: Sequence[Use]) -> Growth:
    """Of the samples of one process."""
    seconds = uses[-1].at - uses[0].at
    last = [use for use in uses if use.at >= uses[-1].at - seconds / 3]
    times = [use.at for use in last]
    return Growth(
        uses[0].pid,
        seconds,
        _rise(times, [use.rss for use in last]),
        _rise(times, [use.heap for use in last]),
        _rise(times, [use.descriptors for use in last]),
        max(use.rss for use in uses),
        max(use.descriptors for use in uses),
    )


def _rise(times: Sequence[float], values: Sequence[float]) -> float:
    """By how much the line of least squares rises from the first to the last time."""
    mean_time, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((time - mean_time) ** 2 for time in times)
    if not spread:
        return 0.0
    slope = (
        sum((time - mean_time) * (value - mean) for time, value in zip(times, values, strict=True)) / spread
    )
    return slope * (times[-1] - times[0])


# What it counted


def scraped(port: int, secret: str) -> dict[str, float]:
    """The sum of each counter over its labels, from /metrics; requests also by status."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {secret}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - it is http
        text = answer.read().decode()
    sums: defaultdict[str, float] = defaultdict(float)
    for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
        sums[name] += float(value)
        if status := re.search(r'status="(\d+)"', labels):
            sums[f"{name} {status[1]}"] += float(value)
    return dict(sums)


def faults_of_metrics(sums: dict[str, float], ledgers: Sequence[Ledger], commits: int) -> Iterator[str]:
    """Where the server counted otherwise than its clients. `commits` is how many the record has got."""
    answered = sum(sum(ledger.statuses.values()) for ledger in ledgers)
    lost = sum(len(ledger.broken) for ledger in ledgers)
    counted = sums.get("git_fhir_requests_total", 0)
    # Those who drip are counted, too; of what a killed worker had under way nobody knows whether it was.
    if not answered - lost <= counted <= answered * 1.02 + lost + 50:
        yield f"{counted:.0f} requests were counted, and {answered} answered to clients; {lost} connections broke"
    committed = sums.get("git_fhir_commits_total", 0)
    if not commits - lost <= committed <= commits:
        yield f"{committed:.0f} commits were counted, and {commits} made"
    for status in (200, 201, 204, 412):
        seen = sum(n for ledger in ledgers for (_, code), n in ledger.statuses.items() if code == status)
        found = sums.get(f"git_fhir_requests_total {status}", 0)
        if not seen - lost <= found <= seen * 1.02 + lost + 50:
            yield f"{found:.0f} answers {status} were counted, and clients saw {seen}"


def errors_in_log(log: Path) -> Counter[str]:
    """What the server's log says of warnings and errors: the beginning of each message, and how often."""
    found: Counter[str] = Counter()
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            if '"level":' not in line:
                found[f"no line of the log: {line[:80].strip()}"] += 1
            elif '"info"' not in line[:120]:
                entry: dict[str, Any] = json.loads(line)
                found[re.sub(r"[0-9a-f]{8,}|\d+", "#", entry["message"])[:100]] += 1
    return found
