"""Access tokens of identity providers: JWTs, checked and read.

https://www.rfc-editor.org/rfc/rfc9068, https://www.rfc-editor.org/rfc/rfc8725 (what goes wrong with JWTs),
https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from joserfc import jws
from joserfc.errors import JoseError
from msgspec import Struct

from api import providers
from api.principal import Rejected
from api.providers import CURVES, RSA_ALGORITHMS, Fetch, Provider
from gitstore import Author, Invalid
from gitstore.fhir import json
from gitstore.fhir.dates import SECOND
from gitstore.fhir.ids import is_id

MAX_TOKEN = 16 * 1024
LEEWAY = 60
"""Seconds by which the provider's clock may differ from ours."""
MAX_AGENT = 200

ALGORITHMS = sorted({*RSA_ALGORITHMS, *CURVES.values()})
TYPES = ("jwt", "at+jwt", "application/jwt", "application/at+jwt")
_KEY_IN_TOKEN = ("jwk", "jku", "x5u", "x5c", "crit", "b64")
"""Headers by which a token brings its own key, or changes how it is to be read: nothing of it is known here."""
_OF_ID_TOKENS = ("nonce", "at_hash", "c_hash")

_PART = r"([A-Za-z0-9_-]+)"
_COMPACT = re.compile(rf"{_PART}\.{_PART}\.{_PART}", re.ASCII)
_ADDRESS = re.compile(r"[^\s<>@\x00-\x1f\x7f]{1,100}@[^\s<>@\x00-\x1f\x7f]{1,100}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Claims(Struct, frozen=True):
    """What a token says of who sent it. `expires` in microseconds; `patient` is the launch context, an id."""

    issuer: str
    subject: str
    client: str | None
    name: str
    email: str
    scope: str
    patient: str | None
    expires: int
    fhir_user: str | None = None

    @property
    def author(self) -> Author:
        return Author(self.name, self.email)

    @property
    def agent(self) -> str:
        """Issuer, subject and client in visible ASCII. One that is too long ends in a digest, so that no two are alike."""
        given = (self.issuer, self.subject, self.client)
        text = " ".join(quote(part, safe="!#$&'()*+,/:;=?@[]~|") for part in given if part)
        if len(text) <= MAX_AGENT:
            return text
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        return f"{text[: MAX_AGENT - len(digest) - 1]}~{digest}"


class Jwts:
    """The tokens of some issuers for some audiences. Raises Invalid where these settings can't be meant.

    `clock` gives microseconds since 1970, for how long a provider's keys are kept.
    """

    def __init__(
        self,
        issuers: Sequence[str],
        audiences: Sequence[str],
        clock: Callable[[], int],
        fetch: Fetch = providers.fetch,
    ) -> None:
        if issuers and not any(audiences):
            raise Invalid(
                "fhir.issuer is set, but no fhir.audience: tokens that were made for other services would count here."
            )
        self.providers = {issuer: Provider(issuer, fetch, clock) for issuer in issuers}
        self._audiences = frozenset(audiences)
        self._registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        self._registry.max_header_length = MAX_TOKEN

    def claims(self, text: str, now: int) -> Claims:
        """What a token says, once all of it has been checked. `now` in microseconds.

        Raises Rejected, and ProviderDown where its issuer's keys can't be had.
        """
        header, payload = _opened(text)
        _check_header(header)
        provider = self._provider(payload)
        self._check_audience(payload)
        _check_times(payload, now // SECOND)
        self._check_signature(text, header, provider)
        _check_purpose(payload)
        return _claims(payload)

    def _provider(self, payload: Mapping[str, Any]) -> Provider:
        issuer = payload.get("iss")
        if not isinstance(issuer, str) or issuer not in self.providers:
            raise Rejected(f"its issuer is {str(issuer)[:100]!r}, which fhir.issuer does not name")
        return self.providers[issuer]

    def _check_audience(self, payload: Mapping[str, Any]) -> None:
        given = payload.get("aud")
        audiences = given if isinstance(given, list) else [given]
        if not any(isinstance(each, str) and each in self._audiences for each in audiences):
            raise Rejected(f"its audience is {str(given)[:100]!r}, which fhir.audience does not name")

    def _check_signature(self, text: str, header: Mapping[str, Any], provider: Provider) -> None:
        id, algorithm = header.get("kid"), header["alg"]
        if not isinstance(id, str | None):
            raise Rejected("its key id is no text")
        key = provider.key(id, algorithm)
        if key is None:
            named = "names no key" if id is None else f"names the key {id[:100]!r}"
            raise Rejected(f"it {named}; its issuer has no such key, or several, for {algorithm}")
        try:
            jws.deserialize_compact(text, key.key, registry=self._registry)
        except (JoseError, ValueError) as error:
            raise Rejected(f"its signature is wrong ({type(error).__name__})") from error


def _opened(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and payload as they stand, nothing checked yet."""
    if len(text) > MAX_TOKEN:
        raise Rejected(f"it is longer than {MAX_TOKEN} characters")
    match = _COMPACT.fullmatch(text)
    if match is None:
        raise Rejected("it is no JWT")
    return _part(match[1]), _part(match[2])


def _part(text: str) -> dict[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, Invalid) as error:
        raise Rejected("a part of it is no JSON") from error
    if not isinstance(found, dict):
        raise Rejected("a part of it is no JSON object")
    return found


def _check_header(header: Mapping[str, Any]) -> None:
    if header.get("alg") not in ALGORITHMS:
        raise Rejected(f"its algorithm is {str(header.get('alg'))[:20]!r}, none of {', '.join(ALGORITHMS)}")
    brought = [name for name in _KEY_IN_TOKEN if name in header]
    if brought:
        raise Rejected(f"its header has {brought[0]!r}")
    if str(header.get("typ", "JWT")).lower() not in TYPES:
        raise Rejected(f"its type is {str(header['typ'])[:40]!r}")


def _check_times(payload: Mapping[str, Any], now: int) -> None:
    expires = _seconds(payload, "exp")
    if expires is None:
        raise Rejected("it has no end (exp)")
    if now >= expires + LEEWAY:
        raise Rejected("it has expired", "expired")
    for name in ("nbf", "iat"):
        start = _seconds(payload, name)
        if start is not None and start > now + LEEWAY:
            raise Rejected(f"it is not valid yet ({name})")


def _seconds(payload: Mapping[str, Any], name: str) -> int | None:
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | json.Number):
        raise Rejected(f"{name} is no number")
    return int(value)


def _check_purpose(payload: Mapping[str, Any]) -> None:
    """An ID token tells an app who has logged in; to anybody else it says nothing. Keycloak says so in `typ`, too.

    https://www.rfc-editor.org/rfc/rfc8725#section-3.12
    """
    kind = payload.get("typ", "Bearer")
    has_scope = "scope" in payload or "scp" in payload
    if kind not in ("Bearer", "JWT") or (not has_scope and any(name in payload for name in _OF_ID_TOKENS)):
        raise Rejected("it is no access token")


def _claims(payload: Mapping[str, Any]) -> Claims:
    issuer = str(payload["iss"])
    client = _text(payload, "azp") or _text(payload, "client_id")
    subject = _text(payload, "sub") or client
    if subject is None:
        raise Rejected("it names nobody (sub)")
    patient = _text(payload, "patient")
    if patient is not None and not is_id(patient):
        raise Rejected("its patient is no id")
    name = _text(payload, "name") or _text(payload, "preferred_username") or subject
    return Claims(
        issuer=issuer,
        subject=subject,
        client=client,
        name=name[:200],
        email=_email(payload, subject, issuer),
        scope=_scope(payload),
        patient=patient,
        expires=(_seconds(payload, "exp") or 0) * SECOND,
        fhir_user=_text(payload, "fhirUser"),
    )


def _text(payload: Mapping[str, Any], name: str) -> str | None:
    value = payload.get(name)
    if not isinstance(value, str | None):
        raise Rejected(f"{name} is no text")
    return value.strip() or None if value else None


def _scope(payload: Mapping[str, Any]) -> str:
    """`scope` as OAuth has it; some providers call it `scp`, and some make a list of it."""
    value = payload.get("scope", payload.get("scp", ""))
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(each, str) for each in words):
        raise Rejected("its scope is no text")
    return " ".join(words)


def _email(payload: Mapping[str, Any], subject: str, issuer: str) -> str:
    """The address, unless the provider says that nobody looked whether it is theirs; else one that can't be anybody's."""
    given = payload.get("email")
    if isinstance(given, str) and _ADDRESS.fullmatch(given) and payload.get("email_verified") is not False:
        return given
    local = _UNSAFE.sub("-", subject)[:64].strip("-.") or "unknown"
    return f"{local}@{urlsplit(issuer).hostname}"
