"""The beginning and the end of every request, whoever answers it: its id, its numbers, and its line in the log."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import falcon

from api import log
from api.metrics import Metrics, known_method
from api.request import Request, request_id

DENIALS = {401: "unauthenticated", 403: "forbidden", 421: "host", 429: "limit"}
"""Why a request was refused for who sent it, where nobody said it more exactly in `Request.denied`."""

_UNSEEN = re.compile(r"[^\x20-\x7e]")


class Reception:
    """Counts and names what comes in, and notes what goes out."""

    def __init__(self, new_request_id: Callable[[], str], metrics: Metrics) -> None:
        self._new_request_id = new_request_id
        self._metrics = metrics

    def begin(self, req: Request, resp: falcon.Response) -> None:
        """The request has come. It gets its id: the client's, or ours where that one could not stand in a commit.

        https://hl7.org/fhir/R4/http.html#custom
        """
        req.started = time.perf_counter()
        self._metrics.begun()
        given = req.get_header("X-Request-Id")
        req.request_id = request_id(given) or self._new_request_id()
        resp.set_header("X-Request-Id", req.request_id)
        if given and given != req.request_id:
            resp.set_header("X-Correlation-Id", _UNSEEN.sub("?", given)[:200])

    def end(self, req: Request, resp: falcon.Response) -> None:
        """All that will be sent is made: note it in the log and in the metrics."""
        seconds = time.perf_counter() - req.started
        size = _size(req, resp)
        denied = req.denied or DENIALS.get(resp.status_code)
        self._metrics.answered(req.interaction, req.method, resp.status_code, seconds, size)
        if denied is not None:
            self._metrics.denied(denied)
        log.access(
            request_id=req.request_id,
            author=req.author.name,
            principal=(req.principal.kind, req.principal.key),
            method=known_method(req.method),
            path=req.root_path + req.asked_path,
            interaction=req.interaction,
            status=resp.status_code,
            milliseconds=seconds * 1000,
            size=size,
            denied=denied,
        )


def _size(req: Request, resp: falcon.Response) -> int:
    """The bytes of the answer's body."""
    if resp.data is not None:
        return 0 if req.method == "HEAD" else len(resp.data)
    return 0 if req.sending is None else req.sending.size
