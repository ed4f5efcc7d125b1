"""Whether a request comes from a page of this server, and which places a page may be sent to."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from api.request import Request

HOME = "/login"
"""Where a browser goes that doesn't say where it was going."""

SAFE = "/$:@!*'(),;=~"
"""What stands in a path as it is."""

_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]{0,1999}", re.ASCII)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def same_origin(req: Request) -> bool:
    """Whether a browser says that a page of this very server made the request; `base` must be known.

    Pages can set neither header. Browsers leave Sec-Fetch-Site away where neither https nor a loopback name was called.
    https://www.w3.org/TR/fetch-metadata/, https://fetch.spec.whatwg.org/#origin-header
    """
    site = req.get_header("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    return req.get_header("Origin") == own_origin(req)


def own_origin(req: Request) -> str:
    """The origin of this server as its client calls it, in the form in which browsers write it."""
    scheme, host, *_ = urlsplit(req.base.lower())
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS.get(scheme, ''))}"


def is_secure(req: Request) -> bool:
    """Whether the client came by https, be it to a proxy."""
    return req.base.lower().startswith("https:")


def prefix(req: Request) -> str:
    """The path that a proxy in front takes away: what stands before `/fhir`, or before `/at/…`, in the base."""
    before = urlsplit(req.base).path.rpartition("/")[0]
    return before if req.at is None else before.removesuffix(f"/at/{req.at}")


def place(req: Request) -> str:
    """Path and query of the request, as its client sees them."""
    query = f"?{req.query_string}" if req.query_string else ""
    return prefix(req) + quote(req.asked_path, safe=SAFE) + query


def safe_place(text: str | None) -> str | None:
    """A path within this site, None for everything else: `//evil.example` and `/\\evil.example` are other hosts to a browser.

    https://url.spec.whatwg.org/#relative-slash-state
    """
    return text if text and _PATH.fullmatch(text) else None
