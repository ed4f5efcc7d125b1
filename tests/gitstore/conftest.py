"""A record to change and tamper with: made once, copied for each test, and git itself to look at it with."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gitstore import Author, Settings, Store, init
from gitstore.git.repository import git_environment

START = 1_767_268_800_000_000
"""2026-01-01T12:00:00Z: the first commit of every record here."""


@pytest.fixture(scope="session")
def new_record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes the git directory of an empty record, as often as asked; for tests with many examples."""
    folder = tmp_path_factory.mktemp("records")
    numbers = itertools.count(1)
    template = init(folder / "0.git", clock=lambda: START)

    def new() -> str:
        path = folder / f"{next(numbers)}.git"
        shutil.copytree(template, path)
        return str(path)

    return new


@pytest.fixture
def record(new_record: Callable[[], str], tmp_path: Path) -> str:
    """The git directory of an empty record."""
    return shutil.move(new_record(), str(tmp_path / "record.git"))


@pytest.fixture
def store(record: str, clock: Callable[[], int], new_id: Callable[[], str]) -> Iterator[Store]:
    """A store without fsync, whose clock shows START + 1 s, + 2 s, … at its commits."""
    with Store.open(
        record, Settings(durability="off", validation="off"), clock=clock, new_id=new_id
    ) as opened:
        yield opened


@pytest.fixture
def git(record: str) -> Callable[..., str]:
    """Runs git in the record: `git("rev-parse", "main")`; returns what it prints, without the last line's end."""
    return run_git_in(record)


@pytest.fixture(scope="session")
def git_in() -> Callable[[Any], Callable[..., str]]:
    """Runs git in any folder: `git_in(path)("status")`."""
    return run_git_in


def run_git_in(folder: Any) -> Callable[..., str]:
    def run(*arguments: str, input: bytes | str = b"", **environment: str) -> str:
        result = subprocess.run(
            ["git", "-c", "user.name=Eve", "-c", "user.email=eve@example.org", *arguments],
            cwd=folder,
            check=False,
            capture_output=True,
            input=input.encode() if isinstance(input, str) else input,
            env=git_environment() | environment,
        )
        output = result.stdout.decode(errors="surrogateescape")
        assert result.returncode == 0, f"git {' '.join(arguments)}: {output}{result.stderr.decode()}"
        return output.removesuffix("\n")

    return run


@pytest.fixture
def grace() -> Author:
    return Author("Grace Hopper", "grace@clinic.example")
