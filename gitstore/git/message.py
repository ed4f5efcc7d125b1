"""The commit message: subject, the author's words, and the trailers that record versions. docs/format.md, "The commit"

update Patient/example

Optional words of the author: why.

FHIR-Interaction: update
FHIR-Version: PUT Patient/example/_history/3
FHIR-Last-Updated: 2026-11-21T22:30:00.123456Z
FHIR-Request-Id: 5e0a4c6e
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain, repeat
from typing import cast, get_args

from msgspec import Struct

from gitstore.errors import Invalid
from gitstore.fhir.dates import format_instant, parse_instant
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, VersionId, is_id, parse_version_id
from gitstore.version import NO_FILE, Author, Change, Idempotency, Purged, Verb

INTERACTIONS = (
    "init",
    "create",
    "update",
    "patch",
    "delete",
    "transaction",
    "restore",
    "adopt",
    "purge",
    "promote",
    "settle",
)
RESERVED = frozenset(
    f"FHIR-{name}"
    for name in (
        "Interaction",
        "Version",
        "Last-Updated",
        "Request-Id",
        "Agent",
        "Idempotency-Key",
        "Restores",
        "Adopts",
        "Purged",
    )
)
MAX_SUBJECT = 70
MAX_VALUE = 200
"""Characters of a trailer's value."""

_AT_ONCE = 1000
_REQUEST_ID = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CUT = "FHIR-Adopts"
"""In place of a version: the trailer that went with the foreign commits."""
_COMMIT_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)
_TRAILER = re.compile(r"[A-Za-z0-9-]+: .*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_VERBS = frozenset(get_args(Verb))
_CRUD = " .,:;<>\"\\'"
_DIVIDER = re.compile(r"^(?=---(?:\s|$)|\S+ -{24} >8 -{24}$)", re.MULTILINE)
"""Lines at which git stops to look for trailers: the start of a patch, and the scissors of an edited message."""


class Message(Struct, frozen=True):
    """What a commit message of ours says; `last_updated` in microseconds."""

    interaction: str
    changes: tuple[Change, ...]
    last_updated: int
    request_id: str | None = None
    words: str = ""
    unknown: tuple[str, ...] = ()
    """FHIR-* trailers that this version of the format doesn't know, as they stand."""
    adopts: str | None = None
    """The foreign tip that an adopt commit takes into the record: a commit id."""
    idempotency: Idempotency | None = None
    agent: str | None = None
    """Through what the author works: issuer, subject and client of a token."""
    restores: tuple[tuple[ResourceId, VersionId], ...] = ()
    """Of resources that are changed: the version whose content each has again."""
    purged: tuple[Purged, ...] = ()
    """In a purge commit what it took out of the record; in others which of their own versions are gone."""
    cut: bool = False
    """Whether this is an adopt commit whose foreign commits were taken out of the record."""


def format_message(message: Message) -> str:
    """The text of the commit message. `words` can't become a trailer: only the last paragraph is parsed."""
    changes = message.changes
    trailers = [f"FHIR-Interaction: {message.interaction}"]
    # Not all at once: of very many, each as a string of its own takes twice the memory.
    trailers += (
        "\n".join(f"FHIR-Version: {change}" for change in changes[start : start + _AT_ONCE])
        for start in range(0, len(changes), _AT_ONCE)
    )
    trailers.append(f"FHIR-Last-Updated: {format_instant(message.last_updated)}")
    if message.request_id:
        trailers.append(f"FHIR-Request-Id: {message.request_id}")
    if message.agent:
        trailers.append(f"FHIR-Agent: {message.agent}")
    if message.idempotency:
        trailers.append(f"FHIR-Idempotency-Key: {message.idempotency}")
    if message.adopts:
        trailers.append(f"FHIR-Adopts: {message.adopts}")
    trailers += [
        f"FHIR-Restores: {resource_id}/_history/{number}" for resource_id, number in message.restores
    ]
    trailers += [f"FHIR-Purged: {purged}" for purged in message.purged]
    trailers += [f"FHIR-Purged: {_CUT}"] * message.cut
    paragraphs = [_subject(message), message.words, "\n".join([*trailers, *message.unknown, ""])]
    return "\n\n".join(filter(None, paragraphs))


def _subject(message: Message) -> str:
    """What `git log --oneline` shows: for a transaction its types, the most frequent first, as far as a line goes."""
    changes = message.changes
    if not changes:
        return message.interaction
    if len(changes) == 1 and message.interaction != "transaction":
        return f"{message.interaction} {changes[0].resource_id}"
    counts = Counter(change.resource_id.type for change in changes)
    subject = message.interaction
    for separator, (type, count) in zip(chain([" "], repeat(", ")), counts.most_common(), strict=False):
        part = f"{separator}{count} {type}"
        if len(subject) + len(part) > MAX_SUBJECT:
            return f"{subject}, …"
        subject += part
    return subject


def parse_message(text: str) -> Message:
    """What a commit message says. Raises Invalid where it isn't one of ours, saying why. Undoes `format_message`."""
    *before, last = text.rstrip("\n").split("\n\n")
    found: dict[str, list[str]] = {}
    unknown = []
    for line in last.split("\n"):
        key, colon, value = line.partition(": ")
        if key in RESERVED and colon:
            found.setdefault(key, []).append(value)
        elif _TRAILER.fullmatch(line) is None:
            raise Invalid("its message doesn't end in FHIR trailers")
        elif key.startswith("FHIR-"):
            unknown.append(line)
    interaction = _single(found, "FHIR-Interaction")
    if interaction not in INTERACTIONS:
        raise Invalid(f"FHIR-Interaction `{interaction}` is unknown")
    purged = found.get("FHIR-Purged", [])
    return Message(
        interaction,
        tuple(_change(value) for value in found.get("FHIR-Version", ())),
        parse_instant(_single(found, "FHIR-Last-Updated")),
        _single(found, "FHIR-Request-Id") if "FHIR-Request-Id" in found else None,
        "\n\n".join(before[1:]).strip("\n"),
        tuple(unknown),
        _adopts(_single(found, "FHIR-Adopts")) if "FHIR-Adopts" in found else None,
        _idempotency(_single(found, "FHIR-Idempotency-Key")) if "FHIR-Idempotency-Key" in found else None,
        _single(found, "FHIR-Agent") if "FHIR-Agent" in found else None,
        tuple(_version(value, "FHIR-Restores", value) for value in found.get("FHIR-Restores", ())),
        tuple(_purged(value, interaction) for value in purged if value != _CUT),
        _CUT in purged,
    )


def _single(found: dict[str, list[str]], key: str) -> str:
    values = found.get(key, [])
    if len(values) != 1:
        raise Invalid(f"it has {len(values) or 'no'} {key} trailer{'s' if len(values) > 1 else ''}")
    return values[0]


def _idempotency(value: str) -> Idempotency:
    try:
        return Idempotency.parse(value)
    except Invalid as error:
        raise Invalid(f"FHIR-Idempotency-Key `{value[:MAX_VALUE]}` can't be read") from error


def _adopts(value: str) -> str:
    if _COMMIT_ID.fullmatch(value) is None:
        raise Invalid(f"FHIR-Adopts `{value[:MAX_VALUE]}` is no commit id")
    return value


def _purged(value: str, interaction: str) -> Purged:
    reference, space, digest = value.partition(" ")
    # A purge commit says the digest of what it took out; the commit that had made it says only that it is gone.
    is_digest = _DIGEST.fullmatch(digest) is not None or digest == NO_FILE
    if is_digest != (interaction == "purge") or bool(space) != is_digest:
        raise Invalid(f"FHIR-Purged `{value[:MAX_VALUE]}` can't be read")
    return Purged(*_version(reference, "FHIR-Purged", value), digest or None)


def _change(value: str) -> Change:
    verb, _, reference = value.partition(" ")
    if verb not in _VERBS:
        raise Invalid(f"FHIR-Version `{value[:MAX_VALUE]}` can't be read")
    return Change(cast(Verb, verb), *_version(reference, "FHIR-Version", value))


def _version(reference: str, key: str, value: str) -> tuple[ResourceId, VersionId]:
    type, _, rest = reference.partition("/")
    id, _, version = rest.partition("/_history/")
    version_id = parse_version_id(version)
    if not is_resource_type(type) or not is_id(id) or version_id is None:
        raise Invalid(f"{key} `{value[:MAX_VALUE]}` can't be read")
    return ResourceId(type, id), version_id


def safe_request_id(text: str | None) -> str | None:
    """The request id if it may stand in a trailer, else None."""
    return text if text and _REQUEST_ID.fullmatch(text) else None


def safe_line(text: str) -> str | None:
    """The text as the value of a trailer: one line without control characters; None where nothing is left."""
    return _CONTROL.sub("", text.replace("\n", " "))[:MAX_VALUE].strip() or None


def safe_words(text: str | None) -> str:
    """The author's words without control characters, and without blank lines at the ends or twice in a row.

    Lines that would keep git from finding the trailers below them are indented.
    """
    lines = [_CONTROL.sub(" ", line).rstrip() for line in (text or "").replace("\r\n", "\n").split("\n")]
    return _DIVIDER.sub(" ", re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n "))


def safe_author(author: Author) -> Author:
    """The author as git can store it: one line, no angle brackets, none of the characters that git strips."""
    return Author(
        _safe_name(author.name) or "unknown", _safe_name(author.email).replace(" ", "") or "unknown"
    )


def _safe_name(text: str) -> str:
    return re.sub(r"[<>\n]", "", _CONTROL.sub("", text))[:MAX_VALUE].strip(_CRUD)
