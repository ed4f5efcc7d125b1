"""A small client of etcd, over the JSON that its port for clients speaks: leases, and keys that go with them.

https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/, https://etcd.io/docs/v3.4/dev-guide/api_reference_v3/
"""

from __future__ import annotations

import base64
import http.client
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from gitstore import Invalid
from gitstore.fhir import json

_LARGEST = 64 * 1024
"""Bytes of an answer. What is asked here is told in a few hundred."""

_NOT_FOUND, _UNAUTHENTICATED = 5, 16
"""https://grpc.github.io/grpc/core/md_doc_statuscodes.html"""

_PORTS = {"http": 80, "https": 443}

_Told = TypeVar("_Told")


class EtcdError(Exception):
    """etcd did not do what it was asked; the text says which endpoint, and why. It never holds a password."""


class EtcdUnreachable(EtcdError):
    """No endpoint answered in time. What was asked may have happened all the same."""


class EtcdRefused(EtcdError):
    """etcd answered, and said no; `code` is gRPC's, None where the answer is not one of etcd's."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class _Unable(http.client.HTTPException):
    """A member has no leader, or is too slow. Another one may know better."""


class Lease(Struct, frozen=True):
    """A promise of etcd's to keep what was written under it, for `ttl` seconds from now."""

    id: int
    ttl: float


class Held(Struct, frozen=True):
    """A key that is there: what stands in it, and the lease that it goes with (0: with none)."""

    value: str
    lease: int


@dataclass(frozen=True, slots=True)
class _Endpoint:
    tls: bool
    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Etcd:
    """The endpoints of one etcd, tried in turn, beginning with the one that answered last. For one thread at a time."""

    def __init__(
        self,
        urls: Sequence[str],
        timeout: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timeout` is in seconds, for a whole call: the endpoints share it.

        A URL is `http://host:port` or https, with `user:password@` where etcd asks for them. Certificates are checked
        against the system's authorities, or those in SSL_CERT_FILE. Raises Invalid for what is no such URL.
        """
        self._endpoints = [_endpoint(url) for url in urls]
        self._timeout = timeout
        self._clock = clock
        self._tls = ssl.create_default_context() if any(each.tls for each in self._endpoints) else None
        self._tokens: dict[_Endpoint, str] = {}

    def grant(self, ttl: int) -> Lease:
        """A new lease of `ttl` seconds, or longer where etcd gives none so short."""
        return self._ask(
            "lease/grant", {"TTL": str(ttl)}, lambda told: Lease(int(told["ID"]), float(told["TTL"]))
        )

    def keep_alive(self, lease: int) -> float | None:
        """Renew a lease. The seconds that it has from now, None where it is gone."""
        ttl = self._ask("lease/keepalive", {"ID": str(lease)}, lambda told: int(told["result"].get("TTL", 0)))
        return ttl or None

    def revoke(self, lease: int) -> None:
        """End a lease, and with it all keys under it. One that is gone already is no error."""
        try:
            self._ask("lease/revoke", {"ID": str(lease)}, bool)
        except EtcdRefused as refusal:
            if refusal.code != _NOT_FOUND:
                raise

    def get(self, key: str) -> Held | None:
        """What a majority of etcd's members holds under a key; None where it isn't there."""
        return self._ask("kv/range", {"key": _encode(key)}, _first)

    def create(self, key: str, value: str, lease: int) -> Held:
        """Write a key if it isn't there. Returns what is there afterwards, whoever wrote it."""
        asked = {"key": _encode(key)}
        transaction = {
            "compare": [{**asked, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
            "success": [{"request_put": {**asked, "value": _encode(value), "lease": str(lease)}}],
            "failure": [{"request_range": asked}],
        }
        return self._ask(
            "kv/txn",
            transaction,
            lambda told: (
                Held(value, lease)
                if told.get("succeeded")
                else _held(told["responses"][0]["response_range"]["kvs"][0])
            ),
        )

    def delete(self, key: str) -> bool:
        """Take a key away, whoever wrote it. Returns whether it was there."""
        return self._ask(
            "kv/deleterange", {"key": _encode(key)}, lambda told: int(told.get("deleted", 0)) > 0
        )

    # The wire

    def _ask(self, what: str, body: Mapping[str, Any], read: Callable[[Any], _Told]) -> _Told:
        """What `read` makes of the answer. Numbers of 64 bits come as strings, and what is 0 or empty does not come at all.

        Raises EtcdUnreachable, EtcdRefused.
        """
        deadline = self._clock() + self._timeout
        failures = []
        endpoints = list(self._endpoints)
        for left, endpoint in zip(range(len(endpoints), 0, -1), endpoints, strict=True):
            # Each gets its share of what is left, so that one that never answers leaves time for the others.
            until = self._clock() + (deadline - self._clock()) / left
            try:
                answer = self._ask_as_user(endpoint, what, body, until)
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{endpoint}: {str(error) or type(error).__name__}")
                self._endpoints.remove(endpoint)
                self._endpoints.append(endpoint)
                continue
            try:
                return read(answer)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise EtcdRefused(f"{endpoint} says what no etcd would: {str(answer)[:200]}") from error
        raise EtcdUnreachable(f"etcd does not answer ({'; '.join(failures)})")

    def _ask_as_user(self, endpoint: _Endpoint, what: str, body: Mapping[str, Any], until: float) -> Any:
        """With a token where the endpoint has a user; tokens end after a while, so one that is refused is renewed once."""
        if not endpoint.user:
            return self._post(endpoint, what, body, until)
        known = endpoint in self._tokens
        try:
            return self._post(endpoint, what, body, until, self._token(endpoint, until))
        except EtcdRefused as refusal:
            if not known or refusal.code != _UNAUTHENTICATED:
                raise
        del self._tokens[endpoint]
        return self._post(endpoint, what, body, until, self._token(endpoint, until))

    def _token(self, endpoint: _Endpoint, until: float) -> str:
        if endpoint not in self._tokens:
            who = {"name": endpoint.user, "password": endpoint.password}
            answer = self._post(endpoint, "auth/authenticate", who, until)
            self._tokens[endpoint] = str(answer.get("token", ""))
        return self._tokens[endpoint]

    def _post(
        self, endpoint: _Endpoint, what: str, body: Mapping[str, Any], until: float, token: str | None = None
    ) -> Any:
        """One request on a connection of its own. Raises OSError, HTTPException, EtcdRefused."""
        connection = self._connection(endpoint, until)
        try:
            headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
            connection.request("POST", f"/v3/{what}", json.dumps(body), headers)
            assert connection.sock is not None
            connection.sock.settimeout(self._rest(until))
            response = connection.getresponse()
            return self._answer(endpoint, response.status, self._content(connection, response, until))
        finally:
            connection.close()

    def _connection(self, endpoint: _Endpoint, until: float) -> http.client.HTTPConnection:
        timeout = self._rest(until)
        if endpoint.tls:
            return http.client.HTTPSConnection(
                endpoint.host, endpoint.port, timeout=timeout, context=self._tls
            )
        return http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout)

    def _rest(self, until: float) -> float:
        rest = until - self._clock()
        if rest <= 0:
            raise TimeoutError("timed out")
        return rest

    def _content(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, until: float
    ) -> bytes:
        data = bytearray()
        while True:
            if connection.sock is not None:  # None where the answer ends with the connection
                connection.sock.settimeout(self._rest(until))
            if not (piece := response.read1(_LARGEST)):
                return bytes(data)
            data += piece
            if len(data) > _LARGEST:
                raise http.client.HTTPException(f"an answer of more than {_LARGEST} bytes")
            self._rest(until)

    def _answer(self, endpoint: _Endpoint, status: int, data: bytes) -> Any:
        try:
            answer = json.loads(data)
        except Invalid:
            answer = None
        refusal = answer.get("error") if isinstance(answer, dict) else None
        if isinstance(refusal, dict):  # of a call that streams
            answer, refusal = refusal, refusal.get("message")
        if status == 200 and isinstance(answer, dict) and refusal is None:
            return answer
        code = answer.get("code") if isinstance(answer, dict) else None
        why = f"{status}, {str(refusal or 'not the answer of an etcd 3.4 or newer')[:200]}"
        if status >= 500:
            raise _Unable(why)
        raise EtcdRefused(f"{endpoint} says {why}", code if isinstance(code, int) else None)


def _endpoint(url: str) -> _Endpoint:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _no_url() from error
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise _no_url()
    return _Endpoint(
        parts.scheme == "https",
        parts.hostname,
        _PORTS[parts.scheme] if port is None else port,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def _no_url() -> Invalid:
    """Doesn't quote what was given: there may be a password in it."""
    return Invalid("fhir.etcd is no URL of an etcd; expected one such as `http://10.0.0.1:2379`.")


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _first(told: Any) -> Held | None:
    found = told.get("kvs", [])
    return _held(found[0]) if found else None


def _held(pair: Any) -> Held:
    return Held(base64.b64decode(pair.get("value", "")).decode(), int(pair.get("lease", 0)))
