"""From a Version to status, headers and body."""

from __future__ import annotations

from contextlib import ExitStack
from http import HTTPStatus
from typing import Any

import falcon

from api.errors import outcome_bytes
from api.log import SERVER
from api.media import XML_TYPES, send
from api.request import Preference, Request, http_date
from api.subsets import Subset
from gitstore import Commit, Issue, Outcome, Snapshot, StoreError, Version, View
from gitstore.fhir import json
from gitstore.fhir.conditions import format_etag
from gitstore.fhir.dates import format_instant

PAST_VERSION = "private, max-age=31536000, immutable"
"""Cache-Control of a version: it never changes, and it is nobody else's business."""

_WRITTEN = {201: "Created", 200: "Updated", 204: "Deleted"}


def location(base: str, version: Version) -> str:
    return f"{base}/{version}"


def status_line(status: int) -> str:
    """`201 Created`, as Bundle.entry.response.status has it."""
    return f"{status} {HTTPStatus(status).phrase}"


def read_at(resp: falcon.Response, commit: Commit) -> None:
    """Name the commit that an answer comes from, so that it can be cited."""
    resp.set_header("Git-Commit", commit.id)
    resp.context.came_from = commit


def came_from(resp: falcon.Response) -> Commit | None:
    """The commit that was named last, None where none was."""
    commit: Commit | None = resp.context.get("came_from")
    return commit


def describe(req: Request, resp: falcon.Response, version: Version) -> None:
    """The headers that tell which version an answer is about."""
    resp.set_header("ETag", format_etag(version.version_id))
    resp.set_header("Last-Modified", http_date(version.last_updated))
    if not version.deleted:
        resp.set_header("Content-Location", location(req.base, version))


def send_version(
    req: Request, resp: falcon.Response, snapshot: Snapshot, version: Version, part: Subset | None
) -> None:
    """Answer a read: the whole as JSON is the stored bytes as they lie. They are printed prettily already."""
    describe(req, resp, version)
    body = snapshot.body(version)
    send_stored(req, resp, body if part is None else json.dumps_pretty(part.of(json.loads_trusted(body))))


def send_stored(req: Request, resp: falcon.Response, body: bytes) -> None:
    """Answer with what is printed as the record has it, which `_pretty` need not print anew."""
    if req.media_type in XML_TYPES:
        send(req, resp, body)
    else:
        resp.content_type = req.media_type
        resp.data = body


def send_not_modified(req: Request, resp: falcon.Response, version: Version) -> None:
    describe(req, resp, version)
    resp.status = 304


def status_of_write(outcome: Outcome) -> int:
    """201 where a resource came into being, 204 where there is none now, 200 otherwise.

    https://hl7.org/fhir/R4/http.html#upsert
    """
    version = outcome.version
    if version is None or version.deleted:
        return 204
    return 201 if version.created and outcome.changed else 200


def outcome_of_write(outcome: Outcome) -> list[Issue]:
    """What `Prefer: return=OperationOutcome` is told: what has happened, and warnings about what was sent."""
    if outcome.version is None:
        text = "There was nothing to delete."
    elif outcome.others:
        text = f"Deleted: {1 + len(outcome.others)} resources."
    elif not outcome.changed:
        text = f"`{outcome.version}` was left as it is."
    else:
        text = f"{_WRITTEN[status_of_write(outcome)]}: `{outcome.version}`."
    return [Issue("information", "informational", text), *outcome.issues]


def snapshot_after(store: View, within: ExitStack | None = None) -> Snapshot | None:
    """The record for the answer to a write; None where it can't be read now: the write has happened all the same.

    With `within` it can be searched until that is closed.
    """
    try:
        return store.snapshot() if within is None else within.enter_context(store.reading())
    except StoreError as error:
        SERVER.error("after a write: %s: %s", type(error).__name__, error)
        return None


def body_after(snapshot: Snapshot | None, version: Version) -> bytes | None:
    """What a write left, or None where it can't be read now, as above, or not by the one who wrote it."""
    if snapshot is None or version.deleted:
        return None
    try:
        if not snapshot.is_seen(version):
            return None
        return snapshot.body(version)
    except StoreError as error:
        SERVER.error("after a write: %s: %s", type(error).__name__, error)
        return None


def send_written(
    req: Request, resp: falcon.Response, snapshot: Snapshot | None, outcome: Outcome, *, located: bool
) -> None:
    """Answer a write; with `located` the answer says where the resource is, also where it was there before.

    https://hl7.org/fhir/R4/http.html#prefer
    """
    version = outcome.version
    resp.status = status_of_write(outcome)
    if version is not None and outcome.changed:
        read_at(resp, version.commit)
    elif snapshot is not None:
        read_at(resp, snapshot.commit)
    if version is not None and not outcome.others:
        describe(req, resp, version)
        if located or resp.status == 201:
            resp.set_header("Location", location(req.base, version))
    wanted: Preference | None = req.preference()
    if wanted == "OperationOutcome":
        resp.status = 200 if resp.status == 204 else resp.status
        send(req, resp, outcome_bytes(outcome_of_write(outcome)))
    elif version is not None and wanted != "minimal":
        body = body_after(snapshot, version)
        if body is not None:
            send_stored(req, resp, body)


def entry_of(base: str, version: Version, status: int, body: bytes | None) -> dict[str, Any]:
    """A version as an entry of a response Bundle; `body` is the resource as it is stored, where it is wanted."""
    entry: dict[str, Any] = {}
    if body is not None:
        entry["fullUrl"] = f"{base}/{version.resource_id}"
        entry["resource"] = json.Raw(body)
    entry["response"] = {
        "status": status_line(status),
        "etag": format_etag(version.version_id),
        "lastModified": format_instant(version.last_updated),
    }
    return entry
