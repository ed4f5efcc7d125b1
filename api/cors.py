"""CORS: which web pages of other origins a browser may let talk to this server. https://fetch.spec.whatwg.org/#http-cors-protocol

Falcon's CORSMiddleware is not used: of a preflight it allows whatever headers are asked for and only the methods of that
one path, and it says nothing about `Vary`, so that a cache could hand the answer for one origin to another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import falcon

from api.request import Request
from gitstore import Invalid

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

REQUEST_HEADERS = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Prefer",
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-None-Exist",
    "X-Request-Id",
    "X-Provenance",
    "X-Requested-With",
    "X-Commit-Message",
    "X-Security-Context",
    "Idempotency-Key",
    "Min-Git-Commit",
)
EXPOSED = (
    "ETag",
    "Location",
    "Content-Location",
    "Last-Modified",
    "X-Request-Id",
    "X-Correlation-Id",
    "Git-Commit",
    "Accept-Patch",
)
MAX_AGE = 3600
"""Seconds for which a browser may remember a preflight."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(:[0-9]{1,5})?", re.ASCII)


def origins(given: Iterable[str]) -> frozenset[str]:
    """The origins of fhir.corsOrigin, as browsers write them.

    Raises Invalid for `*`, with which any page in the browser of somebody who reaches this server could read and write
    the record, as nobody has to log in; and for what is no origin, which would never match.
    """
    found = set()
    for each in given:
        origin = each.strip().lower().removesuffix("/")
        if origin == "*":
            raise Invalid(
                "fhir.corsOrigin is `*`; without authentication every page on the web could then read and write the record. "
                "Name the origins."
            )
        if not _ORIGIN.fullmatch(origin):
            raise Invalid(f"fhir.corsOrigin is `{each}`; expected an origin such as https://app.example.org.")
        found.add(origin)
    return frozenset(found)


class Cors:
    """Answers preflights, and says in all other answers, errors too, what a page may see of them."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed

    def process_request(self, req: Request, resp: falcon.Response) -> None:
        """A preflight never gets to an endpoint. Any other OPTIONS does, and so does that of a foreign origin."""
        if req.method != "OPTIONS" or not self._allows(req):
            return
        if req.get_header("Access-Control-Request-Method") is None:
            return
        resp.status = 204
        resp.set_header("Access-Control-Allow-Methods", ", ".join(METHODS))
        resp.set_header("Access-Control-Allow-Headers", ", ".join(REQUEST_HEADERS))
        resp.set_header("Access-Control-Max-Age", str(MAX_AGE))
        resp.complete = True

    def process_response(
        self, req: Request, resp: falcon.Response, _endpoint: object, _succeeded: bool
    ) -> None:
        if not self._allowed:
            return
        resp.append_header("Vary", "Origin")
        if self._allows(req):
            resp.set_header("Access-Control-Allow-Origin", req.get_header("Origin") or "")
            resp.set_header("Access-Control-Expose-Headers", ", ".join(EXPOSED))

    def _allows(self, req: Request) -> bool:
        return (req.get_header("Origin") or "") in self._allowed
