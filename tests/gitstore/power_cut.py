"""A disk that remembers what was synced: every state that a power cut may leave of a run of the writer.

The pessimistic model: until a file is synced, a cut may leave its new content, its old content, or half of it; until a
folder is synced, each change of its entries may be there or not, whatever came before or after it.

Calls of our own are recorded one by one: a `Disk` stands in for the module `os`. What git's children write isn't seen
call by call: they are told to sync what they write (`core.fsync = all`), and git never syncs a folder (strace shows both),
so of what they leave each file is whole, and each change of an entry may get lost (`Disk.noticed`). A git that nobody told
so, which pushes, syncs nothing (`Disk.wrote`). SQLite's calls aren't seen: test_power_cut_index.py makes states of its files.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SAMPLE = os.environ.get("GIT_FHIR_POWER_CUTS", "")
"""How many of the states are tried, or `all`: the documented run."""


@dataclass(eq=False)
class File:
    """An inode: what a cut may leave in it, the newest last. One that was never written is empty."""

    contents: list[bytes] = field(default_factory=lambda: [b""])

    def write(self, content: bytes) -> None:
        self.contents += [content[: len(content) // 2], content]

    def sync(self) -> None:
        del self.contents[:-1]

    def copy(self) -> File:
        return File(list(self.contents))


Change = tuple[str, str, "File | None"]
"""Folder, name, and what the name stands for from now on (None: nothing)."""


@dataclass
class Step:
    """One call of the operating system that changed something, and what the disk may hold after it."""

    call: str
    entries: dict[str, File]
    """What is surely there, by path."""
    pending: list[list[Change]]
    """Changes of folders that are not synced yet; those of one rename stay together."""
    acknowledged: int
    """How many units of work had been acknowledged by then."""

    def states(self) -> Iterator[dict[str, bytes | None]]:
        """Each state that a cut may leave here: path -> content, None for a path that is gone. Some repeat."""
        for kept in itertools.product((False, True), repeat=len(self.pending)):
            entries: dict[str, File | None] = dict(self.entries)
            for group, is_kept in zip(self.pending, kept, strict=True):
                if is_kept:
                    entries.update({f"{folder}/{name}": file for folder, name, file in group})
            files = {id(file): file for file in entries.values() if file is not None}
            for contents in itertools.product(*(file.contents for file in files.values())):
                chosen = dict(zip(files, contents, strict=True))
                yield {path: None if file is None else chosen[id(file)] for path, file in entries.items()}


class Disk:
    """Stands in for the module `os` where the writer calls it: does what os does, and remembers."""

    def __init__(self, folder: str) -> None:
        self.steps: list[Step] = []
        self.acknowledged = 0
        self._folder = folder
        self._open: dict[int, tuple[str, File | None]] = {}
        self._entries: dict[str, File | None] = {}
        """As the running system sees it: only paths that were touched."""
        self._synced: dict[str, File | None] = {}
        self._pending: list[list[Change]] = []
        self._seen: dict[str, dict[str, tuple[int, int]]] = {}
        """What `noticed` has found in each folder: inode and time of each file."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _note(self, call: str) -> None:
        copies = {id(file): file.copy() for file in self._all_files()}

        def copied(file: File | None) -> File | None:
            return copies[id(file)] if file is not None else None

        entries: Any = {path: copied(file) for path, file in self._synced.items()}
        pending = [[(folder, name, copied(file)) for folder, name, file in group] for group in self._pending]
        self.steps.append(Step(call, entries, pending, self.acknowledged))

    def acknowledge(self) -> None:
        """Somebody has been told that a unit of work is done."""
        self.acknowledged += 1
        self._note("acknowledged")

    def _all_files(self) -> Iterator[File]:
        for file in self._synced.values():
            if file is not None:
                yield file
        for group in self._pending:
            yield from (file for _, _, file in group if file is not None)

    def _file(self, path: str) -> File:
        """The file at a path, which may have lain there, synced, before the run began."""
        found = self._entries.get(path)
        if found is None:
            with open(path, "rb") as stream:
                found = File([stream.read()])
            self._entries[path] = self._synced[path] = found
        return found

    def _change(self, *changes: tuple[str, File | None]) -> None:
        self._entries.update(changes)
        self._pending.append([(*os.path.split(path), file) for path, file in changes])

    # What the writer calls

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        exists = os.path.lexists(path)
        descriptor = os.open(path, flags, mode)
        if os.path.isdir(path):
            self._open[descriptor] = (path, None)
            return descriptor
        if not os.path.isfile(path):  # a FIFO
            return descriptor
        if exists:
            file = self._file(path)
        else:
            file = File()
            self._change((path, file))
            self._note(f"create {os.path.relpath(path, self._folder)}")
        self._open[descriptor] = (path, file)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        os.close(descriptor)

    def write(self, descriptor: int, data: Any) -> int:
        if descriptor not in self._open:  # opened before the run: nothing that has to outlast a cut
            return os.write(descriptor, data)
        path, file = self._open[descriptor]
        assert file is not None
        file.write(file.contents[-1] + bytes(data))
        self._note(f"write {os.path.relpath(path, self._folder)}")
        return os.write(descriptor, data)

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        if descriptor not in self._open:
            return os.pwrite(descriptor, data, offset)
        path, file = self._open[descriptor]
        assert file is not None
        # One sector, written in place: a cut leaves the old or the new one.
        file.contents.append(data)
        self._note(f"overwrite {os.path.relpath(path, self._folder)}")
        return os.pwrite(descriptor, data, offset)

    def fsync(self, descriptor: int) -> None:
        path, file = self._open[descriptor]
        if file is not None:
            file.sync()
        else:
            rest = []
            for group in self._pending:
                if any(folder == path for folder, _, _ in group):
                    self._synced.update({f"{folder}/{name}": file for folder, name, file in group})
                else:
                    rest.append(group)
            self._pending = rest
        self._note(f"sync {os.path.relpath(path, self._folder)}")
        os.fsync(descriptor)

    fdatasync = fsync

    def rename(self, old: str, new: str) -> None:
        file = self._file(old)
        os.rename(old, new)
        self._change((new, file), (old, None))
        self._note(f"rename to {os.path.relpath(new, self._folder)}")

    def link(self, old: str, new: str) -> None:
        file = self._file(old)
        os.link(old, new)
        self._change((new, file))
        self._note(f"link {os.path.relpath(new, self._folder)}")

    def unlink(self, path: str) -> None:
        os.unlink(path)
        self._change((path, None))
        self._note(f"unlink {os.path.relpath(path, self._folder)}")

    def sync(self) -> None:
        """The whole disk."""
        for file in self._all_files():
            file.sync()
        for group in self._pending:
            self._synced.update({f"{folder}/{name}": file for folder, name, file in group})
        self._pending = []
        self._note("sync everything")
        os.sync()

    # What others write

    def wrote(self, paths: Iterable[str]) -> None:
        """A git that syncs nothing has written these files: on the disk they are all there, or none of them is."""
        changes = [(path, File([Path(path).read_bytes()])) for path in paths]
        self._change(*changes)

    def noticed(self, *folders: str) -> None:
        """A child of git has changed files in these folders, synced them, and not the folders. The first look only looks.

        The chain of commit-graphs is the one file that git doesn't sync.
        """
        for folder in folders:
            found = _files(folder)
            seen = self._seen.get(folder)
            self._seen[folder] = found
            if seen is None:
                continue
            for name in [name for name, what in found.items() if seen.get(name) != what]:
                file = File()
                file.write(Path(folder, name).read_bytes())
                if name != "commit-graph-chain":
                    file.sync()
                self._change((f"{folder}/{name}", file))
                self._note(f"git's {os.path.relpath(folder, self._folder)}/{name}")
            for name in [name for name in seen if name not in found]:
                if self._entries.get(f"{folder}/{name}", File()) is not None:
                    self._change((f"{folder}/{name}", None))
                    self._note(f"git's removal of {os.path.relpath(folder, self._folder)}/{name}")


def _files(folder: str) -> dict[str, tuple[int, int]]:
    if not os.path.isdir(folder):
        return {}
    with os.scandir(folder) as entries:
        stats = {entry.name: entry.stat() for entry in entries if entry.is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


State = dict[str, "bytes | None"]


def distinct(steps: list[Step]) -> list[tuple[str, int, State]]:
    """Each state once, with the highest number of acknowledged units at which it may occur."""
    found: dict[object, tuple[str, int, State]] = {}
    for step in steps:
        for state in step.states():
            key = frozenset((path, content) for path, content in state.items() if content is not None)
            key = frozenset((key, frozenset(path for path, content in state.items() if content is None)))
            if key not in found or found[key][1] < step.acknowledged:
                found[key] = (step.call, step.acknowledged, state)
    return list(found.values())


def sample(states: list[tuple[str, int, State]], usual: int) -> list[tuple[str, int, State]]:
    """Those to try: some, or all where the environment says so."""
    if SAMPLE == "all":
        print(f"{len(states):,} states")
        return states
    return random.Random(1).sample(states, min(int(SAMPLE or usual), len(states)))


def restore(before: Path, record: str, state: State) -> None:
    """Make the record what the cut left: as before, but for what is known of the files that were touched."""
    shutil.rmtree(record)
    shutil.copytree(before, record, symlinks=True)
    for path, content in state.items():
        if content is None:
            Path(path).unlink(missing_ok=True)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).unlink(missing_ok=True)
            Path(path).write_bytes(content)


def fsck(record: str) -> tuple[int, str]:
    """What git finds wrong."""
    command = ["git", "-C", record, "fsck", "--full", "--strict", "--no-dangling"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stderr
