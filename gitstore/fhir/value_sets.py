"""Which codes a ValueSet has, as far as that can be told without a terminology server.

https://hl7.org/fhir/R4/valueset.html#compositions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from gitstore.fhir import Resource, definitions

Find: TypeAlias = Callable[[str], Resource | None]
"""The StructureDefinition, ValueSet or CodeSystem of a canonical URL (perhaps with |version), if there is one."""

Codes: TypeAlias = Mapping[str, frozenset[str] | None]
"""Codes by their system; None where all codes of the system are in, and which these are isn't known."""

_MAX_NESTING = 10


def codes_of(url: str, find: Find, nesting: int = 0) -> Codes | None:
    """The codes of a value set, None where they can't be told: it isn't known, or chooses by filters."""
    value_set = find(url)
    if value_set is None or value_set.get("resourceType") != "ValueSet":
        return definitions.codes(url.partition("|")[0])
    if nesting > _MAX_NESTING:
        return None
    compose = value_set.get("compose")
    if compose is None:
        return _expanded(value_set.get("expansion", {}).get("contains", []))
    included = [_included(include, find, nesting) for include in compose.get("include", [])]
    excluded = [_included(exclude, find, nesting) for exclude in compose.get("exclude", [])]
    codes: dict[str, frozenset[str] | None] = {}
    for part in included:
        if part is None:
            return None
        for system, some in part.items():
            codes[system] = _united(codes.get(system, frozenset()), some)
    for part in excluded:
        if part is None:
            return None
        for system, some in part.items():
            all_codes = codes.get(system, frozenset())
            if all_codes is None:
                return None
            codes[system] = frozenset() if some is None else all_codes - some
    return codes


def has(codes: Codes, system: object, code: object) -> bool:
    """Whether a system and code are among the codes; without a system, the code must be of any of them."""
    if system is None:
        return any(some is None or code in some for some in codes.values())
    if not isinstance(system, str) or system not in codes:
        return False
    some = codes[system]
    return some is None or code in some


def _included(include: dict[str, Any], find: Find, nesting: int) -> Codes | None:
    """An include or exclude: what its system and all of its value sets have in common."""
    if "filter" in include:
        return None
    parts: list[Codes | None] = [codes_of(url, find, nesting + 1) for url in include.get("valueSet", [])]
    system = include.get("system")
    if system is not None:
        if "concept" in include:
            parts.append({system: frozenset(concept["code"] for concept in include["concept"])})
        else:
            parts.append({system: _whole(system, find)})
    common = parts[0] if parts else {}
    for part in parts[1:]:
        common = _common(common, part)
    return common


def _whole(system: str, find: Find) -> frozenset[str] | None:
    code_system = find(system)
    if code_system is None or code_system.get("content") != "complete":
        return None
    return frozenset(concept["code"] for concept in _concepts(code_system.get("concept", [])))


def _concepts(concepts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for concept in concepts:
        yield concept
        yield from _concepts(concept.get("concept", []))


def _expanded(contains: list[dict[str, Any]]) -> Codes | None:
    codes: dict[str, frozenset[str] | None] = {}
    waiting = list(contains)
    while waiting:
        concept = waiting.pop()
        waiting += concept.get("contains", [])
        if "code" in concept:
            system = concept.get("system", "")
            codes[system] = _united(codes.get(system, frozenset()), frozenset([concept["code"]]))
    return codes or None


def _united(some: frozenset[str] | None, more: frozenset[str] | None) -> frozenset[str] | None:
    return None if some is None or more is None else some | more


def _common(one: Codes | None, other: Codes | None) -> Codes | None:
    if one is None or other is None:
        return None
    common: dict[str, frozenset[str] | None] = {}
    for system in one.keys() & other.keys():
        some, more = one[system], other[system]
        if some is None or more is None:
            common[system] = more if some is None else some
        else:
            common[system] = some & more
    return common
