"""From a resource to the rows by which searches find it. https://hl7.org/fhir/R4/search.html

The walk goes over what the resource has, and not over what its type could have. Nothing here knows a resource type.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

from gitstore.fhir import Resource, definitions, nodes, paths
from gitstore.search import integrity
from gitstore.search.extraction_plan import Asked, Plan, Step
from gitstore.search.parameters import Registry
from gitstore.search.rows import Contained, Rows
from gitstore.search.values import Found, Use, converter

_TAG = re.compile(r"<[^<>]*+>")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_LONG = 200
_NO_CONTENT = frozenset({"resourceType", "id", "meta", "text"})


def extract(registry: Registry, resource: Resource) -> Rows:
    """All rows of a resource, and of those that it contains, each once.

    Whatever shape the resource has, nothing is raised but KeyError for a resourceType that isn't one.
    """
    contained = [one for one in _list(resource.get("contained")) if _is_resource(one)]
    types = {one["id"]: one["resourceType"] for one in contained if isinstance(one.get("id"), str)}
    node = nodes.of_resource(resource)
    context = paths.Context.of(node)
    rows = _rows(registry.plan(resource["resourceType"]), resource, context, types, registry.base_url)
    if registry.all_references:
        rows.references += integrity.rows_of(resource, registry.base_url)
    rows.narrative = _narrative(resource)
    rows.content = _content(resource, rows.narrative)
    for one in contained:
        if one.get("id") in types:
            plan, within = registry.plan(one["resourceType"]), context.within(nodes.of_resource(one))
            rows.contained.append(
                Contained(one["resourceType"], one["id"], _rows(plan, one, within, types, registry.base_url))
            )
    return rows


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_resource(value: Any) -> bool:
    type = value.get("resourceType") if isinstance(value, dict) else None
    return isinstance(type, str) and definitions.is_resource_type(type)


def _rows(
    plan: Plan,
    resource: Resource,
    context: paths.Context,
    contained: dict[str, str],
    base_url: str | None,
) -> Rows:
    rows = Rows()
    found = Found(rows, [0] * plan.slots, contained, base_url)
    if plan.root.slot:
        found.number = found.elements[plan.root.slot] = 1
    _walk(plan.root.children, resource, found)
    for asked in plan.asked:
        if asked.needed is None or not asked.needed.isdisjoint(resource):
            _ask(asked, context, found)
    tables = [name for name in _TABLES if getattr(rows, name)]
    if found.number:
        _drop_incomplete(plan, rows, tables)
    for name in tables:
        setattr(rows, name, list(dict.fromkeys(getattr(rows, name))))
    return rows


_TABLES = ("tokens", "strings", "dates", "quantities", "references", "positions")
_WITH_ELEMENT = frozenset(_TABLES) - {"positions"}


def _drop_incomplete(plan: Plan, rows: Rows, tables: list[str]) -> None:
    """Take out what is of a composite's element that lacks another component: no search can match it."""
    elements: dict[int, set[int]] = {}
    with_element = [name for name in tables if name in _WITH_ELEMENT]
    for name in with_element:
        for row in getattr(rows, name):
            if row[-1]:
                elements.setdefault(row[0], set()).add(row[-1])
    whole: dict[int, set[int]] = {}
    for keys in plan.composites:
        if any(key in elements for key in keys):
            common = set.intersection(*(elements.get(key, set()) for key in keys))
            whole |= dict.fromkeys(keys, common)
    for name in with_element:
        some = getattr(rows, name)
        setattr(rows, name, [row for row in some if not row[-1] or row[-1] in whole[row[0]]])


def _walk(steps: dict[str, Step], parent: dict[str, Any], found: Found) -> None:
    for name, value in parent.items():
        step = steps.get(name)
        if step is None:
            continue
        children = step.children
        for item in value if value.__class__ is list else (value,):
            if step.slot:
                found.number += 1
                found.elements[step.slot] = found.number
            for convert, uses in step.converts.items():
                convert(found, item, uses)
            if children and item.__class__ is dict:
                _walk(children, item, found)


def _ask(asked: Asked, context: paths.Context, found: Found) -> None:
    context.start(context.resource)
    for node in asked.path([context.resource], context):
        if not asked.components:
            _convert(node, asked.kind, asked.use, found)
            continue
        found.number += 1
        for path, kind, use in asked.components:
            found.elements[use.slot] = found.number
            context.start(node)
            for value in path([node], context):
                _convert(value, kind, use, found)


def _convert(node: nodes.Node, kind: str, use: Use, found: Found) -> None:
    convert = converter(kind, node[0])
    if convert is not None:
        convert(found, node[1], [use])


# Words


def _narrative(resource: Resource) -> str:
    """The text of the narrative without its tags and comments."""
    text = resource.get("text")
    div = text.get("div") if isinstance(text, dict) else None
    if not isinstance(div, str):
        return ""
    if "<!--" in div:
        first, *others = div.split("<!--")
        div = first + "".join(other.partition("-->")[2] for other in others)
    plain = _TAG.sub(" ", div)
    return " ".join(html.unescape(plain).split())


def _content(resource: Resource, narrative: str) -> str:
    """All text of the resource, that of its narrative included; not its id and meta, no URIs, no data in base64."""
    texts = [narrative] if narrative else []
    texts += _texts({name: value for name, value in resource.items() if name not in _NO_CONTENT})
    return "\n".join(dict.fromkeys(texts))


def _texts(parent: dict[str, Any]) -> Iterator[str]:
    waiting: list[Any] = [parent]
    while waiting:
        value = waiting.pop()
        if value.__class__ is str:
            if (":" not in value or not _URI.match(value)) and (len(value) < _LONG or " " in value):
                yield value
        elif value.__class__ is dict:
            waiting.extend(reversed(value.values()))
        elif value.__class__ is list:
            waiting.extend(reversed(value))
