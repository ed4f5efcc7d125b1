"""Searching the record: search."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

import click
from msgspec import Struct

from cli.arguments import option, resource_type
from cli.opening import open_store, settings
from cli.output import columns, date_text, page, print_json, visible
from cli.past import as_asked
from gitstore import SearchPage, Snapshot, Store, Version
from gitstore.fhir import Resource
from gitstore.fhir.definitions import compartments
from gitstore.fhir.ids import ResourceId, is_id
from gitstore.fhir.json import loads_trusted
from gitstore.fhir.summary import elements, summary

_PAGE = 1000
_HEADLINE = 60
_NAMES = ("title", "name", "code", "vaccineCode", "medicationCodeableConcept", "type", "description")
"""Elements that tell a reader best what a resource is about, in this order."""


class Question(Struct, frozen=True):
    """What is searched (all types without any), perhaps within a compartment, and by which parameters."""

    types: tuple[str, ...]
    compartment: ResourceId | None
    pairs: list[tuple[str, str]]


class Hit(Struct, frozen=True):
    """A resource that was found. `contained` is the id of the resource within it that is meant."""

    version: Version
    resource: Resource
    contained: str | None = None
    included: bool = False

    @property
    def name(self) -> str:
        return (
            f"{self.version.resource_id}#{self.contained}"
            if self.contained
            else str(self.version.resource_id)
        )


def question(text: str) -> Question:
    """A search as the URL below the base writes it. Raises BadParameter."""
    path, _, query = text.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise click.BadParameter("What is percent-encoded in it is not UTF-8.") from error
    match path.strip("/").split("/"):
        case [""]:
            return Question((), None, pairs)
        case [type]:
            return Question((resource_type(type),), None, pairs)
        case [owner, id, type] if is_id(id):
            if resource_type(owner) not in compartments():
                raise click.BadParameter(
                    f"`{owner}` has no compartment to search in; {', '.join(sorted(compartments()))} have."
                )
            types = () if type == "*" else (resource_type(type),)
            return Question(types, ResourceId(owner, id), pairs)
    raise click.BadParameter(
        f"`{path}` is nothing to search: expected a type, `Patient/1/Observation`, `Patient/1/*`, or only `?` and parameters."
    )


@click.command()
@click.argument("asked", metavar="QUERY", type=question)
@option("--json", is_flag=True, help="Print NDJSON, each resource on one line; with --count an object.")
@option("--count", is_flag=True, help="Print only how many there are.")
@option("-n", "--limit", metavar="COUNT", type=click.IntRange(1), help="Stop after so many matches.")
@option("--lenient", is_flag=True, help="Leave out parameters that aren't known, with a warning.")
def search(asked: Question, json: bool, count: bool, limit: int | None, lenient: bool) -> None:
    """Find resources, as the server's search does.

    QUERY is what stands behind the base in a URL; quote it, since & and ? mean something to a shell:

    \b
    search 'Patient?name=ada&birthdate=lt1900'
    search 'Observation?patient=Patient/1&code=http://loinc.org|29463-7&_sort=-date'
    search 'Patient/1/Observation?status=final'     in the compartment of a patient
    search '?_type=Patient,Practitioner&_lastUpdated=ge2026-01-01'

    All matches are printed, in the order of the search; _count gives one page of that size. What _include and
    _revinclude bring along is marked `included`.
    """
    with open_store() as store:
        if count or ("_summary", "count") in asked.pairs:
            total = _total(store, asked, strict=not lenient)
            if json:
                print_json({"total": total})
            else:
                click.echo(total)
            return
        hits = _hits(store, asked, limit, strict=not lenient)
        if json:
            for hit in hits:
                print_json(hit.resource)
        else:
            page(_lines(hits))


def _total(store: Store, asked: Question, *, strict: bool) -> int:
    pairs = [pair for pair in asked.pairs if pair[0] not in ("_summary", "_count", "_total")]
    found = _search(store, asked, [*pairs, ("_summary", "count")], None, strict=strict)[1]
    assert found.total is not None  # it is what was asked for
    return found.total


def _hits(store: Store, asked: Question, limit: int | None, *, strict: bool) -> Iterator[Hit]:
    """Matches, and page by page what comes along with them, each once."""
    given = {name for name, _ in asked.pairs}
    pairs = list(asked.pairs)
    if "_count" not in given:
        pairs.append(("_count", str(min(limit or _PAGE, _PAGE))))
    if "_total" not in given:
        pairs.append(("_total", "none"))
    token: str | None = None
    seen: set[str] = set()
    left = limit
    while True:
        snapshot, found = _search(store, asked, pairs, token, strict=strict)
        for match in found.matches[:left]:
            yield _hit(snapshot, found, match.version, contained=match.contained)
        for version in found.included:
            if str(version) not in seen:
                seen.add(str(version))
                yield _hit(snapshot, found, version, included=True)
        left = None if left is None else left - len(found.matches)
        token = found.next
        if token is None or "_count" in given or (left is not None and left <= 0):
            return


def _search(
    store: Store, asked: Question, pairs: list[tuple[str, str]], token: str | None, *, strict: bool
) -> tuple[Snapshot, SearchPage]:
    """A page by itself: pages are pinned, and no reader should hold up the index while its pager waits for a key."""
    base = settings().base_url
    with as_asked(store).reading() as snapshot:
        found = snapshot.search(
            asked.types,
            pairs,
            strict=strict,
            compartment=asked.compartment,
            page=token,
            bases=(base.rstrip("/"),) if base else (),
        )
    for issue in found.query.issues if found.first else ():
        click.echo(f"git-fhir: {visible(issue.text)}", err=True)
    return snapshot, found


def _hit(
    snapshot: Snapshot,
    found: SearchPage,
    version: Version,
    *,
    contained: str | None = None,
    included: bool = False,
) -> Hit:
    resource: Resource = loads_trusted(snapshot.body(version))
    if contained is not None:
        resource = next(each for each in resource["contained"] if each.get("id") == contained)
    query = found.query
    part = elements(resource, query.elements) if query.elements else summary(resource, query.summary)
    return Hit(version, part, contained, included)


def _lines(hits: Iterator[Hit]) -> Iterator[str]:
    """A line for each; columns are aligned page by page, as the rest isn't known yet."""
    while rows := [_row(hit) for hit in islice(hits, _PAGE)]:
        yield from columns(rows)


def _row(hit: Hit) -> tuple[str, ...]:
    version = hit.version
    about = headline(hit.resource)
    return (
        visible(hit.name),
        f"v{version.version_id}",
        date_text(version.last_updated),
        visible(f"included: {about}" if hit.included else about),
    )


def headline(resource: Resource) -> str:
    """What a resource is about, in a few words; "" where it doesn't say."""
    found = (_text(resource[name]) for name in _NAMES if name in resource)
    text = " ".join(next(filter(None, found), "").split())
    return text if len(text) <= _HEADLINE else f"{text[: _HEADLINE - 1]}…"


def _text(value: Any) -> str:
    """The words of a string, HumanName, CodeableConcept or Coding, or of the first of several."""
    match value:
        case str():
            return value
        case [first, *_]:
            return _text(first)
        case {"text": str(text)} | {"display": str(text)}:
            return text
        case {"coding": coding}:
            return _text(coding)
        case {"code": str(code)}:
            return code
        case {"family": _} | {"given": _}:
            return " ".join([*value.get("given", ()), *filter(None, [value.get("family")])])
    return ""
