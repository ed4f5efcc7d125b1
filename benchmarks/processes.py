"""Servers as processes of their own, and what they use of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WORKERS = 2

_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A server of some workers that listens on a port. `started` is how many seconds that took."""

    port: int
    master: int
    started: float

    def workers(self) -> list[int]:
        """Process ids."""
        path = Path(f"/proc/{self.master}/task/{self.master}/children")
        return [int(pid) for pid in path.read_text(encoding="ascii").split()]

    def cpu(self) -> float:
        """Seconds of the processor that the workers have needed so far."""
        ticks = 0
        for pid in self.workers():
            # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks * _TICK

    def memory(self) -> list[dict[str, float]]:
        """MB of each worker: what is resident, and its share where several processes have the same page."""
        found = []
        for pid in self.workers():
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            sizes = dict(line.split()[:2] for line in text.splitlines()[1:])
            found.append({name: int(sizes[f"{name}:"]) / 1000 for name in ("Rss", "Pss")})
        return found


@contextmanager
def running(*command: str) -> Iterator[Server]:
    """A server that says in its first line where it is."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        greeting = process.stdout.readline()
        if not greeting:
            raise SystemExit(f"{' '.join(command)} does not start")
        port = int(greeting.rsplit(":", 1)[1].partition("/")[0])
        yield Server(port, process.pid, time.perf_counter() - begun)
    finally:
        process.terminate()
        process.wait()


def git_fhir(record: str) -> tuple[str, ...]:
    return ("api", record, "--allow-anonymous", "--port", "0", "--workers", str(WORKERS))
