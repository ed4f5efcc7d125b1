"""A record to change and tamper with, and git itself to look at it with."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gitstore import Author, Settings, Store
from gitstore.git.repository import git_environment
from tests.gitstore.forks import Git, Nodes, forked


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


@pytest.fixture
def nodes(record: str, git_in: Callable[[Any], Git]) -> Iterator[Nodes]:
    """Two nodes whose histories have parted."""
    with forked(record, git_in) as made:
        yield made


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
