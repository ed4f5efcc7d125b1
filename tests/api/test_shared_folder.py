"""The folder in which a server's workers count: it stays as long as one of them lives, and no killed server leaves it for good."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from api import shared_folder as module
from api.shared_folder import PREFIX, shared_folder, sweep


def folders(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob(f"{PREFIX}*"))


@contextmanager
def server(place: Path) -> Iterator[tuple[int, int, str]]:
    """A process that has made the folder, and one forked from it: their ids, and the folder's name. Both only wait."""
    reader, writer = os.pipe()
    master = os.fork()
    if master == 0:
        try:
            with shared_folder(str(place)) as folder:
                worker = os.fork()
                if worker > 0:
                    os.write(writer, f"{worker} {folder}\n".encode())
                signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as stream:
        worker, folder = stream.readline().split(" ", 1)
        try:
            yield master, int(worker), Path(folder.strip()).name
        finally:
            for process in (master, int(worker)):
                kill(process)
            assert stream.read() == "", "the pipe's other end is closed: both are gone"


def kill(process: int) -> None:
    """And wait until it is gone, if it is a child of ours."""
    try:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_the_folder_is_private_and_goes_with_the_block(tmp_path: Path) -> None:
    with shared_folder(str(tmp_path)) as folder:
        assert folders(tmp_path) == [Path(folder).name]
        assert os.stat(folder).st_mode & 0o077 == 0
        Path(folder, "counter_0.db").touch()
    assert folders(tmp_path) == []


def test_the_folder_of_a_server_that_runs_stays(tmp_path: Path) -> None:
    with shared_folder(str(tmp_path)) as first, shared_folder(str(tmp_path)) as second:
        assert folders(tmp_path) == sorted([Path(first).name, Path(second).name])


def test_what_a_killed_server_left_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    """Nobody of it was left to remove anything."""
    with server(tmp_path) as (_, _, left):
        assert folders(tmp_path) == [left]
    with shared_folder(str(tmp_path)) as folder:
        assert folders(tmp_path) == [Path(folder).name]


def test_a_worker_that_outlives_its_master_keeps_the_folder(tmp_path: Path) -> None:
    """It has its last requests to answer, and counts them."""
    with server(tmp_path) as (master, _, left):
        kill(master)
        sweep(str(tmp_path))
        assert folders(tmp_path) == [left]
    sweep(str(tmp_path))
    assert folders(tmp_path) == []


def test_a_program_that_a_worker_has_started_does_not_keep_it(tmp_path: Path) -> None:
    """The lock is none of its business: git's maintenance may go on for long."""
    with shared_folder(str(tmp_path)) as folder:
        held = [sys.executable, "-c", "import os; print(*os.listdir('/proc/self/fd'))"]
        lock = next(
            int(number)
            for number in os.listdir("/proc/self/fd")
            if os.path.realpath(f"/proc/self/fd/{number}").startswith(folder)
        )
        run = subprocess.run(held, check=True, capture_output=True, text=True, close_fds=False)
        assert str(lock) not in run.stdout.split()


def test_what_is_not_a_folder_of_ours_is_not_touched(tmp_path: Path) -> None:
    """One without a lock was made by something else, or is about to get one; what is behind a link is none at all."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "owner.lock").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}bare").mkdir()
    (tmp_path / f"{PREFIX}file").touch()
    (tmp_path / "other-owner").mkdir()
    (tmp_path / "other-owner" / "owner.lock").touch()

    sweep(str(tmp_path))

    assert folders(tmp_path) == [f"{PREFIX}bare", f"{PREFIX}file", f"{PREFIX}link"]
    assert (elsewhere / "owner.lock").exists()
    assert (tmp_path / "other-owner" / "owner.lock").exists()


def test_a_folder_of_another_user_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(tmp_path) as (_, _, left):
        pass
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    sweep(str(tmp_path))
    assert folders(tmp_path) == [left]


def test_two_servers_that_start_at_once_each_have_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One looks for what was left just when the other has made its folder, and not locked it yet: then it makes another."""
    asked: list[list[str]] = []

    class Beside:
        """The module fcntl, where the other server's look comes before the first lock."""

        def __getattr__(self, name: str) -> Any:
            return getattr(fcntl, name)

        def flock(self, descriptor: int, operation: int) -> None:
            asked.append(folders(tmp_path))
            if len(asked) == 1:
                sweep(str(tmp_path))
            fcntl.flock(descriptor, operation)

    monkeypatch.setattr(module, "fcntl", Beside())
    with shared_folder(str(tmp_path)) as folder:
        assert len(asked) == 3, "of the first folder, of the look, of the second folder"
        assert asked[0] == asked[1] != asked[2] == [Path(folder).name] == folders(tmp_path)
