"""Where the values of a search parameter stand in JSON, read from its expression.

Nearly all expressions are plain paths, `Observation.component.value as Quantity`, and then one walk over a resource
finds the values of all its parameters. What is not plain is left to gitstore.fhir.paths.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from gitstore.fhir import definitions, nodes
from gitstore.fhir.path_syntax import Call, Index, Member, OfType, Operation, This, Tree, parse


class Place(Struct, frozen=True):
    """A JSON property of a resource type, or of an element of it, that holds values.

    `properties` lead to it (`component`, `valueQuantity`), `elements` are their names in FHIR (`component`,
    `value`); without any it is the whole. `many` says whether there may be several values. `refers_to` leaves only
    references to resources of that type. `value_set` is the one of a required binding, `targets` are the types that
    references may lead to, as far as the element restricts them.
    """

    type: str
    properties: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    many: bool = False
    refers_to: str | None = None
    value_set: str | None = None
    targets: frozenset[str] = frozenset()


@functools.lru_cache(maxsize=2048)
def alternatives(expression: str) -> tuple[Tree, ...]:
    """The parts of an expression that `|` unites. Raises PathError."""
    return tuple(_alternatives(parse(expression)))


def _alternatives(tree: Tree) -> Iterator[Tree]:
    if isinstance(tree, Operation) and tree.operator == "|":
        yield from _alternatives(tree.left)
        yield from _alternatives(tree.right)
    else:
        yield tree


def concerns(tree: Tree, type: str) -> bool:
    """Whether an alternative can yield anything for a resource type: it doesn't begin with another one."""
    root = _root(tree)
    return root is None or not root[0].isupper() or root in definitions.lineage(type)


def first_element(tree: Tree) -> str | None:
    """The element of the resource without which an alternative is empty; None where that can't be told."""
    above: str | None = None
    while True:
        if isinstance(tree, Member):
            if tree.target is None:
                return above if tree.name[0].isupper() else tree.name
            above, target = tree.name, tree.target
        elif (target_of := _passed_over(tree)) is not None:
            above, target = None, target_of
        else:
            return None
        tree = target


def _passed_over(tree: Tree) -> Tree | None:
    """What a part of an expression is applied to, where nothing comes of nothing."""
    if isinstance(tree, Index) or (isinstance(tree, OfType) and tree.operator == "as"):
        return tree.target
    return tree.target if isinstance(tree, Call) and tree.name in _EMPTY_OF_EMPTY else None


_EMPTY_OF_EMPTY = frozenset({"where", "as", "ofType", "first", "last", "resolve", "extension", "select"})


def _root(tree: Tree) -> str | None:
    while not (isinstance(tree, Member) and tree.target is None):
        if not isinstance(tree, Member | Call | OfType):
            return None
        if tree.target is None:
            return None
        tree = tree.target
    return tree.name


def places(tree: Tree, type: str) -> list[Place] | None:
    """The places that a plain path in a resource or element of this type names; None where it isn't plain."""
    try:
        return _places(tree, type)
    except _NotPlainError:
        return None


def found_places(expression: str, type: str) -> list[Place] | None:
    """The places of all alternatives that concern a type; None where one of them is not plain."""
    found: list[Place] = []
    for tree in alternatives(expression):
        if concerns(tree, type):
            some = places(tree, type)
            if some is None:
                return None
            found += some
    return found


class _NotPlainError(Exception):
    """The expression asks for more than names."""


def _places(tree: Tree | None, type: str) -> list[Place]:
    if isinstance(tree, Member):
        if tree.target is None and tree.name[0].isupper():
            return [Place(type)] if tree.name in definitions.lineage(type) else []
        return [child for place in _places(tree.target, type) for child in _children(place, tree.name)]
    if tree is None or isinstance(tree, This):
        return [Place(type)]
    if isinstance(tree, OfType) and tree.operator == "as":
        return _of_type(_places(tree.target, type), tree.type)
    if isinstance(tree, Call) and len(tree.arguments) == 1:
        [argument] = tree.arguments
        if tree.name in ("as", "ofType") and isinstance(argument, Member):
            return _of_type(_places(tree.target, type), argument.name)
        target = _resolved_type(argument) if tree.name == "where" else None
        if target is not None:
            return [replace(place, refers_to=target) for place in _places(tree.target, type)]
    raise _NotPlainError


def _of_type(places: list[Place], type: str) -> list[Place]:
    return [place for place in places if nodes.is_of_type((place.type, None, None), type)]


def _resolved_type(criterion: Tree) -> str | None:
    """Patient of `resolve() is Patient`."""
    if (
        isinstance(criterion, OfType)
        and criterion.operator == "is"
        and isinstance(criterion.target, Call)
        and criterion.target.name == "resolve"
        and (criterion.target.target is None or isinstance(criterion.target.target, This))
    ):
        return criterion.type
    return None


def _children(place: Place, name: str) -> Iterator[Place]:
    if place.refers_to is not None or definitions.is_primitive(place.type):
        raise _NotPlainError
    for element in definitions.elements(place.type).values():
        if (element.choice or element.name) == name:
            if element.type == "Resource":
                raise _NotPlainError
            described = definitions.element_definitions(place.type)[
                element.name if element.choice is None else f"{element.choice}[x]"
            ]
            binding = described.binding
            yield Place(
                element.type,
                (*place.properties, element.name),
                (*place.elements, name),
                place.many or element.max != 1,
                None,
                binding[1] if binding is not None and binding[0] == "required" else None,
                described.targets.get(element.type, frozenset()) - {"Resource"},
            )
