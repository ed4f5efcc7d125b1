"""What the tests of the access journal share: its time, its accesses, and looks at what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gitstore.journal.appending import Journal
from gitstore.journal.checking import check
from gitstore.journal.lines import Entry
from gitstore.journal.reading import entries

NOON = 1_795_348_800_000_000
"""2026-11-22T12:00:00Z"""
HOUR = 3_600_000_000
DAY = 24 * HOUR
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


Open = Callable[..., Journal]


class Prompt(Journal):
    """A journal whose lines don't wait: they are in the chain when `record` returns."""

    def record(self, *entries: Entry) -> None:
        super().record(*entries)
        self.drain()


def folder(git_dir: str) -> Path:
    return Path(git_dir, "git-fhir", "journal")


def files(git_dir: str) -> list[Path]:
    return sorted(folder(git_dir).glob("*.ndjson"))


def read(n: int, **others: Any) -> Entry:
    return Entry(
        "Ada Lovelace", "read", 200, f"r-{n}", type="Patient", id=f"p{n}", patients=(f"p{n}",), **others
    )


def requests(git_dir: str) -> list[str]:
    """The request ids of all accesses, in order."""
    return [each.entry.request_id for each in entries(git_dir)]


def texts(git_dir: str) -> list[str]:
    return [f"{finding.where}: {finding.text}" for finding in check(git_dir)]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)
