"""HTML pages: templates with everything escaped, and headers that let nothing but their own style work."""

from __future__ import annotations

import base64
import hashlib
from functools import cache

import falcon
import jinja2
from markupsafe import Markup

HTML = "text/html; charset=utf-8"


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("api"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _style(name: str) -> str:
    return _environment().get_template(name).render()


@cache
def policy(style: str = "page.css") -> str:
    """No script, nothing from anywhere, no frame around; the one style by its digest. https://www.w3.org/TR/CSP3/"""
    digest = base64.b64encode(hashlib.sha256(_style(style).encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


def send(resp: falcon.Response, template: str, *, style: str = "page.css", **values: object) -> None:
    """Answer with a page of api/templates, in one of the styles that lie there.

    Referrer-Policy is not no-referrer: browsers would send `Origin: null` with the forms of the page.
    """
    text = _environment().get_template(template).render(style=Markup(_style(style)), **values)  # noqa: S704 - a file of our own
    resp.data = text.encode("utf-8", "replace")
    resp.content_type = HTML
    resp.set_headers(
        {
            "Cache-Control": "no-store",
            "Content-Security-Policy": policy(style),
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }
    )
