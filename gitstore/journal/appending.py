"""Writing the journal: one chain for all workers of a repository, each line there before its request is answered.

What a reader costs is what this costs, so a line is written in some ten microseconds. The lock that keeps the chain is
a flock, and who holds it must not wait for Python's interpreter lock: a thread that lets go of that for one call gets it
back when others have used up their turns, 5 ms each, and meanwhile every worker stands at the flock. So what is
done under the flock is done by C's functions through `ctypes.PyDLL`, which keeps the interpreter lock, and by a mapping
of the file `head`. Only one thread of a process waits for the flock; the others leave their lines to it (turns.py).
docs/audit-journal.md has the measurements.
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

from gitstore.errors import Locked, StorageFailed, StoreError
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
from gitstore.journal.turns import Turns, Waiting

MAX_FILE = 16 * 1024**2
"""Bytes after which a file is followed by another: readers take one at a time into memory."""

SYNC_EVERY = 1.0
"""Seconds. A power cut loses the lines of no longer time than this; that a process is killed loses none."""

_SPINS = 40
"""Looks at the flock, half a microsecond each, before the interpreter lock is given away: mostly its holder is done by then."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0001, 0.002
"""Seconds."""
_UNKNOWN = b""
_BROKEN_OFF = StorageFailed("The access journal was broken off.")
"""What those hear who have waited for a thread that was stopped."""
_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
_MARK, _WRITING, _WRITTEN = HEAD_SIZE - 1, ord("+"), ord(" ")
"""The last byte of `head`: whether somebody is writing, or has died while they were."""

_C = ctypes.PyDLL(None, use_errno=True)
_C.write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
_C.write.restype = ctypes.c_ssize_t
# Not for flock, whose arguments are plain ints: to check them costs as much as the call.


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
        self._turns = Turns()
        self._head = _open(os.path.join(folder, "head"), os.O_RDWR)
        self._take_flock(self._deadline())
        try:
            if os.fstat(self._head).st_size < HEAD_SIZE:
                os.pwrite(self._head, b" " * HEAD_SIZE, 0)
        finally:
            _C.flock(self._head, fcntl.LOCK_UN)
        self._map = mmap.mmap(self._head, HEAD_SIZE)
        self._seen = _UNKNOWN
        self._at = Head("", 0, 0, NOTHING)
        self._sized = False
        self._notes: list[bytes] = []
        self._day = -1
        self._file = -1
        self._closing = threading.Event()
        self._added = self._synced = 0
        self._counted: Callable[[int], None] | None = None
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
        texts = (
            bodies(entries[0]) if len(entries) == 1 else [text for entry in entries for text in bodies(entry)]
        )
        if self._turns.leads_at_once(False):
            try:
                self._lead(texts)
            finally:
                self._turns.pass_on()
        else:
            self._follow(texts)

    def count_with(self, counted: Callable[[int], None]) -> None:
        """Have `counted` told each second, by another thread, how many lines this process has added since."""
        self._counted = counted

    def close(self) -> None:
        """Let go of the files, with all lines on the disk."""
        self._closing.set()
        self._syncing.join()
        with self._turns.alone():
            for descriptor in (self._file, self._head):
                if descriptor >= 0:
                    os.close(descriptor)
            self._file = self._head = -1
            self._map.close()

    # Turns

    def _follow(self, texts: list[bytes]) -> None:
        """Have lines written by the thread that is at it, or by this one after it. Raises what `record` does."""
        waiting = Waiting(texts, self._deadline())
        self._turns.follow(waiting)
        if waiting.leads:
            try:
                self._lead(texts, waiting.deadline)
            finally:
                self._turns.pass_on()
        elif waiting.error is not None:
            raise waiting.error

    def _lead(self, texts: list[bytes], deadline: float | None = None) -> None:
        """Write lines, and those of all who wait, in one piece; in its turn. Raises what `record` does."""
        others: list[Waiting] = []
        fault: StoreError | None = _BROKEN_OFF
        try:
            if self._head < 0:
                raise StorageFailed("The access journal is closed.")
            if self._fault is not None:
                raise StorageFailed(self._fault)
            if _C.flock(self._head, _EXCLUSIVE):
                self._take_flock(self._deadline() if deadline is None else deadline)
            try:
                if self._turns.waiting:
                    others = self._turns.gather()
                    texts = [*texts, *(text for each in others for text in each.texts)]
                self._add(texts)
            finally:
                _C.flock(self._head, fcntl.LOCK_UN)
            fault = None
        except OSError as error:
            fault = storage_error(error, "the access can't be noted in the journal")
            raise fault from error
        except StoreError as error:
            fault = error
            raise
        finally:
            for each in others:
                each.let_go(fault)

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout

    def _take_flock(self, deadline: float) -> None:
        """Wait for other processes; those who come meanwhile wait for this thread. Raises Locked, OSError."""
        pause, tries = _FIRST_PAUSE, 0
        while _C.flock(self._head, _EXCLUSIVE):
            code = ctypes.get_errno()
            if code not in (errno.EWOULDBLOCK, errno.EINTR):
                raise OSError(code, os.strerror(code), self._folder)
            tries += 1
            if tries < _SPINS:
                continue
            if time.monotonic() > deadline:
                raise Locked(f"The access journal was busy for more than {self._timeout:g} s.")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    # Adding lines, under the flock

    def _add(self, texts: list[bytes]) -> None:
        seen = self._map[:]
        if seen != self._seen or not self._sized:
            self._catch_up(seen)
        now = self._clock()
        if now // DAY != self._day or self._at.size >= self._max_file:
            self._begin_file(now)
        if self._notes:
            texts = self._notes + texts
        file, size, number, last = self._at
        data = b""
        for text in texts:
            number += 1
            one = line(number, last, now, text)
            last = hash_of(one)
            data = data + one if data else one
        self._map[_MARK] = _WRITING
        try:
            self._write(data)
        except OSError:
            if self._seen is not _UNKNOWN and os.fstat(self._file).st_size == size:
                self._map[_MARK] = _WRITTEN
            raise
        self._note_head(Head(file, size + len(data), number, last))
        self._notes = []
        self._added += len(texts)

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
        printed = head.printed()
        self._map[:_MARK] = printed[:_MARK]
        self._map[_MARK] = _WRITTEN  # not before all the rest is there
        self._at, self._seen = head, printed

    def _begin_file(self, now: int) -> None:
        """Begin another file, whose first line says which one it follows."""
        before = self._at.file
        name = file_name(file_number(before) + 1 if before else 1, now)
        self._map[_MARK] = _WRITING
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

    def _catch_up(self, seen: bytes) -> None:
        """Be where the journal ends, by what `head` has: other processes write it, too, and may have died while they did."""
        head = parse_head(seen)
        if head is None or seen[_MARK] == _WRITING or not self._open_file(head.file):
            self._recover(head)
        elif self._sized or os.fstat(self._file).st_size == head.size:
            self._at, self._seen = head, seen
        else:
            self._recover(head)
        self._sized = True

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
        self._map[_MARK] = _WRITING
        self._seen = _UNKNOWN
        self._at, self._day = Head("", 0, 0, NOTHING), -1
        data = b""
        if names := file_names(self._git_dir):
            self._open_file(names[-1])
            data = contents(self._git_dir, names[-1])
            self._at = _end_of(names[-1], data)
            if self._at.size < len(data):
                self._close_torn(data)
        if _lacks(self._at, head, data) and (loss := _note_of_loss(head)) not in self._notes:
            self._notes.append(loss)

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
        new = self._added - self._synced
        if not new:
            return
        self._synced += new
        if self._counted is not None:
            self._counted(new)
        try:
            self._look_for_folder()
            with self._turns.alone():
                self._sized = False
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
