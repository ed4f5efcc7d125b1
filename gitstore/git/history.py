"""Reading the first-parent chain of main: each commit with what it changed."""

from __future__ import annotations

import resource
import subprocess
import threading
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import IO

from msgspec import Struct

from gitstore import cores
from gitstore.errors import RepositoryDamaged
from gitstore.git import layout
from gitstore.git.commits import CommitObject, parse_commit
from gitstore.git.repository import Repository
from gitstore.git.trees import differences

_ABSENT = "0" * 40
_MEMORY = 256 * 1024**2
"""Bytes that `git diff-tree` may take: enough for the list of some million files."""

_PIECE = 50_000
"""Commits that one `git diff-tree` compares: it keeps all that it has read, so that a long record would take up its memory."""

_NEAR = 200
"""Commits."""

_NAMED = b"\nFHIR-Version: "
_FILE_MODES = ("100644", "000000")


class Step(Struct, frozen=True):
    """One commit of the chain. `files` maps each changed path to the new blob's id, None for a removal."""

    id: str
    commit: CommitObject
    files: dict[str, str | None]
    odd_modes: bool
    """Whether a changed path is no plain file: a link, an executable, a submodule."""
    data: bytes
    """The bytes of the commit object."""


def chain(repository: Repository, tip: str, after: str | None = None) -> list[str]:
    """The ids of the first-parent chain up to `tip`, oldest first, without those up to `after`."""
    if after is None:
        return _rev_list(repository, "--first-parent", tip)
    near = _near(repository, tip, after)
    return _rev_list(repository, "--first-parent", tip, f"^{after}") if near is None else near


def _near(repository: Repository, tip: str, after: str) -> list[str] | None:
    """The chain where it is short: to start a git takes as long as to read a hundred commits. None where git has to look."""
    ids: list[str] = []
    id = tip
    while id != after:
        ids.append(id)
        parents = repository.commit(id).parents
        if not parents or len(ids) == _NEAR:
            return None
        id = parents[0]
    return ids[::-1]


def between(repository: Repository, after: str, tip: str) -> list[str]:
    """The ids of all commits that `tip` builds on and `after` doesn't, whichever parent leads there, oldest first."""
    return _rev_list(repository, "--topo-order", tip, f"^{after}")


def _rev_list(repository: Repository, *arguments: str) -> list[str]:
    git = ["git", "--git-dir", repository.git_dir, "rev-list", "--reverse", *arguments, "--"]
    result = subprocess.run(git, check=False, capture_output=True, env=repository.environment, text=True)
    if result.returncode:
        raise RepositoryDamaged(f"git can't walk the record: {result.stderr.strip()}")
    return result.stdout.split()


def walk(repository: Repository, ids: Iterable[str], parent: str | None = None) -> Iterator[Step]:
    """Each commit of a first-parent chain, oldest first; `parent` is the one before the first of them.

    What changed is read from one `git diff-tree`, which is two to four times faster than comparing the trees here. It holds
    the whole list of a commit in memory before it prints any, and a few small trees that name one another many times make a list without end:
    where it gets too long for it, that commit and what follows are compared here, no further than is needed. A step that has more files
    than its message names versions of need not have all of them, and is the last.
    """
    ids = list(ids)
    for start in range(0, len(ids), _PIECE):
        piece = ids[start : start + _PIECE]
        if not (yield from _walked(repository, piece, parent)):
            return
        parent = piece[-1]


def _walked(repository: Repository, ids: list[str], parent: str | None) -> Generator[Step, None, bool]:
    """The steps of some commits, by one git; returns whether these are all."""
    git = [
        "git",
        "-c",
        "core.commitGraph=false",  # which says for itself what the tree of a commit is
        "--git-dir",
        repository.git_dir,
        "diff-tree",
        "--stdin",
        "-r",
        "-z",
        "--root",
        "--no-renames",
    ]
    process = subprocess.Popen(
        git,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=repository.environment,
    )
    cores.release(process.pid)
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    assert process.stdin is not None
    assert process.stdout is not None
    feeder = threading.Thread(target=_feed, args=(process.stdin, ids, parent), daemon=True)
    feeder.start()
    try:
        return (yield from _steps(repository, ids, parent, _all(process, _tokens(process.stdout))))
    finally:
        process.kill()
        process.stdout.close()
        feeder.join()
        process.wait()


def _feed(stdin: IO[bytes], ids: list[str], parent: str | None) -> None:
    try:
        with stdin:
            for id in ids:
                stdin.write(f"{id} {parent}\n".encode() if parent else f"{id}\n".encode())
                parent = id
    except BrokenPipeError:
        return  # the reader stopped early, and closed the other end


def _steps(
    repository: Repository, ids: list[str], parent: str | None, tokens: Iterator[str]
) -> Generator[Step, None, bool]:
    try:
        token = next(tokens, None)
        for id in ids:
            files: dict[str, str | None] = {}
            odd = False
            # A commit that changes nothing is not printed; its id is followed by the next one's.
            if token == id:
                token = next(tokens, None)
                while token is not None and token.startswith(":"):
                    old_mode, new_mode, _, blob, _ = token[1:].split(" ")
                    odd |= old_mode not in _FILE_MODES or new_mode not in _FILE_MODES
                    files[next(tokens)] = None if blob == _ABSENT else blob
                    token = next(tokens, None)
            data = repository.object(id)
            yield Step(id, parse_commit(data), files, odd, data)
            parent = id
    except _Failed:
        rest = ids[ids.index(parent) + 1 if parent in ids else 0 :]
        return (yield from _compared(repository, rest, parent))
    if token is not None:
        raise RepositoryDamaged(f"git diff-tree printed `{token[:80]}` where a commit was expected.")
    return True


def _compared(repository: Repository, ids: Iterable[str], parent: str | None) -> Generator[Step, None, bool]:
    """The same steps, without git, as far as the first that changes more files than it names."""
    before = bytes.fromhex(repository.commit(parent).tree) if parent else None
    for id in ids:
        data = repository.object(id)
        commit = parse_commit(data)
        after = bytes.fromhex(commit.tree)
        most = data.count(_NAMED) + len(layout.FIRST_FILES)
        found = differences(lambda id: repository.object(id.hex()), before, after)
        files: dict[str, str | None] = {}
        odd = False
        for one in islice(found, most + 1):
            files[one.path] = one.blob
            odd |= one.mode not in (*_FILE_MODES, None)
        yield Step(id, commit, files, odd, data)
        if len(files) > most:
            return False
        before = after
    return True


def _all(process: subprocess.Popen[bytes], tokens: Iterator[str]) -> Iterator[str]:
    yield from tokens
    # Told before the last commit: those that git didn't get to would seem to change nothing.
    if process.wait():
        raise _Failed


class _Failed(Exception):
    """git has not printed all: an object is missing or broken, or there is too much to print."""


def _tokens(stdout: IO[bytes]) -> Iterator[str]:
    rest = b""
    while chunk := stdout.read1(1 << 16):  # type: ignore[attr-defined]  # a BufferedReader, which IO doesn't say
        *whole, rest = (rest + chunk).split(b"\x00")
        for token in whole:
            yield token.decode(errors="surrogateescape")
