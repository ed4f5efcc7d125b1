"""What the access journal costs: requests a second of two processes of 16 threads, with and without it.

    python -m benchmarks.journal [--seconds S] [--threads N] [--folder PATH]

A request is 0.5 ms of Python that holds the interpreter lock, and then a line in the journal. The contestants take
turns of 0.1 s in the same threads, so that whatever else the machine does meets them all alike:

    no journal      no line at all
    journal         each line written by the thread that answers, under the flock, without giving the interpreter lock away
    plain calls     the same, but that each call of the system gives the interpreter lock away, as Python's own do
    queue           a thread of each process writes what has come up every 20 ms: a kill loses that much

The aim is at least 0.95 of the requests.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from gitstore.journal import appending
from gitstore.journal.appending import Journal
from gitstore.journal.checking import check
from gitstore.journal.lines import Entry

PROCESSES = 2
HANDLER = 0.0005
TURN = 0.1
BATCH_EVERY = 0.02

ID = "5e0a4c6e-0000-4000-8000-000000000001"
ENTRY = Entry(
    "Ada Lovelace",
    "read",
    200,
    "0123456789abcdef",
    agent="https://idp.example.org ada app",
    type="Observation",
    id=ID,
    version="3",
    patients=(ID,),
    remote="10.0.0.7",
)

Note: TypeAlias = Callable[[], None]
Contestant: TypeAlias = Callable[[str], tuple[Note, Note]]
"""For a folder: what notes one request, and what ends it all."""


def nothing(_folder: str) -> tuple[Note, Note]:
    return (lambda: None), (lambda: None)


def journal(folder: str) -> tuple[Note, Note]:
    opened = Journal.open(folder)
    return (lambda: opened.record(ENTRY)), opened.close


def plain_calls(folder: str) -> tuple[Note, Note]:
    """A second copy of the module, with another way to call C."""
    assert appending.__spec__ is not None
    copy = importlib.util.module_from_spec(appending.__spec__)
    source = Path(appending.__file__).read_text(encoding="utf-8")
    exec(compile(source.replace("ctypes.PyDLL(", "ctypes.CDLL("), "plain calls", "exec"), vars(copy))  # noqa: S102 - our own source
    opened = copy.Journal.open(folder)
    return (lambda: opened.record(ENTRY)), opened.close


def queued(folder: str) -> tuple[Note, Note]:
    opened = Journal.open(folder)
    waiting: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()

    def write() -> None:
        ended = False
        while not ended:
            time.sleep(BATCH_EVERY)
            batch: list[Entry] = []
            while not waiting.empty():
                entry = waiting.get()
                ended = ended or entry is None
                batch += [] if entry is None else [entry]
            if batch:
                opened.record(*batch)

    writing = threading.Thread(target=write)
    writing.start()

    def close() -> None:
        waiting.put(None)
        writing.join()
        opened.close()

    return (lambda: waiting.put(ENTRY)), close


CONTESTANTS: dict[str, Contestant] = {
    "no journal": nothing,
    "journal": journal,
    "plain calls": plain_calls,
    "queue": queued,
}


def work(turns: int) -> int:
    return sum(number * number for number in range(turns))


def turns() -> int:
    """How many turns of `work` take as long as a handler, when nothing else runs."""
    count = 1000
    while True:
        fastest = min(_timed(count) for _ in range(20))
        if fastest > HANDLER / 2:
            return round(count * HANDLER / fastest)
        count *= 2


def _timed(count: int) -> float:
    start = time.perf_counter()
    work(count)
    return time.perf_counter() - start


def serve(folder: str, count: int, threads: int, seconds: float, answers: Any) -> None:
    """One process; puts for each contestant how many requests it answered, and what each of them took.

    That is seconds of the processor, and by the clock.
    """
    names = list(CONTESTANTS)
    opened = [contestant(f"{folder}/{name}") for name, contestant in CONTESTANTS.items()]
    done: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    start = (time.monotonic() // (TURN * len(names)) + 2) * TURN * len(names)
    end = start + seconds
    time.sleep(start - time.monotonic())

    def answer() -> None:
        while (begun := time.monotonic()) < end:
            turn = int((begun - start) / TURN) % len(names)
            used = time.thread_time()
            work(count)
            opened[turn][0]()
            done[names[turn]].append((time.thread_time() - used, time.monotonic() - begun))
            time.sleep(0)

    running = [threading.Thread(target=answer) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for _, close in opened:
        close()
    answers.put(done)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--folder", help="where the journals are made; a temporary folder by default")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    count = turns()
    done: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        given = (folder, count, arguments.threads, arguments.seconds, answers)
        processes = [context.Process(target=serve, args=given) for _ in range(PROCESSES)]
        for process in processes:
            process.start()
        for _ in processes:
            for name, requests in answers.get().items():
                done[name] += requests
        for process in processes:
            process.join()
        assert not [finding for name in CONTESTANTS for finding in check(f"{folder}/{name}")]
    show(done, arguments.seconds / len(CONTESTANTS))


def show(done: dict[str, list[tuple[float, float]]], seconds: float) -> None:
    """A row for each contestant, of `seconds` in which it had its turn."""
    print(f"{'':12} {'requests/s':>10} {'':>6} {'CPU us':>8} {'':>6} {'p50 ms':>8} {'p99 ms':>8}")
    alone = len(done["no journal"]), statistics.mean(used for used, _ in done["no journal"])
    for name, requests in done.items():
        used = statistics.mean(used for used, _ in requests)
        took = sorted(took for _, took in requests)
        print(
            f"{name:12} {len(requests) / seconds:10,.0f} {len(requests) / alone[0]:6.3f}"
            f" {used * 1e6:8.1f} {used / alone[1]:6.3f}"
            f" {took[len(took) // 2] * 1e3:8.2f} {took[len(took) * 99 // 100] * 1e3:8.1f}"
        )


if __name__ == "__main__":
    main()
