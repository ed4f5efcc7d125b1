"""What several nodes cost and gain: `python -m benchmarks.replication`, by root, in network namespaces of its own (tests/cluster.py).

    writes     64 clients create on a primary, `async` and `sync` in turns, round after round, for each round trip to the hub
    lag        how long after a commit is durable at the primary it is visible at a replica, for each commit of some seconds
    failover   from kill -9 of the primary to the first acknowledged write at another node, with etcd

The hub is `git http-backend` behind nginx, whose cable holds back each frame. All share one machine with the generator:
read the ratios. The journal is off. For the lag the primary is a process that has opened the record itself (benchmarks.commits),
and after that a server that is written to over HTTP; the replica is a server in both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import commits, load, scripts
from benchmarks.store import resource
from gitstore import Store, read_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import cluster
import hubs

CONFIG = {"fhir.accessJournal": "off", "fhir.pollInterval": "1"}
ANYWHERE = "0.0.0.0"  # noqa: S104 - in a network of its own
WRITERS = 8
"""Over HTTP, for the lag."""
WARM_UP = 2.0
LOOK = 0.005
"""Seconds: before the lag is measured, and between two looks at the replica."""
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


def lag(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each way of writing: in a process that has opened the record itself, or over HTTP."""
    return [_lag(options, kind) for kind in options.writers]


def _lag(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    with cluster.lab(2, CONFIG) as made:
        primary, replica = made.nodes
        made.serving = ("--workers", "1")
        made.start(replica)
        made.serving = SERVING
        writing = _committing if kind == "store" else _creating
        with writing(made, primary, options.rate, options.at_once) as durable:
            shown = _watch(replica, made.wire(replica), options.lag_seconds)
        made.start(*(node for node in (primary,) if node.process is None))
        made.wait_until_alike(PATIENCE)
        order = primary.git("rev-list", "--reverse", "main").split()
    (_, first), *_, (_, last) = shown
    rate = sum(first <= at < last for at in durable.values()) / (last - first)
    late = lags(order, durable, shown)
    return {
        "writers": kind,
        "at once": options.at_once,
        "commits/s": rate,
        "commits": len(late),
        **_quantiles(late),
    }


@contextmanager
def _committing(
    made: cluster.Lab, node: cluster.Node, rate: float, at_once: int
) -> Iterator[dict[str, float]]:
    """Which commit was durable when, once the block is left: made by a process that has opened the record, on the primary's node."""
    command = [*node.space.within, sys.executable, "-m", "benchmarks.commits", str(node.git_dir)]
    replica = made.nodes[1].process
    assert replica is not None
    durable: dict[str, float] = {}
    with subprocess.Popen(
        # The replica's worker is on the core of its number (api/serving.py): this is to be on the other one of two.
        [*command, "--rate", str(rate), "--at-once", str(at_once), "--core", str(replica.pid + 1)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=made.environment(node),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the primary doesn't start")
        yield durable
        process.stdin.close()
        for line in process.stdout:
            id, at = line.split()
            durable[id] = float(at)
    if process.returncode != 0:
        raise SystemExit("the primary failed")


@contextmanager
def _creating(made: cluster.Lab, node: cluster.Node, rate: float, at_once: int) -> Iterator[dict[str, float]]:
    """The same, over HTTP: when each create was answered."""
    made.start(node)

    def create(wire: cluster.Wire) -> str:
        return str(wire.ask("POST", "Observation", commits.observation()).headers["Git-Commit"])

    end = threading.Event()
    writers = commits.crew([partial(create, made.wire(node)) for _ in range(WRITERS)], rate, end, at_once)
    for writer in writers:
        writer.start()
    durable: dict[str, float] = {}
    try:
        yield durable
    finally:
        end.set()
        for writer in writers:
            writer.join()
    for writer in writers:
        durable |= writer.made


def _watch(node: cluster.Node, wire: cluster.Wire, seconds: float) -> list[tuple[str, float]]:
    """Which commit a replica's server showed when, for so long, after a time for all to get going.

    It is asked when its index has moved, which is looked at here: so that it is neither kept busy by being asked, nor called for
    a look at the hub.
    """
    shown: list[tuple[str, float]] = []
    before = None
    begun = time.monotonic()
    with Store.open(node.git_dir, read_settings(node.git_dir)) as store:
        while time.monotonic() < begun + WARM_UP + seconds:
            time.sleep(LOOK)
            commit = store.snapshot().commit
            if commit == before or time.monotonic() < begun + WARM_UP:
                continue
            before = commit
            shown.append((wire.ask("GET", "Observation/nobody").headers["Git-Commit"], time.monotonic()))
    return shown


def lags(
    order: Sequence[str], durable: Mapping[str, float], shown: Sequence[tuple[str, float]]
) -> list[float]:
    """Seconds from when each commit was durable at the primary until the replica showed it, or a later one.

    `order` is that of the record. What was there when the replica was first looked at, or not yet at last, says nothing.
    """
    places = {id: place for place, id in enumerate(order)}
    found = []
    [(id, _), *rest] = shown
    seen = places[id] + 1
    for id, at in rest:
        # A primary may be slower to hear of its own commit than the replica is to get it.
        found += [max(at - durable[other], 0) for other in order[seen : places[id] + 1]]
        seen = max(seen, places[id] + 1)
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
    parser.add_argument("--writers", nargs="+", choices=("store", "http"), default=["store", "http"])
    parser.add_argument(
        "--at-once", type=int, default=1, help="commits that are asked for at once, for the lag"
    )
    parser.add_argument("--lag-seconds", type=float, default=10.0)
    parser.add_argument("--failovers", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all there is to this file, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
