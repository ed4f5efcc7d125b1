"""What going back costs: `python -m benchmarks.as_of`

A record of synthetic patients (benchmarks/patients.py) is changed a little and then more. For each distance: how long the
index of the first state takes to make, how large it is, and how long a first page then takes, beside the same of now.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from benchmarks.patients import Population
from benchmarks.search import THROWAWAY, filled, updates
from benchmarks.store import AUTHOR
from gitstore import Commit, Past, Store
from gitstore.fhir import json
from gitstore.search.states import FOLDER

QUESTIONS = (
    ("Patient", (("family", "b"),)),
    ("Observation", (("code", "http://loinc.org|29463-7"), ("_sort", "-date"))),
    ("Observation", (("patient.family", "bauer"), ("_include", "Observation:patient"))),
)
ROUNDS = 5


@contextmanager
def timed(times: list[float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    times.append(time.perf_counter() - start)


def change(store: Store, count: int) -> None:
    """Write so many resources again, each with another tag, 100 in a commit."""
    snapshot = store.snapshot()
    versions = list(islice(snapshot.resources(), count))
    for begin in range(0, count, 100):
        changed = []
        for version in versions[begin : begin + 100]:
            resource = json.loads_trusted(snapshot.body(version))
            resource["meta"] = {**resource["meta"], "tag": [{"code": f"changed-{count}"}]}
            changed.append(resource)
        store.commit(updates(changed), AUTHOR)


def first_page(store: Store | Past) -> float:
    """Milliseconds: the worst of the questions, each in the middle of its rounds."""
    worst = 0.0
    for type, pairs in QUESTIONS:
        times: list[float] = []
        for _ in range(ROUNDS):
            with timed(times), store.reading() as snapshot:
                page = snapshot.search((type,), pairs)
                for match in page.matches:
                    snapshot.body(match.version)
        worst = max(worst, 1000 * statistics.median(times))
    return worst


def measured(path: Path, commit: Commit) -> tuple[float, float, float]:
    """Seconds to make the index, its bytes, and the first page."""
    made: list[float] = []
    with Store.open(path, THROWAWAY) as store:
        then = store.past(commit, None)
        with timed(made), then.reading():
            pass
        file = path / "git-fhir" / FOLDER / f"{commit.id}.sqlite"
        size = file.stat().st_size
        page = first_page(then)
        file.unlink()
        return made[0], size, page


def main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=980, help="about 100 resources each")
    parser.add_argument("--changes", type=int, nargs="*", default=[100, 5_000, 20_000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.git"
        filled(path, Population.known(), arguments.patients)
        with Store.open(path, THROWAWAY) as store:
            commit = store.snapshot().commit
            middle = store.snapshot(commit.sequence // 2).commit
            there = sum(store.snapshot().counts().values())
            say(f"{there:,} resources; a first page of now: {first_page(store):.1f} ms\n")
        say("| changed since | seconds to make | MB | first page, ms |\n|---|---|---|---|")
        changed = 0
        for count in arguments.changes:
            with Store.open(path, THROWAWAY) as store:
                change(store, count)
            changed = max(changed, count)
            seconds, size, page = measured(path, commit)
            say(f"| {changed:,} | {seconds:.2f} | {size / 1e6:.0f} | {page:.1f} |")
        seconds, size, page = measured(path, middle)
        say(f"| half of all came later | {seconds:.2f} | {size / 1e6:.0f} | {page:.1f} |")


if __name__ == "__main__":
    main()
