"""What apps read to find out how to log their users in. https://hl7.org/fhir/smart-app-launch/conformance.html"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import falcon
from msgspec import Struct

from api.door import Door
from api.jwts import Jwts
from api.providers import ProviderDown
from api.request import Request
from gitstore.fhir import json

PATHS = ("/.well-known/smart-configuration", "/fhir/.well-known/smart-configuration")

OURS = ("permission-patient", "permission-user", "permission-v1", "permission-v2")
"""What this server does with a token, whoever made it."""
_CLIENTS = {
    "none": "client-public",
    "client_secret_basic": "client-confidential-symmetric",
    "client_secret_post": "client-confidential-symmetric",
    "private_key_jwt": "client-confidential-asymmetric",
}
"""Capability by token_endpoint_auth_method: which kinds of apps the provider lets in."""
_MEMBERS = (
    "issuer",
    "jwks_uri",
    "authorization_endpoint",
    "token_endpoint",
    "token_endpoint_auth_methods_supported",
    "registration_endpoint",
    "introspection_endpoint",
    "revocation_endpoint",
    "grant_types_supported",
    "scopes_supported",
    "response_types_supported",
    "code_challenge_methods_supported",
)
"""What discovery and SMART call the same."""
_URIS = {
    "authorize": "authorization_endpoint",
    "token": "token_endpoint",
    "register": "registration_endpoint",
    "introspect": "introspection_endpoint",
    "revoke": "revocation_endpoint",
}
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_SERVICES = "http://terminology.hl7.org/CodeSystem/restful-security-service"

_OPEN = "No credentials are needed."
_CLOSED = (
    "Send a token in `Authorization: Bearer`: one that `git fhir token` makes, or of an identity provider of this server, "
    "if it has any. SMART scopes say what may be done with it."
)


class OAuthUris(Struct, frozen=True):
    """Where an identity provider gives out tokens: pairs of SMART's name and a URI."""

    uris: tuple[tuple[str, str], ...]


def configuration(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """SMART's configuration, from what the provider's discovery document says. Nothing is claimed that neither does."""
    methods = metadata.get("token_endpoint_auth_methods_supported")
    clients = {name for method, name in _CLIENTS.items() if isinstance(methods, list) and method in methods}
    return {
        **{name: metadata[name] for name in _MEMBERS if name in metadata},
        "capabilities": sorted({*OURS, *clients}),
    }


def oauth_uris(jwts: Jwts) -> OAuthUris | None:
    """Those of the first issuer; None where there is none, or it doesn't answer and never did."""
    for provider in jwts.providers.values():
        try:
            metadata = provider.metadata()
        except ProviderDown:
            return None
        found = tuple(
            (name, metadata[key]) for name, key in _URIS.items() if isinstance(metadata.get(key), str)
        )
        return OAuthUris(found) if {"authorize", "token"} <= dict(found).keys() else None
    return None


def security(*, cors: bool, authentication: bool, oauth: OAuthUris | None) -> dict[str, Any]:
    """CapabilityStatement.rest.security. https://hl7.org/fhir/smart-app-launch/1.0.0/conformance/"""
    found: dict[str, Any] = {"cors": cors, "description": _CLOSED if authentication else _OPEN}
    if oauth is None:
        return found
    uris = [{"url": name, "valueUri": uri} for name, uri in oauth.uris]
    service = {"coding": [{"system": _SERVICES, "code": "SMART-on-FHIR"}], "text": "OAuth2 with SMART scopes"}
    return {"extension": [{"url": _OAUTH_URIS, "extension": uris}], **found, "service": [service]}


class SmartConfigurationEndpoint(Door):
    """Of several issuers the first one is named: the document has room for one."""

    name: ClassVar = "smart-configuration"

    def __init__(self, jwts: Jwts) -> None:
        self._jwts = jwts

    def on_get(self, _req: Request, resp: falcon.Response) -> None:
        provider = next(iter(self._jwts.providers.values()), None)
        if provider is None:
            raise falcon.HTTPNotFound(description="This server takes no tokens of identity providers.")
        try:
            metadata = provider.metadata()
        except ProviderDown as error:
            raise falcon.HTTPServiceUnavailable(description=str(error)) from error
        resp.content_type = "application/json"
        resp.data = json.dumps(configuration(metadata))

    on_head = on_get
