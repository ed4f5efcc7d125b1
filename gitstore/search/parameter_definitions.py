"""What defines search parameters: R4's own data, and SearchParameter resources of the record.

https://hl7.org/fhir/R4/searchparameter.html
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

from gitstore.fhir import Resource, definitions, paths
from gitstore.fhir.definitions import SearchParameter

BASE_URL: Final = "http://hl7.org/fhir/SearchParameter/"

KINDS: Final = frozenset({"number", "date", "string", "token", "reference", "composite", "quantity", "uri"})
"""What type a parameter of the record may have: `special` ones are made of nothing but prose."""

_OF_EVERY_SEARCH = frozenset(
    [
        "_id",
        "_lastUpdated",
        "_text",
        "_content",
        "_list",
        "_has",
        "_type",
        "_query",
        "_filter",
        "_sort",
        "_count",
        "_include",
        "_revinclude",
        "_summary",
        "_total",
        "_elements",
        "_contained",
        "_containedType",
        "_format",
        "_pretty",
    ]
)  # https://hl7.org/fhir/R4/search.html#all: criteria.py knows them itself
_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Component(Struct, frozen=True):
    """A part of a composite: `expression` starts at an element that the composite's own expression yields."""

    url: str
    kind: str
    target: tuple[str, ...]
    expression: str


class Definition(Struct, frozen=True):
    """`target` are the types that a reference may lead to; none stands for any."""

    url: str
    kind: str
    expression: str
    target: tuple[str, ...]
    components: tuple[Component, ...]


Definitions: TypeAlias = Mapping[str, Mapping[str, Definition]]
"""By resource type and code."""


@functools.cache
def base_definitions() -> Definitions:
    """Those of R4; without those that every search has, such as _id."""
    found: dict[str, dict[str, Definition]] = {type: {} for type in definitions.RESOURCE_TYPES}
    for parameter in definitions.search_parameters().values():
        if parameter.expression is not None and parameter.code not in _OF_EVERY_SEARCH:
            definition = _of_base(parameter, parameter.expression)
            for type in _types(parameter.base):
                found[type][parameter.code] = definition
    return found


def _of_base(parameter: SearchParameter, expression: str) -> Definition:
    parameters = definitions.search_parameters()
    components = tuple(
        Component(
            BASE_URL + id, parameters[id].type, tuple(sorted(parameters[id].target)), component_expression
        )
        for id, component_expression in parameter.components
    )
    return Definition(
        BASE_URL + parameter.id, parameter.type, expression, tuple(sorted(parameter.target)), components
    )


def _types(bases: Sequence[str]) -> Iterator[str]:
    """The resource types among the bases; Resource and DomainResource stand for all that are one."""
    for base in bases:
        if definitions.is_resource_type(base):
            yield base
        elif base in ("Resource", "DomainResource"):
            yield from (type for type in definitions.RESOURCE_TYPES if base in definitions.lineage(type))


def with_stored(stored: Sequence[Resource]) -> tuple[Definitions, Mapping[str, str]]:
    """R4's and those of the record, and for each URL that is left out, in part or wholly, the reason."""
    base = base_definitions()
    left_out: dict[str, str] = {}
    read: dict[str, tuple[str, list[str], Definition]] = {}
    for resource in sorted(stored, key=lambda resource: str(resource.get("url"))):
        url = str(resource.get("url") or f"SearchParameter/{resource.get('id')}")
        try:
            read[url] = _read(resource, url, stored)
        except _UnusableError as error:
            left_out[url] = str(error)
    if not read:
        return base, left_out
    merged = {
        type: {code: definition for code, definition in parameters.items() if definition.url not in read}
        for type, parameters in base.items()
    }
    for url, (code, types, definition) in read.items():
        for type in types:
            other = merged[type].setdefault(code, definition)
            if other.url != url:
                left_out[url] = f"`{code}` of {type} is already that of {other.url}"
    return merged, left_out


class _UnusableError(Exception):
    """A SearchParameter that can't be searched by; the text says why."""


def _read(resource: Resource, url: str, stored: Sequence[Resource]) -> tuple[str, list[str], Definition]:
    """Code, resource types and the rest of a SearchParameter, which may have any shape."""
    code, kind, expression = _texts(resource, "code", "type", "expression")
    if kind not in KINDS:
        raise _UnusableError(f"the type is `{kind}`, which is not one of {', '.join(sorted(KINDS))}")
    if not _CODE.fullmatch(code) or code in _OF_EVERY_SEARCH:
        raise _UnusableError(f"`{code}` can't be the name of a search parameter")
    types = list(dict.fromkeys(_types(_names(resource, "base"))))
    if not types:
        raise _UnusableError("`base` names no resource type")
    _compile(expression)
    components = tuple(_component(part, stored) for part in _list_of(resource, "component"))
    if (kind == "composite") != bool(components):
        raise _UnusableError("a composite has components, and nothing else has")
    definition = Definition(url, kind, expression, tuple(_names(resource, "target")), components)
    return code, types, _as_in_base(definition)


def _as_in_base(definition: Definition) -> Definition:
    """The base's own where it is the same, so that a copy of R4's in the record changes nothing."""
    if definition.url.startswith(BASE_URL):
        parameter = definitions.search_parameters().get(definition.url.removeprefix(BASE_URL))
        if parameter is not None and parameter.expression == definition.expression:
            same = base_definitions()[next(_types(parameter.base))].get(parameter.code)
            if same is not None and _ordered(same) == _ordered(definition):
                return same
    return definition


def _ordered(definition: Definition) -> tuple[object, ...]:
    return (
        definition.url,
        definition.kind,
        definition.expression,
        sorted(definition.target),
        definition.components,
    )


def _texts(resource: Resource, *names: str) -> list[str]:
    found = []
    for name in names:
        text = resource.get(name)
        if not isinstance(text, str):
            raise _UnusableError(f"there is no `{name}`")
        found.append(text)
    return found


def _names(resource: Resource, name: str) -> list[str]:
    return [value for value in _list_of(resource, name) if isinstance(value, str)]


def _list_of(resource: Resource, name: str) -> list[Any]:
    values = resource.get(name)
    return values if isinstance(values, list) else []


def _compile(expression: str) -> None:
    try:
        paths.compile(expression)
    except paths.PathError as error:
        raise _UnusableError(f"the expression is not understood: {error}") from error


def _component(part: Any, stored: Sequence[Resource]) -> Component:
    if not isinstance(part, dict):
        raise _UnusableError("a component is no object")
    url, expression = _texts(part, "definition", "expression")
    _compile(expression)
    url = url.partition("|")[0]
    for resource in stored:
        if resource.get("url") == url:
            [kind] = _texts(resource, "type")
            target = tuple(_names(resource, "target"))
            break
    else:
        parameter = definitions.search_parameters().get(url.removeprefix(BASE_URL))
        if parameter is None or not url.startswith(BASE_URL):
            raise _UnusableError(f"the component {url} is not known")
        kind, target = parameter.type, tuple(sorted(parameter.target))
    if kind not in KINDS - {"composite"}:
        raise _UnusableError(f"the component {url} is of the type `{kind}`")
    return Component(url, kind, target, expression)
