"""Reading what is to be imported: files, folders and stdin, gzip'd or not, one document each or one a line.

What a file is, its content says and not its name.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any, TypeAlias, cast

from msgspec import Struct
from msgspec.structs import replace

from gitstore import Invalid, Issue, StoreError, TooLarge

STDIN = "-"
_SUFFIXES = (".json", ".ndjson", ".gz")
_GZIP = b"\x1f\x8b"
_SKIP = 1024**2


class Place(Struct, frozen=True):
    """Where something came from: a file, the line if it holds one document a line, the entry of a Bundle."""

    file: str
    line: int | None = None
    entry: int | None = None

    def at_entry(self, entry: int) -> Place:
        return replace(self, entry=entry)

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        return f"{self.file}{line}" + ("" if self.entry is None else f" Bundle.entry[{self.entry}]")


class Document(Struct, frozen=True):
    """The bytes of one JSON document. Of the `seed`, which no one can guess, the ids are made that its resources get."""

    place: Place
    data: bytes
    seed: str | None = None


class Refusal(Struct, frozen=True):
    """What can't be imported, and why."""

    place: Place
    issues: Sequence[Issue]

    @classmethod
    def of(cls, place: Place, error: StoreError) -> Refusal:
        return cls(place, error.issues)


Read: TypeAlias = Document | Refusal


class Inputs:
    """The documents of files, of the .json, .ndjson and .gz files in folders, and of stdin.

    `limit` is the most bytes that one document may have. `size` is the bytes of all files as they lie on disk,
    None with stdin; `position` is how many of them have been read.
    """

    def __init__(self, paths: Iterable[str], limit: int) -> None:
        self._files = [file for path in paths for file in _files(path)]
        self._limit = limit
        self._finished = 0
        self._open: IO[bytes] | None = None
        self.size = None if STDIN in self._files else sum(_size(file) for file in self._files)

    @property
    def position(self) -> int:
        return self._finished + (self._open.tell() if self._open else 0)

    def __iter__(self) -> Iterator[Read]:
        for file in self._files:
            name = "stdin" if file == STDIN else file
            try:
                with self._opened(file) as stream, _plain(stream) as plain:
                    yield from _documents(name, plain, self._limit)
            except (EOFError, zlib.error, OSError) as error:
                why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                yield Refusal(Place(name), [Issue("error", "exception", f"It can't be read: {why}.")])

    @contextmanager
    def _opened(self, file: str) -> Iterator[IO[bytes]]:
        if file == STDIN:
            yield sys.stdin.buffer
            return
        with open(file, "rb") as stream:
            self._open = stream
            try:
                yield stream
            finally:
                self._open = None
                self._finished += _size(file)


def _files(path: str) -> Iterator[str]:
    """The file itself, or those of a folder in the order of their names; hidden folders such as .git are left out."""
    if path == STDIN or not os.path.isdir(path):
        yield path
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(folder, name) for name in sorted(files) if name.endswith(_SUFFIXES))


def _size(file: str) -> int:
    try:
        return os.path.getsize(file)
    except OSError:
        return 0  # reading it says what is wrong


@contextmanager
def _plain(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """The stream, decompressed if it is gzip."""
    # Python's own streams of bytes are buffered or can be; IO[bytes] is only their common face.
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(Any, stream))
    if buffered.peek(2)[:2] != _GZIP:
        yield buffered
        return
    with gzip.GzipFile(fileobj=buffered) as unzipped:
        yield cast(IO[bytes], unzipped)


def _documents(name: str, stream: IO[bytes], limit: int) -> Iterator[Read]:
    """One document for each line, or one for the whole stream."""
    head = bytearray()
    lines = _lines(stream, limit, head)
    first, second = next(lines, None), next(lines, None)
    if first is None:
        yield Refusal.of(Place(name), Invalid("It is empty: expected a JSON document."))
    elif len(first[1]) > limit or (second is not None and _separate(first[1], second[1])):
        for number, line in chain([first], [second] if second else [], lines):
            head.clear()
            yield _document(Place(name, number), line, limit)
    else:
        yield _document(Place(name), bytes(head) + stream.read(limit + 1), limit)


def _document(place: Place, data: bytes, limit: int) -> Read:
    if len(data) > limit:
        return Refusal.of(place, TooLarge(f"It is longer than {limit:,} bytes, the limit of a document."))
    return Document(place, data)


def _lines(stream: IO[bytes], limit: int, head: bytearray) -> Iterator[tuple[int, bytes]]:
    """The lines that aren't blank, stripped, with their numbers; `head` collects all as they are, up
    to the limit and a little more.

    A line above the limit comes cut off, one byte too long, and the rest of it is passed over.
    """
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(head) <= limit:
            head += line
        if len(line) > limit and not line.endswith(b"\n"):
            yield number, line
            while line and not line.endswith(b"\n"):
                line = stream.readline(_SKIP)
        elif stripped := line.strip():
            yield number, stripped


def _separate(first: bytes, second: bytes) -> bool:
    """Whether two lines are documents of their own, by JSON's grammar.

    Within one document an object begins only after `[`, `,` or `:`, and after one ends only `,`, `]` or `}` can follow.
    """
    if second.startswith(b"{"):
        return not first.endswith((b"[", b",", b":"))
    return first.endswith(b"}") and not second.startswith((b",", b"]", b"}"))
