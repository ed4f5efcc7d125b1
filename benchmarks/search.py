"""What searching costs, and what keeping the index costs: `python -m benchmarks.search`

A record of synthetic patients (benchmarks/patients.py) and one of a tenth of it answer the same questions over HTTP, in
turns: read the ratios. The tables also tell the size of the index, how fast it is made anew, and what it adds to writes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from benchmarks.patients import Person, Population, Resource
from benchmarks.questions import LONG, QUESTIONS, asked
from benchmarks.store import AUTHOR
from gitstore import Settings, Store, Update, init
from gitstore.fhir import json as fhir_json
from gitstore.fhir.ids import ResourceId
from gitstore.search.extract import extract
from gitstore.search.index import of_contents
from gitstore.search.parameters import Registry

THROWAWAY = Settings(durability="off", validation="off", maintenance="off")
PEOPLE = 20
"""How many patients are asked about."""


def updates(resources: Sequence[Resource]) -> list[Update]:
    return [Update(ResourceId(each["resourceType"], each["id"]), each) for each in resources]


def filled(path: Path, population: Population, patients: int) -> None:
    """A record of so many patients, a commit for each. Its index is made in the end, since that is faster."""
    with Store.open(init(path), replace(THROWAWAY, search="off")) as store:
        store.commit(updates(population.shared), AUTHOR, interaction="transaction")
        for number in range(patients):
            _, resources = population.patient(number)
            store.commit(updates(resources), AUTHOR, interaction="transaction")
        store.maintain()
    Store.open(path, THROWAWAY).close()


# Questions over HTTP


class Client:
    """One connection to a server."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def get(self, url: str) -> bytes:
        self._http.request("GET", f"/fhir/{quote(url, safe='/?&=:,|$*%')}")
        response = self._http.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{url}: {response.status} {body.decode()[:1000]}")
        return body

    def last_page(self, url: str) -> str:
        """The last page of 50 of a list."""
        page, last = f"{url}&_count=1000", f"{url}&_count=50"
        while following := next(
            (link["url"] for link in json.loads(self.get(page))["link"] if link["relation"] == "next"), None
        ):
            query = urlsplit(following).query
            page = f"{url.partition('?')[0]}?{query}"
            last = page.replace("_count=1000", "_count=50")
        return last


@contextmanager
def server(record: Path) -> Iterator[Client]:
    """A server of one process."""
    command = [sys.executable, "-m", "api", str(record), "--allow-anonymous", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield Client(int(process.stdout.readline().rsplit(":", 1)[1].removesuffix("/fhir\n")))
        finally:
            process.terminate()


@dataclass(frozen=True)
class Answered:
    """How long a question took, in milliseconds: in the record, and in its tenth. `total` is of the last patient."""

    question: str
    large: list[float]
    small: list[float]
    total: int | None

    @property
    def ratio(self) -> float:
        return statistics.median(self.large) / statistics.median(self.small)


def answers(large: Client, small: Client, people: Sequence[Person], rounds: int) -> list[Answered]:
    """Every question to both servers, about one patient after the other. The first round is a warm-up."""
    ends = [client.last_page(LONG) for client in (large, small)]
    found = []
    for question in (*QUESTIONS, "last page of " + LONG):
        urls = list(asked(question, people))
        times: tuple[list[float], list[float]] = ([], [])
        for round in range(rounds + 1):
            for url in urls:
                for client, end, taken in zip((large, small), ends, times, strict=True):
                    start = time.perf_counter()
                    body = client.get(end if question.startswith("last") else url)
                    if round:
                        taken.append(1000 * (time.perf_counter() - start))
                    if client is large:
                        total = json.loads(body).get("total")
        found.append(Answered(question, *times, total))
    return found


def table(found: Sequence[Answered]) -> str:
    lines = ["| question | found | median, ms | worst, ms | ratio to a tenth |", "|---|---|---|---|---|"]
    for each in found:
        total = "" if each.total is None else f"{each.total:,}"
        question = each.question.replace("|", "\\|")
        median, worst = statistics.median(each.large), max(each.large)
        lines.append(f"| `{question}` | {total} | {median:.1f} | {worst:.1f} | {each.ratio:.2f} |")
    medians = [statistics.median(each.large) for each in found]
    ratio = statistics.median(each.ratio for each in found)
    lines.append(f"| median of all | | {statistics.median(medians):.1f} | {max(medians):.1f} | {ratio:.2f} |")
    return "\n".join(lines)


# The index


@dataclass(frozen=True)
class Row:
    what: str
    measured: str
    goal: str = ""


def index_of(record: Path) -> Path:
    """The file of the index."""
    return next(record.rglob("index.sqlite")).resolve()


def size(record: Path) -> list[Row]:
    """Bytes of the index beside those of the packs, and the shares of its tables and indexes."""
    packs = sum(path.stat().st_size for path in (record / "objects").rglob("*") if path.is_file())
    with sqlite3.connect(index_of(record)) as connection:
        rows = connection.execute(
            "SELECT name, sum(pgsize) FROM dbstat WHERE aggregate = 0 GROUP BY name ORDER BY 2 DESC"
        ).fetchall()
        (versions,) = connection.execute("SELECT count(*) FROM versions").fetchone()
    whole = sum(bytes for _, bytes in rows)
    return [
        Row(
            f"objects of {versions:,} versions",
            f"{packs / 2**20:,.1f} MiB, {packs / versions:,.0f} bytes each",
        ),
        Row(
            "the index",
            f"{whole / 2**20:,.1f} MiB, {whole / versions:,.0f} bytes each, {whole / packs:.2f} x",
            "under 3 x",
        ),
        *(
            Row(f"- {name}", f"{bytes / 2**20:,.1f} MiB, {100 * bytes / whole:.1f} %")
            for name, bytes in rows
            if bytes > whole / 200
        ),
    ]


def rebuild(record: Path) -> Row:
    with Store.open(record, THROWAWAY) as store:
        resources = sum(store.snapshot().counts().values())
        wall, cpu = time.perf_counter(), time.process_time()
        store.reindex()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Row(
        f"the index of {resources:,} resources made anew",
        f"{resources / wall:,.0f} resources/s; {resources / cpu:,.0f} for each second of CPU in this process",
        "2,000 resources/s per core",
    )


def costs(resources: Sequence[Resource]) -> list[Row]:
    """Microseconds of CPU for each resource: before the lock, and under it."""
    registry = Registry()
    for each in resources[:1000]:
        extract(registry, each)
    bodies = [fhir_json.dumps(each) for each in resources]
    taken = []
    for body in bodies:
        resource = fhir_json.loads_trusted(body)
        start = time.perf_counter()
        extract(registry, resource)
        taken.append(1e6 * (time.perf_counter() - start))
    start = time.process_time()
    contents = [(ResourceId(each["resourceType"], each["id"]), extract(registry, each)) for each in resources]
    extracted = time.process_time() - start
    start = time.process_time()
    of_contents(contents).close()
    written = time.process_time() - start
    mean, rows = (1e6 * each / len(resources) for each in (extracted, written))
    return [
        Row(
            "extraction", f"median {statistics.median(taken):,.0f} us, mean {mean:,.0f} us", "at most 400 us"
        ),
        Row("rows into a new index in memory", f"mean {rows:,.0f} us"),
    ]


def writes(folder: Path, population: Population, seconds: float) -> list[Row]:
    """Durable updates of many kinds of resources a second, with search and without it, in turns."""
    rows = []
    with ExitStack() as stack:
        stores = []
        numbers: list[Iterator[int]] = []
        bodies = [each for number in range(10) for each in population.patient(number)[1]]
        for search in ("on", "off"):
            settings = Settings(validation="off", search="on" if search == "on" else "off")
            store = stack.enter_context(Store.open(init(folder / f"{search}.git"), settings))
            for start in range(0, len(bodies), 500):
                store.commit(updates(bodies[start : start + 500]), AUTHOR)
            stores.append(store)
            numbers.append(iter(range(10**9)))
        for clients in (1, 32):
            rates: list[list[float]] = [[], []]
            for round in range(6):
                for store, number, rate in zip(stores, numbers, rates, strict=True):
                    done = _rate(partial(_write, store, bodies), number, clients, seconds)
                    if round:  # the first is a warm-up
                        rate.append(done)
            on, off = map(statistics.median, rates)
            rows.append(
                Row(
                    f"updates, {clients} client{'s' if clients > 1 else ''}",
                    f"{on:,.0f}/s with search, {off:,.0f}/s without: {on / off:.2f} x",
                )
            )
    return rows


def _write(store: Store, bodies: Sequence[Resource], number: int) -> None:
    body = bodies[number * 7919 % len(bodies)]
    store.commit(updates([{**body, "language": f"x-{number}"}]), AUTHOR)


def _rate(write: Callable[[int], None], numbers: Iterator[int], clients: int, seconds: float) -> float:
    done = [0] * clients
    start = time.perf_counter()
    end = start + seconds
    lock = threading.Lock()

    def run(client: int) -> None:
        while time.perf_counter() < end:
            with lock:
                number = next(numbers)
            write(number)
            done[client] += 1

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def rows_table(rows: Sequence[Row]) -> str:
    lines = ["| what | measured | goal |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row.what} | {row.measured} | {row.goal} |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="of each question about each patient")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each round of writes")
    parser.add_argument("--folder", type=Path, help="where to keep the records for the next run")
    parser.add_argument(
        "--only", choices=["questions", "index", "writes"], action="append", help="not everything"
    )
    arguments = parser.parse_args()
    population = Population.known()
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent.parent, prefix=".bench-") as scratch:
        folder = arguments.folder or Path(scratch)
        records = [folder / f"{number}.git" for number in (arguments.patients, arguments.patients // 10)]
        for record in records:
            if not record.exists():
                filled(record, population, int(record.stem))
        for part in arguments.only or ("questions", "index", "writes"):
            print(PARTS[part](records, population, Path(scratch), arguments), end="\n\n", flush=True)


def _questions(records: list[Path], population: Population, _: Path, arguments: Any) -> str:
    people = [population.patient(number)[0] for number in range(min(PEOPLE, arguments.patients // 10))]
    with server(records[0]) as large, server(records[1]) as small:
        return table(answers(large, small, people, arguments.rounds))


def _index(records: list[Path], population: Population, _: Path, __: Any) -> str:
    some = islice((each for number in range(10) for each in population.patient(number)[1]), 2000)
    return rows_table([*size(records[0]), rebuild(records[0]), *costs(list(some))])


def _writes(_: list[Path], population: Population, scratch: Path, arguments: Any) -> str:
    return rows_table(writes(scratch, population, arguments.seconds))


PARTS = {"questions": _questions, "index": _index, "writes": _writes}


if __name__ == "__main__":
    main()
