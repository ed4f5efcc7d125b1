"""Checking the journal against itself: whether a line was edited, removed, added or moved since it was written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gitstore.errors import StoreError
from gitstore.journal.lines import (
    FOLDER,
    FORMAT,
    HEAD_SIZE,
    NOTHING,
    Head,
    contents,
    file_day,
    file_names,
    hash_of,
    parse,
    parse_head,
    whole_lines,
)
from gitstore.journal.settling import settle
from gitstore.verify import Finding

_KIND = "journal"


@dataclass(slots=True)
class _State:
    """What the lines so far come to. `unread` is a line that can't be read, until the next says why."""

    number: int = 0
    hash: str = NOTHING
    file: str | None = None
    unread: str | None = None
    end: tuple[str, str] | None = None
    """File and hash of the line where `head` says that the journal ends, once it has come."""


def check(git_dir: str) -> Iterator[Finding]:
    """Everything by which the journal of a repository contradicts itself; nothing for a sound one, or for none.

    What was cut off at the end is found by the file `head`. Who can write both can cut off both: only a head that was
    kept elsewhere shows that.
    """
    try:
        settle(git_dir)
        yield from _check(git_dir)
    except (StoreError, OSError) as error:
        yield Finding(_KIND, FOLDER, str(error))


def _check(git_dir: str) -> Iterator[Finding]:
    end, sizes = _settled(git_dir)
    if end is None and sizes:
        yield Finding(_KIND, "head", "it is missing or damaged, so lines may be missing at the end")
    state = _State()
    for name, size in sizes.items():
        data = contents(git_dir, name)[:size]
        yield from _file(state, name, data, end)
        state.file = name
    if state.unread is not None:
        yield _torn(state.unread)
    if end is not None:
        yield from _end(state, end)


def _settled(git_dir: str) -> tuple[Head | None, dict[str, int]]:
    """The head, and the files with their sizes, at a moment when nobody is writing."""
    try:
        descriptor = os.open(os.path.join(git_dir, FOLDER, "head"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, _sizes(git_dir)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return parse_head(os.pread(descriptor, HEAD_SIZE, 0)), _sizes(git_dir)
    finally:
        os.close(descriptor)


def _sizes(git_dir: str) -> dict[str, int]:
    return {name: os.stat(os.path.join(git_dir, FOLDER, name)).st_size for name in file_names(git_dir)}


def _file(state: _State, name: str, data: bytes, end: Head | None) -> Iterator[Finding]:
    place = 0
    for line in whole_lines(data):
        place += 1
        where = f"{name}:{place}"
        found = parse(line)
        if found is None:
            if state.unread is not None:
                yield _torn(state.unread)
            state.unread = where
            state.number += 1
        else:
            yield from _line(state, where, found, name if place == 1 else None)
            state.number = found["number"]
        state.hash = hash_of(line)
        if end is not None and state.number == end.number:
            state.end = (name, state.hash)
    if not data.endswith(b"\n"):
        yield Finding(_KIND, f"{name}:{place + 1}", "the line is torn" if data else "the file is empty")


def _line(state: _State, where: str, found: dict[str, Any], begins: str | None) -> Iterator[Finding]:
    """One line after those before it; `begins` is the name of a file whose first it is."""
    if state.unread is not None:
        yield _torn(state.unread)
        state.unread = None
    if begins is not None:
        yield from _first(state, where, found, begins)
    elif "journal" in found:
        yield Finding(_KIND, where, "the first line of a file stands within one")
    if found["previous"] != state.hash and not (begins and found.get("follows") != state.file):
        text = "it doesn't follow the line before it: that was edited, or lines were removed, added or moved"
        yield Finding(_KIND, where, text)
    elif found["number"] != state.number + 1 and found["previous"] == state.hash:
        yield Finding(_KIND, where, f"its number is {found['number']}, and {state.number + 1} was expected")
    if not found["time"].startswith(file_day(where)):
        yield Finding(_KIND, where, "its time is of another day than its file")
    if found.get("note") == "lost":
        yield Finding(_KIND, where, _loss(found))


def _first(state: _State, where: str, found: dict[str, Any], name: str) -> Iterator[Finding]:
    follows = found.get("follows")
    if found.get("journal") != FORMAT:
        yield Finding(_KIND, where, f"the file doesn't begin as format {FORMAT} has it")
    elif follows != state.file:
        missing = (
            f"`{follows}`, which it follows, is missing" if follows else "it says that nothing is before it"
        )
        yield Finding(_KIND, where, missing if follows != name else "it follows itself")


def _torn(where: str) -> Finding:
    return Finding(_KIND, where, "the line can't be read: it was torn by a crash or a full disk, or edited")


def _loss(found: dict[str, Any]) -> str:
    expected = found.get("expected")
    if not isinstance(expected, dict):
        return "when it was written nobody knew where the journal had ended: lines may be missing before it"
    return f"lines before it are missing, up to number {expected.get('number')}, which had the hash {expected.get('hash')}"


def _end(state: _State, end: Head) -> Iterator[Finding]:
    if state.number < end.number or end.file > (state.file or ""):
        text = f"line {end.number} of {end.file} was the last that was written, and the journal ends with {state.number}"
        yield Finding(_KIND, "head", text)
    elif state.end != (end.file, end.hash):
        text = f"line {end.number} in {end.file} isn't what was written: its hash was {end.hash}"
        yield Finding(_KIND, "head", text)
