"""How the store's costs grow: with resources, with versions, with the disk's latency. `python -m benchmarks.scale`

Each row sets a cost beside the same cost in a small record, in one run and interleaved: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.store import AUTHOR, update
from gitstore import Settings, Store, Unit, Update, init
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git import writer

THROWAWAY = Settings(durability="off", validation="off", search="off")
DURABLE = Settings(validation="off", search="off")
BATCH = 1000


@dataclass(frozen=True)
class Row:
    what: str
    cost: float
    unit: str
    baseline: str
    ratio: float
    goal: str


def patient(number: int) -> Update:
    id = f"p-{number}"
    body = {"resourceType": "Patient", "id": id, "name": [{"family": f"Family {number}", "given": ["Ada"]}]}
    return Update(ResourceId("Patient", id), body)


def filled(folder: Path, resources: int) -> Store:
    """A record of so many patients, made by transactions and maintained since, and opened for durable writes."""
    git_dir = init(folder)
    with Store.open(git_dir, THROWAWAY) as store:
        for start in range(0, resources, BATCH):
            batch = [patient(number) for number in range(start, min(start + BATCH, resources))]
            store.commit(batch, AUTHOR, interaction="transaction")
        store.maintain()
    return Store.open(git_dir, DURABLE)


def interleaved(rounds: int, *actions: Callable[[int], object]) -> list[float]:
    """The median time of each action in microseconds; they take turns."""
    times: list[list[float]] = [[] for _ in actions]
    for round in range(rounds):
        for number, action in enumerate(actions):
            start = time.perf_counter()
            action(round)
            times[number].append((time.perf_counter() - start) * 1e6)
    return [statistics.median(one) for one in times]


def update_by_resources(folder: Path, resources: int) -> Row:
    """One durable update of a random resource, one client."""
    with filled(folder / "small", 1000) as small, filled(folder / "large", resources) as large:
        step = max(1, resources // 997)
        baseline, cost = interleaved(
            400,
            lambda n: small.commit([patient(n * 7 % 1000)], AUTHOR),
            lambda n: large.commit([patient(n * step % resources)], AUTHOR),
        )
    return Row(f"update at {resources:,} resources", cost, "us", "at 1,000", cost / baseline, "at most 1.5")


def long_history(folder: Path, versions: int) -> list[Row]:
    """A resource with many versions beside one with ten."""
    with Store.open(init(folder), THROWAWAY) as store:
        units = [Unit([patient(1)], AUTHOR) for _ in range(versions)] + [
            Unit([patient(2)], AUTHOR) for _ in range(10)
        ]
        for start in range(0, len(units), BATCH):
            store.commit_each(units[start : start + BATCH])
        many, few = ResourceId("Patient", "p-1"), ResourceId("Patient", "p-2")

        def page(id: ResourceId) -> None:
            snapshot = store.snapshot()
            for version in snapshot.history(id, count=10).versions:
                snapshot.body(version)

        def vread(id: ResourceId, number: int) -> None:
            snapshot = store.snapshot()
            snapshot.body(snapshot.vread(id, VersionId(number)))

        costs = {
            "history page of 10": interleaved(300, lambda _: page(few), lambda _: page(many)),
            "vread": interleaved(
                300, lambda n: vread(few, n % 10 + 1), lambda n: vread(many, n % (versions // 2) + 1)
            ),
            "update": interleaved(
                300,
                lambda _: store.commit([patient(2)], AUTHOR),
                lambda _: store.commit([patient(1)], AUTHOR),
            ),
        }
    return [
        Row(
            f"{what} of a resource with {versions:,} versions",
            cost,
            "us",
            "with 10",
            cost / few_cost,
            "at most 1.5",
        )
        for what, (few_cost, cost) in costs.items()
    ]


class SlowOs:
    """The module os, but each sync takes longer: a disk with more latency than this one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        time.sleep(self._seconds)

    def fdatasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)
        time.sleep(self._seconds)


def slow_disk(folder: Path, milliseconds: float, seconds: float = 3.0) -> Row:
    """Commits a second with 32 clients and with one, each sync slowed down."""
    vars(writer)["os"] = SlowOs(milliseconds / 1000)
    try:
        with Store.open(init(folder), DURABLE) as store:
            one = _rate(store, 1, seconds)
            many = _rate(store, 32, seconds)
    finally:
        vars(writer)["os"] = os
    return Row(
        f"32 clients, {milliseconds:g} ms added to each sync",
        many,
        "commits/s",
        "1 client",
        many / one,
        "at least 10",
    )


def _rate(store: Store, clients: int, seconds: float) -> float:
    done = [0] * clients
    end = time.perf_counter() + seconds

    def run(client: int) -> None:
        while time.perf_counter() < end:
            store.commit([update(client)], AUTHOR)
            done[client] += 1

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def rebuild(folder: Path, commits: int) -> Row:
    """The index made anew, versions only."""
    with Store.open(init(folder), THROWAWAY) as store:
        for start in range(0, commits, BATCH):
            store.commit_each([Unit([patient(start + n)], AUTHOR) for n in range(BATCH)])
        rates = []
        for _ in range(3):
            start_time = time.perf_counter()
            store.reindex()
            rates.append(commits / (time.perf_counter() - start_time))
    rate = statistics.median(rates)
    return Row(f"rebuild of {commits:,} commits", rate, "commits/s", "the goal", rate / 15_000, "at least 1")


def disk(folder: Path, versions: int) -> list[Row]:
    """Bytes on disk for each version: 1,000 resources of 1.4 KB updated in groups of eight, then tidied up."""
    git_dir = Path(init(folder))
    with Store.open(git_dir, replace(THROWAWAY, maintenance="off")) as store:
        store.commit_each([Unit([update(number)], AUTHOR) for number in range(1000)])
        first = _bytes(git_dir)
        for start in range(0, versions, 8):
            store.commit_each([Unit([update(start + number)], AUTHOR) for number in range(8)])
        sizes = [("in groups of 8", _bytes(git_dir) - first, 2048)]
        store.maintain()
        sizes.append(("after maintenance", _bytes(git_dir), 1024))
        store.maintain(full=True)
        sizes.append(("after maintain --full", _bytes(git_dir), 768))
    return [
        Row(
            f"disk for each of {versions:,} versions, {when}",
            size / versions,
            "bytes",
            "the goal",
            size / versions / goal,
            "at most 1",
        )
        for when, size, goal in sizes
    ]


def _bytes(git_dir: Path) -> int:
    return sum(path.stat().st_size for path in (git_dir / "objects").rglob("*") if path.is_file())


def table(rows: list[Row]) -> str:
    lines = ["| what | measured | beside | ratio | goal |", "|---|---|---|---|---|"]
    lines += [
        f"| {r.what} | {r.cost:,.0f} {r.unit} | {r.baseline} | {r.ratio:.2f} | {r.goal} |" for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resources", type=int, default=100_000)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--commits", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent.parent, prefix=".bench-") as scratch:
        folder = Path(scratch)
        rows = [
            slow_disk(folder / "slow", 5),
            *long_history(folder / "long", arguments.versions),
            rebuild(folder / "rebuild", arguments.commits),
            *disk(folder / "disk", arguments.commits),
            update_by_resources(folder, arguments.resources),
        ]
    print(json.dumps([vars(row) for row in rows], indent=2) if arguments.json else table(rows))


if __name__ == "__main__":
    main()
