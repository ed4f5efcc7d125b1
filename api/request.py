"""What the headers and the query of one request say, as FHIR and the record understand them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

import falcon
from msgspec.structs import replace

from api.principal import ANONYMOUS_PRINCIPAL, Principal
from api.streaming import Stream
from api.told import Told
from gitstore import Author, Invalid, Issue, View
from gitstore.fhir import Resource, json
from gitstore.fhir.dates import SECOND

FHIR_JSON = "application/fhir+json"
FHIR_XML = "application/fhir+xml"
MAX_MESSAGE = 500
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")

Preference = Literal["minimal", "representation", "OperationOutcome"]
Handling = Literal["strict", "lenient"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)
_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[bqBQ]\?[^?\s]*\?=")
_PREFERENCE = re.compile(r'\s*([^\s=;,"]+)\s*(?:=\s*("[^"]*"|[^\s;,"]*))?((?:;(?:"[^"]*"|[^,"])*)?)(?:,|$)')
_RETURN: dict[str, Preference] = {
    "minimal": "minimal",
    "representation": "representation",
    "operationoutcome": "OperationOutcome",
}
_HANDLING: dict[str, Handling] = {"strict": "strict", "lenient": "lenient"}
_EVERYWHERE = ("_format", "_pretty")


class Request(falcon.Request):
    """A request with what the gate in front of the endpoints has found out about it.

    `store` is the record as the principal sees it. `media_type` is the negotiated one of the answer, `started` a monotonic time in seconds. `form` are the parameters in
    the body, which an endpoint reads that takes some. `received` is a digest of the body, for requests to be done once.
    `html`: the answer is for a person, as a page; `doors`: there is a login here.
    `interaction` is FHIR's code for what is asked, `denied` says in a word why it was refused for who asks. `entered`: it counts as one of
    its principal that are under way. `told` collects whose data is given out, `named` is what the path names.
    `passed_on`: the answer is another node's, as it is.
    `at`: the point of a request to the past, which `path` is without; `allowed`: the methods there, where not all are of the route.
    """

    request_id: str = ""
    principal: Principal = ANONYMOUS_PRINCIPAL
    store: View
    media_type: str = FHIR_JSON
    html: bool = False
    doors: bool = False
    base: str = ""
    started: float = 0.0
    form: Sequence[tuple[str, str]] = ()
    received: bytes = b""
    interaction: str = "other"
    denied: str | None = None
    entered: bool = False
    sending: Stream | None = None
    told: Told | None = None
    named: Mapping[str, Any] = {}
    passed_on: bool = False
    at: str | None = None
    allowed: str | None = None

    @property
    def asked_path(self) -> str:
        """The path as it was asked for."""
        return self.path if self.at is None else f"/at/{self.at}{self.path}"

    @property
    def bases(self) -> tuple[str, ...]:
        """The service bases that what the client names may be below: a resource of the past refers to that of now."""
        return (self.base,) if self.at is None else (self.base, self.base.replace(f"/at/{self.at}/", "/", 1))

    @property
    def author(self) -> Author:
        """The author of what this request writes."""
        return self.principal.author

    def parameters(self, *known: str) -> dict[str, str]:
        return parameters(self.query_string, known)

    def preference(self) -> Preference | None:
        return preference(self.get_header("Prefer") or "")

    def handling(self) -> Handling | None:
        return handling(self.get_header("Prefer") or "")

    def message(self) -> str | None:
        """The author's why. Raises Invalid."""
        return message(self.get_header("X-Commit-Message"))

    def provenance(self) -> Resource | None:
        """The Provenance that comes with a write, which may be no Provenance yet. Raises Invalid where it is no JSON."""
        return provenance(self.get_header("X-Provenance"))

    @property
    def pretty(self) -> bool:
        return dict([*pairs(self.query_string), *self.form]).get("_pretty") == "true"


def http_date(instant: int) -> str:
    """An instant as an HTTP date, its fraction of a second cut off."""
    return _http_date(instant // SECOND)


@lru_cache(maxsize=1024)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def parameters(query: str, known: Collection[str]) -> dict[str, str]:
    """The parameters of an interaction that is no search, by name, without those that only shape the answer.

    Raises Invalid where one is repeated or unknown here. https://hl7.org/fhir/R4/http.html#parameters
    """
    found: dict[str, str] = {}
    for name, value in pairs(query):
        if name in found:
            raise Invalid(Issue("error", "value", f"The parameter `{name[:80]}` stands twice."))
        if name not in known and name not in _EVERYWHERE and (name, value) != ("_summary", "false"):
            expected = ", ".join(f"`{each}`" for each in (*known, *_EVERYWHERE))
            raise Invalid(
                Issue("error", "not-supported", f"There is no parameter `{name[:80]}` here, only {expected}.")
            )
        found[name] = value
    return {name: value for name, value in found.items() if name in known}


def preference(header: str) -> Preference | None:
    """What `Prefer: return=` asks for; unknown preferences and values are ignored, of several the first counts.

    https://www.rfc-editor.org/rfc/rfc7240#section-2, https://hl7.org/fhir/R4/http.html#prefer
    """
    return _RETURN.get(_preferred(header, "return"))


def handling(header: str) -> Handling | None:
    """What `Prefer: handling=` asks for. https://www.rfc-editor.org/rfc/rfc7240#section-4.4"""
    return _HANDLING.get(_preferred(header, "handling"))


def _preferred(header: str, wanted: str) -> str:
    """The value of a preference in small letters, "" where there is none."""
    found = (value for name, value, _ in _PREFERENCE.findall(header) if name.lower() == wanted)
    return str(next(found, "")).strip('"').lower()


def request_id(header: str | None) -> str | None:
    """The client's X-Request-Id, where it can stand in a commit's trailer as it is."""
    return header if header and _REQUEST_ID.fullmatch(header) else None


def message(header: str | None) -> str | None:
    """The author's why, for the body of the commit.

    A header is bytes that WSGI shows as Latin-1; UTF-8 is tried first. Clients that can send ASCII only may use encoded
    words (RFC 2047) or `UTF-8''` with percent signs (RFC 8187).
    Raises Invalid for control characters and for more than 500 characters.
    """
    if header is None:
        return None
    text = _decoded(header).strip()
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise Invalid(
            Issue("error", "value", "X-Commit-Message holds a control character; it is one line of text.")
        )
    if len(text) > MAX_MESSAGE:
        raise Invalid(
            Issue(
                "error", "too-long", f"X-Commit-Message has {len(text)} characters, more than {MAX_MESSAGE}."
            )
        )
    return text or None


def provenance(header: str | None) -> Resource | None:
    """The resource that X-Provenance holds, in FHIR's JSON. https://hl7.org/fhir/R4/provenance.html#header

    Raises Invalid where it is no JSON, or no object.
    """
    if header is None:
        return None
    try:
        # WSGI shows the bytes as Latin-1, whatever they are.
        found = json.loads(header.encode("latin-1", "replace"))
    except Invalid as error:
        error.issues = [replace(issue, text=f"X-Provenance: {issue.text}") for issue in error.issues]
        raise
    if not isinstance(found, dict):
        raise Invalid(
            Issue("error", "structure", "X-Provenance is JSON, but no object: it holds a Provenance.")
        )
    return found


def _decoded(header: str) -> str:
    if header[:7].lower() == "utf-8''":
        return unquote(header[7:])
    if _ENCODED_WORD.search(header):
        try:
            return str(make_header(decode_header(header)))
        except (HeaderParseError, LookupError, ValueError) as error:
            raise Invalid(Issue("error", "value", "X-Commit-Message is no valid RFC 2047 text.")) from error
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header
