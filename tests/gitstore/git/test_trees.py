"""Trees as git makes them. https://git-scm.com/docs/git-update-index"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.errors import RepositoryDamaged
from gitstore.git.pack import BLOB, TREE, Pack, object_id
from gitstore.git.repository import run_git
from gitstore.git.trees import Trees, nest, parse

NAMES = ["a", "a.b", "a-b", "a0", "a.json", "b", "ab", "A", "é"]
"""Of files and folders alike: git sorts a folder as if its name ended in a slash, after `a-b` and `a.b`."""

FOLDERS = ["a", "a.b.d", "a-", "é"]
PATHS = [name for name in NAMES if name not in FOLDERS]
PATHS += [f"{one}/{two}" for one, two in itertools.product(FOLDERS, NAMES[:4])]
PATHS += ["deep/er/and/deeper/x", "deep/er/y", "deep/er/and/z"]


class Memory:
    """Trees and their objects, in memory: what a pack would hold."""

    def __init__(self, max_entries: int = 1000) -> None:
        self.objects: dict[bytes, bytes] = {}
        self.trees = Trees(lambda id: self.objects[id], max_entries)

    def edit(self, tree: bytes | None, changes: dict[str, bytes | None]) -> bytes | None:
        pack = Pack()
        new = self.trees.edit(tree, nest(changes), pack)
        self.objects |= {id: pack.data(id) for id in pack._numbers}
        return new


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trees.git")
    run_git(["init", "--quiet", "--bare", str(path)])
    return path


def tree_of_git(git: Any, files: dict[str, bytes]) -> str:
    """The tree that git itself makes of these files."""
    lines = "".join(f"100644 {blob.hex()}\t{path}\0" for path, blob in files.items())
    git("read-tree", "--empty")
    git("update-index", "-z", "--index-info", input=lines)
    return str(git("write-tree", "--missing-ok"))


BLOBS = [object_id(BLOB, b"%d" % number) for number in range(4)]
CHANGES = st.dictionaries(st.sampled_from(PATHS), st.none() | st.sampled_from(BLOBS), min_size=1, max_size=8)


@given(st.lists(CHANGES, min_size=1, max_size=5))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_any_edits_make_the_tree_that_git_makes(bare, git_in, edits):
    """Same files, same tree id; so any git finds nothing to repair, and equal states have equal ids."""
    memory, tree = Memory(), None
    files: dict[str, bytes] = {}
    for changes in edits:
        tree = memory.edit(tree, changes)
        for path, blob in changes.items():
            files.pop(path, None)
            if blob is not None:
                files[path] = blob

    if not files:
        assert tree is None
        return
    assert tree is not None
    assert tree.hex() == tree_of_git(git_in(bare), files)
    found = dict(memory.trees.blobs(tree))
    assert found == {path: blob.hex() for path, blob in files.items()}
    assert list(found) == sorted(found, key=str.encode)


def test_one_file_goes_and_another_comes_in_the_same_edit(bare, git_in):
    """A tree that keeps its length has to be sorted all the same."""
    memory = Memory()
    tree = memory.edit(None, {"a": BLOBS[0], "z": BLOBS[0]})
    assert tree is not None

    tree = memory.edit(tree, {"a": None, "b": BLOBS[1]})

    assert tree is not None
    assert tree.hex() == tree_of_git(git_in(bare), {"b": BLOBS[1], "z": BLOBS[0]})


def test_the_last_file_takes_its_folders_with_it():
    """git has no empty folders."""
    memory = Memory()
    tree = memory.edit(None, {"README.md": BLOBS[0]})

    longer = memory.edit(tree, {"Patient/3/f/a/example.json": BLOBS[1]})

    assert longer != tree
    assert memory.edit(longer, {"Patient/3/f/a/example.json": None}) == tree
    assert memory.edit(tree, {"README.md": None}) is None


def test_removing_what_is_not_there_changes_nothing():
    memory = Memory()
    tree = memory.edit(None, {"a/b/c": BLOBS[0]})

    assert memory.edit(tree, {"a/b/x": None, "y": None, "z/z": None}) == tree


def test_only_the_trees_on_the_path_are_written():
    """One commit costs the folders above its file, however many others there are."""
    memory = Memory()
    tree = memory.edit(
        None, {f"Patient/{a}/{b}/x.json": BLOBS[0] for a, b in itertools.product("012", "012")}
    )
    pack = Pack()

    memory.trees.edit(tree, nest({"Patient/1/2/x.json": BLOBS[1]}), pack)

    assert len(pack) == 4


def test_trees_that_were_dropped_from_memory_are_read_again():
    """The cache is bounded; what is kept and what is read again give the same trees."""

    def build(memory: Memory) -> list[bytes | None]:
        trees: list[bytes | None] = [None]
        for number in range(30):
            changes: dict[str, bytes | None] = {f"{number % 4}/{number % 3}/{number}": BLOBS[number % 4]}
            trees.append(memory.edit(trees[-1], changes))
        return trees

    large, small = Memory(), Memory(max_entries=3)
    expected = build(large)

    assert build(small) == expected
    assert len(small.trees._cache) < 4 < len(large.trees._cache)


def test_trees_that_are_not_to_be_kept_are_the_same_and_leave_no_trace(bare, git_in):
    """Those of a very large unit of work would push out what is read."""
    memory, pack = Memory(), Pack()
    tree = memory.edit(None, {"a/b/c": BLOBS[0], "d/e": BLOBS[1]})
    known = list(memory.trees._cache)

    new = memory.trees.edit(tree, nest({"a/b/x": BLOBS[2], "d/e": None}), pack, keep=False)

    assert new is not None
    assert new.hex() == tree_of_git(git_in(bare), {"a/b/c": BLOBS[0], "a/b/x": BLOBS[2]})
    assert sorted(memory.trees._cache) == sorted(known)
    assert pack.data(new) is not None


def test_a_path_below_a_file_of_the_same_edit_is_a_mistake_of_the_caller():
    with pytest.raises(AssertionError, match="below a file"):
        nest({"a": BLOBS[0], "a/b": BLOBS[0]})


def cuts() -> Iterator[bytes]:
    whole = b"100644 name\x00" + bytes(20)
    yield from (whole[:length] for length in (1, 7, 11, 12, 31))
    yield whole + b"100644 x"


@pytest.mark.parametrize("data", list(cuts()))
def test_a_tree_that_is_cut_short_is_damaged(data):
    with pytest.raises(RepositoryDamaged):
        parse(data)


def test_parsing_keeps_entries_as_they_stand(bare, git_in):
    """Links, executables and submodules that another git put there are carried along."""
    git = git_in(bare)
    blob = BLOBS[0].hex()
    entries = ["100755 blob {}\tx", "120000 blob {}\tlink", "160000 commit {}\tsub"]
    lines = "".join(entry.format(blob) + "\0" for entry in entries)
    id = bytes.fromhex(git("mktree", "-z", "--missing", input=lines))
    data = bytes.fromhex(git_bytes_hex(git, id.hex()))
    memory = Memory()
    memory.objects[id] = data

    tree = memory.edit(id, {"new": BLOBS[1]})

    assert tree is not None
    assert list(parse(memory.objects[tree]).places) == [
        b"120000 link",
        b"100644 new",
        b"160000 sub",
        b"100755 x",
    ]
    assert object_id(TREE, memory.objects[tree]) == tree


def git_bytes_hex(git: Any, id: str) -> str:
    return str(git("cat-file", "tree", id).encode(errors="surrogateescape").hex())
