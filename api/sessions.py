"""Browser sessions: a cookie that stands for a token, for as long as that one is alive.

The cookie holds the token's id, when the session ends, and an HMAC over both with a key of the repository: nothing is
kept on the server, and all workers understand it. https://www.rfc-editor.org/rfc/rfc6265
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress

from api.origin import is_secure, prefix
from api.principal import Rejected
from api.request import Request
from gitstore import Refused, RepositoryRefused, StorageFailed, Token, Tokens
from gitstore.fhir.dates import SECOND

LIFETIME = 12 * 60 * 60
"""Seconds, if the token doesn't end before."""
KEY_BYTES = 32

_VALUE = re.compile(r"([0-9a-f]{12})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)


class Sessions:
    """The sessions of a repository. `clock` gives microseconds since 1970. Raises what `session_key` raises."""

    def __init__(self, git_dir: str, tokens: Tokens, clock: Callable[[], int]) -> None:
        self._key = session_key(git_dir)
        self._tokens = tokens
        self._clock = clock

    def begin(self, req: Request, token: Token) -> str:
        """A Set-Cookie for who has shown this token."""
        now = self._clock() // SECOND
        end = now + LIFETIME if token.expires is None else min(now + LIFETIME, token.expires // SECOND)
        return _set_cookie(req, f"{token.id}.{end}.{self._mac(token.id, str(end))}", max(end - now, 0))

    def end(self, req: Request) -> str:
        """A Set-Cookie that takes the cookie away."""
        return _set_cookie(req, "", 0)

    def token(self, req: Request) -> Token | None:
        """The token that the request's cookie stands for, None without one. Raises Rejected, and what Tokens raise."""
        values = req.get_cookie_values(cookie_name(req))
        return self._token(values[0]) if values else None

    def _token(self, value: str) -> Token:
        match = _VALUE.fullmatch(value)
        if match is None:
            raise Rejected("the session cookie is malformed")
        id, end, mac = match.groups()
        if not hmac.compare_digest(mac, self._mac(id, end)):
            raise Rejected("the session cookie is not ours")
        now = self._clock()
        if now >= int(end) * SECOND:
            raise Rejected("the session is over", "expired")
        token = next((each for each in self._tokens.all() if each.id == id), None)
        refused = Refused.UNKNOWN if token is None else token.refused(now)
        if token is None or refused is not None:
            raise Rejected(f"the session's token {id} is {refused.value if refused else 'gone'}")
        return token

    def _mac(self, id: str, end: str) -> str:
        digest = hmac.digest(self._key, f"git-fhir session 1 {id} {end}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def cookie_name(req: Request) -> str:
    """By https a name that browsers keep from being set by other hosts and by plain http.

    Where the server is below a path, the cookie is for that alone, and then only the latter can be had.
    https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#section-4.1.3
    """
    if not is_secure(req):
        return "git-fhir"
    return "__Secure-git-fhir" if prefix(req) else "__Host-git-fhir"


def _set_cookie(req: Request, value: str, max_age: int) -> str:
    """Lax, so that a link in a mail leads to where one is logged in: what changes something needs more than the cookie."""
    secure = "; Secure" if is_secure(req) else ""
    return f"{cookie_name(req)}={value}; Path={prefix(req) or '/'}; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}"


def session_key(git_dir: str) -> bytes:
    """The key of the repository's sessions, `git-fhir/session.key`; made where there is none yet.

    Without it everybody has to log in again, and nothing else happens.
    Raises RepositoryRefused where others may read it or it is none, StorageFailed where it can't be read or made.
    """
    folder = os.path.join(git_dir, "git-fhir")
    path = os.path.join(folder, "session.key")
    try:
        if not os.path.exists(path):
            os.makedirs(folder, exist_ok=True)
            _make_key(path)
        with open(path, "rb") as file:
            mode, key = os.fstat(file.fileno()).st_mode, file.read(KEY_BYTES + 1)
    except OSError as error:
        raise StorageFailed(f"The key of sessions, {path}: {error.strerror}.") from error
    if stat.S_IMODE(mode) & 0o077:
        raise RepositoryRefused(f"{path} can be read by others than its owner: remove it, it is made anew.")
    if len(key) != KEY_BYTES:
        raise RepositoryRefused(f"{path} is no key of {KEY_BYTES} bytes: remove it, it is made anew.")
    return key


def _make_key(path: str) -> None:
    """Of several processes that make one at the same time, the first one's counts; it is whole once it is there."""
    new = f"{path}.{os.getpid()}.{secrets.token_hex(4)}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(new, path)
    finally:
        os.unlink(new)
