"""Fixtures that every room uses: a record away from the developer's machine, a clock and ids that are given."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gitstore import Author, Settings, Store, init

UNCHECKED = Settings(validation="off")
"""Most tests are not about FHIR's rules, and their resources are as small as they can be."""

START = 1_767_268_800_000_000
"""2026-01-01T12:00:00Z, when every test begins."""

EXAMPLES = int(os.environ.get("GIT_FHIR_EXAMPLES", "40"))
"""How many examples a property is tried with that doesn't say so itself; each run draws others."""

# How long one example takes says how busy the machine is; what must be fast has a test that counts or measures.
settings.register_profile("unhurried", deadline=None, max_examples=EXAMPLES)
settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """What was collected stays to the end: to look through it for garbage takes half a second each time, and a forked
    process would copy all of it."""
    gc.collect()
    gc.freeze()


class Clock:
    """Time that passes only when it is told to: `tick` microseconds at each look."""

    def __init__(self, now: int = START, tick: int = 1_000_000) -> None:
        self.now = now
        self.tick = tick

    def __call__(self) -> int:
        self.now += self.tick
        return self.now


@pytest.fixture(scope="session")
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _away_from_the_developers_machine(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, nobodys_home: Path
) -> None:
    """At home in its own folder, if it has one: most tests need none, and thousands are slow to make."""
    home = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else nobodys_home
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new_id() -> Callable[[], str]:
    """Ids `id-1`, `id-2`, …"""
    counter = itertools.count(1)
    return lambda: f"id-{next(counter)}"


@pytest.fixture(scope="session")
def new_record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes the git directory of an empty record of START, as often as asked; for tests with many examples.

    Each is a copy, with the index that opening it made: to make both anew takes twenty times as long.
    """
    folder = tmp_path_factory.mktemp("records")
    numbers = itertools.count(1)
    template = init(folder / "0.git", clock=lambda: START)
    Store.open(template, UNCHECKED).close()

    def new() -> str:
        return str(copy_record(template, folder / f"{next(numbers)}.git"))

    return new


def copy_record(template: str | Path, path: Path) -> Path:
    """A copy of a git directory at `path`. The links in it stay links, as its index is behind one."""
    return Path(shutil.copytree(template, path, symlinks=True))


@pytest.fixture
def record(new_record: Callable[[], str], tmp_path: Path) -> str:
    """The git directory of an empty record."""
    return shutil.move(new_record(), str(tmp_path / "record.git"))


@pytest.fixture
def store(record: str, clock: Clock, new_id: Callable[[], str]) -> Iterator[Store]:
    with Store.open(record, UNCHECKED, clock=clock, new_id=new_id) as opened:
        yield opened


@pytest.fixture
def ada() -> Author:
    return Author("Ada Lovelace", "ada@clinic.example")
