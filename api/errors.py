"""Every error of every layer becomes an OperationOutcome. https://hl7.org/fhir/R4/http.html#Status-Codes"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import falcon
from msgspec.structs import replace

import gitstore
from api.credentials import Unauthorized, is_clone
from api.log import SERVER
from api.media import printed
from api.request import FHIR_JSON, Request, http_date
from gitstore import Issue, StoreError
from gitstore.fhir import json
from gitstore.fhir.conditions import format_etag
from gitstore.fhir.outcome import operation_outcome

STATUS: Mapping[type[StoreError], int] = {
    gitstore.Invalid: 400,
    gitstore.Unprocessable: 422,
    gitstore.TooLarge: 413,
    gitstore.TooCostly: 422,
    gitstore.NotSupported: 501,
    gitstore.NotAllowed: 405,
    gitstore.Forbidden: 403,
    gitstore.NotFound: 404,
    gitstore.Gone: 410,
    gitstore.Conflict: 409,
    gitstore.VersionMismatch: 412,
    gitstore.AlreadyExists: 412,
    gitstore.MultipleMatches: 412,
    gitstore.Unavailable: 503,
    gitstore.Locked: 503,
    gitstore.Preparing: 202,
    gitstore.ForeignCommit: 503,
    gitstore.ReadOnly: 503,
    gitstore.Fenced: 503,
    gitstore.HubUnreachable: 503,
    gitstore.StorageFull: 507,
    gitstore.StorageFailed: 503,
    gitstore.Outdated: 503,
    gitstore.NotConfirmed: 500,
    gitstore.NotReplicated: 504,
    gitstore.RepositoryDamaged: 500,
    gitstore.RepositoryRefused: 500,
}

CODES: Mapping[int, str] = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    408: "timeout",
    411: "required",
    413: "too-long",
    415: "not-supported",
    421: "forbidden",
    429: "throttled",
    431: "too-long",
    501: "not-supported",
    503: "transient",
    504: "timeout",
}
"""issue.code for a status that HTTP itself, Falcon or waitress decided."""

RETRY_AFTER = 1
"""Seconds after which a refused write may be tried again: most locks are held for milliseconds."""


def status_of(error: StoreError) -> int:
    """The HTTP status of an error of the store. The table has every class; a subclass may rely on its parent."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def outcome_bytes(issues: Sequence[Issue]) -> bytes:
    return json.dumps(operation_outcome(issues))


def issues_of(status: int, text: str) -> list[Issue]:
    """The one issue for a status that did not come from the store."""
    return [Issue("fatal" if status == 500 else "error", CODES.get(status, "exception"), text)]


def _send_outcome(req: Request, resp: falcon.Response, data: bytes) -> None:
    """In JSON where XML has no room for it: a client's text in a message may hold characters that it excludes."""
    try:
        resp.data = printed(req, data)
    except gitstore.Invalid:
        req.media_type = FHIR_JSON
        resp.data = printed(req, data)
    resp.content_type = req.media_type


def _send_text(resp: falcon.Response, issues: Sequence[Issue]) -> None:
    """For git, which shows its user what is plain text, and nothing else."""
    resp.data = "".join(f"{issue.text}\n" for issue in issues).encode()
    resp.content_type = "text/plain; charset=utf-8"


def register(app: falcon.App[Request, falcon.Response], allow: Mapping[str, str]) -> None:
    """Answer all errors of `app` with OperationOutcomes; `allow` gives the Allow header of each route."""

    def on_store_error(req: Request, resp: falcon.Response, error: StoreError, _params: object) -> None:
        status = status_of(error)
        if isinstance(error, gitstore.Gone) and error.entry is None:
            resp.set_header("ETag", format_etag(error.version_id))
            resp.set_header("Last-Modified", http_date(error.last_updated))
        if status in (202, 503):
            resp.set_header("Retry-After", str(RETRY_AFTER))
        if status >= 500 and status != 501:
            SERVER.error(
                "%s: %s", type(error).__name__, error, extra={"fields": {"requestId": req.request_id}}
            )
        _answer(req, resp, status, error.issues)

    def on_http_error(req: Request, resp: falcon.Response, error: falcon.HTTPError, _params: object) -> None:
        status = falcon.http_status_to_code(error.status)
        resp.set_headers(error.headers or {})
        resp.delete_header("Allow")
        text = error.description or error.title or "The request was refused."
        if isinstance(error, falcon.HTTPRouteNotFound):
            place = req.root_path + req.asked_path[:200]
            text = f"There is nothing at `{place}`. The FHIR base is `{req.root_path}/fhir`."
        if isinstance(error, falcon.HTTPMethodNotAllowed):
            place = req.root_path + req.asked_path[:200]
            text = f"{req.method} is not possible at `{place}`; allowed is {_allowed(req)}."
        if status == 503 and resp.get_header("Retry-After") is None:
            resp.set_header("Retry-After", str(RETRY_AFTER))
        issues = issues_of(status, text)
        if isinstance(error, Unauthorized):
            issues = [replace(issue, code=error.issue_code) for issue in issues]
        _answer(req, resp, status, issues)

    def on_exception(req: Request, resp: falcon.Response, error: Exception, _params: object) -> None:
        SERVER.error("unexpected", exc_info=error, extra={"fields": {"requestId": req.request_id}})
        text = f"The server failed unexpectedly. Its log tells more about request {req.request_id}."
        _answer(req, resp, 500, issues_of(500, text))

    def _allowed(req: Request) -> str:
        return allow.get(req.uri_template or "", "") if req.allowed is None else req.allowed

    def _answer(req: Request, resp: falcon.Response, status: int, issues: Sequence[Issue]) -> None:
        resp.status = status
        if is_clone(req.path):
            _send_text(resp, issues)
        else:
            _send_outcome(req, resp, outcome_bytes(issues))
        for header in ("Location", "Content-Location"):
            resp.delete_header(header)
        if status == 405:
            resp.set_header("Allow", _allowed(req))

    app.add_error_handler(Exception, on_exception)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(StoreError, on_store_error)
