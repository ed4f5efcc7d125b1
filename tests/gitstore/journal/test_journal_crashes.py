"""The access journal after a crash, on a full disk, and beside a process that is stuck. docs/audit-journal.md"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time

import pytest
from journals import READ, files, folder, lines_of, read, requests, texts

from gitstore import Journal, JournalEntry, Locked, StorageFailed, StorageFull
from gitstore.journal.checking import check
from gitstore.journal.reading import head, newest

PATIENCE = 60.0


def test_a_line_that_was_torn_is_closed_and_noted_by_the_next(open_journal, git_dir):
    """The rest of the journal stays readable, and `verify` shows where it happened."""
    first = open_journal()
    first.record(read(1))
    first.record(read(2))
    [path] = files(git_dir)
    with path.open("ab") as file:
        file.write(b'{"number":4,"previous":"ab')

    assert texts(git_dir) == ["00000001-2026-11-22.ndjson:4: the line is torn"]
    open_journal().record(read(3))

    assert requests(git_dir) == ["r-1", "r-2", "r-3"]
    assert json.loads(lines_of(path)[4])["note"] == "torn"
    [found] = check(git_dir)
    assert found.where == "00000001-2026-11-22.ndjson:4"
    first.record(read(4))
    assert len(list(check(git_dir))) == 1
    assert requests(git_dir) == ["r-1", "r-2", "r-3", "r-4"]


@pytest.mark.parametrize("torn", [b"\0" * 300, b"x", b"\xff\xfe{"])
def test_whatever_a_power_cut_leaves_at_the_end_is_one_torn_line(open_journal, git_dir, torn):
    open_journal().record(read(1))
    with files(git_dir)[0].open("ab") as file:
        file.write(torn)

    open_journal().record(read(2))

    assert requests(git_dir) == ["r-1", "r-2"]
    assert len(texts(git_dir)) == 1


def test_a_whole_line_of_a_process_that_died_before_it_noted_the_head_counts(open_journal, git_dir):
    journal = open_journal()
    journal.record(read(1))
    kept = (folder(git_dir) / "head").read_bytes()
    journal.record(read(2))
    (folder(git_dir) / "head").write_bytes(kept)

    assert texts(git_dir) == []
    open_journal().record(read(3))

    assert texts(git_dir) == []
    assert requests(git_dir) == ["r-1", "r-2", "r-3"]


def test_lines_that_a_power_cut_took_are_noted_as_lost(open_journal, git_dir):
    """The head may be on the disk when the last lines are not: what is lost must not be forgotten, too."""
    journal = open_journal()
    journal.record(read(1))
    kept = files(git_dir)[0].stat().st_size
    journal.record(read(2))
    lost = head(git_dir)
    assert lost is not None
    os.truncate(files(git_dir)[0], kept)

    assert len(texts(git_dir)) == 1
    open_journal().record(read(3))

    note = json.loads(lines_of(files(git_dir)[0])[2])
    assert (note["note"], note["expected"]["number"], note["expected"]["hash"]) == ("lost", 3, lost.hash)
    assert [text.partition(": ")[2][:28] for text in texts(git_dir)] == ["lines before it are missing,"]


def test_a_journal_whose_files_are_all_gone_says_so(open_journal, git_dir):
    open_journal().record(read(1))
    for path in files(git_dir):
        path.unlink()

    open_journal().record(read(2))

    assert requests(git_dir) == ["r-2"]
    assert len(texts(git_dir)) == 1


def test_a_head_that_is_gone_is_found_and_then_noted(open_journal, git_dir):
    journal = open_journal()
    journal.record(read(1))
    journal.close()
    (folder(git_dir) / "head").unlink()

    assert texts(git_dir) == ["head: it is missing or damaged, so lines may be missing at the end"]
    open_journal().record(read(2))
    [text] = texts(git_dir)
    assert "nobody knew where the journal had ended" in text
    assert requests(git_dir) == ["r-1", "r-2"]


class FullDisk:
    """write(2) on a disk that has room for so many more bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 10**9
        really = os.write

        def write(descriptor: int, data: bytes) -> int:
            taken = min(len(data), self.room)
            self.room -= taken
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return really(descriptor, data[:taken])

        monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("room", [0, 1, 100])
def test_from_when_it_is_known_that_the_disk_is_full_nothing_is_recorded(
    open_journal, git_dir, monkeypatch, room
):
    """The caller must not answer the request: 507. What was recorded before has its place already, and readers see it."""
    disk = FullDisk(monkeypatch)
    journal = open_journal(waits=True)
    journal.record(read(1))
    journal.drain()
    disk.room = room
    journal.record(read(2))

    with pytest.raises(StorageFull):
        journal.drain()
    with pytest.raises(StorageFull):
        journal.record(read(3))

    assert requests(git_dir) == ["r-1", "r-2"]
    assert [each.number for each in newest(git_dir, lambda _: True)] == [3, 2]
    assert texts(git_dir) == []
    disk.room = 10**9
    journal.record(read(4))
    assert requests(git_dir) == ["r-1", "r-2", "r-4"]
    assert texts(git_dir) == []


def test_a_worker_that_starts_on_a_full_disk_refuses_until_there_is_room(open_journal, git_dir, monkeypatch):
    """It must not die over it: a server that only refuses to read can still say so."""
    disk = FullDisk(monkeypatch)
    dead = open_journal(waits=True)
    dead.record(read(1))
    dead._ring.close()
    dead._ring = None
    disk.room = 0

    def no_room(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", no_room)
        journal = open_journal(waits=True)
        with pytest.raises(StorageFull):
            journal.record(read(2))
        disk.room = 10**9
        journal.record(read(3))  # there is no room for a ring, and some in the file
    assert requests(git_dir) == ["r-1", "r-3"]
    journal.record(read(4))
    assert journal._ring is not None
    assert requests(git_dir) == ["r-1", "r-3", "r-4"]


LIMITED = """
import resource, sys
from gitstore import Unavailable
from gitstore.journal.appending import Journal
from gitstore.journal.lines import Entry
journal = Journal.open(sys.argv[1], durable=False)
journal.record(Entry("Ada", "read", 200, "r-1"))
journal.drain()
resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
journal.record(Entry("Ada", "read", 200, "r-2"))
try:
    journal.drain()
except Unavailable:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.record(Entry("Ada", "read", 200, "r-3"))
"""


def test_a_write_that_the_system_itself_cuts_short_is_taken_back(git_dir):
    """A real one: the limit on the size of a file lets a part of the line through."""
    run = subprocess.run([sys.executable, "-c", LIMITED, git_dir], capture_output=True, text=True, check=True)

    assert run.stdout == "refused\n"
    assert requests(git_dir) == ["r-1", "r-2", "r-3"]
    assert texts(git_dir) == []


def test_what_is_cut_off_under_a_running_server_is_noted(open_journal, git_dir):
    journal = open_journal()
    journal.record(read(1))
    kept = files(git_dir)[0].stat().st_size
    journal.record(read(2))
    os.truncate(files(git_dir)[0], kept)

    journal.record(read(3))

    assert requests(git_dir) == ["r-1", "r-3"]
    assert json.loads(lines_of(files(git_dir)[0])[2])["note"] == "lost"


def test_a_journal_that_was_moved_away_takes_no_more_lines(open_journal, git_dir, tmp_path):
    """It would go on where nobody reads: the worker notices when it drains and then refuses loudly."""
    journal = open_journal(waits=True)
    journal.record(read(1))
    folder(git_dir).rename(tmp_path / "elsewhere")

    with pytest.raises(StorageFailed):
        journal.drain()
    with pytest.raises(StorageFailed):
        journal.record(read(2))


def test_what_the_disk_did_not_keep_ends_it(open_journal, git_dir, monkeypatch):
    """What was said to be noted may not be: nothing more is, until the worker is started anew."""
    journal = open_journal()

    def broken() -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal._chain, "sync", broken)
    journal._sync()
    monkeypatch.undo()

    with pytest.raises(StorageFailed, match="can't be kept any more"):
        journal.record(read(1))


def accepted(journal: Journal, entry: JournalEntry) -> bool:
    """Whether it is not refused any more: that the other has let go shows when the thread that waits for it looks again."""
    try:
        journal.record(entry)
    except Locked:
        return False
    return True


def test_nobody_waits_for_ever_for_a_process_that_is_stuck(open_journal, git_dir):
    """As long as the ring has room nobody waits at all; then the request is refused (503) until the other lets go."""
    journal = open_journal(waits=True, timeout=0.02)
    other = os.open(folder(git_dir) / "head", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    many = [read(n) for n in range(2500)]
    journal.record(*many)

    with pytest.raises(Locked):
        journal.record(*many)

    os.close(other)
    end = time.monotonic() + PATIENCE
    while not accepted(journal, read(2500)):
        assert time.monotonic() < end
    assert requests(git_dir) == [f"r-{n}" for n in range(2501)]
    assert texts(git_dir) == []


def test_a_closed_journal_takes_no_more_lines(open_journal):
    journal = open_journal()
    journal.close()

    with pytest.raises(StorageFailed):
        journal.record(READ)


def test_somebody_is_told_how_many_lines_were_added(open_journal):
    """Once a second and at the end, for the metrics: each line once."""
    journal = open_journal(waits=True)
    told: list[int] = []
    journal.count_with(told.append)
    for n in range(3):
        journal.record(read(n))
    journal._sync()
    journal.record(read(3))
    journal.close()

    assert sum(told) == 4
