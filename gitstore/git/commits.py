"""Commit objects as bytes. https://git-scm.com/docs/git-commit-tree"""

from __future__ import annotations

from dataclasses import dataclass

from gitstore.errors import RepositoryDamaged
from gitstore.fhir.dates import SECOND
from gitstore.version import Author


@dataclass(frozen=True, slots=True)
class CommitObject:
    """What a commit object says; ids in hex, `seconds` since 1970 UTC, the author's."""

    tree: str
    parents: tuple[str, ...]
    author: Author
    seconds: int
    message: str


def format_commit(
    tree: bytes,
    parent: str | None,
    author: Author,
    committer: Author,
    instant: int,
    message: str,
    adopts: str | None = None,
) -> bytes:
    """The bytes of a commit object, written at an instant (microseconds), which git keeps in whole seconds.

    `adopts` is the foreign tip that an adopt commit has as its second parent.
    """
    time = f"{instant // SECOND} +0000"
    lines = [
        f"tree {tree.hex()}",
        *(f"parent {id}" for id in (parent, adopts) if id),
        f"author {author.name} <{author.email}> {time}",
        f"committer {committer.name} <{committer.email}> {time}",
        "",
        message,
    ]
    return "\n".join(lines).encode()


def parse_commit(data: bytes) -> CommitObject:
    """Read a commit object, also one that another git made. Raises RepositoryDamaged where it can't be read."""
    head, _, message = data.decode(errors="replace").partition("\n\n")
    tree, author, parents = "", "", []
    for line in head.split("\n"):
        key, _, value = line.partition(" ")
        if key == "tree":
            tree = value
        elif key == "parent":
            parents.append(value)
        elif key == "author":
            author = value
    name, _, rest = author.partition(" <")
    email, _, time = rest.partition("> ")
    seconds = time.partition(" ")[0]
    if not tree or not seconds.lstrip("-").isdecimal():
        raise RepositoryDamaged("A commit object can't be read.")
    return CommitObject(tree, tuple(parents), Author(name, email), int(seconds), message)
