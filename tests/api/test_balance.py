"""Connections are shared out among workers, and none waits for a worker that doesn't take it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.balance import Balance


def test_a_worker_alone_takes_every_connection():
    balance = Balance()
    balance.note(0, 7)
    assert balance.has_fewest(0, 7)


def test_a_worker_leaves_the_next_connection_to_one_that_has_fewer():
    balance = Balance()
    balance.note(0, 2)
    balance.note(1, 1)
    assert not balance.has_fewest(0, 2)
    assert balance.has_fewest(1, 1)


def test_with_equally_many_anybody_takes_it():
    balance = Balance()
    for number in range(3):
        balance.note(number, 4)
    assert all(balance.has_fewest(number, 4) for number in range(3))


def test_one_that_takes_no_connections_any_more_is_not_waited_for():
    balance = Balance()
    balance.note(0, 2)
    balance.note(1, 0)
    balance.leave(1)
    assert balance.has_fewest(0, 2)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=80))
def test_somebody_always_takes_it(loads):
    """Whatever each has: or a connection would wait for the end of everybody's courtesy."""
    balance = Balance()
    for number, load in enumerate(loads):
        balance.note(number, load)
    assert [balance.has_fewest(number, load) for number, load in enumerate(loads)] == [
        load == min(loads) for load in loads
    ]
