"""What benchmarks.replication makes of when commits were durable at one node and shown by another."""

from __future__ import annotations

import math
import threading
from itertools import pairwise

import pytest

from benchmarks import commits
from benchmarks.replication import lags

DURABLE = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}


def test_a_commit_is_there_as_soon_as_a_later_one_is_shown() -> None:
    found = lags(["a", "b", "c", "d"], DURABLE, [("a", 2.0), ("c", 3.5), ("d", 4.25)])
    assert found == [1.5, 0.5, 0.25]


def test_what_was_there_before_the_first_look_or_never_shown_says_nothing() -> None:
    assert lags(["a", "b", "c", "d"], DURABLE, [("b", 9.0), ("c", 9.5)]) == [6.5]


def test_a_commit_shown_twice_counts_once_and_one_that_goes_back_not_at_all() -> None:
    shown = [("a", 1.0), ("c", 3.5), ("c", 8.0), ("b", 8.5), ("d", 9.0)]
    assert lags(["a", "b", "c", "d"], DURABLE, shown) == [1.5, 0.5, 5.0]


def test_a_replica_that_shows_a_commit_before_the_primary_has_heard_of_it_is_not_ahead_of_time() -> None:
    assert lags(["a", "b"], DURABLE, [("a", 1.0), ("b", 1.75)]) == [0]


def test_writers_that_commit_at_once_keep_the_rate_too() -> None:
    crew = commits.crew([str] * 8, 100.0, threading.Event(), at_once=4)
    assert [writer._first for writer in crew] == pytest.approx([0] * 4 + [0.04] * 4)
    assert {writer._pace for writer in crew} == {0.08}


@pytest.mark.parametrize("rate", [3.0, 500.0])
def test_the_writers_together_keep_the_rate_one_after_the_other(rate: float) -> None:
    crew = commits.crew([str] * 8, rate, threading.Event())
    due = sorted(writer._first + turn * writer._pace for writer in crew for turn in range(4))
    assert all(math.isclose(later - earlier, 1 / rate, rel_tol=1e-6) for earlier, later in pairwise(due))
