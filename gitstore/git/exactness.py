"""Whether commits and trees are to the byte what git-fhir writes: nothing hides in what readers pass over.

docs/format.md: which headers a commit has, and which entries a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest

from gitstore.fhir.dates import SECOND
from gitstore.git.commits import CommitObject, format_commit, split_signature
from gitstore.git.trees import FILE, FOLDER, canonical, parse
from gitstore.version import SERVER

_LONGEST = 100


def oddity(data: bytes, commit: CommitObject) -> str | None:
    """What of a commit's headers isn't as git-fhir writes them; None where all is. `commit` is what was read of `data`."""
    payload, _ = split_signature(data)
    first, second, *_ = (*commit.parents, None, None)
    tree = bytes.fromhex(commit.tree)
    expected = format_commit(
        tree, first, commit.author, SERVER, commit.seconds * SECOND, commit.message, second
    )
    if payload == expected:
        return None
    found, meant = (text.split(b"\n") for text in (payload, expected))
    one, other = next(pair for pair in zip_longest(found, meant, fillvalue=b"") if pair[0] != pair[1])
    return f"it has `{_text(one)}` where `{_text(other)}` was expected"


def tree_oddities(read: Callable[[bytes], bytes], id: bytes, path: str = "") -> Iterator[tuple[str, str]]:
    """Paths below a tree, and what of them isn't as git-fhir writes it: folders that are empty or out of order, modes."""
    tree = parse(read(id))
    if canonical(tree) != tree.data:
        yield path or ".", "its entries are out of order, or one stands twice"
    if not tree.places:
        yield path or ".", "it is a folder without a file"
    for head, at in tree.places.items():
        mode, _, name = head.partition(b" ")
        where = path + name.decode(errors="backslashreplace")
        if mode + b" " == FOLDER:
            yield from tree_oddities(read, tree.data[at : at + 20], f"{where}/")
        elif mode + b" " != FILE:
            yield where, f"it has the mode {mode.decode(errors='backslashreplace')}"


def _text(line: bytes) -> str:
    return line[:_LONGEST].decode(errors="backslashreplace")
