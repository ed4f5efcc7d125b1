"""What the access journal costs: requests a second of two processes of 16 threads, with and without it.

    python -m benchmarks.journal [--seconds S] [--threads N] [--folder PATH]
    python -m benchmarks.journal --http [--seconds S] [--clients N] [--folder PATH]

A request is 0.5 ms of Python that holds the interpreter lock, and then a line in the journal. The contestants take
turns of 0.1 s in the same threads, so that whatever else the machine does meets them all alike:

    no journal      no line at all
    journal         each line kept in the ring of its process by the thread that answers, and chained by another

With --http clients ask two workers for one small Patient over connections that stay open, durable as by default, and the
journal is switched on and off between turns (journal_switch.py): two sets of servers differ by more than a journal costs, as
the scheduler and the interpreter lock have it. Each worker has as many clients. (So each is a process of `python -m api`
for itself, on the same record.) Of two neighbouring turns the ratio is taken, and of all ratios the median.

The aim is at least 0.95 of the requests.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import load, scripts
from benchmarks.processes import WORKERS, Server, git_fhir, running
from benchmarks.store import AUTHOR
from gitstore import Store, Update, init
from gitstore.fhir.ids import ResourceId
from gitstore.journal.appending import Journal
from gitstore.journal.checking import check
from gitstore.journal.lines import Entry

PROCESSES = 2
HANDLER = 0.0005
TURN = 0.1
HTTP_TURN = 0.4

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


CONTESTANTS: dict[str, Contestant] = {
    "no journal": nothing,
    "journal": journal,
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


# Over HTTP


@dataclass
class Side:
    """One of the two that take turns over HTTP. `rates` are requests/s, `cpu` the workers' microseconds for each."""

    flag: Path
    state: str
    servers: list[Server]
    crews: list[load.Crew]
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)

    def turn(self, seconds: float) -> None:
        with self.flag.open("r+") as file:
            file.write(self.state)
        before = self._cpu()
        with ThreadPoolExecutor(len(self.crews)) as pool:
            tallies = list(pool.map(lambda crew: crew.run(seconds), self.crews))
        used = self._cpu() - before
        whole = load.Tally()
        for tally in tallies:
            whole.add(tally)
        if whole.failed:
            raise SystemExit(f"wrong answers: {whole.errors}")
        self.rates.append(whole.count / whole.spent)
        self.cpu.append(1e6 * used / whole.count)
        self.taken += whole.taken["read"]

    def _cpu(self) -> float:
        return sum(server.cpu() for server in self.servers)


class Reads:
    """One client's script: the same Patient again and again."""

    _ask = load.Ask("read", scripts.get("Patient/x"))

    def next(self) -> load.Ask:
        return self._ask


def over_http(folder: Path, seconds: float, clients: int) -> dict[str, Side]:
    """So many seconds of turns. The first, in which caches fill, don't count."""
    with ExitStack() as stack:
        sides = _sides(stack, folder, clients)
        for number in range(-2, round(seconds / HTTP_TURN / 2)):
            for side in sides.values() if number % 2 else reversed(sides.values()):
                side.turn(HTTP_TURN)
        for side in sides.values():
            del side.rates[:2], side.cpu[:2]
    assert not list(check(str(folder / "record.git")))
    return sides


def _sides(stack: ExitStack, folder: Path, clients: int) -> dict[str, Side]:
    path, flag = folder / "record.git", folder / "flag"
    flag.write_text("0", encoding="ascii")
    patient = Update(ResourceId("Patient", "x"), scripts.content(0, "x", 1))
    with Store.open(init(path)) as store:
        store.commit([patient], AUTHOR)
    servers, crews = [], []
    for _ in range(WORKERS):
        _, *options = git_fhir(str(path))
        command = ("benchmarks.journal_switch", str(flag), *options, "--workers", "1")
        servers.append(stack.enter_context(running(*command)))
        crews.append(stack.enter_context(load.crew(servers[-1].port, lambda _: Reads(), clients // WORKERS)))
    return {name: Side(flag, state, servers, crews) for name, state in (("off", "0"), ("on", "1"))}


def show_http(sides: dict[str, Side]) -> None:
    """A row for each side; ratios with the quartiles of what single turns say."""
    print(f"{'journal':8} {'requests/s':>10} {'':>20} {'CPU us':>7} {'':>20} {'p50 ms':>7} {'p99 ms':>7}")
    off = sides["off"]
    for name, side in sides.items():
        took = sorted(side.taken)
        print(
            f"{name:8} {statistics.median(side.rates):10,.0f} {_ratio(side.rates, off.rates):>20}"
            f" {statistics.median(side.cpu):7.0f} {_ratio(side.cpu, off.cpu):>20}"
            f" {took[len(took) // 2] * 1e3:7.2f} {took[len(took) * 99 // 100] * 1e3:7.1f}"
        )


def _ratio(ours: list[float], theirs: list[float]) -> str:
    if ours is theirs:
        return ""
    low, middle, high = statistics.quantiles(
        (our / their for our, their in zip(ours, theirs, strict=True)), n=4
    )
    return f"{middle:.3f} ({low:.2f}-{high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--folder", help="where the journals are made; a temporary folder by default")
    parser.add_argument("--http", action="store_true", help="whole servers")
    parser.add_argument("--clients", type=int, default=8, help="with --http (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.http:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            show_http(over_http(Path(folder), arguments.seconds, arguments.clients))
        return
    in_process(arguments)


def in_process(arguments: argparse.Namespace) -> None:
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
