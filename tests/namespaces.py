"""Network namespaces that have no names, and are connected with nothing but what is put into them.

The kernel removes one with the last process in it. A holder kills all others, and ends, when its stdin ends: so nothing
outlives a test, whichever way that ends. https://man7.org/linux/man-pages/man7/network_namespaces.7.html
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import hubs
import pytest
import slow_link

PATIENCE = 30.0
"""Seconds after which what should have happened has failed."""

_NETWORK = "10.99.0"
_HOLDER = """\
import os, sys

sys.stdin.read()
here, left = os.readlink("/proc/self/ns/net"), True
while left:
    left = False
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if pid != str(os.getpid()) and os.readlink(f"/proc/{pid}/ns/net") == here:
                left = True
                os.kill(int(pid), 9)
        except OSError:
            pass
"""


class Namespace:
    """A network namespace, and the process that holds it."""

    def __init__(self, name: str, number: int) -> None:
        """`number` is the last byte of its address."""
        self.name = name
        self.address = f"{_NETWORK}.{number}"
        self.hardware = f"02:63:00:00:00:{number:02x}"
        self.holder = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-I", "-S", "-c", _HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.within = ["nsenter", "--net", "--target", str(self.holder.pid)]

    def wait(self) -> None:
        """Until it is there; skips the test where it can't be made."""
        home = os.readlink("/proc/self/ns/net")

        def is_made() -> bool:
            if self.holder.poll() is not None:
                assert self.holder.stderr is not None
                why = self.holder.stderr.read().decode().strip()
                pytest.skip(f"network namespaces can't be made here, only by root in most places: {why}")
            return self._identity() not in (home, None)

        hubs.wait_until(is_made, "no network namespace")

    def _identity(self) -> str | None:
        return _namespace_of(self.holder.pid)

    def run(self, *command: str, stdin: str | None = None) -> None:
        done = subprocess.run(
            [*self.within, *command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{command} {stdin or ''}: {done.stderr}"

    def processes(self) -> list[int]:
        """The ids of all that live here, but for the holder: also of those that have a session of their own."""
        here = self._identity()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if pid != self.holder.pid and _namespace_of(pid) == here]

    def signal(self, number: signal.Signals, until: str) -> None:
        """Send it to all who live here, again and again, until each is in one of these states of proc(5), or gone."""

        def is_done() -> bool:
            left = [pid for pid in self.processes() if _state(pid) not in until]
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            return not left

        hubs.wait_until(is_done, f"{self.name}: {number.name} has no effect")

    def end(self) -> None:
        """With all who live here."""
        assert self.holder.stdin is not None
        assert self.holder.stderr is not None
        self.holder.stdin.close()
        self.holder.wait(PATIENCE)
        self.holder.stderr.close()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in here, and what it opens stays here."""
        with (
            open("/proc/thread-self/ns/net", "rb") as home,
            open(f"/proc/{self.holder.pid}/ns/net", "rb") as here,
        ):
            slow_link.enter(here.fileno())
            try:
                yield
            finally:
                slow_link.enter(home.fileno())


def _namespace_of(pid: int) -> str | None:
    """None for a process that is gone, or of somebody else."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/net")
    return None


def children(pid: int) -> list[int]:
    """Of a process, in ascending order, without those that have ended."""
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [each for each in pids if _stat(each)[1] == str(pid) and _state(each) != "Z"]


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _stat(pid: int) -> list[str]:
    """State, a letter, and parent: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return text.rpartition(")")[2].split()[:2]
    return ["Z", ""]
