"""`git clone http://…/fhir.git`: git's smart HTTP for those who may see the whole record. docs/audit.md, "Clone"

https://git-scm.com/docs/gitprotocol-http
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import ExitStack
from threading import BoundedSemaphore
from typing import ClassVar

import falcon

from api import media
from api.credentials import CLONE, FETCH
from api.door import Door
from api.log import SERVER
from api.principal import Principal
from api.request import Request
from api.streaming import Stream
from gitstore import Forbidden, Invalid, Issue, Settings, StorageFailed, Store, Upload

MAX_REQUEST = 16 * 1024**2
"""Bytes of a request, unpacked: git names each object that it wants or has with some 50."""

RETRY_AFTER = 30
"""Seconds after which to try again where there are clones enough: they take their time."""

_PULL, _PUSH = "git-upload-pack", "git-receive-pack"
_ANNOUNCEMENT = b"001e# service=git-upload-pack\n0000"
_VERSION = re.compile("(?:^|:)version=([0-2])(?=:|$)")

_NEEDS = (
    "A clone holds every version of every resource. It needs the scopes `git-fhir/clone` and `git-fhir/history`, a scope that "
    "reads and searches everything (`user/*.rs`), and `git-fhir/withheld` where the server withholds labels."
)


def doors(store: Store, settings: Settings) -> dict[str, Door]:
    """By path, what git asks for."""
    clones = Clones(store, settings)
    return {
        f"{CLONE}/info/refs": RefsDoor(clones),
        FETCH: PullDoor(clones),
        f"{CLONE}/{_PUSH}": PushDoor(),
    }


class Clones:
    """The runs of git in this process: as many as fhir.maxClones, whoever asks, so that threads are left for FHIR."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._limit = settings.max_clones
        self._timeout = settings.clone_timeout
        self._places = BoundedSemaphore(settings.max_clones)

    def answer(self, req: Request, resp: falcon.Response, *, has_body: bool) -> None:
        """Send what git says to the body of the request, or without one what it says first.

        Raises Invalid, TooLarge, StorageFailed, falcon.HTTPError.
        """
        if not self._places.acquire(blocking=False):
            raise falcon.HTTPServiceUnavailable(
                description=f"As many clones and fetches as may be at once ({self._limit}) are under way; try again later.",
                retry_after=RETRY_AFTER,
            )
        with ExitStack() as held:
            held.callback(self._places.release)
            version = protocol(req.get_header("Git-Protocol") or "")
            body = media.body(req, MAX_REQUEST) if has_body else None
            upload = Upload(self._store.git_dir, body, timeout=self._timeout, version=version)
            held.callback(upload.close)
            first = self._first(req, upload, has_body=has_body)
            if not has_body and version < 2:
                first = _ANNOUNCEMENT + first
            pieces = _pieces(req, upload, first)
            held.callback(pieces.close)
            req.sending = resp.stream = Stream(pieces)
            req.sending.at_end(held.pop_all().close)

    def _first(self, req: Request, upload: Upload, *, has_body: bool) -> bytes:
        """What git says first, if anything: until then a failure can be told by the status."""
        try:
            first = next(upload, b"")
        except TimeoutError as error:
            raise falcon.HTTPServiceUnavailable(
                description=f"git had nothing to say for {self._timeout:g} s (fhir.cloneTimeout).",
                retry_after=RETRY_AFTER,
            ) from error
        if upload.failed and not first:
            if not has_body:
                raise StorageFailed(f"git upload-pack failed: {upload.said}")
            SERVER.info("git upload-pack: %s", upload.said, extra={"fields": {"requestId": req.request_id}})
            raise Invalid(Issue("error", "structure", "The body is not what git's protocol wants here."))
        return first


def _pieces(req: Request, upload: Upload, first: bytes) -> Generator[bytes]:
    """What git says, and a line in the log where that is not all."""
    fields = {"fields": {"requestId": req.request_id, "principal": req.principal.key}}
    try:
        if first:
            yield first
        yield from upload
    except TimeoutError:
        SERVER.warning("a clone took longer than fhir.cloneTimeout and was cut", extra=fields)
        raise
    except GeneratorExit:
        SERVER.info("who was cloning has gone", extra=fields)
        raise
    if upload.failed:
        SERVER.warning("git upload-pack failed: %s", upload.said, extra=fields)


def protocol(header: str) -> int:
    """The highest version that the header Git-Protocol names and that there is; 0 where it names none.

    https://git-scm.com/docs/gitprotocol-v2#_http_transport
    """
    return max(map(int, _VERSION.findall(header)), default=0)


def may_clone(principal: Principal) -> bool:
    """Whether the principal may clone, and may see all that a clone would show."""
    return "clone" in principal.roles and principal.access.sees_all


def _check(req: Request) -> None:
    """Raises Forbidden."""
    if not may_clone(req.principal):
        raise Forbidden(_NEEDS)


def _no_push(req: Request) -> Forbidden:
    return Forbidden(
        f"Nothing can be pushed here. Resources are written by FHIR's API at {req.base} or with `git fhir`; who has commits "
        "made by hand pushes them to the repository itself, on the machine where it lies."
    )


class RefsDoor(Door):
    """Where git begins: which branches and tags there are."""

    methods: ClassVar = ("GET",)
    name: ClassVar = "clone"

    def __init__(self, clones: Clones) -> None:
        self._clones = clones

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        service = req.get_param("service")
        if service == _PUSH:
            raise _no_push(req)
        if service != _PULL:
            raise Forbidden("This is git's smart protocol only; git speaks it since version 1.6.6.")
        _check(req)
        resp.content_type = f"application/x-{_PULL}-advertisement"
        self._clones.answer(req, resp, has_body=False)


class PullDoor(Door):
    """Where git asks for refs and objects."""

    methods: ClassVar = ("POST",)
    name: ClassVar = "clone"

    def __init__(self, clones: Clones) -> None:
        self._clones = clones

    def on_post(self, req: Request, resp: falcon.Response) -> None:
        _check(req)
        expected = f"application/x-{_PULL}-request"
        if (req.content_type or "").partition(";")[0].strip().lower() != expected:
            raise falcon.HTTPUnsupportedMediaType(description=f"A body of git's was expected: {expected}.")
        resp.content_type = f"application/x-{_PULL}-result"
        self._clones.answer(req, resp, has_body=True)
        if req.told is not None:
            req.told.more = True


class PushDoor(Door):
    """Where a push would go, if it were not refused before."""

    methods: ClassVar = ("POST",)
    name: ClassVar = "clone"

    def on_post(self, req: Request, _resp: falcon.Response) -> None:
        raise _no_push(req)
