"""The access journal: who looked. docs/audit-journal.md"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitstore import Locked, StorageFailed, StorageFull, StoreError, TooCostly
from gitstore.journal import appending, reading
from gitstore.journal.appending import Journal
from gitstore.journal.checking import check
from gitstore.journal.lines import Entry, Recorded, bodies, hash_of, line, parse_head, recorded
from gitstore.journal.reading import at, entries, head, newest

NOON = 1_795_348_800_000_000
"""2026-11-22T12:00:00Z"""
HOUR = 3_600_000_000
READ = Entry(
    "Ada Lovelace", "read", 200, "r-1", type="Patient", id="example", version="3", patients=("example",)
)


class Clock:
    """Time that a test sets; every look takes a millisecond."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        self.now += 1000
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Open = Callable[..., Journal]


@pytest.fixture
def git_dir(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def open_journal(git_dir: str, clock: Clock) -> Iterator[Open]:
    opened = []

    def open(**options: Any) -> Journal:
        opened.append(Journal.open(git_dir, clock, durable=False, **options))
        return opened[-1]

    yield open
    for each in opened:
        each.close()


def folder(git_dir: str) -> Path:
    return Path(git_dir, "git-fhir", "journal")


def files(git_dir: str) -> list[Path]:
    return sorted(folder(git_dir).glob("*.ndjson"))


def read(n: int, **others: Any) -> Entry:
    return Entry(
        "Ada Lovelace", "read", 200, f"r-{n}", type="Patient", id=f"p{n}", patients=(f"p{n}",), **others
    )


def numbers(found: Iterator[Recorded]) -> list[int]:
    return [each.number for each in found]


def texts(git_dir: str) -> list[str]:
    return [f"{finding.where}: {finding.text}" for finding in check(git_dir)]


# What is on a line

WORDS = st.text(max_size=30)
ENTRIES = st.builds(
    Entry,
    WORDS,
    st.sampled_from(["read", "search-type", "$everything"]),
    st.integers(100, 599),
    WORDS,
    agent=st.none() | WORDS,
    type=st.none() | st.just("Observation"),
    id=st.none() | WORDS,
    version=st.none() | WORDS,
    query=st.none() | WORDS,
    patients=st.lists(WORDS, max_size=4).map(tuple),
    more=st.booleans(),
    remote=st.none() | WORDS,
    purpose=st.none() | WORDS,
)


@given(ENTRIES, st.integers(0, 4_000_000_000_000_000))
def test_a_line_reads_as_it_was_written(entry, time):
    [body] = bodies(entry)

    assert recorded(line(7, "ab" * 32, time, body)) == Recorded(7, time, entry)


@given(st.lists(ENTRIES, min_size=1, max_size=5))
def test_a_line_is_one_line_of_json_without_nulls(found):
    """NDJSON, whatever clients send; what is not known is left out."""
    for entry in found:
        [body] = bodies(entry)
        text = line(1, "0" * 64, NOON, body)

        assert text.count(b"\n") == 1
        assert text.endswith(b"\n")
        assert None not in json.loads(text).values()


def test_a_lone_surrogate_and_a_text_without_end_are_noted_as_far_as_they_can_be(open_journal, git_dir):
    """A client must not be able to keep a line out, nor to fill the disk with one."""
    open_journal().record(Entry("\ud800", "search-type", 200, "r-1", query="x" * 100_000))

    [found] = entries(git_dir)
    assert found.entry.principal == "\\ud800"
    assert found.entry.query == "x" * 1999 + "…"


def test_many_patients_are_all_named_on_several_lines(open_journal, git_dir):
    ids = tuple(f"p{n}" for n in range(1234))
    open_journal().record(Entry("Ada", "search-type", 200, "r-1", patients=ids))

    found = list(entries(git_dir))

    assert [len(each.entry.patients) for each in found] == [500, 500, 234]
    assert sum((each.entry.patients for each in found), ()) == ids
    assert {each.entry.request_id for each in found} == {"r-1"}


def test_the_chain_is_what_the_page_says(open_journal, git_dir):
    """docs/audit-journal.md, "The chain", as somebody else would write it."""
    journal = open_journal()
    for n in range(3):
        journal.record(read(n))

    previous = "0" * 64
    for number, text in enumerate(files(git_dir)[0].read_bytes().splitlines(keepends=True), 1):
        found = json.loads(text)
        assert (found["number"], found["previous"]) == (number, previous)
        previous = sha256(text).hexdigest()
    assert (folder(git_dir) / "head").read_text().split()[-2:] == ["4", previous]


def test_only_the_owner_may_read_the_journal(open_journal, git_dir):
    open_journal().record(READ)

    assert stat.S_IMODE(folder(git_dir).stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder(git_dir).iterdir()} == {0o600}


# Files


def test_a_file_has_the_lines_of_a_day_and_the_next_says_what_it_follows(open_journal, git_dir, clock):
    journal = open_journal()
    journal.record(read(1))
    clock.now += 12 * HOUR
    journal.record(read(2))

    first, second = files(git_dir)
    begin = json.loads(second.read_bytes().splitlines()[0])
    assert [path.name for path in (first, second)] == [
        "00000001-2026-11-22.ndjson",
        "00000002-2026-11-23.ndjson",
    ]
    assert begin["follows"] == first.name
    assert begin["previous"] == sha256(first.read_bytes().splitlines(keepends=True)[-1]).hexdigest()
    assert list(check(git_dir)) == []


def test_a_file_that_is_full_is_followed_by_another(open_journal, git_dir):
    journal = open_journal(max_file=1000)
    for n in range(20):
        journal.record(read(n))

    assert len(files(git_dir)) > 3
    assert max(path.stat().st_size for path in files(git_dir)) < 1500
    assert len(list(entries(git_dir))) == 20
    assert list(check(git_dir)) == []


def test_two_journals_of_one_repository_make_one_chain_over_all_their_files(open_journal, git_dir, clock):
    """Each worker has its own: a file that one begins is the one that the other goes on in."""
    one, two = open_journal(max_file=900), open_journal(max_file=900)
    for n in range(12):
        (one if n % 3 else two).record(read(n))
        clock.now += 5 * HOUR

    assert [each.entry.request_id for each in entries(git_dir)] == [f"r-{n}" for n in range(12)]
    assert list(check(git_dir)) == []


WORKER = """
import sys, threading
from gitstore.journal.appending import Journal
from gitstore.journal.lines import Entry
journal = Journal.open(sys.argv[1], durable=False, max_file=20_000)
def run(thread):
    for n in range(60):
        journal.record(Entry(sys.argv[2], "read", 200, f"{sys.argv[2]}-{thread}-{n}"))
threads = [threading.Thread(target=run, args=(thread,)) for thread in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
journal.close()
"""


def test_threads_of_several_processes_make_one_chain_in_which_nothing_is_missing(git_dir):
    processes = [subprocess.Popen([sys.executable, "-c", WORKER, git_dir, name]) for name in ("a", "b", "c")]

    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert list(check(git_dir)) == []
    found = [each.entry.request_id for each in entries(git_dir)]
    assert len(found) == len(set(found)) == 3 * 4 * 60
    assert len(files(git_dir)) > 5
    # What one thread noted first comes first.
    ones = [int(id.rpartition("-")[2]) for id in found if id.startswith("a-0-")]
    assert ones == sorted(ones)


# Tampering


def written(git_dir: str, journal: Journal, clock: Clock) -> list[tuple[Path, int]]:
    """A journal of three files, and where each of its lines is."""
    for n in range(9):
        journal.record(read(n))
        clock.now += 7 * HOUR
    return [(path, n) for path in files(git_dir) for n in range(len(path.read_bytes().splitlines()))]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def edit_byte(found: list[bytes], data: st.DataObject, n: int) -> None:
    place = data.draw(st.integers(0, len(found[n]) - 2))
    other = data.draw(st.sampled_from(b'x0 {"'))
    if found[n][place] == other:
        other = ord("y")
    found[n] = found[n][:place] + bytes([other]) + found[n][place + 1 :]


def remove(found: list[bytes], data: st.DataObject, n: int) -> None:
    del found[n]


def repeat(found: list[bytes], data: st.DataObject, n: int) -> None:
    found.insert(n, found[n])


def swap(found: list[bytes], data: st.DataObject, n: int) -> None:
    other = data.draw(st.integers(0, len(found) - 1).filter(lambda other: other != n))
    found[n], found[other] = found[other], found[n]


def cut(found: list[bytes], data: st.DataObject, n: int) -> None:
    found[n] = found[n][: data.draw(st.integers(0, len(found[n]) - 2))]
    del found[n + 1 :]


def forge(found: list[bytes], data: st.DataObject, n: int) -> None:
    """A line that was edited by somebody who knows the format, with all hashes after it in its file made to fit."""
    changed = json.loads(found[n]) | {"principal": "Nobody"}
    found[n] = json.dumps(changed, separators=(",", ":")).encode() + b"\n"
    for m in range(n + 1, len(found)):
        fits = json.loads(found[m]) | {"previous": hash_of(found[m - 1])}
        found[m] = json.dumps(fits, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(
    "tamper", [edit_byte, remove, repeat, swap, cut, forge], ids=lambda each: each.__name__
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_line_that_is_changed_is_found(tamper, data, tmp_path_factory):
    """Edited, removed, doubled, moved or cut off, in any file, the last line too."""
    git_dir, clock = str(tmp_path_factory.mktemp("record")), Clock()
    journal = Journal.open(git_dir, clock, durable=False)
    places = written(git_dir, journal, clock)
    journal.close()
    assert list(check(git_dir)) == []
    path, n = data.draw(st.sampled_from(places))
    found = lines_of(path)
    tamper(found, data, n)
    path.write_bytes(b"".join(found))

    assert list(check(git_dir)) != []


def test_any_file_that_is_taken_away_is_found(open_journal, git_dir, clock):
    written(git_dir, open_journal(), clock)
    paths = files(git_dir)
    assert len(paths) == 3

    for path in paths:
        kept = path.read_bytes()
        path.unlink()
        assert texts(git_dir) != []
        path.write_bytes(kept)
    assert texts(git_dir) == []
    for path in paths:
        path.unlink()
    assert texts(git_dir) == [
        "head: line 12 of 00000003-2026-11-24.ndjson was the last that was written, and the journal ends with 0"
    ]


def test_a_finding_says_where_and_what(open_journal, git_dir):
    journal = open_journal()
    for n in range(4):
        journal.record(read(n))
    [path] = files(git_dir)
    path.write_bytes(path.read_bytes().replace(b'"r-1"', b'"r-9"'))

    assert texts(git_dir) == [
        "00000001-2026-11-22.ndjson:4: it doesn't follow the line before it: that was edited, or lines were removed, added or moved"
    ]


def test_a_record_without_journal_is_sound(git_dir):
    assert list(check(git_dir)) == []
    assert list(entries(git_dir)) == []
    assert head(git_dir) is None


def test_the_head_says_where_the_journal_ends(open_journal, git_dir):
    """It can be kept elsewhere: only so is it seen that somebody cut off lines and made `head` fit."""
    journal = open_journal()
    assert head(git_dir) is None
    journal.record(READ)

    found = head(git_dir)

    assert found is not None
    assert (found.number, found.hash) == (2, hash_of(lines_of(files(git_dir)[0])[-1]))
    assert parse_head(found.printed()) == found


# Crashes and full disks


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

    assert [each.entry.request_id for each in entries(git_dir)] == ["r-1", "r-2", "r-3"]
    assert json.loads(lines_of(path)[4])["note"] == "torn"
    [found] = check(git_dir)
    assert found.where == "00000001-2026-11-22.ndjson:4"
    first.record(read(4))
    assert len(list(check(git_dir))) == 1
    assert [each.entry.request_id for each in entries(git_dir)] == ["r-1", "r-2", "r-3", "r-4"]


@pytest.mark.parametrize("torn", [b"\0" * 300, b"x", b"\xff\xfe{"])
def test_whatever_a_power_cut_leaves_at_the_end_is_one_torn_line(open_journal, git_dir, torn):
    open_journal().record(read(1))
    with files(git_dir)[0].open("ab") as file:
        file.write(torn)

    open_journal().record(read(2))

    assert [each.entry.request_id for each in entries(git_dir)] == ["r-1", "r-2"]
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
    assert [each.entry.request_id for each in entries(git_dir)] == ["r-1", "r-2", "r-3"]


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

    assert [each.entry.request_id for each in entries(git_dir)] == ["r-2"]
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
    assert [each.entry.request_id for each in entries(git_dir)] == ["r-1", "r-2"]


class FullDisk:
    """write(2) on a disk that has room for so many more bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 10**9
        really = appending._C.write

        def write(descriptor: int, data: bytes, size: int) -> int:
            taken = min(size, self.room)
            self.room -= taken
            if taken:
                return int(really(descriptor, data, taken))
            ctypes.set_errno(errno.ENOSPC)
            return -1

        monkeypatch.setattr(appending._C, "write", write)


@pytest.mark.parametrize("room", [0, 1, 100])
def test_what_a_full_disk_has_no_room_for_is_refused_and_nothing_is_left_of_it(
    open_journal, git_dir, monkeypatch, room
):
    """The caller must not answer the request: 507. Afterwards the journal goes on as if nothing had been."""
    disk = FullDisk(monkeypatch)
    journal = open_journal()
    journal.record(read(1))
    disk.room = room

    with pytest.raises(StorageFull):
        journal.record(read(2))

    assert texts(git_dir) == []
    disk.room = 10**9
    journal.record(read(3))
    assert [each.entry.request_id for each in entries(git_dir)] == ["r-1", "r-3"]
    assert texts(git_dir) == []


LIMITED = """
import resource, sys
from gitstore import Unavailable
from gitstore.journal.appending import Journal
from gitstore.journal.lines import Entry
journal = Journal.open(sys.argv[1], durable=False)
journal.record(Entry("Ada", "read", 200, "r-1"))
resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
try:
    journal.record(Entry("Ada", "read", 200, "r-2"))
except Unavailable:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.record(Entry("Ada", "read", 200, "r-3"))
"""


def test_a_write_that_the_system_itself_cuts_short_is_taken_back(git_dir):
    """A real one: the limit on the size of a file lets a part of the line through."""
    run = subprocess.run([sys.executable, "-c", LIMITED, git_dir], capture_output=True, text=True, check=True)

    assert run.stdout == "refused\n"
    assert [each.entry.request_id for each in entries(git_dir)] == ["r-1", "r-3"]
    assert texts(git_dir) == []


def test_what_is_cut_off_under_a_running_server_is_noted_within_a_second(open_journal, git_dir):
    journal = open_journal()
    journal.record(read(1))
    kept = files(git_dir)[0].stat().st_size
    journal.record(read(2))
    os.truncate(files(git_dir)[0], kept)

    journal._sync_what_is_new()
    journal.record(read(3))

    assert [each.entry.request_id for each in entries(git_dir)] == ["r-1", "r-3"]
    assert json.loads(lines_of(files(git_dir)[0])[2])["note"] == "lost"


def test_a_journal_that_was_moved_away_takes_no_more_lines(open_journal, git_dir, tmp_path):
    """It would go on where nobody reads: the worker notices within a second and then refuses loudly."""
    journal = open_journal()
    journal.record(read(1))
    folder(git_dir).rename(tmp_path / "elsewhere")

    journal._sync_what_is_new()

    with pytest.raises(StorageFailed):
        journal.record(read(2))


def test_nobody_waits_for_ever_for_a_process_that_is_stuck(open_journal, git_dir):
    """The request is refused (503), and the journal goes on when the other lets go."""
    journal = open_journal(timeout=0.02)
    journal.record(read(1))
    other = os.open(folder(git_dir) / "head", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)

    with pytest.raises(Locked):
        journal.record(read(2))

    os.close(other)
    journal.record(read(3))
    assert [each.entry.request_id for each in entries(git_dir)] == ["r-1", "r-3"]


def test_a_closed_journal_takes_no_more_lines(open_journal):
    journal = open_journal()
    journal.close()

    with pytest.raises(StorageFailed):
        journal.record(READ)


# Threads that meet


class Crowd:
    """Threads that record an entry each while another process has the flock, in the order in which they were begun.

    The first one waits for the flock, the others for the first.
    """

    def __init__(self, journal: Journal, git_dir: str) -> None:
        self.journal = journal
        self.flock = os.open(folder(git_dir) / "head", os.O_RDONLY)
        fcntl.flock(self.flock, fcntl.LOCK_EX)
        self.failed: dict[int, StoreError] = {}
        self.threads: list[threading.Thread] = []

    def join(self, *requests: int) -> None:
        for n in requests:
            thread = threading.Thread(target=self._record, args=(n,))
            self.threads.append(thread)
            thread.start()
            behind = len(self.threads) - 1
            until(lambda behind=behind: self.journal._turns.waiting == behind and self._is_led())

    def _is_led(self) -> bool:
        leads = self.journal._turns.leads_at_once(False)
        if leads:
            self.journal._turns.pass_on()
        return not leads

    def _record(self, n: int) -> None:
        try:
            self.journal.record(read(n))
        except StoreError as error:
            self.failed[n] = error

    def let_through(self) -> None:
        os.close(self.flock)
        self.end()

    def end(self) -> None:
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        os.sched_yield()


def test_those_who_wait_are_written_in_one_piece_in_the_order_in_which_they_came(
    open_journal, git_dir, monkeypatch
):
    """One write for all of them, and each line follows the one before."""
    journal = open_journal()
    journal.record(read(0))
    sizes = []
    really = appending._C.write
    monkeypatch.setattr(
        appending._C,
        "write",
        lambda file, data, size: sizes.append(data.count(b"\n")) or really(file, data, size),
    )
    crowd = Crowd(journal, git_dir)
    crowd.join(*range(1, 9))

    assert len(list(entries(git_dir))) == 1
    crowd.let_through()

    assert crowd.failed == {}
    assert sizes == [8]
    assert [each.entry.request_id for each in entries(git_dir)] == [f"r-{n}" for n in range(9)]
    assert texts(git_dir) == []


@pytest.mark.parametrize("room", [0, 1, 1000])
def test_where_there_is_no_room_for_all_of_them_all_are_refused_and_nothing_is_left(
    open_journal, git_dir, monkeypatch, room
):
    """Each hears of it, with an error of its own: nobody gives out what is not noted."""
    disk = FullDisk(monkeypatch)
    journal = open_journal()
    journal.record(read(0))
    crowd = Crowd(journal, git_dir)
    crowd.join(1, 2, 3, 4, 5)
    disk.room = room
    crowd.let_through()

    assert sorted(crowd.failed) == [1, 2, 3, 4, 5]
    assert {type(error) for error in crowd.failed.values()} == {StorageFull}
    assert len({id(error) for error in crowd.failed.values()}) == 5
    assert [each.entry.request_id for each in entries(git_dir)] == ["r-0"]
    assert texts(git_dir) == []
    disk.room = 10**9
    journal.record(read(6))
    assert [each.entry.request_id for each in entries(git_dir)] == ["r-0", "r-6"]
    assert texts(git_dir) == []


def test_those_who_wait_are_written_before_the_journal_closes(open_journal, git_dir):
    journal = open_journal()
    crowd = Crowd(journal, git_dir)
    crowd.join(1, 2, 3)
    closing = threading.Thread(target=journal.close)
    closing.start()
    crowd.let_through()
    closing.join(30)

    assert crowd.failed == {}
    assert [each.entry.request_id for each in entries(git_dir)] == ["r-1", "r-2", "r-3"]


def test_those_who_come_while_it_closes_are_refused(open_journal, git_dir):
    journal = open_journal()
    crowd = Crowd(journal, git_dir)
    os.close(crowd.flock)
    with journal._turns.alone():
        crowd.threads.append(threading.current_thread())
        crowd.join(1, 2, 3)
        crowd.threads.pop(0)
        head, journal._head = journal._head, -1
    crowd.end()
    journal._head = head

    assert {n: str(error) for n, error in crowd.failed.items()} == dict.fromkeys(
        (1, 2, 3), "The access journal is closed."
    )
    assert list(entries(git_dir)) == []


def test_when_the_one_they_wait_for_gives_up_the_next_takes_its_turn(open_journal, git_dir):
    """Each waits for as long as it may, and none for ever."""
    journal = open_journal(timeout=0.02)
    journal.record(read(0))
    other = os.open(folder(git_dir) / "head", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    failed = []

    def record(n: int) -> None:
        with pytest.raises(Locked):
            journal.record(read(n))
        failed.append(n)

    threads = [threading.Thread(target=record, args=(n,)) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(failed) == [1, 2, 3, 4, 5, 6]
    os.close(other)
    journal.record(read(7))
    assert [each.entry.request_id for each in entries(git_dir)] == ["r-0", "r-7"]


def test_somebody_is_told_how_many_lines_were_added(open_journal):
    """Once a second and at the end, for the metrics: each line once."""
    journal = open_journal()
    told: list[int] = []
    journal.count_with(told.append)
    for n in range(3):
        journal.record(read(n))
    journal._sync_what_is_new()
    journal.record(read(3))
    journal.close()

    assert sum(told) == 4


KILLED = """
import os, signal, sys
from gitstore.journal import appending
from gitstore.journal.lines import Entry
journal = appending.Journal.open(sys.argv[1], durable=False)
for n in range(5):
    journal.record(Entry("Ada", "read", 200, f"r-{n}"))
killed = lambda _: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before":
    journal._write = killed
if sys.argv[2] in ("within", "begun"):
    journal._note_head = killed
if sys.argv[2] == "begun":
    journal._max_file = 1
if sys.argv[2] != "after":
    journal.record(Entry("Ada", "read", 200, "r-5"))
killed(None)
"""


@pytest.mark.parametrize(("when", "noted"), [("after", 5), ("before", 5), ("within", 6), ("begun", 5)])
def test_a_killed_worker_takes_no_line_with_it_and_leaves_the_lock_to_others(
    open_journal, git_dir, when, noted
):
    subprocess.run([sys.executable, "-c", KILLED, git_dir, when], check=False)

    open_journal(timeout=5).record(read(9))

    assert [each.entry.request_id for each in entries(git_dir)] == [*(f"r-{n}" for n in range(noted)), "r-9"]
    assert texts(git_dir) == []


# Reading


@pytest.fixture
def kept(open_journal: Open, git_dir: str, clock: Clock) -> list[Recorded]:
    """Accesses of three days: Ada and Grace by turns, each to another of four patients."""
    journal = open_journal(max_file=1500)
    for n in range(30):
        name = "Grace Hopper" if n % 2 else "Ada Lovelace"
        journal.record(
            Entry(name, "read", 200, f"r-{n}", type="Patient", id=f"p{n % 4}", patients=(f"p{n % 4}",))
        )
        clock.now += 2 * HOUR
    found = list(entries(git_dir))
    assert len(found) == 30
    return found


PERIODS = st.tuples(st.none() | st.integers(-5, 65), st.none() | st.integers(-5, 65))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    bounds=PERIODS,
    patient=st.none() | st.sampled_from(["p0", "p3", "nobody", "p"]),
    principal=st.none() | st.sampled_from(["Ada Lovelace", "Ada"]),
)
def test_what_is_asked_for_is_what_is_found(kept, git_dir, bounds, patient, principal):
    """As a look at every single entry would find it."""
    since, until = (None if hours is None else NOON + hours * HOUR for hours in bounds)
    expected = [
        each
        for each in kept
        if (since is None or each.time >= since)
        and (until is None or each.time < until)
        and (patient is None or patient in each.entry.patients)
        and (principal is None or each.entry.principal == principal)
    ]

    assert list(entries(git_dir, since=since, until=until, patient=patient, principal=principal)) == expected
    backward = newest(
        git_dir,
        lambda each: (
            (patient is None or patient in each.entry.patients)
            and (principal is None or each.entry.principal == principal)
        ),
        since=since,
        until=until,
        patient=patient,
    )
    assert list(backward) == expected[::-1]


def test_pages_newest_first_go_on_where_they_ended(kept, git_dir):
    got: list[Recorded] = []
    before = None
    while page := [
        each for each, _ in zip(newest(git_dir, lambda _: True, before=before), range(7), strict=False)
    ]:
        got += page
        before = page[-1].number

    assert got == kept[::-1]


def test_an_entry_is_found_by_its_number(kept, git_dir):
    for each in kept:
        assert at(git_dir, each.number) == each
    assert at(git_dir, 1) is None  # the first line of a file
    assert at(git_dir, 0) is None
    assert at(git_dir, 10**9) is None


def test_a_page_has_only_so_much_to_look_through(kept, git_dir, monkeypatch):
    monkeypatch.setattr(reading, "LIMIT", 3000)

    with pytest.raises(TooCostly):
        list(newest(git_dir, lambda _: False))
