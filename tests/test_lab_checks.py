"""What clients of several nodes must not see is found in what they noted: each fault, made up, has its words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cluster_clients import Deed, Reign, async_faults, sync_faults

ADA = "Patient/ada"
ONE = Deed("node1", "write", ADA, 10, 20, "ok", "one", 1)
TWO = Deed("node2", "write", ADA, 50, 60, "ok", "two", 2)
SEEN = Deed("node2", "read", ADA, 70, 80, "ok", "two", 2)
RECORD = {ADA: ["one", "two"]}
REIGNS = [Reign("node1", 0, 0), Reign("node2", 30, 40)]
LOST = Deed("node1", "write", ADA, 35, 36, "ok", "lost", 2)
"""In async: acknowledged by a node that has been replaced."""


def test_what_fits_is_no_fault() -> None:
    """Writes of unknown outcome may be there or not, refused ones are not; a replica may be behind."""
    behind = Deed("node3", "read", ADA, 70, 80, "ok", "one", 1)
    gone = Deed("node2", "write", None, 70, 80, "unknown", "gone", None)
    created = Deed("node2", "write", None, 70, 80, "unknown", "created", None)
    refused = Deed("node2", "write", ADA, 70, 80, "fail", "refused", None, 1)
    deeds = [ONE, TWO, SEEN, behind, gone, created, refused]
    record = RECORD | {"Patient/new": ["created"]}

    assert sync_faults(deeds, record, REIGNS) == []
    assert async_faults([*deeds, LOST], record, {(ADA, 2): {"lost"}}) == []


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (replace(TWO, value="three", version=3), "the record lacks"),
        (replace(TWO, value="other"), "several contents"),
        (replace(SEEN, value="other"), "shown, and not on the record"),
        (replace(SEEN, node="node1", value="other"), "shown, and not on the record"),
        (replace(SEEN, invoked=90, completed=91, value="one", version=1), "a node goes back from version 2"),
        (replace(SEEN, invoked=65, completed=66, value="one", version=1), "can't have been made before"),
        (replace(SEEN, kind="write", outcome="fail", value="refused", if_match=2), "was refused"),
    ],
)
def test_in_sync_every_contradiction_is_found(deed: Deed, words: str) -> None:
    """An acknowledged write that is not there, a second content, something shown that is not there, a step back, a stale read at the primary."""
    [fault, *_] = [fault for fault in sync_faults([ONE, TWO, SEEN, deed], RECORD, REIGNS) if words in fault]

    assert ADA in fault


def test_who_was_primary_at_the_time_is_who_must_not_be_behind() -> None:
    """Not one that had been replaced, nor anybody while that was going on, or where it isn't known."""
    stale = replace(SEEN, invoked=65, completed=66, value="one", version=1)
    deeds = [ONE, TWO, stale]

    assert sync_faults(deeds, RECORD, REIGNS)
    for reigns in (
        [Reign("node1", 0, 0), Reign("node3", 30, 40)],
        [Reign("node1", 0, 0), Reign("node2", 30, 66)],
        [*REIGNS, Reign("node3", 66, 90)],
        [*REIGNS, Reign(None, 61, 62)],
    ):
        assert sync_faults(deeds, RECORD, reigns) == []


@pytest.mark.parametrize(
    ("deeds", "record", "diverged", "words"),
    [
        ([ONE, TWO, LOST], RECORD, {}, "neither on the record nor beside it"),
        ([ONE, TWO, LOST], RECORD, {(ADA, 3): {"lost"}}, "neither on the record nor beside it"),
        ([ONE, TWO], RECORD, {(ADA, 2): {"two"}}, "on the record and beside it: two"),
        ([ONE, TWO], {ADA: ["one", "two", "two"]}, {}, "on the record twice: two"),
        ([ONE], RECORD, {}, "nobody wrote two"),
        ([ONE, TWO], RECORD, {(ADA, 2): {"unheard"}}, "nobody wrote unheard"),
        ([ONE, replace(TWO, outcome="fail", version=None)], RECORD, {}, "refused, and yet there"),
        (
            [ONE, TWO, SEEN, replace(SEEN, invoked=90, completed=91, value="one", version=1)],
            RECORD,
            {},
            "goes back",
        ),
    ],
)
def test_in_async_every_contradiction_is_found(deeds, record, diverged, words) -> None:
    """What was acknowledged is in one place, once; nothing is anywhere that nobody wrote."""
    assert any(words in fault for fault in async_faults(deeds, record, diverged))
