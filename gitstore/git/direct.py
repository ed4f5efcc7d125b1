"""Moving main between a record and its hub over HTTP without a git in between; git does it where anything else is to be brought along.

What git can do and this can't shows before or in the hub's answer, so whoever calls has git do it again. docs/architecture.md, "Without a
git in between"
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeVar

from gitstore import cores
from gitstore.git import layout
from gitstore.git.outbox import Outbox
from gitstore.git.packets import Misunderstood
from gitstore.git.smart_http import SmartHttp
from gitstore.git.writer import read_main

DURABLE = ("-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync")
"""git then syncs each file that it writes, but never a folder."""

_OTHERS = ("refs/tags/", f"{layout.DIVERGED}/")
_OTHERS_STAY = 1.0
"""Seconds for which nobody looks whether the hub has other tags, or something else that has diverged."""

_BY_GIT = 60.0
"""Seconds for which git is asked, after the hub has answered what only git may understand."""

_T = TypeVar("_T")


class Direct:
    """One repository and its hub. One caller at a time."""

    def __init__(
        self,
        git_dir: str,
        url: str,
        environment: Mapping[str, str],
        timeout: float,
        outbox: Outbox | None,
    ) -> None:
        """`environment` is that of git, each step of a request may take `timeout` seconds, `outbox` has what was written last."""
        self._git_dir = git_dir
        self._open = partial(SmartHttp.open, git_dir, url, environment, timeout)
        self._environment = environment
        self._outbox = outbox
        self._http: SmartHttp | None = None
        self._by_git_until = 0.0
        self._tags: object = None
        """How our tags stood when the hub got them, and how they stand."""

        self._tags_now: object = None
        self._others: dict[str, str] | None = None
        """The hub's refs besides main as they were when we got them, and as they are."""

        self._others_now: dict[str, str] | None = None
        self._looked = -_OTHERS_STAY

    def close(self) -> None:
        """Let go of the connection. May be used on, and then is to be closed again."""
        if self._http is not None:
            self._http.close()

    def _ask(self, ask: Callable[[SmartHttp], _T]) -> _T | None:
        """What the hub says; None where only git can ask it, or understand it. Raises HubUnreachable."""
        now = time.monotonic()
        if self._http is None and now >= self._by_git_until:
            self._http = self._open()
            self._by_git_until = now + _BY_GIT
        if self._http is None:
            return None
        try:
            return ask(self._http)
        except Misunderstood:
            self._http.close()
            self._http, self._by_git_until = None, now + _BY_GIT
            return None

    # Pushing

    def push(self, commit: str, after: str | None) -> bool:
        """Move the hub's main from the one commit to the other. False where git has to try: then `pushed_by_git`.

        Raises HubUnreachable; then it may have happened all the same.
        """
        self._tags_now = self._tags_stand()
        if after is None or self._outbox is None or self._tags_now != self._tags:
            return False
        pack = self._outbox.pack(after, commit)
        if pack is None:
            return False
        return self._ask(lambda http: http.move(layout.REFERENCE, after, commit, pack)) is True

    def pushed_by_git(self) -> None:
        """git has brought the hub main, and all tags."""
        self._tags = self._tags_now

    def _tags_stand(self) -> object:
        """Something else, once there are other tags."""
        folders = [folder for folder, _, _ in os.walk(os.path.join(self._git_dir, "refs", "tags"))]
        dated = []
        for path in (*folders, os.path.join(self._git_dir, "packed-refs")):
            with suppress(FileNotFoundError):
                dated.append((path, os.stat(path).st_mtime_ns))
        return dated

    # Fetching

    def fetch(self) -> str | None:
        """The commit that the hub's main stands at, once all that it builds on is here. None where git has to look: then `fetched_by_git`.

        Raises HubUnreachable.
        """
        self._others_now = None
        here = read_main(self._git_dir)
        if here is None:
            return None
        if time.monotonic() < self._looked + _OTHERS_STAY:
            main = self._ask(
                lambda http: self._take(http, layout.REFERENCE, here) if http.knows_names() else None
            )
            if main is not None:
                return main
        refs = self._ask(lambda http: http.refs((layout.REFERENCE, *_OTHERS)))
        main = refs.pop(layout.REFERENCE, None) if refs is not None else None
        self._others_now = refs
        if main is None or refs != self._others:
            return None
        self._looked = time.monotonic()
        return main if main == here else self._ask(partial(self._take, want=main, here=here))

    def fetched_by_git(self) -> None:
        """git has brought here main, and whatever else the hub has."""
        self._others = self._others_now

    def _take(self, http: SmartHttp, want: str, here: str) -> str:
        """Bring here what a commit, or a ref of the hub, builds on; the commit. Raises Misunderstood, HubUnreachable."""
        with http.pack(want, here) as (main, pieces):
            if main != here:
                self._index(pieces)
        return main

    def _index(self, pieces: Iterator[bytes]) -> None:
        """Put a pack in place. Raises Misunderstood where git refuses it: it looks at each object, and at what those refer to."""
        command = ["git", "--git-dir", self._git_dir, *DURABLE, "index-pack", "--stdin", "--fix-thin"]
        process = subprocess.Popen(
            [*command, "--strict", "--threads=1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=self._environment,
            start_new_session=True,
        )
        cores.release(process.pid)
        assert process.stdin is not None
        with suppress(BrokenPipeError), process:  # it has given up, as its exit code will say
            try:
                for piece in pieces:
                    process.stdin.write(piece)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise Misunderstood("git refuses the pack")
