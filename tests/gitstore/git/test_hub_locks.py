"""What a git that was killed has left locked doesn't keep a node from following. https://git-scm.com/docs/git-update-ref"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hubs
import pytest

from gitstore.errors import HubUnreachable
from gitstore.git.hub import Hub
from gitstore.git.repository import Repository

OURS = ("hub", "diverged/20260101T000000Z-00000000")
HOUR = 3600


@pytest.fixture
def hub(record: str) -> Iterator[Hub]:
    """Of a record that has all of it, and something that has diverged on another node."""
    with hubs.path_hub() as path:
        command = ["git", "-C", record, "push", "--quiet", path.url, "main", f"main:refs/git-fhir/{OURS[1]}"]
        subprocess.run(command, check=True)
        yield Hub(Repository(record), path.url, hubs.PATIENCE)


@pytest.fixture
def lock(record: str) -> Callable[..., Path]:
    """Leaves one behind, of a ref below refs/git-fhir."""

    def leave(name: str, age: float = HOUR) -> Path:
        path = Path(record, "refs", "git-fhir", f"{name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        then = path.stat().st_mtime - age
        os.utime(path, (then, then))
        return path

    return leave


@pytest.mark.parametrize("name", OURS)
def test_a_lock_that_was_left_is_removed_by_who_fetches(hub: Hub, lock: Any, name: str) -> None:
    left = lock(name)

    assert hub.fetch() == hub.main()
    assert not left.exists()


def test_a_lock_that_was_left_does_not_keep_what_diverges_from_being_kept(hub: Hub, lock: Any) -> None:
    left = lock("diverged/x")
    main = hub.fetch()
    assert main is not None
    first = hub._run(["rev-parse", f"{main}^{{tree}}"])[1].strip()
    other = hub._run(["-c", "user.name=a", "-c", "user.email=b", "commit-tree", first, "-m", "x"])[1].strip()

    hub.keep_diverged("x", other)

    assert not left.exists()
    assert hub._run(["rev-parse", "refs/git-fhir/diverged/x"])[1].strip() == other


def test_a_lock_that_somebody_may_hold_is_left_alone(hub: Hub, lock: Any, tmp_path: Path) -> None:
    """One that is new, and one of refs that are being exchanged all at once, which is a link."""
    new = lock("hub", age=1)
    with pytest.raises(HubUnreachable, match="File exists"):
        hub.fetch()
    new.unlink()

    linked = lock("hub")
    os.link(linked, tmp_path / "staged")
    with pytest.raises(HubUnreachable, match="File exists"):
        hub.fetch()
    assert linked.exists()
