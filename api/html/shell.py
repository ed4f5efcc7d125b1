"""What every page has around it: who is asking, the ways out, and the commit that it was read at."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import falcon

from api import pages
from api.html.links import Links
from api.html.stories import MARKS
from api.origin import SAFE, place
from api.request import Request, pairs
from gitstore import Commit

STYLE = "record.css"


def send(req: Request, resp: falcon.Response, template: str, *, title: str, **values: Any) -> None:
    """Answer with a page of api/templates. Caches are told what they are told of JSON: ask each time."""
    links = Links.of(req)
    pages.send(
        resp,
        template,
        style=STYLE,
        title=title,
        links=links,
        root=links.root,
        fhir=links.path,
        here=place(req),
        at=req.at,
        now=_now(req),
        who=_who(req),
        past=req.store.access.history,
        whole=req.store.access.is_full,
        marks=MARKS,
        as_json=as_format(req, "json"),
        as_xml=as_format(req, "xml"),
        **{"read_at": None, **values},
    )
    resp.set_header("Cache-Control", "private, no-cache")


def _now(req: Request) -> str:
    """The same place of the record as it is now."""
    return place(req).replace(f"/at/{quote(req.at, safe=SAFE)}/", "/", 1) if req.at else ""


def as_format(req: Request, name: str) -> str:
    """The same URL for FHIR's own form of it."""
    given = [each for each in pairs(req.query_string) if each[0] != "_format"]
    return f"{place(req).partition('?')[0]}?{urlencode([*given, ('_format', name)], safe=':/,$*')}"


def _who(req: Request) -> dict[str, Any] | None:
    """Who is asking; None where nobody is asked."""
    if not req.doors:
        return None
    principal = req.principal
    return {
        "name": "" if principal.kind == "anonymous" else principal.author.name,
        "email": principal.author.email,
        "session": principal.kind == "session",
    }


def read_at(commit: Commit) -> dict[str, str]:
    return {"id": commit.id, "short": commit.id[:10]}
