"""Media types, encodings and sizes: what comes in, and the form in which answers go out.

https://hl7.org/fhir/R4/http.html#mime-type
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import falcon

from api.request import FHIR_JSON, FHIR_XML, Request, pairs
from gitstore import Invalid, Issue, TooLarge
from gitstore.fhir import Resource, json, xml

JSON_TYPES = (FHIR_JSON, "application/json", "text/json", "application/json+fhir")
"""All of them mean FHIR's JSON; an answer carries the one that was asked for."""

XML_TYPES = (FHIR_XML, "application/xml", "text/xml", "application/xml+fhir")
"""All of them mean FHIR's XML."""

MEDIA_TYPES = JSON_TYPES + XML_TYPES
"""In the order in which they are offered to a client that doesn't care."""

_SHORT_NAMES = {"json": FHIR_JSON, "xml": FHIR_XML}

FHIR_VERSIONS = ("4.0", "4.0.1")
GZIP_FROM = 1024
_GZIP_LEVEL = 4

_LIST = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*("(?:\\.|[^"\\])*"|[^;]*)')
_QUALITY = re.compile(r"[01](\.[0-9]{0,3})?")


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One element of an Accept header, or a Content-Type."""

    type: str
    parameters: dict[str, str]

    @property
    def quality(self) -> float:
        text = self.parameters.get("q", "1")
        return min(float(text), 1.0) if _QUALITY.fullmatch(text) else 1.0

    @property
    def fhir_version_fits(self) -> bool:
        return self.parameters.get("fhirversion", FHIR_VERSIONS[0]) in FHIR_VERSIONS

    def specificity(self, media_type: str) -> int:
        """How closely this range names a media type: 3 exactly, 2 `application/*`, 1 `*/*`, 0 not at all."""
        if self.type == media_type:
            return 3
        if self.type == media_type.partition("/")[0] + "/*":
            return 2
        return 1 if self.type == "*/*" else 0


def media_ranges(header: str) -> Iterator[MediaRange]:
    for part in _LIST.findall(header):
        name, _, _ = part.partition(";")
        parameters = {key.lower(): value.strip().strip('"') for key, value in _PARAMETER.findall(part)}
        yield MediaRange(name.strip().lower(), parameters)


@lru_cache(maxsize=256)
def accepted(accept: str) -> str | None:
    """The media type that an Accept header likes best of those there are; None where it takes none.

    https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1
    """
    ranges = [each for each in media_ranges(accept) if each.fhir_version_fits]
    best: tuple[float, int, int, int] | None = None
    for order, offer in enumerate(MEDIA_TYPES):
        matches = [
            (each.specificity(offer), -place) for place, each in enumerate(ranges) if each.specificity(offer)
        ]
        if not matches:
            continue
        specificity, place = max(matches)
        rank = (ranges[-place].quality, specificity, place, -order)
        if rank[0] > 0 and (best is None or rank > best):
            best = rank
    return None if best is None else MEDIA_TYPES[-best[3]]


def negotiate(req: Request) -> str:
    """The media type of the answer. `_format` outweighs Accept; neither means FHIR's JSON.

    Raises falcon.HTTPNotAcceptable.
    """
    wanted = dict(pairs(req.query_string)).get("_format") if "_format" in req.query_string else None
    if wanted is not None:
        media_type = _format(wanted.strip())
    else:
        wanted = req.get_header("Accept") or "*/*"
        media_type = accepted(wanted)
    if media_type is None:
        raise falcon.HTTPNotAcceptable(
            description=f"`{wanted[:200]}` can't be answered: this server speaks FHIR {FHIR_VERSIONS[1]} as {FHIR_JSON} or {FHIR_XML}."
        )
    return media_type


def _format(text: str) -> str | None:
    if text in _SHORT_NAMES:
        return _SHORT_NAMES[text]
    wanted = next(media_ranges(text), None)
    if wanted is None or not wanted.fhir_version_fits:
        return None
    name = wanted.type.replace(" ", "+")  # a + that the client did not escape arrives as a space
    return name if name in MEDIA_TYPES else None


def printed(req: Request, data: bytes) -> bytes:
    """JSON of ours in the form that the client asked for; `_pretty=true` prints it anew.

    Raises Invalid for what XML has no room for.
    """
    if req.media_type in XML_TYPES:
        value = json.loads_trusted(data)
        return xml.dumps_pretty(value) if req.pretty else xml.dumps(value)
    return json.dumps_pretty(json.Raw(data)) if req.pretty else data


def send(req: Request, resp: falcon.Response, data: bytes) -> None:
    """Answer with JSON of ours in the form that the client asked for.

    Where XML has no room for it, a read is refused by falcon.HTTPNotAcceptable. The answer to a write is then JSON: it
    has happened, and to say so counts for more.
    """
    try:
        resp.data = printed(req, data)
    except Invalid as error:
        if req.method in ("GET", "HEAD"):
            raise falcon.HTTPNotAcceptable(description=str(error)) from error
        req.media_type = FHIR_JSON
        resp.data = printed(req, data)
    resp.content_type = req.media_type


def resource(req: Request, limit: int) -> Resource:
    """The resource in a request's body.

    Raises falcon.HTTPUnsupportedMediaType, TooLarge above `limit` bytes (also when unpacked), Invalid.
    """
    media_type = _content_type(req.content_type)
    data = _body(req, limit)
    if media_type in XML_TYPES:
        return xml.loads(data)
    value = json.loads(data)
    if not isinstance(value, dict):
        raise Invalid(
            Issue("error", "structure", "The body is JSON, but no object: a resource was expected.")
        )
    return value


def _content_type(header: str | None) -> str:
    given = next(media_ranges(header or ""), None)
    if given is None or given.type not in MEDIA_TYPES:
        shown = f"The body comes as `{header[:100]}`" if header else "The body comes without a Content-Type"
        raise falcon.HTTPUnsupportedMediaType(
            description=f"{shown}; this server reads {FHIR_JSON} and {FHIR_XML}."
        )
    if given.parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise falcon.HTTPUnsupportedMediaType(description="FHIR is UTF-8; another charset can't be read.")
    if not given.fhir_version_fits:
        raise falcon.HTTPUnsupportedMediaType(description=f"This server reads FHIR {FHIR_VERSIONS[1]} only.")
    return given.type


def _body(req: Request, limit: int) -> bytes:
    length = req.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    # A chunked body has no length. waitress gives it one; other servers say that the stream knows its end.
    stream = req.stream if length is None and req.env.get("wsgi.input_terminated") else req.bounded_stream
    data: bytes = stream.read(limit + 1)
    if len(data) > limit:
        raise _too_large(limit)
    if length is not None and len(data) < length:
        raise Invalid(Issue("error", "incomplete", "The body ends before its Content-Length."))
    encoding = (req.get_header("Content-Encoding") or "identity").strip().lower()
    if encoding in ("gzip", "x-gzip"):
        data = _unpacked(data, limit)
    elif encoding != "identity":
        raise falcon.HTTPUnsupportedMediaType(
            description=f"The body is encoded as `{encoding[:80]}`; this server reads gzip and identity."
        )
    if not data.strip():
        raise Invalid(Issue("error", "structure", "The body is empty: a resource was expected."))
    return data


def _unpacked(data: bytes, limit: int) -> bytes:
    """A gzip body of any number of members, never more of it than the limit in memory."""
    unpacked = b""
    try:
        while data:
            member = zlib.decompressobj(wbits=31)
            unpacked += member.decompress(data, limit + 1 - len(unpacked))
            if len(unpacked) > limit:
                raise _too_large(limit)
            if not member.eof:
                raise Invalid(Issue("error", "structure", "The gzip body ends too early."))
            data = member.unused_data
    except zlib.error as error:
        raise Invalid(Issue("error", "structure", "The body is said to be gzip, and is not.")) from error
    return unpacked


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than the limit of {limit} bytes.")


def compress(req: Request, resp: falcon.Response) -> None:
    """Pack an answer that is worth it, for a client that takes gzip."""
    data = resp.data
    if data is None or len(data) < GZIP_FROM or not takes_gzip(req.get_header("Accept-Encoding") or ""):
        return
    resp.data = gzip.compress(data, compresslevel=_GZIP_LEVEL, mtime=0)
    resp.set_header("Content-Encoding", "gzip")


def takes_gzip(header: str) -> bool:
    """https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3"""
    if "gzip" not in header and "*" not in header:
        return False
    weights = {each.type: each.quality for each in media_ranges(header)}
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0
