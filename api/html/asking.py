"""Who gets a page: whoever names HTML, and likes nothing that FHIR has better."""

from __future__ import annotations

from functools import lru_cache

from api import media
from api.request import Request, pairs

FORM = "application/x-www-form-urlencoded"
_NAMES = ("html", "text/html")
_CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE")


def wants_page(req: Request) -> bool:
    """Whether the answer is to be a page; `_format` outweighs Accept. Writes get none, unless a form of a page sent them."""
    if req.method not in ("GET", "HEAD") and not (req.method == "POST" and _is_form(req)):
        return False
    if "_format" in req.query_string:
        wanted = dict(pairs(req.query_string)).get("_format")
        if wanted is not None:
            return wanted.strip().lower() in _NAMES
    return prefers_html(req.get_header("Accept") or "")


def prepare(req: Request) -> None:
    """Make of a request one for a page. What can't make one answers in JSON, which is then made into a page.

    A page has no ETag: it shows more than the version that it is about. So nothing about it can be "not modified".
    """
    req.html = True
    for name in _CONDITIONS:
        req.env.pop(name, None)


@lru_cache(maxsize=256)
def prefers_html(accept: str) -> bool:
    """Whether an Accept header names HTML, and likes nothing that FHIR has better. Browsers do so when one follows a link."""
    found = {each.type: each.quality for each in media.media_ranges(accept)}
    html = found.get("text/html", 0.0)
    return html > 0 and html >= max(found.get(each, 0.0) for each in media.MEDIA_TYPES)


def _is_form(req: Request) -> bool:
    return (req.content_type or "").partition(";")[0].strip().lower() == FORM
