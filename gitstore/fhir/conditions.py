"""Conditions of requests: entity tags and criteria. https://hl7.org/fhir/R4/http.html#concurrency

Entity tags are the version ids of If-Match and If-None-Match:

```
W/"3"            3           what the server sends and clients should
"3"              3           FHIR compares weakly, so both forms are the same
3                3           no entity tag of HTTP, but clients send it
W/"3", W/"4"     3 and 4
*                any version that exists
```
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from msgspec import Struct

from gitstore.errors import Invalid, Issue

_ANY = frozenset("*")
_TAG = re.compile(
    r"""(?:W/)?"(?P<quoted>[\x21\x23-\x7e\x80-\xff]+)"   # RFC 9110, section 8.8.3
      | (?P<bare>[A-Za-z0-9.-]{1,64})                    # a version id as it stands in meta
    """,
    re.VERBOSE,
)


def format_etag(version_id: int) -> str:
    """`W/"3"`. https://hl7.org/fhir/R4/http.html#versioning"""
    return f'W/"{version_id}"'


def version_tags(header: str) -> frozenset[str]:
    """The version ids that a header or Bundle.entry.request.ifMatch names; `*` alone for "any that exists".

    Raises Invalid (code value) for what is neither. A quoted `"*"` is refused too: in HTTP it would be an
    entity tag that matches nothing, and it must not be taken for the `*` that matches everything.
    """
    if header.strip(" \t") == "*":
        return _ANY
    tags: set[str] = set()
    # HTTP wants empty elements of a list passed over: RFC 9110, section 5.6.1.
    for element in filter(None, (part.strip(" \t") for part in header.split(","))):
        match = _TAG.fullmatch(element)
        tag = match and (match["quoted"] or match["bare"])
        if not tag or tag == "*":
            raise _malformed(header)
        tags.add(tag)
    if not tags:
        raise _malformed(header)
    return frozenset(tags)


def _malformed(header: str) -> Invalid:
    text = f'`{header[:80]}` names no version: expected W/"3", a list such as W/"3", W/"4", or *.'
    return Invalid(Issue("error", "value", text))


class Criteria(Struct, frozen=True):
    """Resources of one type by the parameters of a search, decoded, in place of an id.

    They must select, and nothing in them may be unknown. `bases` are URLs of this server: references below them are to
    its own resources. https://hl7.org/fhir/R4/http.html#cond-update
    """

    type: str
    pairs: tuple[tuple[str, str], ...]
    bases: tuple[str, ...] = ()

    @classmethod
    def parse(cls, type: str, query: str, bases: tuple[str, ...] = ()) -> Criteria:
        """From the query of a URL, or the value of If-None-Exist, which may begin with a question mark.

        Raises Invalid for what is percent-encoded and no UTF-8.
        """
        try:
            pairs = parse_qsl(query.removeprefix("?"), keep_blank_values=True, errors="strict")
        except UnicodeDecodeError as error:
            raise Invalid(
                Issue("error", "value", "What is percent-encoded in the criteria is no UTF-8.")
            ) from error
        return cls(type, tuple(pairs), bases)

    @property
    def is_plain(self) -> bool:
        """Whether they ask for nothing but the resource's own content."""
        return not any("." in name or name.startswith(("_has", "_list", "_filter")) for name, _ in self.pairs)

    def __str__(self) -> str:
        return f"{self.type}?{'&'.join(f'{name}={value}' for name, value in self.pairs)}"[:200]
