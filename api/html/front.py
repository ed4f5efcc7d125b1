"""The front page: what is in the record, what happened last, and how to take a copy of it home."""

from __future__ import annotations

import falcon

from api.clone import may_clone
from api.credentials import CLONE
from api.html import shell
from api.html.record import by_commit, counts_of
from api.html.stories import Entry, Moment, Teller
from api.origin import own_origin, prefix
from api.request import Request
from gitstore import Forbidden, NotFound, Snapshot, TooCostly

RECENT = 12


def send_front(req: Request, resp: falcon.Response, snapshot: Snapshot, teller: Teller) -> None:
    shell.send(
        req,
        resp,
        "front.html",
        title="The record",
        counts=sorted(counts_of(snapshot).items()),
        commits=by_commit(_recent(snapshot, teller)),
        clone=_clone(req),
        when_set=Moment.of(snapshot.commit.last_updated),
        read_at=shell.read_at(snapshot.commit),
    )


def _recent(snapshot: Snapshot, teller: Teller) -> list[Entry]:
    """What happened last; nothing for those who may not see what happens, or only after a long search."""
    try:
        found = snapshot.history(count=RECENT).versions
    except (NotFound, Forbidden, TooCostly):
        return []
    return [teller.entry(version) for version in found]


def _clone(req: Request) -> str | None:
    """What git clones from; None for who could not."""
    return f"{own_origin(req)}{prefix(req)}{CLONE}" if may_clone(req.principal) else None
