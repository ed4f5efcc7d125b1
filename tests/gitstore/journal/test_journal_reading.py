"""Reading the access journal: what was asked for, in order, or newest first by pages."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journals import HOUR, NOON, Clock, Open

from gitstore import TooCostly
from gitstore.journal import reading
from gitstore.journal.lines import Entry, Recorded
from gitstore.journal.reading import at, entries, newest


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
