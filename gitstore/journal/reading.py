"""Reading the journal: streamed in order, or newest first for pages of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from gitstore.errors import TooCostly
from gitstore.fhir.dates import format_instant
from gitstore.journal.lines import (
    FOLDER,
    Head,
    Recorded,
    contents,
    file_day,
    file_names,
    hash_of,
    last_lines,
    parse,
    parse_head,
    recorded,
    unreadable,
    whole_lines,
)
from gitstore.journal.settling import settle

LIMIT = 512 * 1024**2
"""Bytes of the journal that one page may look through."""

Wanted: TypeAlias = Callable[[Recorded], bool]


def entries(
    git_dir: str,
    *,
    since: int | None = None,
    until: int | None = None,
    patient: str | None = None,
    principal: str | None = None,
) -> Iterator[Recorded]:
    """What the journal of a repository has, oldest first: of instants [since, until), of a patient's id, of a name.

    Lines that can't be read are left out; `check` finds them. Raises StorageFailed, Locked.
    """
    for name, tail in _tails(git_dir).items():
        if tail or _may_have(name, since, until):
            for line in _mentioning(whole_lines(contents(git_dir, name) + tail), patient):
                found = recorded(line)
                if (
                    found is not None
                    and _is_within(found, since, until)
                    and _is_about(found, patient, principal)
                ):
                    yield found


def newest(
    git_dir: str,
    wanted: Wanted,
    *,
    since: int | None = None,
    until: int | None = None,
    patient: str | None = None,
    before: int | None = None,
) -> Iterator[Recorded]:
    """What is wanted, newest first: of instants [since, until), and of lines whose number is less than `before`.

    Where `patient` is an id, only what is about that one. Raises TooCostly after LIMIT bytes, StorageFailed, Locked.
    """
    seen = 0
    for name, tail in reversed(_tails(git_dir).items()):
        if not (tail or _may_have(name, since, until)) or (
            before is not None and _first_number(git_dir, name) >= before
        ):
            continue
        data = contents(git_dir, name) + tail
        seen += len(data)
        if seen > LIMIT:
            raise TooCostly(
                "This looks through too much of the access journal; narrow it to a time, with `date`."
            )
        if patient is not None and patient.encode() not in data:
            continue
        for line in _mentioning(last_lines(data), patient):
            found = recorded(line)
            if (
                found is not None
                and (before is None or found.number < before)
                and _is_within(found, since, until)
                and _is_about(found, patient, None)
                and wanted(found)
            ):
                yield found


def at(git_dir: str, number: int) -> Recorded | None:
    """The entry on the line of this number; None where there is none. Raises what `entries` does."""
    line = _line_at(git_dir, number)
    return None if line is None else recorded(line)


def hash_at(git_dir: str, number: int) -> str | None:
    """The hash of the line of this number; None where there is none. Raises what `entries` does."""
    line = _line_at(git_dir, number)
    return None if line is None else hash_of(line)


def _line_at(git_dir: str, number: int) -> bytes | None:
    tails = _tails(git_dir)
    names = [name for name in tails if _first_number(git_dir, name) <= number]
    lines = whole_lines(contents(git_dir, names[-1]) + tails[names[-1]]) if names else ()
    mark = b'{"number":%d,' % number
    return next((line for line in lines if line.startswith(mark)), None)


def head(git_dir: str) -> Head | None:
    """Where the journal ends; None where there is none. Raises StorageFailed, Locked."""
    settle(git_dir)
    try:
        with open(os.path.join(git_dir, FOLDER, "head"), "rb") as file:
            return parse_head(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(error) from error


def _tails(git_dir: str) -> dict[str, bytes]:
    """The files in order, and what is to be read after each: lines that could not be added to the last."""
    waiting = settle(git_dir)
    found = dict.fromkeys(file_names(git_dir), b"")
    if found:
        found[next(reversed(found))] = waiting
    return found


def _first_number(git_dir: str, name: str) -> int:
    """The number of a file's first line; 0 where it can't be read, so that the file is looked through."""
    try:
        with open(os.path.join(git_dir, FOLDER, name), "rb") as file:
            found = parse(file.readline())
    except OSError as error:
        raise unreadable(error) from error
    return 0 if found is None else int(found["number"])


def _mentioning(lines: Iterable[bytes], patient: str | None) -> Iterable[bytes]:
    """The lines that have a text in them: this is far cheaper than to parse them."""
    mark = (patient or "").encode()
    return (line for line in lines if mark in line) if mark else lines


def _may_have(name: str, since: int | None, until: int | None) -> bool:
    """Whether a file may have lines of the time: all of a file's lines are of its day."""
    day = file_day(name)
    return (since is None or day >= format_instant(since)[:10]) and (
        until is None or day <= format_instant(until)[:10]
    )


def _is_within(found: Recorded, since: int | None, until: int | None) -> bool:
    return (since is None or found.time >= since) and (until is None or found.time < until)


def _is_about(found: Recorded, patient: str | None, principal: str | None) -> bool:
    entry = found.entry
    return (patient is None or patient in entry.patients) and (
        principal is None or principal == entry.principal
    )
