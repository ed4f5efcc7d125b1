"""A replica passes on to the primary what it may not do itself, and answers what that one answers. docs/scaling.md says more.

The request is sent once: whether it has happened is known, or said to be unknown, and never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from threading import BoundedSemaphore
from urllib.parse import quote, urlsplit

import falcon
from msgspec import Struct

from api import log
from api.base import SAFE, Base
from api.request import Request
from gitstore import Cluster, Invalid, Issue, ReadOnly, Settings, TooLarge, Unavailable

WRITES = frozenset(
    {
        "create",
        "update",
        "patch",
        "delete",
        "batch",
        "transaction",
        "$meta-add",
        "$meta-delete",
        "$restore",
        "$revert",
    }
)
"""The interactions that change something, or may."""

PASSED_ON = "Git-Fhir-Passed-On"
"""Says that a replica has passed a request on. The next one doesn't."""

CONNECT = 3.0
"""Seconds in which the primary has to take the connection."""

ANSWER = 60.0
"""Seconds that it may have nothing to say, besides those for which it waits for locks and the hub: a large transaction
takes some.
"""

_PIECE = 64 * 1024
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1"""

_OURS = frozenset({"host", "content-length", "expect", "forwarded", "x-request-id", PASSED_ON.lower()})
"""Of a request: what this server says itself, besides X-Forwarded-…, of which only that counts which it believes."""

_NOT_THEIRS = frozenset({"content-length", "date", "server"})
"""Of an answer: what is made anew, besides Access-Control-…, as the origins are those of this server's pages."""


class _Answer(Struct, frozen=True):
    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Forwarding:
    """The way from a replica to the primary. Any thread may call."""

    def __init__(self, cluster: Cluster, settings: Settings, places: BoundedSemaphore) -> None:
        """Each request that is passed on takes one of `places`: a slow primary leaves threads to read with."""
        self._cluster = cluster
        self._most = max(settings.max_body, settings.max_bundle)
        self._patience = ANSWER + settings.lock_timeout + settings.hub_timeout
        self._places = places

    def pass_on(self, req: Request, resp: falcon.Response) -> None:
        """Answer what the primary answers to a write; on the primary, and where none is known, nothing happens here.

        Raises ReadOnly for what has been passed on before, Unavailable for what has not happened, TooLarge, Invalid,
        falcon.HTTPGatewayTimeout where nobody knows whether it has.
        """
        if self._cluster.role != "replica":
            return
        if req.get_header(PASSED_ON) is not None:
            raise ReadOnly("This node is a replica, and so is the one that took it for the primary.")
        url = self._cluster.known_primary()
        if url is None:
            return
        base = _known(url)
        if not self._places.acquire(blocking=False):
            raise Unavailable("As many writes as may be are being passed on to the primary already.")
        try:
            answer = self._exchange(req, base)
        finally:
            self._places.release()
        resp.status, resp.data = answer.status, answer.body
        for name in {name for name, _ in answer.headers} - {"set-cookie"}:
            resp.delete_header(name)
        for name, value in answer.headers:
            resp.append_header(name, value)
        req.passed_on = resp.complete = True
        req.html = False
        req.store.wrote = not answer.status.startswith("4")

    def _exchange(self, req: Request, base: Base) -> _Answer:
        pieces = _body(req, self._most)
        connection = base.connection(CONNECT)
        try:
            try:
                connection.connect()
            except OSError as error:
                raise _unreached(base, error) from error
            connection.sock.settimeout(self._patience)
            try:
                _send(connection, req, base, pieces)
            except OSError as error:
                # It may have been refused before its end. What has not come as a whole is not done.
                early = None if isinstance(error, TimeoutError) else _early(connection)
                if early is None:
                    raise _unreached(base, error) from error
                return early
            try:
                return _answer(connection.getresponse())
            except (OSError, HTTPException) as error:
                log.SERVER.warning("no answer of the primary at %s: %s", base, error)
                raise falcon.HTTPGatewayTimeout(
                    description="This was passed on to the primary, which has not answered: whether it has happened is not known."
                ) from error
        finally:
            connection.close()


def _known(url: str) -> Base:
    try:
        return Base.parse("fhir.primary", url)
    except Invalid as error:
        raise Unavailable("Where the primary is said to be, no server can be.") from error


def _unreached(base: Base, error: OSError) -> Unavailable:
    log.SERVER.warning("the primary at %s can't be reached: %s", base, error)
    return Unavailable("This node is a replica, and the primary can't be reached. Nothing has happened.")


def _body(req: Request, most: int) -> Iterator[bytes]:
    """The body in pieces, as it came: packed, if it was packed. Raises TooLarge, Invalid where some of it is missing."""
    length = req.content_length
    if length is None and req.env.get("wsgi.input_terminated"):
        data = req.stream.read(most + 1)
        req.env["CONTENT_LENGTH"], length = str(len(data)), len(data)
        return iter((data,) if length <= most else _refuse(most))
    if (length or 0) > most:
        _refuse(most)
    return _pieces(req, length or 0)


def _refuse(most: int) -> tuple[bytes]:
    raise TooLarge(f"The body is larger than the limit of {most} bytes.")


def _pieces(req: Request, left: int) -> Iterator[bytes]:
    while left:
        piece: bytes = req.bounded_stream.read(min(left, _PIECE))
        if not piece:
            raise Invalid(Issue("error", "incomplete", "The body ends before its Content-Length."))
        left -= len(piece)
        yield piece


def _send(connection: HTTPConnection, req: Request, base: Base, pieces: Iterator[bytes]) -> None:
    query = quote(req.query_string, safe=SAFE + '%?[]"<>\\^`{|}', encoding="latin-1")
    target = base.path + quote(req.path, safe=SAFE) + (f"?{query}" if query else "")
    connection.putrequest(req.method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in _headers(req, base).items():
        connection.putheader(name, value)
    connection.endheaders()
    for piece in pieces:
        connection.send(piece)


def _headers(req: Request, base: Base) -> dict[str, str]:
    named = _named(req.headers.get("CONNECTION", ""))
    headers = {
        name.title(): value
        for name, value in req.headers.items()
        if name.lower() not in _HOP_BY_HOP | _OURS | named and not name.lower().startswith("x-forwarded-")
    }
    if req.content_length is not None:
        headers["Content-Length"] = str(req.content_length)
    return headers | {
        "Host": base.netloc,
        "Connection": "close",
        "X-Request-Id": req.request_id,
        PASSED_ON: "1",
        **_forwarded(req, base),
    }


def _forwarded(req: Request, base: Base) -> dict[str, str]:
    """Where the client believes this server to be, for links that he can follow.

    What he himself says of that has been judged already, by `api.proxy`; the primary, which believes this node, must not
    believe it, too.
    """
    scheme, host, path, *_ = urlsplit(req.base)
    prefix = path.rpartition("/")[0].removesuffix(base.path)
    headers = {
        "X-Forwarded-For": req.remote_addr,
        "X-Forwarded-Proto": scheme,
        "X-Forwarded-Host": host,
    }
    return headers | ({"X-Forwarded-Prefix": prefix} if prefix else {})


def _named(connection: str) -> frozenset[str]:
    """The headers that a Connection header makes hop-by-hop."""
    return frozenset(name.strip().lower() for name in connection.split(","))


def _early(connection: HTTPConnection) -> _Answer | None:
    """An answer that came before the request's end; None where there is none."""
    connection.sock.settimeout(CONNECT)
    try:
        return _answer(connection.getresponse())
    except (OSError, HTTPException):
        return None


def _answer(response: HTTPResponse) -> _Answer:
    body = response.read()
    named = _named(response.headers.get("Connection", ""))
    headers = [
        (name.lower(), value)
        for name, value in response.headers.items()
        if name.lower() not in _HOP_BY_HOP | _NOT_THEIRS | named
        and not name.lower().startswith("access-control-")
    ]
    return _Answer(f"{response.status} {response.reason}", headers, body)
