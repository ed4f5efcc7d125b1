"""Each answered request in the access journal: who asked, for what, and whose data was in the answer.

docs/audit-journal.md. Nothing is read without a line: where none can be written, what was read is not given out.
"""

from __future__ import annotations

import falcon

from api import log
from api.metrics import Metrics
from api.request import Request
from gitstore import Journal, JournalEntry, StoreError
from gitstore.fhir.ids import is_id

TELLING = ("ETag", "Last-Modified", "Location", "Content-Location", "Git-Commit", "Link")
"""Headers that would tell of a resource where its content is not given out."""

UNTOLD = frozenset(
    {
        "health",
        "ready",
        "metrics",
        "wake",
        "capabilities",
        "login",
        "logout",
        "smart-configuration",
        "options",
    }
)
"""What tells nothing of the record."""


class Journaling:
    """Writes the line when the answer is made, before it goes out."""

    def __init__(self, journal: Journal, metrics: Metrics) -> None:
        self._journal = journal
        journal.count_with(metrics.journaled)

    def process_response(
        self, req: Request, resp: falcon.Response, _endpoint: object, _succeeded: bool
    ) -> None:
        """Raises StoreError where there is no room for the line, and then the answer is that.

        A write that has happened is answered all the same: git names its author, and a client that is told otherwise
        would do it again.
        """
        if req.interaction in UNTOLD or req.method == "OPTIONS":
            return
        try:
            self._journal.record(_entry(req, resp))
        except StoreError as error:
            if req.store.wrote:
                log.SERVER.error(
                    "the access journal: %s", error, extra={"fields": {"requestId": req.request_id}}
                )
                return
            withhold(resp)
            raise


def withhold(resp: falcon.Response) -> None:
    """Take back what an answer tells of the record; whoever calls says what is answered instead."""
    resp.data = None
    resp.stream = None
    for header in TELLING:
        resp.delete_header(header)


def _entry(req: Request, resp: falcon.Response) -> JournalEntry:
    principal, told, named = req.principal, req.told, req.named
    type, id, version = named.get("type"), named.get("id"), named.get("vid")
    if id is None and type is not None:
        id, version = _made(type, resp)
    if id is not None and version is None:
        version = (resp.get_header("ETag") or "").removeprefix("W/").strip('"') or None
    return JournalEntry(
        principal=principal.author.name,
        agent=principal.agent,
        interaction=req.interaction,
        type=type,
        id=id if id is None or is_id(id) else None,
        version=version,
        query=_query(req) if req.query_string or req.form else None,
        patients=tuple(told.patients) if told is not None else (),
        more=told is not None and told.more,
        request_id=req.request_id,
        status=resp.status_code,
        remote=req.remote_addr,
    )


def _made(type: str, resp: falcon.Response) -> tuple[str | None, str | None]:
    """Id and version of what the server has named: a resource that was created."""
    location = resp.get_header("Content-Location") or resp.get_header("Location") or ""
    if "/_history/" not in location:
        return None, None
    id, _, version = location.rpartition(f"/{type}/")[2].partition("/_history/")
    return id, version


def _query(req: Request) -> str:
    return "&".join(filter(None, (req.query_string, *(f"{name}={value}" for name, value in req.form))))
