"""import --jobs: several processes prepare, and nobody can tell from what is written."""

from __future__ import annotations

import itertools
import json
import os
import random
import secrets
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import opening, preparing, transfer
from cli.documents import Document
from cli.importing import Importer, Report
from cli.main import main
from cli.units import Planner
from gitstore import ANONYMOUS, Settings, Store
from tests.cli.conftest import (
    MINUTE,
    START,
    GitFhir,
    bundle,
    command,
    git,
    head,
    lines,
    open_store,
    patient,
    report,
)
from tests.conftest import copy_record

WARDS = ("w1", "w2", "w3")
PROFILE = "http://example.org/born"


def ward(name: str) -> str:
    """A conditional create: the second one of a name finds the first."""
    identifier = {"system": "http://example.org", "value": name}
    criteria = f"identifier=http://example.org|{name}"
    request = {"method": "POST", "url": "Organization", "ifNoneExist": criteria}
    resource = {"resourceType": "Organization", "identifier": [identifier], "name": name}
    return bundle("batch", {"resource": resource, "request": request})


def admission(name: str, at: str) -> str:
    """A transaction that refers to a ward by what identifies it, and to another entry."""
    organization = {"reference": f"Organization?identifier=http://example.org|{at}"}
    of = {"reference": f"urn:uuid:{name}"}
    return bundle(
        "transaction",
        {
            "fullUrl": f"urn:uuid:{name}",
            "resource": patient(None, name=[{"family": name}], managingOrganization=organization),
            "request": {"method": "POST", "url": "Patient"},
        },
        {
            "resource": {"resourceType": "Basic", "code": {"text": "note"}, "subject": of},
            "request": {"method": "POST", "url": "Basic"},
        },
        {"request": {"method": "GET", "url": "Patient"}},
    )


def profile() -> dict[str, Any]:
    """Its Patients have a birthDate: of the units after it those that claim it are refused without."""
    root = {"id": "Patient", "path": "Patient", "min": 0, "max": "*"}
    born = {"id": "Patient.birthDate", "path": "Patient.birthDate", "min": 1, "max": "1"}
    return {
        "resourceType": "StructureDefinition",
        "id": "born",
        "url": PROFILE,
        "name": "Born",
        "status": "active",
        "kind": "resource",
        "abstract": False,
        "type": "Patient",
        "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Patient",
        "derivation": "constraint",
        "snapshot": {"element": [root, born]},
        "differential": {"element": [born]},
    }


def story(seed: int) -> list[str | dict[str, Any]]:
    """Documents of all kinds in whatever order, many of which depend on others, before or after them."""
    names = [f"p{number}" for number in range(24)]
    documents: list[str | dict[str, Any]] = [ward(name) for name in WARDS * 2]
    documents += [admission(name, name_of) for name, name_of in zip(names, itertools.cycle((*WARDS, "none")))]
    documents += [patient(f"q{number % 9}", birthDate=f"19{number:02}") for number in range(18)]
    documents += [patient(None, gender="female") for _ in range(5)]
    documents += [patient("faulty", gender=7), patient("faulty", unknown="x"), {"resourceType": "None"}]
    documents += [patient(f"claims{number}", meta={"profile": [PROFILE]}) for number in range(8)]
    documents += [bundle("collection", {"resource": patient("c1")}, {"resource": patient("c 2")})]
    documents += [
        bundle("batch", {"request": {"method": "DELETE", "url": "Patient/q1"}}, {"request": {"url": "x"}})
    ]
    documents.append(profile())
    random.Random(seed).shuffle(documents)
    return documents


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any input is enough for processes, and tasks are small."""
    monkeypatch.setattr(preparing, "ENOUGH", 0)
    monkeypatch.setattr(transfer, "ENOUGH", 0)
    monkeypatch.setattr(preparing, "_LOT_DOCUMENTS", 3)


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """import of files into a record, each time with the same clock and the same chance."""

    def run(record: Path, *arguments: object) -> Result:
        minutes, seeds = itertools.count(1), itertools.count(1)
        clocked = SimpleNamespace(
            open=lambda *of, **more: Store.open(*of, clock=lambda: START + next(minutes) * MINUTE, **more)
        )
        with monkeypatch.context() as patched:
            patched.setattr(opening, "Store", clocked)
            patched.setattr(secrets, "token_hex", lambda _: f"seed {next(seeds)}")
            command = ["-C", str(record), "import", "--json", *map(str, arguments)]
            return CliRunner().invoke(main, command, prog_name="git-fhir")

    return run


@pytest.fixture
def records(templates: tuple[Path, Path], tmp_path: Path) -> Iterator[Path]:
    """Records with the same first commit, one after the other, which validate."""

    def all_records() -> Iterator[Path]:
        for number in itertools.count():
            record = copy_record(templates[0], tmp_path / f"record{number}.git")
            git(record, "config", "fhir.validation", "full")
            yield record

    return all_records()


@pytest.mark.parametrize(
    ("seed", "options"), [(1, ()), (2, ()), (3, ("--strict",)), (4, ("--force", "-m", "All of it."))]
)
def test_any_number_of_processes_makes_the_same_commits(
    records: Iterator[Path],
    tmp_path: Path,
    importing: Callable[..., Result],
    eager: None,
    seed: int,
    options: tuple[str, ...],
) -> None:
    """Byte for byte: ids, order, messages, refusals, exit code; also where units depend on one another."""
    content = tmp_path / "story.ndjson"
    content.write_text(lines(*story(seed)))
    alone, together, many = (next(records) for _ in range(3))

    results = [
        importing(alone, content, *options, "--jobs", 1),
        importing(together, content, *options, "--jobs", 2),
        importing(many, content, *options, "--jobs", 5),
    ]

    one, two, five = [(result.exit_code, json.loads(result.stdout)) for result in results]
    assert two == one
    assert five == one
    assert log(together) == log(alone)
    assert head(alone) == head(together) == head(many)
    assert git(together, "fsck", "--strict") == git(alone, "fsck", "--strict")


def log(record: Path) -> list[str]:
    """What the commits say of themselves."""
    return git(record, "log", "--reverse", "-z", "--format=%B", "main").split("\0")


def test_what_has_been_imported_by_one_process_is_known_to_several(
    records: Iterator[Path], tmp_path: Path, importing: Callable[..., Result], eager: None
) -> None:
    """Request ids don't depend on who prepares, so an import is resumed with any number of jobs."""
    content = tmp_path / "story.ndjson"
    content.write_text(lines(*(document for document in story(1) if PROFILE not in str(document))))
    record = next(records)
    first = report(importing(record, content, "--jobs", 1))

    again = report(importing(record, content, "--jobs", 2))

    assert first["created"] > 40
    # Those without an id, the wards, and the transactions that found theirs.
    assert again["alreadyImported"] == 5 + 3 + 2 * 18
    assert again.get("created", 0) <= 1  # the one that the story deletes


def test_units_wait_for_what_the_one_before_them_brings(
    records: Iterator[Path], tmp_path: Path, importing: Callable[..., Result], eager: None
) -> None:
    """Prepared at once, written in order: commits stand as the documents do, nothing is put off that needn't be."""
    content = tmp_path / "ordered.ndjson"
    content.write_text(lines(ward("w1"), *(admission(f"p{number}", "w1") for number in range(12))))
    record = next(records)

    result = importing(record, content, "--jobs", 2)

    assert report(result) == {"created": 25}
    commits = git(record, "log", "--reverse", "--format=%H", "main").split()[2:]
    families = [json.loads(body)["name"][0]["family"] for body in map(patients_of(record), commits)]
    assert families == [f"p{number}" for number in range(12)]


def patients_of(record: Path) -> Callable[[str], str]:
    """What one commit says of a Patient."""

    def body(commit: str) -> str:
        changed = git(record, "diff-tree", "--no-commit-id", "--name-only", "-r", commit).split()
        return git(record, "show", f"{commit}:{next(path for path in changed if 'Patient' in path)}")

    return body


def test_a_killed_process_ends_the_import_with_a_word(
    records: Iterator[Path],
    tmp_path: Path,
    importing: Callable[..., Result],
    eager: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is written is whole, the exit code is 1, and the same command brings the rest."""
    content = tmp_path / "patients.ndjson"
    content.write_text(lines(*(patient(None, birthDate=f"{year}") for year in range(1900, 1960))))
    record, prepared = next(records), preparing._prepared

    def die(store: Store, planner: Planner, document: Document, wanted: frozenset[int] | None) -> Any:
        if b"1930" in document.data:
            os.kill(os.getpid(), signal.SIGKILL)
        return prepared(store, planner, document, wanted)

    with monkeypatch.context() as patched:
        patched.setattr(preparing, "_prepared", die)
        killed = importing(record, content, "--jobs", 2)
    facts = json.loads(killed.stdout)
    resumed = report(importing(record, content, "--jobs", 2))

    assert killed.exit_code == 1
    assert "A process that prepares" in facts["stopped"]
    assert facts["created"] <= 30
    assert resumed.get("alreadyImported", 0) == facts["created"]
    assert resumed["created"] == 60 - facts["created"]


@pytest.fixture
def long_story(tmp_path: Path) -> Path:
    """More than can be written between two looks at the record."""
    content, name = tmp_path / "long.ndjson", [{"text": "x" * 1000}]
    content.write_text(lines(*(patient(None, birthDate=f"{year}", name=name) for year in range(1000, 4000))))
    return content


def wait_for_a_group(repository: Path, process: subprocess.Popen[str]) -> None:
    """Until it has written something; there is much more to come."""
    deadline = time.monotonic() + 60
    while int(git(repository, "rev-list", "--count", "main")) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline


def test_ctrl_c_ends_all_processes_and_reports(repository: Path, long_story: Path) -> None:
    """A terminal sends it to all of them; the one that writes says what was done, and leaves nobody behind."""
    with subprocess.Popen(
        command("-C", repository, "import", long_story, "--json", "--jobs", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        wait_for_a_group(repository, process)
        os.killpg(process.pid, signal.SIGINT)
        facts = json.loads(process.stdout.read())  # ends when the last process that could write has ended
        assert process.stderr.read() == ""
    assert process.returncode == 130
    assert facts["interrupted"]
    assert int(git(repository, "rev-list", "--count", "main")) == 1 + facts["created"]


def test_nobody_is_left_behind_by_a_killed_import(repository: Path, long_story: Path) -> None:
    """kill -9 of the one that writes: the others notice, as their pipes end."""
    with subprocess.Popen(
        command("-C", repository, "import", long_story, "--jobs", "3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        wait_for_a_group(repository, process)
        process.kill()
        assert process.stdout.read() == ""  # ends when the last process that could write has ended
        assert process.stderr.read() == ""


def test_little_input_starts_no_processes(
    repository: Path, tmp_path: Path, git_fhir: GitFhir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few resources are written sooner than others could help."""
    content = tmp_path / "one.json"
    content.write_text(json.dumps(patient("one")))
    monkeypatch.setattr(transfer, "Helpers", None)

    assert report(git_fhir("import", content, "--jobs", 8, "--json")) == {"created": 1}


class Lots:
    """Tasks that nobody gets done; `taken` is how many were asked for."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.taken += 1
            yield SimpleNamespace(size=1024**2, is_ready=False)


def test_no_more_is_read_ahead_than_there_is_memory_for(repository: Path) -> None:
    """Input may be without end, and reading it faster than writing what it says."""
    with open_store(repository) as store:
        report_of, planner = Importer(store, Report()), Planner(ANONYMOUS, None, Settings())
        desk = preparing.Desk(SimpleNamespace(), planner, store, report_of)  # type: ignore[arg-type]  # asks no helper
        lots = Lots()
        window: deque[Any] = deque()

        for _ in itertools.islice(desk._ahead(lots, window), 50):  # type: ignore[arg-type]  # has what is asked of one
            assert sum(lot.size for lot in window) <= preparing._WINDOW_BYTES

    assert lots.taken <= 50 + preparing._WINDOW_BYTES // 1024**2
