"""A repository to try commands on, and the commands, away from the developer's git configuration."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from gitstore import Author, Create, Delete, Settings, Store, Unit, Update, init
from gitstore.fhir.ids import ResourceId
from tests.conftest import copy_record

ADA = Author("Ada Lovelace", "ada@example.org")
GRACE = Author("Grace Hopper", "grace@example.org")
PATIENT = ResourceId("Patient", "example")
START = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
MINUTE = 60_000_000
FULL_URL = "urn:uuid:5e0a4c6e-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment of the developer's that commands read, and an author that git can tell."""
    for name in [name for name in os.environ if name.startswith("GIT_FHIR_")]:
        monkeypatch.delenv(name)
    for name in ("GIT_PAGER", "PAGER", "LESS", "NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_AUTHOR_NAME", GRACE.name)
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", GRACE.email)


def patient(id: str | None = "example", **elements: Any) -> dict[str, Any]:
    """A Patient, with an id unless that is None."""
    return {"resourceType": "Patient"} | ({"id": id} if id else {}) | elements


def open_store(repository: Path) -> Store:
    """The store with a clock that advances by a minute at each commit, and numbered ids."""
    minutes, numbers = itertools.count(1), itertools.count(1)
    return Store.open(
        repository,
        Settings(durability="off", validation="off"),
        clock=lambda: START + next(minutes) * MINUTE,
        new_id=lambda: f"new-{next(numbers)}",
    )


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What `repository` and `clinic` are copies of."""
    folder = tmp_path_factory.mktemp("templates")
    empty = folder / "empty.git"
    init(empty, clock=lambda: START)
    git(empty, "config", "fhir.durability", "off")
    git(empty, "config", "fhir.validation", "off")
    open_store(empty).close()
    told = copy_record(empty, folder / "told.git")
    with open_store(told) as store:
        tell_story(store)
    return empty, told


@pytest.fixture
def repository(templates: tuple[Path, Path], tmp_path: Path) -> Path:
    """An empty repository that doesn't wait for the disk, and takes any resource."""
    return copy_record(templates[0], tmp_path / "clinic.git")


@pytest.fixture
def clinic(repository: Path, templates: tuple[Path, Path]) -> Path:
    """The repository with a story: see `tell_story`."""
    shutil.rmtree(repository)
    return copy_record(templates[1], repository)


def tell_story(store: Store) -> None:
    """Patient/example is created, renamed, deleted and revived; a transaction makes an Observation and a Patient."""
    store.commit([Update(PATIENT, patient(name=[{"family": "Lovelace"}]))], ADA, message="Admission.")
    store.commit(
        [Update(PATIENT, patient(name=[{"text": "Countess"}, {"family": "King"}], birthDate="1815-12-10"))],
        GRACE,
        request_id="rename-1",
        message="Married.\n\nThe second paragraph.",
    )
    store.commit([Delete(PATIENT)], ADA)
    store.commit([Update(PATIENT, patient(gender="female"))], ADA)
    observation = json.loads('{"resourceType": "Observation", "subject": {"reference": "urn:uuid:1"}}')
    [result] = store.commit_each(
        [
            Unit(
                [Create(observation), Create(patient(None), full_url="urn:uuid:1")],
                GRACE,
                interaction="transaction",
            )
        ]
    )
    assert isinstance(result, list)


def git(repository: Path, *arguments: str) -> str:
    """What plain git says about the repository."""
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def head(repository: Path) -> str:
    """The id of the last commit."""
    return git(repository, "rev-parse", "main").strip()


def said(repository: Path) -> str:
    """Who made the last commit, and its message."""
    return git(repository, "log", "-1", "--format=%an|%B", "main")


GitFhir = Callable[..., Result]


@pytest.fixture
def git_fhir(repository: Path) -> GitFhir:
    """`git_fhir("log", "-n", "1")`: run a command on the repository within this process."""

    def run(*arguments: str | Path, input: str | bytes | None = None, **environment: str) -> Result:
        command = ["-C", str(repository), *map(str, arguments)]
        return CliRunner().invoke(main, command, input=input, env=environment, prog_name="git-fhir")

    return run


def command(*arguments: str | Path) -> list[str]:
    """The command line of git-fhir as a process of its own."""
    return [sys.executable, "-P", "-m", "cli", *map(str, arguments)]


def ndjson(result: Result) -> list[Any]:
    """The lines that a command with --json printed."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def report(result: Result) -> dict[str, Any]:
    """The counts that aren't 0 of `import --json`, and how many were refused."""
    facts = json.loads(result.stdout)
    counts = {name: facts[name] for name in ("created", "updated", "deleted", "unchanged", "alreadyImported")}
    return {name: count for name, count in (counts | {"refused": len(facts["refused"])}).items() if count}


def bundle(type: str, *entries: dict[str, Any]) -> str:
    """A Bundle as JSON."""
    return json.dumps({"resourceType": "Bundle", "type": type, "entry": entries})


def lines(*resources: Any) -> str:
    """NDJSON; a text is a line as it is."""
    return "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in resources)
