"""The conditions of a request: whether a client already holds what it asks for, and what it names by criteria.

https://hl7.org/fhir/R4/http.html#cread, https://hl7.org/fhir/R4/http.html#ccreate
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import falcon

from gitstore import Criteria, Invalid, Version
from gitstore.fhir.conditions import version_tags
from gitstore.fhir.dates import SECOND, parse_instant


def not_modified(version: Version, if_none_match: str | None, if_modified_since: str | None) -> bool:
    """Whether 304 is the answer. If-None-Match decides alone where it is given.

    Raises Invalid for a malformed If-None-Match.
    """
    return tag_matches(str(version.version_id), if_none_match) or (
        if_none_match is None and not modified_since(version.last_updated, if_modified_since)
    )


def tag_matches(tag: str, if_none_match: str | None) -> bool:
    """Whether If-None-Match names `tag`, compared weakly, or is `*`."""
    if if_none_match is None:
        return False
    tags = version_tags(if_none_match)
    return tag in tags or "*" in tags


def modified_since(last_updated: int, if_modified_since: str | None) -> bool:
    """Whether something last updated at that instant is newer than the date a client names.

    HTTP dates have seconds, the record has microseconds. Two versions of one second have the same Last-Modified, so the
    instant is compared uncut: a client may get once more what it has, but never 304 for what it has not.
    A date that can't be read is ignored. https://www.rfc-editor.org/rfc/rfc9110#section-13.1.3
    """
    date = None if if_modified_since is None else _instant(if_modified_since)
    return date is None or last_updated > date


def _instant(text: str) -> int | None:
    """An HTTP date in microseconds, or the instant that Bundle.entry.request has in its place; None for neither."""
    try:
        return int(parsedate_to_datetime(text).timestamp()) * SECOND
    except (ValueError, OverflowError):
        try:
            return parse_instant(text)
        except Invalid:
            return None


def version_tags_of(request: falcon.Request, header: str) -> frozenset[str] | None:
    """The version ids in If-Match or If-None-Match of a write; None without the header. Raises Invalid."""
    given = request.get_header(header)
    return None if given is None else version_tags(given)


def criteria_of_header(request: falcon.Request, type: str, base: str) -> Criteria | None:
    """What If-None-Exist asks for; None without it. Characters that should be percent-encoded are read as UTF-8."""
    given = request.get_header("If-None-Exist")
    if given is None:
        return None
    try:
        text = given.encode("latin-1").decode("utf-8")
    except UnicodeError:
        text = given
    return Criteria.parse(type, text.strip(), (base,))
