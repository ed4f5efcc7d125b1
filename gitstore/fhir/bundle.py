"""What the entries of a batch or transaction ask for. https://hl7.org/fhir/R4/bundle.html#bundle-unique"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, overload
from urllib.parse import unquote_to_bytes

from msgspec import Struct
from msgspec.structs import replace

from gitstore.errors import Invalid, Issue
from gitstore.fhir import Resource, json
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import is_id
from gitstore.fhir.packed import Packed, unpacked

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")  # http://hl7.org/fhir/http-verb
_WITH_RESOURCE = ("POST", "PUT", "PATCH")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BAD_CHARACTER = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Request(Struct, frozen=True):
    """One entry: what a request of its own would be. https://hl7.org/fhir/R4/http.html#transaction

    `entry` is its number from 0. `path` holds the segments of the URL below the base, percent-decoded
    (`("Patient", "1", "_history", "2")`), `query` what follows the `?`, as it was written. The conditions are
    what the headers of the same names would say. The `resource` is Packed where the entries of the Bundle are.
    """

    entry: int
    method: str
    path: tuple[str, ...]
    query: str
    resource: Resource | Packed | None = None
    full_url: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_none_exist: str | None = None

    @property
    def content(self) -> Resource | None:
        """The resource as a dict; where it is Packed it is made anew each time."""
        content: Resource | None = unpacked(self.resource)
        return content


def is_search(request: Request) -> bool:
    """Whether it is a search by POST, which writes nothing: `Patient/_search?name=ada`."""
    return _is_search(request.method, request.path)


@overload
def requests(
    bundle: Resource, bases: Collection[str] = (), *, each: Literal[False] = False
) -> list[Request]: ...
@overload
def requests(
    bundle: Resource, bases: Collection[str] = (), *, each: Literal[True]
) -> list[Request | Invalid]: ...
def requests(
    bundle: Resource, bases: Collection[str] = (), *, each: bool = False
) -> list[Request] | list[Request | Invalid]:
    """The entries of a Bundle in their order; what Bundle.type says is the caller's to judge.

    `bases` are the absolute URLs under which this server may be named in request.url. Raises Invalid for the
    first malformed entry, with `entry` set and an expression within the Bundle; for a batch (`each`) the
    Invalid stands in its place instead. An entry is malformed without request, method or url, with an unknown
    method, a url under none of the bases, PUT, POST or PATCH without resource, a Bundle within the Bundle, or
    a fullUrl that is relative, version-specific, or given before with the same meta.versionId.
    """
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise _wrong_type(entries, "an array", "Bundle.entry")
    found: list[Request | Invalid] = list(_examined(entries, bases))
    if each:
        return found
    requests: list[Request] = []
    for request in found:
        if isinstance(request, Invalid):
            raise request
        requests.append(request)
    return requests


def resolver(full_urls: Mapping[str, str], own_full_url: str | None = None) -> Callable[[str], str | None]:
    """What a link in an entry of a Bundle stands for, for `references.rewrite`.

    `full_urls` maps the fullUrl of each entry to the reference that it has here (`Patient/1`). A relative
    reference is one to the server that the entry's own fullUrl is from, where that is a RESTful URL; so in
    `http://example.org/fhir/Observation/7`, `Patient/1` is `http://example.org/fhir/Patient/1`.
    Version-specific references stand for themselves. https://hl7.org/fhir/R4/bundle.html#references
    """
    base = _restful_base(own_full_url)

    def resolve(text: str) -> str | None:
        target = full_urls.get(text)
        if target is None and base is not None and _is_relative_reference(text):
            return full_urls.get(base + text)
        return target

    return resolve


def _restful_base(full_url: str | None) -> str | None:
    """`http://example.org/fhir/` of `http://example.org/fhir/Patient/1`; None where it isn't RESTful."""
    if full_url is None or not full_url.lower().startswith(("http://", "https://")):
        return None
    base, *reference = full_url.rsplit("/", 2)
    return base + "/" if _is_relative_reference("/".join(reference)) else None


def _is_relative_reference(text: str) -> bool:
    type, _, id = text.partition("/")
    return is_resource_type(type) and is_id(id)


def _examined(entries: list[Any], bases: Collection[str]) -> Iterator[Request | Invalid]:
    seen: dict[tuple[str, str | None], int] = {}
    for number, entry in enumerate(entries):
        place = f"Bundle.entry[{number}]"
        try:
            content = _object(unpacked(entry), place)
            request = _request(number, content, bases)
            _check_unique(request, content, seen, place)
            if isinstance(entry, Packed) and request.resource is not None:
                request = replace(request, resource=entry.resource())
        except Invalid as refusal:
            refusal.entry = number
            yield refusal
        else:
            yield request


def _request(number: int, entry: dict[str, Any], bases: Collection[str]) -> Request:
    place = f"Bundle.entry[{number}]"
    if "request" not in entry:
        raise _required("request", place, "an object with method and url")
    request = _object(entry["request"], f"{place}.request")
    full_url = _full_url(entry, place)
    method = _method(request, f"{place}.request")
    path, query = _target(request, bases, f"{place}.request")
    if not path and method == "POST":
        raise Invalid(
            Issue(
                "error",
                "invalid",
                "POST to the base is a batch or transaction; a Bundle can't hold another one.",
                f"{place}.request.url",
            )
        )
    if not path and method not in ("GET", "HEAD"):
        text = f"{method} needs the url of a resource; expected Type/id or Type?criteria."
        raise Invalid(Issue("error", "value", text, f"{place}.request.url"))
    return Request(
        number,
        method,
        path,
        query,
        _resource(entry, method, place, needed=not _is_search(method, path)),
        full_url,
        _text(request, "ifMatch", f"{place}.request"),
        _text(request, "ifNoneMatch", f"{place}.request"),
        _text(request, "ifModifiedSince", f"{place}.request"),
        _text(request, "ifNoneExist", f"{place}.request"),
    )


def _method(request: dict[str, Any], place: str) -> str:
    method = _text(request, "method", place)
    if method is None:
        raise _required("method", place, f"one of {', '.join(_METHODS)}")
    if method not in _METHODS:
        text = f"`{_short(method)}` is no method of a Bundle: expected one of {', '.join(_METHODS)}."
        raise Invalid(Issue("error", "value", text, f"{place}.method"))
    return sys.intern(method)


def _target(request: dict[str, Any], bases: Collection[str], place: str) -> tuple[tuple[str, ...], str]:
    """Path and query of request.url below the base."""
    url = _text(request, "url", place)
    if url is None:
        raise _required("url", place, "a URL relative to the base, such as Patient/1")
    path, _, query = _below_base(url, bases, f"{place}.url").partition("?")
    if _BAD_CHARACTER.search(url) or _BAD_ESCAPE.search(path) or "#" in url:
        raise _bad_url(
            url, "spaces, control characters and # can't stand in it, nor % without two digits", place
        )
    path = path.removeprefix("/").removesuffix("/")
    segments = path.split("/") if path else []
    if "" in segments:
        raise _bad_url(url, "it has an empty segment", place)
    try:
        decoded = [unquote_to_bytes(segment).decode("utf-8") for segment in segments]
    except UnicodeDecodeError as error:
        raise _bad_url(url, "what is percent-encoded in it is not UTF-8", place) from error
    # Types are few, and entries may be very many.
    return tuple(sys.intern(each) if is_resource_type(each) else each for each in decoded), query


def _below_base(url: str, bases: Collection[str], place: str) -> str:
    if not _SCHEME.match(url) and not url.startswith("//"):
        return url
    for base in (base.rstrip("/") for base in bases):
        if url.startswith(base) and url[len(base) : len(base) + 1] in ("", "/", "?"):
            return url[len(base) :]
    text = f"`{_short(url)}` is not on this server: expected a URL relative to its base, such as Patient/1."
    raise Invalid(Issue("error", "value", text, place))


def _is_search(method: str, path: tuple[str, ...]) -> bool:
    return method == "POST" and path[-1:] == ("_search",)


def _resource(entry: dict[str, Any], method: str, place: str, *, needed: bool) -> Resource | None:
    if "resource" not in entry:
        if needed and method in _WITH_RESOURCE:
            raise _required("resource", place, f"what to {method}")
        return None
    resource = _object(entry["resource"], f"{place}.resource")
    if _text(resource, "resourceType", f"{place}.resource") is None:
        raise _required("resourceType", f"{place}.resource", "the type of the resource")
    return resource


def _full_url(entry: dict[str, Any], place: str) -> str | None:
    full_url = _text(entry, "fullUrl", place)
    if full_url is None:
        return None
    if not _SCHEME.match(full_url) or _BAD_CHARACTER.search(full_url) or "#" in full_url:
        text = f"`{_short(full_url)}` is no fullUrl: expected urn:uuid:... or an absolute URL without #."
        raise Invalid(Issue("error", "value", text, f"{place}.fullUrl"))
    if "/_history/" in full_url:
        text = f"The fullUrl `{_short(full_url)}` names a version; expected the URL of the resource (bdl-8)."
        raise Invalid(Issue("error", "invalid", text, f"{place}.fullUrl"))
    return full_url


def _check_unique(
    request: Request, entry: dict[str, Any], seen: dict[tuple[str, str | None], int], place: str
) -> None:
    """bdl-7: a fullUrl is unique in a Bundle, or else its entries differ in meta.versionId."""
    if request.full_url is None:
        return
    meta = entry.get("resource", {}).get("meta")
    version_id = meta.get("versionId") if isinstance(meta, dict) else None
    key = request.full_url, version_id if isinstance(version_id, str) else None
    earlier = seen.setdefault(key, request.entry)
    if earlier != request.entry:
        text = f"The fullUrl `{_short(request.full_url)}` is already that of Bundle.entry[{earlier}] (bdl-7)."
        raise Invalid(Issue("error", "invalid", text, f"{place}.fullUrl"))


def _object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(value, "an object", place)
    return value


def _text(parent: dict[str, Any], name: str, place: str) -> str | None:
    """The text of a property, None where there is no such property."""
    if name not in parent:
        return None
    value = parent[name]
    if not isinstance(value, str):
        raise _wrong_type(value, "a string", f"{place}.{name}")
    return value


def _required(name: str, place: str, expected: str) -> Invalid:
    return Invalid(Issue("error", "required", f"{place} has no `{name}`: expected {expected}.", place))


def _wrong_type(value: object, expected: str, place: str) -> Invalid:
    shown = _short(json.dumps(value).decode("utf-8"))
    return Invalid(Issue("error", "invalid", f"{place} is `{shown}`: expected {expected}.", place))


def _bad_url(url: str, problem: str, place: str) -> Invalid:
    return Invalid(
        Issue("error", "value", f"`{_short(url)}` is no url of a request: {problem}.", f"{place}.url")
    )


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + "…"
