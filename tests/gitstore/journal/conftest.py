"""A journal in a folder of its own, at a time that the test sets, and without a thread that writes at moments of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journals import Clock, Open, Prompt

from gitstore.journal import appending
from gitstore.journal.appending import Journal


@pytest.fixture(autouse=True)
def nothing_is_drained_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "DRAIN_EVERY", 3600.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def git_dir(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def open_journal(git_dir: str, clock: Clock) -> Iterator[Open]:
    """Lines are in the chain at once, unless with `waits`."""
    opened = []

    def open(*, waits: bool = False, **options: Any) -> Journal:
        kind = Journal if waits else Prompt
        opened.append(kind.open(git_dir, clock, durable=False, **options))
        return opened[-1]

    yield open
    for each in opened:
        each.close()
