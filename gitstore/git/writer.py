"""Moving main: one lock, an intent, a pack, every fsync in its order. docs/architecture.md, "Writing"

    writer.lock    intent <- old tip, new tip, pack; fsync
    main.lock      made whole elsewhere, fsync, then linked into place if there is none; main is still the old tip
    pack-X.keep    so that a repack beside us can't take the pack for unreachable
    pack-X.pack    fsync;  its idx under another name, fsync, renamed; folder fsync
    main.lock      -> main. From here on the units have happened. folder fsync
    pack-X.keep    gone; intent emptied

Whatever fails before the rename of main.lock is undone at once. Whoever finds an intent when taking the lock knows
that its holder died, and does the same. The branch is never moved back.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

from msgspec import Struct

from gitstore.durable import storage_error, sync_folder, write_all
from gitstore.errors import ForeignCommit, Locked, NotConfirmed, RepositoryDamaged, StorageFailed, StorageFull
from gitstore.git import layout, swap
from gitstore.git.pack import KEEP_TEXT, Pack
from gitstore.git.scratch import Scratch
from gitstore.observing import UNOBSERVED, Observer

_RECORD = 512
"""Bytes of writer.lock: one sector, overwritten in place, so that it needs no new space and is never torn."""
_POLL = 0.005
_RESERVE = 32 * 1024**2


class _Intent(Struct, frozen=True):
    old: str
    new: str
    pack: str


class Writer:
    """The one way to move main of a repository. Open one in each process, after any fork."""

    def __init__(
        self,
        git_dir: str,
        *,
        durable: bool = True,
        lock_timeout: float = 10.0,
        observer: Observer = UNOBSERVED,
    ) -> None:
        """Raises StorageFailed where the git directory can't be written by us."""
        self._git_dir = git_dir
        self._durable = durable
        self._timeout = lock_timeout
        self._observer = observer
        self._boot = boot_id()
        self._mutex = threading.Lock()  # a flock keeps out other processes, not other threads
        self._local = os.path.join(git_dir, layout.LOCAL)
        self._packs = os.path.join(git_dir, "objects", "pack")
        self._main = os.path.join(git_dir, layout.REFERENCE)
        self._ready = os.path.join(self._local, "main.next")
        try:
            if os.stat(git_dir).st_uid != os.geteuid():
                raise StorageFailed(f"{git_dir} belongs to another user; only its owner may write to it.")
            os.makedirs(self._local, exist_ok=True)
            os.makedirs(self._packs, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT
            self._gate = os.open(os.path.join(self._local, "writer.gate"), flags, 0o644)
            self._lock = os.open(os.path.join(self._local, "writer.lock"), flags, 0o644)
        except OSError as error:
            raise storage_error(error, f"{git_dir} can't be written") from error

    def close(self) -> None:
        os.close(self._gate)
        os.close(self._lock)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the repository's lock, first come first served between processes; leftovers of a dead holder go first.

        Who waits for the lock holds the gate, so a process that has just let go queues up behind it.
        """
        begun = time.monotonic()
        with self._mutex:
            self._take_lock()
            try:
                self._observer.waited(time.monotonic() - begun)
                self._recover()
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    @contextmanager
    def locked_at_once(self) -> Iterator[bool]:
        """Hold the lock as `locked` does, but only if nobody else has it or waits for it: says whether it is held."""
        if not self._mutex.acquire(blocking=False):
            yield False
            return
        try:
            if not self._take_lock(fcntl.LOCK_NB):
                yield False
                return
            try:
                self._recover()
                yield True
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
        finally:
            self._mutex.release()

    def _take_lock(self, flags: int = 0) -> bool:
        """Whether it was taken; False only where `flags` say not to wait."""
        try:
            fcntl.flock(self._gate, fcntl.LOCK_EX | flags)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | flags)
            finally:
                fcntl.flock(self._gate, fcntl.LOCK_UN)
        except BlockingIOError:
            return False
        except OSError as error:
            raise storage_error(error, "the writer's lock failed") from error
        return True

    def is_wanted(self) -> bool:
        """Whether another process waits for the lock; while holding it. Who waits holds the gate."""
        try:
            fcntl.flock(self._gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        except OSError as error:
            raise storage_error(error, "the writer's lock failed") from error
        return False

    # The state of the search index

    def index_is_behind(self) -> bool:
        """Whether a unit has happened that the index doesn't hold: nothing may be answered from it."""
        return os.pread(self._lock, 6, 0) == b"behind"

    def mark_index(self, *, behind: bool) -> None:
        """Say whether the index is behind main; under the lock. Raises StorageFailed."""
        try:
            self._record(b"behind" if behind else b"idle")
        except OSError as error:
            raise storage_error(error, "writer.lock can't be written") from error

    # Publishing

    def check_space(self, size: int) -> None:
        """Raises StorageFull where the disk has no room for `size` bytes and a reserve."""
        try:
            disk = os.statvfs(self._packs)
        except OSError as error:
            raise storage_error(error, "nothing was written") from error
        free = disk.f_bavail * disk.f_frsize
        if free < size + _RESERVE:
            raise StorageFull(f"{free} bytes are free on the disk; nothing was written.")

    def settle(self) -> None:
        """Wait until what other gits have written is on the disk: they don't sync loose objects and branches."""
        if self._durable:
            os.sync()

    def pack(self) -> Pack:
        """An empty pack. One that gets large takes its room on the disk at once, and little in memory."""
        return Pack(Scratch(self._packs, lambda error: storage_error(error, "nothing was written")))

    def publish(self, pack: Pack, old: str | None, new: str) -> None:
        """Write the pack and move main from `old` to `new`, a commit in it; under the lock.

        Raises ForeignCommit where main is not at `old`, Locked where a foreign git holds main.lock for too long,
        StorageFull and StorageFailed; then nothing has happened. Raises NotConfirmed where main has moved and the
        disk then failed.
        """
        name, pieces, index_bytes = pack.files()
        self._move(_Intent(old or "", new, name), lambda: self._write_pack(name, pieces, index_bytes))

    def move(self, old: str, new: str) -> None:
        """Move main from `old` to `new`, a commit that is here, and whose files a git has synced; under the lock.

        git syncs no folders, so the packs' is synced here. Raises what `publish` raises.
        """
        self._move(_Intent(old, new, ""), lambda: self._fsync_folder(self._packs))

    def _move(self, intent: _Intent, write: Callable[[], None]) -> None:
        new = intent.new
        try:
            self._record(b"intent", intent)
            self._take_main_lock(intent.old or None, new)
            write()
            os.rename(self._main + ".lock", self._main)
        except OSError as error:
            if self._moved(new):
                raise _not_confirmed(new, error) from error
            self._undo(intent)
            raise storage_error(error, "nothing was written") from error
        except BaseException:
            self._undo(intent)
            raise
        try:
            self._fsync_folder(os.path.dirname(self._main))
            _unlink(self._pack_path(intent.pack, "keep"))
            self._record(b"idle", sync=False)
        except OSError as error:
            raise _not_confirmed(new, error) from error

    def _moved(self, new: str) -> bool:
        """Whether main is there after an error: a rename may have been done although the disk reported a failure."""
        with suppress(OSError, RepositoryDamaged):
            return self.main() == new
        return False

    def _take_main_lock(self, old: str | None, new: str) -> None:
        # A link fails where a lock stands, as O_EXCL does, and the lock that it makes is never empty or half
        # written, also after a power cut: so ours can always be told from that of another git.
        self._write_file(self._ready, [f"{new}\n".encode()], mode=0o644)
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                os.link(self._ready, self._main + ".lock")
                break
            except FileExistsError:
                if time.monotonic() > deadline:
                    raise Locked(
                        f"Another git holds {layout.REFERENCE}.lock for more than {self._timeout:g} s."
                    ) from None
                time.sleep(_POLL)
        os.unlink(self._ready)
        if (found := self.main()) != old:
            raise ForeignCommit(f"{layout.BRANCH} was moved to {found} by another git.", found or "")

    def _write_pack(self, name: str, pack: Iterable[bytes], index: bytes) -> None:
        self._write_file(self._pack_path(name, "keep"), [KEEP_TEXT], sync=False)
        self._write_file(self._pack_path(name, "pack"), pack)
        self._write_file(self._pack_path(name, "tmp_idx"), [index])
        os.rename(self._pack_path(name, "tmp_idx"), self._pack_path(name, "idx"))
        self._fsync_folder(self._packs)

    def _undo(self, intent: _Intent) -> None:
        """Remove what a write that did not happen left. What can't be removed now, the next holder removes."""
        with suppress(OSError):
            self._remove_leftovers(intent)
            self._record(b"idle")

    # Recovery

    def is_rewriting(self) -> bool:
        """Whether history is being rewritten right now; what died while it did so is undone or finished first."""
        if not swap.is_under_way(self._git_dir):
            return False
        with self.locked_at_once() as locked:
            return not locked

    def _recover(self) -> None:
        try:
            if swap.recover(self._git_dir, durable=self._durable):
                self._record(b"behind")
            intent = self._read_intent()
            if intent is not None:
                self._remove_leftovers(intent)
                self._record(b"behind" if self._happened(intent) else b"idle")
        except OSError as error:
            raise storage_error(error, "what a dead writer left can't be removed") from error

    def _happened(self, intent: _Intent) -> bool:
        """Whether main has moved. While our main.lock stands no git moves it, and without one it is as we left it.

        A power cut may bring back an intent whose emptying was not on disk yet, but never one before the last.
        """
        return self.main() != (intent.old or None)

    def _remove_leftovers(self, intent: _Intent) -> None:
        lock = self._main + ".lock"
        _unlink(self._ready)
        if self._is_ours(lock, intent):
            _unlink(lock)
        if not self._happened(intent):
            # The idx first: without it git no longer sees the pack.
            for kind in ("idx", "tmp_idx", "pack"):
                _unlink(self._pack_path(intent.pack, kind))
        _unlink(self._pack_path(intent.pack, "keep"))

    def _is_ours(self, lock: str, intent: _Intent) -> bool:
        try:
            with open(lock, "rb") as file:
                found = file.read(64)
        except FileNotFoundError:
            return False
        return found == f"{intent.new}\n".encode()

    # writer.lock

    def _record(self, state: bytes, intent: _Intent | None = None, *, sync: bool = True) -> None:
        fields = [state]
        if intent is not None:
            fields += [f"{n} {v}".encode() for n, v in (("old", intent.old), ("new", intent.new))]
            fields += [f"pack {intent.pack}".encode(), f"pid {os.getpid()}".encode(), b"boot " + self._boot]
        text = b"\n".join([*fields, b""])
        text += b"crc %08x\n" % zlib.crc32(text)
        if os.pwrite(self._lock, text.ljust(_RECORD, b"\n"), 0) != _RECORD:
            raise OSError(errno.EIO, "writer.lock was written short")
        if sync and self._durable:
            os.fdatasync(self._lock)

    def _read_intent(self) -> _Intent | None:
        record = os.pread(self._lock, _RECORD, 0)
        text, found, rest = record.partition(b"crc ")
        if not record.startswith(b"intent\n") or not found or rest.rstrip() != b"%08x" % zlib.crc32(text):
            # An intent that isn't whole was never synced, so nothing followed it.
            return None
        values = dict(line.partition(" ")[::2] for line in text.decode().splitlines()[1:])
        return _Intent(values["old"], values["new"], values["pack"])

    # main

    def main_locked_since(self) -> float | None:
        """Since when there has been a main.lock, ours or another git's, in seconds since 1970; None where there is none."""
        try:
            return os.stat(self._main + ".lock").st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, "main.lock can't be looked at") from error

    def main(self) -> str | None:
        """The commit at main as it is on disk, packed or not; None before the first commit."""
        return read_main(self._git_dir)

    # Files

    def _pack_path(self, name: str, kind: str) -> str:
        return os.path.join(self._packs, f"pack-{name}.{kind}")

    def _write_file(
        self, path: str, pieces: Iterable[bytes], *, sync: bool = True, mode: int = 0o444
    ) -> None:
        _unlink(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            write_all(descriptor, pieces)
            if sync:
                self._fsync(descriptor)
        finally:
            os.close(descriptor)

    def _fsync(self, descriptor: int) -> None:
        if self._durable:
            os.fsync(descriptor)

    def _fsync_folder(self, path: str) -> None:
        if self._durable:
            sync_folder(path)


def read_main(git_dir: str) -> str | None:
    """The commit at main of a repository; None where it has none. Raises RepositoryDamaged where it can't be read."""
    try:
        with open(os.path.join(git_dir, layout.REFERENCE), encoding="ascii") as file:
            text = file.read().strip()
    except FileNotFoundError:
        text = _packed_main(git_dir)
    if text and (len(text) != 40 or set(text) - set("0123456789abcdef")):
        raise RepositoryDamaged(f"{layout.REFERENCE} holds `{text[:60]}`, which is no commit id.")
    return text or None


def _packed_main(git_dir: str) -> str:
    try:
        with open(os.path.join(git_dir, "packed-refs"), encoding="utf-8") as file:
            for line in file:
                id, _, name = line.strip().partition(" ")
                if name == layout.REFERENCE:
                    return id
    except FileNotFoundError:
        pass
    return ""


def _not_confirmed(new: str, error: OSError) -> NotConfirmed:
    return NotConfirmed(
        f"The write is in the record as {new}, but the disk did not confirm it: {error.strerror}."
    )


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


@lru_cache(maxsize=1)
def boot_id() -> bytes:
    """What tells this start of the machine from others."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read(64).strip()
    except OSError:
        return b"unknown"
