"""An identity provider that tests carry with them, and an application that only says who asked."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import falcon
from falcon.testing import TestClient
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from api import errors
from api.credentials import Credentials
from api.login import doors, to_login
from api.providers import Fetched, FetchFailed
from api.request import Request

ISSUER = "https://login.example.org/realms/clinic"
AUDIENCE = "https://fhir.example.org/fhir"
NOW = 1_700_000_000
"""Seconds: 2023-11-14T22:13:20Z."""
BASE = "http://localhost:8080/fhir"
SIGNING = jws.JWSRegistry(algorithms=["RS256", "RS384", "ES256", "ES384", "HS256"], strict_check_header=False)

Key = RSAKey | ECKey | OctKey


class Clock:
    """Microseconds; stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = NOW * 1_000_000

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


class IdentityProvider:
    """Signs tokens, and answers for its documents as a `Fetch`."""

    def __init__(self, issuer: str = ISSUER) -> None:
        self.issuer = issuer
        self.keys: dict[str, Key] = {}
        self.published: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.down = False
        self.max_age = 0
        self.metadata: dict[str, Any] = {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/keys",
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "token_endpoint_auth_methods_supported": ["none", "private_key_jwt", "tls_client_auth"],
            "end_session_endpoint": f"{issuer}/bye",
        }
        self.add("one", ECKey.generate_key("P-256"))

    def add(self, id: str, key: Key, **more: Any) -> None:
        """A key to sign with; `more` is published with it."""
        self.keys[id] = key
        self.published[id] = {**key.as_dict(private=False), "kid": id, **more}

    def documents(self) -> dict[str, Any]:
        return {
            f"{self.issuer.removesuffix('/')}/.well-known/openid-configuration": self.metadata,
            self.metadata["jwks_uri"]: {"keys": list(self.published.values())},
        }

    def __call__(self, url: str) -> Fetched:
        self.asked.append(url)
        if self.down:
            raise FetchFailed(f"{url}: connection refused")
        return Fetched(json.dumps(self.documents()[url]).encode(), self.max_age)

    @property
    def looks(self) -> int:
        """How often it was asked for its keys."""
        return self.asked.count(self.metadata["jwks_uri"])

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a good token; None takes one away."""
        good = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "ada",
            "azp": "growth-chart",
            "iat": NOW,
            "exp": NOW + 300,
            "scope": "openid user/*.rs",
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, id: str = "one", header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token that the key with this id signs; `changes` are claims, `header` what stands there besides.

        Whatever they say: joserfc itself would not sign some of it.
        """
        full = {"alg": "ES256", "typ": "JWT", "kid": id, **(header or {})}
        full = {name: value for name, value in full.items() if value is not None}
        signed = f"{encoded(full)}.{encoded(self.claims(**changes))}"
        signature = SIGNING.get_alg(full["alg"]).sign(signed.encode(), self.keys[id])
        return f"{signed}.{base64url(signature)}"


def encoded(value: Any) -> str:
    """A part of a JWT."""
    return base64url(json.dumps(value).encode())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Gate:
    def __init__(self, credentials: Credentials, base: str) -> None:
        self._credentials = credentials
        self._base = base
        self.open = doors(credentials)

    def process_request(self, req: Request, _resp: falcon.Response) -> None:
        req.base = self._base
        if req.path in self.open:
            return
        try:
            req.principal = self._credentials.principal(req)
        except falcon.HTTPUnauthorized as error:
            raise to_login(req) or error from None


class _Echo:
    def on_get(self, req: Request, resp: falcon.Response, **_path: str) -> None:
        principal = req.principal
        resp.media = {
            "author": [principal.author.name, principal.author.email],
            "agent": principal.agent,
            "key": principal.key,
            "kind": principal.kind,
            "roles": sorted(principal.roles),
            "full": principal.access.is_full,
        }

    on_post = on_put = on_patch = on_delete = on_get


def guarded(credentials: Credentials, base: str = BASE) -> TestClient:
    """An application that asks for credentials, and answers with the principal."""
    gate = _Gate(credentials, base)
    app = falcon.App(request_type=Request, middleware=[gate])
    allow = {path: door.allow() for path, door in gate.open.items()}
    for path, door in gate.open.items():
        app.add_route(path, door)
    for path in ("/fhir", "/fhir/{type}", "/fhir.git/{name}"):
        app.add_route(path, _Echo())
        allow[path] = "GET"
    errors.register(app, allow)
    return TestClient(app)


Ask = Callable[..., Any]
