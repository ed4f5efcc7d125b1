"""Writing the journal: one chain for all workers of a repository, each line there before its request is answered.

What a reader costs is what this costs, so a line is written in some ten microseconds. The lock that keeps the chain is
a flock, and who holds it must not wait for Python's interpreter lock: a thread that lets go of that for one call gets it
back when others have used up their turns, 5 ms each, and meanwhile every worker stands at the flock. So what is
done under the flock is done by C's functions through `ctypes.PyDLL`, which keeps the interpreter lock, and by a mapping
of the file `head`. docs/audit-journal.md has the measurements.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from gitstore.errors import Locked, StorageFailed
from gitstore.fhir.dates import interval
from gitstore.founding import now
from gitstore.git.writer import storage_error
from gitstore.journal.lines import (
    DAY,
    FOLDER,
    FORMAT,
    HEAD_SIZE,
    NOTHING,
    Entry,
    Head,
    bodies,
    body,
    file_day,
    file_name,
    file_names,
    file_number,
    hash_of,
    last_lines,
    line,
    parse,
    parse_head,
)
from gitstore.journal.reading import contents

MAX_FILE = 16 * 1024**2
"""Bytes after which a file is followed by another: readers take one at a time into memory."""

SYNC_EVERY = 1.0
"""Seconds. A power cut loses the lines of no longer time than this; that a process is killed loses none."""

_SPINS = 20
"""Looks at the lock, a microsecond each, before the interpreter lock is given away: mostly its holder is done by then."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.002
"""Seconds."""
_UNKNOWN = b""

_C = ctypes.PyDLL(None, use_errno=True)
_C.flock.argtypes = [ctypes.c_int, ctypes.c_int]
_C.write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
_C.write.restype = ctypes.c_ssize_t
_C.lseek.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int]
_C.lseek.restype = ctypes.c_int64


class Journal:
    """The journal of one repository, to add to. Any thread may call; open one in each process, after any fork."""

    def __init__(
        self, git_dir: str, clock: Callable[[], int], durable: bool, max_file: int, timeout: float
    ) -> None:
        """Use `open`."""
        self._git_dir = git_dir
        self._folder = folder = os.path.join(git_dir, FOLDER)
        self._clock = clock
        self._durable = durable
        self._max_file = max_file
        self._timeout = timeout
        self._mutex = threading.Lock()
        self._head = _open(os.path.join(folder, "head"), os.O_RDWR)
        self._lock()
        try:
            if os.fstat(self._head).st_size < HEAD_SIZE:
                os.pwrite(self._head, b" " * HEAD_SIZE, 0)
        finally:
            self._unlock()
        self._map = mmap.mmap(self._head, HEAD_SIZE)
        self._seen = _UNKNOWN
        self._at = Head("", 0, 0, NOTHING)
        self._notes: list[bytes] = []
        self._day = -1
        self._file = -1
        self._closing = threading.Event()
        self._unsynced = False
        self._fault: str | None = None
        self._syncing = threading.Thread(target=self._sync_at_times, name="git-fhir journal", daemon=True)
        self._syncing.start()

    @classmethod
    def open(
        cls,
        git_dir: str,
        clock: Callable[[], int] = now,
        *,
        durable: bool = True,
        max_file: int = MAX_FILE,
        timeout: float = 10.0,
    ) -> Journal:
        """The journal of a repository, which is begun where there is none; only its owner may read it.

        `clock` gives microseconds since 1970, `timeout` is how many seconds a line waits for its turn. Raises
        StorageFailed, StorageFull.
        """
        folder = os.path.join(git_dir, FOLDER)
        try:
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            return cls(git_dir, clock, durable, max_file, timeout)
        except OSError as error:
            raise storage_error(error, "there can be no access journal") from error

    def record(self, *entries: Entry) -> None:
        """Add entries, all of them or none; when this returns, they outlast this process.

        Raises StorageFull, StorageFailed and Locked: then nobody may be told what was asked for.
        """
        texts = [text for entry in entries for text in bodies(entry)]
        if self._fault is not None:
            raise StorageFailed(self._fault)
        try:
            self._lock()
            try:
                if self._head < 0:
                    raise StorageFailed("The access journal is closed.")
                self._catch_up()
                now = self._clock()
                if now // DAY != self._day or self._at.size >= self._max_file:
                    self._begin_file(now)
                self._append(now, [*self._notes, *texts])
                self._notes.clear()
            finally:
                self._unlock()
        except OSError as error:
            raise storage_error(error, "the access can't be noted in the journal") from error

    def close(self) -> None:
        """Let go of the files, with all lines on the disk."""
        self._closing.set()
        self._syncing.join()
        with self._mutex:
            for descriptor in (self._file, self._head):
                if descriptor >= 0:
                    os.close(descriptor)
            self._file = self._head = -1
            self._map.close()

    # The lock

    def _lock(self) -> None:
        """Wait for the lock. Raises Locked, OSError."""
        pause, deadline = _FIRST_PAUSE, 0.0
        # Who waits holds nothing: threads that come when the lock is free don't queue up behind one that sleeps.
        while not self._has_locked():
            deadline = deadline or time.monotonic() + self._timeout
            if time.monotonic() > deadline:
                raise Locked(f"The access journal was busy for more than {self._timeout:g} s.")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _has_locked(self) -> bool:
        # A flock keeps out other processes, not other threads.
        if not self._mutex.acquire(blocking=False):
            return False
        if self._head < 0:
            return True
        for _ in range(_SPINS):
            if _C.flock(self._head, fcntl.LOCK_EX | fcntl.LOCK_NB) == 0:
                return True
        code = ctypes.get_errno()
        self._mutex.release()
        if code not in (errno.EWOULDBLOCK, errno.EINTR):
            raise OSError(code, os.strerror(code), self._folder)
        return False

    def _unlock(self) -> None:
        if self._head >= 0:
            _C.flock(self._head, fcntl.LOCK_UN)
        self._mutex.release()

    # Adding lines, under the lock

    def _append(self, now: int, texts: list[bytes]) -> None:
        number, last = self._at.number, self._at.hash
        lines = []
        for text in texts:
            number += 1
            lines.append(line(number, last, now, text))
            last = hash_of(lines[-1])
        data = b"".join(lines)
        self._write(data)
        self._note_head(Head(self._at.file, self._at.size + len(data), number, last))
        self._unsynced = True

    def _write(self, data: bytes) -> None:
        """Add bytes to the file, or leave it as it is. Raises OSError."""
        done = _C.write(self._file, data, len(data))
        if done == len(data):
            return
        if done < 0:
            raise _os_error(self._at.file)
        os.ftruncate(self._file, self._at.size)
        raise _no_room(self._at.file)

    def _note_head(self, head: Head) -> None:
        self._at = head
        self._seen = self._map[:] = head.printed()

    def _begin_file(self, now: int) -> None:
        """Begin another file, whose first line says which one it follows."""
        before = self._at.file
        name = file_name(file_number(before) + 1 if before else 1, now)
        begin = body({"journal": FORMAT} | ({"follows": before} if before else {}))
        first = line(self._at.number + 1, self._at.hash, now, begin)
        self._sync()
        descriptor = self._make_file(name, first)
        self._use(descriptor, now // DAY)
        self._note_head(Head(name, len(first), self._at.number + 1, hash_of(first)))
        if self._durable:
            _sync_folder(self._folder)

    def _make_file(self, name: str, first: bytes) -> int:
        """A new file, open for appending; it is never there without its first line, whenever a crash may come."""
        making = os.path.join(self._folder, "new")
        with suppress(FileNotFoundError):
            os.unlink(making)
        descriptor = _open(making, os.O_WRONLY | os.O_APPEND | os.O_EXCL)
        try:
            _write_whole(descriptor, first, name)
            if self._durable:
                os.fsync(descriptor)
            os.rename(making, os.path.join(self._folder, name))
        except BaseException:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                os.unlink(making)
            raise
        return descriptor

    def _use(self, descriptor: int, day: int) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._day = descriptor, day

    # What others have written, and what was left by a crash, under the lock

    def _catch_up(self) -> None:
        """Be where the journal ends: other processes write it, too, and may have died while they did."""
        seen = self._map[:]
        if seen != self._seen:
            head = parse_head(seen)
            if head is None or not self._open_file(head.file):
                self._recover(head)
                return
            self._at, self._seen = head, seen
        if self._file >= 0 and _C.lseek(self._file, 0, os.SEEK_END) != self._at.size:
            self._recover(self._at)

    def _open_file(self, name: str) -> bool:
        if name == self._at.file and self._file >= 0:
            return True
        try:
            descriptor = os.open(os.path.join(self._folder, name), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self._use(descriptor, _day_of(name))
        return True

    def _recover(self, head: Head | None) -> None:
        """Go on after a crash: close a line that was torn, and note what is missing."""
        self._seen = _UNKNOWN
        self._at, self._day = Head("", 0, 0, NOTHING), -1
        data = b""
        if names := file_names(self._git_dir):
            self._open_file(names[-1])
            data = contents(self._git_dir, names[-1])
            self._at = _end_of(names[-1], data)
            if self._at.size < len(data):
                self._close_torn(data)
        if _lacks(self._at, head, data):
            self._notes.append(_note_of_loss(head))

    def _close_torn(self, data: bytes) -> None:
        """End the line that the file ends with, so that it counts as one, whatever it holds."""
        torn = data[self._at.size :] + b"\n"
        self._at = self._at._replace(size=len(data))
        self._write(b"\n")
        self._at = Head(self._at.file, len(data) + 1, self._at.number + 1, hash_of(torn))
        if parse(torn) is None:
            self._notes.append(body({"note": "torn", "bytes": len(torn) - 1}))

    # The disk

    def _sync_at_times(self) -> None:
        while not self._closing.wait(SYNC_EVERY):
            self._sync_what_is_new()
        self._sync_what_is_new()

    def _sync_what_is_new(self) -> None:
        if not self._unsynced:
            return
        self._unsynced = False
        try:
            self._look_for_folder()
            with self._mutex:
                descriptor = os.dup(self._file)
            try:
                if self._durable:
                    os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            # What was said to be noted may not be: from here on nothing more is.
            self._fault = f"The access journal can't be kept any more: {error}."

    def _look_for_folder(self) -> None:
        """Raises OSError where the journal was taken away: this process would go on to write where nobody reads."""
        if os.stat(os.path.join(self._folder, "head")).st_ino != os.fstat(self._head).st_ino:
            raise OSError(errno.ESTALE, "another journal lies in its place", self._folder)

    def _sync(self) -> None:
        if self._durable and self._file >= 0:
            os.fdatasync(self._file)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _os_error(path: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)


def _no_room(path: str) -> OSError:
    """What a write that came to its end too early means for a file on a disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _write_whole(descriptor: int, data: bytes, path: str) -> None:
    if os.write(descriptor, data) != len(data):
        raise _no_room(path)


def _day_of(name: str) -> int:
    """The day of a file, in days since 1970."""
    return interval(file_day(name))[0] // DAY


def _end_of(name: str, data: bytes) -> Head:
    """Where the whole lines of a file end. Lines that can't be read count as lines."""
    lines = last_lines(data)
    number = unread = 0
    for each in lines:
        found = parse(each)
        if found is not None:
            number = found["number"]
            break
        unread += 1
    return Head(name, data.rfind(b"\n") + 1, number + unread, hash_of(lines[0]) if lines else NOTHING)


def _lacks(at: Head, head: Head | None, data: bytes) -> bool:
    """Whether a journal that ends at `at` lacks lines that `head` tells of; `data` are the bytes of its last file."""
    if head is None:
        return at.number > 0  # Nobody knows where it ended.
    if at.number < head.number:
        return True
    if at.file != head.file:
        # That a file was begun after another says that this one was whole.
        return at.file < head.file
    before = data[: head.size]
    return not before.endswith(b"\n") or hash_of(last_lines(before)[0]) != head.hash


def _note_of_loss(head: Head | None) -> bytes:
    """That lines are missing up to `head`; or may be, where that is not known."""
    if head is None:
        return body({"note": "lost"})
    expected = {"file": head.file, "number": head.number, "hash": head.hash}
    return body({"note": "lost", "expected": expected})


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
