"""What a soak is about: a server of two workers on a disk of its own, what it uses, and what is done to it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

MIB = 1024**2
WORKERS = 2
_BLOCK = 4096

DiskKind = Literal["loop", "tmpfs", "none"]


class Use(NamedTuple):
    """What a process uses at an instant (seconds of the monotonic clock).

    Memory in KiB: what is resident, its share of that where several processes have it, and what is of no file.
    """

    at: float
    pid: int
    rss: int
    pss: int
    heap: int
    descriptors: int


@dataclass
class Disk:
    """A file system for the record alone, where `kind` is not "none": it can be filled without harm to others.

    `size` in bytes.
    """

    kind: DiskKind
    path: Path
    size: int

    @property
    def free(self) -> int:
        """Bytes."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, left: int) -> None:
        """Take all room but `left` bytes, or some less."""
        if self.kind == "tmpfs":  # a ballast would take memory
            # Refused where more has come to be used meanwhile.
            while not self._cut_to(left):
                pass
            return
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT)
        try:
            step = 64 * MIB
            while step >= _BLOCK and (wanted := self.free - left) >= _BLOCK:
                try:
                    os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, min(step, wanted))
                except OSError:  # the file system needs some of the room for its own books
                    step //= 4
        finally:
            os.close(descriptor)

    def _cut_to(self, left: int) -> bool:
        status = os.statvfs(self.path)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        remount = ["mount", "-o", f"remount,size={used + left}", str(self.path)]
        return subprocess.run(remount, capture_output=True, check=False).returncode == 0

    def empty(self) -> None:
        """Give the room back."""
        if self.kind == "tmpfs":
            run("mount", "-o", f"remount,size={self.size}", self.path)
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"


@contextmanager
def disk(folder: Path, kind: DiskKind, size: int) -> Iterator[Disk]:
    """A disk of `size` bytes. Who calls has a mount namespace of its own, unless `kind` is "none"."""
    path = folder / "disk"
    path.mkdir(parents=True)
    image = folder / "disk.img"
    if kind == "loop":
        with image.open("wb") as file:
            file.truncate(size)
        run("mkfs.ext4", "-q", "-m", "0", image)
        run("mount", "-o", "loop", image, path)
    elif kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "soak", path)
    try:
        yield Disk(kind, path, size)
    finally:
        if kind != "none":
            run("umount", "--lazy", path)
            image.unlink(missing_ok=True)


def best_disk(folder: Path) -> DiskKind:
    """What this user may mount here, in a namespace of its own."""
    if os.geteuid() == 0 and shutil.which("mkfs.ext4"):
        try:
            with disk(folder / "loop-tried", "loop", 8 * MIB):
                return "loop"
        except (OSError, subprocess.CalledProcessError):
            pass
    try:
        with disk(folder / "tmpfs-tried", "tmpfs", MIB):
            return "tmpfs"
    except (OSError, subprocess.CalledProcessError):
        return "none"


def namespace() -> list[str]:
    """The command before a command that gives it mounts of its own, which end with it; empty where that is forbidden."""
    for options in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        with suppress(OSError):
            if (
                subprocess.run(["unshare", *options, "true"], capture_output=True, check=False).returncode
                == 0
            ):
                return ["unshare", *options]
    return []


def run(*command: object) -> str:
    """What the command prints. Raises CalledProcessError."""
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return done.stdout


class Server:
    """`python -m api` with its log in a file, and what it counts and caches in a folder beside."""

    def __init__(self, record: str, folder: Path, threads: int = 32) -> None:
        scratch = folder / "tmp"
        scratch.mkdir()
        self.log = folder / "server.log"
        self.record = record
        command = [sys.executable, "-m", "api", record, "--port", "0", "--workers", str(WORKERS)]
        with self.log.open("wb") as log:
            self.master = subprocess.Popen(
                [*command, "--threads", str(threads)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"TMPDIR": str(scratch)},
            )
        assert self.master.stdout is not None
        greeting = self.master.stdout.readline()
        if not greeting:
            raise SystemExit(f"the server doesn't start: {self.log.read_text(encoding='utf-8')[-2000:]}")
        self.port = int(greeting.rsplit(":", 1)[1].removesuffix("/fhir\n"))

    def workers(self) -> list[int]:
        """Process ids, the eldest first."""
        path = Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children")
        try:
            born = {int(pid): _born(int(pid)) for pid in path.read_text(encoding="ascii").split()}
        except OSError:  # one of them has ended just now, or all
            return []
        return sorted(born, key=lambda pid: (born[pid], pid))

    def kill(self, pid: int) -> None:
        """Returns when the worker is dead. Threads that are within a call of the system finish it first, say an accept."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            ended = select.poll()
            ended.register(process, select.POLLIN)
            ended.poll(10_000)
        except ProcessLookupError:  # it was quicker
            pass
        finally:
            os.close(process)

    def hang_up(self) -> None:
        self.master.send_signal(signal.SIGHUP)

    def uses(self) -> list[Use]:
        """Of the master and of each worker."""
        found = []
        for pid in (self.master.pid, *self.workers()):
            # It may end while it is looked at; another look comes soon.
            with suppress(OSError, KeyError, StopIteration):
                found.append(_use(pid))
        return found

    def stop(self) -> int:
        """The exit code."""
        self.master.terminate()
        assert self.master.stdout is not None
        self.master.stdout.close()
        return self.master.wait(90)


def _born(pid: int) -> int:
    """In ticks since the machine started. https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])


def _use(pid: int) -> Use:
    # https://docs.kernel.org/filesystems/proc.html
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    sizes = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines)}
    count = len(os.listdir(f"/proc/{pid}/fd"))
    return Use(time.monotonic(), pid, int(sizes["Rss"]), int(sizes["Pss"]), int(sizes["Anonymous"]), count)
