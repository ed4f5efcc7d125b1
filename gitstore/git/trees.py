"""Trees of the record: changing paths in them, object by object, without a work tree or git's index."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from gitstore.errors import RepositoryDamaged
from gitstore.git.pack import TREE, Pack

Tree: TypeAlias = dict[bytes, bytes]
"""name -> the entry as it stands in the tree object (mode, name, object id), in git's order."""

Changes: TypeAlias = "dict[bytes, bytes | Changes | None]"
"""name -> the blob's id, None for a removal, or the changes in the folder of that name."""

FOLDER, FILE = b"40000", b"100644"
_MAX_CACHED_ENTRIES = 400_000


def parse(data: bytes) -> Tree:
    """The entries of a tree object. Raises RepositoryDamaged where it isn't one."""
    tree: Tree = {}
    at = 0
    while at < len(data):
        end = data.find(b"\x00", at)
        name = data[data.find(b" ", at) + 1 : end]
        if end < 0 or end + 21 > len(data):
            raise RepositoryDamaged("A tree object is cut short.")
        tree[name] = data[at : end + 21]
        at = end + 21
    return tree


def nest(changes: Mapping[str, bytes | None]) -> Changes:
    """Changes by path as changes by folder."""
    nested: Changes = {}
    for path, blob in changes.items():
        *folders, name = path.encode().split(b"/")
        here = nested
        for folder in folders:
            inner = here.setdefault(folder, {})
            assert isinstance(inner, dict), f"{path} is below a file"
            here = inner
        here[name] = blob
    return nested


class Trees:
    """Edits trees; keeps those it has seen, by object id, up to a bound on their entries."""

    def __init__(self, read: Callable[[bytes], bytes]) -> None:
        """`read` gives the bytes of a tree object by its id."""
        self._read = read
        self._cache: OrderedDict[bytes, Tree] = OrderedDict()
        self._entries = 0

    def edit(self, id: bytes | None, changes: Changes, pack: Pack) -> bytes | None:
        """The id of the tree `id` with the changes made; new trees go into the pack. None stands for no tree."""
        old = self.get(id) if id is not None else {}
        tree = dict(old)
        for name, change in changes.items():
            entry = old.get(name)
            if isinstance(change, dict):
                folder = entry[-20:] if entry is not None and entry.startswith(FOLDER) else None
                new, mode = self.edit(folder, change, pack), FOLDER
            else:
                new, mode = change, FILE
            if new is None:
                tree.pop(name, None)
            else:
                tree[name] = b"%b %b\x00%b" % (mode, name, new)
        if not tree:
            return None
        if len(tree) > len(old):
            tree = dict(sorted(tree.items(), key=_order))
        new_id = pack.add(TREE, b"".join(tree.values()), base=id)
        self._keep(new_id, tree)
        return new_id

    def get(self, id: bytes) -> Tree:
        """The tree of this id; not to be changed. Raises RepositoryDamaged where it can't be read."""
        tree = self._cache.get(id)
        if tree is None:
            tree = parse(self._read(id))
            self._keep(id, tree)
        else:
            self._cache.move_to_end(id)
        return tree

    def blobs(self, id: bytes, prefix: str = "") -> Iterator[tuple[str, str]]:
        """Every file below a tree, in git's order: path and blob id (hex)."""
        for name, entry in parse(self._read(id)).items():
            path = prefix + name.decode(errors="surrogateescape")
            if entry.startswith(FOLDER):
                yield from self.blobs(entry[-20:], f"{path}/")
            else:
                yield path, entry[-20:].hex()

    def _keep(self, id: bytes, tree: Tree) -> None:
        if id in self._cache:
            return
        self._cache[id] = tree
        self._entries += len(tree)
        while self._entries > _MAX_CACHED_ENTRIES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._entries -= len(dropped)


def _order(item: tuple[bytes, bytes]) -> bytes:
    """Git sorts a folder as if its name ended in a slash."""
    name, entry = item
    return name + b"/" if entry.startswith(FOLDER) else name
