"""Where in the JSON of a resource the results of a FHIRPath lie, so that they can be changed there.

FHIRPath has values and no places. The way to an element is walked here, for the paths that select and don't
compute: `Patient.name.where(use = 'official').given[0]`, `Observation.value.ofType(Quantity).unit`. The criteria
of where() are FHIRPath as `paths` has it, without what could take time out of proportion or leave the resource.
http://hl7.org/fhirpath/N1/ and https://hl7.org/fhir/R4/fhirpatch.html
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from gitstore.errors import Invalid, Issue
from gitstore.fhir import Resource, definitions, nodes, paths
from gitstore.fhir.definitions import Element
from gitstore.fhir.nodes import Node
from gitstore.fhir.patch.result import Work, refused, size
from gitstore.fhir.path_operators import truth
from gitstore.fhir.path_syntax import (
    Call,
    Constant,
    Index,
    Literal,
    Member,
    OfType,
    Operation,
    PathError,
    This,
    Tree,
    parse,
)
from gitstore.fhir.paths import Context

MAX_STEPS = 100
"""Steps of a path, and how deep its criteria may lie in one another."""

Pair: TypeAlias = tuple[Any, Any]
"""A value and the object beside it, which holds id and extensions of a primitive; None for what there isn't."""

_CRITERIA = frozenset(
    re.findall(
        r"\S+",
        "all as contains count empty endsWith exists extension first hasValue is last length lower not ofType "
        "single skip startsWith substring tail take toInteger toString upper where",
    )
)
_OPERATORS = frozenset(re.findall(r"\S+", "= ~ != !~ < <= > >= and or xor implies in contains |"))
_CODE_SYSTEMS = ("sct", "loinc", "ucum")


class Place(Struct, frozen=True):
    """An element that is there. `holder` is the JSON object that has it, of the type `holder_type`.

    `element` is the JSON property in there, `index` its number where that is an array. The resource itself has
    no element. `text` is the place as FHIRPath.
    """

    node: Node
    holder: dict[str, Any]
    holder_type: str
    element: Element | None
    index: int | None
    text: str

    @property
    def type(self) -> str:
        """The type whose elements this one can have."""
        return self.node[0] if isinstance(self.node[1], dict) else "Element"

    def inside(self) -> dict[str, Any]:
        """The JSON object for the children; made beside a primitive that has none yet."""
        _, value, extra = self.node
        if isinstance(value, dict):
            return value
        if isinstance(extra, dict):
            return extra
        assert self.element is not None  # the resource is an object
        made: dict[str, Any] = {}
        if self.index is None:
            self.holder[f"_{self.element.name}"] = made
        else:
            items = pairs(self.holder, self.element)
            items[self.index] = (items[self.index][0], made)
            write(self.holder, self.element, items)
        return made


def choices(type: str, name: str) -> Sequence[Element]:
    """The JSON properties for an element as FHIRPath names it: several for `value` of an Observation."""
    return _elements(type).get(name, ())


@functools.cache
def _elements(type: str) -> Mapping[str, Sequence[Element]]:
    """None for a type that isn't known, which a contained resource may claim to have."""
    found: dict[str, list[Element]] = {}
    try:
        elements = definitions.elements(type)
    except KeyError:
        return found
    for element in elements.values():
        found.setdefault(element.choice or element.name, []).append(element)
    return found


def pairs(holder: dict[str, Any], element: Element) -> list[Pair]:
    """What the arrays of an element that repeats hold. Raises Unprocessable where they are no arrays."""
    values = holder.get(element.name, [])
    extras = holder.get(f"_{element.name}", []) if definitions.is_primitive(element.type) else []
    if not isinstance(values, list) or not isinstance(extras, list):
        raise refused(f"`{element.name}` is no array in this resource, as it would have to be.")
    count = max(len(values), len(extras))
    padded = (items + [None] * (count - len(items)) for items in (values, extras))
    return list(zip(*padded, strict=True))


def write(holder: dict[str, Any], element: Element, items: Sequence[Pair]) -> None:
    """Make the arrays of an element hold these items; an array with nothing in it goes."""
    for name, values in (
        (element.name, [value for value, _ in items]),
        (f"_{element.name}", [extra for _, extra in items]),
    ):
        if any(value is not None for value in values):
            holder[name] = values
        else:
            holder.pop(name, None)


def append(holder: dict[str, Any], element: Element, item: Pair) -> None:
    """Put an item behind those that the arrays of an element hold. Raises Unprocessable as `pairs` does."""
    values = holder.get(element.name)
    if isinstance(values, list) and item[1] is None and f"_{element.name}" not in holder:
        values.append(item[0])  # the same in less time, as patches may add very many
    else:
        write(holder, element, [*pairs(holder, element), item])


# The way to an element.


class _Walk(Struct, frozen=True):
    """What a path is evaluated in."""

    context: Context
    work: Work


_Step: TypeAlias = "Callable[[list[Place], _Walk], list[Place]]"


class Path(Struct, frozen=True):
    """A path that selects elements. `name` is the last step where that is just a name, as lists are named."""

    text: str
    _steps: tuple[_Step, ...]
    name: str | None

    def places(self, resource: Resource, work: Work) -> list[Place]:
        """The elements that the path selects.

        Raises Unprocessable for a name that the type doesn't have, TooLarge where there is too little work left.
        """
        return _walked(self._steps, resource, work)

    def parents(self, resource: Resource, work: Work) -> list[Place]:
        """The elements of which the last step selects children. Raises as `places` does."""
        return _walked(self._steps[:-1], resource, work)


def compile(text: str) -> Path:
    """The path as one that can be walked. Raises Invalid for what isn't FHIRPath, or does more than select."""
    try:
        trees = _in_order(parse(text))
        steps = tuple(map(_step, trees))
    except PathError as error:
        raise Invalid(Issue("error", "invalid", f"The path `{text[:80]}` can't be used: {error}.")) from error
    last = trees[-1]
    is_name = isinstance(last, Member) and not (len(trees) == 1 and last.name[:1].isupper())
    return Path(text, steps, last.name if is_name and isinstance(last, Member) else None)


def _in_order(tree: Tree | None) -> list[Tree]:
    """The steps of a path, the first one first; without recursion, since a path may be long."""
    trees: list[Tree] = []
    while tree is not None:
        trees.append(tree)
        if len(trees) > MAX_STEPS:
            raise PathError(f"it has more than {MAX_STEPS} steps")
        tree = tree.target if isinstance(tree, Member | Index | Call | OfType) else None
    return trees[::-1]


def _walked(steps: Sequence[_Step], resource: Resource, work: Work) -> list[Place]:
    node = nodes.of_resource(resource)
    walk = _Walk(Context.of(node), work)
    found = [Place(node, resource, node[0], None, None, node[0])]
    for step in steps:
        found = step(found, walk)
        work.spend(len(found))
    return found


def _step(tree: Tree) -> _Step:
    if isinstance(tree, This):
        return lambda found, _walk: found
    if isinstance(tree, Member):
        return _member(tree)
    if isinstance(tree, Index):
        number = _whole(tree.number)
        return lambda found, _walk: found[number : number + 1]
    if isinstance(tree, OfType) and tree.operator == "as":
        return _of_type(tree.type)
    if isinstance(tree, Call):
        return _call(tree)
    raise PathError("it has to select one element, and may not compute anything")


def _member(tree: Member) -> _Step:
    name = tree.name
    if tree.target is None and name[:1].isupper():
        return lambda found, _walk: [place for place in found if name in definitions.lineage(place.node[0])]
    return lambda found, _walk: [child for place in found for child in _children(place, name)]


def _call(tree: Call) -> _Step:
    name, arguments = tree.name, tree.arguments
    if name in _SLICES and not arguments:
        wanted = _SLICES[name]
        return lambda found, _walk: found[wanted]
    if name == "single" and not arguments:
        return _single
    if name in ("skip", "take") and len(arguments) == 1:
        count = _whole(arguments[0])
        part = slice(count, None) if name == "skip" else slice(count)
        return lambda found, _walk: found[part]
    if name in ("ofType", "as") and len(arguments) == 1 and isinstance(arguments[0], Member):
        return _of_type(arguments[0].name)
    if name == "where" and len(arguments) == 1:
        return _where(arguments[0])
    if name == "extension" and len(arguments) == 1 and isinstance(arguments[0], Literal):
        url = arguments[0].value
        return lambda found, _walk: [
            child
            for place in found
            for child in _children(place, "extension")
            if isinstance(child.node[1], dict) and child.node[1].get("url") == url
        ]
    raise PathError(f"{name}() can't be a step of it, or not with these arguments")


_SLICES = {"first": slice(1), "last": slice(-1, None), "tail": slice(1, None)}


def _single(found: list[Place], _walk: _Walk) -> list[Place]:
    if len(found) > 1:
        raise refused(f"single() finds {len(found)} elements, of which the first is `{found[0].text}`.")
    return found


def _of_type(type: str) -> _Step:
    return lambda found, _walk: [place for place in found if nodes.is_of_type(place.node, type)]


def _where(tree: Tree) -> _Step:
    count = _check_criteria(tree)
    criteria = paths.compiled(tree)

    def where(found: list[Place], walk: _Walk) -> list[Place]:
        # An upper bound: each part of the criteria looks at each value in the element at most once.
        walk.work.spend(count * sum(size(place.node[1]) + size(place.node[2]) for place in found))
        return [place for place in found if truth(criteria([place.node], walk.context))]

    return where


def _whole(tree: Tree) -> int:
    if isinstance(tree, Literal) and isinstance(tree.value, int) and not isinstance(tree.value, bool):
        return tree.value
    raise PathError("the number of an item has to be written as a number")


def _check_criteria(tree: Tree) -> int:
    """How many parts criteria have. Raises PathError for what could keep a server busy or leave the resource.

    What is left only goes from an element to its children, so that each part looks at each of them once.
    """
    level: list[Tree] = [tree]
    count = 0
    for _ in range(MAX_STEPS):
        count += len(level)
        level = [part for parent in level for part in _parts(parent)]
        if not level:
            return count
    raise PathError(f"its criteria lie more than {MAX_STEPS} deep in one another")


def _parts(tree: Tree) -> Iterator[Tree]:
    """What a part of criteria is made of. Raises PathError where it is none that may be used."""
    if isinstance(tree, Operation):
        is_negative = tree.operator == "-" and tree.left == Literal("integer", 0)
        if tree.operator not in _OPERATORS and not (is_negative and isinstance(tree.right, Literal)):
            raise PathError(f"{tree.operator} can't be used in its criteria")
        yield from (tree.left, tree.right)
    elif isinstance(tree, Call):
        if tree.name not in _CRITERIA:
            raise PathError(f"{tree.name}() can't be used in its criteria")
        if tree.name not in ("is", "as", "ofType"):
            yield from tree.arguments
    elif isinstance(tree, Constant):
        if tree.name not in _CODE_SYSTEMS:
            raise PathError(f"%{tree.name} can't be used in its criteria")
    elif isinstance(tree, Index):
        yield tree.number
    if isinstance(tree, Member | Index | Call | OfType) and tree.target is not None:
        yield tree.target


def _children(place: Place, name: str) -> Iterator[Place]:
    """The children of one name, each with its place."""
    found = choices(place.type, name)
    if not found:
        if not _elements(place.type):
            return
        raise refused(f"`{place.text}` is a {place.node[0]}, which has no `{name[:80]}`.", place.text)
    holder = place.node[1] if isinstance(place.node[1], dict) else place.node[2]
    if not isinstance(holder, dict):
        return
    text = f"{place.text}.{name}"
    for element in found:
        value = holder.get(element.name)
        extra = holder.get(f"_{element.name}") if definitions.is_primitive(element.type) else None
        if not isinstance(value, list) and not isinstance(extra, list):
            if value is not None or extra is not None:
                yield Place(_node(element, value, extra), holder, place.type, element, None, text)
        elif all(part is None or isinstance(part, list) for part in (value, extra)):
            for index, item in enumerate(pairs(holder, element)):
                yield Place(_node(element, *item), holder, place.type, element, index, f"{text}[{index}]")


def _node(element: Element, value: Any, extra: Any) -> Node:
    if element.type == "Resource" and isinstance(value, dict):
        return nodes.of_resource(value)
    return element.type, value, extra
