"""The access journal: its lines, its files, and what is found when they were tampered with. docs/audit-journal.md"""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journals import HOUR, NOON, READ, Clock, Prompt, files, folder, lines_of, read, requests, texts

from gitstore.journal.appending import Journal
from gitstore.journal.checking import check
from gitstore.journal.lines import Entry, Recorded, bodies, hash_of, line, parse_head, recorded
from gitstore.journal.reading import entries, head

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
    found = [(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in folder(git_dir).rglob("*")]
    assert set(found) == {(True, 0o700), (False, 0o600)}


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

    assert requests(git_dir) == [f"r-{n}" for n in range(12)]
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
    found = requests(git_dir)
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
    journal = Prompt.open(git_dir, clock, durable=False)
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
