"""The operation `$everything`: its parameters, and the pages that answer it.

https://hl7.org/fhir/R4/patient-operation-everything.html, https://hl7.org/fhir/R4/encounter-operation-everything.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from msgspec import Struct

from gitstore import (
    Everything,
    Invalid,
    Issue,
    NotFound,
    Snapshot,
    Version,
    everything_about,
)
from gitstore.fhir import Resource, json
from gitstore.fhir.dates import format_instant, interval, parse_instant
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, is_id

TYPES = ("Patient", "Encounter")
"""Those for which FHIR defines it."""

PAGE = "_page"
"""The one parameter of ours, made by the server and opaque: which state of the record, and from where on."""

MAX_COUNT = 1000
"""Entries of a page, also where nobody asks for pages."""

_VALUES = {
    "start": ("valueDate", "valueDateTime", "valueString"),
    "end": ("valueDate", "valueDateTime", "valueString"),
    "_since": ("valueInstant", "valueDateTime", "valueString"),
    "_type": ("valueCode", "valueString"),
    "_count": ("valueInteger", "valuePositiveInt", "valueUnsignedInt"),
}
"""The parameters, with the elements in which Parameters may hold their values."""

_FORM = ("_format", "_pretty")
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


class Place(Struct, frozen=True):
    """Where a page begins: in the record as the commit `sequence` left it, after a resource, of `total`."""

    sequence: int
    total: int
    after: ResourceId

    def __str__(self) -> str:
        return f"{self.sequence}.{self.total}.{self.after}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Undoes str(). Raises Invalid."""
        sequence, _, rest = text.partition(".")
        total, _, after = rest.partition(".")
        type, _, id = after.partition("/")
        if not (
            _NUMBER.fullmatch(sequence) and _NUMBER.fullmatch(total) and is_resource_type(type) and is_id(id)
        ):
            raise Invalid(Issue("error", "value", f"`{text[:80]}` is no page of this server."))
        return cls(int(sequence), int(total), ResourceId(type, id))


class Question(Struct, frozen=True):
    """What a request asks for. `count` 0 asks for the total alone; `given` is what the links repeat."""

    wanted: Everything
    count: int
    begin: Place | None
    given: Sequence[tuple[str, str]]


class Page(Struct, frozen=True):
    """Some of the resources, in the state that all pages are of. `total` doesn't count what others refer to."""

    state: Snapshot
    versions: Sequence[Version]
    total: int
    next: Place | None


def question(focus: ResourceId, pairs: Sequence[tuple[str, str]], base: str) -> Question:
    """What the parameters ask about a resource, whether they came in the URL or in Parameters.

    Raises NotFound where the type has no such operation, Invalid for unknown or repeated parameters and for bad values.
    """
    if focus.type not in TYPES:
        text = f"There is no `$everything` of a {focus.type}; {' and '.join(TYPES)} have one."
        raise NotFound(Issue("error", "not-supported", text))
    types = [
        type.strip() for name, text in pairs if name == "_type" for type in text.split(",") if type.strip()
    ]
    for type in types:
        if not is_resource_type(type):
            raise Invalid(Issue("error", "value", f"`_type`: `{type[:80]}` is no resource type of FHIR R4."))
    single = _once([(name, text) for name, text in pairs if name != "_type"])
    # The + of a time zone arrives as a space where the client did not escape it; no date holds a space.
    start, end, since = (
        single[name].replace(" ", "+") if name in single else None for name in ("start", "end", "_since")
    )
    for date in (start, end):
        if date is not None:
            interval(date)
    wanted = Everything(
        focus, start, end, parse_instant(since) if since is not None else None, frozenset(types), (base,)
    )
    begin = Place.parse(single[PAGE]) if PAGE in single else None
    given = [(name, text) for name, text in pairs if name != PAGE and name not in _FORM]
    return Question(wanted, _count(single.get("_count")), begin, given)


def _once(pairs: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, text in pairs:
        if name in found:
            raise Invalid(Issue("error", "value", f"The parameter `{name[:80]}` stands twice."))
        if name not in _VALUES and name != PAGE and name not in _FORM:
            expected = ", ".join(f"`{each}`" for each in _VALUES)
            issue = f"$everything has no parameter `{name[:80]}`, only {expected}."
            raise Invalid(Issue("error", "not-supported", issue))
        found[name] = text
    return found


def _count(text: str | None) -> int:
    if text is None:
        return MAX_COUNT
    if not _NUMBER.fullmatch(text):
        raise Invalid(Issue("error", "value", f"`_count={text[:80]}` is not a number of entries."))
    return min(int(text), MAX_COUNT)


def pairs_of_parameters(body: Resource) -> list[tuple[str, str]]:
    """The parameters in the body of a POST. Raises Invalid."""
    given = body.get("parameter", [])
    if body.get("resourceType") != "Parameters" or not isinstance(given, list):
        raise Invalid(Issue("error", "structure", "The body of $everything is Parameters.", "Parameters"))
    return [_pair(each, f"Parameters.parameter[{number}]") for number, each in enumerate(given)]


def _pair(parameter: Any, expression: str) -> tuple[str, str]:
    if not isinstance(parameter, dict) or parameter.get("name") not in _VALUES:
        expected = ", ".join(f"`{each}`" for each in _VALUES)
        raise Invalid(
            Issue(
                "error", "not-supported", f"`{expression}` is none of $everything's: {expected}.", expression
            )
        )
    name = str(parameter["name"])
    values = [parameter[element] for element in _VALUES[name] if element in parameter]
    if len(values) != 1 or isinstance(values[0], bool | dict | list | None):
        text = f"`{expression}` must have one value that fits: {' or '.join(_VALUES[name])}."
        raise Invalid(Issue("error", "value", text, expression))
    return name, str(values[0])


def page(snapshot: Snapshot, asked: Question) -> Page:
    """What a snapshot of `Store.reading` has. Raises NotFound, Gone, NotSupported, TooCostly, Invalid."""
    state = snapshot if asked.begin is None else snapshot.past(asked.begin.sequence)
    found = everything_about(snapshot, asked.wanted, state)
    wanted = asked.wanted
    if asked.begin is None:
        total = sum(wanted.is_inside(version.resource_id) for version in found)
        left = found
    else:
        total = asked.begin.total
        after = wanted.place(asked.begin.after)
        left = [version for version in found if wanted.place(version.resource_id) > after]
    here = left[: asked.count]
    more = here and len(left) > len(here)
    following = Place(state.commit.sequence, total, here[-1].resource_id) if more else None
    return Page(state, here, total, following)


def bundle(base: str, asked: Question, found: Page) -> bytes:
    """The page as a Bundle of type searchset."""
    url = f"{base}/{asked.wanted.focus}/$everything"
    resource: dict[str, Any] = {
        "resourceType": "Bundle",
        "meta": {"lastUpdated": format_instant(found.state.commit.last_updated)},
        "type": "searchset",
        "total": found.total,
        "link": [_link("self", url, asked.given, asked.begin), _link("first", url, asked.given, None)],
    }
    if found.next is not None:
        resource["link"].append(_link("next", url, asked.given, found.next))
    entries = [_entry(base, asked.wanted, found.state, version) for version in found.versions]
    if entries:
        resource["entry"] = entries
    return json.dumps(resource)


def _link(relation: str, url: str, given: Sequence[tuple[str, str]], begin: Place | None) -> dict[str, str]:
    query = urlencode([*given, *([(PAGE, begin)] if begin else [])], quote_via=quote, safe=":/,")
    return {"relation": relation, "url": f"{url}?{query}" if query else url}


def _entry(base: str, wanted: Everything, state: Snapshot, version: Version) -> dict[str, Any]:
    mode = "match" if wanted.is_inside(version.resource_id) else "include"
    return {
        "fullUrl": f"{base}/{version.resource_id}",
        "resource": json.Raw(state.body(version)),
        "search": {"mode": mode},
    }
