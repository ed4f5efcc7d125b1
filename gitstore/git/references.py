"""Refs as files: which there are, what they point at, and changing many of them at once. https://git-scm.com/docs/gitrepository-layout

A ref is locked by the file `NAME.lock`, which no git overwrites, and moved by renaming that file. Ours are links to files
that were made before, so that they are never empty, and can be told from those of others at any time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from msgspec import Struct

from gitstore.errors import Locked, RepositoryRefused, Unavailable
from gitstore.git.repository import run_git

_POLL = 0.005
_PACKED = "packed-refs"


class Ref(Struct, frozen=True):
    """A ref that is no name of another one. `kind` is commit or tag; `commit` is where it leads in the end."""

    name: str
    id: str
    kind: str
    commit: str


class Move(Struct, frozen=True):
    """A ref is to go from one object to another."""

    name: str
    old: str
    new: str


def all_refs(git_dir: str) -> list[Ref]:
    """Every ref, and HEAD where it is detached. Raises RepositoryRefused for one that leads to no commit."""
    form = "%(refname)%00%(symref)%00%(objectname)%00%(objecttype)%00%(*objectname)%00%(*objecttype)"
    found = []
    for line in run_git(["--git-dir", git_dir, "for-each-ref", f"--format={form}"]).splitlines():
        name, symbolic, id, kind, peeled, peeled_kind = line.split("\0")
        if symbolic:
            continue
        if kind == "tag" and peeled_kind == "tag":
            peeled, peeled_kind = _peeled(git_dir, name)
        if "commit" not in (kind, peeled_kind):
            raise RepositoryRefused(
                f"{name} leads to a {peeled_kind or kind}, of which git-fhir can't tell what it holds."
            )
        found.append(Ref(name, id, kind, peeled or id))
    with open(os.path.join(git_dir, "HEAD"), encoding="ascii") as file:
        head = file.read().strip()
    if not head.startswith("ref:"):
        found.append(Ref("HEAD", head, "commit", head))
    return found


def _peeled(git_dir: str, name: str) -> tuple[str, str]:
    """What a tag of a tag leads to."""
    id = run_git(["--git-dir", git_dir, "rev-parse", "--verify", f"{name}^{{}}"]).strip()
    return id, run_git(["--git-dir", git_dir, "cat-file", "-t", id]).strip()


def read_ref(git_dir: str, name: str) -> str | None:
    """What a ref points at, packed or not; None where there is none."""
    with (
        suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError),
        open(os.path.join(git_dir, name), encoding="ascii") as file,
    ):
        return file.read().strip()
    for id, packed in _packed(git_dir):
        if packed == name:
            return id
    return None


def _packed(git_dir: str) -> Iterator[tuple[str, str]]:
    with suppress(FileNotFoundError), open(os.path.join(git_dir, _PACKED), encoding="utf-8") as file:
        for line in file:
            id, _, name = line.rstrip("\n").partition(" ")
            if name and not id.startswith("#"):
                yield id, name


class Moves:
    """Many refs that move together. `folder` holds their new files."""

    def __init__(self, git_dir: str, folder: str, moves: Sequence[Move], timeout: float = 10.0) -> None:
        self._git_dir = git_dir
        self._folder = folder
        self._moves = moves
        self._timeout = timeout

    def stage(self) -> None:
        """Write the new files."""
        os.makedirs(self._folder, exist_ok=True)
        for number, move in enumerate(self._moves):
            _write(self._staged(number), f"{move.new}\n".encode())

    def lock(self) -> None:
        """Keep every other git from moving them. Raises Locked, and Unavailable where one has moved."""
        for number, move in enumerate(self._moves):
            self._lock(number, move)
            if read_ref(self._git_dir, move.name) != move.old:
                raise Unavailable(f"{move.name} was moved by another git meanwhile. Try again.")

    def _lock(self, number: int, move: Move) -> None:
        lock = self._lock_of(move)
        os.makedirs(os.path.dirname(lock), exist_ok=True)
        self._link(self._staged(number), lock, move.name)

    def publish(self) -> None:
        """Move them all, from wherever an earlier attempt has ended."""
        for number, move in enumerate(self._moves):
            if read_ref(self._git_dir, move.name) != move.new:
                self._lock(number, move)
                os.rename(self._lock_of(move), os.path.join(self._git_dir, move.name))
        self.unlock()
        self._repack()

    def unlock(self) -> None:
        """Take away all locks of ours that stand."""
        for number, move in enumerate(self._moves):
            if _same(self._staged(number), self._lock_of(move)):
                os.unlink(self._lock_of(move))
        lock = os.path.join(self._git_dir, f"{_PACKED}.lock")
        if _same(os.path.join(self._folder, _PACKED), lock):
            os.unlink(lock)

    def folders(self) -> set[str]:
        """The folders in which files have changed."""
        return {os.path.dirname(self._lock_of(move)) for move in self._moves} | {self._git_dir}

    def _repack(self) -> None:
        """Leave the old ids out of packed-refs, where nobody sees them any more."""
        moved = {move.name for move in self._moves}
        path = os.path.join(self._git_dir, _PACKED)
        if not any(name in moved for _, name in _packed(self._git_dir)):
            return
        staged = os.path.join(self._folder, _PACKED)
        _write(staged, b"")
        self._link(staged, f"{path}.lock", _PACKED)
        lines = "".join(f"{id} {name}\n" for id, name in _packed(self._git_dir) if name not in moved)
        _write(f"{staged}.whole", lines.encode())
        os.rename(f"{staged}.whole", path)
        os.unlink(f"{path}.lock")

    def _link(self, staged: str, lock: str, name: str) -> None:
        """Take a lock that may be ours already. Raises Locked."""
        deadline = time.monotonic() + self._timeout
        while not _same(staged, lock):
            try:
                os.link(staged, lock)
            except FileExistsError:
                if time.monotonic() > deadline:
                    raise Locked(
                        f"Another git holds {name}.lock for more than {self._timeout:g} s."
                    ) from None
                time.sleep(_POLL)

    def _staged(self, number: int) -> str:
        return os.path.join(self._folder, str(number))

    def _lock_of(self, move: Move) -> str:
        return os.path.join(self._git_dir, f"{move.name}.lock")


def _same(first: str, second: str) -> bool:
    """Whether two names are of one file."""
    try:
        return os.path.samestat(os.stat(first), os.stat(second))
    except FileNotFoundError:
        return False


def _write(path: str, data: bytes) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with open(descriptor, "wb") as file:
        file.write(data)
