"""Putting a rewritten history in the place of the old one, whole or not at all, and removing the old one.

    git-fhir/purge/objects   the new history in one pack; nothing outside of this folder has changed
    NAME.lock                beside each ref that is to move; each is still where it was
    git-fhir/purge/journal   renamed into place: from here on it has happened, and whoever takes the lock goes on
    objects/pack             the new pack, kept by a `.keep` of ours;  git-fhir/rewritten
    NAME.lock -> NAME        each ref; packed-refs without them
    (the search index)       made before, moves now: see gitstore.purging
    objects, logs            all that the new pack does not hold is removed; then the journal, last

Without the journal whoever takes the writer's lock removes the folder and the locks: nothing has happened.
docs/architecture.md, "Erasure"
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec
from msgspec import Struct

from gitstore.errors import Locked
from gitstore.git import layout, outbox, rewritten
from gitstore.git.pack import KEEP_TEXT
from gitstore.git.references import Move, Moves

_KINDS = ("keep", "pack", "rev", "idx")
"""Files of a pack in the order in which they come: git sees it by its idx."""
_PSEUDO = (
    "FETCH_HEAD",
    "ORIG_HEAD",
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "AUTO_MERGE",
    "BISECT_HEAD",
)
_DERIVED = ("commit-graph", "commit-graphs", "packs")


def folder_of(git_dir: str) -> str:
    """Where a rewriting that is under way has its files."""
    return os.path.join(git_dir, layout.LOCAL, "purge")


def is_under_way(git_dir: str) -> bool:
    """Whether there is one, or one that died."""
    return os.path.isdir(folder_of(git_dir))


class _Journal(Struct, frozen=True):
    pack: str
    moves: tuple[Move, ...]


class Swap:
    """One rewriting on its way, under the writer's lock and the maintenance lock."""

    def __init__(self, git_dir: str, *, durable: bool = True, timeout: float = 10.0) -> None:
        self.folder = folder_of(git_dir)
        self.objects = os.path.join(self.folder, "objects")
        self._git_dir = git_dir
        self._durable = durable
        self._timeout = timeout
        self._journal = _Journal("", ())

    @property
    def pack_folder(self) -> str:
        """Where the new objects are put."""
        return os.path.join(self.objects, "pack")

    def begin(self) -> None:
        os.makedirs(self.pack_folder)

    def prepare(self, pack: str, moves: Sequence[Move], commits: bytes) -> None:
        """Lock all refs; `commits` is the file of `gitstore.git.rewritten` as it will be.

        Raises Locked, and Unavailable where one has moved.
        """
        self._journal = _Journal(pack, tuple(moves))
        self._write("rewritten", commits)
        self._moves().stage()
        # Who finds no journal learns from this which locks may be ours.
        self._write("journal.new", json.dumps(msgspec.to_builtins(self._journal)).encode())
        self._sync()
        self._moves().lock()

    def decide(self) -> None:
        """The one moment at which it happens."""
        self._sync()
        os.rename(os.path.join(self.folder, "journal.new"), os.path.join(self.folder, "journal"))
        self._sync()

    def undo(self) -> None:
        """Leave nothing behind of what was not decided."""
        self._moves().unlock()
        shutil.rmtree(self.folder)

    # After the decision: everything may be done twice

    def publish(self) -> None:
        """Let git see the new history: its pack, then its refs."""
        packs = os.path.join(self._git_dir, "objects", "pack")
        name = self._journal.pack
        with open(os.path.join(packs, f"pack-{name}.keep"), "wb") as file:
            file.write(KEEP_TEXT)
        for kind in _KINDS[1:]:
            with suppress(FileNotFoundError):
                os.rename(
                    os.path.join(self.pack_folder, f"pack-{name}.{kind}"),
                    os.path.join(packs, f"pack-{name}.{kind}"),
                )
        with suppress(FileNotFoundError):
            os.rename(os.path.join(self.folder, "rewritten"), rewritten.path(self._git_dir))
        self._moves().publish()
        self._sync()

    def clean(self) -> None:
        """Remove the old history, wherever git may have put it, then every trace of the rewriting."""
        objects = os.path.join(self._git_dir, "objects")
        name = self._journal.pack
        for derived in _DERIVED:
            _remove(os.path.join(objects, "info", derived))
        packs = sorted(os.listdir(os.path.join(objects, "pack")), key=_order)
        for file in packs:
            if not file.startswith(f"pack-{name}."):
                _remove(os.path.join(objects, "pack", file))
        for entry in os.listdir(objects):
            # Loose objects, and pushes that git has not accepted yet.
            if entry not in ("pack", "info"):
                _remove(os.path.join(objects, entry))
        for left in ("logs", os.path.join("info", "refs"), *_PSEUDO, *outbox.FILES):
            _remove(os.path.join(self._git_dir, left))
        self._sync()
        _remove(os.path.join(objects, "pack", f"pack-{name}.keep"))
        for entry in os.listdir(self.folder):
            if entry != "journal":
                _remove(os.path.join(self.folder, entry))
        _remove(os.path.join(self.folder, "journal"))
        os.rmdir(self.folder)

    def resume(self) -> bool:
        """Find out how far another has come who died; whether it has happened."""
        for name in ("journal", "journal.new"):
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                with open(os.path.join(self.folder, name), "rb") as file:
                    told = json.loads(file.read())
                self._journal = _Journal(told["pack"], tuple(Move(**move) for move in told["moves"]))
                return name == "journal"
        return False

    def _moves(self) -> Moves:
        return Moves(self._git_dir, os.path.join(self.folder, "refs"), self._journal.moves, self._timeout)

    def _write(self, name: str, data: bytes) -> None:
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(data)

    def _sync(self) -> None:
        """All of it at once: there are files of git's own making among them, and this is done once in a record's life."""
        if self._durable:
            os.sync()


def recover(git_dir: str, *, durable: bool = True) -> bool:
    """Undo or finish what a dead process left, under the writer's lock; whether there is another history now.

    Raises Locked where somebody is at the packs.
    """
    if not is_under_way(git_dir):
        return False
    swap = Swap(git_dir, durable=durable)
    with _maintenance(git_dir):
        if not swap.resume():
            swap.undo()
            return False
        swap.publish()
        swap.clean()
    return True


@contextmanager
def _maintenance(git_dir: str) -> Iterator[None]:
    lock = os.open(os.path.join(git_dir, layout.LOCAL, "maintenance.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Locked("A purge that was cut off has to be finished, once maintenance is over.") from None
    finally:
        os.close(lock)


def _order(name: str) -> tuple[bool, bool, str]:
    """What leads to others goes first: the index of all packs, then that of each."""
    return not name.startswith("multi-pack-index"), not name.endswith(".idx"), name


def _remove(path: str) -> None:
    """A file or a folder, if it is there. Raises OSError."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
