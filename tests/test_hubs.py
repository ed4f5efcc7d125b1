"""The hubs that other tests use are what git calls a remote: cloned, pushed to, fetched from, and never overwritten."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import hubs
import pytest

KINDS: dict[str, Callable[[], AbstractContextManager[hubs.Hub]]] = {
    "path": hubs.path_hub,
    "file": partial(hubs.path_hub, "file://"),
    "http": hubs.http_hub,
    "http-helper": partial(hubs.http_hub, helper=True),
    "ssh": hubs.ssh_hub,
}


class Clone:
    """A repository beside the hub, and git in it."""

    def __init__(self, hub: hubs.Hub, path: Path) -> None:
        self._environment = hub.environment
        self.path = path
        self.git("clone", "--quiet", hub.url, str(path), at=path.parent)

    def git(self, *words: str, at: Path | None = None, fails: bool = False) -> str:
        """What git says, on both channels."""
        done = subprocess.run(
            ["git", "-C", str(at or self.path), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=hubs.PATIENCE,
            env=self._environment,
        )
        assert (done.returncode != 0) is fails, done.stdout
        return done.stdout.strip()

    def commit(self, name: str, content: bytes = b"") -> str:
        """Its id."""
        (self.path / name).write_bytes(content)
        self.git("add", name)
        self.git("commit", "--quiet", "-m", name)
        return self.git("rev-parse", "HEAD")


@pytest.fixture(params=list(KINDS))
def hub(request: pytest.FixtureRequest) -> Iterator[hubs.Hub]:
    with KINDS[request.param]() as made:
        yield made


def test_what_one_clone_pushes_another_fetches(hub: hubs.Hub, tmp_path: Path) -> None:
    """More than http.postBuffer, too, from which on git sends a body whose length it doesn't tell."""
    ours, theirs = Clone(hub, tmp_path / "ours"), Clone(hub, tmp_path / "theirs")
    assert hub.head() is None

    small = ours.commit("small")
    ours.git("push", "origin", "main")
    assert hub.head() == small
    large = ours.commit("large", os.urandom(3_000_000))
    ours.git("push", "origin", "main")

    theirs.git("fetch", "origin")
    assert theirs.git("rev-parse", "origin/main") == hub.head() == large
    theirs.git("fsck", "--strict")


def test_a_push_is_a_compare_and_swap(hub: hubs.Hub, tmp_path: Path) -> None:
    """Who hasn't seen the newest commit is refused: by git, by force by the hub, and with a lease on something older, too."""
    ours, theirs = Clone(hub, tmp_path / "ours"), Clone(hub, tmp_path / "theirs")
    first = ours.commit("ours")
    ours.git("push", "origin", "main")
    theirs.commit("theirs")

    assert "[rejected]" in theirs.git("push", "origin", "main", fails=True)
    assert "denying non-fast-forward" in theirs.git("push", "--force", "origin", "main", fails=True)
    assert "stale info" in theirs.git("push", "--force-with-lease=main:", "origin", "main", fails=True)
    assert hub.head() == first

    theirs.git("pull", "--quiet", "--rebase", "origin", "main")
    theirs.git("push", "origin", "main")
    assert hub.head() == theirs.git("rev-parse", "HEAD")


def test_main_can_t_be_removed(hub: hubs.Hub, tmp_path: Path) -> None:
    """receive.denyDeletes; it guards branches alone, not refs/git-fhir. https://git-scm.com/docs/git-config"""
    ours = Clone(hub, tmp_path / "ours")
    commit = ours.commit("ours")
    ours.git("push", "origin", "main")

    assert "denying ref deletion" in ours.git("push", "origin", ":main", fails=True)
    assert hub.head() == commit


@pytest.mark.parametrize("kind", ["http", "ssh"])
def test_who_has_no_credentials_is_refused_and_not_asked(kind: str, tmp_path: Path) -> None:
    """A node has no terminal at which somebody could type a password."""
    with KINDS[kind]() as hub:
        ours = Clone(hub, tmp_path / "ours")
        url = hub.url.replace("secret", "guessed")
        (tmp_path / "key").write_text("")
        stranger = hub.config.get("core.sshCommand", "ssh").replace("/client ", "/unknown ")

        refused = ours.git("-c", f"core.sshCommand={stranger}", "ls-remote", url, fails=True)

    assert "Authentication failed" in refused or "Permission denied (publickey)" in refused
