"""What the search index holds of one resource: extract.py makes it before the writer's lock, contents.py stores it."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TypeAlias

import msgspec

from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.version import Verb

TYPE_NUMBERS = {name: number for number, name in enumerate(RESOURCE_TYPES)}
"""Resource types as the index has them."""
VERBS: tuple[Verb, ...] = ("POST", "PUT", "DELETE")
"""Verbs, by their numbers in the index."""
DAY = 86_400_000_000
"""Microseconds."""
EVER_BEFORE, EVER_AFTER = -(2**62), 2**62
"""The ends of a period that has none."""
OPEN_SPAN = 15
CANONICAL = "canonical"
"""Stands for the system of a unit in canonical UCUM form; no URL looks like it."""
TEXT = "text"
"""Stands for the system of a term that is the folded display text of a code."""

TokenRow: TypeAlias = tuple[int, str, str, int]
"""Parameter, system ("" for none), code (folded unless the system minds case), element."""
StringRow: TypeAlias = tuple[int, str, int, int]
"""Parameter, folded text (a uri: as it is), `exact_hash` of the original (a uri: 0), element."""
DateRow: TypeAlias = tuple[int, int, int, int, int]
"""Parameter, span (see `span_of`), low, high (half-open, microseconds), element."""
QuantityRow: TypeAlias = tuple[int, str, str, bytes, bytes, int]
"""Parameter, system and code of the unit (both "" for a number), least and greatest number as keys of decimals, element."""
ReferenceRow: TypeAlias = tuple[int, str | None, str, str | None, int]
"""Parameter, resource type and id of a resource of this server (or None and a URL), version, element."""
PositionRow: TypeAlias = tuple[int, float, float]
"""Parameter, latitude, longitude, in degrees."""


class Rows(msgspec.Struct, array_like=True):
    """The rows of one resource, without its key. `element` numbers the elements of a composite parameter, else 0.

    `narrative` and `content` are text for _text and _content.
    """

    tokens: list[TokenRow] = msgspec.field(default_factory=list)
    strings: list[StringRow] = msgspec.field(default_factory=list)
    dates: list[DateRow] = msgspec.field(default_factory=list)
    quantities: list[QuantityRow] = msgspec.field(default_factory=list)
    references: list[ReferenceRow] = msgspec.field(default_factory=list)
    positions: list[PositionRow] = msgspec.field(default_factory=list)
    narrative: str = ""
    content: str = ""
    contained: list[Contained] = msgspec.field(default_factory=list)


class Contained(msgspec.Struct, array_like=True):
    """A contained resource, by its id in the container."""

    type: str
    id: str
    rows: Rows


def pack_rows(rows: Rows) -> bytes:
    """The rows in a tenth of the memory."""
    return _ENCODER.encode(rows)


def unpack_rows(data: bytes) -> Rows:
    """Undoes `pack_rows`."""
    return _DECODER.decode(data)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Rows)


def span_of(low: int, high: int) -> int:
    """The class of an interval by its length: 0 up to a day, 1 up to 4 days, 2 up to 16 days, ..., OPEN_SPAN without end.

    Within one class an interval that overlaps a point can't begin long before it, and that makes an index on `low`
    good for both ends.
    """
    if low == EVER_BEFORE or high == EVER_AFTER:
        return OPEN_SPAN
    days = -(-(high - low) // DAY)
    return 0 if days <= 1 else ((days - 1).bit_length() + 1) // 2


def longest(span: int) -> int:
    """How long an interval of this class can be, in microseconds."""
    return DAY << (2 * span)


def fold(text: str) -> str:
    """The text without case, accents, punctuation and needless space: two texts match as strings if these do.

    https://hl7.org/fhir/R4/search.html#string
    """
    if text.isascii():
        folded = text.lower()
        if folded.isalnum():
            return folded
    else:
        folded = unicodedata.normalize("NFKD", text).casefold()
    kept = [
        character
        for character in folded
        if not (kind := unicodedata.category(character)).startswith("P") and kind != "Mn"
    ]
    return " ".join("".join(kept).split())


def exact_hash(text: str, folded: str) -> int:
    """Tells texts apart that fold alike; 0 for the folded text itself."""
    if text == folded:
        return 0
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
