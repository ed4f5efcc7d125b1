"""Entity tags: the version ids of If-Match and If-None-Match. https://hl7.org/fhir/R4/http.html#concurrency

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
