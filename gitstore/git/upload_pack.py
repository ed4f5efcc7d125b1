"""`git upload-pack`: what answers those who clone or fetch. https://git-scm.com/docs/git-upload-pack

What it says is passed on as it comes; nobody knows how much it will be.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import IO

from gitstore import cores
from gitstore.errors import StorageFailed
from gitstore.git import layout
from gitstore.git.repository import git_environment

POLITENESS = 10
"""How much nicer than the server it is: a clone takes what requests leave. https://man7.org/linux/man-pages/man7/sched.7.html"""

_PIECE = 64 * 1024
"""Bytes: as much as a pipe holds."""

_SAID = 4096
"""Bytes that are kept of the end of what it says on stderr."""

_CONFIG = (
    # The last entry that fits counts: https://git-scm.com/docs/git-config#Documentation/git-config.txt-transferhideRefs
    ("uploadpack.hideRefs", "refs"),
    ("uploadpack.hideRefs", f"!{layout.REFERENCE}"),
    ("uploadpack.hideRefs", "!refs/tags"),
    ("uploadpack.allowFilter", "true"),
    ("uploadpack.allowAnySHA1InWant", "false"),
    ("uploadpack.allowReachableSHA1InWant", "false"),
    ("uploadpack.allowTipSHA1InWant", "false"),
    ("uploadpack.allowRefInWant", "false"),
    ("uploadpack.keepAlive", "5"),
    ("core.bigFileThreshold", "512m"),
    ("pack.threads", "1"),
    ("pack.windowMemory", "256m"),
)
"""So that nobody's own git configuration gives out more, or takes more than one core."""


class Upload:
    """What one run of git upload-pack says, in pieces. To be closed, and then it runs no more, nor what it has started.

    Each is for one thread. `failed` is known after the last piece: whether git gave up, for which `said` has its reason.
    What it had said by then is to be passed on all the same, as it may hold a word for the client.
    """

    def __init__(
        self,
        git_dir: str,
        request: bytes | None,
        *,
        timeout: float,
        version: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Answer a request of git's protocol, or without one tell what there is: capabilities, main and the tags.

        It has `timeout` seconds, by `clock`, for all of it. `version` is that of the protocol that the client wants.
        Raises StorageFailed where git can't be run.
        https://git-scm.com/docs/gitprotocol-http, https://git-scm.com/docs/gitprotocol-v2
        """
        self.failed = False
        self._said = b""
        self._clock = clock
        self._deadline = clock() + timeout
        self._open = ExitStack()
        asked = ["--advertise-refs"] if request is None else []
        environment = git_environment() | ({"GIT_PROTOCOL": f"version={version}"} if version else {})
        with tempfile.TemporaryFile() as file:
            # Not a pipe: it may answer before it has read all, and then each side would wait for the other.
            file.write(request or b"")
            file.seek(0)
            self._process = _start([*asked, git_dir], file, environment)
        self._open.callback(self._end)
        self._selector = self._open.enter_context(selectors.DefaultSelector())
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            self._open.callback(pipe.close)
            self._selector.register(pipe, selectors.EVENT_READ)

    @property
    def process(self) -> int:
        """The id of the process, which leads a group of its own."""
        return self._process.pid

    @property
    def said(self) -> str:
        """The end of what it said on stderr: one line, the rest of it is dropped."""
        return " ".join(self._said.decode("utf-8", "replace").split())

    def __iter__(self) -> Upload:
        return self

    def __next__(self) -> bytes:
        """The next piece, which is not empty. Raises TimeoutError when there is no time left."""
        while self._selector.get_map():
            left = self._deadline - self._clock()
            if left <= 0:
                raise TimeoutError("git upload-pack took too long")
            for key, _ in self._selector.select(left):
                piece = os.read(key.fd, _PIECE)
                if not piece:
                    self._selector.unregister(key.fileobj)
                elif key.fileobj is self._process.stdout:
                    return piece
                else:
                    self._said = (self._said + piece)[-_SAID:]
        self.failed = self._process.wait() != 0
        raise StopIteration

    def close(self) -> None:
        """Kill what still runs. May be called again."""
        self._open.close()

    def _end(self) -> None:
        if self._process.returncode is None:
            # Until it is waited for its id, which is that of the group, is no other's.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _start(
    arguments: Sequence[str], stdin: IO[bytes], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    options = [part for name, value in _CONFIG for part in ("-c", f"{name}={value}")]
    try:
        process = subprocess.Popen(
            ["git", *options, "upload-pack", "--strict", "--stateless-rpc", *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            bufsize=0,
            process_group=0,
        )
    except OSError as error:
        raise StorageFailed(f"git can't be run: {error.strerror}.") from error
    cores.release(process.pid)
    with suppress(ProcessLookupError):  # it was quicker
        nice = os.getpriority(os.PRIO_PROCESS, 0) + POLITENESS
        os.setpriority(os.PRIO_PGRP, process.pid, min(nice, 19))
    return process
