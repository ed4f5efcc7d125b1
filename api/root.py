"""Many repositories in one server: the first segment of the path says which of them is meant.

What stands in front of the repository's own path goes to SCRIPT_NAME, of which all links are made. docs/many-repositories.md
https://peps.python.org/pep-3333/#environ-variables
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import falcon

from api import errors, media, proxy
from api.auth import host_name, is_loopback
from api.door import Door
from api.metrics import CONTENT_TYPE, ManyMetrics
from api.reception import Reception
from api.repositories import Lease, Repositories
from api.request import FHIR_JSON, Request
from gitstore import Forbidden, StoreError
from gitstore.fhir import json

LOOKS = 15.0
"""Seconds between looks for repositories to close."""

_REFUSAL = "git_fhir.refusal"
_THROUGH_PROXIES = (*proxy.HEADERS, "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "HTTP_VIA")


class Root:
    """The WSGI application in front of those of the repositories."""

    def __init__(self, repositories: Repositories, metrics: ManyMetrics) -> None:
        self._repositories = repositories
        self._own = own_app(repositories.folder, metrics)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path: str = environ["PATH_INFO"]
        if path.removesuffix("/") in DOORS:
            return self._own(environ, start_response)
        _, _, below = path.partition("/")
        name, slash, rest = below.partition("/")
        try:
            lease = self._repositories.lease(name)
        except StoreError as error:
            return self._own(environ | {_REFUSAL: error}, start_response)
        moved = {"SCRIPT_NAME": f"{environ.get('SCRIPT_NAME', '')}/{name}", "PATH_INFO": slash + rest}
        try:
            pieces = lease.application(environ | moved, start_response)
        except BaseException:
            lease.release()
            raise
        if isinstance(pieces, list):  # all of the answer is there
            lease.release()
            return pieces
        return _Sent(pieces, lease)


class _Sent:
    """An answer that is made while it is sent: its repository stays open until the server closes it."""

    def __init__(self, pieces: Iterable[bytes], lease: Lease) -> None:
        self._pieces = pieces
        self._lease = lease

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        try:
            close = getattr(self._pieces, "close", None)
            if close is not None:
                close()
        finally:
            self._lease.release()


@contextmanager
def swept(repositories: Repositories) -> Iterator[Repositories]:
    """While the block lasts, what is idle is closed; at its end everything is."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(LOOKS):
            repositories.close_idle()

    thread = threading.Thread(target=sweep, name="git-fhir repositories", daemon=True)
    thread.start()
    try:
        yield repositories
    finally:
        ended.set()
        thread.join()
        repositories.close()


# What is asked of the server itself


class Porch:
    """What happens to the requests that are of no repository: they are refused, or ask how the server is doing."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    def process_request(self, req: Request, resp: falcon.Response) -> None:
        self._reception.begin(req, resp)
        refusal = req.env.get(_REFUSAL)
        if refusal is not None:
            req.media_type = media.negotiate(req)
            raise refusal

    def process_resource(
        self, req: Request, _resp: falcon.Response, door: Door, params: Mapping[str, object]
    ) -> None:
        req.interaction = door.interaction(req.method, params)

    def process_response(self, req: Request, resp: falcon.Response, _door: object, _succeeded: bool) -> None:
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Cache-Control", "private, no-cache")
        if req.scheme == "https":
            resp.set_header(*proxy.HSTS)
        self._reception.end(req, resp)


class HealthDoor(Door):
    """Whether the process answers at all."""

    name: ClassVar = "health"

    def on_get(self, _req: Request, resp: falcon.Response) -> None:
        resp.content_type = "application/json"
        resp.data = b'{"status":"pass"}'

    on_head = on_get


class ReadyDoor(Door):
    """Whether requests should come here. How a repository is doing, its own /ready tells."""

    name: ClassVar = "ready"

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def on_get(self, _req: Request, resp: falcon.Response) -> None:
        is_ready = trouble(self._folder) is None
        resp.status = 200 if is_ready else 503
        resp.content_type = "application/json"
        state = "ok" if is_ready else "unavailable"
        resp.data = json.dumps({"status": state, "checks": {"root": state}})

    on_head = on_get


class MetricsDoor(Door):
    """The numbers of all workers, over all repositories. They name nobody; still they are for this machine alone."""

    name: ClassVar = "metrics"

    def __init__(self, folder: str, metrics: ManyMetrics) -> None:
        self._folder = folder
        self._metrics = metrics

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        if not is_from_here(req):
            raise Forbidden("The numbers of the whole server are told on its own machine alone.")
        resp.data = self._metrics.text(None, {"root": trouble(self._folder)})
        resp.content_type = CONTENT_TYPE

    on_head = on_get


DOORS = frozenset({"/health", "/ready", "/metrics"})


def own_app(folder: str, metrics: ManyMetrics) -> falcon.App[Request, falcon.Response]:
    """The application for what is of no repository."""
    doors: dict[str, Door] = {
        "/health": HealthDoor(),
        "/ready": ReadyDoor(folder),
        "/metrics": MetricsDoor(folder, metrics),
    }
    porch = Porch(Reception(lambda: secrets.token_hex(8), metrics))
    app = falcon.App(request_type=Request, middleware=[porch])
    app.req_options.strip_url_path_trailing_slash = True
    app.resp_options.default_media_type = FHIR_JSON
    for path, door in doors.items():
        app.add_route(path, door)
    errors.register(app, {path: door.allow() for path, door in doors.items()})
    return app


def trouble(folder: str) -> str | None:
    """What keeps the repositories of a folder from being found; None where nothing does."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return None


def is_from_here(req: Request) -> bool:
    """Whether somebody on this machine asks, under a name of it, and not for somebody elsewhere as a proxy does."""
    name = host_name(req.get_header("Host") or "")
    peer = req.env.get("REMOTE_ADDR", "")
    forwarded = any(header in req.env for header in _THROUGH_PROXIES)
    return is_loopback(peer) and name is not None and is_loopback(name) and not forwarded
