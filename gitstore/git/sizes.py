"""How large things are: objects by their ids, and the files of a repository's object database."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable

from msgspec import Struct

from gitstore.errors import RepositoryDamaged
from gitstore.git.repository import git_environment

_LOOSE = re.compile(r"[0-9a-f]{2}")


class ObjectFiles(Struct, frozen=True):
    """The files that hold a repository's objects."""

    packs: int
    pack_bytes: int
    loose: int


def object_sizes(git_dir: str, ids: Iterable[bytes]) -> list[int]:
    """The bytes of each object, uncompressed, in the order of the ids. Raises RepositoryDamaged where one is missing.

    Asked of git in one go: its headers say the size, so no object is read. https://git-scm.com/docs/git-cat-file
    """
    command = ["git", "--git-dir", git_dir, "cat-file", "--batch-check=%(objectsize)", "--buffer"]
    result = subprocess.run(
        command,
        input="".join(f"{id.hex()}\n" for id in ids),
        capture_output=True,
        check=False,
        env=git_environment(),
        text=True,
    )
    try:
        if result.returncode == 0:
            return [int(line) for line in result.stdout.splitlines()]
    except ValueError:  # `<id> missing` in place of a size
        pass
    raise RepositoryDamaged(f"git can't tell the size of every object in {git_dir}: git fsck tells more.")


def object_files(git_dir: str) -> ObjectFiles:
    """What lies in the object folder now."""
    objects = os.path.join(git_dir, "objects")
    packs = [entry for entry in os.scandir(os.path.join(objects, "pack")) if entry.name.endswith(".pack")]
    folders = [entry.path for entry in os.scandir(objects) if _LOOSE.fullmatch(entry.name)]
    return ObjectFiles(
        len(packs), sum(entry.stat().st_size for entry in packs), sum(len(os.listdir(f)) for f in folders)
    )
