"""The page of a search: its form, what was found as a table, and the pages beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import falcon
from msgspec import Struct

from api import search
from api.html import shell
from api.html.links import Links
from api.html.stories import Moment
from api.html.summaries import cells, columns, heading, title
from api.html.values import Value
from api.request import Request
from gitstore import SearchPage, Snapshot, Version
from gitstore.fhir import Resource, json

_FIRST = {
    "Patient": ("name", "identifier", "birthdate", "address", "general-practitioner"),
    "Observation": ("patient", "code", "date", "status", "category"),
    "Practitioner": ("name", "identifier"),
}
"""What people ask most; the others of a type are a click away."""
_USUAL = ("patient", "code", "name", "title", "date", "status")
_CONTROLS = ("_id", "_lastUpdated", "_sort", "_count")
_HIDDEN = frozenset({"_format", "_pretty"})


class Field(Struct, frozen=True):
    """One parameter of the form; `hint` says what kind of value it takes."""

    name: str
    value: str
    hint: str


class Row(Struct, frozen=True):
    """One resource of the table. `mode` is match, or include for what came along."""

    href: str
    name: str
    type: str
    title: str
    cells: list[Value | None]
    version: Version
    when: Moment
    mode: str


def send_search(
    req: Request,
    resp: falcon.Response,
    snapshot: Snapshot,
    asked: search.Question,
    found: SearchPage,
    parameters: Mapping[str, str],
) -> None:
    """`parameters` are those that the type can be searched by, with their kinds."""
    links = Links.of(req)
    scope = asked.scope
    types = {match.version.resource_id.type for match in found.matches}
    names = columns(scope.type if types <= {scope.type} else None)
    shown = [(match.version, match.contained, "match") for match in found.matches]
    shown += [(version, None, "include") for version in found.included]
    if found.query.count == 0 or found.query.summary == "count":
        shown = []
    url = scope.url(req.base)
    shell.send(
        req,
        resp,
        "search.html",
        title=_heading(scope, asked),
        scope=scope,
        path=links.here(url),
        fields=_fields(scope.type, asked.pairs, parameters),
        others=_others(scope.type, asked.pairs, parameters),
        headings=[heading(name) for name in names],
        rows=[_row(snapshot, links, version, contained, mode, names) for version, contained, mode in shown],
        total=found.total,
        issues=found.query.issues,
        relations={name: links.here(each) for name, each in search.relations(url, asked, found).items()},
        compartment=scope.compartment,
        read_at=shell.read_at(found.commit),
    )


def _heading(scope: search.Scope, asked: search.Question) -> str:
    what = scope.type or "Everything"
    if scope.compartment is not None:
        return f"{what} about {scope.compartment}"
    return f"{what}: search results" if _given(asked.pairs) else what


def _given(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in pairs if name not in _HIDDEN]


def _fields(type: str | None, pairs: Sequence[tuple[str, str]], parameters: Mapping[str, str]) -> list[Field]:
    """What was asked, then the usual parameters that weren't."""
    given = [Field(name, value, _hint(name, parameters)) for name, value in _given(pairs)]
    names = {field.name for field in given}
    usual = _FIRST.get(type or "", _USUAL)
    return [
        *given,
        *(Field(name, "", parameters[name]) for name in usual if name in parameters and name not in names),
    ]


def _others(type: str | None, pairs: Sequence[tuple[str, str]], parameters: Mapping[str, str]) -> list[Field]:
    shown = {field.name for field in _fields(type, pairs, parameters)}
    known = {**dict.fromkeys(_CONTROLS, ""), **dict(sorted(parameters.items()))}
    return [Field(name, "", hint) for name, hint in known.items() if name not in shown]


def _hint(name: str, parameters: Mapping[str, str]) -> str:
    return parameters.get(name.partition(":")[0].partition(".")[0], "")


def _row(
    snapshot: Snapshot,
    links: Links,
    version: Version,
    contained: str | None,
    mode: str,
    names: tuple[str, ...],
) -> Row:
    resource: Resource = json.loads_trusted(snapshot.body(version))
    anchor = ""
    if contained is not None:
        anchor = f"#contained-{contained}"
        resource = next(each for each in resource["contained"] if each.get("id") == contained)
    own = columns(resource.get("resourceType")) if contained is None and mode == "match" else ()
    return Row(
        links.resource(version.resource_id) + anchor,
        version.resource_id.id if contained is None else f"{version.resource_id.id}#{contained}",
        version.resource_id.type,
        title(resource, links),
        cells(resource, names, links) if own == names else [None] * len(names),
        version,
        Moment.of(version.last_updated),
        mode,
    )
