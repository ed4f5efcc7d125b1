"""What several nodes cost and gain: `python -m benchmarks.replication`, by root, in network namespaces of its own (tests/cluster.py).

    writes     64 clients create on a primary, `async` and `sync` in turns, round after round, for each round trip to the hub
    lag        how long after the answer of the primary a commit is visible at a replica, which is asked with Min-Git-Commit
    failover   from kill -9 of the primary to the first acknowledged write at another node, with etcd

The hub is `git http-backend` behind nginx, whose cable holds back each frame. All share one machine with the generator:
read the ratios. The journal is off.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from benchmarks import load, scripts
from benchmarks.store import resource

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import cluster
import hubs

CONFIG = {"fhir.accessJournal": "off", "fhir.pollInterval": "1"}
ANYWHERE = "0.0.0.0"  # noqa: S104 - in a network of its own
WRITERS = 8
PATIENCE = 120.0


class Creates:
    """One client's creates, all alike."""

    def __init__(self) -> None:
        body = json.dumps(resource(1) | {"resourceType": "Observation"}).encode()
        self._ask = load.Ask("create", scripts.sent("POST", "Observation", body), b"201")

    def next(self) -> load.Ask:
        return self._ask


SERVING = ("--workers", "2")
"""As a user of this machine would have it, for the rest the defaults."""


# Writes a second


def writes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each round trip and kind of replication."""
    kinds = ("async", "sync")
    with ExitStack() as stack:
        labs, crews = {}, {}
        for kind in kinds:
            config = {**CONFIG, "fhir.replication": kind}
            labs[kind] = made = stack.enter_context(cluster.lab(1, config, slow=True))
            [node] = made.nodes
            made.serving = SERVING
            made.start(node, host=ANYWHERE)
            # Who is forked in here, stays in here: the server listens on the loopback device of its node, too.
            with node.space.inside():
                crews[kind] = stack.enter_context(
                    load.crew(cluster.PORT, lambda _: Creates(), options.clients)
                )
        rows = []
        for milliseconds in options.delays:
            rates: dict[str, list[float]] = {kind: [] for kind in kinds}
            waited: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(options.rounds):
                for kind in kinds:
                    labs[kind].delay(milliseconds / 1000)
                    tally = crews[kind].run(options.seconds)
                    if tally.failed:
                        raise SystemExit(f"{kind}: {tally.errors}")
                    rates[kind].append(tally.count / tally.spent)
                    waited[kind] += tally.taken["create"]
                    labs[kind].wait_until_alike(PATIENCE)
            rows += [
                {
                    "round trip ms": milliseconds,
                    "replication": kind,
                    "writes/s": statistics.median(rates[kind]),
                    "of async": statistics.median(rates[kind]) / statistics.median(rates["async"]),
                    **_quantiles(waited[kind]),
                }
                for kind in kinds
            ]
    return rows


# Lag


class Writer(threading.Thread):
    """Creates at a pace; `last` is the commit of its newest answer, and when that came."""

    def __init__(self, wire: cluster.Wire, pace: float, end: threading.Event) -> None:
        super().__init__()
        self._wire = wire
        self._pace = pace
        self._end = end
        self.count = 0
        self.last: tuple[str, float] | None = None

    def run(self) -> None:
        body = resource(1) | {"resourceType": "Observation"}
        begun = time.perf_counter()
        for number in count():
            if self._end.wait(max(begun + number * self._pace - time.perf_counter(), 0)):
                return
            answer = self._wire.ask("POST", "Observation", body)
            self.last = answer.headers["Git-Commit"], time.perf_counter()
            self.count += 1


def lag(options: argparse.Namespace) -> list[dict[str, Any]]:
    with cluster.lab(2, CONFIG) as made:
        primary, replica = made.nodes
        made.serving = SERVING
        made.start(*made.nodes)
        end = threading.Event()
        crew = [Writer(made.wire(primary), WRITERS / options.rate, end) for _ in range(WRITERS)]
        begun = time.perf_counter()
        for writer in crew:
            writer.start()
        try:
            seen = _lags(made.wire(replica), crew, options.lag_seconds)
            spent = time.perf_counter() - begun
        finally:
            end.set()
            for writer in crew:
                writer.join()
        made.wait_until_alike(PATIENCE)
    return [
        {"commits/s": sum(writer.count for writer in crew) / spent, "samples": len(seen), **_quantiles(seen)}
    ]


def _lags(wire: cluster.Wire, crew: Sequence[Writer], seconds: float) -> list[float]:
    """Seconds from an answer of the primary until the replica shows its commit, one after the other."""
    found = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        newest = max((writer.last for writer in crew if writer.last), key=lambda last: last[1], default=None)
        if newest is None:
            continue
        commit, answered = newest
        answer = wire.ask("GET", "Observation/nobody", Min_Git_Commit=commit)
        if answer.status != 404:  # 404: it has the commit, and there is no such resource
            raise SystemExit(f"the replica answers {answer.status}: {answer.content!r}")
        found.append(time.perf_counter() - answered)
    return found


# Failover


def failover(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The lease is as long as by default."""
    found = []
    with cluster.lab(2, {**CONFIG, "fhir.replication": "sync"}, etcd=True) as made:
        made.start(*made.nodes)
        for _ in range(options.failovers):
            hubs.wait_until(lambda: len(_primaries(made)) == 1, made.logs, PATIENCE)
            [old] = _primaries(made)
            [other] = [node for node in made.nodes if node is not old]
            hubs.wait_until(lambda: _is_written(made, old), made.logs, PATIENCE)  # noqa: B023 - used at once
            made.kill(old)
            begun = time.perf_counter()
            hubs.wait_until(lambda: _is_written(made, other), made.logs, PATIENCE)  # noqa: B023 - used at once
            found.append(time.perf_counter() - begun)
            made.start(old)
    ordered = sorted(found)
    return [
        {
            "failovers": len(found),
            "shortest s": ordered[0],
            "median s": statistics.median(found),
            "longest s": ordered[-1],
        }
    ]


def _primaries(made: cluster.Lab) -> list[cluster.Node]:
    return [node for node in made.nodes if node.role == "primary"]


def _is_written(made: cluster.Lab, node: cluster.Node) -> bool:
    wire = made.wire(node, 5)
    try:
        return wire.ask("PUT", "Observation/one", resource(1) | {"id": "one"}).status in (200, 201)
    except OSError:
        return False
    finally:
        wire.close()


# Telling


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles([*seconds, *seconds], n=100, method="inclusive")
    return {"p50 ms": 1000 * cuts[49], "p99 ms": 1000 * cuts[98]}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [
        [f"{value:,.2f}" if isinstance(value, float) else str(value) for value in row.values()]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PARTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "writes": writes,
    "lag": lag,
    "failover": failover,
}


def main() -> None:
    options = parse()
    found: dict[str, Any] = {}
    for name in options.only or PARTS:
        try:
            found[name] = PARTS[name](options)
        except pytest.skip.Exception as missing:
            raise SystemExit(str(missing)) from missing
        print(f"{name}, load average {os.getloadavg()[0]:.1f}\n\n{table(found[name])}\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(PARTS), help="may be repeated")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--delays", type=float, nargs="+", default=[1, 10, 50], help="ms to the hub and back")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each kind in each round")
    parser.add_argument("--rate", type=float, default=500.0, help="commits a second, for the lag")
    parser.add_argument("--lag-seconds", type=float, default=10.0)
    parser.add_argument("--failovers", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all there is to this file, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
