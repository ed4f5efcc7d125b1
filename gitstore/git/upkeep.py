"""Keeping a record small and quick to read: merging packs, the multi-pack-index, the commit-graph. docs/architecture.md, "Maintenance"

`git repack` asks the refs which objects are still wanted, and leaves out of the new pack what a pack with a `.keep`
holds too. Beside a writer either can lose objects: the refs may be read too early, and the write that the `.keep`
belongs to may be undone. So packs are merged here by name, and nothing is asked about reachability: the new pack holds
every object of the packs that it replaces, and no others go.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from msgspec import Struct

from gitstore import cores
from gitstore.durable import sync_folder
from gitstore.errors import StorageFailed
from gitstore.git.pack import KEEP_TEXT
from gitstore.git.repository import git_environment

NICE = 19
"""The lowest priority: maintenance takes what the server leaves, unless it is hurried."""

_FACTOR = 2
_LARGE = 50_000
"""Objects of a pack that is left to its own idx. There are few such packs, and a multi-pack-index of all would have to
be written whole each time: 200 MB at a million commits."""

_OURS = KEEP_TEXT.split()[0]
_SET_APART = ("promisor", "mtimes")
"""A partial clone's packs and git's cruft packs mean something by themselves: they are never merged."""
_KINDS = ("idx", "pack", "rev", "bitmap")
"""Files of a pack in the order in which they go: without the idx git no longer sees the pack."""
_HEADER = struct.Struct(">4sLL")
_INDEX_HEADER = struct.Struct(">4sBBBBL")

_CONFIG = {
    "core.bigFileThreshold": "512m",
    "core.commitGraph": "true",
    "core.compression": "-1",
    "core.fsyncMethod": "fsync",
    "core.multiPackIndex": "true",
    "commitGraph.generationVersion": "2",
    "commitGraph.maxNewFilters": "-1",
    "pack.compression": "-1",
    "pack.depth": "50",
    "pack.packSizeLimit": "0",
    "pack.threads": "1",
    "pack.window": "10",
    "pack.windowMemory": "256m",
    "pack.writeReverseIndex": "false",
}
"""So that nobody's own git configuration changes what maintenance does."""


class PackFile(Struct, frozen=True):
    """A pack whose objects stay: its name (40 hex digits), how many objects it has, and whether it may be merged."""

    name: str
    objects: int
    free: bool


class Storage(Struct, frozen=True):
    """What a record's objects take up: how many packs there are, and the bytes of all files under `objects`."""

    packs: int
    bytes: int


def count_packs(git_dir: str) -> tuple[int, int]:
    """How many packs may be merged, and how many the multi-pack-index covers. One listing: cheap. Raises OSError."""
    folder = _pack_folder(git_dir)
    names = set(os.listdir(folder))
    found = [name for name in names if _is_idx(name)]
    free = sum(f"{name[:-4]}.keep" not in names for name in found)
    return free, _indexed(folder)


def _indexed(folder: str) -> int:
    """How many packs the multi-pack-index covers. https://git-scm.com/docs/gitformat-pack#_multi_pack_index_midx_files_have_the_following_format"""
    try:
        with open(os.path.join(folder, "multi-pack-index"), "rb") as file:
            header = file.read(_INDEX_HEADER.size)
    except FileNotFoundError:
        return 0
    return int(_INDEX_HEADER.unpack(header)[-1]) if len(header) == _INDEX_HEADER.size else 0


def storage(git_dir: str) -> Storage:
    """What the objects of a record take up on disk."""
    packs = size = 0
    for folder, _, names in os.walk(os.path.join(git_dir, "objects")):
        packs += sum(map(_is_idx, names)) if os.path.basename(folder) == "pack" else 0
        for name in names:
            with suppress(FileNotFoundError):  # temporary files, and packs that were merged meanwhile
                size += os.stat(os.path.join(folder, name)).st_size
    return Storage(packs, size)


def smallest(packs: Iterable[PackFile]) -> list[PackFile]:
    """The packs to merge so that each that remains has at least twice the objects of all smaller ones together.

    So there are never more than some thirty, and an object is copied only as often as the record doubles.
    """
    ordered = sorted((pack for pack in packs if pack.free), key=lambda pack: (pack.objects, pack.name))
    end = total = 0
    for position, pack in enumerate(ordered):
        if position and pack.objects < _FACTOR * total:
            end = position + 1
        total += pack.objects
    return ordered[:end]


class Upkeep:
    """The work itself. Whoever calls holds the maintenance lock, `inherited` by the git children: should this
    process be killed, they still hold it until they are done.
    """

    def __init__(
        self, git_dir: str, *, durable: bool = True, inherited: Sequence[int] = (), hurried: bool = False
    ) -> None:
        """`hurried` is work that others wait for, or soon will: it is as important as they are."""
        self._hurried = hurried
        self._git_dir = git_dir
        self._durable = durable
        self._inherited = inherited
        self._folder = _pack_folder(git_dir)

    # Looking

    def packs(self) -> list[PackFile]:
        """The packs that stay whatever happens: not those of a write that is under way, which may be undone."""
        names = set(os.listdir(self._folder))
        found = []
        for idx in filter(_is_idx, sorted(names)):
            stem = os.path.join(self._folder, idx[:-4])
            # In this order: the `.keep` was there before the idx, so without one the write has happened, or was
            # undone, and then the idx is gone.
            kept = self._keeper(stem + ".keep")
            if (kept is not None and kept.startswith(_OURS)) or not os.path.exists(stem + ".idx"):
                continue
            if not os.path.exists(stem + ".pack"):
                continue  # a power cut took back the removal of its idx, which goes first
            free = kept is None and not any(f"{idx[:-4]}.{kind}" in names for kind in _SET_APART)
            found.append(PackFile(idx[5:-4], self._objects(stem + ".pack"), free))
        return found

    def _keeper(self, path: str) -> bytes | None:
        """What a `.keep` says; None where there is none."""
        try:
            with open(path, "rb") as file:
                return file.read(64)
        except FileNotFoundError:
            return None

    def _objects(self, path: str) -> int:
        with open(path, "rb") as file:
            header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or header[:4] != b"PACK":
            raise StorageFailed(f"{path} is no pack: nothing was merged.")
        return int(_HEADER.unpack(header)[2])

    def has_loose_objects(self) -> bool:
        """Whether another git has left objects in files of their own."""
        return any(len(name) == 2 for name in os.listdir(os.path.join(self._git_dir, "objects")))

    # Merging

    def merge(self, chosen: Sequence[PackFile]) -> None:
        """Make one pack of the chosen ones and of loose objects, then remove them; and write the multi-pack-index.

        Raises StorageFailed; then every object is still there.
        """
        packs = self.packs()
        leaving = {pack.name for pack in chosen} & {pack.name for pack in packs}
        # The others stay for as long as we hold the lock: what they have is not needed twice.
        lines = [f"{'' if pack.name in leaving else '^'}pack-{pack.name}.pack" for pack in packs]
        made = self._pack_objects(["--stdin-packs", "--unpacked"], lines)
        self._replace(packs, leaving, made)

    def merge_all(self) -> None:
        """Make one pack of all, with the best deltas that there are, which takes longest. Raises StorageFailed.

        git walks the history, because objects in the order of the walk make better deltas, and then adds what it has
        not met: all that lies in the packs that go.
        """
        packs = self.packs()
        options = ["--all", "--reflog", "--indexed-objects", "--keep-unreachable", "--pack-loose-unreachable"]
        options += [f"--keep-pack=pack-{pack.name}.pack" for pack in packs if not pack.free]
        made = self._pack_objects([*options, "--no-reuse-delta"])
        self._replace(packs, {pack.name for pack in packs if pack.free}, made)

    def _pack_objects(self, options: Sequence[str], lines: Sequence[str] = ()) -> set[str]:
        """The names of the packs that it made."""
        place = os.path.join(self._folder, "pack")
        common = ["--non-empty", "--delta-base-offset", "--quiet"]
        return set(self._git(["pack-objects", *options, *common, place], lines).split())

    def _replace(self, before: Sequence[PackFile], leaving: set[str], made: set[str]) -> None:
        leaving = leaving - made
        try:
            self.write_index(without=leaving)
        except StorageFailed:
            # The old packs stay, so the new one is one too many; and the disk may be full.
            for name in made - {pack.name for pack in before}:
                self._remove_pack(name)
            raise
        # The old packs go only when the new one and the index without them are sure to stay.
        self._fsync_folder()
        for name in sorted(leaving):
            self._remove_pack(name)

    def write_index(self, *, without: Iterable[str] = ()) -> None:
        """The multi-pack-index of all packs but some, and but large ones. Raises StorageFailed.

        It also leaves out a write under way: an index that names a pack which was undone hides its objects in others.
        """
        gone = set(without)
        small = [pack for pack in self.packs() if pack.objects < _LARGE and pack.name not in gone]
        lines = [f"pack-{pack.name}.idx" for pack in small]
        if len(lines) > 1:
            self._git(["multi-pack-index", "write", "--stdin-packs", "--no-progress"], lines)
        else:  # a pack's own idx says as much
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self._folder, "multi-pack-index"))

    def write_graph(self, *, whole: bool = False) -> None:
        """The commit-graph with the paths that each commit changed, for `git log -- PATH`. Raises StorageFailed."""
        split = "--split=replace" if whole else "--split"
        self._git(["commit-graph", "write", "--reachable", split, "--changed-paths", "--no-progress"])

    def _remove_pack(self, name: str) -> None:
        stem = os.path.join(self._folder, f"pack-{name}")
        if os.path.exists(stem + ".keep"):
            return  # somebody wants it after all; its objects are there twice
        for kind in _KINDS:
            with suppress(FileNotFoundError):
                os.unlink(f"{stem}.{kind}")

    # Tidying

    def leftovers(self, before: float) -> list[str]:
        """Files that nobody needs: each `.keep` of ours, and what git children that died left before that time.

        Only under the writer's lock is a `.keep` of ours surely a leftover. `before` is in seconds since 1970.
        """
        names = os.listdir(self._folder)
        idx = {name[:-4] for name in filter(_is_idx, names)}
        packs = {name[:-5] for name in names if name.endswith(".pack")}
        found = []
        for name in sorted(names):
            path = os.path.join(self._folder, name)
            stem, _, kind = name.partition(".")
            if kind == "keep":
                stale = (self._keeper(path) or b"").startswith(_OURS)
            else:
                dead = name.startswith(("tmp_", ".tmp-")) or name == "multi-pack-index.lock"
                halved = stem.startswith("pack-") and kind in _KINDS and stem not in idx & packs
                stale = (dead or halved) and _older(path, before)
            if stale:
                found.append(path)
        return found + [path for path in self._graph_locks() if _older(path, before)]

    def _graph_locks(self) -> Iterator[str]:
        info = os.path.join(self._git_dir, "objects", "info")
        yield os.path.join(info, "commit-graph.lock")
        yield os.path.join(info, "commit-graphs", "commit-graph-chain.lock")

    def remove_leftovers(self, before: float) -> None:
        """Remove them; under the writer's lock."""
        for path in self.leftovers(before):
            with suppress(FileNotFoundError):
                os.unlink(path)

    def prune_packed(self) -> None:
        """Remove loose objects that a pack holds; under the writer's lock, so that no such pack can be undone."""
        self._git(["prune-packed", "--quiet"])

    # Children

    def _git(self, arguments: Sequence[str], lines: Sequence[str] = ()) -> str:
        config = _CONFIG | {"core.fsync": "all" if self._durable else "none"}
        options = [part for name, value in config.items() for part in ("-c", f"{name}={value}")]
        try:
            process = subprocess.Popen(
                ["git", *options, "--git-dir", self._git_dir, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=git_environment(),
                pass_fds=self._inherited,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise StorageFailed(f"git can't be run: {error.strerror}.") from error
        with process:
            cores.release(process.pid)
            if not self._hurried:
                with suppress(ProcessLookupError):  # it was quicker
                    os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
            output, errors = process.communicate("".join(f"{line}\n" for line in lines))
        if process.returncode:
            said = (errors.strip().splitlines() or ["it was killed"])[0]
            raise StorageFailed(f"git {arguments[0]} failed: {said}")
        return output

    def _fsync_folder(self) -> None:
        if self._durable:
            sync_folder(self._folder)


def _pack_folder(git_dir: str) -> str:
    return os.path.join(git_dir, "objects", "pack")


def _is_idx(name: str) -> bool:
    return name.startswith("pack-") and name.endswith(".idx")


def _older(path: str, before: float) -> bool:
    try:
        return os.stat(path).st_mtime < before
    except FileNotFoundError:
        return False
