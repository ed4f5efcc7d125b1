"""How long each view of the past takes in a record with much of it: `python -m benchmarks.audit --folder PATH`

100,000 resources and 500,000 commits by 20 people over five years (benchmarks/audit_record.py), made in the folder once and
used again after that. Each view is asked for in many places: inside this process, without a network, and some of them of a
server. Times are of the clock, in milliseconds; "CPU" is what this thread needed for it. The aim is a median below 100.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

from falcon.testing import create_environ

from api.app import create_app
from benchmarks.audit_record import AUTHORS, BUSY, THROWAWAY, filled
from benchmarks.processes import git_fhir, running
from benchmarks.scripts import TYPES, name
from gitstore import Commit, Past, Store
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId

AIM = 100.0
PAGE = {"Accept": "text/html"}
HTTP = (
    "read",
    "_history",
    "_history?_author=",
    "_history?_at=",
    "$changes?from=",
    "page: _history",
    "page: front",
)
"""The views that a server is asked for, too."""


@dataclass
class View:
    """One kind of view, and where to ask for it. Paths are absolute."""

    name: str
    paths: Sequence[str]
    headers: Mapping[str, str] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def row(self) -> dict[str, str | float]:
        times = sorted(self.times)
        return {
            "view": self.name,
            "asked": len(times),
            "median": statistics.median(times),
            "p99": times[min(len(times) - 1, len(times) * 99 // 100)],
            "max": times[-1],
            "CPU": statistics.median(self.cpu),
        }


# Where to ask


class Places:
    """Random places of the record, always the same ones."""

    def __init__(self, store: Store, resources: int, count: int) -> None:
        self._store = store
        self._resources = resources
        self._count = count
        self._chance = random.Random(7)
        self.head = store.snapshot().commit

    def each(self, make: Callable[[], str]) -> list[str]:
        return [make() for _ in range(self._count)]

    def commit(self) -> Commit:
        return self._store.snapshot(self._chance.randrange(2, self.head.sequence + 1)).commit

    def instant(self) -> str:
        return format_instant(self.commit().last_updated)

    def day(self) -> str:
        return self.instant()[:10]

    def type(self) -> str:
        return self._chance.choice(TYPES)

    def author(self) -> str:
        author = self._chance.choice(AUTHORS)
        return quote(self._chance.choice((author.name, author.email)))

    def resource(self) -> ResourceId:
        """One that is there; the older ones, which have more versions, come as often as the others."""
        while True:
            found = ResourceId(*name(self._chance.randrange(1, self._resources)))
            newest = self._store.snapshot().newest(found)
            if newest is not None and not newest.deleted:
                return found

    def hot(self) -> ResourceId:
        """One of those with some hundred versions."""
        return ResourceId(*name(self._chance.randrange(5, 25)))

    def two(self) -> str:
        """Two versions of one that has many, for $diff."""
        newest = self._store.snapshot().newest(BUSY)
        assert newest is not None
        first, last = sorted(self._chance.sample(range(1, newest.version_id + 1), 2))
        return f"fromVersion={first}&toVersion={last}"

    def deep(self) -> str:
        """A page somewhere in the middle of a long history."""
        return f"_page={self.head.sequence}.o{self.commit().sequence}.0"

    def within(self) -> ResourceId:
        return self._chance.choice([self.resource(), self.hot()])


def histories(places: Places) -> Iterator[View]:
    """The three histories, with and without each of their parameters."""
    asked: dict[str, Callable[[], str]] = {
        "": lambda: "",
        "_since=": lambda: urlencode({"_since": places.instant()}),
        "_at=": lambda: f"_at={places.day()}",
        "_author=": lambda: f"_author={places.author()}",
        "_at=&_since=": lambda: f"_at={places.day()}&" + urlencode({"_since": places.instant()}),
        "_at=&_author=": lambda: f"_at={places.day()}&_author={places.author()}",
        "_count=1000": lambda: "_count=1000",
    }
    for text, query in asked.items():
        mark = "?" if text else ""
        for scope, where in (
            ("[type]/[id]/", lambda: f"{places.within()}/"),
            (f"{BUSY}/", lambda: f"{BUSY}/"),
            ("[type]/", lambda: f"{places.type()}/"),
            ("", lambda: ""),
        ):
            paths = places.each(lambda where=where, query=query: f"/fhir/{where()}_history?{query()}")  # type: ignore[misc]  # bound now
            yield View(f"{scope}_history{mark}{text}", paths)
    middle = ("[type]/", lambda: f"{places.type()}/"), ("", lambda: "")
    for scope, where in middle:
        yield View(
            f"{scope}_history, a page in the middle",
            places.each(lambda where=where: f"/fhir/{where()}_history?{places.deep()}"),  # type: ignore[misc]  # bound now
        )
    yield View(
        "_history?_author=, a page in the middle",
        places.each(lambda: f"/fhir/_history?_author={places.author()}&{places.deep()}"),
    )


def comparisons(places: Places) -> Iterator[View]:
    """$diff, $blame and $changes."""
    begin = places.day()
    yield View("[type]/[id]/$diff", places.each(lambda: f"/fhir/{places.within()}/$diff"))
    yield View(f"{BUSY}/$diff of any two versions", places.each(lambda: f"/fhir/{BUSY}/$diff?{places.two()}"))
    yield View("[type]/[id]/$blame", places.each(lambda: f"/fhir/{places.resource()}/$blame"))
    yield View("$blame with some hundred versions", places.each(lambda: f"/fhir/{places.hot()}/$blame"))
    yield View(f"{BUSY}/$blame", [f"/fhir/{BUSY}/$blame"] * 5)
    yield View("$changes?from=", places.each(lambda: f"/fhir/$changes?from={places.day()}"))
    yield View(
        "$changes?from=&to=",
        places.each(lambda: "/fhir/$changes?from={}&to={}".format(*sorted((places.day(), places.day())))),
    )
    yield View(
        "$changes?from=&_type=", places.each(lambda: f"/fhir/$changes?from={begin}&_type={places.type()}")
    )
    yield View(
        "$changes?from=&_type= of which there are none", [f"/fhir/$changes?from={begin}&_type=Account"] * 20
    )


def pages(places: Places) -> Iterator[View]:
    """What people see."""
    for title, make in {
        "front": lambda: "/fhir",
        "[type]/[id]": lambda: f"/fhir/{places.resource()}",
        "[type]/[id]/_history": lambda: f"/fhir/{places.within()}/_history",
        f"{BUSY}/_history": lambda: f"/fhir/{BUSY}/_history",
        "[type]/_history": lambda: f"/fhir/{places.type()}/_history",
        "_history": lambda: "/fhir/_history",
        "_history?_author=": lambda: f"/fhir/_history?_author={places.author()}",
        "[type]/[id]/$diff": lambda: f"/fhir/{places.within()}/$diff",
        "[type]/[id]/$blame": lambda: f"/fhir/{places.resource()}/$blame",
        "commits/[id]": lambda: f"/commits/{places.commit().id}",
        "at/[day]/fhir": lambda: f"/at/{places.day()}/fhir",
    }.items():
        yield View(f"page: {title}", places.each(make), PAGE)


def reads(places: Places) -> Iterator[View]:
    """Reads of now, to set the rest beside, and of the past."""
    yield View("read", places.each(lambda: f"/fhir/{places.resource()}"))
    for title, make in {
        "read": lambda: f"{places.within()}",
        "[type]/[id]/_history": lambda: f"{places.within()}/_history",
        "[type]/_history": lambda: f"{places.type()}/_history",
        "_history": lambda: "_history",
        "_history?_author=": lambda: f"_history?_author={places.author()}",
        "$blame": lambda: f"{places.resource()}/$blame",
    }.items():
        below = [f"/at/{places.day()}/fhir/{path}" for path in places.each(make)]
        yield View(f"at/[day]/fhir/: {title}", below)


SEARCHES = (
    "Patient?family=Family 12",
    "Patient?identifier=http://hospital.example/mrn|00000120",
    "Patient?gender=female&birthdate=gt1990",
    "Condition?code=38341003",
    "Condition?code=38341003&_sort=-onset-date",
    "Observation?code=http://loinc.org|8480-6&_total=none",
    "Observation?subject=Patient/r-120",
    "Condition?patient.family=Family 125",
    "Patient?_sort=-_lastUpdated",
    "Encounter?date=2020&_include=Encounter:patient",
)


def searches(base: str, point: str) -> Iterator[View]:
    for question in SEARCHES:
        path = f"{base}/{quote(question, safe='/?&=:,|$*%')}"
        yield View(f"{point}{question.replace('|', chr(92) + '|')}", [path] * 20)


# Asking


def ask(app: Callable[..., Iterable[bytes]], view: View, path: str) -> None:
    """Once, in this process. An answer that says of something that it wasn't there yet is one, too."""
    path, _, query = path.partition("?")
    environ = create_environ(path, query_string=query, headers={"Host": "localhost", **view.headers})
    told: list[str] = []
    wall, cpu = time.perf_counter(), time.thread_time()
    answer = app(environ, lambda status, *_: told.append(status))
    size = sum(len(piece) for piece in answer)
    view.times.append(1000 * (time.perf_counter() - wall))
    view.cpu.append(1000 * (time.thread_time() - cpu))
    if not told[0].startswith(("200", "404", "410")) or not size:
        raise RuntimeError(f"{path}?{query}: {told[0]}")


def measured(store: Store, views: Sequence[View]) -> list[dict[str, str | float]]:
    """One view after the other; each is warmed up by one question."""
    app = create_app(store, store.settings)
    rows = []
    for view in views:
        ask(app, View("", (), view.headers), view.paths[0])
        for path in view.paths:
            ask(app, view, path)
        rows.append(view.row())
    return rows


def over_http(record: Path, views: Sequence[View]) -> list[dict[str, str | float]]:
    """Of a server with two workers and all defaults. "CPU" is the workers', for each request in the mean."""
    rows = []
    with running(*git_fhir(str(record))) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for view in views:
            one = View(view.name, view.paths)
            before = server.cpu()
            for path in view.paths:
                begun = time.perf_counter()
                client.request("GET", path, headers=dict(view.headers))
                response = client.getresponse()
                response.read()
                one.times.append(1000 * (time.perf_counter() - begun))
                if response.status not in (200, 404, 410):
                    raise RuntimeError(f"{path}: {response.status}")
            one.cpu.append(1000 * (server.cpu() - before) / len(view.paths))
            rows.append(one.row())
    return rows


def table(rows: Sequence[Mapping[str, str | float]]) -> str:
    lines = ["| view | asked | median | p99 | max | CPU |", "|---|---|---|---|---|---|"]
    for row in rows:
        over = " (!)" if float(row["median"]) > AIM else ""
        figures = " | ".join(f"{row[each]:.1f}" for each in ("median", "p99", "max", "CPU"))
        lines.append(f"| `{row['view']}`{over} | {row['asked']} | {figures} |")
    return "\n".join(lines)


def of_states(store: Store, places: Places) -> list[View]:
    """Searches of now, of a state near by and of one far away, whose indexes are made beforehand."""
    views = [*searches("/fhir", "")]
    head = places.head.sequence
    for title, back in (("near", head // 100), ("far", head // 2)):
        commit = store.snapshot(head - back).commit
        begun = time.perf_counter()
        with Past.reading(store.past(commit, None)):
            print(f"index of {back:,} commits before: {time.perf_counter() - begun:.1f} s", flush=True)
        views += searches(f"/at/{commit.id}/fhir", f"{title}: ")
    return views


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resources", type=int, default=100_000)
    parser.add_argument("--commits", type=int, default=500_000)
    parser.add_argument("--count", type=int, default=100, help="questions for each view")
    parser.add_argument("--only", default="", help="views whose name has this in it")
    parser.add_argument("--folder", required=True, help="where the record is, or is to be made: some 2 GB")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    record = filled(Path(arguments.folder) / "record.git", arguments.resources, arguments.commits)
    load = os.getloadavg()[0]
    with Store.open(record, THROWAWAY) as store:
        places = Places(store, arguments.resources, arguments.count)
        every = [*reads(places), *histories(places), *comparisons(places), *pages(places)]
        chosen = [view for view in every if arguments.only in view.name]
        rows = measured(store, chosen)
        if not arguments.only:
            rows += measured(store, of_states(store, places))
    http = [] if arguments.only else over_http(record, [view for view in every if view.name in HTTP])
    loads = [load, os.getloadavg()[0]]
    if arguments.json:
        print(json.dumps({"inside": rows, "http": http, "load average": loads}, indent=2))
        return
    print(f"{places.head.sequence:,} commits; load average {loads[0]:.1f} to {loads[1]:.1f}\n\n{table(rows)}")
    if http:
        print(f"\nOver HTTP, two workers:\n\n{table(http)}")


if __name__ == "__main__":
    main()
