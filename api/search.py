"""Searches over HTTP: where their parameters stand, and the Bundles that answer them.

https://hl7.org/fhir/R4/http.html#search
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import falcon
from msgspec import Struct

from api import media
from api.errors import outcome_bytes
from api.request import Request
from api.subsets import Subset
from gitstore import Invalid, Issue, Match, SearchPage, Snapshot, TooLarge, Version
from gitstore.fhir import Resource, json
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId

PAGE = "_page"
"""The one parameter of ours, made by the server and opaque: which state of the record, and from where on."""

FORM = "application/x-www-form-urlencoded"
MAX_FORM = 256 * 1024

MAX_QUERY = 56 * 1024
"""Bytes that all parameters may take in a URL: the links of a page repeat them, and a header has 64 KiB."""


class Scope(Struct, frozen=True):
    """What is searched: resources of a type, or without one of all types; those in a compartment where one is named."""

    type: str | None = None
    compartment: ResourceId | None = None

    def url(self, base: str) -> str:
        if self.compartment is not None:
            return f"{base}/{self.compartment}/{self.type or '*'}"
        return f"{base}/{self.type}" if self.type else base


class Question(Struct, frozen=True):
    """What a search asks for. `pairs` are its parameters as they were given, in their order, without `page`."""

    scope: Scope
    pairs: Sequence[tuple[str, str]]
    page: str | None
    strict: bool


def pairs(query: str) -> list[tuple[str, str]]:
    """The parameters of a query string, decoded. Raises Invalid for what is not UTF-8."""
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise Invalid(
            Issue("error", "value", "What is percent-encoded in the query is not UTF-8.")
        ) from error


def pairs_of_form(req: Request) -> list[tuple[str, str]]:
    """The parameters in the body of a `_search`; no body is none.

    Raises falcon.HTTPUnsupportedMediaType for other than a form in UTF-8, TooLarge, Invalid.
    """
    given = next(media.media_ranges(req.content_type or ""), None)
    if given is not None and given.type == FORM:
        if given.parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
            raise falcon.HTTPUnsupportedMediaType(description="FHIR is UTF-8; another charset can't be read.")
        try:
            return pairs(media.body(req, MAX_FORM).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise Invalid(Issue("error", "value", "The form is not UTF-8.")) from error
    if given is None and not media.body(req, MAX_FORM):
        return []
    shown = f"comes as `{req.content_type[:100]}`" if req.content_type else "comes without a Content-Type"
    raise falcon.HTTPUnsupportedMediaType(description=f"The body {shown}; a search is sent as {FORM}.")


def question(scope: Scope, given: Sequence[tuple[str, str]], *, strict: bool) -> Question:
    """Raises Invalid for more than one page, TooLarge for more parameters than a link has room for."""
    pages = [value for name, value in given if name == PAGE]
    if len(pages) > 1:
        raise Invalid(Issue("error", "value", f"The parameter `{PAGE}` stands twice."))
    others = [(name, value) for name, value in given if name != PAGE]
    if len(_query(others)) > MAX_QUERY:
        raise TooLarge(f"The parameters take more than {MAX_QUERY} bytes as a URL.")
    return Question(scope, others, pages[0] if pages else None, strict)


def page(snapshot: Snapshot, asked: Question, *bases: str) -> SearchPage:
    """What a snapshot of `Store.reading` finds; `bases` are the names of this server. Raises Invalid, TooCostly, NotSupported; NotFound for a page that is gone."""
    return snapshot.search(
        (asked.scope.type,) if asked.scope.type else (),
        asked.pairs,
        strict=asked.strict,
        compartment=asked.scope.compartment,
        page=asked.page,
        bases=bases,
    )


def bundle(base: str, snapshot: Snapshot, asked: Question, found: SearchPage) -> bytes:
    """The page as a Bundle of type searchset."""
    resource: dict[str, Any] = {
        "resourceType": "Bundle",
        "meta": {"lastUpdated": format_instant(found.commit.last_updated)},
        "type": "searchset",
    }
    if found.total is not None:
        resource["total"] = found.total
    links = relations(asked.scope.url(base), asked, found)
    resource["link"] = [{"relation": relation, "url": url} for relation, url in links.items()]
    if not _counts_only(found):
        entries = list(_entries(base, snapshot, found))
        if entries:
            resource["entry"] = entries
    return json.dumps(resource)


def _counts_only(found: SearchPage) -> bool:
    return found.query.count == 0 or found.query.summary == "count"


def relations(url: str, asked: Question, found: SearchPage) -> dict[str, str]:
    """By their names the links of a page: `self` says what of the question had an effect; the others repeat the question."""

    def link(given: Sequence[tuple[str, str]], page: str | None) -> str:
        query = _query([*given, (PAGE, page)] if page is not None else given)
        return f"{url}?{query}" if query else url

    links = {"self": link(found.query.used, asked.page)}
    if not _counts_only(found):
        links["first"] = link(asked.pairs, None)
        if found.previous is not None:
            links["previous"] = link(asked.pairs, found.previous)
        if found.next is not None:
            links["next"] = link(asked.pairs, found.next)
    return links


def _query(given: Sequence[tuple[str, str]]) -> str:
    return urlencode(given, quote_via=quote, safe=":/,$*")


def _entries(base: str, snapshot: Snapshot, found: SearchPage) -> Iterator[dict[str, Any]]:
    """Matches, what comes along with them, and on the first page what was not understood."""
    query = found.query
    part = Subset(query.summary, query.elements) if query.elements or query.summary != "false" else None
    for match in found.matches:
        yield (
            _contained(base, snapshot, match, part)
            if match.contained
            else _entry(base, snapshot, match.version, part, "match")
        )
    for version in found.included:
        yield _entry(base, snapshot, version, part, "include")
    if found.first and query.issues:
        outcome = outcome_bytes(query.issues)
        # Not random, so that the same search has the same answer.
        name = uuid.uuid5(uuid.NAMESPACE_URL, outcome.decode())
        yield {"fullUrl": name.urn, "resource": json.Raw(outcome), "search": {"mode": "outcome"}}


def _entry(base: str, snapshot: Snapshot, version: Version, part: Subset | None, mode: str) -> dict[str, Any]:
    body = snapshot.body(version)
    return {
        "fullUrl": f"{base}/{version.resource_id}",
        "resource": json.Raw(body) if part is None else part.of(json.loads_trusted(body)),
        "search": {"mode": mode},
    }


def _contained(base: str, snapshot: Snapshot, match: Match, part: Subset | None) -> dict[str, Any]:
    """A contained resource by itself, as `_containedType=contained` asks for it."""
    container: Resource = json.loads_trusted(snapshot.body(match.version))
    resource: Resource = next(each for each in container["contained"] if each.get("id") == match.contained)
    return {
        "fullUrl": f"{base}/{match.version.resource_id}#{match.contained}",
        "resource": resource if part is None else part.of(resource),
        "search": {"mode": "match"},
    }
