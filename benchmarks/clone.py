"""What a clone over HTTP takes, and what is left of the API meanwhile: `python -m benchmarks.clone`

A server with all defaults, anonymous. The first table has clones and fetches by git, beside the same from the folder; the
second has GETs from one client, alone and while clones follow one another in as many places as there are.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.fairness import server, summary
from benchmarks.scale import THROWAWAY, patient
from benchmarks.store import AUTHOR
from gitstore import Settings, Store, Unit, init

PLACES = Settings().max_clones
PATIENTS = 2000
NEWER = 100
WARM_UP = 20
BATCH = 1000

Clones = Callable[..., Path]


def filled(folder: Path, commits: int) -> str:
    """A record of so many commits, each of which updates one of PATIENTS, and tidied up."""
    git_dir = init(folder)
    write(git_dir, commits)
    with Store.open(git_dir, THROWAWAY) as store:
        store.maintain()
    return git_dir


def write(git_dir: str, commits: int) -> None:
    with Store.open(git_dir, THROWAWAY) as store:
        for start in range(0, commits, BATCH):
            numbers = range(start, min(start + BATCH, commits))
            store.commit_each(Unit([patient(number % PATIENTS)], AUTHOR) for number in numbers)


def cloning(folder: Path) -> Clones:
    """`clone(url, options…)` into a new place; returns that."""
    numbers = count()

    def clone(url: str, *options: str) -> Path:
        place = folder / f"clone-{next(numbers)}.git"
        git("clone", "--quiet", "--bare", *options, url, str(place))
        return place

    return clone


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def size(clone: Path) -> int:
    """Bytes of its packs."""
    return sum(path.stat().st_size for path in clone.glob("objects/pack/*.pack"))


def gets(port: int, requests: int) -> list[float]:
    """Seconds that each GET of a resource took, from one client with one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken = []
    for number in range(requests + WARM_UP):
        begun = time.perf_counter()
        connection.request("GET", f"/fhir/Patient/p-{number % PATIENTS}")
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise SystemExit(f"GET was answered with {response.status}")
        taken.append(time.perf_counter() - begun)
    connection.close()
    return taken[WARM_UP:]


@contextmanager
def clones_without_end(clone: Clones, url: str) -> Iterator[list[Path]]:
    """As many at a time as one worker lets in. Yields those that are there."""
    made: list[Path] = []
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            try:
                made.append(clone(url))
            except (
                subprocess.CalledProcessError
            ):  # both have met in one worker, with something of the other's before
                continue

    threads = [threading.Thread(target=run) for _ in range(PLACES)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def measure(folder: Path, commits: int, requests: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Seconds of clones and fetches, and MiB; seconds of each GET."""
    git_dir = filled(folder / "record.git", commits)
    clone = cloning(folder)
    found: dict[str, float] = {}
    with server(git_dir) as port:
        url = f"http://127.0.0.1:{port}/fhir.git"
        whole = folder / "clone-0.git"
        found["clone over HTTP, s"] = timed(lambda: clone(url))
        found["MiB of it"] = size(whole) / 1024**2
        found["clone from the folder, s"] = timed(lambda: clone(f"file://{git_dir}"))
        found["clone --depth 1, s"] = timed(lambda: clone(url, "--depth", "1"))
        found["clone --filter=blob:none, s"] = timed(lambda: clone(url, "--filter=blob:none"))
        fetch = ("--git-dir", str(whole), "fetch", "--quiet", "origin", "main:main")
        found["fetch of nothing, s"] = timed(lambda: git(*fetch))
        write(git_dir, NEWER)
        found[f"fetch of {NEWER} commits, s"] = timed(lambda: git(*fetch))
        alone = gets(port, requests)
        beside: list[float] = []
        with clones_without_end(clone, url) as made:
            while len(beside) < requests or not made:
                beside += gets(port, 100)
    return found, {"alone": alone, f"beside {PLACES} clones": beside}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--count", type=int, default=1000, help="GETs of each kind, at least")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--folder", help="where to write; a temporary folder beside this checkout otherwise")
    arguments = parser.parse_args()
    place = arguments.folder or Path(__file__).parent.parent
    with tempfile.TemporaryDirectory(dir=place, prefix=".bench-") as folder:
        clones, taken = measure(Path(os.path.realpath(folder)), arguments.commits, arguments.count)
    if arguments.json:
        print(json.dumps(clones | {name: summary(each) for name, each in taken.items()}, indent=2))
        return
    print(f"| {arguments.commits:,} commits | |\n|---|---|")
    for name, value in clones.items():
        print(f"| {name} | {value:.2f} |")
    print("\n| GET over HTTP, ms | GETs | p50 | p95 | p99 | max |\n|---|---|---|---|---|---|")
    for name, each in taken.items():
        number, *figures = summary(each).values()
        print(f"| {name} | {number:,.0f} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")


if __name__ == "__main__":
    main()
