"""Making history anew without some files: other trees, other commits, all in packs of their own. docs/architecture.md, "Erasure"

What a tree becomes depends on nothing but the tree, so each is looked at once. A commit is made anew where its tree or
a parent is another one: all from the first that changes on. Nothing here touches what is there.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gitstore.errors import StorageFailed
from gitstore.git.commits import (
    Sign,
    format_commit,
    parse_commit,
    rebuilt_commit,
    rebuilt_tag,
    split_signature,
    unsigned,
)
from gitstore.git.message import format_message, parse_message
from gitstore.git.pack import COMMIT, TAG, TREE, Pack
from gitstore.git.repository import Repository
from gitstore.git.trees import FOLDER, Nested, Tree, Trees, nest, parse, without
from gitstore.version import SERVER, Purged

DROPPED = "(The words of this commit were dropped with what it changed.)\n"
"""The message of a commit beside the record that had to do with what is gone."""

_PIECE = 16 * 1024**2
"""Bytes of a pack on its way to disk."""

OnProgress = Callable[[int, int], None]


class Targets(Struct, frozen=True):
    """What has to go, by the paths of the tree. Blobs are object ids of 20 bytes."""

    stays: Mapping[str, frozenset[bytes]]
    """The blobs that may be at a path from now on: of those that the record has put there."""
    marks: Mapping[str, tuple[Purged, ...]]
    """By commits of the record: which of their versions go."""


@dataclass(slots=True)
class Rewritten:
    """What became of the commits: of those that have changed the new ids by the old ones."""

    commits: dict[str, str] = field(default_factory=dict)
    trees: dict[str, bytes] = field(default_factory=dict)
    """The new root trees of the tips, by the old commit."""
    cut: list[str] = field(default_factory=list)
    """Adopt commits, by their old ids, that lost the foreign commits which they adopted."""
    wordless: list[str] = field(default_factory=list)
    """Commits, by their old ids, of which the words were dropped."""
    signed: int = 0
    """Commits of the record that had a signature and are made anew."""


class Rewriting:
    """One rewriting. New objects go to packs in `folder`, which is an object folder's `pack`."""

    def __init__(self, repository: Repository, targets: Targets, folder: str, sign: Sign = unsigned) -> None:
        """`sign` gives those commits of the record a signature that had one."""
        self._sign = sign
        self.done = Rewritten()
        self._repository = repository
        self._targets = targets
        self._folder = folder
        self._pack = Pack()
        self._wanted = nest(targets.stays)
        self._trees: dict[tuple[bytes, str], bytes | None] = {}
        self._bases: dict[str, bytes] = {}
        self._reaching: set[str] = set()
        """Commits beside the record that have to do with what goes, or build on such."""

    def commits(self, tips: Sequence[str], main: str, progress: OnProgress | None = None) -> None:
        """Make all anew that these commits reach; the record is the first-parent chain of `main`."""
        chain = set(self._rev_list("--first-parent", main))
        lines = self._rev_list("--topo-order", "--reverse", "--parents", *dict.fromkeys([main, *tips]))
        wanted = {main, *tips}
        for number, line in enumerate(lines, 1):
            id, *parents = line.split(" ")
            tree = self._commit(id, parents, is_ours=id in chain)
            if id in wanted:
                self.done.trees[id] = tree
            if self._pack.size > _PIECE:
                self.flush()
            if progress is not None and number % 1000 == 0:
                progress(number, len(lines))

    def _commit(self, id: str, parents: list[str], *, is_ours: bool) -> bytes:
        """Make one commit anew where it has to be; its tree, as it is now."""
        data = self._repository.object(id)
        old = parse_commit(data)
        tree = self.tree(bytes.fromhex(old.tree))
        kept = parents
        message = None
        if not is_ours:
            if self._concerns(old.tree, parents):
                message = DROPPED
                self.done.wordless.append(id)
            if message is not None or not self._reaching.isdisjoint(parents):
                self._reaching.add(id)
        else:
            if len(parents) > 1 and parents[1] in self._reaching:
                kept = parents[:1]
                self.done.cut.append(id)
            message = self._message(id, old.message, kept, is_cut=kept is not parents)
        new_parents = [self.done.commits.get(parent, parent) for parent in kept]
        if message is not None or new_parents != parents or tree.hex() != old.tree:
            made = rebuilt_commit(data, tree.hex(), new_parents, message)
            if is_ours and split_signature(data)[1] is not None:
                made = self._sign(made)
                self.done.signed += 1
            self.done.commits[id] = self._pack.add(COMMIT, made, keep=False).hex()
        return tree

    def _message(self, id: str, text: str, parents: Sequence[str], *, is_cut: bool) -> str | None:
        """What a commit of the record says from now on; None where nothing changes."""
        adopts = self.done.commits.get(parents[1]) if len(parents) > 1 else None
        marks = self._targets.marks.get(id, ())
        if not marks and not is_cut and adopts is None:
            return None
        message = parse_message(text)
        purged = (*message.purged, *marks)
        order = {
            (change.resource_id, change.version_id): place for place, change in enumerate(message.changes)
        }
        purged = tuple(sorted(purged, key=lambda one: order[one.resource_id, one.version_id]))
        # The words of an adopt commit are those of foreign commits; others may be about what is still there.
        wordless = is_cut or (bool(marks) and len(purged) == len(message.changes))
        if wordless and message.words:
            self.done.wordless.append(id)
        return format_message(
            replace(
                message,
                purged=purged,
                cut=message.cut or is_cut,
                adopts=None if is_cut else adopts or message.adopts,
                words="" if wordless else message.words,
            )
        )

    def _concerns(self, tree: str, parents: Sequence[str]) -> bool:
        """Whether a commit beside the record has something else at one of the paths than each of its parents."""
        before: list[str | None] = [self._repository.commit(parent).tree for parent in parents]
        for path in self._targets.stays:
            found = self._at(tree, path)
            if all(found != self._at(each, path) for each in before or [None]):
                return True
        return False

    def _at(self, tree: str | None, path: str) -> bytes | None:
        """The object at a path, of whatever kind."""
        found = bytes.fromhex(tree) if tree is not None else None
        for name in path.encode().split(b"/"):
            if found is None:
                return None
            entries = self._read(found)
            heads = (head for head in entries.places if head.partition(b" ")[2] == name)
            found = entries.id(next(heads, b""))
        return found

    def _read(self, tree: bytes) -> Tree:
        return parse(self._repository.object(tree.hex()))

    # Trees

    def tree(self, id: bytes) -> bytes:
        """A root tree without what goes."""
        # A record always has its first files, a foreign tree perhaps nothing else than what goes.
        return self._without(id, self._wanted, "") or self._pack.add(TREE, b"")

    def _without(self, id: bytes, wanted: _Wanted, place: str) -> bytes | None:
        """The tree without what goes; None where nothing stays."""
        key = (id, place)
        if key in self._trees:
            return self._trees[key]
        old = self._read(id)
        edits: dict[bytes, bytes | None] = {}
        for name, below in wanted.items():
            if isinstance(below, dict):
                # The usual mode; whatever else has this name is no part of the record.
                inner = old.id(FOLDER + name)
                if inner is not None:
                    new = self._without(inner, below, f"{place}/{name.decode()}")
                    if new != inner:
                        edits[FOLDER + name] = new
            else:
                for head in old.places:
                    if head.partition(b" ")[2] == name and old.id(head) not in below:
                        edits[head] = None
        if not edits:
            self._trees[key] = id
            return id
        tree = without(old, edits)
        made = None
        if tree.places:
            made = self._pack.add(TREE, tree.data, base=self._bases.get(place))
            self._bases[place] = made
        self._trees[key] = made
        return made

    # Beside commits

    def commit(self, id: str) -> str:
        """What a commit has become; itself where it has not changed."""
        return self.done.commits.get(id, id)

    def notes(self, id: str, dropped: Collection[str], instant: int) -> str:
        """One commit of the notes that another has, about what their commits have become; without its past.

        What is about a commit of `dropped`, or of which the words were dropped, goes. https://git-scm.com/docs/git-notes
        """
        trees = Trees(lambda tree: self._repository.object(tree.hex()))
        without_words = {*dropped, *self.done.wordless}
        found: dict[str, str] = {}
        for path, blob in trees.blobs(bytes.fromhex(self._repository.commit(id).tree)):
            about = path.replace("/", "")
            if len(about) == 40 and about not in without_words:
                found[self.commit(about)] = blob
        entries = (b"100644 %b\x00%b" % (name.encode(), bytes.fromhex(found[name])) for name in sorted(found))
        tree = self._pack.add(TREE, b"".join(entries))
        text = "Notes, after a purge\n"
        return self._pack.add(COMMIT, format_commit(tree, None, SERVER, SERVER, instant, text)).hex()

    def tag(self, id: str) -> str:
        """An annotated tag of what its commit has become; itself where that has not changed."""
        data = self._repository.object(id)
        target = data.split(b"\n", 1)[0].partition(b" ")[2].decode()
        is_tag = b"\ntype tag\n" in data.partition(b"\n\n")[0] + b"\n"
        new = self.tag(target) if is_tag else self.done.commits.get(target, target)
        return id if new == target else self._pack.add(TAG, rebuilt_tag(data, new), keep=False).hex()

    def add(self, data: bytes) -> str:
        """One more commit of the record, by the bytes that it has without a signature."""
        return self._pack.add(COMMIT, self._sign(data), keep=False).hex()

    def flush(self) -> None:
        """Put what has been made into a pack on disk."""
        if not len(self._pack):
            return
        name, pieces, index = self._pack.files()
        try:
            for kind, parts in (("pack", pieces), ("idx", [index])):
                with open(os.path.join(self._folder, f"pack-{name}.{kind}"), "wb") as file:
                    file.writelines(parts)
        except OSError as error:
            raise StorageFailed(f"The new history can't be written: {error.strerror}.") from error
        self._pack = Pack()
        self._bases.clear()

    def _rev_list(self, *arguments: str) -> list[str]:
        git = ["git", "--git-dir", self._repository.git_dir, "rev-list", *arguments, "--"]
        result = subprocess.run(
            git, check=False, capture_output=True, env=self._repository.environment, text=True
        )
        if result.returncode:
            raise StorageFailed(f"git can't walk the history: {result.stderr.strip()}")
        return result.stdout.splitlines()


_Wanted: TypeAlias = "Nested[frozenset[bytes]]"
"""Of a file the blobs that may stay there."""


def pack_reachable(git_dir: str, objects: str, tips: Iterable[str]) -> str:
    """Put all that the tips reach, and nothing else, into one pack in the object folder `objects`; returns its name.

    What is reached is found in that folder and in the repository. Raises StorageFailed, also where something is missing.
    """
    live = os.path.join(git_dir, "objects")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "CONFIG" in name
    }
    environment |= {
        "GIT_OBJECT_DIRECTORY": objects,
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": '"{}"'.format(live.replace("\\", "\\\\").replace('"', '\\"')),
        "GIT_NO_REPLACE_OBJECTS": "1",
        "LC_ALL": "C",
    }
    before = set(os.listdir(os.path.join(objects, "pack")))
    options = ["-c", "pack.packSizeLimit=0", "-c", "core.commitGraph=false", "-c", "pack.threads=2"]
    options += ["-c", "pack.writeReverseIndex=false", "-c", "core.bigFileThreshold=512m"]
    command = ["git", *options, "--git-dir", git_dir, "pack-objects", "--revs", "--delta-base-offset"]
    command += ["--no-use-bitmap-index", "--quiet", os.path.join(objects, "pack", "pack")]
    lines = "".join(f"{tip}\n" for tip in sorted(set(tips)))
    result = subprocess.run(
        command, input=lines, check=False, capture_output=True, env=environment, text=True
    )
    names = result.stdout.split()
    if result.returncode or len(names) != 1:
        said = (result.stderr.strip().splitlines() or ["it made no pack"])[0]
        raise StorageFailed(f"git pack-objects failed: {said}")
    for name in before:
        if not name.startswith(f"pack-{names[0]}."):
            os.unlink(os.path.join(objects, "pack", name))
    return names[0]


def packed_ids(index_path: str) -> set[bytes]:
    """The ids of all objects of a pack, from its idx of version 2. https://git-scm.com/docs/gitformat-pack"""
    with open(index_path, "rb") as file:
        data = file.read()
    start, count = 8 + 256 * 4, int.from_bytes(data[8 + 255 * 4 : 8 + 256 * 4], "big")
    return {data[at : at + 20] for at in range(start, start + 20 * count, 20)}
