"""`/login` and `/logout`: how a browser trades a token for a session."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import parse_qsl, quote

import falcon

from api import pages, smart
from api.credentials import Credentials, challenges, is_clone
from api.door import Door
from api.html.asking import FORM, prefers_html
from api.origin import HOME, place, prefix, safe_place, same_origin
from api.principal import Rejected
from api.request import Request
from gitstore import Invalid, Issue, TooLarge

MAX_FORM = 16 * 1024
WRONG = "This token is unknown, expired or revoked."


def doors(credentials: Credentials) -> dict[str, Door]:
    """By path, what is open to who has no credentials yet."""
    configuration = smart.SmartConfigurationEndpoint(credentials.jwts)
    return {
        "/login": LoginEndpoint(credentials),
        "/logout": LogoutEndpoint(credentials),
        **dict.fromkeys(smart.PATHS, configuration),
    }


def to_login(req: Request) -> falcon.HTTPSeeOther | None:
    """Where a person who needs to log in is sent instead of a 401; None for a program, and for git's URLs."""
    if req.method not in ("GET", "HEAD") or req.get_header("Authorization") is not None:
        return None
    if is_clone(req.path) or not prefers_html(req.get_header("Accept") or ""):
        return None
    wanted = quote(safe_place(place(req)) or "", safe="/")
    return falcon.HTTPSeeOther(f"{prefix(req)}/login?next={wanted}")


class LoginEndpoint(Door):
    """A form for a token. What is wrong about a wrong one is told to nobody but the log."""

    methods: ClassVar = ("GET", "HEAD", "POST")
    name: ClassVar = "login"

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        try:
            token = self._credentials.sessions.token(req)
        except Rejected:
            token = None
        wanted = next((value for name, value in parse_qsl(req.query_string) if name == "next"), None)
        name = None if token is None else token.name
        pages.send(
            resp, "login.html", prefix=prefix(req), name=name, wrong=None, next=safe_place(wanted) or ""
        )

    on_head = on_get

    def on_post(self, req: Request, resp: falcon.Response) -> None:
        check_form(req)
        form = read_form(req)
        wanted = safe_place(form.get("next"))
        try:
            token = self._credentials.token(form.get("token", "").strip())
        except Rejected as error:
            self._credentials.refused(req, error.reason)
            resp.status = 401
            resp.set_header("WWW-Authenticate", ", ".join(challenges(req, "login")))
            pages.send(resp, "login.html", prefix=prefix(req), name=None, wrong=WRONG, next=wanted or "")
            return
        resp.append_header("Set-Cookie", self._credentials.sessions.begin(req, token))
        go(resp, wanted or prefix(req) + HOME)


class LogoutEndpoint(Door):
    """Takes the cookie away. Whoever copied it before keeps it until it ends or its token is revoked."""

    methods: ClassVar = ("POST",)
    name: ClassVar = "logout"

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def on_post(self, req: Request, resp: falcon.Response) -> None:
        check_form(req)
        resp.append_header("Set-Cookie", self._credentials.sessions.end(req))
        go(resp, f"{prefix(req)}/login")


def go(resp: falcon.Response, place: str) -> None:
    resp.status = 303
    resp.set_header("Location", place)
    resp.set_header("Cache-Control", "no-store")


def check_form(req: Request) -> None:
    """Refuse a form that a page elsewhere sends: it could log its reader in under a foreign name.

    Raises falcon.HTTPForbidden.
    """
    if not same_origin(req):
        req.denied = "origin"
        raise falcon.HTTPForbidden(
            description="This form is for the pages of this server, as Sec-Fetch-Site or Origin says. "
            "A program sends its token as `Authorization: Bearer`."
        )


def read_form(req: Request) -> dict[str, str]:
    """The fields of a form that came as the body. Raises TooLarge, Invalid, falcon.HTTPUnsupportedMediaType."""
    kind = (req.content_type or "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise falcon.HTTPUnsupportedMediaType(description=f"A form was expected: {FORM}.")
    data = req.bounded_stream.read(MAX_FORM + 1)
    if len(data) > MAX_FORM:
        raise TooLarge(f"The form has more than {MAX_FORM} bytes.")
    try:
        return dict(parse_qsl(data.decode(), keep_blank_values=True))
    except ValueError as error:
        raise Invalid(Issue("error", "structure", "The form is no UTF-8.")) from error
