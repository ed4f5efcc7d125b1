"""The snapshot of a StructureDefinition as a tree of rules, one for each element and slice.

https://hl7.org/fhir/R4/elementdefinition.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from msgspec import Struct

from gitstore.fhir import Resource, definitions, nodes
from gitstore.fhir.definitions import Constraint
from gitstore.fhir.nodes import Node

CORE = "http://hl7.org/fhir/StructureDefinition/"
"""Where the canonical URLs of the specification's own types begin."""


@dataclass(slots=True)
class Rule:
    """What a profile says about one element, or one slice of an element.

    `types` maps each type to the profiles that a value of it may fit, `targets` are those of references.
    `fixed` and `pattern` are (value,) where there is one. `discriminators` are (type, path); `is_closed` says
    that what fits no slice is refused. `content` is the path whose children this element has.
    """

    name: str
    slice_name: str | None
    min: int
    max: int | None
    types: dict[str, tuple[str, ...]]
    targets: tuple[str, ...]
    fixed: tuple[Any] | None
    pattern: tuple[Any] | None
    value_set: str | None
    max_length: int | None
    constraints: tuple[Constraint, ...]
    discriminators: tuple[tuple[str, str], ...]
    is_closed: bool
    content: str | None
    children: list[Rule] = field(default_factory=list)
    slices: list[Rule] = field(default_factory=list)

    def child(self, name: str) -> Rule | None:
        """The rule for the children of a name, with or without [x]."""
        for child in self.children:
            if child.name.removesuffix("[x]") == name:
                return child
        return None


class Profile(Struct, frozen=True):
    """A StructureDefinition, ready to use."""

    url: str
    type: str
    root: Rule


def profile(structure: Resource) -> Profile | None:
    """The profile that a StructureDefinition with a snapshot is; None without one."""
    elements = structure.get("snapshot", {}).get("element")
    if not elements:
        return None
    by_id: dict[str, Rule] = {}
    by_path: dict[str, Rule] = {}
    current: dict[str, str] = {}  # path -> id of the last element there, for snapshots without ids
    for element in elements:
        path = element["path"]
        id = element.get("id") or _id(element, current)
        current[path] = id
        rule = _rule(element, structure["type"])
        by_id[id] = rule
        by_path.setdefault(path, rule)
        _place(id, rule, by_id)
    for rule in by_id.values():
        if rule.content in by_path and not rule.children:
            rule.children = by_path[rule.content].children
    return Profile(structure["url"], structure["type"], by_id[next(iter(by_id))])


def _id(element: dict[str, Any], current: dict[str, str]) -> str:
    parent, _, name = element["path"].rpartition(".")
    id = f"{current.get(parent, parent)}.{name}" if parent else name
    return f"{id}:{element['sliceName']}" if "sliceName" in element else id


def _place(id: str, rule: Rule, by_id: dict[str, Rule]) -> None:
    """Hang a rule into the tree; one whose parent isn't there stays outside."""
    parent_id, _, last = id.rpartition(".")
    if rule.slice_name is not None and ":" in last:
        whole = by_id.get(id.rpartition(":")[0])
        if whole is not None:
            whole.slices.append(rule)
            return
    parent = by_id.get(parent_id)
    if parent is not None:
        parent.children.append(rule)


def _rule(element: dict[str, Any], type: str) -> Rule:
    slicing = element.get("slicing", {})
    binding = element.get("binding", {})
    maximum = element.get("max", "*")
    return Rule(
        name=element["path"].rpartition(".")[2],
        slice_name=element.get("sliceName"),
        min=element.get("min", 0),
        max=None if maximum == "*" else int(maximum),
        types={part["code"]: tuple(part.get("profile", ())) for part in element.get("type", ())},
        targets=tuple(url for part in element.get("type", ()) for url in part.get("targetProfile", ())),
        fixed=_value(element, "fixed"),
        pattern=_value(element, "pattern"),
        value_set=binding.get("valueSet") if binding.get("strength") == "required" else None,
        max_length=element.get("maxLength"),
        constraints=tuple(_own_constraints(element, type)),
        discriminators=tuple((part["type"], part["path"]) for part in slicing.get("discriminator", ())),
        is_closed=slicing.get("rules") == "closed",
        content=element.get("contentReference", "#").partition("#")[2] or None,
    )


def _value(element: dict[str, Any], choice: str) -> tuple[Any] | None:
    for name, value in element.items():
        if name.startswith(choice) and name[len(choice) : len(choice) + 1].isupper():
            return (value,)
    return None


def _own_constraints(element: dict[str, Any], type: str) -> Iterator[Constraint]:
    """Those that the base specification doesn't have for all such elements."""
    path = element["path"].removesuffix("[x]")
    places = [type, path, *(part["code"] for part in element.get("type", ()))]
    known = {constraint.key for place in places for constraint in definitions.constraints(place)}
    known |= {"ele-1", "ext-1", "txt-1", "txt-2"}
    for constraint in element.get("constraint", ()):
        if constraint["key"] not in known and "expression" in constraint:
            yield Constraint(constraint["key"], constraint["severity"], constraint["expression"])


def equals(value: Any, expected: Any) -> bool:
    """Whether a JSON value is exactly the expected one; 1.0 is not 1, as precision has a meaning."""
    if isinstance(expected, dict):
        return (
            isinstance(value, dict)
            and value.keys() == expected.keys()
            and all(equals(value[name], child) for name, child in expected.items())
        )
    if isinstance(expected, list):
        return isinstance(value, list) and len(value) == len(expected) and all(map(equals, value, expected))
    return _same(value, expected)


def matches(value: Any, pattern: Any) -> bool:
    """Whether a value has all that the pattern has; of an array, for each item of the pattern one that fits."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            name in value and matches(value[name], child) for name, child in pattern.items()
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and all(
            any(matches(item, child) for item in value) for child in pattern
        )
    return _same(value, pattern)


def _same(value: Any, expected: Any) -> bool:
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, int | Decimal) and isinstance(expected, int | Decimal):
        return str(value) == str(expected)
    return bool(value == expected)


def fits(node: Node, rule: Rule) -> bool | None:
    """Whether a value has the fixed values and patterns of a rule and of those below it; None if it has none."""
    from_here: list[bool | None] = []
    if rule.fixed is not None:
        from_here.append(equals(node[1], rule.fixed[0]))
    if rule.pattern is not None:
        from_here.append(matches(node[1], rule.pattern[0]))
    for child in rule.children:
        for part in (child, *child.slices):
            results = [fits(found, part) for _, found in nodes.numbered_children(node, part.name)]
            if any(result is True for result in results):
                from_here.append(True)
            elif part.min > 0 and says_something(part):
                from_here.append(False)
    if not from_here:
        return None
    return all(from_here)


def says_something(rule: Rule) -> bool:
    """Whether a rule or one below it has a fixed value or a pattern."""
    return (
        rule.fixed is not None
        or rule.pattern is not None
        or any(says_something(part) for child in rule.children for part in (child, *child.slices))
    )
