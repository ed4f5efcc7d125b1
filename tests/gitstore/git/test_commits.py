"""Commit objects. https://git-scm.com/docs/git-commit-tree"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.errors import RepositoryDamaged
from gitstore.git.commits import CommitObject, format_commit, parse_commit
from gitstore.git.message import safe_author, safe_words
from gitstore.git.pack import COMMIT, object_id
from gitstore.version import Author

ADA = Author("Ada Lovelace", "ada@clinic.example")
SERVER = Author("git-fhir", "git-fhir@fhir.invalid")
TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
HEX = st.from_regex(r"[0-9a-f]{40}", fullmatch=True)


@given(
    HEX,
    st.none() | HEX,
    st.builds(Author, st.text(max_size=30), st.text(max_size=30)).map(safe_author),
    st.integers(-(10**15), 2 * 10**17),
    st.text(max_size=100).map(safe_words),
)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_parsing_undoes_formatting(tree, parent, author, instant, words):
    data = format_commit(bytes.fromhex(tree), parent, author, SERVER, instant, words)

    parents = (parent,) if parent else ()
    assert parse_commit(data) == CommitObject(tree, parents, author, instant // 1_000_000, words)


def test_git_makes_the_same_commit(git_in, tmp_path):
    """To the byte: the id is the one that `git commit-tree` prints."""
    git = git_in(tmp_path)
    git("init", "--quiet", "--bare")
    git("hash-object", "-w", "-t", "tree", "--stdin")
    names = {
        f"GIT_{role}_{what}": value
        for role, author in (("AUTHOR", ADA), ("COMMITTER", SERVER))
        for what, value in (("NAME", author.name), ("EMAIL", author.email), ("DATE", "1795300200 +0000"))
    }
    parent = git("commit-tree", TREE, "-m", "first", **names)

    id = git("commit-tree", TREE, "-p", parent, input="second\n\nwhy: é\n", **names)

    ours = format_commit(
        bytes.fromhex(TREE), parent, ADA, SERVER, 1_795_300_200_999_999, "second\n\nwhy: é\n"
    )
    assert object_id(COMMIT, ours).hex() == id
    assert git("cat-file", "commit", id).encode() + b"\n" == ours
    assert parse_commit(ours) == CommitObject(TREE, (parent,), ADA, 1795300200, "second\n\nwhy: é\n")


def test_a_commit_of_another_git_is_read_too(git_in, tmp_path):
    """Merges, signatures, other encodings and time zones are none of ours, and are told from ours by reading them."""
    data = (
        f"tree {TREE}\nparent {'1' * 40}\nparent {'2' * 40}\n"
        "author A U Thor <author@example.org> 1112911993 -0700\n"
        "committer C O Mitter <committer@example.org> 1112912053 -0700\n"
        "gpgsig -----BEGIN PGP SIGNATURE-----\n \n tree of no meaning\n -----END PGP SIGNATURE-----\n"
        "encoding ISO-8859-1\n"
        "\n"
    ).encode() + b"caf\xe9\n\ntree in the text\n"

    assert parse_commit(data) == CommitObject(
        TREE,
        ("1" * 40, "2" * 40),
        Author("A U Thor", "author@example.org"),
        1112911993,
        "caf\ufffd\n\ntree in the text\n",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"tree " + b"1" * 40,
        b"author A <a@b> 1 +0000\n\nno tree",
        b"tree " + b"1" * 40 + b"\nauthor A <a@b> never\n\nno time",
        b"tree " + b"1" * 40 + b"\nauthor A\n\nno address",
        b"\xff\xfe",
    ],
)
def test_what_is_no_commit_is_damaged(data):
    with pytest.raises(RepositoryDamaged):
        parse_commit(data)
