"""The operation `$meta`: profiles, tags and security labels. https://hl7.org/fhir/R4/resource-operation-meta.html"""

from __future__ import annotations

from typing import ClassVar

import falcon

from api import media
from api.endpoints import Endpoint
from api.reading import known_id, known_type, vread
from api.request import Request
from api.responses import read_at
from gitstore import Invalid, Issue
from gitstore.fhir import Resource, json
from gitstore.fhir.dates import format_instant

SHOWN = ("versionId", "lastUpdated", "profile", "security", "tag")
"""Of `meta`. The first two are always there, so that the Meta which is returned is never empty: FHIR has no empty ones."""


class MetaEndpoint(Endpoint):
    """`$meta` of a resource as it is now, or of one of its versions."""

    interactions: ClassVar = {"GET": ("$meta",), "POST": ("$meta",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str, vid: str | None = None) -> None:
        resource_id = known_id(type, id)
        req.parameters()
        snapshot = self.snapshot(resp)
        version = snapshot.read(resource_id) if vid is None else vread(snapshot, resource_id, vid)
        meta = json.loads_trusted(snapshot.body(version))["meta"]
        shown = {name: meta[name] for name in SHOWN if name in meta}
        media.send(req, resp, returned(shown))

    on_head = on_get

    def on_post(
        self, req: Request, resp: falcon.Response, type: str, id: str, vid: str | None = None
    ) -> None:
        check_body(req, self.settings.max_body)
        self.on_get(req, resp, type, id, vid)


class ScopeMetaEndpoint(Endpoint):
    """`$meta` of a type and of everything: all labels that current resources have."""

    interactions: ClassVar = {"GET": ("$meta",), "POST": ("$meta",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str | None = None) -> None:
        if type is not None:
            known_type(type)
        req.parameters()
        with self.store.reading() as snapshot:
            read_at(resp, snapshot.commit)
            labels = snapshot.labels(type)
        instant = format_instant(snapshot.commit.last_updated)
        media.send(req, resp, returned({"lastUpdated": instant, **labels}))

    on_head = on_get

    def on_post(self, req: Request, resp: falcon.Response, type: str | None = None) -> None:
        check_body(req, self.settings.max_body)
        self.on_get(req, resp, type)


def check_body(req: Request, limit: int) -> None:
    """That the body is empty or Parameters without any, as `$meta` has no input. Raises Invalid."""
    data = media.body(req, limit)
    body = media.parsed(media.content_type(req.content_type), data) if data else {}
    if body.get("resourceType", "Parameters") != "Parameters" or body.get("parameter"):
        raise Invalid(Issue("error", "not-supported", "$meta has no parameters; the body may be empty."))


def returned(meta: Resource) -> bytes:
    """The Parameters that answer the operation."""
    parameter = {"name": "return", "valueMeta": meta}
    return json.dumps({"resourceType": "Parameters", "parameter": [parameter]})
