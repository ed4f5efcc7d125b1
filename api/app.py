"""The application: a route table in front of a Store."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable

import falcon

from api import binary, cors, errors, log, media, proxy
from api.auth import author_of, check_host
from api.endpoints import (
    CapabilitiesEndpoint,
    CompartmentEndpoint,
    Endpoint,
    HealthEndpoint,
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
from api.meta import MetaAddEndpoint, MetaDeleteEndpoint, MetaEndpoint, PastVersionEndpoint, ScopeMetaEndpoint
from api.operations import EverythingEndpoint, InstanceValidateEndpoint, ValidateEndpoint
from api.request import FHIR_JSON, Request, request_id
from gitstore import Settings, Store

BASE_PATH = "/fhir"

ROUTES: tuple[tuple[str, type[Endpoint]], ...] = (
    ("/health",                              HealthEndpoint),
    ("/fhir",                                SystemEndpoint),
    ("/fhir/metadata",                       CapabilitiesEndpoint),
    ("/fhir/_history",                       SystemHistoryEndpoint),
    ("/fhir/_search",                        SearchEndpoint),
    ("/fhir/$meta",                          ScopeMetaEndpoint),
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
    ("/fhir/{type}/{id}/{name}",             CompartmentEndpoint),
    ("/fhir/{type}/{id}/{name}/_search",     SearchEndpoint),
)  # fmt: skip

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")

_UNSEEN = re.compile(r"[^\x20-\x7e]")


class Gate:
    """What happens to every request before its endpoint, and to every answer after it."""

    def __init__(self, settings: Settings, new_request_id: Callable[[], str]) -> None:
        self._host_names = frozenset(name.lower() for name in settings.host_name)
        self._base_url = settings.base_url.rstrip("/") if settings.base_url else None
        self._proxies = proxy.networks(settings.trusted_proxy)
        self._new_request_id = new_request_id

    def process_request(self, req: Request, resp: falcon.Response) -> None:
        req.started = time.perf_counter()
        self._name(req, resp)
        req.author = author_of(req)
        if req.path == "/health":
            return
        host = req.get_header("Host")
        check_host(host, self._host_names)
        req.base = self._base_url or self._base_for_client(req, host)
        req.media_type = binary.negotiate(req) if binary.is_read(req) else media.negotiate(req)
        if req.method not in METHODS:
            raise falcon.HTTPNotImplemented(description=f"`{req.method[:40]}` is no method known here.")

    def _base_for_client(self, req: Request, host: str | None) -> str:
        """The service base as the client of a proxy has to call it. Raises Invalid, falcon.HTTPError 421.

        Host is checked as well as what is forwarded: a page in a browser on the proxy's machine could send both.
        """
        seen = proxy.public(req.env, self._proxies)
        if seen.host is not None:
            check_host(seen.host, self._host_names)
        return f"{seen.scheme or req.scheme}://{seen.host or host}{seen.prefix}{BASE_PATH}"

    def _name(self, req: Request, resp: falcon.Response) -> None:
        """Give the request its id: the client's, or ours where that one could not stand in a commit.

        https://hl7.org/fhir/R4/http.html#custom
        """
        given = req.get_header("X-Request-Id")
        req.request_id = request_id(given) or self._new_request_id()
        resp.set_header("X-Request-Id", req.request_id)
        if given and given != req.request_id:
            resp.set_header("X-Correlation-Id", _UNSEEN.sub("?", given)[:200])

    def process_response(
        self, req: Request, resp: falcon.Response, _endpoint: object, _succeeded: bool
    ) -> None:
        if resp.data is not None or resp.status_code == 304:
            resp.append_header("Vary", "Accept, Accept-Encoding")
            media.compress(req, resp)
        resp.set_header("X-Content-Type-Options", "nosniff")
        if resp.get_header("Cache-Control") is None or resp.status_code >= 400:
            # Without a word a cache may guess from Last-Modified; the record of a patient is not for guessing.
            resp.set_header("Cache-Control", "private, no-cache")
        log.access(
            request_id=req.request_id,
            author=req.author.name,
            method=req.method,
            path=req.path,
            status=resp.status_code,
            milliseconds=(time.perf_counter() - req.started) * 1000,
            size=0 if resp.data is None or req.method == "HEAD" else len(resp.data),
        )


def create_app(
    store: Store,
    settings: Settings | None = None,
    *,
    new_request_id: Callable[[], str] = lambda: secrets.token_hex(8),
    clock: Callable[[], int] = lambda: time.time_ns() // 1000,
) -> falcon.App[Request, falcon.Response]:
    """The WSGI application over `store`. `clock` gives microseconds since 1970, for /health alone.

    Raises Invalid for settings that can't be meant.
    """
    settings = settings or Settings()
    # Answers pass them the other way round: Vary and all else is complete when the Gate writes the log.
    pages = cors.Cors(cors.origins(settings.cors_origin))
    middleware: list[Gate | cors.Cors] = [Gate(settings, new_request_id), pages]
    app = falcon.App(request_type=Request, middleware=middleware)
    app.req_options.strip_url_path_trailing_slash = True
    app.resp_options.default_media_type = FHIR_JSON
    codes = frozenset(code for _, kind in ROUTES for each in kind.interactions.values() for code in each)
    house = House(store, settings, clock, codes)
    for path, kind in ROUTES:
        app.add_route(path, kind(house))
    errors.register(app, {path: kind.allow() for path, kind in ROUTES})
    return app
