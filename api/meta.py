"""The operations `$meta`, `$meta-add` and `$meta-delete`: profiles, tags and security labels of resources.

https://hl7.org/fhir/R4/resource-operation-meta.html and what it links to. R4 has labels changed without a new version; here
each change of a resource is a version and a commit, as from R5 on, so that the record shows who labelled what.
"""

from __future__ import annotations

from typing import ClassVar

import falcon

from api import media
from api.conditions import version_tags_of
from api.endpoints import Endpoint
from api.labels import check_input, of_many, of_one
from api.reading import known_id, known_type, vread
from api.request import Request
from api.responses import body_after, describe, read_at, snapshot_after
from gitstore import Patch, relabelling


class MetaEndpoint(Endpoint):
    """`$meta` of a resource as it is now, or of one of its versions."""

    interactions: ClassVar = {"GET": ("$meta",), "POST": ("$meta",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str, vid: str | None = None) -> None:
        resource_id = known_id(type, id)
        req.parameters()
        snapshot = self.snapshot(req, resp)
        version = snapshot.read(resource_id) if vid is None else vread(snapshot, resource_id, vid)
        media.send(req, resp, of_one(snapshot.body(version)))

    on_head = on_get

    def on_post(
        self, req: Request, resp: falcon.Response, type: str, id: str, vid: str | None = None
    ) -> None:
        check_body(req, self.settings.max_body)
        self.on_get(req, resp, type, id, vid)


class MetaAddEndpoint(Endpoint):
    """`$meta-add`: the labels of the request, and those that are there. A past version can't be changed."""

    interactions: ClassVar = {"POST": ("$meta-add",)}
    operation: ClassVar = "$meta-add"

    def on_post(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        req.parameters()
        change = relabelling(self.operation, media.resource(req, self.settings.max_body))
        outcome = self.commit(req, Patch(resource_id, change, version_tags_of(req, "If-Match")))
        assert outcome.version is not None
        read_at(resp, outcome.version.commit)
        describe(req, resp, outcome.version)
        body = body_after(snapshot_after(req.store), outcome.version)
        if body is not None:
            media.send(req, resp, of_one(body))


class MetaDeleteEndpoint(MetaAddEndpoint):
    """`$meta-delete`: the labels that are there without those of the request."""

    interactions: ClassVar = {"POST": ("$meta-delete",)}
    operation: ClassVar = "$meta-delete"


class PastVersionEndpoint(Endpoint):
    """`$meta-add` and `$meta-delete` of one version: no method can change what has been."""


class ScopeMetaEndpoint(Endpoint):
    """`$meta` of a type and of everything: all labels that current resources have."""

    interactions: ClassVar = {"GET": ("$meta",), "POST": ("$meta",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str | None = None) -> None:
        if type is not None:
            known_type(type)
        req.parameters()
        with req.store.reading() as snapshot:
            read_at(resp, snapshot.commit)
            data = of_many(snapshot, type)
        media.send(req, resp, data)

    on_head = on_get

    def on_post(self, req: Request, resp: falcon.Response, type: str | None = None) -> None:
        check_body(req, self.settings.max_body)
        self.on_get(req, resp, type)


def check_body(req: Request, limit: int) -> None:
    """That the body is empty or Parameters without any. Raises Invalid."""
    data = media.body(req, limit)
    if data:
        check_input(media.parsed(media.content_type(req.content_type), data))
