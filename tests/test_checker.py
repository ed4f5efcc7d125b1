"""The checker itself: which histories it accepts, which it refuses, and that it is exact."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import checker
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Operation = checker.Operation
faults = checker.faults


def write(value: str, at: tuple[int, int], version: int | None, if_match: int | None = None) -> Any:
    return Operation("write", "Patient/a", *at, "ok", value, version, if_match)


def refused(value: str, at: tuple[int, int], if_match: int) -> Any:
    return Operation("write", "Patient/a", *at, "fail", value, None, if_match)


def unknown(value: str, invoked: int, if_match: int | None = None) -> Any:
    return Operation("write", "Patient/a", invoked, invoked, "unknown", value, None, if_match)


def read(version: int, value: str | None, at: tuple[int, int]) -> Any:
    return Operation("read", "Patient/a", *at, "ok", value, version)


X, Y = write("x", (0, 10), 1), write("y", (5, 20), 2)


@pytest.mark.parametrize(
    ("history", "values"),
    [
        ([], ""),
        ([X], "x"),
        # nothing there yet, also while the first write is under way
        ([read(0, None, (0, 3)), X], "x"),
        ([X, read(0, None, (9, 12))], "x"),
        # two at once, in either order
        ([X, Y], "xy"),
        ([write("x", (0, 10), 2), write("y", (5, 20), 1)], "yx"),
        # a read beside a write sees the old or the new version
        ([X, write("y", (20, 30), 2), read(1, "x", (25, 26))], "xy"),
        ([X, write("y", (20, 30), 2), read(2, "y", (25, 26))], "xy"),
        # a client that isn't told its version
        ([write("x", (0, 10), None), read(1, "x", (11, 12))], "x"),
        # an unknown outcome: it happened, it happened late, it did not happen
        ([X, unknown("u", 11), read(2, "u", (12, 13))], "xu"),
        ([X, unknown("u", 11), write("y", (50, 60), 2), read(3, "u", (70, 71))], "xyu"),
        ([X, unknown("u", 11)], "x"),
        # If-Match
        ([X, write("y", (20, 30), 2, if_match=1)], "xy"),
        ([X, write("y", (20, 30), 2), refused("z", (25, 26), 1)], "xy"),
        ([X, write("y", (20, 30), 2), refused("z", (25, 26), 2)], "xy"),
        ([X, refused("z", (11, 12), 7)], "x"),
        ([refused("z", (1, 2), 1), X], "x"),
    ],
)
def test_histories_that_one_order_explains(history: list[Any], values: str) -> None:
    assert faults(history, {"Patient/a": values}) == []


@pytest.mark.parametrize(
    ("history", "values", "fault"),
    [
        # lost, and given out twice
        ([X, write("y", (20, 30), 2)], "x", "the record lacks"),
        ([X, write("y", (20, 30), 1)], "x", "the record lacks"),
        ([X, write("y", (20, 30), None)], "x", "the record lacks"),
        ([X], "xx", "a second time"),
        ([X], "x?", "nobody wrote version 2"),
        ([X, read(2, "y", (20, 30))], "x", "the record lacks"),
        ([X, read(3, None, (20, 30))], "x", "the record lacks"),
        # real time: a write that was over before another began comes first
        ([write("x", (20, 30), 1), write("y", (0, 10), 2)], "xy", "version 2 was seen or confirmed at 10"),
        # stale reads, and one that looks into the future
        ([X, write("y", (20, 30), 2), read(1, "x", (40, 50))], "xy", "version 2"),
        ([X, read(0, None, (20, 30))], "x", "version 1"),
        ([X, write("y", (20, 30), 2), read(2, "y", (11, 12))], "xy", "version 2"),
        ([X, Y, read(2, "y", (6, 7)), read(1, "x", (8, 9))], "xy", "version 2"),
        ([X, unknown("u", 50), read(2, "u", (30, 40))], "xu", "version 2"),
        # If-Match that should not have succeeded, and one that should have
        ([X, Y, write("z", (30, 40), 3, if_match=1)], "xyz", "does not follow version 1"),
        ([X, unknown("u", 11, if_match=0)], "xu", "does not follow version 0"),
        ([X, refused("z", (11, 12), 1)], "x", "version 1"),
        ([X, write("y", (20, 30), 2), refused("z", (31, 40), 2)], "xy", "version 2"),
        ([X, refused("z", (11, 12), 1)], "xz", "version 2 was refused"),
    ],
)
def test_histories_that_no_order_explains(history: list[Any], values: str, fault: str) -> None:
    found = faults(history, {"Patient/a": values})

    assert found
    assert fault in found[0]


def test_each_resource_is_looked_at_by_itself() -> None:
    """The order of different resources is free; a fault names its resource."""
    other = replace(X, resource="Patient/b", value="b")

    assert faults([X, other], {"Patient/a": "x", "Patient/b": "b"}) == []
    assert faults([X, other], {"Patient/a": "x"}) == [f"Patient/b: the record lacks {other}"]
    assert faults([X], {"Patient/a": "x", "Patient/b": "b"}) == ["Patient/b: nobody wrote version 1, `b`"]


# Histories made by a real register


@st.composite
def sequential(draw: st.DrawFn) -> tuple[list[Any], list[str]]:
    """What clients of a real register see, who ask one after the other, and what it holds in the end."""
    now, values, history = 0, [], []
    for number in range(draw(st.integers(1, 12))):
        at = (now + 1, now + 1 + draw(st.integers(0, 3)))
        now = at[1]
        kind = draw(st.sampled_from(["read", "write", "told nothing", "if-match", "unknown"]))
        value, version = f"v{number}", len(values)
        if kind == "read":
            history.append(read(version, values[-1] if values else None, at))
            continue
        expected = draw(st.integers(1, version + 1)) if kind == "if-match" else None
        if expected is not None and expected != version:
            history.append(refused(value, at, expected))
            continue
        if kind == "unknown":
            history.append(unknown(value, at[0]))
            if draw(st.booleans()):
                continue
        else:
            history.append(write(value, at, None if kind == "told nothing" else version + 1, expected))
        values.append(value)
    return history, values


@given(sequential())
def test_what_a_real_register_says_is_accepted(made: tuple[list[Any], list[str]]) -> None:
    history, values = made

    assert faults(history, {"Patient/a": values}) == []


@given(sequential(), st.data())
def test_a_change_that_matters_is_refused(made: tuple[list[Any], list[str]], data: st.DataObject) -> None:
    """Each mutation makes a lie of an operation that says something definite; the clients ask one after the other."""
    history, values = made
    # An unknown write could explain much by happening late.
    certain = [one for one in history if one.outcome == "ok" and one.version]
    if not certain:
        return
    victim = data.draw(st.sampled_from(certain))
    place = history.index(victim)
    lies = [replace(victim, version=victim.version + 1), replace(victim, value="never written")]
    if victim.kind == "write":
        lies.append(replace(victim, if_match=victim.version))
        lies.append(replace(victim, outcome="fail", if_match=victim.version - 1))
        later = [one for one in history[place + 1 :] if one.kind == "write" and one.outcome == "ok"]
        if later:
            end = later[-1].completed + 1
            lies.append(replace(victim, invoked=end, completed=end))
    elif victim.version == len(values) > 0 and all(one.outcome != "unknown" for one in history):
        lies.append(replace(victim, invoked=-2, completed=-1))
    history[place] = data.draw(st.sampled_from(lies))

    assert faults(history, {"Patient/a": values}) != []


# Exactness: against trying every order


def by_trying(history: list[Any], values: str) -> bool:
    """Whether some order of the operations, kept to real time, explains them: the definition, taken at its word."""
    happened = [one for one in history if one.outcome != "unknown" or one.value in values]
    if {one.value for one in history if one.kind == "write" and one.outcome == "fail"} & set(values):
        return False
    return any(explains(order, values) for order in itertools.permutations(happened))


def explains(order: tuple[Any, ...], values: str) -> bool:
    state = ""
    for place, one in enumerate(order):
        end = float("inf") if one.outcome == "unknown" else one.completed
        if any(before.invoked > end for before in order[:place]):
            return False
        version = len(state)
        if one.kind == "read":
            if one.version != version or one.value != (state[-1] if state else None):
                return False
        elif one.outcome == "fail":
            if one.if_match == version:
                return False
        else:
            if one.if_match not in (None, version) or one.version not in (None, version + 1):
                return False
            state += one.value
    return state == values


times = st.tuples(st.integers(0, 6), st.integers(0, 3)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@st.composite
def any_history(draw: st.DrawFn) -> tuple[list[Any], str]:
    """Up to five operations at any times, whether or not they make sense together."""
    values = "xyz"[: draw(st.integers(1, 3))]
    history: list[Any] = []
    for version, value in enumerate(values, 1):
        at, if_match = draw(times), draw(st.sampled_from([None, None, version - 1]))
        known = draw(st.sampled_from([version, None]))
        history.append(
            unknown(value, at[0], if_match) if draw(st.booleans()) else write(value, at, known, if_match)
        )
    for number in range(draw(st.integers(0, 5 - len(values)))):
        version = draw(st.integers(0, len(values)))
        at = draw(times)
        if draw(st.booleans()):
            history.append(read(version, values[version - 1] if version else None, at))
        else:
            history.append(refused(f"r{number}", at, version + 1))
    return history, values


@settings(max_examples=200)
@given(any_history())
def test_it_is_exact(made: tuple[list[Any], str]) -> None:
    """It accepts a history if and only if one of all orders explains it."""
    history, values = made

    assert (faults(history, {"Patient/a": values}) == []) == by_trying(history, values)
