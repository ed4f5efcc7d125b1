"""What each path of the route table answers. FHIR's word "resource" is taken, so Falcon's resources are Endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import falcon

from api import binary, bundles, capabilities, history, media, once, replication, search, subsets
from api.conditions import criteria_of_header, not_modified, tag_matches, version_tags_of
from api.reading import known_id, known_type, scope_of, vread
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
    Attest,
    Commit,
    Create,
    Criteria,
    Delete,
    Invalid,
    Issue,
    Outcome,
    Patch,
    Settings,
    Snapshot,
    Store,
    StoreError,
    Update,
    Version,
    patching,
)
from gitstore.fhir.dates import SECOND
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId

CLOCK_TOLERANCE = 5 * 60 * SECOND
"""How far lastUpdated may run ahead of the clock before the server stops calling itself healthy."""


@dataclass(frozen=True, slots=True)
class House:
    """What every endpoint works with. `interactions` are the codes that the route table as a whole offers."""

    store: Store
    settings: Settings
    clock: Callable[[], int]
    interactions: frozenset[str]

    def statement(self, base: str) -> capabilities.Statement:
        parameters = tuple(
            parameter for type in RESOURCE_TYPES for parameter in self.store.search_parameters(type).values()
        )
        return capabilities.statement(
            base,
            self.interactions,
            parameters,
            cors=bool(self.settings.cors_origin),
            conditional_delete=self.settings.conditional_delete,
            replication=self.settings.replication == "accept",
            enforced=self.settings.referential_integrity == "enforce",
        )


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
        content = binary.content(req, snapshot, version, part=part is not None)
        if not_modified(version, req.get_header("If-None-Match"), req.get_header("If-Modified-Since")):
            send_not_modified(req, resp, version)
        elif content is not None:
            binary.send(req, resp, version, content)
        else:
            send_version(req, resp, snapshot, version, part)

    def answer_history(self, req: Request, resp: falcon.Response, scope: history.Scope) -> None:
        asked = history.question(req.parameters(*history.PARAMETERS, history.PAGE))
        snapshot = history.pinned(self.store, asked)
        read_at(resp, snapshot.commit)
        found = history.page(snapshot, scope, asked)
        path = f"{scope}/_history" if scope else "_history"
        media.send(req, resp, history.bundle(f"{req.base}/{path}", req.base, snapshot, asked, found))

    def is_strict(self, req: Request) -> bool:
        """Whether a search refuses parameters that it doesn't know. https://hl7.org/fhir/R4/search.html#errors"""
        return (req.handling() or self.settings.search_handling) == "strict"

    def answer_search(self, req: Request, resp: falcon.Response, scope: search.Scope) -> None:
        given = [*search.pairs(req.query_string), *req.form]
        asked = search.question(scope, given, strict=self.is_strict(req))
        with self.store.reading() as snapshot:
            read_at(resp, snapshot.commit)
            found = search.page(snapshot, asked, req.base)
            read_at(resp, found.commit)
            data = search.bundle(req.base, snapshot, asked, found)
        media.send(req, resp, data)

    def update(self, req: Request, target: ResourceId | Criteria) -> Update:
        limit = self.settings.max_body
        id = target.id if isinstance(target, ResourceId) else None
        resource = binary.resource(req, limit, id) if target.type == "Binary" else media.resource(req, limit)
        return Update(
            target,
            resource,
            if_match=version_tags_of(req, "If-Match"),
            if_none_match=version_tags_of(req, "If-None-Match"),
        )

    def patch(self, req: Request, target: ResourceId | Criteria) -> Patch:
        document = media.patch_document(req, self.settings.max_body)
        change = patching(document, self.settings.patch_narrative)
        return Patch(target, change, version_tags_of(req, "If-Match"))

    def write(
        self, req: Request, resp: falcon.Response, interaction: Create | Update | Patch | Delete
    ) -> None:
        """Commit one write, and answer with what became of it."""
        outcome = self.commit(req, interaction)
        located = isinstance(interaction, Create)
        send_written(req, resp, snapshot_after(self.store), outcome, located=located)

    def commit(self, req: Request, interaction: Create | Update | Patch | Delete) -> Outcome:
        """What became of one write, with the Provenance that the request may bring."""
        provenance = req.provenance()
        outcome, *_ = self.store.commit(
            [interaction] if provenance is None else [interaction, Attest(provenance)],
            req.author,
            request_id=req.request_id,
            message=req.message(),
            idempotency=once.idempotency(req) if req.method == "POST" else None,
        )
        return outcome


class SystemEndpoint(Endpoint):
    """The base itself: batch and transaction, and the search over all types."""

    interactions: ClassVar = {"GET": ("search-system",), "POST": ("transaction", "batch")}

    def on_post(self, req: Request, resp: falcon.Response) -> None:
        req.parameters()
        bundle = media.resource(req, self.settings.max_bundle)
        if replication.is_history(bundle):
            self._answer_batch(req, resp, *replication.accept(req, self.store, self.settings, bundle))
            return
        kind = bundles.check(bundle, self.settings.max_entries)
        caller = bundles.Caller(
            base=req.base,
            author=req.author,
            request_id=req.request_id,
            message=req.message(),
            provenance=req.provenance(),
            idempotency=once.idempotency(req),
            preference=req.preference(),
            strict=self.is_strict(req),
            judge=self.store.canonicals.issues,
            narrative=self.settings.patch_narrative,
            metadata=lambda: self.house.statement(req.base).data,
        )
        process = bundles.transaction if kind == "transaction" else bundles.batch
        self._answer_batch(req, resp, *process(self.store, bundle, caller))

    def _answer_batch(self, req: Request, resp: falcon.Response, data: bytes, commit: Commit | None) -> None:
        if commit is not None:
            read_at(resp, commit)
        media.send(req, resp, data)

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        self.answer_search(req, resp, scope_of())

    on_head = on_get


class CapabilitiesEndpoint(Endpoint):
    """https://hl7.org/fhir/R4/http.html#capabilities"""

    interactions: ClassVar = {"GET": ("capabilities",)}

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        parameters = req.parameters("mode", *subsets.PARAMETERS)
        mode = parameters.get("mode", "full")
        if mode not in capabilities.MODES:
            raise Invalid(
                Issue("error", "value", f"`mode={mode[:80]}` is none of {', '.join(capabilities.MODES)}.")
            )
        part = subsets.subset(parameters)
        statement = self.house.statement(req.base)
        resp.set_header("ETag", statement.etag)
        if tag_matches(statement.tag, req.get_header("If-None-Match")):
            resp.status = 304
        else:
            media.send(req, resp, statement.body(part))

    on_head = on_get


class SystemHistoryEndpoint(Endpoint):
    interactions: ClassVar = {"GET": ("history-system",)}

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        self.answer_history(req, resp, None)

    on_head = on_get


class SearchEndpoint(Endpoint):
    """`_search` of the whole server, of a type, of a compartment: its parameters stand in a form, in the URL, or in both."""

    interactions: ClassVar = {"POST": ("search-system", "search-type")}

    def on_post(self, req: Request, resp: falcon.Response, **path: str) -> None:
        scope = scope_of(**path)
        req.form = search.pairs_of_form(req)
        req.media_type = media.negotiate(req)
        self.answer_search(req, resp, scope)


class TypeEndpoint(Endpoint):
    interactions: ClassVar = {"GET": ("search-type",), "POST": ("create",)}

    def on_post(self, req: Request, resp: falcon.Response, type: str) -> None:
        known_type(type)
        req.parameters()
        unless = criteria_of_header(req, type, req.base)
        read = binary.resource if type == "Binary" else media.resource
        resource = read(req, self.settings.max_body)
        if resource.get("resourceType") != type:
            text = (
                f"A `{type}` was expected: that is what the URL says, and `resourceType` has to say the same."
            )
            raise Invalid(Issue("error", "invalid", text, "resourceType"))
        self.write(req, resp, Create(resource, unless=unless))

    def on_get(self, req: Request, resp: falcon.Response, type: str) -> None:
        self.answer_search(req, resp, scope_of(type))

    on_head = on_get

    # https://hl7.org/fhir/R4/http.html#cond-update

    def on_put(self, req: Request, resp: falcon.Response, type: str) -> None:
        self.write(req, resp, self.update(req, self._criteria(req, type)))

    def on_patch(self, req: Request, resp: falcon.Response, type: str) -> None:
        self.write(req, resp, self.patch(req, self._criteria(req, type)))

    def on_delete(self, req: Request, resp: falcon.Response, type: str) -> None:
        criteria = self._criteria(req, type)
        self.write(req, resp, Delete(criteria, if_match=version_tags_of(req, "If-Match")))

    def _criteria(self, req: Request, type: str) -> Criteria:
        """What the URL selects. Without criteria there is no such interaction: a type is never wiped."""
        known_type(type)
        if not req.query_string:
            raise falcon.HTTPMethodNotAllowed([])
        return Criteria.parse(type, req.query_string, (req.base,))


class TypeHistoryEndpoint(Endpoint):
    interactions: ClassVar = {"GET": ("history-type",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str) -> None:
        self.answer_history(req, resp, known_type(type))

    on_head = on_get


class InstanceEndpoint(Endpoint):
    interactions: ClassVar = {
        "GET": ("read",),
        "PUT": ("update",),
        "PATCH": ("patch",),
        "DELETE": ("delete",),
    }

    def on_options(self, _req: Request, resp: falcon.Response, **path: str) -> None:
        super().on_options(_req, resp, **path)
        resp.set_headers(media.ACCEPT_PATCH)

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        part = subsets.subset(req.parameters(*subsets.PARAMETERS))
        snapshot = self.snapshot(resp)
        self.answer_read(req, resp, snapshot, snapshot.read(resource_id), part)

    on_head = on_get

    def on_put(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        req.parameters()
        self.write(req, resp, self.update(req, resource_id))

    def on_delete(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        req.parameters()
        self.write(req, resp, Delete(resource_id, if_match=version_tags_of(req, "If-Match")))

    def on_patch(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        req.parameters()
        self.write(req, resp, self.patch(req, resource_id))

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
    """`Patient/1/Observation` and `Patient/1/*`: searches. https://hl7.org/fhir/R4/http.html#vsearch"""

    interactions: ClassVar = {"GET": ("search-type",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str, name: str) -> None:
        self.answer_search(req, resp, scope_of(type, id, name))

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
