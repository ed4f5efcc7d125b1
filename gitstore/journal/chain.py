"""The chain: what waits in the rings becomes lines here, each with the hash of the one before, in the order of time.

Whoever holds the flock on `head` may write, and does it for all: the lines of every process, and of those that have died.
A drain may be broken off anywhere. So each frame says first which line it is about to become; whoever comes next sees by
where the chain ends which of them did. docs/audit-journal.md, "Crashes and full disks".
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from gitstore.durable import sync_folder
from gitstore.errors import Locked
from gitstore.fhir.dates import interval, parse_instant
from gitstore.journal.lines import (
    DAY,
    FOLDER,
    FORMAT,
    HEAD_SIZE,
    NOTHING,
    RINGS,
    Head,
    body,
    body_of,
    contents,
    file_day,
    file_name,
    file_names,
    file_number,
    hash_of,
    last_lines,
    line,
    parse,
    parse_head,
    ring_names,
    whole_lines,
)
from gitstore.journal.rings import Frame, Ring, in_order

MAX_FILE = 16 * 1024**2
"""Bytes after which a file is followed by another: readers take one at a time into memory."""

LATE = 60_000_000
"""Microseconds. What comes to the chain later than its followers gets their time, unless the clock was set back by this."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0001, 0.002
"""Seconds."""
_MARK, _WRITING, _WRITTEN = HEAD_SIZE - 1, ord("+"), ord(" ")
"""The last byte of `head`: whether somebody is writing, or has died while they were."""
_NOWHERE = Head("", 0, 0, NOTHING)


class Chain:
    """The files of a journal, to add to; by one thread at a time."""

    def __init__(
        self,
        git_dir: str,
        clock: Callable[[], int],
        *,
        durable: bool,
        max_file: int = MAX_FILE,
        timeout: float = 10.0,
    ) -> None:
        """Begins the journal where there is none. Raises OSError, Locked."""
        self._git_dir = git_dir
        self._folder = os.path.join(git_dir, FOLDER)
        self._rings_folder = os.path.join(git_dir, RINGS)
        self._clock = clock
        self._durable = durable
        self._max_file = max_file
        self._timeout = timeout
        self._file = self._day = -1
        self._at = _NOWHERE
        self._time = 0
        self._notes: list[bytes] = []
        self._rings: dict[str, Ring] = {}
        self._is_unsynced = False
        os.makedirs(os.path.dirname(self._folder), exist_ok=True)
        for folder in (self._folder, self._rings_folder):
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        self._head = _open(os.path.join(self._folder, "head"), os.O_RDWR)
        with self._flock():
            if os.fstat(self._head).st_size < HEAD_SIZE:
                os.pwrite(self._head, b" " * HEAD_SIZE, 0)
        self._map = mmap.mmap(self._head, HEAD_SIZE)

    def close(self) -> None:
        """Let go of the files."""
        for ring in self._rings.values():
            ring.close()
        if self._file >= 0:
            os.close(self._file)
        self._map.close()
        os.close(self._head)

    def make_ring(self) -> Ring:
        """A ring for this process. Raises OSError, Locked."""
        with self._flock():
            self._look_for_folder()
            return Ring.make(self._rings_folder, durable=self._durable)

    def drain(self, bodies: Iterable[bytes] = (), *, waits: bool = True) -> bool:
        """Add what waits in all rings, and then `bodies`; remove the rings of the dead.

        False where another process is at it, and this one doesn't wait. Raises OSError, StorageFailed, Locked: then what
        waits goes on to wait.
        """
        if not waits and not self._try_flock():
            return False
        with self._flock() if waits else self._unlocking():
            self._look_for_folder()
            rings = self._look_for_rings()
            dead = [ring for ring in rings if ring.is_dead()]  # before it is read: nothing is added after
            found = [(ring, *ring.frames()) for ring in rings]
            waiting = [frames for _, frames, _ in found if frames]
            now = self._clock()
            more = [Frame(now, each) for each in bodies]
            for ring, _, end in found:
                if ring in dead and not ring.is_whole(end):
                    self._note(None)
            if waiting or more or self._notes:
                self._add(waiting, more)
            for ring, frames, end in found:
                if frames:
                    ring.drain(end)
            for ring in dead:
                self._rings.pop(os.path.basename(ring.path)).remove()
        return True

    def sync(self) -> None:
        """Have all lines that were added on the disk. Raises OSError."""
        if self._is_unsynced and self._durable:
            self._is_unsynced = False
            os.fdatasync(self._file)

    def _look_for_folder(self) -> None:
        """Raises OSError where the journal was taken away: this process would go on to write where nobody reads."""
        if os.stat(os.path.join(self._folder, "head")).st_ino != os.fstat(self._head).st_ino:
            raise OSError(errno.ESTALE, "another journal lies in its place", self._folder)

    # The lock

    def _try_flock(self) -> bool:
        try:
            fcntl.flock(self._head, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @contextmanager
    def _flock(self) -> Iterator[None]:
        """Wait for other processes. Raises Locked, OSError."""
        deadline, pause = time.monotonic() + self._timeout, _FIRST_PAUSE
        while not self._try_flock():
            if time.monotonic() > deadline:
                raise Locked(f"The access journal was busy for more than {self._timeout:g} s.")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        with self._unlocking():
            yield

    @contextmanager
    def _unlocking(self) -> Iterator[None]:
        try:
            yield
        finally:
            fcntl.flock(self._head, fcntl.LOCK_UN)

    # Rings, under the lock

    def _look_for_rings(self) -> list[Ring]:
        names = ring_names(self._git_dir)
        for name in self._rings.keys() - names:
            self._rings.pop(name).close()
        for name in names:
            if name not in self._rings:
                ring = Ring.open(os.path.join(self._rings_folder, name))
                if ring is not None:
                    self._rings[name] = ring
        return [self._rings[name] for name in names if name in self._rings]

    def _unwritten(self, frames: list[Frame]) -> list[Frame]:
        """Frames of which no line was made; a drain that was broken off has made some."""
        ring = frames[0].ring
        if ring is not None and ring.is_strange:
            known = self._newest_bodies()
            return [frame for frame in frames if frame.body not in known]
        left = [frame for frame in frames if not 0 < frame.number <= self._at.number]
        for frame in left:
            if frame.number:
                frame.note(0)
        return left

    def _newest_bodies(self) -> set[bytes]:
        """What the lines of the last two files say."""
        names = file_names(self._git_dir)[-2:]
        return {body_of(each) for name in names for each in whole_lines(contents(self._git_dir, name))}

    # Adding lines, under the lock

    def _add(self, waiting: Sequence[list[Frame]], more: list[Frame]) -> None:
        was_begun = any(
            frame.number and frame.ring is not None and not frame.ring.is_strange
            for frames in waiting
            for frame in frames
        )
        self._catch_up(was_begun)
        # All of it before the chain goes on: numbers that nobody cleared would then seem to be written.
        left = [self._unwritten(frames) for frames in waiting]
        frames = [*in_order(left), *more]
        if self._notes:
            now = self._clock()
            self._follow_on(now)
            self._write_lines([(now, note) for note in self._notes])
            self._notes = []
        while frames:
            frames = frames[self._add_some(frames) :]
        if self._map[_MARK] == _WRITING:
            self._note_head(self._at)

    def _add_some(self, frames: Sequence[Frame]) -> int:
        """Add frames until the file is full or its day is over, at least one; gives how many."""
        self._follow_on(self._dated(frames[0].time))
        number, room, lines = self._at.number, self._max_file - self._at.size, []
        time = self._time
        for frame in frames:
            time = self._dated(frame.time, time)
            if time // DAY != self._day or room <= 0:
                break
            number += 1
            frame.note(number)
            lines.append((time, frame.body))
            room -= len(frame.body) + _LINKS
        self._write_lines(lines)
        return len(lines)

    def _dated(self, time: int, last: int | None = None) -> int:
        """The time of a line after one of the time `last`, or after all: it isn't earlier, unless the clock was set back."""
        last = self._time if last is None else last
        return last if time < last < time + LATE else time

    def _write_lines(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """Add lines to the file, in one piece. Raises OSError: then none was added."""
        file, size, number, last = self._at
        added, time = [], self._time
        for time, text in lines:
            number += 1
            one = line(number, last, time, text)
            last = hash_of(one)
            added.append(one)
        data = b"".join(added)
        was_sound = self._map[_MARK] != _WRITING
        self._map[_MARK] = _WRITING
        try:
            self._write(data)
        except OSError:
            if was_sound and os.fstat(self._file).st_size == size:
                self._map[_MARK] = _WRITTEN
            raise
        self._time = time
        self._note_head(Head(file, size + len(data), number, last))

    def _write(self, data: bytes) -> None:
        """Add bytes to the file, or leave it as it is. Raises OSError."""
        if os.write(self._file, data) != len(data):
            os.ftruncate(self._file, self._at.size)
            raise _no_room(self._at.file)
        self._is_unsynced = True

    def _note_head(self, head: Head) -> None:
        self._map[:_MARK] = head.printed()[:_MARK]
        self._map[_MARK] = _WRITTEN  # not before all the rest is there
        self._at = head

    # Files, under the lock

    def _follow_on(self, time: int) -> None:
        """Begin another file, if a line of this time needs one; its first line says which one it follows."""
        if time // DAY == self._day and self._at.size < self._max_file:
            return
        before = self._at.file
        name = file_name(file_number(before) + 1 if before else 1, time)
        self._map[_MARK] = _WRITING
        begin = body({"journal": FORMAT} | ({"follows": before} if before else {}))
        first = line(self._at.number + 1, self._at.hash, time, begin)
        if self._durable and self._file >= 0:
            os.fdatasync(self._file)
        self._use(self._make_file(name, first), time // DAY)
        self._time = time
        self._note_head(Head(name, len(first), self._at.number + 1, hash_of(first)))
        if self._durable:
            sync_folder(self._folder)

    def _make_file(self, name: str, first: bytes) -> int:
        """A new file, open for appending; it is never there without its first line, whenever a crash may come."""
        making = os.path.join(self._folder, "new")
        with suppress(FileNotFoundError):
            os.unlink(making)
        descriptor = _open(making, os.O_RDWR | os.O_APPEND | os.O_EXCL)
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

    def _open_file(self, name: str) -> bool:
        if name == self._at.file and self._file >= 0:
            return True
        try:
            descriptor = os.open(os.path.join(self._folder, name), os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self._use(descriptor, interval(file_day(name))[0] // DAY)
        return True

    # What others have written, and what was left by a crash, under the lock

    def _catch_up(self, was_begun: bool) -> None:
        """Be where the journal ends: other processes write it, too, and may have died while they did.

        `was_begun` says that somebody was about to write frames that wait.
        """
        seen = self._map[:]
        head = parse_head(seen)
        if (
            head is None
            or seen[_MARK] == _WRITING
            or not self._open_file(head.file)
            or os.fstat(self._file).st_size != head.size
        ):
            self._recover(head, was_begun)
        elif head != self._at:
            self._at = head
            self._time = self._time_at_end(head.size)

    def _recover(self, head: Head | None, was_begun: bool) -> None:
        """Go on after a crash: end a line that was torn, and note what is missing."""
        self._map[_MARK] = _WRITING
        self._at, self._day, self._time = _NOWHERE, -1, 0
        data = b""
        if names := file_names(self._git_dir):
            self._open_file(names[-1])
            data = contents(self._git_dir, names[-1])
            self._at = _end_of(names[-1], data)
            self._time = self._time_at_end(self._at.size)
            if self._at.size < len(data):
                self._end_torn(data, was_begun)
        if _lacks(self._at, head, data):
            self._note(head)

    def _end_torn(self, data: bytes, was_begun: bool) -> None:
        """Take away what a killed process wrote of a line that waits; else end it, so that it counts as one, whatever it holds."""
        if was_begun:
            os.ftruncate(self._file, self._at.size)
            return
        torn = data[self._at.size :] + b"\n"
        self._at = self._at._replace(size=len(data))
        self._write(b"\n")
        self._at = Head(self._at.file, len(data) + 1, self._at.number + 1, hash_of(torn))
        if parse(torn) is None:
            self._notes.append(body({"note": "torn", "bytes": len(torn) - 1}))

    def _note(self, head: Head | None) -> None:
        """That lines are missing up to `head`; or may be, where that is not known."""
        expected = {"file": head.file, "number": head.number, "hash": head.hash} if head else None
        loss = body({"note": "lost"} | ({"expected": expected} if expected else {}))
        if loss not in self._notes:
            self._notes.append(loss)

    def _time_at_end(self, size: int) -> int:
        """The time of the last line of the file, whose lines end at `size`; 0 where that can't be read."""
        for taken in (4096, 1024**2):
            start = max(0, size - taken)
            lines = last_lines(os.pread(self._file, size - start, start))
            if lines and (found := parse(lines[0])) is not None:
                return parse_instant(found["time"])
        return 0


_LINKS = 150
"""Bytes of a line before its body, about."""


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _write_whole(descriptor: int, data: bytes, path: str) -> None:
    if os.write(descriptor, data) != len(data):
        raise _no_room(path)


def _no_room(path: str) -> OSError:
    """What a write that came to its end too early means for a file on a disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


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
