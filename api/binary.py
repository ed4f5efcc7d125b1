"""Binary, the one resource that HTTP also carries as what it holds: a PDF, an image. https://hl7.org/fhir/R4/binary.html#rest"""

from __future__ import annotations

import base64
import re

import falcon
from msgspec import Struct

from api import media
from api.request import FHIR_JSON, FHIR_XML, Request, pairs
from api.responses import describe
from gitstore import Invalid, Issue, Snapshot, TooLarge, Version
from gitstore.fhir import Resource, json
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import is_id, parse_version_id

FHIR_TYPES = (FHIR_JSON, FHIR_XML, "application/json+fhir", "application/xml+fhir")
"""Who names one of them wants the resource; `application/json` may also mean a content that is JSON."""

OCTETS = "application/octet-stream"

UNTOUCHED = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}
"""Anyone may have written what is in there: a browser stores it, and runs no script of it under this server's name."""

_READ = re.compile(r"/fhir/Binary/[^/_$][^/]*(/_history/[^/]+)?/?")
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,127}"
_MEDIA_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}( ?; ?{_TOKEN}=({_TOKEN}|"[\x20\x21\x23-\x5b\x5d-\x7e]*"))*')
_REFERENCE = re.compile(r"[\x21-\x7e]{1,1000}")
_SPACES = re.compile(r"[ \t\r\n]+")
_SAYS_BINARY = re.compile(rb'"resourceType"\s*:\s*"Binary"')
_FIRST_ELEMENT = re.compile(rb"<([A-Za-z_][^\s/>]*)")


class Content(Struct, frozen=True):
    """What a Binary holds, as an answer carries it: a media type that is fit for a header, and the reference of its
    securityContext, where that is fit, too.
    """

    data: bytes
    media_type: str
    security_context: str | None


def is_read(req: Request) -> bool:
    """Whether this is a read or vread of a Binary, which may be asked for by any media type."""
    return req.method in ("GET", "HEAD") and _READ.fullmatch(req.path) is not None


def negotiate(req: Request) -> str:
    """The media type of the resource or of an error, for a read of a Binary.

    Raises falcon.HTTPNotAcceptable where a form of the resource is asked for that there is not.
    """
    try:
        return media.negotiate(req)
    except falcon.HTTPNotAcceptable:
        asked = media.media_ranges(req.get_header("Accept") or "")
        if _asks_for_format(req) or any(each.type in FHIR_TYPES and each.quality for each in asked):
            raise
        return FHIR_JSON


def content(req: Request, snapshot: Snapshot, version: Version, *, part: bool) -> Content | None:
    """The content, where a read asks for that; None for any other resource, and where it is the resource that is wanted.

    Raises Invalid where only a part of it is asked for, falcon.HTTPNotAcceptable where there is no base64 in it.
    """
    if version.resource_id.type != "Binary" or _asks_for_format(req):
        return None
    resource = json.loads_trusted(snapshot.body(version))
    media_type = _fit_media_type(resource.get("contentType"))
    if not wants_content(req.get_header("Accept") or "*/*", media_type):
        return None
    if part:
        text = f"A content has no parts; `_summary` and `_elements` are for the resource, as {FHIR_JSON}."
        raise Invalid(Issue("error", "not-supported", text))
    return Content(_decoded(resource, version), media_type, _fit_reference(resource.get("securityContext")))


def wants_content(accept: str, media_type: str) -> bool:
    """Whether Accept asks for the content, of this media type, and not for the resource.

    FHIR's own types ask for the resource, unless the content's is named and liked better. Otherwise it is the content,
    except where generic JSON or XML is named and the content isn't acceptable.
    """
    own = media_type.partition(";")[0].strip().lower()
    names = {own, *_generic_types(own)}
    ranges = list(media.media_ranges(accept))
    liked = max((each.quality for each in ranges if each.type in FHIR_TYPES), default=0)
    if liked:
        return max((each.quality for each in ranges if each.type == own), default=0) > liked
    if any(each.quality and each.specificity(name) for each in ranges for name in names):
        return True
    return not any(each.quality and each.type in media.MEDIA_TYPES for each in ranges)


def send(req: Request, resp: falcon.Response, version: Version, found: Content) -> None:
    """Answer a read with the content; where there is none it is empty, and still 200."""
    describe(req, resp, version)
    resp.set_headers(UNTOUCHED)
    if found.security_context is not None:
        resp.set_header("X-Security-Context", found.security_context)
    resp.content_type = found.media_type
    resp.data = found.data


def resource(req: Request, limit: int, id: str | None = None) -> Resource:
    """The Binary that a body holds or is: whatever is no Binary, also other JSON and XML, is the content of one.

    `limit` is in bytes of the resource, in which base64 takes a third more. `id` is that of the URL.
    Raises falcon.HTTPUnsupportedMediaType, TooLarge, Invalid.
    """
    media_type = _form_of_resource(req.content_type)
    data = media.body(req, limit if media_type else limit // 4 * 3)
    context = req.get_header("X-Security-Context")
    if media_type is not None and (found := _binary_in(media_type, data)) is not None:
        if context is not None:
            text = "X-Security-Context is for contents; of a resource it is `securityContext`."
            raise Invalid(Issue("error", "value", text))
        return found
    if not data:
        raise Invalid(Issue("error", "required", "The body is empty: a Binary has content."))
    if len(data) > limit // 4 * 3:
        raise TooLarge(f"The content is larger than the limit of {limit // 4 * 3} bytes.")
    wrapped: Resource = {"resourceType": "Binary"}
    if id is not None:
        wrapped["id"] = id
    wrapped["contentType"] = _content_type(req.content_type or "")
    if context is not None:
        wrapped["securityContext"] = {"reference": _checked_reference(context)}
    wrapped["data"] = base64.b64encode(data).decode("ascii")
    return wrapped


def _asks_for_format(req: Request) -> bool:
    return "_format" in req.query_string and "_format" in dict(pairs(req.query_string))


def _generic_types(own: str) -> tuple[str, ...]:
    """The names by which a client may ask for JSON or XML without knowing what exactly it is."""
    if own in ("application/json", "text/json") or own.endswith("+json"):
        return ("application/json", "text/json")
    if own in ("application/xml", "text/xml") or own.endswith("+xml"):
        return ("application/xml", "text/xml")
    return ()


def _fit_media_type(stored: object) -> str:
    """What is stored, where it can stand in a header; a record may hold anything."""
    return stored if isinstance(stored, str) and _MEDIA_TYPE.fullmatch(stored) else OCTETS


def _fit_reference(stored: object) -> str | None:
    reference = stored.get("reference") if isinstance(stored, dict) else None
    return reference if isinstance(reference, str) and _REFERENCE.fullmatch(reference) else None


def _decoded(resource: Resource, version: Version) -> bytes:
    text = resource.get("data", "")
    try:
        return base64.b64decode("".join(text.split()) if isinstance(text, str) else "?", validate=True)
    except ValueError as error:
        raise falcon.HTTPNotAcceptable(
            description=f"`{version}` has no base64 in `data`; it can be read as {FHIR_JSON}."
        ) from error


def _form_of_resource(header: str | None) -> str | None:
    """Which of the forms of a resource a body may have; None for a content for certain.

    Raises falcon.HTTPUnsupportedMediaType without a Content-Type, and for FHIR's own types in another version or charset.
    """
    given = next(media.media_ranges(header or ""), None)
    if given is not None and given.type not in media.MEDIA_TYPES:
        return None
    try:
        return media.content_type(header)
    except falcon.HTTPUnsupportedMediaType:
        if given is None or given.type in FHIR_TYPES:
            raise
        return None


def _binary_in(media_type: str, data: bytes) -> Resource | None:
    """The Binary that a body is; None for a body that is something else. Raises Invalid for one with mistakes."""
    if media_type in media.XML_TYPES:
        first = _FIRST_ELEMENT.search(data)
        is_binary = first is not None and first[1] == b"Binary" and b"http://hl7.org/fhir" in data
        return media.parsed(media_type, data) if is_binary else None
    try:
        value = json.loads(data)
    except Invalid:
        if _SAYS_BINARY.search(data):
            raise
        return None
    return value if isinstance(value, dict) and value.get("resourceType") == "Binary" else None


def _content_type(header: str) -> str:
    text = _SPACES.sub(" ", header.strip())
    if not _MEDIA_TYPE.fullmatch(text):
        raise falcon.HTTPUnsupportedMediaType(description=f"`{text[:100]}` is no media type.")
    return text


def _checked_reference(header: str) -> str:
    parts = header.strip().split("/")
    versioned = len(parts) == 4 and parts[2] == "_history" and parse_version_id(parts[3]) is not None
    if (len(parts) == 2 or versioned) and is_resource_type(parts[0]) and is_id(parts[1]):
        return header.strip()
    text = f"X-Security-Context is `{header[:100]}`; expected a relative reference such as Patient/example."
    raise Invalid(Issue("error", "value", text))
