"""Commit objects as bytes. https://git-scm.com/docs/git-commit-tree"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from gitstore.errors import RepositoryDamaged
from gitstore.fhir.dates import SECOND
from gitstore.version import Author

Sign: TypeAlias = Callable[[bytes], bytes]
"""Gives a commit its signature: from the bytes of the object without one to those with it."""

_SIGNATURE = b"\ngpgsig "


class CommitObject(Struct, frozen=True):
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


def unsigned(data: bytes) -> bytes:
    """A `Sign` that gives none."""
    return data


def add_signature(data: bytes, signature: bytes) -> bytes:
    """The commit with a signature's text, which ends in a line feed, as the last of its headers.

    https://git-scm.com/docs/gitformat-signature
    """
    head, _, message = data.partition(b"\n\n")
    lines = signature.removesuffix(b"\n").replace(b"\n", b"\n ")
    return b"".join((head, _SIGNATURE, lines, b"\n\n", message))


def split_signature(data: bytes) -> tuple[bytes, bytes | None]:
    """The bytes that were signed, and the text of the signature; None where there is none. Undoes `add_signature`."""
    end = data.find(b"\n\n") + 1 or len(data)
    start = data.find(_SIGNATURE, 0, end)
    if start < 0:
        return data, None
    stop = data.find(b"\n", start + 1, end)
    while stop >= 0 and data.startswith(b" ", stop + 1):
        stop = data.find(b"\n", stop + 1, end)
    stop = stop if stop >= 0 else end
    text = data[start + len(_SIGNATURE) : stop].replace(b"\n ", b"\n") + b"\n"
    return data[:start] + data[stop:], text


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


_SIGNATURES = (b"gpgsig", b"gpgsig-sha256", b"mergetag")
"""What a commit says about bytes that it no longer has."""
_END_OF_TAG = re.compile(
    rb"^-----BEGIN (?:PGP|SSH) SIGNATURE-----$|^-----BEGIN SIGNED MESSAGE-----$", re.MULTILINE
)


def rebuilt_commit(data: bytes, tree: str, parents: Sequence[str], message: str | None) -> bytes:
    """The bytes of a commit with another tree, other parents and perhaps another message; all else stays as it is.

    A signature goes, which would no longer fit.
    """
    head, _, text = data.partition(b"\n\n")
    lines = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents)]
    dropping = False
    for line in head.split(b"\n"):
        if not line.startswith(b" "):
            dropping = line.partition(b" ")[0] in (b"tree", b"parent", *_SIGNATURES)
        if not dropping:
            lines.append(line)
    return b"\n".join([*lines, b"", text if message is None else message.encode()])


def rebuilt_tag(data: bytes, target: str) -> bytes:
    """The bytes of an annotated tag of another object; a signature goes."""
    head, _, text = data.partition(b"\n\n")
    lines = [b"object " + target.encode(), *head.split(b"\n")[1:]]
    signature = _END_OF_TAG.search(text)
    return b"\n".join([*lines, b"", text if signature is None else text[: signature.start()]])
