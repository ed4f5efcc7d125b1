"""Paths beside FHIR's, for people alone: the way in, and a commit with everything that it changed."""

from __future__ import annotations

import re
from typing import ClassVar
from urllib.parse import quote

import falcon

from api.endpoints import Endpoint
from api.html import shell
from api.html.links import Links
from api.html.stories import Moment
from api.request import Request
from api.responses import read_at
from gitstore import Commit, Invalid, Issue, NotFound

PER_PAGE = 100
"""Changes that one page of a commit shows."""

MOST = 40
"""Differences of one of them."""

_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)


class HomeEndpoint(Endpoint):
    """`/`: it leads a browser to the record, and is nothing to a program."""

    interactions: ClassVar = {"GET": ()}
    name: ClassVar = "page"

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        if not req.html:
            raise falcon.HTTPRouteNotFound
        resp.status = 303
        resp.set_header("Location", Links.of(req).path)

    on_head = on_get


class PastEndpoint(Endpoint):
    """`/at?point=`: what the form on the front page asks for, led to `/at/{point}/fhir`."""

    interactions: ClassVar = {"GET": ()}
    name: ClassVar = "page"

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        point = req.parameters("point").get("point", "").strip()
        if not point:
            raise Invalid(Issue("error", "required", "A point of the record is needed, such as a day."))
        resp.status = 303
        resp.set_header("Location", f"{Links.of(req).root}/at/{quote(point, safe='')}/fhir")

    on_head = on_get


class CommitEndpoint(Endpoint):
    """`/commits/{id}`: a unit of work with everything that it changed, as far as who asks may see it."""

    interactions: ClassVar = {"GET": ()}
    name: ClassVar = "page"

    def on_get(self, req: Request, resp: falcon.Response, id: str) -> None:
        if not req.html:
            raise falcon.HTTPNotAcceptable(description="This is a page for people, as text/html only.")
        number = _number(req.parameters("page").get("page", "1"))
        commit = self._commit(id)
        snapshot = req.store.snapshot().at(commit)
        teller = self.teller(req, snapshot)
        made = [each for each in snapshot.changes(commit) if snapshot.permits("s", each.resource_id)]
        access = req.store.access
        if not access.is_full and not (made and access.history):
            raise NotFound(_unknown(id))
        read_at(resp, commit)
        shown = made[(number - 1) * PER_PAGE : number * PER_PAGE]
        shell.send(
            req,
            resp,
            "commit.html",
            title=f"Commit {commit.id[:10]}",
            commit=commit,
            when_set=Moment.of(commit.last_updated),
            why=teller.why(commit),
            entries=[teller.entry(version, most=MOST) for version in shown],
            total=len(made),
            number=number,
            pages=-(-len(made) // PER_PAGE),
            read_at=shell.read_at(commit),
        )

    on_head = on_get

    def _commit(self, id: str) -> Commit:
        """A commit of the record by its whole id. Raises NotFound, as for one of which nothing may be seen."""
        if not _ID.fullmatch(id):
            raise NotFound(_unknown(id))
        try:
            return self.house.store.resolve(id)
        except NotFound as error:
            raise NotFound(_unknown(id)) from error


def _unknown(id: str) -> str:
    return f"`{id[:80]}` is no commit of the record."


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise Invalid(Issue("error", "value", f"`page={text[:80]}` is no number of a page."))
    return int(text)
