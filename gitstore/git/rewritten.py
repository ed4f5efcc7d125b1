"""Which commit took the place of which when history was rewritten: the file `git-fhir/rewritten`. docs/format.md, "Local files"

One line of 82 bytes for each old commit: its id, a space, the id of the commit that stands for it now, a line feed; in
the order of the old ids, so that one is found by halving.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from gitstore.errors import NotFound, StorageFailed
from gitstore.git import layout

NAME = "rewritten"
_LINE = 82
_ID = re.compile(r"[0-9a-f]{4,40}", re.ASCII)


def path(git_dir: str) -> str:
    """Where the file lies."""
    return os.path.join(git_dir, layout.LOCAL, NAME)


def mark(git_dir: str) -> tuple[int, int] | None:
    """What differs after each rewriting; None where there was none yet."""
    try:
        found = os.stat(path(git_dir))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_mtime_ns, found.st_ino


def successor(git_dir: str, revision: str) -> str | None:
    """The commit that stands for an old one, which its id or the beginning of it names; None for any other revision.

    Raises NotFound for a beginning that several have, StorageFailed.
    """
    if _ID.fullmatch(revision) is None:
        return None
    try:
        with open(path(git_dir), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            low, high = 0, size // _LINE
            while low < high:
                middle = (low + high) // 2
                if _line(file.fileno(), middle) < revision:
                    low = middle + 1
                else:
                    high = middle
            found, after = (_line(file.fileno(), place) for place in (low, low + 1))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageFailed(f"{path(git_dir)} can't be read: {error.strerror}.") from error
    if not found.startswith(revision):
        return None
    if after.startswith(revision):
        raise NotFound(f"`{revision}` is the beginning of several ids.")
    return found[41:81]


def _line(descriptor: int, number: int) -> str:
    return os.pread(descriptor, _LINE, number * _LINE).decode("ascii", errors="replace")


def merged(git_dir: str, commits: Mapping[str, str]) -> bytes:
    """The file as it has to be once these commits have taken the place of those: what led to one of them leads on."""
    known: dict[str, str] = {}
    try:
        with open(path(git_dir), encoding="ascii") as file:
            for line in file:
                old, _, new = line.rstrip("\n").partition(" ")
                known[old] = commits.get(new, new)
    except FileNotFoundError:
        pass  # the first time
    known |= commits
    return "".join(f"{old} {new}\n" for old, new in sorted(known.items())).encode()
