"""Walking the first-parent chain. https://git-scm.com/docs/git-diff-tree"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.errors import RepositoryDamaged
from gitstore.git import history
from gitstore.git.history import _Failed, _steps, _tokens, chain, walk
from gitstore.git.repository import Repository

Git = Callable[..., str]


class Plain:
    """A repository of any content, made by git's plumbing."""

    def __init__(self, git: Git) -> None:
        self.git = git
        self.blob = git("hash-object", "-w", "--stdin", input="x")

    def commit(self, files: dict[str, str], *parents: str) -> str:
        """A commit of these paths; the mode of each is given, its content is always the same."""
        self.git("read-tree", "--empty")
        lines = "".join(f"{mode} {self.blob}\t{path}\0" for path, mode in files.items())
        self.git("update-index", "-z", "--index-info", input=lines.encode(errors="surrogateescape"))
        arguments = [argument for parent in parents for argument in ("-p", parent)]
        return self.git("commit-tree", self.git("write-tree"), *arguments, "-m", "x")


@pytest.fixture
def plain(record: str, git: Git) -> Plain:
    return Plain(git)


def steps(record: str, ids: list[str], parent: str | None = None) -> list[tuple[str, list[str], bool]]:
    found = walk(Repository(record), ids, parent)
    return [(step.id, sorted(step.files), step.odd_modes) for step in found]


def test_each_commit_comes_with_what_it_changed(record, plain):
    """Added, changed and removed alike; the first commit has added all that it has."""
    root = plain.commit({"a": "100644", "b/c": "100644"})
    second = plain.commit({"a": "100644", "b/d": "100644"}, root)

    found = list(walk(Repository(record), [root, second]))

    assert [step.files for step in found] == [
        {"a": plain.blob, "b/c": plain.blob},
        {"b/c": None, "b/d": plain.blob},
    ]
    assert [step.commit.parents for step in found] == [(), (root,)]


def test_commits_that_change_nothing_are_there_too(record, plain):
    """git diff-tree prints nothing for them."""
    root = plain.commit({})
    ids = [root]
    for files in ({}, {"a": "100644"}, {"a": "100644"}, {"a": "100644"}, {}):
        ids.append(plain.commit(files, ids[-1]))

    assert [changed for _, changed, _ in steps(record, ids)] == [[], [], ["a"], [], [], ["a"]]
    assert [id for id, _, _ in steps(record, ids)] == ids


def test_a_merge_is_compared_with_its_first_parent(record, plain, git):
    """The record is the first-parent chain: what the other side did arrives with the merge."""
    root = plain.commit({"a": "100644"})
    left = plain.commit({"a": "100644", "left": "100644"}, root)
    right = plain.commit({"a": "100644", "right": "100644"}, root)
    merge = plain.commit({"a": "100644", "left": "100644", "right": "100644"}, left, right)
    repository = Repository(record)

    assert chain(repository, merge) == [root, left, merge]
    assert chain(repository, merge, root) == [left, merge]
    assert chain(repository, merge, merge) == []
    assert [changed for _, changed, _ in steps(record, [root, left, merge])] == [["a"], ["left"], ["right"]]


def test_the_walk_goes_on_from_any_commit(record, plain):
    root = plain.commit({"a": "100644"})
    second = plain.commit({"a": "100644", "b": "100644"}, root)

    assert steps(record, [second], root) == [(second, ["b"], False)]


@pytest.mark.parametrize("mode", ["100755", "120000", "160000"])
def test_what_is_no_plain_file_is_told_apart(record, plain, mode):
    """An executable, a link, a submodule; also when it only comes or only goes."""
    root = plain.commit({"a": "100644"})
    odd = plain.commit({"a": mode}, root)
    back = plain.commit({"a": "100644"}, odd)

    assert [is_odd for _, _, is_odd in steps(record, [root, odd, back])] == [False, True, True]


NAMES = [
    "with space",
    "tab\there",
    "new\nline",
    'quo"te',
    "back\\slash",
    ":colon",
    "é",
    "\udcff",
    "0" * 40,
    "-x",
]


def test_any_name_of_a_file_is_read(record, plain):
    """Odd names are printed as they are, never quoted."""
    id = plain.commit(dict.fromkeys(NAMES, "100644"))

    assert steps(record, [id]) == [(id, sorted(NAMES), False)]


def test_a_file_named_like_a_commit_is_no_commit(record, plain):
    root = plain.commit({})
    second = plain.commit({root: "100644", f"{root}/x".replace("/", "-"): "100644"}, root)
    third = plain.commit({second: "100644"}, second)

    assert [len(changed) for _, changed, _ in steps(record, [root, second, third])] == [0, 2, 3]


def test_a_walk_may_be_left_early(record, git):
    """git and the thread that feeds it are gone afterwards, however much was left."""
    many = "".join(
        f"commit refs/heads/many\ncommitter E <e@x> {n} +0000\ndata 0\nM 100644 inline f{n % 9}\ndata 4\n{n:04}\n"
        for n in range(3000)
    )
    git("fast-import", "--quiet", input=many)
    ids = chain(Repository(record), git("rev-parse", "many"))
    walked = walk(Repository(record), ids)

    assert next(walked).id == ids[0]
    walked.close()

    assert len(ids) == 3000


def test_a_long_walk_is_one_of_several_gits(record, git, plain, monkeypatch):
    """Each keeps what it has read. A step that can't be read whole is the last, whichever git comes to it."""
    ids = [plain.commit({"a": "100644"})]
    for number in range(6):
        ids.append(plain.commit({"a": "100644", f"b{number}": "100644"}, ids[-1]))
    whole = steps(record, ids)
    monkeypatch.setattr(history, "_PIECE", 3)
    started: list[int] = []
    walked = history._walked
    monkeypatch.setattr(
        history, "_walked", lambda one, ids, parent: started.append(len(ids)) or walked(one, ids, parent)
    )

    assert steps(record, ids) == whole
    assert started == [3, 3, 1]
    assert steps(record, ids[3:], ids[2]) == whole[3:]

    monkeypatch.setattr(history, "_walked", history._compared)
    many = plain.commit({f"c{number}": "100644" for number in range(40)}, ids[-1])
    after = plain.commit({"a": "100644"}, many)
    last = plain.commit({"a": "100644"}, after)
    assert [id for id, _, _ in steps(record, [*ids, many, after, last])][-1] == many


def test_a_commit_that_is_not_there_is_damage(record):
    with pytest.raises(RepositoryDamaged):
        list(walk(Repository(record), ["1" * 40]))
    with pytest.raises(RepositoryDamaged):
        chain(Repository(record), "1" * 40)


class Chunks:
    """A pipe that hands out its bytes in pieces of given sizes."""

    def __init__(self, data: bytes, sizes: Iterator[int]) -> None:
        self._data = data
        self._sizes = sizes

    def read1(self, size: int) -> bytes:
        taken = min(next(self._sizes, size), size)
        piece, self._data = self._data[:taken], self._data[taken:]
        return piece


@given(st.lists(st.binary(max_size=5).map(lambda b: b.replace(b"\0", b"-"))), st.lists(st.integers(1, 4)))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_tokens_are_whole_however_the_pipe_cuts_them(tokens, sizes):
    data = b"".join(token + b"\0" for token in tokens)

    pipe: Any = Chunks(data, iter(sizes))
    assert [token.encode(errors="surrogateescape") for token in _tokens(pipe)] == tokens


def test_output_that_was_not_expected_is_damage(record, git):
    """Rather an error than a version that belongs to another commit."""
    id = git("rev-parse", "main")

    with pytest.raises(RepositoryDamaged, match="where a commit was expected"):
        list(_steps(Repository(record), [id], None, iter(["something else"])))


@pytest.mark.parametrize("printed", range(14))
def test_what_git_has_not_printed_is_compared_without_it(record, plain, monkeypatch, printed):
    """The steps are the same, wherever git gave up."""
    root = plain.commit({"a": "100644", "b/c": "100644"})
    second = plain.commit({"a": "100755", "b/d": "100644"}, root)
    third = plain.commit({"a": "100755", "b/d": "100644"}, second)
    ids = [root, second, third, plain.commit({"a": "100755"}, third)]
    expected = list(walk(Repository(record), ids))

    def tokens(stdout):
        yield from islice(_tokens(stdout), printed)
        raise _Failed

    monkeypatch.setattr(history, "_tokens", tokens)
    assert list(walk(Repository(record), ids)) == expected
