"""Groups: which units share one durable write. docs/architecture.md, "Writing" """

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from gitstore import queue as queue_module
from gitstore.errors import Unavailable
from gitstore.queue import MAX_BYTES, MAX_UNITS, Pending, WriteQueue
from gitstore.transaction import Prepared
from gitstore.version import ANONYMOUS


def pending(size: int) -> Pending:
    return Pending(Prepared(0, (), (), "update", ANONYMOUS, None, "", size))


class Leader:
    """Stands for the store: notes the sizes of each group, once all units are waiting."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go = threading.Event()

    def __call__(self, take: Callable[[], list[Pending]]) -> list[Pending]:
        assert self.go.wait(30)
        group = take()
        self.groups.append([one.prepared.size for one in group])
        for one in group:
            one.finish()
        return []


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([0] * (MAX_UNITS + 1), [[0] * MAX_UNITS, [0]]),
        ([1, MAX_BYTES - 1, 1], [[1, MAX_BYTES - 1], [1]]),
        ([1, MAX_BYTES], [[1], [MAX_BYTES]]),
        ([MAX_BYTES + 1, 1, 2], [[MAX_BYTES + 1], [1, 2]]),
        ([1, MAX_BYTES + 1, 2], [[1], [MAX_BYTES + 1], [2]]),
    ],
    ids=["all", "128-units", "32-MiB", "too-much-together", "large-first", "large-between"],
)
def test_a_group_has_as_many_units_as_there_is_room_for(sizes, groups):
    """In the order in which they came; one that is larger than the room goes alone."""
    leader = Leader()
    queue = WriteQueue(leader, timeout=30)
    units = [pending(size) for size in sizes]
    queue.submit(units[:1])
    queue.submit(units[1:])
    leader.go.set()

    for unit in units:
        queue.wait(unit)
    queue.close()

    assert leader.groups == groups


class Clock:
    """Stands for the queue's: a group takes an hour, or no time at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
        self._now = 0.0
        self._hours = hours
        monkeypatch.setattr(queue_module, "time", self)
        monkeypatch.setattr(queue_module, "_LONGEST_WAIT", 3600.0)

    def monotonic(self) -> float:
        self._now += 3600.0 * self._hours
        return self._now


def begun(leader: Leader, count: int) -> WriteQueue:
    """A queue that has written one group of so many units."""
    leader.go.set()
    queue = WriteQueue(leader, timeout=30)
    units = [pending(1) for _ in range(count)]
    queue.submit(units)
    queue.wait(units[-1])
    return queue


def test_a_group_waits_for_as_many_as_the_last_one_had(monkeypatch):
    """Those who wrote mostly write again: together, they need one durable write."""
    Clock(monkeypatch, hours=1)
    leader = Leader()
    queue = begun(leader, 3)

    for size in (4, 5, 6):
        queue.submit([last := pending(size)])
    queue.wait(last)
    queue.close()

    assert leader.groups == [[1, 1, 1], [4, 5, 6]]


def test_a_group_waits_no_longer_than_the_last_one_took(monkeypatch):
    """Whoever writes alone, or is the only one left, hardly ever waits."""
    Clock(monkeypatch, hours=0)
    leader = Leader()
    queue = begun(leader, 2)

    queue.submit([last := pending(3)])
    queue.wait(last)
    queue.close()

    assert leader.groups == [[1, 1], [3]]


def test_closing_waits_for_nobody(monkeypatch):
    Clock(monkeypatch, hours=1)
    leader = Leader()
    queue = begun(leader, 2)
    queue.submit([pending(3)])

    queue.close()

    assert leader.groups == [[1, 1], [3]]


def test_closing_writes_what_waits_and_takes_nothing_more():
    leader = Leader()
    queue = WriteQueue(leader, timeout=30)
    unit = pending(1)
    queue.submit([unit])
    leader.go.set()

    queue.close()
    queue.close()

    assert unit.wait(0)
    with pytest.raises(Unavailable, match="closed"):
        queue.submit([pending(1)])


def test_a_queue_that_nobody_used_has_no_thread():
    """So a process may fork until its first write."""
    before = threading.active_count()
    queue = WriteQueue(Leader(), timeout=30)

    assert threading.active_count() == before
    queue.close()


def test_only_units_that_come_many_at_once_give_way():
    """Two servers' workers that are busy with single writes would else cut one another's groups short."""
    leader = Leader()
    queue = WriteQueue(leader, timeout=30)
    single, first, second = (pending(0) for _ in range(3))
    queue.submit([single])
    queue.submit([first, second])
    leader.go.set()
    queue.close()

    assert [one.gives_way for one in (single, first, second)] == [False, True, True]
