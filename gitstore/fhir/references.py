"""What a resource points at, and how to make it point elsewhere. https://hl7.org/fhir/R4/references.html"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from gitstore.fhir import Resource, definitions

Resolve: TypeAlias = Callable[[str], str | None]
"""What a text stands for now, or None where it is to stay as it is."""


def rewrite(resource: Resource, resolve: Resolve) -> Resource:
    """The resource with each link replaced for which `resolve` returns something; itself where none is.

    Links are Reference.reference, values of type uri, url, oid and uuid, and <a href> and <img src> in
    narrative, each as a whole or up to its `#`, of which the fragment is kept. Values of type canonical and
    id are none, and so are the names that canonicals refer to: a resource's own `url` and Extension.url.
    Unknown properties stay as they are. The given resource is never changed; the result shares with it what
    is the same. https://hl7.org/fhir/R4/http.html#trules
    """
    rewritten: Resource = _rewrite_resource(resource, resolve)
    return rewritten


def references(resource: Resource) -> Iterator[tuple[str, str]]:
    """Place and text of each Reference.reference: `("subject.reference", "Patient/example")`.

    Places are FHIRPath expressions within the resource, without its type; contained resources are looked
    into.
    """
    yield from _references_in_resource(resource, "")


# Rewriting. Each type has a table from property to the function for its values; all else costs a look-up.

_Rewriter: TypeAlias = Callable[[Any, Resolve], Any]
_LINK_TYPES = frozenset({"uri", "url", "oid", "uuid"})


def _rewrite_resource(value: Any, resolve: Resolve) -> Any:
    type = value.get("resourceType") if isinstance(value, dict) else None
    if isinstance(type, str) and definitions.is_resource_type(type):
        return _rewrite_object(value, resolve, type)
    return value


def _rewrite_object(value: Any, resolve: Resolve, type: str) -> Any:
    if value.__class__ is not dict:
        return value
    table = _rewriters(type)
    changed: dict[str, Any] | None = None
    for name, child in value.items():
        rewriter = table.get(name)
        if rewriter is None:
            continue
        new = (
            _rewrite_items(child, resolve, rewriter) if child.__class__ is list else rewriter(child, resolve)
        )
        if new is not child:
            changed = changed or {}
            changed[name] = new
    return {**value, **changed} if changed else value


def _rewrite_items(items: list[Any], resolve: Resolve, rewriter: _Rewriter) -> list[Any]:
    rewritten = [rewriter(item, resolve) for item in items]
    for new, old in zip(rewritten, items, strict=True):
        if new is not old:
            return rewritten
    return items


def _rewrite_link(value: Any, resolve: Resolve) -> Any:
    if not isinstance(value, str):
        return value
    target = resolve(value)
    if target is None:
        base, mark, fragment = value.partition("#")
        target = resolve(base) if mark and base else None
        if target is None:
            return value
        target += mark + fragment
    return value if target == value else target


@functools.cache
def _rewriters(type: str) -> dict[str, _Rewriter]:
    table: dict[str, _Rewriter] = {}
    for name, element in definitions.elements(type).items():
        if definitions.is_primitive(element.type):
            if _is_link(type, name, element.type):
                table[name] = _rewrite_link
            elif element.type == "xhtml":
                table[name] = _rewrite_narrative
            table["_" + name] = functools.partial(_rewrite_object, type="Element")
        elif element.type == "Resource":
            table[name] = _rewrite_resource
        else:
            table[name] = functools.partial(_rewrite_object, type=element.type)
    return table


def _is_link(parent: str, name: str, type: str) -> bool:
    if name == "url" and (parent == "Extension" or definitions.is_resource_type(parent)):
        return False
    return type in _LINK_TYPES or (parent == "Reference" and name == "reference")


# Narrative. Attribute values of XML hold no "<", so a tag that never ends is left at the next one.

_ATTRIBUTES = r"""(?:[^<>"']++|"[^"<]*+"|'[^'<]*+')*+"""
_TAG = re.compile(
    rf"""<!--(?:.*?-->|.*)                 # what looks like a tag in a comment
       | <!\[CDATA\[(?:.*?\]\]>|.*)        # or in plain text
       | <\?(?:.*?\?>|.*)                # or in a processing instruction is none
       | <(?P<name>a|img)(?P<attributes>\s{_ATTRIBUTES})>
    """,
    re.DOTALL | re.VERBOSE,
)
_ATTRIBUTE = re.compile(r"""(?<=\s)(?P<name>[^\s=/"']++)(?P<equals>\s*+=\s*+)(?:"([^"]*+)"|'([^']*+)')""")
_ENTITY = re.compile(r"&#?\w+;")
_LINK_ATTRIBUTES = {"a": "href", "img": "src"}


def _rewrite_narrative(value: Any, resolve: Resolve) -> Any:
    if not isinstance(value, str) or ("href" not in value and "src" not in value):
        return value
    rewritten = _TAG.sub(lambda tag: _rewrite_tag(tag, resolve), value)
    return value if rewritten == value else rewritten


def _rewrite_tag(tag: re.Match[str], resolve: Resolve) -> str:
    if tag["name"] is None:
        return tag[0]
    wanted = _LINK_ATTRIBUTES[tag["name"]]

    def rewrite_attribute(attribute: re.Match[str]) -> str:
        if attribute["name"] != wanted:
            return attribute[0]
        quote = attribute[0][-1]
        link = _ENTITY.sub(lambda entity: html.unescape(entity[0]), attribute[3] or attribute[4] or "")
        target = _rewrite_link(link, resolve)
        if target is link:
            return attribute[0]
        return f"{attribute['name']}{attribute['equals']}{quote}{html.escape(target)}{quote}"

    attributes = _ATTRIBUTE.sub(rewrite_attribute, tag["attributes"])
    return f"<{tag['name']}{attributes}>"


# Finding.


def _references_in_resource(value: Any, place: str) -> Iterator[tuple[str, str]]:
    type = value.get("resourceType") if isinstance(value, dict) else None
    if isinstance(type, str) and definitions.is_resource_type(type):
        yield from _references_in(value, place, type)


def _references_in(value: Any, place: str, type: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        return
    if type == "Reference" and isinstance(value.get("reference"), str):
        yield f"{place}.reference", value["reference"]
    steps = _steps(type)
    for name, child in value.items():
        step = steps.get(name)
        if step is None:
            continue
        path_name, find = step
        path = f"{place}.{path_name}" if place else path_name
        if isinstance(child, list):
            for number, item in enumerate(child):
                yield from find(item, f"{path}[{number}]")
        else:
            yield from find(child, path)


_Finder: TypeAlias = Callable[[Any, str], Iterator[tuple[str, str]]]


@functools.cache
def _steps(type: str) -> dict[str, tuple[str, _Finder]]:
    """For each property of a type that holds objects: its name in FHIRPath, and what looks into it."""
    steps: dict[str, tuple[str, _Finder]] = {}
    for name, element in definitions.elements(type).items():
        path_name = element.choice or name
        if definitions.is_primitive(element.type):
            steps["_" + name] = path_name, functools.partial(_references_in, type="Element")
        elif element.type == "Resource":
            steps[name] = path_name, _references_in_resource
        else:
            steps[name] = path_name, functools.partial(_references_in, type=element.type)
    return steps
