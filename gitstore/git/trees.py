"""Trees of the record: changing paths in them, object by object, without a work tree or git's index.

Every commit rewrites five trees, so a tree is kept as its bytes with the places of its object ids: an update, which
changes ids only, splices the new ones in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, TypeVar

from msgspec import Struct

from gitstore.errors import RepositoryDamaged
from gitstore.git.pack import TREE, Pack

_Leaf = TypeVar("_Leaf")

Nested: TypeAlias = "dict[bytes, _Leaf | Nested[_Leaf]]"
"""name -> what there is to say of the file of that name, or all that there is in the folder of that name."""

Changes: TypeAlias = "Nested[bytes | None]"
"""Of a file the blob's id, None for a removal."""

FOLDER, FILE = b"40000 ", b"100644 "
_ID = 20
ENTRY_BYTES = 168
"""What an entry of a tree in memory takes, about."""
_DEPTH = 4
"""Folders above a file of the record."""


class Tree(Struct, frozen=True):
    """A tree object. `places` maps each mode and name (`40000 Patient`) to where in `data` its id stands."""

    data: bytes
    places: dict[bytes, int]

    def id(self, head: bytes) -> bytes | None:
        """The id of the entry of this mode and name, if there is one."""
        at = self.places.get(head)
        return self.data[at : at + _ID] if at is not None else None


EMPTY = Tree(b"", {})


def parse(data: bytes) -> Tree:
    """A tree object from its bytes. Raises RepositoryDamaged where they are none."""
    places: dict[bytes, int] = {}
    at = 0
    while at < len(data):
        end = data.find(b"\x00", at)
        if end < 0 or end + 1 + _ID > len(data) or b" " not in data[at:end]:
            raise RepositoryDamaged("A tree object is cut short.")
        places[data[at:end]] = end + 1
        at = end + 1 + _ID
    return Tree(data, places)


def nest(files: Mapping[str, _Leaf]) -> Nested[_Leaf]:
    """What is said by path, by folder."""
    nested: Nested[_Leaf] = {}
    for path, leaf in files.items():
        *folders, name = path.encode().split(b"/")
        here = nested
        for folder in folders:
            inner = here.setdefault(folder, {})
            assert isinstance(inner, dict), f"{path} is below a file"
            here = inner
        here[name] = leaf
    return nested


class Trees:
    """Edits trees; keeps those it has seen, by object id, up to a bound on their entries."""

    def __init__(self, read: Callable[[bytes], bytes], max_entries: int = 400_000) -> None:
        """`read` gives the bytes of a tree object by its id; so many entries are kept in memory."""
        self._read = read
        self._max_entries = max_entries
        self._cache: OrderedDict[bytes, Tree] = OrderedDict()
        self._entries = 0

    def edit(self, id: bytes | None, changes: Changes, pack: Pack, *, keep: bool = True) -> bytes | None:
        """The id of the tree `id` with the changes made; new trees go into the pack. None stands for no tree.

        Where trees are not to be kept, those that were not in memory before are not afterwards, here or in the pack.
        """
        old = self._get(id, keep=keep) if id is not None else EMPTY
        edits: dict[bytes, bytes | None] = {}
        for name, change in changes.items():
            if isinstance(change, dict):
                edits[FOLDER + name] = self.edit(old.id(FOLDER + name), change, pack, keep=keep)
            else:
                edits[FILE + name] = change
        splices = {
            old.places[head]: new for head, new in edits.items() if new is not None and head in old.places
        }
        if len(splices) == len(edits):
            tree = Tree(_splice(old.data, splices), old.places)
            region = (min(splices), max(splices) + _ID) if splices else (0, 0)
        else:
            tree, region = _rebuilt(old, edits), None
        if not tree.places:
            return None
        new_id = pack.add(TREE, tree.data, base=id, region=region, keep=keep)
        if keep:
            self._keep(new_id, tree)
        return new_id

    def get(self, id: bytes) -> Tree:
        """The tree of this id. Raises RepositoryDamaged where it can't be read."""
        return self._get(id, keep=True)

    def _get(self, id: bytes, *, keep: bool) -> Tree:
        tree = self._cache.get(id)
        if tree is None:
            tree = parse(self._read(id))
            if keep:
                self._keep(id, tree)
        else:
            self._cache.move_to_end(id)
        return tree

    def blobs(self, id: bytes, prefix: str = "") -> Iterator[tuple[str, str]]:
        """Every file below a tree, in git's order: path and blob id (hex)."""
        tree = parse(self._read(id))
        for head, at in tree.places.items():
            mode, _, name = head.partition(b" ")
            path = prefix + name.decode(errors="surrogateescape")
            if mode + b" " == FOLDER:
                yield from self.blobs(tree.data[at : at + _ID], f"{path}/")
            else:
                yield path, tree.data[at : at + _ID].hex()

    def _keep(self, id: bytes, tree: Tree) -> None:
        if id in self._cache:
            return
        self._cache[id] = tree
        self._entries += len(tree.places)
        while self._entries > self._max_entries and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._entries -= len(dropped.places)


class Difference(Struct, frozen=True):
    """A path at which two trees differ. `mode` (`100644`) and `blob` are what the second has there, None for nothing;
    `old` is the blob of a plain file that the first has."""

    path: str
    mode: str | None
    blob: str | None
    old: str | None


def differences(
    read: Callable[[bytes], bytes], old: bytes | None, new: bytes | None, folders: tuple[str, ...] = ()
) -> Iterator[Difference]:
    """Where the tree `new` differs from `old` (their ids, None for no tree), also where somebody else made it.

    A folder that is empty, or deeper than any of the record, is one path: no tree takes longer than what it yields.
    """
    before = parse(read(old)) if old is not None else EMPTY
    after = parse(read(new)) if new is not None else EMPTY
    changed = [head for head in {**before.places, **after.places} if before.id(head) != after.id(head)]
    files = {_name(head) for head in changed if head in after.places and not head.startswith(FOLDER)}
    for head in sorted(changed, key=lambda head: head.partition(b" ")[2]):
        path = "/".join((*folders, _name(head)))
        old_id, new_id = before.id(head), after.id(head)
        if head.startswith(FOLDER) and not _is_leaf(read, new_id, folders):
            yield from differences(read, old_id, new_id, (*folders, _name(head)))
        elif new_id is not None:
            old_file = before.id(FILE + head.partition(b" ")[2])
            mode = head.partition(b" ")[0].decode(errors="backslashreplace")
            yield Difference(path, mode, new_id.hex(), old_file.hex() if old_file else None)
        elif _name(head) not in files:
            yield Difference(path, None, None, old_id.hex() if old_id else None)


def _name(head: bytes) -> str:
    return head.partition(b" ")[2].decode(errors="backslashreplace")


def _is_leaf(read: Callable[[bytes], bytes], tree: bytes | None, folders: tuple[str, ...]) -> bool:
    return tree is not None and (len(folders) >= _DEPTH or not read(tree))


def _splice(data: bytes, splices: Mapping[int, bytes]) -> bytes:
    parts, at = [], 0
    for place in sorted(splices):
        parts += [data[at:place], splices[place]]
        at = place + _ID
    return b"".join([*parts, data[at:]])


def canonical(tree: Tree) -> bytes:
    """The bytes of the tree object that has these entries."""
    return _rebuilt(tree, {}).data


def without(old: Tree, edits: Mapping[bytes, bytes | None]) -> Tree:
    """A tree with other ids behind some modes and names (`40000 Patient`), and without those that have none."""
    return _rebuilt(old, edits)


def _rebuilt(old: Tree, edits: Mapping[bytes, bytes | None]) -> Tree:
    entries = {head: old.data[at : at + _ID] for head, at in old.places.items()}
    for head, new in edits.items():
        if new is None:
            entries.pop(head, None)
        else:
            entries[head] = new
    ordered = sorted(entries.items(), key=_order)
    return parse(b"".join(b"%b\x00%b" % entry for entry in ordered))


def _order(entry: tuple[bytes, bytes]) -> bytes:
    """Git sorts by name, a folder as if its name ended in a slash."""
    mode, _, name = entry[0].partition(b" ")
    return name + b"/" if mode + b" " == FOLDER else name
