"""What each path of the route table answers. FHIR's word "resource" is taken, so Falcon's resources are Endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import falcon

from api import bundles, capabilities, history, media, subsets
from api.conditions import not_modified, tag_matches, version_tags_of
from api.reading import known_id, known_type, vread
from api.request import Request
from api.responses import (
    PAST_VERSION,
    read_at,
    send_not_modified,
    send_version,
    send_written,
    snapshot_after,
)
from gitstore import (
    Create,
    Delete,
    Invalid,
    Issue,
    NotSupported,
    Settings,
    Snapshot,
    Store,
    StoreError,
    Update,
    Version,
)
from gitstore.fhir.dates import SECOND

CLOCK_TOLERANCE = 5 * 60 * SECOND
"""How far lastUpdated may run ahead of the clock before the server stops calling itself healthy."""


@dataclass(frozen=True, slots=True)
class House:
    """What every endpoint works with. `interactions` are the codes that the route table as a whole offers."""

    store: Store
    settings: Settings
    clock: Callable[[], int]
    interactions: frozenset[str]


class Endpoint:
    """One path. `interactions` has FHIR's code for each method that works; the others answer 405 or, where FHIR
    defines them and they are not built yet, 501.
    """

    interactions: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(self, house: House) -> None:
        self.store = house.store
        self.settings = house.settings
        self.house = house

    @classmethod
    def allow(cls) -> str:
        """The value of an Allow header."""
        methods = set(cls.interactions) | {"OPTIONS"} | ({"HEAD"} if "GET" in cls.interactions else set())
        return ", ".join(sorted(methods))

    def on_options(self, _req: Request, resp: falcon.Response, **_path: str) -> None:
        resp.status = 204
        resp.set_header("Allow", self.allow())

    def snapshot(self, resp: falcon.Response) -> Snapshot:
        """The record now; the answer says which commit that is, also where it is an error."""
        snapshot = self.store.snapshot()
        read_at(resp, snapshot.commit)
        return snapshot

    def answer_read(
        self,
        req: Request,
        resp: falcon.Response,
        snapshot: Snapshot,
        version: Version,
        part: subsets.Subset | None,
    ) -> None:
        if not_modified(version, req.get_header("If-None-Match"), req.get_header("If-Modified-Since")):
            send_not_modified(req, resp, version)
        else:
            send_version(req, resp, snapshot, version, part)

    def answer_history(self, req: Request, resp: falcon.Response, scope: history.Scope) -> None:
        asked = history.question(req.parameters(*history.PARAMETERS, history.PAGE))
        snapshot = history.pinned(self.store, asked)
        read_at(resp, snapshot.commit)
        found = history.page(snapshot, scope, asked)
        path = f"{scope}/_history" if scope else "_history"
        media.send(req, resp, history.bundle(f"{req.base}/{path}", req.base, snapshot, asked, found))

    def write(self, req: Request, resp: falcon.Response, interaction: Create | Update | Delete) -> None:
        """Commit one create, update or delete, and answer with what became of it."""
        message = req.message()
        [outcome] = self.store.commit([interaction], req.author, request_id=req.request_id, message=message)
        send_written(req, resp, snapshot_after(self.store), outcome)


class SystemEndpoint(Endpoint):
    """The base itself: batch and transaction."""

    interactions: ClassVar = {"POST": ("transaction", "batch")}

    def on_post(self, req: Request, resp: falcon.Response) -> None:
        req.parameters()
        bundle = media.resource(req, self.settings.max_bundle)
        kind = bundles.check(bundle, self.settings.max_entries)
        caller = bundles.Caller(
            base=req.base,
            author=req.author,
            request_id=req.request_id,
            message=req.message(),
            preference=req.preference(),
            metadata=lambda: capabilities.statement(req.base, self.house.interactions).data,
        )
        process = bundles.transaction if kind == "transaction" else bundles.batch
        data, commit = process(self.store, bundle, caller)
        if commit is not None:
            read_at(resp, commit)
        media.send(req, resp, data)

    def on_get(self, _req: Request, _resp: falcon.Response) -> None:
        raise NotSupported("Search over all types is not built yet.")

    on_head = on_get


class CapabilitiesEndpoint(Endpoint):
    """https://hl7.org/fhir/R4/http.html#capabilities"""

    interactions: ClassVar = {"GET": ("capabilities",)}

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        mode = req.parameters("mode").get("mode", "full")
        if mode not in capabilities.MODES:
            raise Invalid(
                Issue("error", "value", f"`mode={mode[:80]}` is none of {', '.join(capabilities.MODES)}.")
            )
        statement = capabilities.statement(req.base, self.house.interactions)
        resp.set_header("ETag", statement.etag)
        if tag_matches(statement.tag, req.get_header("If-None-Match")):
            resp.status = 304
        else:
            media.send(req, resp, statement.data)

    on_head = on_get


class SystemHistoryEndpoint(Endpoint):
    interactions: ClassVar = {"GET": ("history-system",)}

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        self.answer_history(req, resp, None)

    on_head = on_get


class SearchEndpoint(Endpoint):
    """`_search` of the whole server, of a type, of a compartment."""

    def on_post(self, _req: Request, _resp: falcon.Response, **path: str) -> None:
        if "type" in path:
            known_type(path["type"])
        raise NotSupported("Search is not built yet.")


class TypeEndpoint(Endpoint):
    interactions: ClassVar = {"POST": ("create",)}

    def on_post(self, req: Request, resp: falcon.Response, type: str) -> None:
        known_type(type)
        req.parameters()
        if req.get_header("If-None-Exist") is not None:
            raise NotSupported("Conditional create is not built yet.")
        resource = media.resource(req, self.settings.max_body)
        if resource.get("resourceType") != type:
            text = (
                f"A `{type}` was expected: that is what the URL says, and `resourceType` has to say the same."
            )
            raise Invalid(Issue("error", "invalid", text, "resourceType"))
        self.write(req, resp, Create(resource))

    def on_get(self, _req: Request, _resp: falcon.Response, type: str) -> None:
        known_type(type)
        raise NotSupported("Search is not built yet.")

    on_head = on_get

    def _on_criteria(self, req: Request, _resp: falcon.Response, type: str) -> None:
        """Without criteria there is no such interaction, and with them it would need search."""
        known_type(type)
        if not req.query_string:
            raise falcon.HTTPMethodNotAllowed([])
        raise NotSupported(f"Conditional {req.method} is not built yet.")

    on_put = on_delete = on_patch = _on_criteria


class TypeHistoryEndpoint(Endpoint):
    interactions: ClassVar = {"GET": ("history-type",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str) -> None:
        self.answer_history(req, resp, known_type(type))

    on_head = on_get


class InstanceEndpoint(Endpoint):
    interactions: ClassVar = {"GET": ("read",), "PUT": ("update",), "DELETE": ("delete",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        part = subsets.subset(req.parameters(*subsets.PARAMETERS))
        snapshot = self.snapshot(resp)
        self.answer_read(req, resp, snapshot, snapshot.read(resource_id), part)

    on_head = on_get

    def on_put(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        req.parameters()
        update = Update(
            resource_id,
            media.resource(req, self.settings.max_body),
            if_match=version_tags_of(req, "If-Match"),
            if_none_match=version_tags_of(req, "If-None-Match"),
        )
        self.write(req, resp, update)

    def on_delete(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        req.parameters()
        self.write(req, resp, Delete(resource_id, if_match=version_tags_of(req, "If-Match")))

    def on_patch(self, _req: Request, _resp: falcon.Response, type: str, id: str) -> None:
        known_id(type, id)
        raise NotSupported("PATCH is not built yet.")

    def on_post(self, _req: Request, _resp: falcon.Response, type: str, id: str) -> None:
        known_id(type, id)
        raise falcon.HTTPMethodNotAllowed([])


class InstanceHistoryEndpoint(Endpoint):
    interactions: ClassVar = {"GET": ("history-instance",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        self.answer_history(req, resp, known_id(type, id))

    on_head = on_get


class VersionEndpoint(Endpoint):
    interactions: ClassVar = {"GET": ("vread",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str, vid: str) -> None:
        resource_id = known_id(type, id)
        part = subsets.subset(req.parameters(*subsets.PARAMETERS))
        snapshot = self.snapshot(resp)
        version = vread(snapshot, resource_id, vid)
        resp.set_header("Cache-Control", PAST_VERSION)
        self.answer_read(req, resp, snapshot, version, part)

    on_head = on_get


class CompartmentEndpoint(Endpoint):
    """`Patient/1/Observation`: a search. https://hl7.org/fhir/R4/http.html#vsearch"""

    def on_get(self, _req: Request, _resp: falcon.Response, type: str, id: str, name: str) -> None:
        known_id(type, id)
        if name != "*":
            known_type(name)
        raise NotSupported("Search is not built yet.")

    on_head = on_get

    def on_post(self, _req: Request, _resp: falcon.Response, type: str, id: str, name: str) -> None:
        known_id(type, id)
        known_type(name)
        raise falcon.HTTPMethodNotAllowed([])


class HealthEndpoint(Endpoint):
    """For load balancers and monitors: can the record be read? Says nothing about what is in it."""

    interactions: ClassVar = {"GET": ()}

    def on_get(self, _req: Request, resp: falcon.Response) -> None:
        try:
            ahead = self.store.snapshot().commit.last_updated - self.house.clock()
        except StoreError as error:
            raise falcon.HTTPServiceUnavailable(description=f"The record can't be read: {error}") from error
        if ahead > CLOCK_TOLERANCE:
            raise falcon.HTTPServiceUnavailable(
                description=f"The last commit is {ahead // SECOND} s ahead of this machine's clock."
            )
        resp.content_type = "application/json"
        resp.data = b'{"status":"pass"}'

    on_head = on_get
