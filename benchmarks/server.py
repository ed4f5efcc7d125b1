"""What the whole server does, and how long it takes, beside its baselines in one run: `python -m benchmarks.server`.

The server is `python -m api` with two workers and all defaults (durable, validation in full, search), but without the
access journal. Contestants of a cell take turns, round after round, on machines that they share with the generator: read
the ratios. A wrong answer voids its cell. `--quick` is the same in small, to see that nothing fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import load, scripts
from benchmarks.processes import Server, git_fhir, running
from benchmarks.scripts import Record
from benchmarks.store import AUTHOR, fsync_floor
from gitstore import Settings, Store, Update, init
from gitstore.fhir.ids import ResourceId

THROWAWAY = Settings(durability="off", validation="off", maintenance="off")
PERCENTILES = (50, 95, 99)


# Records


def record(path: Path, size: int) -> str:
    """A record of so many resources. Its index is made in the end, since that is faster."""
    if not path.exists():
        with Store.open(init(path), replace(THROWAWAY, search="off")) as store:
            batch: list[Update] = []
            for each in scripts.initial(size):
                batch.append(Update(ResourceId(each["resourceType"], each["id"]), each))
                if len(batch) == 500:
                    store.commit(batch, AUTHOR, interaction="transaction")
                    batch = []
            if batch:
                store.commit(batch, AUTHOR, interaction="transaction")
            store.maintain()
        Store.open(path, THROWAWAY).close()
        subprocess.run(["git", "-C", str(path), "config", "fhir.accessJournal", "off"], check=True)
    return str(path)


# Cells


@dataclass(frozen=True)
class Contestant:
    """`make` gives the scripts for a server; without a server `floor` writes for some seconds and says how often."""

    name: str
    server: Server | None
    make: load.MakeScript | None = None
    floor: Callable[[float], int] | None = None


@dataclass
class Result:
    """The rounds of one contestant. `processor` are microseconds of the workers' for each request, `generator` its own."""

    rates: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    generator: list[float] = field(default_factory=list)
    taken: dict[str, array[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def percentiles(self, verb: str | None = None) -> dict[str, float]:
        """Milliseconds."""
        chosen = [self.taken[verb]] if verb is not None else self.taken.values()
        times = sorted(each for one in chosen for each in one)
        return {f"p{p}": 1000 * times[min(len(times) - 1, len(times) * p // 100)] for p in PERCENTILES}


@dataclass
class Cell:
    """One thing that is measured; the first contestant is the one that is set beside the others."""

    name: str
    clients: int
    contestants: Sequence[Contestant]
    results: dict[str, Result] = field(default_factory=dict)

    @property
    def errors(self) -> list[str]:
        return [error for result in self.results.values() for error in result.errors]

    def ratio(self, other: str) -> float:
        """How the first does beside another: the median of the rounds' ratios."""
        ours, theirs = self.results[self.contestants[0].name].rates, self.results[other].rates
        return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))

    def run(self, rounds: int, seconds: float, processes: int) -> None:
        with ExitStack() as stack:
            crews = {
                each.name: stack.enter_context(
                    load.crew(each.server.port, each.make, self.clients, processes)
                )
                for each in self.contestants
                if each.server is not None and each.make is not None
            }
            self.results = {each.name: Result() for each in self.contestants}
            for round in range(-1, rounds):
                for each in self.contestants:
                    _round(each, crews.get(each.name), self.results[each.name], seconds, warm_up=round < 0)
                if self.errors:
                    return


def _round(
    contestant: Contestant, crew: load.Crew | None, result: Result, seconds: float, *, warm_up: bool
) -> None:
    if contestant.server is None or crew is None:
        assert contestant.floor is not None
        begun = time.perf_counter()
        done = contestant.floor(seconds)
        if not warm_up:
            result.rates.append(done / (time.perf_counter() - begun))
        return
    before = contestant.server.cpu()
    tally = crew.run(seconds / 2 if warm_up else seconds)
    cpu = contestant.server.cpu() - before
    if tally.failed:
        result.errors += [f"{tally.failed} wrong answers", *tally.errors]
        return
    if warm_up:
        return
    result.rates.append(tally.count / tally.spent)
    result.processor.append(1e6 * cpu / tally.count)
    result.generator.append(1e6 * tally.cpu / tally.count)
    for verb, taken in tally.taken.items():
        result.taken.setdefault(verb, array("d")).extend(taken)


@dataclass(frozen=True)
class Servers:
    """`ours` are git-fhir by the number of resources that were there at first; `fresh` had none."""

    ours: dict[int, Server]
    fresh: Server
    sqlite: Server
    fixed: Server
    folder: Path

    def cells(self, many: int) -> Iterator[Cell]:
        """`many` clients where there are many."""
        size, first = next(iter(self.ours.items()))
        some = min(8, many)

        def beside_fixed(name: str, make: Callable[[Record], load.MakeScript]) -> Cell:
            ours = Contestant("git-fhir", first, make(Record(size, many)))
            peer = Contestant("fixed bytes", self.fixed, scripts.fixed(Record(size, many)))
            return Cell(name, many, [ours, peer])

        def alone(name: str, clients: int, make: Callable[[Record], load.MakeScript]) -> Cell:
            contestants = [
                Contestant(f"git-fhir, {each:,} resources", server, make(Record(each, clients)))
                for each, server in self.ours.items()
            ]
            return Cell(name, clients, contestants)

        for name, make in (
            ("read", scripts.reads),
            ("vread", scripts.vreads),
            ("304", scripts.not_modified),
        ):
            yield beside_fixed(name, make)
        yield alone("searches", some, scripts.searches)
        yield alone("update with If-Match", some, scripts.updates)
        yield alone("history pages", some, scripts.histories)
        for number in sorted({1, some, many}):
            yield self._creates(number)
        mix = alone("CRUD mix", many, scripts.mixes)
        mix.contestants = [
            *mix.contestants,
            Contestant("SQLite", self.sqlite, scripts.mixes(Record(size, many))),
        ]
        yield mix
        yield Cell("one hot resource", many, [Contestant("git-fhir", first, scripts.hot(Record(size, many)))])

    def _creates(self, number: int) -> Cell:
        make = scripts.creates(Record(100, number))
        return Cell(
            "create",
            number,
            [
                Contestant("git-fhir", self.fresh, make),
                Contestant("SQLite", self.sqlite, make),
                Contestant("fsync floor", None, floor=lambda seconds: _floor(self.folder, number, seconds)),
            ],
        )


def _floor(folder: Path, number: int, seconds: float) -> int:
    with fsync_floor(folder, number) as run:
        return run(seconds)


def transactions(servers: Servers, folder: Path, few: int) -> Iterator[Cell]:
    """Synthea's patients; `few` of them where it has to be quick, or 0 for all."""
    shared, patients = scripts.bundles(folder)
    asks = [load.Ask("batch", scripts.sent("POST", "", body)) for body in shared]
    _once(servers.fresh, asks, 1)
    patients = patients[:few] if few else patients
    for number in (1, 4):
        yield Cell(
            "Synthea transactions",
            number,
            [Contestant("git-fhir", servers.fresh, scripts.transactions(patients))],
        )


def _once(server: Server, asks: Sequence[load.Ask], clients: int) -> None:
    """Send each of these requests once. Raises SystemExit where one fails."""
    script = scripts.Once(asks)
    with load.crew(server.port, lambda _: script, clients) as crew:
        tally = crew.run(3600)
    if tally.failed:
        raise SystemExit(f"what has to be there can't be written: {tally.errors}")


# Reports


def table(cells: Sequence[Cell]) -> str:
    """Markdown: a row for each contestant, and one for each verb where it has several."""
    head = (
        "| what | clients | contestant | requests/s | range | p50 ms | p95 ms | p99 ms | CPU us | first is |"
    )
    lines = [head, "|" + "---|" * 10]
    for cell in cells:
        if cell.errors:
            lines.append(f"| {cell.name} | {cell.clients} | **void**: {cell.errors[0]} |" + " |" * 7)
            continue
        for place, (name, result) in enumerate(cell.results.items()):
            ratio = f"{cell.ratio(name):.2f} x" if place else ""
            rate, lowest, highest = map(_number, (result.rate, min(result.rates), max(result.rates)))
            cpu = f"{statistics.median(result.processor):,.0f}" if result.processor else ""
            times = _times(result.percentiles()) if result.taken else " | | "
            lines.append(
                f"| {cell.name} | {cell.clients} | {name} | {rate} | {lowest} to {highest} | {times} | {cpu} | {ratio} |"
            )
            if len(result.taken) > 1:
                lines += [_row(verb, result) for verb in sorted(result.taken)]
    return "\n".join(lines)


def _number(rate: float) -> str:
    return f"{rate:,.2f}" if rate < 10 else f"{rate:,.0f}"


def _row(verb: str, result: Result) -> str:
    return (
        f"| - {verb} | | {len(result.taken[verb]):,} requests | | | {_times(result.percentiles(verb))} | | |"
    )


def _times(percentiles: dict[str, float]) -> str:
    return " | ".join(f"{each:,.1f}" for each in percentiles.values())


def as_json(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    return [
        {
            "cell": cell.name,
            "clients": cell.clients,
            "errors": cell.errors,
            "contestants": {
                name: {
                    "requests_per_second": result.rates,
                    "worker_cpu_us": result.processor,
                    "generator_cpu_us": result.generator,
                    "milliseconds": {
                        verb: {"count": len(result.taken[verb])} | result.percentiles(verb)
                        for verb in result.taken
                    },
                }
                for name, result in cell.results.items()
            },
        }
        for cell in cells
    ]


def machine() -> dict[str, Any]:
    """What it was measured on, and when."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    models = [
        line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")
    ]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load": [round(each, 1) for each in os.getloadavg()],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "git": subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout.split()[
            2
        ],
        "kernel": platform.release(),
    }


def generator(cells: Sequence[Cell]) -> str:
    """What the generator can do: what it costs, and the most that it got from the server that does nothing."""
    fixed = [
        cell.results["fixed bytes"] for cell in cells if "fixed bytes" in cell.results and not cell.errors
    ]
    if not fixed:
        return ""
    cost = statistics.median(each for result in fixed for each in result.generator)
    best = max(max(result.rates) for result in fixed)
    return (
        f"The generator needs {cost:.0f} us of CPU for a request, so a core of it could send {1e6 / cost:,.0f} requests/s; "
        f"from the handler of fixed bytes it got {best:,.0f}/s."
    )


def memory(idle: dict[str, list[dict[str, float]]], used: dict[str, list[dict[str, float]]]) -> str:
    lines = [
        "| server | its start, or after all of this | MB resident of each worker | its share |",
        "|---|---|---|---|",
    ]
    for when, sizes in (("idle", idle), ("after", used)):
        for name, workers in sizes.items():
            resident, share = (", ".join(f"{each[kind]:.0f}" for each in workers) for kind in ("Rss", "Pss"))
            lines.append(f"| {name} | {when} | {resident} | {share} |")
    return "\n".join(lines)


# All of it


def starts(records: dict[int, str], times: int) -> dict[int, list[float]]:
    """Seconds from the command to the greeting, by resources."""
    found: dict[int, list[float]] = {size: [] for size in records}
    for _ in range(times):
        for size, path in records.items():
            with running(*git_fhir(path)) as server:
                found[size].append(server.started)
    return found


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    records = {size: record(folder / f"{size}.git", size) for size in options.resources}
    cells = []
    started = starts(records, 1 if options.quick else 3)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        ours = {size: stack.enter_context(running(*git_fhir(path))) for size, path in records.items()}
        servers = Servers(
            ours,
            stack.enter_context(running(*git_fhir(record(scratch / "fresh.git", 0)))),
            stack.enter_context(_sqlite(scratch, options.resources[0])),
            stack.enter_context(running("benchmarks.peers", "fixed")),
            scratch,
        )
        all_ours = {f"{size:,} resources": server for size, server in ours.items()}
        idle = {name: server.memory() for name, server in all_ours.items()}
        chosen = [*servers.cells(options.clients)]
        if options.synthea is not None:
            chosen += transactions(servers, options.synthea, 1 if options.quick else 0)
        for cell in chosen:
            if options.only is None or any(each in cell.name for each in options.only):
                print(f"{cell.name}, {cell.clients} clients", file=sys.stderr, flush=True)
                cell.run(options.rounds, options.seconds, min(options.processes, cell.clients))
                cells.append(cell)
        used = {name: server.memory() for name, server in all_ours.items()}
    return {"machine": machine(), "cells": cells, "idle": idle, "used": used, "started": started}


@contextmanager
def _sqlite(folder: Path, size: int) -> Iterator[Server]:
    """The SQLite peer, filled as the smallest record is, through its own door."""
    with running("benchmarks.peers", "sqlite", record(folder / "peer.git", 0)) as server:
        asks = []
        for each in scripts.initial(size):
            path = f"{each['resourceType']}/{each['id']}"
            asks.append(load.Ask("fill", scripts.sent("PUT", path, json.dumps(each).encode()), b"201"))
        _once(server, asks, 16)
        yield server


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent.parent, prefix=".bench-") as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        found = measure(folder, options)
    cells = found["cells"]
    if options.json:
        options.json.write_text(
            json.dumps(found | {"cells": as_json(cells)}, indent=2) + "\n", encoding="utf-8"
        )
    parts = (str(found["machine"]), table(cells), generator(cells), memory(found["idle"], found["used"]))
    print(*filter(None, parts), sep="\n\n")
    for size, seconds in found["started"].items():
        print(f"\nstart with {size:,} resources: {min(seconds):.2f} s, the best of {len(seconds)}")
    if any(cell.errors for cell in cells):
        sys.exit("\n".join(f"{cell.name}: {error}" for cell in cells for error in cell.errors))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, a minute or two")
    parser.add_argument("--resources", type=int, nargs="+", default=[1000, 10_000], help="sizes of records")
    parser.add_argument("--clients", type=int, default=64, help="where there are many (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contestant in each round")
    parser.add_argument("--processes", type=int, default=2, help="of the generator (default: %(default)s)")
    parser.add_argument("--only", action="append", help="cells whose name has this in it; may be repeated")
    parser.add_argument("--json", type=Path, help="write all there is to this file, too")
    parser.add_argument("--folder", type=Path, help="where to keep the records for the next run")
    options = parser.parse_args()
    if options.quick:
        options.resources, options.clients, options.rounds, options.seconds = [100, 200], 16, 1, 0.5
    beside = Path(__file__).parents[1].parent / "shared" / "data" / "synthea"
    folder = Path(os.environ.get("GIT_FHIR_SYNTHEA") or beside)
    options.synthea = folder if folder.is_dir() else None
    return options


if __name__ == "__main__":
    main()
