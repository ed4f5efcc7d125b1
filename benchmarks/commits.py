"""One node that commits at a pace, without HTTP: `python -m benchmarks.commits GIT_DIR`, for the part `lag` of benchmarks.replication.

It takes the place of a primary's server: pushes to the hub and calls the replicas like that, and keeps to one core like its workers.
When its stdin ends it prints for each commit its id, and the second of the machine's monotonic clock in which it was durable.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from itertools import count

from api.opening import join
from api.waking import Waker
from benchmarks.store import AUTHOR, resource
from gitstore import Create, Store, cores, read_settings

WRITERS = 32
"""Threads: one group of commits can have as many."""

Commit = Callable[[], str]
"""Makes one commit and returns its id, once it is durable."""


class Writer(threading.Thread):
    """Commits at a pace, and notes which commit came when. One that is too slow makes up for what it has missed."""

    def __init__(self, commit: Commit, pace: float, first: float, end: threading.Event) -> None:
        """`pace` and `first` in seconds: between two commits, and before the first."""
        super().__init__()
        self._commit = commit
        self._pace = pace
        self._first = first
        self._end = end
        self.made: dict[str, float] = {}

    def run(self) -> None:
        begun = time.monotonic() + self._first
        for number in count():
            if self._end.wait(max(begun + number * self._pace - time.monotonic(), 0)):
                return
            commit = self._commit()
            self.made[commit] = time.monotonic()


def crew(commits: list[Commit], rate: float, end: threading.Event, at_once: int = 1) -> list[Writer]:
    """So many writers that together make `rate` commits a second, so many at once, for which fewer groups are written."""
    return [
        Writer(commit, len(commits) / rate, number // at_once * at_once / rate, end)
        for number, commit in enumerate(commits)
    ]


def observation() -> dict[str, object]:
    return resource(1) | {"resourceType": "Observation"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("git_dir")
    parser.add_argument("--rate", type=float, default=500.0, help="commits a second")
    parser.add_argument("--at-once", type=int, default=1, help="so many of them")
    parser.add_argument("--core", type=int, default=0, help="the number of the core to keep to")
    options = parser.parse_args()
    settings = read_settings(options.git_dir)
    cores.keep_to_one(options.core)
    end = threading.Event()
    with Waker(settings.replica) as waker, Store.open(options.git_dir, settings) as store:
        join(store, waker, as_replica=False)

        def commit() -> str:
            [outcome] = store.commit([Create(observation())], AUTHOR)
            assert outcome.version is not None
            return outcome.version.commit.id

        writers = crew([commit] * WRITERS, options.rate, end, options.at_once)
        print("ready", flush=True)
        for writer in writers:
            writer.start()
        sys.stdin.read()
        end.set()
        for writer in writers:
            writer.join()
    for writer in writers:
        for id, at in writer.made.items():
            print(id, at)


if __name__ == "__main__":
    main()
