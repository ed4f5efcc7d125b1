"""The application: a route table in front of a Store."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from functools import partial

import falcon

from api import as_of, binary, clone, cors, errors, media, proxy
from api.audit import BlameEndpoint, ChangesEndpoint, InstanceDiffEndpoint, SystemDiffEndpoint
from api.auth import check_host
from api.awaiting import LONGEST, Awaiting
from api.confirming import Confirming
from api.credentials import Credentials, is_clone
from api.door import Door
from api.endpoints import (
    CapabilitiesEndpoint,
    CompartmentEndpoint,
    Endpoint,
    House,
    InstanceEndpoint,
    InstanceHistoryEndpoint,
    SearchEndpoint,
    SystemEndpoint,
    SystemHistoryEndpoint,
    TypeEndpoint,
    TypeHistoryEndpoint,
    VersionEndpoint,
)
from api.forwarding import Forwarding
from api.health import HealthEndpoint, MetricsEndpoint, ReadyEndpoint
from api.html import anything, asking
from api.html.places import CommitEndpoint, HomeEndpoint, PastEndpoint
from api.journaling import Journaling
from api.limits import InFlight, Places
from api.login import doors, to_login
from api.meta import MetaAddEndpoint, MetaDeleteEndpoint, MetaEndpoint, PastVersionEndpoint, ScopeMetaEndpoint
from api.metrics import Metrics
from api.operations import EverythingEndpoint, InstanceValidateEndpoint, ValidateEndpoint
from api.reception import Reception
from api.request import FHIR_JSON, METHODS, Request
from api.restoring import RestoreEndpoint, RevertEndpoint
from api.routing import Router
from api.told import Told
from api.waking import PATH as WAKE
from api.waking import WakeDoor
from gitstore import PATIENCE, Access, Journal, Settings, Store, View, now

BASE_PATH = "/fhir"

ROUTES: tuple[tuple[str, type[Endpoint]], ...] = (
    ("/health",                              HealthEndpoint),
    ("/ready",                               ReadyEndpoint),
    ("/metrics",                             MetricsEndpoint),
    ("/",                                    HomeEndpoint),
    ("/at",                                  PastEndpoint),
    ("/commits/{id}",                        CommitEndpoint),
    ("/fhir",                                SystemEndpoint),
    ("/fhir/metadata",                       CapabilitiesEndpoint),
    ("/fhir/_history",                       SystemHistoryEndpoint),
    ("/fhir/_search",                        SearchEndpoint),
    ("/fhir/$meta",                          ScopeMetaEndpoint),
    ("/fhir/$diff",                          SystemDiffEndpoint),
    ("/fhir/$changes",                       ChangesEndpoint),
    ("/fhir/$revert",                        RevertEndpoint),
    ("/fhir/{type}",                         TypeEndpoint),
    ("/fhir/{type}/_history",                TypeHistoryEndpoint),
    ("/fhir/{type}/_search",                 SearchEndpoint),
    ("/fhir/{type}/$validate",               ValidateEndpoint),
    ("/fhir/{type}/$meta",                   ScopeMetaEndpoint),
    ("/fhir/{type}/{id}",                    InstanceEndpoint),
    ("/fhir/{type}/{id}/_history",           InstanceHistoryEndpoint),
    ("/fhir/{type}/{id}/_history/{vid}",     VersionEndpoint),
    ("/fhir/{type}/{id}/_history/{vid}/$meta", MetaEndpoint),
    ("/fhir/{type}/{id}/_search",            SearchEndpoint),
    ("/fhir/{type}/{id}/$validate",          InstanceValidateEndpoint),
    ("/fhir/{type}/{id}/$meta",              MetaEndpoint),
    ("/fhir/{type}/{id}/$meta-add",          MetaAddEndpoint),
    ("/fhir/{type}/{id}/$meta-delete",       MetaDeleteEndpoint),
    ("/fhir/{type}/{id}/_history/{vid}/$meta-add",    PastVersionEndpoint),
    ("/fhir/{type}/{id}/_history/{vid}/$meta-delete", PastVersionEndpoint),
    ("/fhir/{type}/{id}/$everything",        EverythingEndpoint),
    ("/fhir/{type}/{id}/$diff",              InstanceDiffEndpoint),
    ("/fhir/{type}/{id}/$blame",             BlameEndpoint),
    ("/fhir/{type}/{id}/$restore",           RestoreEndpoint),
    ("/fhir/{type}/{id}/{name}",             CompartmentEndpoint),
    ("/fhir/{type}/{id}/{name}/_search",     SearchEndpoint),
)  # fmt: skip

OPEN = frozenset(path for path, kind in ROUTES if kind.open)
"""What is answered to those who don't say who they are."""

UNNAMED = ("/health", "/ready", WAKE)
"""What is answered under any name: monitors and other nodes call by address."""


class Gate:
    """What happens to every request before its endpoint, and to every answer after it."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        credentials: Credentials | None,
        new_request_id: Callable[[], str],
        metrics: Metrics,
        doors: Collection[str],
        *,
        is_journaled: bool,
        patience: float,
        awaiting: Awaiting,
        forwarding: Forwarding | None,
    ) -> None:
        """`doors` are paths beside FHIR's interface that are open to everyone. `patience`: see `create_app`."""
        self._patience = patience
        self._awaiting = awaiting
        self._forwarding = forwarding
        self._store = store
        self._credentials = credentials
        self._opened = OPEN | frozenset(doors)
        self._formless = frozenset(("/metrics", *doors))
        self._nothing = View(store, Access((), history=False))
        self._is_journaled = is_journaled
        # Who is not known must come under a name of ours: no credentials keep foreign pages out.
        names = frozenset(name.lower() for name in settings.host_name)
        self._host_names = names if credentials is None or credentials.allow_anonymous else None
        self._in_flight = InFlight(settings.max_in_flight)
        self._base_url = settings.base_url.rstrip("/") if settings.base_url else None
        self._proxies = proxy.networks(settings.trusted_proxy)
        self._reception = Reception(new_request_id, metrics)

    def process_request(self, req: Request, resp: falcon.Response) -> None:
        self._reception.begin(req, resp)
        req.store = self._nothing
        if req.path in UNNAMED:
            return
        as_of.turn(req)
        host = req.get_header("Host")
        check_host(host, self._host_names)
        req.base = self._base_url or self._base_for_client(req, host)
        if req.path not in self._formless and not is_clone(req.path):  # which have a format of their own
            self._negotiate(req)
        if req.method not in METHODS:
            raise falcon.HTTPNotImplemented(description=f"`{req.method[:40]}` is no method known here.")
        req.told = Told(req.base) if self._is_journaled else None
        if req.at is not None:
            req.base = as_of.base_at(req.base, req.at)
        if self._credentials is None:
            req.store = View(self._store, noted=req.told)
        elif (req.at is not None or req.path not in self._opened) and req.method != "OPTIONS":
            self._let_in(req, self._credentials)
        if req.at is not None and req.method != "OPTIONS":
            self._awaiting.wait(req)
            as_of.enter(req, resp, self._store, self._patience)

    def _negotiate(self, req: Request) -> None:
        """Find out in which form to answer. Raises falcon.HTTPNotAcceptable."""
        req.doors = self._credentials is not None
        if asking.wants_page(req):
            asking.prepare(req)
        else:
            req.media_type = binary.negotiate(req) if binary.is_read(req) else media.negotiate(req)

    def _let_in(self, req: Request, credentials: Credentials) -> None:
        """Find out who asks. Raises falcon.HTTPError, or the way to the login for a person at a browser."""
        try:
            principal = credentials.principal(req)
        except falcon.HTTPUnauthorized:
            login = to_login(req)
            if login is None:
                raise
            raise login from None
        req.principal = principal
        req.store = View(self._store, principal.access, principal.agent, req.told)
        if principal.kind != "anonymous":
            self._in_flight.enter(principal.key)
            req.entered = True

    def _base_for_client(self, req: Request, host: str | None) -> str:
        """The service base as the client of a proxy has to call it. Raises Invalid, falcon.HTTPError 421.

        Host is checked as well as what is forwarded: a page in a browser on the proxy's machine could send both.
        """
        seen = proxy.public(req.env, self._proxies)
        if seen.host is not None:
            check_host(seen.host, self._host_names)
        return f"{seen.scheme or req.scheme}://{seen.host or host}{seen.prefix}{req.root_path}{BASE_PATH}"

    def process_resource(
        self, req: Request, resp: falcon.Response, endpoint: Endpoint | Door, params: dict[str, object]
    ) -> None:
        req.interaction = endpoint.interaction(req.method, params)
        req.named = params
        if req.at is not None:
            as_of.check(req, resp, endpoint.allow())
            return
        if self._forwarding is not None and endpoint.writes(req.method):
            self._forwarding.pass_on(req, resp)
        if not resp.complete and req.path not in self._opened and req.method != "OPTIONS":
            self._awaiting.wait(req)

    def process_response(
        self, req: Request, resp: falcon.Response, _endpoint: object, _succeeded: bool
    ) -> None:
        if req.html:
            anything.dress(req, resp)
        if not req.passed_on and (resp.data is not None or resp.status_code == 304):
            resp.append_header("Vary", "Accept, Accept-Encoding")
            media.compress(req, resp)
        resp.set_header("X-Content-Type-Options", "nosniff")
        if (
            resp.content_type in media.XML_TYPES
        ):  # which browsers show, with the scripts of what nobody has validated
            resp.set_header("Content-Security-Policy", "sandbox; default-src 'none'")
        if proxy.is_secure(req.env, self._proxies):
            resp.set_header(*proxy.HSTS)
        if resp.get_header("Cache-Control") is None or resp.status_code >= 400:
            # Without a word a cache may guess from Last-Modified; the record of a patient is not for guessing.
            resp.set_header("Cache-Control", "private, no-cache")
        stream = req.sending
        if stream is not None and resp.stream is stream and resp.data is None:
            stream.at_end(partial(self._end, req, resp))
            return
        if stream is not None:  # something has failed since
            stream.close()
        self._end(req, resp)

    def _end(self, req: Request, resp: falcon.Response) -> None:
        """All that will be sent is made: the request is no longer under way."""
        if req.entered:
            self._in_flight.leave(req.principal.key)
        self._reception.end(req, resp)


def create_app(
    store: Store,
    settings: Settings | None = None,
    *,
    credentials: Credentials | None = None,
    new_request_id: Callable[[], str] = lambda: secrets.token_hex(8),
    clock: Callable[[], int] = now,
    metrics: Metrics | None = None,
    journal: Journal | None = None,
    patience: float = PATIENCE,
    longest_wait: float = LONGEST,
    places: Places | None = None,
) -> falcon.App[Request, falcon.Response]:
    """The WSGI application over `store`. `clock` gives microseconds since 1970.

    `credentials` tell who a request is from; without them everyone may do everything.
    `journal` gets a line for each request. `metrics` should be the store's observer, too; without them there are new ones.
    `patience` are the seconds that a search of the past waits for what it needs, before it is answered 202, `longest_wait`
    those for a commit that a request names. `places` are those that threads share with others of the process.
    Raises Invalid for settings that can't be meant.
    """
    settings = settings or Settings()
    metrics = metrics or Metrics()
    # Answers pass them the other way round: Vary and all else is complete when the Gate writes the log.
    pages = cors.Cors(cors.origins(settings.cors_origin))
    beside: dict[str, Door] = {} if credentials is None else doors(credentials)
    beside[WAKE] = WakeDoor(store)
    places = places or Places.of()
    gate = Gate(
        store,
        settings,
        credentials,
        new_request_id,
        metrics,
        beside,
        is_journaled=journal is not None,
        patience=patience,
        awaiting=Awaiting(store, longest_wait, places.waiting),
        forwarding=Forwarding(store.cluster, settings, places.passing) if store.cluster is not None else None,
    )
    middleware: list[Gate | Journaling | Confirming | cors.Cors] = [gate, pages]
    if store.cluster is not None:
        middleware.insert(1, Confirming(store))
    if journal is not None:
        middleware.insert(1, Journaling(journal, metrics))
    app = falcon.App(request_type=Request, middleware=middleware, router=Router())
    app.req_options.strip_url_path_trailing_slash = True
    app.resp_options.default_media_type = FHIR_JSON
    codes = frozenset(code for _, kind in ROUTES for each in kind.interactions.values() for code in each)
    house = House(store, settings, clock, codes, metrics, credentials)
    for path, kind in ROUTES:
        app.add_route(path, kind(house))
    others = beside | clone.doors(store, settings)
    for path, door in others.items():
        app.add_route(path, door)
    allowed = {path: kind.allow() for path, kind in ROUTES}
    errors.register(app, allowed | {path: door.allow() for path, door in others.items()})
    return app
