"""Identity providers: where each says it is, and the keys it signs with, fetched and kept.

https://openid.net/specs/openid-connect-discovery-1_0.html, https://www.rfc-editor.org/rfc/rfc7517
"""

from __future__ import annotations

import base64
import http.client
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from typing import IO, Any
from urllib.parse import urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from msgspec import Struct

from api.auth import is_loopback
from api.log import SERVER
from gitstore import Invalid
from gitstore.fhir import json
from gitstore.fhir.dates import SECOND

DISCOVERY = "/.well-known/openid-configuration"

TIMEOUT = 5.0
"""Seconds for one document."""
MAX_DOCUMENT = 512 * 1024

MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE
KEEP_AT_LEAST, KEEP_AT_MOST = 5 * MINUTE, DAY
KEEP_WHILE_DOWN = DAY
"""How long keys that went stale serve on while the provider does not answer: no token of its lives longer."""
PAUSE = MINUTE
"""Between two looks at a provider: tokens with made-up key ids shall not make us knock all the time."""
PAUSE_WITHOUT_KEYS = 10 * SECOND

RSA_ALGORITHMS = frozenset({"RS256", "RS384"})
CURVES = {"P-256": "ES256", "P-384": "ES384"}
RSA_BITS = range(2048, 8192 + 1)

_MAX_AGE = re.compile(r'\bmax-age="?([0-9]{1,9})\b', re.ASCII | re.IGNORECASE)


class FetchFailed(Exception):
    """A document could not be had; the text says which and why."""


class ProviderDown(Exception):
    """A provider's keys are not known, and it does not give them; the text names it."""


class Fetched(Struct, frozen=True):
    """A document, and the seconds for which its Cache-Control lets it be kept: 0 where it says nothing."""

    data: bytes
    max_age: int = 0


Fetch = Callable[[str], Fetched]


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where the request went anyway: nobody else is to say which keys count."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            raise FetchFailed(f"{req.full_url} leads elsewhere, to {newurl[:200]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str) -> Fetched:
    """GET a document of at most MAX_DOCUMENT bytes, within TIMEOUT. Raises FetchFailed.

    Proxies of the environment are used, but not on the way to this machine.
    """
    handlers: list[urllib.request.BaseHandler] = [_SameHost()]
    if is_loopback(urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "git-fhir"})  # noqa: S310 - _is_safe has seen it
    deadline = time.monotonic() + TIMEOUT
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT) as answer:
            return Fetched(_read(answer, url, deadline), _max_age(answer.headers))
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a Location that is no URL
        raise FetchFailed(f"{url}: {error}") from error


def _read(answer: http.client.HTTPResponse, url: str, deadline: float) -> bytes:
    """All of it, whatever it says of its length, however slowly it comes."""
    data = bytearray()
    while piece := answer.read1(64 * 1024):
        data += piece
        if len(data) > MAX_DOCUMENT:
            raise FetchFailed(f"{url} has more than {MAX_DOCUMENT} bytes")
        if time.monotonic() > deadline:
            raise FetchFailed(f"{url} takes more than {TIMEOUT:g} s")
    return bytes(data)


def _max_age(headers: Message) -> int:
    text = ",".join(headers.get_all("Cache-Control", []))
    found = _MAX_AGE.search(text)
    return int(found[1]) if found and not re.search(r"\bno-(store|cache)\b", text, re.IGNORECASE) else 0


class SigningKey(Struct, frozen=True):
    """A public key of a provider, and the algorithms that it may have signed with."""

    id: str | None
    algorithms: frozenset[str]
    key: RSAKey | ECKey


class _Known(Struct, frozen=True):
    """What a provider said when it was last asked. Instants in microseconds."""

    metadata: Mapping[str, Any]
    keys: tuple[SigningKey, ...]
    asked: int
    fresh_until: int

    def is_fresh(self, now: int) -> bool:
        return self.asked <= now < self.fresh_until

    def key(self, id: str | None, algorithm: str) -> SigningKey | None:
        """A token that names no key can only mean the one there is for its algorithm."""
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if id is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.id == id), None)


class Provider:
    """One issuer. Any thread may call; one of them asks the provider, the others go on with what is known.

    `clock` gives microseconds since 1970. Raises Invalid where the issuer is no https URL; http will do on this machine.
    """

    def __init__(self, issuer: str, fetch: Fetch, clock: Callable[[], int]) -> None:
        if not _is_safe(issuer) or {"?", "#", "@"} & set(issuer):
            raise Invalid(
                f"fhir.issuer is `{issuer}`; expected an https URL such as https://login.example.org/realms/clinic."
            )
        self.issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._tried: int | None = None

    def key(self, id: str | None, algorithm: str) -> SigningKey | None:
        """The key that a token names, None where the provider has no such key. Raises ProviderDown."""
        known = self._known
        found = known.key(id, algorithm) if known else None
        if known is None or found is None or not known.is_fresh(self._clock()):
            found = self._renewed(wait=found is None).key(id, algorithm)
        return found

    def metadata(self) -> Mapping[str, Any]:
        """What its discovery document says. Raises ProviderDown."""
        known = self._known
        if known is None or not known.is_fresh(self._clock()):
            known = self._renewed(wait=known is None)
        return known.metadata

    def _renewed(self, *, wait: bool) -> _Known:
        """What is known once the provider was asked again, or is not to be asked yet."""
        if self._lock.acquire(blocking=wait):
            try:
                if self._may_ask():
                    self._ask()
            finally:
                self._lock.release()
        known = self._known
        if known is None or self._clock() > known.fresh_until + KEEP_WHILE_DOWN:
            raise ProviderDown(f"The identity provider {self.issuer} does not answer.")
        return known

    def _may_ask(self) -> bool:
        pause = PAUSE_WITHOUT_KEYS if self._known is None else PAUSE
        return self._tried is None or not 0 <= self._clock() - self._tried < pause

    def _ask(self) -> None:
        self._tried = self._clock()
        try:
            self._known = self._told(self._tried)
        except FetchFailed as error:
            SERVER.warning("identity provider %s: %s", self.issuer, error)

    def _told(self, now: int) -> _Known:
        metadata = self._discovered()
        url = metadata["jwks_uri"]
        document = self._fetch(url)
        keys = tuple(signing_keys(_json_object(document.data, url)))
        if not keys:
            raise FetchFailed(f"{url} has no key that can be used")
        age = min(max(document.max_age * SECOND, KEEP_AT_LEAST), KEEP_AT_MOST)
        return _Known(metadata, keys, now, now + age)

    def _discovered(self) -> dict[str, Any]:
        """https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfigurationValidation"""
        url = self.issuer.removesuffix("/") + DISCOVERY
        found = _json_object(self._fetch(url).data, url)
        if found.get("issuer") != self.issuer:
            raise FetchFailed(f"{url} is about another issuer, {str(found.get('issuer'))[:200]}")
        if not isinstance(found.get("jwks_uri"), str) or not _is_safe(found["jwks_uri"]):
            raise FetchFailed(f"{url} has no jwks_uri that is an https URL")
        return found


def _is_safe(url: str) -> bool:
    """Whether nobody on the way can change what this URL answers."""
    if re.fullmatch(r"[!-~]+", url) is None:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    name = parts.hostname or ""
    return bool(name) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(name)))


def _json_object(data: bytes, url: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except Invalid as error:
        raise FetchFailed(f"{url} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise FetchFailed(f"{url} is JSON, but no object")
    return found


def signing_keys(jwks: Mapping[str, Any]) -> Iterator[SigningKey]:
    """The keys of a JWK Set that tokens may be signed with here. Others, such as those for encryption, are passed over."""
    entries = jwks.get("keys")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and _is_for_signatures(entry):
            found = _signing_key(entry)
            if found is not None and found.algorithms:
                yield found


def _is_for_signatures(entry: Mapping[str, Any]) -> bool:
    operations = entry.get("key_ops", ["verify"])
    return entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _signing_key(entry: Mapping[str, Any]) -> SigningKey | None:
    """None for a key of another type, one that is too weak, and one that can't be read."""
    id = entry.get("kid")
    if not isinstance(id, str | None):
        return None
    kind = entry.get("kty")
    key: RSAKey | ECKey
    try:
        if kind == "RSA" and _bits(entry.get("n")) in RSA_BITS:
            key = RSAKey.import_key(_public(entry, "n", "e"))
            algorithms = RSA_ALGORITHMS
        elif kind == "EC" and entry.get("crv") in CURVES:
            key = ECKey.import_key(_public(entry, "crv", "x", "y"))
            algorithms = frozenset({CURVES[entry["crv"]]})
        else:
            return None
    except (JoseError, ValueError) as error:
        SERVER.warning("a key of an identity provider can't be read: %s", error)
        return None
    if "alg" in entry:
        algorithms = frozenset(each for each in algorithms if each == entry["alg"])
    return SigningKey(id, algorithms, key)


def _bits(modulus: object) -> int:
    """Raises ValueError for what is no base64url."""
    text = modulus if isinstance(modulus, str) else ""
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big").bit_length()


def _public(entry: Mapping[str, Any], *members: str) -> dict[str, Any]:
    """The public part alone, whatever else a provider publishes."""
    return {"kty": entry["kty"], **{name: entry.get(name) for name in members}}
