"""The operations `$meta`, `$meta-add` and `$meta-delete`: profiles, tags and security labels of resources.

https://hl7.org/fhir/R4/resource-operation-meta.html and what it links to. R4 has labels changed without a new version; here
each change of a resource is a version and a commit, as from R5 on, so that the record shows who labelled what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import falcon

from api import media
from api.conditions import version_tags_of
from api.endpoints import Endpoint
from api.labels import of_many, returned, shown
from api.reading import known_id, known_type, vread
from api.request import Request
from api.responses import body_after, describe, read_at, snapshot_after
from gitstore import Invalid, Issue, Patch
from gitstore.fhir import Resource


class MetaEndpoint(Endpoint):
    """`$meta` of a resource as it is now, or of one of its versions."""

    interactions: ClassVar = {"GET": ("$meta",), "POST": ("$meta",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str, vid: str | None = None) -> None:
        resource_id = known_id(type, id)
        req.parameters()
        snapshot = self.snapshot(resp)
        version = snapshot.read(resource_id) if vid is None else vread(snapshot, resource_id, vid)
        media.send(req, resp, returned(shown(snapshot.body(version))))

    on_head = on_get

    def on_post(
        self, req: Request, resp: falcon.Response, type: str, id: str, vid: str | None = None
    ) -> None:
        check_body(req, self.settings.max_body)
        self.on_get(req, resp, type, id, vid)


class MetaAddEndpoint(Endpoint):
    """`$meta-add`: the labels of the request, and those that are there. A past version can't be changed."""

    interactions: ClassVar = {"POST": ("$meta-add",)}

    def on_post(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        req.parameters()
        given = _labels_of(media.resource(req, self.settings.max_body))

        def change(resource: Resource) -> tuple[Resource, Sequence[Issue]]:
            meta = dict(resource["meta"])
            for name, labels in given.items():
                meta[name] = self.changed(meta.get(name, []), labels)
            return {**resource, "meta": {name: value for name, value in meta.items() if value}}, ()

        outcome = self.commit(req, Patch(resource_id, change, version_tags_of(req, "If-Match")))
        assert outcome.version is not None
        read_at(resp, outcome.version.commit)
        describe(req, resp, outcome.version)
        body = body_after(snapshot_after(self.store), outcome.version)
        if body is not None:
            media.send(req, resp, returned(shown(body)))

    def changed(self, labels: list[Any], given: list[Any]) -> list[Any]:
        known = {_key(label) for label in labels}
        return labels + [label for label in given if _key(label) not in known]


class MetaDeleteEndpoint(MetaAddEndpoint):
    """`$meta-delete`: the labels that are there without those of the request."""

    interactions: ClassVar = {"POST": ("$meta-delete",)}

    def changed(self, labels: list[Any], given: list[Any]) -> list[Any]:
        unwanted = {_key(label) for label in given}
        return [label for label in labels if _key(label) not in unwanted]


class PastVersionEndpoint(Endpoint):
    """`$meta-add` and `$meta-delete` of one version: no method can change what has been."""


def _key(label: Any) -> Any:
    """What makes a label the same: a profile's URL; of a tag system and code, and not its version or display."""
    return (label.get("system"), label.get("code")) if isinstance(label, dict) else label


def _labels_of(parameters: Resource) -> dict[str, list[Any]]:
    """The profiles, tags and security labels in Parameters with one `meta`; what else is in that Meta doesn't count.

    Raises Invalid.
    """
    given = parameters.get("parameter")
    if (
        parameters.get("resourceType") == "Parameters"
        and isinstance(given, list)
        and len(given) == 1
        and isinstance(given[0], dict)
        and given[0].get("name") == "meta"
        and isinstance(meta := given[0].get("valueMeta"), dict)
    ):
        labels = {name: meta[name] for name in ("profile", "security", "tag") if name in meta}
        if all(isinstance(each, list) and _are_labels(name, each) for name, each in labels.items()):
            return labels
    text = "Expected Parameters with one parameter `meta`, a Meta with lists of profiles, tags or security labels."
    raise Invalid(Issue("error", "invalid", text, "Parameters.parameter"))


def _are_labels(name: str, labels: list[Any]) -> bool:
    wanted = str if name == "profile" else dict
    return all(isinstance(label, wanted) for label in labels)


class ScopeMetaEndpoint(Endpoint):
    """`$meta` of a type and of everything: all labels that current resources have."""

    interactions: ClassVar = {"GET": ("$meta",), "POST": ("$meta",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str | None = None) -> None:
        if type is not None:
            known_type(type)
        req.parameters()
        with self.store.reading() as snapshot:
            read_at(resp, snapshot.commit)
            data = of_many(snapshot, type)
        media.send(req, resp, data)

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
