"""A disk that remembers what was synced: every state that a power cut may leave of a run of the writer.

The pessimistic model: until a file is synced, a cut may leave its new content, its old content, or half of it; until a
folder is synced, each change of its entries may be there or not, whatever came before or after it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


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

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _note(self, call: str) -> None:
        copies = {id(file): file.copy() for file in self._all_files()}

        def copied(file: File | None) -> File | None:
            return copies[id(file)] if file is not None else None

        entries: Any = {path: copied(file) for path, file in self._synced.items()}
        pending = [[(folder, name, copied(file)) for folder, name, file in group] for group in self._pending]
        self.steps.append(Step(call, entries, pending, self.acknowledged))

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
        path, file = self._open[descriptor]
        assert file is not None
        file.write(file.contents[-1] + bytes(data))
        self._note(f"write {os.path.relpath(path, self._folder)}")
        return os.write(descriptor, data)

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
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
