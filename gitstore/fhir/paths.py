"""FHIRPath on JSON: expressions become functions once, and then run on any number of resources.

    >>> given = compile("Patient.name.where(use = 'official').given.first()")
    >>> evaluate(given, {"resourceType": "Patient", "name": [{"use": "official", "given": ["Ada"]}]})
    [('string', 'Ada', None)]

This is the part of FHIRPath that the invariants and the search parameters of R4 use. What is different:

- `as` and `as()` on several items keep those of the type, as ofType() does; R4's expressions rely on it.
- `matches()` must match the whole text.
- A path may begin with the type of its context or of a base of it: `Resource.id`.
- `resolve()` finds contained resources and asks `Context.find` for others. For what that doesn't know, a
  literal reference still tells the type, so that `resolve() is Patient` works without any look-up.
- An order that can't be told (`2020` and `2020-05`, `1 m` and `3 kg`) is empty, and marks the Context.

What isn't known is refused by `compile`, so that nothing goes wrong later.
http://hl7.org/fhirpath/N1/ and https://hl7.org/fhir/R4/fhirpath.html
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gitstore.fhir import Resource, definitions, nodes
from gitstore.fhir.nodes import Node
from gitstore.fhir.path_functions import FUNCTIONS, WITH_CRITERIA, WITH_KEYS, resolve
from gitstore.fhir.path_operators import FALSE, OPERATORS, ORDERED, TRUE, boolean, key, order, truth
from gitstore.fhir.path_syntax import (
    Call,
    Constant,
    Empty,
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

__all__ = ["Context", "Path", "PathError", "compile", "compiled", "evaluate", "holds"]


@dataclass(slots=True)
class Context:
    """What an expression is evaluated in.

    `resource` is %resource, the nearest one around; `root` is %rootResource, the container where that is a
    contained resource; `item` is %context, at which the evaluation starts. `find` looks up a reference.
    `contained` are the contained resources of the root by id. `undecided` becomes true when an order could not
    be told.
    """

    resource: Node
    root: Node
    item: Node
    find: Callable[[str], Node | None] | None = None
    contained: Mapping[str, Node] = field(default_factory=dict)
    undecided: bool = False
    _known: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, resource: Node) -> Context:
        """The context of a resource that is contained in none."""
        found = nodes.children_named(resource, "contained")
        contained = {str(node[1].get("id")): node for node in found}
        return cls(resource, resource, resource, contained=contained)

    def within(self, contained: Node) -> Context:
        """The context of a contained resource."""
        return Context(contained, self.root, contained, self.find, self.contained)

    def start(self, item: Node) -> None:
        """Evaluate at another item from here on."""
        self.item = item
        self.undecided = False
        if self._known:
            self._known.clear()

    def once(self, key: int, evaluate: Callable[[], Any]) -> Any:
        """What `evaluate` returns, which is called once for each item; keys are the id() of what asks."""
        if key not in self._known:
            self._known[key] = evaluate()
        return self._known[key]


Path: TypeAlias = Callable[[Sequence[Node], Context], Sequence[Node]]
"""A compiled expression: from the items that are looked at, and the context, to the result."""


@functools.lru_cache(maxsize=4096)
def compile(expression: str) -> Path:
    """The expression as a function. Raises PathError for what isn't FHIRPath or isn't known here."""
    return _compiled(parse(expression))


def evaluate(path: Path, resource: Resource) -> list[Node]:
    """The result of an expression on a resource as a whole."""
    node = nodes.of_resource(resource)
    return list(path([node], Context.of(node)))


def holds(path: Path, context: Context) -> bool | None:
    """Whether an expression is true of context.item, None where the result is empty."""
    return truth(path([context.item], context))


def compiled(tree: Tree) -> Path:
    """A part of an expression as a function, from path_syntax's tree of it. Raises PathError as `compile` does."""
    return _compiled(tree)


def _compiled(tree: Tree) -> Path:
    compiler: Callable[..., Path] = _COMPILERS[type(tree)]
    path = compiler(tree)
    if isinstance(tree, Operation) and _is_literal(tree):
        nowhere: Node = ("", None, None)
        result = path((), Context(nowhere, nowhere, nowhere))
        return lambda _focus, _context: result
    if isinstance(tree, Member | Call | Index | Operation) and _is_constant(tree):
        return lambda _focus, context: context.once(id(path), lambda: path((), context))
    return path


def _is_literal(tree: Tree) -> bool:
    """Whether a part of an expression is made of values in its text only, as `('a' | 'b')`."""
    if isinstance(tree, Operation):
        return tree.operator not in ORDERED and _is_literal(tree.left) and _is_literal(tree.right)
    return isinstance(tree, Literal)


def _is_constant(tree: Tree) -> bool:
    """Whether a part of an expression has the same value for all items that are looked at, as %resource.type."""
    if isinstance(tree, This):
        return False
    if isinstance(tree, Member | Index | OfType):
        return tree.target is not None and _is_constant(tree.target)
    if isinstance(tree, Call):
        return tree.target is not None and not tree.arguments and _is_constant(tree.target)
    if isinstance(tree, Operation):
        return _is_constant(tree.left) and _is_constant(tree.right)
    return True


def _literal(tree: Literal) -> Path:
    result = [(tree.type, tree.value, None)]
    return lambda _focus, _context: result


def _empty(_tree: Empty) -> Path:
    return lambda _focus, _context: ()


def _this(_tree: This) -> Path:
    return lambda focus, _context: focus


_CONSTANTS = {
    "ucum": "http://unitsofmeasure.org",
    "sct": "http://snomed.info/sct",
    "loinc": "http://loinc.org",
}


def _constant(tree: Constant) -> Path:
    if tree.name in _CONSTANTS:
        return _literal(Literal("string", _CONSTANTS[tree.name]))
    if tree.name == "resource":
        return lambda _focus, context: [context.resource]
    if tree.name == "rootResource":
        return lambda _focus, context: [context.root]
    if tree.name == "context":
        return lambda _focus, context: [context.item]
    raise PathError(f"%{tree.name} is not known here")


def _member(tree: Member) -> Path:
    name = tree.name
    children_named = nodes.children_named

    def members(items: Sequence[Node]) -> list[Node]:
        return [child for item in items for child in children_named(item, name)]

    if tree.target is not None:
        target = _compiled(tree.target)
        return lambda focus, context: members(target(focus, context))
    if name[0].isupper():
        return lambda focus, _context: [item for item in focus if name in definitions.lineage(item[0])]
    return lambda focus, _context: members(focus)


def _index(tree: Index) -> Path:
    target, number = _compiled(tree.target), _compiled(tree.number)

    def item(focus: Sequence[Node], context: Context) -> Sequence[Node]:
        items, position = target(focus, context), number(focus, context)
        if len(position) != 1 or not isinstance(position[0][1], int):
            return ()
        start = position[0][1]
        return items[start : start + 1] if start >= 0 else ()

    return item


def _call(tree: Call) -> Path:
    target = _this(This()) if tree.target is None else _compiled(tree.target)
    if tree.name in ("is", "as", "ofType"):
        return _of_type("is" if tree.name == "is" else "as", target, _type_name(tree))
    if tree.name == "resolve":
        return lambda focus, context: resolve(target(focus, context), context)
    arguments = [_compiled(argument) for argument in tree.arguments]
    if tree.name in WITH_KEYS:
        _check_arguments(tree, 1, 1)
        with_keys, keys = WITH_KEYS[tree.name], _keys(arguments[0], _is_constant(tree.arguments[0]))
        return lambda focus, context: with_keys(target(focus, context), keys(focus, context))
    if tree.name in WITH_CRITERIA:
        with_criteria, fewest, most = WITH_CRITERIA[tree.name]
        _check_arguments(tree, fewest, most)
        return lambda focus, context: with_criteria(target(focus, context), context, *arguments)
    if tree.name not in FUNCTIONS:
        raise PathError(f"the function {tree.name}() is not known here")
    function, fewest, most = FUNCTIONS[tree.name]
    _check_arguments(tree, fewest, most)
    if not arguments:
        return lambda focus, context: function(target(focus, context))
    if len(arguments) == 1:
        [argument] = arguments
        return lambda focus, context: function(target(focus, context), argument(focus, context))
    return lambda focus, context: function(
        target(focus, context), *[argument(focus, context) for argument in arguments]
    )


def _check_arguments(tree: Call, fewest: int, most: int) -> None:
    if not fewest <= len(tree.arguments) <= most:
        raise PathError(f"{tree.name}() has {len(tree.arguments)} arguments, which is not how it is used")


def _type_name(tree: Call) -> str:
    """The name of a type as the argument of a function: Patient, FHIR.Patient."""
    if len(tree.arguments) == 1 and isinstance(tree.arguments[0], Member):
        return tree.arguments[0].name
    raise PathError(f"{tree.name}() needs the name of a type")


def _of_type(operator: str, target: Path, type: str) -> Path:
    is_of_type = nodes.is_of_type
    if operator == "as":
        return lambda focus, context: [item for item in target(focus, context) if is_of_type(item, type)]

    def test(focus: Sequence[Node], context: Context) -> Sequence[Node]:
        items = target(focus, context)
        if len(items) != 1:
            return () if not items else FALSE
        return TRUE if is_of_type(items[0], type) else FALSE

    return test


def _operation(tree: Operation) -> Path:
    left, right = _compiled(tree.left), _compiled(tree.right)
    if tree.operator in ("and", "or", "implies"):
        return _logical(tree.operator, left, right)
    if tree.operator == "in":
        return _membership(left, right, _is_constant(tree.right))
    if tree.operator == "contains":
        return _membership(right, left, _is_constant(tree.left))
    if tree.operator in ORDERED:
        return _comparison(ORDERED[tree.operator], left, right)
    if tree.operator not in OPERATORS:
        raise PathError(f"the operator {tree.operator} is not known here")
    operator = OPERATORS[tree.operator]
    return lambda focus, context: operator(left(focus, context), right(focus, context))


def _membership(item: Path, collection: Path, is_constant: bool) -> Path:
    keys = _keys(collection, is_constant)

    def is_in(focus: Sequence[Node], context: Context) -> Sequence[Node]:
        items = item(focus, context)
        if not items:
            return ()
        among = keys(focus, context)
        return boolean(all(key(item) in among for item in items))

    return is_in


def _keys(collection: Path, is_constant: bool) -> Callable[[Sequence[Node], Context], frozenset[Hashable]]:
    """The keys of a collection; where it is constant, made once and not for each item that is looked at."""

    def keys(focus: Sequence[Node], context: Context) -> frozenset[Hashable]:
        return frozenset(map(key, collection(focus, context)))

    if not is_constant:
        return keys
    return lambda focus, context: context.once(id(keys), lambda: keys(focus, context))


def _comparison(accepted: tuple[int, ...], left: Path, right: Path) -> Path:
    def compare(focus: Sequence[Node], context: Context) -> Sequence[Node]:
        first, second = left(focus, context), right(focus, context)
        if not first or not second:
            return ()
        relation = order(first[0], second[0]) if len(first) == len(second) == 1 else None
        if relation is None:
            context.undecided = True
            return ()
        return boolean(relation in accepted)

    return compare


def _logical(operator: str, left: Path, right: Path) -> Path:
    """Three-valued logic that looks at the right side only where the left doesn't settle it."""
    settling = operator == "or"  # `or` is settled by true, `and` and `implies` by false
    settled, other = (FALSE, TRUE) if operator == "and" else (TRUE, FALSE)

    def result(focus: Sequence[Node], context: Context) -> Sequence[Node]:
        first = truth(left(focus, context))
        if first is settling:
            return settled
        second = truth(right(focus, context))
        if second is (operator != "and"):
            return settled
        return () if first is None or second is None else other

    return result


def _type_test(tree: OfType) -> Path:
    return _of_type(tree.operator, _compiled(tree.target), tree.type)


_COMPILERS: dict[type, Callable[..., Path]] = {
    Literal: _literal,
    Empty: _empty,
    This: _this,
    Constant: _constant,
    Member: _member,
    Index: _index,
    Call: _call,
    Operation: _operation,
    OfType: _type_test,
}
