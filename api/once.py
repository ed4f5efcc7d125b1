"""Requests that are to be done once: the Idempotency-Key header.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

import hashlib
import re

from api.request import Request
from gitstore import Idempotency, Invalid, Issue

HEADER = "Idempotency-Key"
MAX_KEY = 128

_QUOTED = re.compile(r'"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"', re.ASCII)
_BARE = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]*", re.ASCII)
_OF_CONTENT = ("Content-Type", "If-None-Exist", "X-Provenance", "X-Security-Context")
"""Headers by which the same body means something else."""


def idempotency(req: Request) -> Idempotency | None:
    """The client's key, with a digest of what was sent, whose body has been read; None without the header.

    Raises Invalid for what is no key: 1 to 128 visible characters of ASCII, with or without quotes.
    """
    header = req.get_header(HEADER)
    if header is None:
        return None
    digest = hashlib.sha256(req.received)
    for part in (req.method, req.path, req.query_string, *map(req.get_header, _OF_CONTENT)):
        # Each with its length in front, so that no two requests run into the same bytes.
        data = (part or "").encode("utf-8", "surrogateescape")
        digest.update(b"\0%d:%b" % (len(data), data))
    return Idempotency(key(header), digest.hexdigest())


def key(header: str) -> str:
    """The key in a header. Raises Invalid."""
    text = header.strip()
    quoted = _QUOTED.fullmatch(text)
    found = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if not 1 <= len(found) <= MAX_KEY or not (quoted or _BARE.fullmatch(text)):
        text = f"{HEADER} must be 1 to {MAX_KEY} visible characters of ASCII, with or without quotes around them."
        raise Invalid(Issue("error", "value", text))
    return found


def of_entry(whole: Idempotency | None, entry: int) -> Idempotency | None:
    """The key of one entry of a batch, which is a unit of its own. Keys of any length lead to one that fits."""
    if whole is None:
        return None
    name = hashlib.sha256(whole.key.encode("ascii")).hexdigest()
    return Idempotency(f"entry-{entry}-of-{name}", whole.digest)
