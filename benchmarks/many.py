"""Many repositories in one server (`serve --root`): `python -m benchmarks.many [--repositories N] [--open N]`.

Each has a few resources, its index, its access journal and durability in full. Two workers answer reads of one resource:

    first answer    of a repository that no worker has open: one client asks each of them once
    round-robin     clients ask one after the other for all of them, so that nearly every request opens one and closes one
    few of many     the same, but for so many as a worker may have open at once: they stay open
    one             the same repository each time

What is resident at the end is said of each worker, with the threads and the descriptors that it has.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import Ask, crew
from benchmarks.processes import WORKERS, Server, running
from benchmarks.scripts import in_turn
from benchmarks.store import AUTHOR
from gitstore import Store, Update, init
from gitstore.fhir.ids import ResourceId

RESOURCES = 20
CLIENTS = 8


def fill(folder: Path, count: int) -> list[str]:
    """So many repositories, all copies of one; their names."""
    template = folder.parent / "template.git"
    with Store.open(init(template)) as store:
        for number in range(RESOURCES):
            id = ResourceId("Patient", str(number))
            store.commit([Update(id, {"resourceType": "Patient", "id": id.id, "active": True})], AUTHOR)
    names = [f"practice-{number}" for number in range(count)]
    for name in names:
        shutil.copytree(template, folder / f"{name}.git", symlinks=True)
    return names


def read(name: str) -> Ask:
    return Ask("read", f"GET /{name}/fhir/Patient/7 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def ask(what: str, server: Server, names: Sequence[str], seconds: float) -> None:
    """Clients that ask for these names in turn, each from another one on; and what came of it."""
    with crew(server.port, in_turn([read(name) for name in names]), CLIENTS) as clients:
        before = server.cpu()
        found = clients.run(seconds)
        cpu = (server.cpu() - before) / found.count
    if found.failed:
        raise SystemExit(f"{found.failed} wrong answers: {found.errors}")
    taken = sorted(each for times in found.taken.values() for each in times)
    middle, high = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    print(
        f"{what:<24} {found.count / found.spent:8.0f} requests/s   p50 {middle * 1e3:7.1f} ms   "
        f"p99 {high * 1e3:7.1f} ms   {cpu * 1e3:5.1f} ms of processor each"
    )


def first_answers(server: Server, names: Sequence[str]) -> list[float]:
    """Seconds to the answer, of each."""
    taken = []
    for name in names:
        begun = time.perf_counter()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(read(name).request)
            answer = connection.recv(65536)
        taken.append(time.perf_counter() - begun)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{name}: {answer[:200]!r}")
    return taken


def tell_workers(server: Server) -> None:
    for pid, memory in zip(server.workers(), server.memory(), strict=True):
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        print(
            f"worker: {memory['Rss']:.0f} MB resident, {memory['Pss']:.0f} MB its share; {threads} threads, {files} descriptors"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="What many repositories in one server cost.")
    parser.add_argument("--repositories", type=int, default=1000)
    parser.add_argument("--open", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "root")
        folder.mkdir()
        names = fill(folder, options.repositories)
        more = ("--allow-anonymous", "--port", "0", "--workers", str(WORKERS), "--open", str(options.open))
        with running("api", "--root", str(folder), *more) as server:
            print(
                f"{len(names)} repositories, {WORKERS} workers, {options.open} open in each; started in {server.started:.1f} s"
            )
            tell_workers(server)
            taken = sorted(first_answers(server, names))
            print(
                f"{'first answer':<24} p50 {statistics.median(taken) * 1e3:.1f} ms   "
                f"p99 {taken[len(taken) * 99 // 100] * 1e3:.1f} ms   longest {taken[-1] * 1e3:.1f} ms"
            )
            tell_workers(server)
            ask("round-robin over all", server, names, options.seconds)
            tell_workers(server)
            ask("few of many", server, names[: options.open], options.seconds / 2)
            ask("one", server, names[:1], options.seconds / 2)
            tell_workers(server)


if __name__ == "__main__":
    main()
