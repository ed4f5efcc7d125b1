"""Media types, encodings and sizes: what comes in, and the form in which answers go out.

https://hl7.org/fhir/R4/http.html#mime-type
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache

import falcon
from msgspec import Struct

from api.request import FHIR_JSON, FHIR_XML, Request, pairs
from gitstore import Invalid, Issue, NotSupported, TooLarge
from gitstore.fhir import Resource, json, packed, patch, xml

JSON_TYPES = (FHIR_JSON, "application/json", "text/json", "application/json+fhir")
"""All of them mean FHIR's JSON; an answer carries the one that was asked for."""

XML_TYPES = (FHIR_XML, "application/xml", "text/xml", "application/xml+fhir")
"""All of them mean FHIR's XML."""

MEDIA_TYPES = JSON_TYPES + XML_TYPES
"""In the order in which they are offered to a client that doesn't care."""

_SHORT_NAMES = {"json": FHIR_JSON, "xml": FHIR_XML}

ACCEPT_PATCH = {"Accept-Patch": ", ".join(patch.MEDIA_TYPES)}
"""https://www.rfc-editor.org/rfc/rfc5789#section-3.1"""

FHIR_VERSIONS = ("4.0", "4.0.1")
GZIP_FROM = 1024
_GZIP_LEVEL = 4
_PACKED_AS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content-Encoding -> wbits of zlib. https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1"""

_PIECE = 4096

_LIST = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*("(?:\\.|[^"\\])*"|[^;]*)')
_QUALITY = re.compile(r"[01](\.[0-9]{0,3})?")


class MediaRange(Struct, frozen=True):
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
    wanted = None
    if req.form or "_format" in req.query_string:
        wanted = dict([*pairs(req.query_string), *req.form]).get("_format")
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
    return parsed(content_type(req.content_type), body(req, limit))


def bundle(req: Request, limit: int) -> Resource:
    """As `resource`; the entries of a large batch or transaction are Packed."""
    media_type, data = content_type(req.content_type), body(req, limit)
    if media_type in XML_TYPES or len(data) < packed.MANY:
        return parsed(media_type, data)
    return _object(packed.loads(data))


def parsed(media_type: str, data: bytes) -> Resource:
    """The resource that a body of one of the MEDIA_TYPES holds. Raises Invalid."""
    if not data.strip():
        raise Invalid(Issue("error", "structure", "The body is empty: a resource was expected."))
    if media_type in XML_TYPES:
        return xml.loads(data)
    return _object(json.loads(data))


def _object(value: object) -> Resource:
    if not isinstance(value, dict):
        raise Invalid(
            Issue("error", "structure", "The body is JSON, but no object: a resource was expected.")
        )
    return value


def patch_document(req: Request, limit: int) -> patch.Patch:
    """The patch in a request's body.

    Raises falcon.HTTPUnsupportedMediaType with Accept-Patch, TooLarge above `limit` bytes, Invalid.
    """
    given = next(media_ranges(req.content_type or ""), None)
    if given is not None:
        _check_parameters(given, ACCEPT_PATCH)
    data = body(req, limit)
    try:
        return patch.parse("" if given is None else given.type, data)
    except NotSupported as error:
        raise falcon.HTTPUnsupportedMediaType(description=str(error), headers=ACCEPT_PATCH) from error


def content_type(header: str | None) -> str:
    """The one of MEDIA_TYPES that a body is said to be. Raises falcon.HTTPUnsupportedMediaType."""
    given = next(media_ranges(header or ""), None)
    if given is None or given.type not in MEDIA_TYPES:
        shown = f"The body comes as `{header[:100]}`" if header else "The body comes without a Content-Type"
        raise falcon.HTTPUnsupportedMediaType(
            description=f"{shown}; this server reads {FHIR_JSON} and {FHIR_XML}."
        )
    _check_parameters(given)
    return given.type


def _check_parameters(given: MediaRange, headers: dict[str, str] | None = None) -> None:
    fault = None
    if given.parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        fault = "FHIR is UTF-8; another charset can't be read."
    elif not given.fhir_version_fits:
        fault = f"This server reads FHIR {FHIR_VERSIONS[1]} only."
    if fault is not None:
        raise falcon.HTTPUnsupportedMediaType(description=fault, headers=headers)


def body(req: Request, limit: int) -> bytes:
    """The body as it was before it was packed. Of a request that is to be done once its digest is noted.

    Raises falcon.HTTPUnsupportedMediaType, TooLarge above `limit` bytes (also when unpacked), Invalid.
    """
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
    if encoding in _PACKED_AS:
        data = _unpacked(data, encoding, limit)
    elif encoding != "identity":
        raise falcon.HTTPUnsupportedMediaType(
            description=f"The body is encoded as `{encoding[:80]}`; this server reads gzip, deflate and identity."
        )
    if req.get_header("Idempotency-Key") is not None:
        req.received = hashlib.sha256(data).digest()
    return data


def _unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """A packed body of any number of members, never more of it than the limit in memory."""
    unpacked = bytearray()
    member = zlib.decompressobj(_PACKED_AS[encoding])
    # In small pieces, as each member copies what comes after it: of a million members in one piece, a million times.
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        while piece:
            if member.eof:
                member = zlib.decompressobj(_PACKED_AS[encoding])
            try:
                unpacked += member.decompress(piece, limit + 1 - len(unpacked))
            except zlib.error as error:
                text = f"The body is said to be {encoding}, and is not."
                raise Invalid(Issue("error", "structure", text)) from error
            if len(unpacked) > limit:
                raise _too_large(limit)
            piece = member.unused_data
    if not member.eof:
        raise Invalid(Issue("error", "structure", f"The {encoding} body ends too early."))
    return bytes(unpacked)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than the limit of {limit} bytes.")


def compress(req: Request, resp: falcon.Response) -> None:
    """Pack an answer that is worth it, for a client that takes gzip."""
    data = None if resp.get_header("Content-Encoding") else resp.data
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
