"""The history interactions: their parameters, their pages, their Bundles. https://hl7.org/fhir/R4/http.html#history"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

from api import subsets
from gitstore import Cursor, HistoryPage, Invalid, Issue, Snapshot, Version, View, history_entry
from gitstore.fhir import json
from gitstore.fhir.dates import format_instant, interval, parse_instant
from gitstore.fhir.ids import ResourceId

PARAMETERS = ("_since", "_at", "_count", "_author", *subsets.PARAMETERS)
PAGE = "_page"
"""The one parameter of ours, made by the server and opaque: which state of the record, and from where on."""

DEFAULT_COUNT = 50
MAX_COUNT = 1000

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_SEQUENCE = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)

Scope = ResourceId | str | None
"""Whose history: an instance's, a type's, or the whole record's."""


class Question(Struct, frozen=True):
    """What a history request asks for. `count` 0 asks for the total alone; `given` is what the links repeat.

    `part` is what is left of each resource, None for all of it; `author` a name or a mail address.
    """

    since: int | None
    at: tuple[int, int] | None
    count: int
    sequence: int | None
    cursor: Cursor | None
    given: Mapping[str, str]
    part: subsets.Subset | None
    author: str | None = None


def question(parameters: Mapping[str, str]) -> Question:
    """Raises Invalid for a value that is no date, no number, or no page of ours."""
    # The + of a time zone arrives as a space where the client did not escape it; no date holds a space.
    dates = {name: parameters[name].replace(" ", "+") for name in ("_since", "_at") if name in parameters}
    sequence, cursor = _page(parameters[PAGE]) if PAGE in parameters else (None, None)
    return Question(
        since=parse_instant(dates["_since"]) if "_since" in dates else None,
        at=interval(dates["_at"]) if "_at" in dates else None,
        count=count_of(parameters),
        sequence=sequence,
        cursor=cursor,
        given={**{name: value for name, value in parameters.items() if name != PAGE}, **dates},
        part=subsets.subset(parameters, of_bundle=True),
        author=parameters.get("_author") or None,
    )


def filled(parameters: Mapping[str, str]) -> dict[str, str]:
    """What a form sent, as `question` takes it: without what was left empty, and with the beginning of a day for a day."""
    found = {name: value for name, value in parameters.items() if value}
    if _DAY.fullmatch(found.get("_since", "")):
        found["_since"] += "T00:00:00Z"
    return found


def count_of(parameters: Mapping[str, str]) -> int:
    """How many entries a page is to have; 0 where only their number is wanted. Raises Invalid."""
    text = parameters.get("_count", str(DEFAULT_COUNT))
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Invalid(Issue("error", "value", f"`_count={text[:80]}` is not a number of entries."))
    return 0 if parameters.get("_summary") == "count" else min(int(text), MAX_COUNT)


def _page(text: str) -> tuple[int, Cursor | None]:
    sequence, _, cursor = text.partition(".")
    if not _SEQUENCE.fullmatch(sequence):
        raise Invalid(
            Issue("error", "value", f"`{PAGE}={text[:80]}` is no page: follow the links as they are.")
        )
    return int(sequence), Cursor.parse(cursor) if cursor else None


def pinned(store: View, asked: Question) -> Snapshot:
    """The record as the first page saw it, so that no later write moves an entry to another page."""
    return store.snapshot(asked.sequence)


def page(snapshot: Snapshot, scope: Scope, asked: Question) -> HistoryPage:
    """Raises NotFound for an instance that never existed."""
    return snapshot.history(
        scope,
        since=asked.since,
        at=asked.at,
        author=asked.author,
        cursor=asked.cursor,
        count=max(asked.count, 1),
    )


def bundle(url: str, base: str, snapshot: Snapshot, asked: Question, found: HistoryPage) -> bytes:
    """The page as a Bundle of type history; `url` is the history's own, without parameters."""
    resource: dict[str, Any] = {
        "resourceType": "Bundle",
        "meta": {"lastUpdated": format_instant(snapshot.commit.last_updated)},
        "type": "history",
        **({"total": found.total} if found.total is not None else {}),
        "link": [
            {"relation": relation, "url": link}
            for relation, link in relations(url, snapshot.commit.sequence, asked, found).items()
        ],
    }
    if asked.count and found.versions:
        resource["entry"] = [_entry(base, snapshot, version, asked.part) for version in found.versions]
    return json.dumps(resource)


def relations(url: str, sequence: int, asked: Question, found: HistoryPage) -> dict[str, str]:
    """By their names the links of a page."""

    def link(page: str | None) -> str:
        query = urlencode({**asked.given, PAGE: page} if page else asked.given, safe=":")
        return f"{url}?{query}" if query else url

    here = None
    if asked.sequence is not None:
        here = f"{asked.sequence}.{asked.cursor}" if asked.cursor else str(asked.sequence)
    links = {"self": link(here)}
    if asked.count:
        links["first"] = link(str(sequence))
        if found.newer is not None:
            links["previous"] = link(f"{sequence}.{found.newer}")
        if found.older is not None:
            links["next"] = link(f"{sequence}.{found.older}")
    return links


def _entry(base: str, snapshot: Snapshot, version: Version, part: subsets.Subset | None) -> dict[str, Any]:
    """One version, with what `part` leaves of its resource."""
    if version.deleted:
        return history_entry(base, version, None)
    body = snapshot.body(version)
    return history_entry(base, version, json.Raw(body) if part is None else part.of(json.loads_trusted(body)))
