"""A page for whatever has none of its own: errors, and the answers of operations. It is made of the JSON that was to be sent."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import falcon

from api import pages
from api.html import shell
from api.html.links import Links
from api.html.summaries import title
from api.html.values import groups_of
from api.request import FHIR_JSON, Request
from gitstore.fhir import Resource, json
from gitstore.fhir.ids import is_id

MAX_ENTRIES = 1000
_NOTHING = frozenset({"resourceType"})


def dress(req: Request, resp: falcon.Response) -> None:
    """Make an answer in FHIR's JSON a page; others stay what they are, such as a Binary's content.

    A page has no ETag: it shows more than the version that it is about.
    """
    if resp.data is not None and resp.content_type == FHIR_JSON:
        _make(req, resp, resp.data)
    if resp.content_type == pages.HTML:
        for header in ("ETag", "Last-Modified", "Content-Location"):
            resp.delete_header(header)


def _make(req: Request, resp: falcon.Response, data: bytes) -> None:
    resource: Resource = json.loads_trusted(data)
    kind = resource.get("resourceType")
    if kind == "OperationOutcome":
        _send_outcome(req, resp, resource)
    elif kind == "Bundle":
        _send_bundle(req, resp, resource)
    elif kind == "CapabilityStatement":
        _send_capabilities(req, resp, resource)
    else:
        links = Links.of(req)
        shell.send(
            req,
            resp,
            "anything.html",
            title=title(resource, links) or str(kind or "Answer"),
            groups=groups_of(resource, links, _NOTHING),
        )


def _send_outcome(req: Request, resp: falcon.Response, resource: Resource) -> None:
    """An error, or what an operation says about something."""
    status = resp.status_code
    shell.send(
        req,
        resp,
        "outcome.html",
        title=HTTPStatus(status).phrase if status >= 400 else "Outcome",
        status=status,
        issues=resource.get("issue", []),
        gone=_history_of(req) if status == 410 else None,
        request_id=req.request_id,
    )


def _history_of(req: Request) -> str | None:
    """Where the history of what is gone is; None where who asks may not see it."""
    parts = req.path.removeprefix("/fhir/").split("/")
    if not req.store.access.history or len(parts) < 2 or not is_id(parts[1]):
        return None
    return f"{Links.of(req).path}/{parts[0]}/{parts[1]}/_history"


def _send_bundle(req: Request, resp: falcon.Response, resource: Resource) -> None:
    links = Links.of(req)
    entries = resource.get("entry", [])
    shell.send(
        req,
        resp,
        "bundle.html",
        title=f"Bundle of {len(entries)} entries",
        kind=resource.get("type", ""),
        rows=[_row(entry, links) for entry in entries[:MAX_ENTRIES]],
        more=max(len(entries) - MAX_ENTRIES, 0),
        relations={
            each["relation"]: links.here(each["url"]) for each in resource.get("link", []) if "url" in each
        },
    )


def _row(entry: dict[str, Any], links: Links) -> dict[str, Any]:
    resource = entry.get("resource") or {}
    name = f"{resource.get('resourceType', '')}/{resource.get('id', '')}"
    if not resource:
        name = str(entry.get("fullUrl", "")).removeprefix(f"{links.base}/")
    version = resource.get("meta", {}).get("versionId", "")
    deleted = str(entry.get("response", {}).get("status", "")).startswith("204")
    return {
        "name": name,
        "href": f"{links.path}/{name}/_history" if deleted else links.reference(name),
        "title": title(resource, links),
        "version": version,
        "status": "deleted" if deleted else entry.get("response", {}).get("status", ""),
        "mode": entry.get("search", {}).get("mode", ""),
    }


def _send_capabilities(req: Request, resp: falcon.Response, resource: Resource) -> None:
    """What this server can do: a table of the types instead of pages of parameters."""
    links = Links.of(req)
    [rest] = resource["rest"]
    shell.send(
        req,
        resp,
        "capabilities.html",
        title="What this server can do",
        groups=groups_of({**resource, "rest": []}, links, _NOTHING | {"rest", "id"}),
        types=[
            {
                "type": each["type"],
                "interactions": ", ".join(one["code"] for one in each.get("interaction", [])),
                "parameters": ", ".join(one["name"] for one in each.get("searchParam", [])),
            }
            for each in rest.get("resource", [])
        ],
        system=", ".join(one["code"] for one in rest.get("interaction", [])),
        operations=[one["name"] for one in rest.get("operation", [])],
    )
