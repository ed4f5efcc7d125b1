"""How a record begins: an empty repository, and the first commit in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from gitstore.git import layout
from gitstore.git.commits import format_commit
from gitstore.git.message import Message, format_message
from gitstore.git.pack import BLOB, COMMIT, Pack
from gitstore.git.repository import create, run_git
from gitstore.git.signing import signer
from gitstore.git.trees import Trees, nest
from gitstore.git.writer import Writer
from gitstore.version import SERVER, Author


def now() -> int:
    """The clock: microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def init(
    path: str | os.PathLike[str],
    *,
    clock: Callable[[], int] = now,
    author: Author = SERVER,
    signing_key: str | None = None,
) -> str:
    """Make an empty record, a bare repository with its first commit; returns its git directory.

    `signing_key` is the absolute path of a key: the first commit is signed with it, and those to come.
    Raises RepositoryRefused where the folder is not empty or can't be made, Invalid for a key that can't be used.
    """
    sign = signer(signing_key)
    git_dir = create(path)
    if signing_key is not None:
        run_git(["--git-dir", git_dir, "config", "fhir.signingKey", signing_key])
    pack = Pack()
    files = {name: pack.add(BLOB, text.encode()) for name, text in layout.FIRST_FILES.items()}
    tree = Trees(lambda _: b"").edit(None, nest(files), pack)
    assert tree is not None
    instant = clock()
    text = format_message(Message("init", (), instant))
    commit = pack.add(COMMIT, sign(format_commit(tree, None, author, SERVER, instant, text)))
    writer = Writer(git_dir)
    try:
        with writer.locked():
            writer.publish(pack, None, commit.hex())
    finally:
        writer.close()
    return git_dir
