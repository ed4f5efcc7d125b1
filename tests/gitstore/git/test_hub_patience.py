"""How long git may take with the hub: longer each time where there is much to bring, but not where nobody answers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gitstore.errors import HubUnreachable
from gitstore.git.hub import Hub
from gitstore.git.repository import Repository

SSH = """#!/bin/sh
# Stands in for ssh: a push never ends, and other questions are answered as long as the folder is there.
shift $(($# - 1))
case "$1" in
    git-receive-pack*) exec sleep 60 ;;
esac
[ -d "{folder}" ] || exec sleep 60
eval "exec $1"
"""
SECONDS = 0.8


@pytest.fixture
def main(record: str) -> str:
    command = ["git", "-C", record, "rev-parse", "main"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "hub.git"
    subprocess.run(["git", "init", "-q", "--bare", path], check=True)
    return path


@pytest.fixture
def hub(record: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """One over SSH that never comes to the end of a push."""
    script = tmp_path / "stand-in"
    script.write_text(SSH.format(folder=folder))
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(script))
    monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
    return Hub(Repository(record), f"ssh://hub{folder}", SECONDS)


def test_a_push_that_takes_long_gets_more_time_each_time(hub: Hub, main: str) -> None:
    """The first push of a long history comes to an end."""
    with pytest.raises(HubUnreachable, match=r"within 0\.8 s"):
        hub.push(main)
    with pytest.raises(HubUnreachable, match=r"within 1\.6 s"):
        hub.push(main)


def test_a_hub_that_does_not_answer_gets_no_more(hub: Hub, main: str, folder: Path) -> None:
    """Whoever else wants to talk to it would have to wait for that, such as a promotion."""
    folder.rename(folder.with_name("away"))
    for _ in range(2):
        with pytest.raises(HubUnreachable, match=r"within 0\.8 s"):
            hub.push(main)
