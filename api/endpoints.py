"""What each path of the route table answers. FHIR's word "resource" is taken, so Falcon's resources are Endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import falcon
from msgspec import Struct

from api import (
    audit_events,
    binary,
    bundles,
    capabilities,
    history,
    media,
    once,
    replication,
    search,
    searchable,
    smart,
    subsets,
)
from api.as_of import READS
from api.conditions import criteria_of_header, not_modified, tag_matches, version_tags_of
from api.confirming import narrow, narrow_to_deletion
from api.credentials import Credentials
from api.forwarding import WRITES
from api.html import front, record, searching
from api.html.links import Links
from api.html.stories import Teller
from api.metrics import OTHER, Metrics
from api.reading import known_id, known_type, scope_of, vread
from api.request import Request
from api.responses import (
    PAST_VERSION,
    describe,
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
    Gone,
    Interaction,
    Invalid,
    Issue,
    Outcome,
    Patch,
    Settings,
    Snapshot,
    Store,
    Update,
    Version,
    View,
    patching,
)
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId


class House(Struct, frozen=True):
    """What every endpoint works with. `interactions` are the codes that the route table as a whole offers."""

    store: Store
    settings: Settings
    clock: Callable[[], int]
    interactions: frozenset[str]
    metrics: Metrics
    credentials: Credentials | None = None

    def statement(self, base: str, past: View | None = None) -> capabilities.Statement:
        """What can be done under a base: with the record as it is, or only asked of the past."""
        store = past or self.store
        cluster = self.store.cluster
        parameters = tuple(
            parameter for type in RESOURCE_TYPES for parameter in store.search_parameters(type).values()
        )
        return capabilities.statement(
            base,
            self.interactions if past is None else self.interactions & READS,
            parameters,
            cors=bool(self.settings.cors_origin),
            conditional_delete=self.settings.conditional_delete,
            replication=self.settings.history_bundles == "accept" and past is None,
            enforced=self.settings.referential_integrity == "enforce",
            reads_only=cluster is not None and cluster.role == "replica" and cluster.known_primary() is None,
            authentication=self.credentials is not None and not self.credentials.allow_anonymous,
            oauth=smart.oauth_uris(self.credentials.jwts) if self.credentials is not None else None,
        )


class Endpoint:
    """One path. `interactions` has FHIR's code for each method that works; the others answer 405 or, where FHIR
    defines them and they are not built yet, 501.
    """

    interactions: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    unlisted: ClassVar[Mapping[str, str]] = {}
    """The codes of methods that the path answers only for some queries."""

    name: ClassVar[str] = OTHER
    """For logs and metrics, where FHIR has no code."""

    open: ClassVar[bool] = False
    """Whether it is answered to those who don't say who they are."""

    def __init__(self, house: House) -> None:
        self.settings = house.settings
        self.house = house

    @classmethod
    def allow(cls) -> str:
        """The value of an Allow header."""
        methods = set(cls.interactions) | {"OPTIONS"} | ({"HEAD"} if "GET" in cls.interactions else set())
        return ", ".join(sorted(methods))

    @classmethod
    def writes(cls, method: str) -> bool:
        """Whether a method may change the record."""
        codes = (*cls.interactions.get(method, ()), cls.unlisted.get(method, ""))
        return not WRITES.isdisjoint(codes)

    @classmethod
    def interaction(cls, method: str, path: Mapping[str, object]) -> str:
        """FHIR's code for what is asked with a method, `path` being the parts of the path that vary; or the name."""
        codes = cls.interactions.get("GET" if method == "HEAD" else method, ())
        if len(codes) == 1:
            return codes[0]
        search = "search-type" if "type" in path else "search-system"
        return search if search in codes else cls.unlisted.get(method, cls.name)

    def on_options(self, _req: Request, resp: falcon.Response, **_path: str) -> None:
        resp.status = 204
        resp.set_header("Allow", self.allow())

    def snapshot(self, req: Request, resp: falcon.Response) -> Snapshot:
        """The record now; the answer says which commit that is, also where it is an error."""
        snapshot = req.store.snapshot()
        read_at(resp, snapshot.commit)
        return snapshot

    def teller(self, req: Request, snapshot: Snapshot) -> Teller:
        """For pages: what versions and commits have to tell."""
        full = req.store.access.is_full
        return Teller(snapshot, self.house.store.message, Links.of(req), sees_all=full)

    def answer_read(
        self,
        req: Request,
        resp: falcon.Response,
        snapshot: Snapshot,
        version: Version,
        part: subsets.Subset | None,
    ) -> None:
        content = binary.content(req, snapshot, version, part=part is not None)
        if req.html and content is None:
            describe(req, resp, version)
            record.send_version(req, resp, snapshot, version, self.teller(req, snapshot))
            return
        narrow(resp, self.house.store.cluster, snapshot.commit, version.commit)
        if not_modified(version, req.get_header("If-None-Match"), req.get_header("If-Modified-Since")):
            send_not_modified(req, resp, version)
        elif content is not None:
            binary.send(req, resp, version, content)
        else:
            send_version(req, resp, snapshot, version, part)

    def answer_history(self, req: Request, resp: falcon.Response, scope: history.Scope) -> None:
        given = req.parameters(*history.PARAMETERS, history.PAGE)
        asked = history.question(history.filled(given) if req.html else given)
        snapshot = history.pinned(req.store, asked)
        read_at(resp, snapshot.commit)
        found = history.page(snapshot, scope, asked)
        if req.html:
            record.send_history(req, resp, snapshot, scope, asked, found, self.teller(req, snapshot))
            return
        path = f"{scope}/_history" if scope else "_history"
        media.send(req, resp, history.bundle(f"{req.base}/{path}", req.base, snapshot, asked, found))

    def is_strict(self, req: Request) -> bool:
        """Whether a search refuses parameters that it doesn't know. https://hl7.org/fhir/R4/search.html#errors"""
        return (req.handling() or self.settings.search_handling) == "strict"

    def answer_search(self, req: Request, resp: falcon.Response, scope: search.Scope) -> None:
        given = [*search.pairs(req.query_string), *req.form]
        if req.html:  # whose form sends what was left empty
            given = [(name, value) for name, value in given if value]
        if self._has_accesses(req) and scope == search.Scope(audit_events.TYPE):
            audit_events.send_search(req, resp, self.house.store.git_dir, given)
            return
        asked = search.question(scope, given, strict=self.is_strict(req))
        with req.store.reading() as snapshot:
            read_at(resp, snapshot.commit)
            found = search.page(snapshot, asked, *req.bases)
            read_at(resp, found.commit)
            if req.html:
                kinds = {each.code: each.kind for each in self._parameters(req, scope)}
                searching.send_search(req, resp, snapshot, asked, found, kinds)
                return
            data = search.bundle(req.base, snapshot, asked, found)
        media.send(req, resp, data)

    def _has_accesses(self, req: Request) -> bool:
        """Whether the access journal answers for AuditEvents; the past has those alone that the record had."""
        return self.settings.audit_events == "on" and req.at is None

    def _parameters(self, req: Request, scope: search.Scope) -> Iterable[searchable.Parameter]:
        return req.store.search_parameters(scope.type).values() if scope.type else ()

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

    def write(self, req: Request, resp: falcon.Response, interaction: Interaction) -> None:
        """Commit one write, and answer with what became of it."""
        outcome = self.commit(req, interaction)
        located = isinstance(interaction, Create)
        send_written(req, resp, snapshot_after(req.store), outcome, located=located)

    def commit(self, req: Request, interaction: Interaction) -> Outcome:
        """What became of one write, with the Provenance that the request may bring."""
        provenance = req.provenance()
        outcome, *_ = req.store.commit(
            [interaction] if provenance is None else [interaction, Attest(provenance)],
            req.author,
            request_id=req.request_id,
            message=req.message(),
            idempotency=once.idempotency(req) if req.method == "POST" else None,
        )
        return outcome


def _asks(req: Request) -> bool:
    """Whether there is anything in the query but the form of the answer."""
    return any(value and name != "_format" for name, value in search.pairs(req.query_string))


class SystemEndpoint(Endpoint):
    """The base itself: batch and transaction, and the search over all types."""

    interactions: ClassVar = {"GET": ("search-system",), "POST": ("transaction", "batch")}

    def on_post(self, req: Request, resp: falcon.Response) -> None:
        req.parameters()
        bundle = media.bundle(req, self.settings.max_bundle)
        if replication.is_history(bundle):
            req.interaction = "replication"
            self._answer_batch(req, resp, *replication.accept(req, self.settings, bundle))
            return
        kind = req.interaction = bundles.check(bundle, self.settings.max_entries)
        caller = bundles.Caller(
            base=req.base,
            author=req.author,
            request_id=req.request_id,
            message=req.message(),
            provenance=req.provenance(),
            idempotency=once.idempotency(req),
            preference=req.preference(),
            strict=self.is_strict(req),
            judge=req.store.canonicals.issues,
            narrative=self.settings.patch_narrative,
            metadata=lambda: self.house.statement(req.base).data,
        )
        process = bundles.transaction if kind == "transaction" else bundles.batch
        self._answer_batch(req, resp, *process(req.store, bundle, caller))

    def _answer_batch(self, req: Request, resp: falcon.Response, data: bytes, commit: Commit | None) -> None:
        if commit is not None:
            read_at(resp, commit)
        media.send(req, resp, data)

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        if req.html and not _asks(req):
            snapshot = self.snapshot(req, resp)
            front.send_front(req, resp, snapshot, self.teller(req, snapshot))
        else:
            self.answer_search(req, resp, scope_of())

    on_head = on_get


class CapabilitiesEndpoint(Endpoint):
    """https://hl7.org/fhir/R4/http.html#capabilities"""

    interactions: ClassVar = {"GET": ("capabilities",)}
    open = True

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        parameters = req.parameters("mode", *subsets.PARAMETERS)
        mode = parameters.get("mode", "full")
        if mode not in capabilities.MODES:
            raise Invalid(
                Issue("error", "value", f"`mode={mode[:80]}` is none of {', '.join(capabilities.MODES)}.")
            )
        part = subsets.subset(parameters)
        statement = self.house.statement(req.base, req.store if req.at is not None else None)
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
    unlisted: ClassVar = {"PUT": "update", "PATCH": "patch", "DELETE": "delete"}

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
        if self._has_accesses(req) and audit_events.is_access(resource_id):
            audit_events.send_read(req, resp, self.house.store.git_dir, id)
            return
        snapshot = self.snapshot(req, resp)
        try:
            version = snapshot.read(resource_id)
        except Gone as gone:
            narrow_to_deletion(resp, self.house.store.cluster, snapshot, resource_id, gone)
            raise
        self.answer_read(req, resp, snapshot, version, part)

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
        snapshot = self.snapshot(req, resp)
        try:
            version = vread(snapshot, resource_id, vid)
        except Gone as gone:
            narrow_to_deletion(resp, self.house.store.cluster, snapshot, resource_id, gone)
            raise
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
