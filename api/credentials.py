"""From a request's headers to a Principal: our tokens, those of identity providers, and browser sessions.

https://www.rfc-editor.org/rfc/rfc6750 (Bearer), https://www.rfc-editor.org/rfc/rfc7617 (Basic)
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import falcon
from msgspec import Struct

from api import providers
from api.jwts import Claims, Jwts
from api.log import SERVER
from api.origin import same_origin
from api.principal import ANONYMOUS_PRINCIPAL, Kind, Principal, Rejected
from api.providers import Fetch, ProviderDown
from api.request import Request
from api.sessions import Sessions
from gitstore import ANONYMOUS, Access, Invalid, Settings, Token, Tokens, check_scopes, parse_scopes

PREFIX = "gf_"
"""How the secrets of our tokens begin."""
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
CLONE = "/fhir.git"
FETCH = f"{CLONE}/git-upload-pack"
"""Where git asks for objects by POST. It changes nothing, and no page can send its media type without being allowed to."""

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_REALM = 'realm="git-fhir"'
_TEXTS = {
    "login": "Credentials are needed here: `Authorization: Bearer` with a token.",
    "unknown": "These credentials are unknown, expired or revoked.",
    "expired": "These credentials have expired.",
}


class Unauthorized(falcon.HTTPUnauthorized):
    """401, with the challenges that fit the request. `issue_code` is for the OperationOutcome."""

    def __init__(self, req: Request, issue_code: Literal["login", "unknown", "expired"]) -> None:
        self.issue_code = issue_code
        super().__init__(description=_TEXTS[issue_code], challenges=challenges(req, issue_code))


def challenges(req: Request, issue_code: str) -> list[str]:
    """What WWW-Authenticate says. git and browsers can clone only if they are asked for a password.

    Without credentials there is no error to name. https://www.rfc-editor.org/rfc/rfc6750#section-3.1
    """
    basic = [f'Basic {_REALM}, charset="UTF-8"'] if is_clone(req.path) else []
    error = (
        "" if issue_code == "login" else f', error="invalid_token", error_description="{_TEXTS[issue_code]}"'
    )
    return [*basic, f"Bearer {_REALM}{error}"]


def is_clone(path: str) -> bool:
    return path == CLONE or path.startswith(f"{CLONE}/")


class _Rights(Struct, frozen=True):
    access: Access
    roles: frozenset[str]


@lru_cache(maxsize=1024)
def _rights(scope: str, patient: str | None, withhold: tuple[str, ...]) -> _Rights:
    """What a scope comes to where these security labels withhold what bears them from those without the role."""
    scopes = parse_scopes(scope, patient)
    withheld = () if "withheld" in scopes.roles else withhold
    return _Rights(Access(scopes.grants, withheld, history="history" in scopes.roles), scopes.roles)


class Credentials:
    """Finds out who asks. Any thread may call.

    `clock` gives microseconds since 1970; `fetch` gets the documents of identity providers. With `allow_anonymous`, who
    brings no credentials may do what fhir.anonymousScope says, by default everything.
    Raises Invalid for settings that can't be meant, RepositoryRefused and StorageFailed where the key of sessions can't
    be had.
    """

    def __init__(
        self,
        git_dir: str,
        settings: Settings,
        clock: Callable[[], int],
        *,
        allow_anonymous: bool = False,
        fetch: Fetch = providers.fetch,
    ) -> None:
        self._clock = clock
        self._withhold = settings.withhold
        self.allow_anonymous = allow_anonymous
        self._anonymous = anonymous(settings) if allow_anonymous else None
        self.tokens = Tokens(git_dir)
        self.jwts = Jwts(settings.issuer, settings.audience, clock, fetch)
        self.sessions = Sessions(git_dir, self.tokens, clock)

    def principal(self, req: Request) -> Principal:
        """Who asks; `base` of the request must be known. An Authorization header outweighs the cookie.

        Raises Unauthorized, falcon.HTTPForbidden for what a foreign page may have made a browser do, and
        falcon.HTTPServiceUnavailable where an identity provider's keys can't be had.
        """
        header = req.get_header("Authorization")
        try:
            found = self._of_cookie(req) if header is None else self._of_header(header)
        except Rejected as error:
            self.refused(req, error.reason)
            raise Unauthorized(req, error.code) from error
        except ProviderDown as error:
            raise falcon.HTTPServiceUnavailable(description=str(error)) from error
        if found is None:
            if self._anonymous is None:
                raise Unauthorized(req, "login")
            return self._anonymous
        check_origin(req, found.kind)
        return found

    def refused(self, req: Request, reason: str) -> None:
        """Tell the operator, who can't see the credentials, why they were refused."""
        req.denied = "credentials"
        SERVER.info("credentials refused: %s", reason, extra={"fields": {"requestId": req.request_id}})

    def token(self, secret: str) -> Token:
        """The token with this secret, which works now. Raises Rejected, and what Tokens raise."""
        found = self.tokens.judge(secret, self._clock())
        if isinstance(found, Token):
            return found
        raise Rejected(
            f"the token is {found.value}"
        )  # `expired` is for the log: secrets tell nothing to finders

    def _of_cookie(self, req: Request) -> Principal | None:
        """A session that is over is none, where none is needed: the browser sends its cookie unasked."""
        try:
            token = self.sessions.token(req)
        except Rejected:
            if self._anonymous is None:
                raise
            return None
        return None if token is None else of_token(token, "session", self._withhold)

    def _of_header(self, header: str) -> Principal | None:
        scheme, _, rest = header.partition(" ")
        rest = rest.strip(" ")
        if scheme.lower() == "basic":
            password = _password(rest)
            if password.startswith(PREFIX):
                return of_token(self.token(password), "basic", self._withhold)
            return self._unless_needed("its password is no token")
        if scheme.lower() != "bearer":
            return self._unless_needed("its scheme is neither Bearer nor Basic")
        if not _BEARER.fullmatch(rest):
            raise Rejected("what follows Bearer is no token")
        if rest.startswith(PREFIX):
            return of_token(self.token(rest), "bearer", self._withhold)
        if self.jwts.providers:
            return of_claims(self.jwts.claims(rest, self._clock()), self._withhold)
        return self._unless_needed("the token is not ours, and there is no fhir.issuer")

    def _unless_needed(self, reason: str) -> Principal:
        """Credentials that can't be meant for us are for a proxy in front, where that one decides who may come."""
        if self._anonymous is None:
            raise Rejected(reason)
        return self._anonymous


def anonymous(settings: Settings) -> Principal:
    """Who brings no credentials where none are needed. Raises Invalid for a fhir.anonymousScope that can't be meant."""
    if settings.anonymous_scope is None:
        return ANONYMOUS_PRINCIPAL
    try:
        check_scopes(settings.anonymous_scope, None)
    except Invalid as error:
        raise Invalid(f"fhir.anonymousScope can't be meant: {error}") from error
    rights = _rights(settings.anonymous_scope, None, settings.withhold)
    return Principal(ANONYMOUS, rights.access, rights.roles, None, "anonymous", "anonymous")


def of_token(token: Token, kind: Kind, withhold: tuple[str, ...] = ()) -> Principal:
    rights = _rights(token.scope, token.patient, withhold)
    agent = f"token {token.id}"
    return Principal(token.author, rights.access, rights.roles, agent, agent, kind)


def of_claims(claims: Claims, withhold: tuple[str, ...] = ()) -> Principal:
    rights = _rights(claims.scope, claims.patient, withhold)
    return Principal(claims.author, rights.access, rights.roles, claims.agent, claims.agent, "bearer")


def _password(encoded: str) -> str:
    """Raises Rejected for what is no Basic credential. The name before the colon says nothing: the token knows its own."""
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except ValueError as error:
        raise Rejected("what follows Basic is no base64 of UTF-8") from error
    _, colon, password = text.partition(":")
    if not colon:
        raise Rejected("what follows Basic has no colon")
    return password


def check_origin(req: Request, kind: Kind) -> None:
    """Refuse a change that a page elsewhere may have made a browser ask for: those add cookies and Basic by themselves.

    Raises falcon.HTTPForbidden. https://owasp.org/www-community/attacks/csrf
    """
    if kind not in ("basic", "session") or req.method not in CHANGING or req.path == FETCH:
        return
    if not same_origin(req):
        req.denied = "origin"
        raise falcon.HTTPForbidden(
            description="With Basic credentials or a session, a page of this server alone may change something, as "
            "Sec-Fetch-Site or Origin says. A program sends its token as `Authorization: Bearer`."
        )
