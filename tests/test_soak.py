"""The soak of benchmarks/soak.py: a short one, and whether its checks would find what they are there for.

A longer one: `GIT_FHIR_SOAK_MINUTES=5 pytest tests/test_soak.py`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import soak_checks as checks
from benchmarks.soak import timetable
from benchmarks.soak_clients import Acknowledged, Broken, Ledger, Refused
from benchmarks.soak_resources import patient
from benchmarks.soak_server import Use
from gitstore import Author, Store, Update
from gitstore.fhir.ids import ResourceId

ROOT = Path(__file__).parents[1]
MINUTES = os.environ.get("GIT_FHIR_SOAK_MINUTES", "0.1")
STORM = checks.Weather(kills=[(100.0, 100.1)], full=[[200.0, 205.0, 210.0]])


def test_full_load_while_everything_goes_wrong(tmp_path: Path) -> None:
    """Kills, reloads, a full disk (where one may be mounted), slow clients, maintenance: all that was answered is true."""
    report = tmp_path / "report.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.soak",
        "--minutes",
        MINUTES,
        "--clients",
        "8",
        "--json",
        report,
    ]
    done = subprocess.run(
        [*map(str, command), "--folder", str(tmp_path / "soak")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(report.read_bytes())
    assert found["faults"] == found["verify"]["findings"] == []
    assert found["kills"] >= 3
    assert found["settings read anew"] >= 1
    assert found["acknowledged writes"] > 20
    assert found["disk"] == "none" or found["statuses"]["507"] > 0
    assert found["maintenance"]


def refused(
    status: int, *, at: float = 50.0, retry_after: str | None = None, text: str = "PUT /fhir"
) -> Refused:
    return Refused("read", status, at, at + 0.5, retry_after, text)


@pytest.mark.parametrize(
    ("answer", "is_excused"),
    [
        (refused(503, retry_after="1"), True),
        (refused(503), False),
        (refused(507, at=202), True),
        (refused(507, at=202, text="GET /fhir"), False),
        (refused(507, at=207, text="GET /fhir"), True),
        (refused(507, at=195), False),
        (refused(507, at=215), False),
        (refused(500, at=205), False),
        (refused(500, at=205, text="the disk did not confirm it"), True),
        (refused(404), False),
    ],
)
def test_only_what_is_announced_is_excused(answer: Refused, *, is_excused: bool) -> None:
    """docs/operations.md: 503 with Retry-After; 507 while the disk is full."""
    found = list(checks.faults_of_answers([Ledger(refused=[answer])], STORM))

    assert (found == []) is is_excused


@pytest.mark.parametrize(
    ("sound", "seen", "is_excused"), [(99, 101, True), (101, 102, False), (97, 99, False)]
)
def test_a_connection_breaks_only_with_its_worker(sound: float, seen: float, *, is_excused: bool) -> None:
    """A kill lies between the last answer and the break."""
    ledger = Ledger(broken=[Broken("read", sound, seen, "reset")])

    assert (list(checks.faults_of_answers([ledger], STORM)) == []) is is_excused


def test_what_is_missing_half_there_or_wrongly_there_is_found(store: Store, record: str, ada: Author) -> None:
    """Writes of three marks: one acknowledged, one refused, and one of a transaction whose other two parts are missing."""
    for number in (1, 2, 3):
        body = patient(f"w1-{number}") | {"id": f"p{number}"}
        store.commit([Update(ResourceId("Patient", body["id"]), body)], ada)
    right = Acknowledged("Patient/p1", 1, "w1-1")

    def faults(**ledger: object) -> list[str]:
        return list(checks.faults_of_record(record, [Ledger(**ledger)]))  # type: ignore[arg-type]  # any of its fields

    assert faults(acknowledged=[right]) == []
    assert len(faults(acknowledged=[right._replace(version=2)])) == 1
    assert len(faults(acknowledged=[right._replace(mark="w1-2")])) == 1
    assert len(faults(acknowledged=[right._replace(mark=None)])) == 1
    assert len(faults(undone={"w1-2", "w1-9"})) == 1
    assert len(faults(triples=["w1-3"])) == 1


def test_growth_is_judged_by_the_last_third() -> None:
    """Of a worker that has lived long enough; one that was just born may still grow."""
    flat = [Use(second, 1, 2000, 1000, 500 * min(second, 300), 40) for second in range(0, 900, 5)]
    growing = [use._replace(heap=int(use.at) * 100, descriptors=int(use.at)) for use in flat]

    assert list(checks.growth(flat).faults("it")) == []
    assert len(list(checks.growth(growing).faults("it"))) == 2
    assert list(checks.growth(growing[:20]).faults("it")) == []


def test_what_the_server_counts_is_compared() -> None:
    ledger = Ledger()
    ledger.statuses["read", 200] = 1000
    right = {
        "git_fhir_requests_total": 1010.0,
        "git_fhir_requests_total 200": 1000.0,
        "git_fhir_commits_total": 7.0,
    }

    assert list(checks.faults_of_metrics(right, [ledger], 7)) == []
    assert len(list(checks.faults_of_metrics(right | {"git_fhir_requests_total": 900.0}, [ledger], 7))) == 1
    assert len(list(checks.faults_of_metrics(right, [ledger], 8))) == 1


@pytest.mark.parametrize("seconds", [9.0, 150.0, 1800.0])
def test_everything_happens_and_the_disk_is_emptied_each_time(seconds: float) -> None:
    """From half time on the settings stay, so that one worker lives long enough to be watched."""
    events = timetable(seconds, fills=True)
    what = [event.what for event in events]

    assert set(what) == {"kill", "hang up", "maintain", "fill", "fill up", "empty"}
    assert [each for each in what if each in ("fill", "fill up", "empty")] == [
        "fill",
        "fill up",
        "empty",
    ] * what.count("fill")
    assert max(event.at for event in events) < seconds
    assert max(event.at for event in events if event.what == "hang up") < seconds / 2
