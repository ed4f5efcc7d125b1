"""What waits in rings to be chained: each line that was acknowledged comes to the chain once, whoever is killed and when."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journals import DAY, NOON, Clock, files, folder, read, requests, texts

from gitstore.journal import chain as chain_module
from gitstore.journal import rings as rings_module
from gitstore.journal.appending import Journal
from gitstore.journal.lines import Entry
from gitstore.journal.reading import entries
from gitstore.journal.rings import SPACE, Ring
from gitstore.journal.settling import settle

TRACED = frozenset({chain_module.__file__, rings_module.__file__})


def at_each_line(act: Callable[[int], None]) -> None:
    """Have this called before each line of the chain's and the rings' code, with its number."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            count += 1
            act(count)
        return trace

    sys.settrace(trace)


def death(line: int) -> Callable[[int], None]:
    """This process is killed when it comes to this line."""

    def die(at: int) -> None:
        if at == line:
            os.kill(os.getpid(), signal.SIGKILL)

    return die


def in_a_child(act: Callable[[], None]) -> bool:
    """Whether a child process came to the end of this."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == 0


def test_a_killed_worker_takes_no_line_with_it(open_journal, git_dir, clock):
    """Nothing of them was in the chain yet: whoever comes next puts it there."""

    def act() -> None:
        journal = Journal.open(git_dir, clock, durable=False)
        for n in range(5):
            journal.record(read(n))
        assert files(git_dir) == []
        os.kill(os.getpid(), signal.SIGKILL)

    in_a_child(act)
    assert len(list((folder(git_dir) / "rings").iterdir())) == 1
    open_journal().record(read(5))

    assert requests(git_dir) == [f"r-{n}" for n in range(6)]
    assert texts(git_dir) == []
    assert len(list((folder(git_dir) / "rings").iterdir())) == 1  # of the living one


def drain_of_two(git_dir: str, at_line: Callable[[int], None]) -> None:
    """Lines of two processes, of two days and three files, in one drain."""
    clock = Clock()
    one, two = (Journal.open(git_dir, clock, durable=False, max_file=700) for _ in range(2))
    one.record(read(0))
    one.drain()
    for n in range(1, 5):
        (two if n % 2 else one).record(read(n))
    clock.now += DAY
    one.record(read(5), read(6))
    at_each_line(at_line)
    one.drain()
    sys.settrace(None)


def steps_of_the_drain(git_dir: str, noted: Path) -> list[int]:
    """The lines of code before which its files are not as they were before the last one: all that a death there leaves."""
    states: list[dict[str, bytes]] = []
    lines: list[int] = []

    def note(line: int) -> None:
        state = {str(path): path.read_bytes() for path in folder(git_dir).rglob("*") if path.is_file()}
        if [state] != states[-1:]:
            states.append(state)
            lines.append(line)

    def act() -> None:
        drain_of_two(git_dir, note)
        noted.write_text(" ".join(map(str, lines)))

    assert in_a_child(act)
    return [int(line) for line in noted.read_text().split()]


def test_a_drain_that_is_killed_at_any_step_loses_nothing_and_doubles_nothing(tmp_path):
    """Nor does it leave a torn line, or a head that doesn't fit."""
    lines = steps_of_the_drain(str(tmp_path / "whole"), tmp_path / "lines")
    for line in lines:
        git_dir = str(tmp_path / str(line))
        assert not in_a_child(partial(drain_of_two, git_dir, death(line))), line

        assert requests(git_dir) == [f"r-{n}" for n in range(7)], line
        assert texts(git_dir) == [], line
    assert len(lines) > 10


@pytest.mark.parametrize("cut", [1, 200, 400, 700])
def test_a_batch_of_which_a_killed_process_wrote_a_part_is_gone_on_with(git_dir, clock, monkeypatch, cut):
    """The kernel may end a write(2) of several pages early when the process is killed."""
    really = os.write

    def act() -> None:
        journal = Journal.open(git_dir, clock, durable=False)
        journal.record(read(0))
        journal.drain()
        for n in range(1, 5):
            journal.record(read(n))

        def write(descriptor: int, data: bytes) -> int:
            really(descriptor, data[:cut])
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        monkeypatch.setattr(os, "write", write)
        journal.drain()

    assert not in_a_child(act)
    assert requests(git_dir) == [f"r-{n}" for n in range(5)]
    assert texts(git_dir) == []


def test_a_process_that_is_killed_within_record_leaves_all_of_it_or_nothing(tmp_path):
    """It was never answered: both are right, half of it is not."""
    found = set()
    for line in range(1, 1000):
        git_dir = str(tmp_path / str(line))

        def act(git_dir: str = git_dir, line: int = line) -> None:
            journal = Journal.open(git_dir, Clock(), durable=False)
            journal.record(read(0))
            at_each_line(death(line))
            journal.record(read(1), read(2))
            sys.settrace(None)

        ended = in_a_child(act)
        found.add(tuple(requests(git_dir)))
        assert texts(git_dir) == []
        if ended:
            break
    assert found == {("r-0",), ("r-0", "r-1", "r-2")}


# The ring itself


@pytest.fixture
def ring(tmp_path: Path) -> Any:
    with closing(Ring.make(str(tmp_path), durable=False)) as made:
        yield made


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(st.integers(0, SPACE // 3), min_size=1, max_size=3), max_size=8), st.data())
def test_what_is_put_into_a_ring_comes_out_of_it_in_order(ring, sizes, data):
    """Round and round; what has no room is refused whole."""
    ring.drain(ring.frames()[1])
    waiting: list[bytes] = []
    for number, each in enumerate(sizes):
        bodies = [bytes([65 + number]) * size for size in each]
        if ring.put(NOON + number, bodies):
            waiting += bodies
        else:
            assert sum(24 + len(body) + 7 for body in [*waiting, *bodies]) > SPACE
        frames, end = ring.frames()
        assert [frame.body for frame in frames] == waiting
        assert ring.is_whole(end)
        if data.draw(st.booleans()):
            ring.drain(end)
            waiting = []


def test_a_frame_that_is_damaged_is_not_taken_for_a_line(open_journal, git_dir, clock):
    """As a power cut may leave one. That lines may be missing is noted."""
    first = open_journal(waits=True)
    for n in range(3):
        first.record(read(n))
    first._ring.close()
    first._ring = None
    [path] = (folder(git_dir) / "rings").iterdir()
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"request":"r-1"', b'"request":"r-x"'))

    assert requests(git_dir) == ["r-0"]
    [text] = texts(git_dir)
    assert "lines may be missing" in text
    assert not path.exists()


def test_a_copy_of_a_ring_adds_only_what_its_chain_lacks(open_journal, git_dir, tmp_path):
    """A copy that was taken from a running server: the ring first, the chain later."""
    journal = open_journal(waits=True)
    journal.record(read(0), read(1))
    [path] = (folder(git_dir) / "rings").iterdir()
    copied = path.read_bytes()
    journal.drain()
    (folder(git_dir) / "rings" / "0123456789abcdef").write_bytes(copied)
    journal.record(read(2))

    assert requests(git_dir) == ["r-0", "r-1", "r-2"]
    assert texts(git_dir) == []


@pytest.mark.parametrize("left", [b"", b"\0" * 5, b"\0" * (128 + SPACE)])
def test_a_ring_that_was_never_finished_is_removed(open_journal, git_dir, left):
    journal = open_journal()
    path = folder(git_dir) / "rings" / "0123456789abcdef"
    path.write_bytes(left)

    journal.record(read(0))

    assert not path.exists()
    assert requests(git_dir) == ["r-0"]


def test_lines_for_which_the_ring_has_no_room_are_added_at_once(open_journal, git_dir):
    """Even a single request may have more of them than a ring can hold."""
    journal = open_journal(waits=True)
    ids = tuple(f"{n:064}" for n in range(9000))
    journal.record(read(0))
    journal.record(Entry("Ada", "search-type", 200, "r-1", patients=ids))
    journal.record(read(2))

    found = list(entries(git_dir))
    assert sum((each.entry.patients for each in found[1:-1]), ()) == ids
    assert (found[0].entry.request_id, found[-1].entry.request_id) == ("r-0", "r-2")
    assert texts(git_dir) == []


def test_who_may_not_write_sees_what_waits_all_the_same(open_journal, git_dir, monkeypatch):
    """As on a file system that is mounted to be read: the lines are numbered as they will be."""
    journal = open_journal(waits=True)
    journal.record(read(0))
    journal.drain()
    journal.record(read(1))
    really = os.open

    def forbidding(path: Any, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(30, "Read-only file system", path)
        return really(path, flags, *mode)

    with monkeypatch.context() as mounted:
        mounted.setattr(os, "open", forbidding)
        seen = list(entries(git_dir))
        assert settle(git_dir) != b""
    assert [each.entry.request_id for each in seen] == ["r-0", "r-1"]
    assert list(entries(git_dir)) == seen


# Time


def test_the_lines_of_several_processes_are_in_the_order_of_time(open_journal, git_dir):
    one, two = (open_journal(waits=True) for _ in range(2))
    for n in range(9):
        (one if n % 3 else two).record(read(n))
    one.drain()

    assert requests(git_dir) == [f"r-{n}" for n in range(9)]


def test_what_comes_late_gets_the_time_of_the_line_before_it(open_journal, git_dir, clock):
    """A process that was held up for a moment must not make time go back; a clock that was set back does."""
    journal = open_journal()
    for n, seconds in enumerate([0, -2, -4, -600, 5]):
        clock.now = NOON + seconds * 1_000_000
        journal.record(read(n))

    times = [each.time - NOON for each in entries(git_dir)]
    assert times[:3] == [times[0]] * 3
    assert times[3:] == [-600_000_000 + 1000, 5_000_000 + 1000]
    assert texts(git_dir) == []


# Workers


class Worker:
    """A process that has the journal of a repository and does as it is told."""

    def __init__(self, git_dir: str) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._commands)
                os.close(self._answers)
                self._work(git_dir, commands, answers)
            finally:
                os._exit(0)
        os.close(commands)
        os.close(answers)

    def _work(self, git_dir: str, commands: int, answers: int) -> None:
        clock = Clock()
        journal = Journal.open(git_dir, clock, durable=False, max_file=1000)
        while True:
            what, number = os.read(commands, 100).decode().split()
            if what == "end":
                break
            if what == "record":
                clock.now = NOON + 1_000_000 * int(number)
                journal.record(read(int(number)))
            else:
                at_each_line(death(int(number)))
                journal.drain()
                sys.settrace(None)
            os.write(answers, b".")
        journal.close()

    def does(self, what: str, number: int) -> bool:
        """False where it died over it."""
        os.write(self._commands, f"{what} {number}".encode())
        return os.read(self._answers, 1) == b"."

    def end(self, *, killed: bool) -> None:
        if killed:
            os.kill(self.pid, signal.SIGKILL)
        else:
            os.write(self._commands, b"end 0")
        os.close(self._commands)
        os.close(self._answers)
        os.waitpid(self.pid, 0)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["record", "record", "record", "drain", "kill", "end", "read"])
    ),
    max_size=25,
)


@settings(max_examples=15, deadline=None)
@given(STEPS, st.data())
def test_each_line_that_was_acknowledged_is_in_the_chain_once_and_in_the_order_of_time(
    tmp_path_factory, steps, data
):
    """Whatever three workers do, and whenever one is killed and replaced, also while it drains."""
    git_dir = str(tmp_path_factory.mktemp("record"))
    workers = [Worker(git_dir) for _ in range(3)]
    recorded = []
    for number, (which, what) in enumerate(steps):
        worker = workers[which]
        if what == "record":
            assert worker.does("record", number)
            recorded.append(f"r-{number}")
        elif what == "read":
            assert requests(git_dir) == recorded
        elif what != "drain" or not worker.does("drain", data.draw(st.integers(1, 400))):
            worker.end(killed=what != "end")
            workers[which] = Worker(git_dir)
    for worker in workers:
        worker.end(killed=False)

    found = list(entries(git_dir))
    assert [each.entry.request_id for each in found] == recorded
    assert [each.time for each in found] == sorted(each.time for each in found)
    assert texts(git_dir) == []
