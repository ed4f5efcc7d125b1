"""How small a record stays by itself: many single commits, each a pack of its own, with maintenance beside them.

`python -m benchmarks.maintenance --commits 100000`. Beside the writer one thread reads versions at random and one clones
the record over and over. The process may open 256 files. The table shows packs, bytes, descriptors and memory on the way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from benchmarks.store import AUTHOR, update
from gitstore import Settings, Store, Unit, init
from gitstore.fhir.ids import ResourceId

OPEN_FILES = 256
ROWS = 10
PAUSE = 0.01
"""Seconds from one read, or one clone, to the next."""


def measure(
    commits: int,
    folder: Path,
    *,
    beside: bool = True,
    durable: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, object]:
    """Make the commits and return what remained: packs, bytes, seconds, and what happened beside them."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    git_dir = init(folder / "record.git")
    done = threading.Event()
    counts = {"reads": 0, "clones": 0}
    threads: list[threading.Thread] = []
    rows: list[dict[str, float]] = []
    errors: list[str] = []
    settings = Settings(durability="full" if durable else "off")
    with Store.open(git_dir, settings) as store:
        store.commit_each([Unit([update(number)], AUTHOR) for number in range(1000)])
        if beside:
            threads = [
                threading.Thread(target=run, args=(work, done, counts, errors))
                for work in (partial(read, store), partial(clone, git_dir))
            ]
        for thread in threads:
            thread.start()
        say(
            "| commits | commits/s | packs | most | MB | bytes a commit | descriptors | RSS MB | of no file |"
        )
        say("|---|---|---|---|---|---|---|---|---|")
        began = time.perf_counter()
        most = 0
        for number in range(1, commits + 1):
            store.commit([update(number)], AUTHOR)
            if number % 50 == 0:
                most = max(most, packs(git_dir))
            if number % (commits // ROWS) == 0:
                rows.append(row(git_dir, number, most, time.perf_counter() - began))
                most = 0
                say("| " + " | ".join(f"{value:,.0f}" for value in rows[-1].values()) + " |")
        seconds = time.perf_counter() - began
        done.set()
        for thread in threads:
            thread.join()
    result: dict[str, object] = {"commits": commits, "seconds": round(seconds, 1), **counts}
    result |= {"errors": len(errors), "first errors": errors[:5]}
    with Store.open(git_dir, settings) as store:
        for full in (False, True):
            start = time.perf_counter()
            report = store.maintain(full=full)
            name = "full" if full else "maintain"
            result[name] = {
                "seconds": round(time.perf_counter() - start, 1),
                "packs": [report.before.packs, report.after.packs],
                "bytes": [report.before.bytes, report.after.bytes],
                "bytes a commit": round(report.after.bytes / commits),
            }
    fsck = subprocess.run(
        ["git", "-C", git_dir, "fsck", "--full"], capture_output=True, text=True, check=False
    )
    return result | {"rows": rows, "fsck": [fsck.returncode, fsck.stderr]}


def run(
    work: Callable[[dict[str, int]], None],
    done: threading.Event,
    counts: dict[str, int],
    errors: list[str],
) -> None:
    while not done.is_set():
        try:
            work(counts)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what the run is there to find
            errors.append(repr(error))
        done.wait(PAUSE)


def read(store: Store, counts: dict[str, int]) -> None:
    """One of the last twenty versions of a resource at random."""
    snapshot = store.snapshot()
    versions = snapshot.history(ResourceId("Observation", f"o-{random.randrange(1000)}"), count=20).versions
    assert snapshot.body(random.choice(versions)).startswith(b"{")
    counts["reads"] += 1


def clone(git_dir: str, counts: dict[str, int]) -> None:
    """A whole clone, as another machine would fetch it."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["git", "clone", "--quiet", "--bare", f"file://{git_dir}", f"{folder}/clone.git"]
        subprocess.run(command, check=True, capture_output=True)
    counts["clones"] += 1


def packs(git_dir: str) -> int:
    return sum(name.endswith(".idx") for name in os.listdir(os.path.join(git_dir, "objects", "pack")))


def row(git_dir: str, number: int, most: int, seconds: float) -> dict[str, float]:
    size = 0
    for path in Path(git_dir, "objects", "pack").iterdir():
        with suppress(FileNotFoundError):  # it has just been merged
            size += 0 if path.name.startswith("tmp") else path.stat().st_size
    return {
        "commits": number,
        "commits/s": number / seconds,
        "packs": packs(git_dir),
        "most": most,
        "MB": size / 1e6,
        "bytes a commit": size / number,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "RSS MB": memory("VmRSS") / 1e6,
        "of no file": memory("RssAnon") / 1e6,
    }


def memory(kind: str) -> int:
    """Bytes of this process that are in memory now. https://man7.org/linux/man-pages/man5/proc_pid_status.5.html"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commits", type=int, default=100_000)
    parser.add_argument("--alone", action="store_true", help="no readers and clones beside the writer")
    parser.add_argument("--durable", action="store_true", help="sync each commit, as a server does")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent.parent, prefix=".bench-") as folder:
        quiet = (lambda _: None) if arguments.json else print
        result = measure(
            arguments.commits, Path(folder), beside=not arguments.alone, durable=arguments.durable, say=quiet
        )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
