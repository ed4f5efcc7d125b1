"""The concepts of a CodeSystem: what lies above and below each, and which of them filters choose.

https://hl7.org/fhir/R4/codesystem.html
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from gitstore.fhir import Resource
from gitstore.fhir.patterns import Pattern, UnsupportedPatternError

Find: TypeAlias = Callable[[str], Resource | None]
"""The StructureDefinition, ValueSet or CodeSystem of a canonical URL (perhaps with |version), if there is one."""

_PROPERTIES = "http://hl7.org/fhir/concept-properties#"
_LIKE_FALSE_WHERE_ABSENT = frozenset({"inactive", "notSelectable"})


def complete(find: Find, system: str, version: str | None = None) -> Resource | None:
    """The CodeSystem of a system if all of its concepts are in it; of the version, if one is asked for.

    https://hl7.org/fhir/R4/valueset-codesystem-content-mode.html
    """
    found = find(f"{system}|{version}") if version else None
    code_system = found or find(system)
    if code_system is None or code_system.get("resourceType") != "CodeSystem":
        return None
    if version and code_system.get("version", version) != version:
        return None
    return code_system if code_system.get("content") == "complete" else None


class Concepts:
    """The concepts of a CodeSystem, by their codes.

    One lies below another that holds it, that names it as `child`, or that it names as `parent` or
    `subsumedBy`. A hierarchy may have several roots, several ways to a concept, and by mistake circles.
    """

    def __init__(self, code_system: Resource) -> None:
        self._concepts: dict[str, Mapping[str, Any]] = {}
        self._children: dict[str, set[str]] = {}
        self._parents: dict[str, set[str]] = {}
        self._known = {property["code"] for property in code_system.get("property", ())}
        roles = _roles(code_system)
        waiting: list[tuple[str | None, Mapping[str, Any]]] = [
            (None, concept) for concept in reversed(code_system.get("concept", ()))
        ]
        while waiting:
            parent, concept = waiting.pop()
            code = concept["code"]
            self._concepts.setdefault(code, concept)
            if parent is not None:
                self._link(parent, code)
            waiting += [(code, child) for child in reversed(concept.get("concept", ()))]
            for property in concept.get("property", ()):
                self._known.add(property["code"])
                self._link_by(code, roles.get(property["code"]), _text(property))
        # Where the hierarchy means something else, being below another is not being one.
        self.is_by_kind = code_system.get("hierarchyMeaning", "is-a") == "is-a"

    @functools.cached_property
    def codes(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self._concepts)

    def below(self, code: str) -> frozenset[str]:
        """The code and those of all concepts below."""
        return _reached(code, self._children)

    def above(self, code: str) -> frozenset[str]:
        """The code and those of all concepts above."""
        return _reached(code, self._parents)

    def chosen(self, filters: Sequence[Mapping[str, Any]]) -> frozenset[str] | None:
        """The codes that fit all filters of a ValueSet's include; None where that can't be told.

        https://hl7.org/fhir/R4/valueset.html#filter
        """
        codes = self.codes
        for filter in filters:
            some = self._fitting(filter.get("property"), filter.get("op"), filter.get("value"))
            if some is None:
                return None
            codes &= some
        return codes

    def _fitting(self, property: object, op: object, value: object) -> frozenset[str] | None:
        if not (isinstance(property, str) and isinstance(op, str) and isinstance(value, str)):
            return None
        if op in _BY_KIND:
            if property not in ("concept", "code") or not self.is_by_kind:
                return None
            return _BY_KIND[op](self, value)
        fits = _test(op, value)
        if fits is None or not (property in _BUILT_IN or property in self._known):
            return None
        return frozenset(
            code for code, concept in self._concepts.items() if fits(self._values(concept, property))
        )

    def _values(self, concept: Mapping[str, Any], property: str) -> Iterable[str]:
        code = concept["code"]
        match property:
            case "code" | "concept":
                return (code,)
            case "display" | "definition":
                return (concept[property],) if property in concept else ()
            case "parent":
                return self._parents.get(code, ())
            case "child":
                return self._children.get(code, ())
        values = [_text(item) for item in concept.get("property", ()) if item["code"] == property]
        return values or (("false",) if property in _LIKE_FALSE_WHERE_ABSENT else ())

    def _link(self, parent: str, child: str) -> None:
        self._children.setdefault(parent, set()).add(child)
        self._parents.setdefault(child, set()).add(parent)

    def _link_by(self, code: str, role: str | None, other: str) -> None:
        if role == "child":
            self._link(code, other)
        elif role == "parent":
            self._link(other, code)


def _roles(code_system: Resource) -> dict[str, str]:
    """Which properties lead to parents and children, by their codes; their URI says more than the code."""
    roles = {"parent": "parent", "child": "child", "subsumedBy": "parent"}
    for property in code_system.get("property", ()):
        for role in ("parent", "child"):
            if property.get("uri") == _PROPERTIES + role:
                roles[property["code"]] = role
    return roles


def _text(property: Mapping[str, Any]) -> str:
    """The value of a concept's property as a filter would write it."""
    for name, value in property.items():
        if name.startswith("value"):
            if isinstance(value, bool):
                return "true" if value else "false"
            return str(value.get("code", "")) if isinstance(value, dict) else str(value)
    return ""


def _reached(code: str, links: Mapping[str, set[str]]) -> frozenset[str]:
    seen, waiting = {code}, [code]
    while waiting:
        more = links.get(waiting.pop(), set()) - seen
        seen |= more
        waiting += more
    return frozenset(seen)


_BUILT_IN = frozenset(
    {"code", "concept", "display", "definition", "parent", "child", *_LIKE_FALSE_WHERE_ABSENT}
)

_BY_KIND: Mapping[str, Callable[[Concepts, str], frozenset[str]]] = {
    "is-a": lambda concepts, code: concepts.below(code),
    "descendent-of": lambda concepts, code: concepts.below(code) - {code},
    "is-not-a": lambda concepts, code: concepts.codes - concepts.below(code),
    "generalizes": lambda concepts, code: concepts.above(code),
}


def _test(op: str, value: str) -> Callable[[Iterable[str]], bool] | None:
    """Whether the values that a concept has of a property fit; None for an unknown operator or odd value."""
    match op:
        case "=":
            return lambda values: value in values
        case "in" | "not-in":
            wanted = {item.strip() for item in value.split(",")}
            return lambda values: wanted.isdisjoint(values) == (op == "not-in")
        case "exists" if value in ("true", "false"):
            return lambda values: any(True for _ in values) == (value == "true")
        case "regex":
            try:
                pattern = Pattern(value)
            except UnsupportedPatternError:
                return None
            return lambda values: any(pattern.fits(text) for text in values)
    return None
