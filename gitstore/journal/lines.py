"""The lines of the journal, and the files that they are in: how they read, and how they are chained.

docs/audit-journal.md defines both, well enough for a second implementation.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from gitstore.errors import Invalid, StorageFailed
from gitstore.fhir.dates import SECOND, format_instant, parse_instant
from gitstore.git import layout

FORMAT = 1
"""Of the lines; stands in the first line of each file."""

NOTHING = "0" * 64
"""The `previous` of the very first line."""

FOLDER = os.path.join(layout.LOCAL, "journal")
RINGS = os.path.join(FOLDER, "rings")
HEAD_SIZE = 256
"""Bytes of the file `head`."""

DAY = 86_400_000_000
"""Microseconds."""

_PATIENTS = 500
"""Patients on one line; a request that concerns more has more lines, alike but for these."""

_LONGEST = 2000
"""Characters of a text on a line: what clients send must not fill the disk."""

_FILE = re.compile(r"[0-9]{8}-[0-9]{4}-[0-9]{2}-[0-9]{2}\.ndjson", re.ASCII)
_HEAD = re.compile(
    rb"([0-9]{8}-[0-9]{4}-[0-9]{2}-[0-9]{2}\.ndjson) ([0-9]+) ([0-9]+) ([0-9a-f]{64})\n *\+?", re.ASCII
)


class Entry(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"patients": "patient", "request_id": "request"},
):
    """One request: who asked for what, and how it was answered; its members are those of a line.

    `principal` is a name, `agent` the issuer, subject and client behind it; `interaction` FHIR's code (`read`,
    `search-type`, `$everything`), `status` that of HTTP. `patients` are ids of the Patients whose data was given out,
    and `more` says that there were others. `remote` is the client's address, `purpose` what the access was for.
    """

    principal: str
    interaction: str
    status: int
    request_id: str
    agent: str | None = None
    type: str | None = None
    id: str | None = None
    version: str | None = None
    query: str | None = None
    patients: tuple[str, ...] = ()
    more: bool = False
    remote: str | None = None
    purpose: str | None = None


class Recorded(Struct, frozen=True):
    """An entry as it is in the journal: the number of its line, and when it was written, in microseconds."""

    number: int
    time: int
    entry: Entry


class Head(NamedTuple):
    """Where the journal ends: in which file, of how many bytes; the number of the last line, and its hash."""

    file: str
    size: int
    number: int
    hash: str

    def printed(self) -> bytes:
        """What the file `head` holds."""
        return f"{self.file} {self.size} {self.number} {self.hash}\n".encode().ljust(HEAD_SIZE)


def parse_head(data: bytes) -> Head | None:
    """Undoes `printed`; None where it isn't whole."""
    match = _HEAD.fullmatch(data)
    if match is None:
        return None
    return Head(match[1].decode(), int(match[2]), int(match[3]), match[4].decode())


# Lines. In the bytes of a line its line feed is included.


class _Line(Entry, kw_only=True, frozen=True):
    """A whole line that has an entry."""

    number: int
    previous: str
    time: str


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Line)


def bodies(entry: Entry) -> list[bytes]:
    """What follows the links of the chain on the lines of an entry; mostly this is one line."""
    ids = entry.patients
    if len(ids) <= _PATIENTS:
        return [_body(entry)]
    pieces = (ids[n : n + _PATIENTS] for n in range(0, len(ids), _PATIENTS))
    return [_body(msgspec.structs.replace(entry, patients=piece)) for piece in pieces]


def _body(entry: Entry) -> bytes:
    try:
        data = body(entry)
    except UnicodeEncodeError:
        return body(_bounded(entry))
    return data if len(data) <= _LONGEST else body(_bounded(entry))


def _bounded(entry: Entry) -> Entry:
    """Without texts that are too long, or that have no UTF-8."""
    texts = {name: value for name, value in msgspec.structs.asdict(entry).items() if isinstance(value, str)}
    return msgspec.structs.replace(entry, **{name: _bounded_text(text) for name, text in texts.items()})


def _bounded_text(text: str) -> str:
    # A lone surrogate has no UTF-8; what stands for it says which it was.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def body(members: dict[str, Any] | msgspec.Struct) -> bytes:
    """JSON members as they follow the links of the chain, to the end of the line."""
    return _ENCODER.encode(members)[1:] + b"\n"


def line(number: int, previous: str, time: int, body: bytes) -> bytes:
    """A whole line: the links of the chain, then a body."""
    second, fraction = divmod(time, SECOND)
    links = f'{{"number":{number},"previous":"{previous}","time":"{_second(second)}.{fraction:06}Z",'
    return links.encode() + body


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    """`2026-11-22T12:00:00`: many lines have the same."""
    return format_instant(second * SECOND)[:19]


def body_of(line: bytes) -> bytes:
    """What follows the links of the chain on a line."""
    return line.partition(b'Z",')[2]


def hash_of(line: bytes) -> str:
    """The hash by which the next line names this one: SHA-256 of its bytes, line feed included, in hex."""
    return hashlib.sha256(line).hexdigest()


def parse(line: bytes) -> dict[str, Any] | None:
    """The members of a line; None for what is no line of a journal, as one that a crash has torn."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(found, dict) or not line.endswith(b"\n"):
        return None
    links = found.get("number"), found.get("previous"), found.get("time")
    return (
        found if type(links[0]) is int and isinstance(links[1], str) and isinstance(links[2], str) else None
    )


def recorded(line: bytes) -> Recorded | None:
    """The entry on a line; None where there is none: the first line of a file, a note, or one that was torn."""
    try:
        found = _DECODER.decode(line)
        time = parse_instant(found.time)
    except (msgspec.MsgspecError, UnicodeDecodeError, Invalid):
        return None
    entry = Entry(
        found.principal,
        found.interaction,
        found.status,
        found.request_id,
        found.agent,
        found.type,
        found.id,
        found.version,
        found.query,
        found.patients,
        found.more,
        found.remote,
        found.purpose,
    )
    return Recorded(found.number, time, entry)


# Files


def file_name(number: int, time: int) -> str:
    """`00000012-2026-11-22.ndjson`: files sort as they were begun, and a file has the lines of one day, UTC."""
    return f"{number:08}-{format_instant(time)[:10]}.ndjson"


def file_number(name: str) -> int:
    return int(name[:8])


def file_day(name: str) -> str:
    """`2026-11-22`"""
    return name[9:19]


def file_names(git_dir: str) -> list[str]:
    """The files of a repository's journal in order; none where it has no journal."""
    try:
        names = os.listdir(os.path.join(git_dir, FOLDER))
    except FileNotFoundError:
        return []
    return sorted(name for name in names if _FILE.fullmatch(name))


def ring_names(git_dir: str) -> list[str]:
    """The files in which lines wait to be chained (rings.py)."""
    try:
        return sorted(os.listdir(os.path.join(git_dir, RINGS)))
    except FileNotFoundError:
        return []


def contents(git_dir: str, name: str) -> bytes:
    """A file as it is. Raises StorageFailed."""
    try:
        with open(os.path.join(git_dir, FOLDER, name), "rb") as file:
            return file.read()
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> StorageFailed:
    return StorageFailed(f"The access journal can't be read: {error}.")


def whole_lines(data: bytes) -> Iterator[bytes]:
    """The lines of a file with their line feeds, without an end that has none."""
    start = 0
    while end := data.find(b"\n", start) + 1:
        yield data[start:end]
        start = end


def last_lines(data: bytes) -> Sequence[bytes]:
    """As `whole_lines`, last first."""
    found = data.split(b"\n")
    found.pop()
    return [each + b"\n" for each in reversed(found)]
