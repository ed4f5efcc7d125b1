"""What FHIRPath sees of a resource: values with their FHIR types. http://hl7.org/fhirpath/N1/#object-model

A node is a tuple (type, value, extra). `value` is the JSON value, None where a primitive has only an id or
extensions; `extra` is the `_name` sibling of a primitive that holds these. Plain tuples, because an index of a
million resources makes very many of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, TypeAlias

from gitstore.fhir import Resource, definitions

Node: TypeAlias = tuple[str, Any, Any]

_Step: TypeAlias = tuple[str, str | None, str]  # JSON property, that of its sibling, type


def of_resource(resource: Resource) -> Node:
    """A resource as a node; without a resourceType that is known it has no children."""
    return str(resource.get("resourceType")), resource, None


def children_named(node: Node, name: str) -> Iterator[Node]:
    """The children of one name as FHIRPath says it: `value`, not `valueQuantity`."""
    type, value, extra = node
    if isinstance(value, dict):
        for step in _steps(type).get(name, ()):
            yield from _children_at(value, step)
    elif isinstance(extra, dict):
        for step in _steps("Element").get(name, ()):
            yield from _children_at(extra, step)


def numbered_children(node: Node, name: str) -> list[tuple[int | None, Node]]:
    """The children of one name, each with its number where the JSON is an array.

    The name may be that of an element (`value`, `value[x]`) or of a JSON property (`valueQuantity`).
    """
    element = name.removesuffix("[x]")
    type = node[0] if isinstance(node[1], dict) else "Element"
    steps = _steps(type)
    if element in steps:
        found = list(children_named(node, element))
    else:
        parent = node[1] if isinstance(node[1], dict) else node[2]
        step = next((step for choices in steps.values() for step in choices if step[0] == element), None)
        found = [] if step is None or not isinstance(parent, dict) else list(_children_at(parent, step))
    if element in steps and definitions.elements(type)[steps[element][0][0]].max != 1:
        return list(enumerate(found))
    return [(None, child) for child in found]


def children(node: Node) -> Iterator[Node]:
    """All children, in the order of the definitions."""
    type, value, extra = node
    parent, table = (value, _steps(type)) if isinstance(value, dict) else (extra, _steps("Element"))
    if isinstance(parent, dict):
        for steps in table.values():
            for step in steps:
                yield from _children_at(parent, step)


def descendants(node: Node) -> Iterator[Node]:
    """All children, their children, and so on."""
    for child in children(node):
        yield child
        if child[1].__class__ is dict or child[2] is not None:
            yield from descendants(child)


def is_of_type(node: Node, type: str) -> bool:
    """Whether a node is of a type or of one derived from it; `Boolean` of FHIRPath's own is `boolean`."""
    lineage = definitions.lineage(node[0])
    return type in lineage or (type in _SYSTEM_TYPES and type[0].lower() + type[1:] in lineage)


_SYSTEM_TYPES = frozenset({"Boolean", "String", "Integer", "Decimal", "Date", "DateTime", "Time"})


def _children_at(parent: dict[str, Any], step: _Step) -> Iterator[Node]:
    name, sibling, type = step
    value = parent.get(name)
    if sibling is None:
        if type == "Resource":
            for item in value if isinstance(value, list) else (value,):
                if isinstance(item, dict):
                    yield of_resource(item)
        elif isinstance(value, list):
            for item in value:
                yield type, item, None
        elif value is not None:
            yield type, value, None
        return
    extra = parent.get(sibling)
    if extra is None:
        if isinstance(value, list):
            for item in value:
                yield type, item, None
        elif value is not None:
            yield type, value, None
    elif isinstance(value, list) or isinstance(extra, list):
        values = value if isinstance(value, list) else []
        extras = extra if isinstance(extra, list) else []
        for number in range(max(len(values), len(extras))):
            yield (
                type,
                values[number] if number < len(values) else None,
                extras[number] if number < len(extras) else None,
            )
    else:
        yield type, value, extra


@functools.cache
def _steps(type: str) -> dict[str, list[_Step]]:
    steps: dict[str, list[_Step]] = {}
    try:
        elements = definitions.elements(type)
    except KeyError:
        return steps
    for name, element in elements.items():
        sibling = "_" + name if definitions.is_primitive(element.type) else None
        steps.setdefault(element.choice or name, []).append((name, sibling, element.type))
    return steps
