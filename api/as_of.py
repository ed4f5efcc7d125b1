"""`/at/{point}/fhir`: the record as it was, under a service base of its own that is only read. docs/audit.md, "As of"."""

from __future__ import annotations

import re
from collections.abc import Collection

import falcon

from api.request import Request
from api.responses import read_at
from gitstore import NotFound, Store, state_at

READS = frozenset(
    {
        "capabilities",
        "read",
        "vread",
        "history-instance",
        "history-type",
        "history-system",
        "search-type",
        "search-system",
        "$meta",
        "$everything",
        "$diff",
        "$blame",
        "$changes",
    }
)
"""The interactions that there are in the past."""

_BELOW = re.compile(r"/at/(?P<point>[^/]+)(?P<path>/fhir(?:/.*)?)", re.DOTALL)


def turn(req: Request) -> None:
    """Take the point out of the path of a request to the past, so that it finds the routes that all requests find."""
    match = _BELOW.fullmatch(req.path)
    if match is not None:
        req.at, req.path = match["point"], match["path"]


def base_at(base: str, point: str) -> str:
    """The service base of a point, beside that of now."""
    before, _, name = base.rpartition("/")
    return f"{before}/at/{point}/{name}"


def enter(req: Request, resp: falcon.Response, store: Store, patience: float) -> None:
    """Let the request see the record of its point; whoever asks must be known, and may be refused nothing but the past.

    Searches wait so many seconds for what they need. Raises NotFound, Invalid.
    """
    assert req.at is not None
    if not req.store.access.history:
        raise NotFound("There is nothing here.")
    commit = state_at(store, req.at)
    read_at(resp, commit)
    req.store = req.store.past(commit, patience)


def check(req: Request, resp: falcon.Response, allow: str) -> None:
    """Refuse what would change something, and answer OPTIONS. `allow` is the Allow header of the route."""
    allowed = methods(req.uri_template or "", allow)
    req.allowed = ", ".join(allowed)
    if req.method == "OPTIONS":
        resp.status = 204
        resp.set_header("Allow", req.allowed)
        resp.complete = True
    elif req.method not in allowed:
        raise falcon.HTTPMethodNotAllowed(allowed)


def methods(route: str, allow: str) -> Collection[str]:
    """What of the methods of a route there is in the past; a POST is a search, or it changes something."""
    kept = {"GET", "HEAD", "OPTIONS"} | ({"POST"} if route.endswith("/_search") else set())
    return [method for method in allow.split(", ") if method in kept]
