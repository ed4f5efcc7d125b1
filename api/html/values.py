"""A resource as people read it: names and values in nested lists, references as links, codes with their words.

Nothing is left out but what a page says elsewhere: what a form of words has no room for stands below it, by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from markupsafe import Markup
from msgspec import Struct

from api.html import narrative
from api.html.links import Links, web
from api.html.phrases import PHRASES, Parts, moment, primitive
from gitstore.fhir import Resource, definitions
from gitstore.fhir.compare import SERVER_ELEMENTS, Steps

SAID_ELSEWHERE = frozenset({"resourceType", "id", "text"})
"""Elements of a resource that its page shows in another place: its title and its narrative."""

LONG = 20_000
"""Characters of one text that a page shows."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Value(Struct, frozen=True):
    """One value: a text, where it leads, a note beside it (`title` says it in full), and what else there is of it.

    `html` is a narrative that may be shown as it is, `anchor` the id by which the page itself refers to it.
    """

    text: str = ""
    href: str | None = None
    note: str = ""
    title: str = ""
    groups: tuple[Group, ...] = ()
    html: Markup | None = None
    anchor: str = ""
    outside: bool = False


class Group(Struct, frozen=True):
    """All values of one element; `name` is what FHIR calls it."""

    label: str
    name: str
    values: tuple[Value, ...]


@lru_cache(maxsize=4096)
def label(name: str) -> str:
    """`birthDate` -> `Birth date`."""
    text = _HUMP.sub(" ", name.lstrip("_")).strip()
    words = " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in text.split())
    return words[:1].upper() + words[1:]


def groups_of(resource: Resource, links: Links, hidden: frozenset[str] = SAID_ELSEWHERE) -> tuple[Group, ...]:
    """The elements of a resource in their order, without what the server maintains in meta."""
    meta = resource.get("meta")
    if isinstance(meta, dict):
        kept = {name: value for name, value in meta.items() if name not in SERVER_ELEMENTS}
        resource = {**resource, "meta": kept}
        hidden = hidden if kept else hidden | {"meta"}
    return tuple(_groups(resource, str(resource.get("resourceType", "")), links, hidden))


def values_at(resource: Resource, steps: Steps, value: Any, links: Links) -> tuple[Value, ...]:
    """A value, or a list of them, that stands or stood at a place of a resource."""
    return _values(value, type_at(resource, steps), links)


def type_at(resource: Resource, steps: Steps) -> str:
    """The FHIR type of what is at a place, as far as R4 knows it; "" where it doesn't."""
    node: Any = resource
    type = str(resource.get("resourceType", ""))
    for step in steps:
        if isinstance(step, str):
            type = "Element" if step.startswith("_") else _types(type).get(step, "")
        node = _child(node, step)
        if isinstance(node, dict) and type in ("Resource", "") and isinstance(node.get("resourceType"), str):
            type = node["resourceType"]
    return type


def place(resource: Resource, steps: Steps) -> str:
    """A place in words: `Telecom 2 › Value`, without a number where there is only one."""
    words: list[str] = []
    node: Any = resource
    for step in steps:
        if isinstance(step, str):
            words.append(label(step))
        elif words and (step or not isinstance(node, list) or len(node) > 1):
            words[-1] += f" {step + 1}"
        node = _child(node, step)
    return " › ".join(words)


def _child(node: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return node[step] if isinstance(node, list) and step < len(node) else None
    return node.get(step) if isinstance(node, dict) else None


@lru_cache(maxsize=1024)
def _types(type: str) -> Mapping[str, str]:
    try:
        return {name: element.type for name, element in definitions.elements(type).items()}
    except KeyError:
        return {}


@lru_cache(maxsize=1024)
def _labels(type: str) -> Mapping[str, str]:
    """Of choices their name before [x]: `valueQuantity` is a value."""
    try:
        found = definitions.elements(type)
    except KeyError:
        return {}
    return {name: label(element.choice or name) for name, element in found.items()}


def _groups(value: Mapping[str, Any], type: str, links: Links, hidden: frozenset[str]) -> Iterator[Group]:
    types, labels = _types(type), _labels(type)
    for name, child in value.items():
        if name in hidden or (name[:1] == "_" and name[1:] in value and name[1:] not in hidden):
            continue
        known = name.removeprefix("_")
        if name[:1] == "_":
            beside, child_type = child, "Element"
            found = _values(child, child_type, links)
        else:
            beside = value.get(f"_{name}")
            found = _values(child, types.get(name, ""), links, name)
            if beside is not None:
                found = _with_extensions(found, beside, links)
        yield Group(labels.get(known) or label(known), known, found)


def _values(value: Any, type: str, links: Links, name: str = "") -> tuple[Value, ...]:
    if isinstance(value, list):
        return tuple(_value(each, type, links, name) for each in value)
    return (_value(value, type, links, name),)


def _with_extensions(found: tuple[Value, ...], beside: Any, links: Links) -> tuple[Value, ...]:
    """Primitives with what stands in the `_name` beside them."""
    extensions = beside if isinstance(beside, list) else [beside]
    values = []
    for place in range(max(len(found), len(extensions))):
        value = found[place] if place < len(found) else Value()
        extra = extensions[place] if place < len(extensions) else None
        if isinstance(extra, dict):
            below = tuple(_groups(extra, "Element", links, frozenset()))
            value = Value(value.text, value.href, value.note, value.title, below, outside=value.outside)
        values.append(value)
    return tuple(values)


def _value(value: Any, type: str, links: Links, name: str) -> Value:
    if isinstance(value, dict):
        return _object(value, type, links)
    if isinstance(value, list):  # which JSON can hold and FHIR can't
        return Value(groups=(Group("", "", _values(value, "", links)),))
    text = primitive(value)
    if type == "base64Binary" and text:
        return Value(f"{len(text) * 3 // 4:,} bytes", note="base64")
    if type == "xhtml":
        return _narrative(text)
    if type in ("dateTime", "instant"):
        return Value(moment(text))
    href = web(text) if type in ("url", "canonical") or (type == "uri" and name == "url") else None
    return Value(_cut(text), href, outside=href is not None)


def _cut(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG]}… ({len(text):,} characters)"


def _narrative(div: str) -> Value:
    found = narrative.shown(div)
    if found is None:
        return Value()
    return Value(_cut(found.text), note=found.why, html=found.html)


def _object(value: Mapping[str, Any], type: str, links: Links) -> Value:
    own = value.get("resourceType")
    if isinstance(own, str) and type in ("Resource", ""):
        return _resource(value, own, links)
    if type == "Extension":
        return _extension(value, links)
    phrase = PHRASES.get(type)
    if phrase is None:
        return Value(groups=tuple(_groups(value, type, links, frozenset())))
    parts = Parts(value)
    said = phrase(parts)
    href = links.reference(said.target) if said.target else None
    outside = web(said.web) if said.web else None
    below = tuple(_groups(value, type, links, frozenset(parts.used)))
    return Value(
        _cut(said.text), href or outside, said.note, said.title, below, outside=href is None and bool(outside)
    )


def _resource(value: Mapping[str, Any], type: str, links: Links) -> Value:
    """A resource within another one."""
    id = primitive(value.get("id"))
    anchor = f"contained-{id}" if id.replace("-", "").replace(".", "").isalnum() and id.isascii() else ""
    found = tuple(_groups(value, type, links, SAID_ELSEWHERE - {"text"}))
    return Value(type, note=f"#{id}" if id else "", groups=found, anchor=anchor)


def _extension(value: Mapping[str, Any], links: Links) -> Value:
    """The end of its URL, and its value."""
    url = primitive(value.get("url"))
    hidden = frozenset({"url"}) if url else frozenset[str]()
    below = tuple(_groups(value, "Extension", links, hidden))
    return Value(url.rpartition("/")[2] or url, title=url, groups=below)
