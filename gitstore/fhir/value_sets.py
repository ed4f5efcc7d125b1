"""Which codes a ValueSet has, as far as that can be told without a terminology server.

https://hl7.org/fhir/R4/valueset.html#compositions
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from gitstore.fhir import code_systems, definitions
from gitstore.fhir.code_systems import Find

__all__ = ["Choose", "Codes", "Find", "codes_of", "has"]

Codes: TypeAlias = Mapping[str, frozenset[str] | None]
"""Codes by their system; None where all codes of the system are in, and which these are isn't known."""

Choose: TypeAlias = Callable[[str, str | None, Sequence[Mapping[str, Any]]], frozenset[str] | None]
"""The codes of a system, perhaps of a version of it, that fit filters; None where that can't be told."""

_MAX_NESTING = 10


def codes_of(url: str, find: Find, choose: Choose | None = None) -> Codes | None:
    """The codes of a value set; None where they can't be told: it isn't known, imports itself, or has filters.

    With `choose` filters are followed, and an expansion that the value set holds is used where its definition
    doesn't tell.
    """
    return _Composer(find, choose).codes(url)


def has(codes: Codes, system: object, code: object) -> bool:
    """Whether a system and code are among the codes; without a system, the code must be of any of them."""
    if system is None:
        return any(some is None or code in some for some in codes.values())
    if not isinstance(system, str) or system not in codes:
        return False
    some = codes[system]
    return some is None or code in some


class _Composer:
    """Follows value sets into those they import, each of them once."""

    def __init__(self, find: Find, choose: Choose | None) -> None:
        self._find = find
        self._choose = choose
        self._known: dict[str, Codes | None] = {}
        self._nesting = 0

    def codes(self, url: str) -> Codes | None:
        if url not in self._known and self._nesting <= _MAX_NESTING:
            self._known[url] = None  # what it would be told of itself within itself
            self._nesting += 1
            self._known[url] = self._codes(url)
            self._nesting -= 1
        return self._known.get(url)

    def _codes(self, url: str) -> Codes | None:
        value_set = self._find(url)
        if value_set is None or value_set.get("resourceType") != "ValueSet":
            return definitions.codes(url.partition("|")[0])
        expansion = value_set.get("expansion", {})
        if "compose" not in value_set:
            return _expanded(expansion)
        codes = self._composed(value_set["compose"])
        if self._choose is not None and (codes is None or None in codes.values()) and expansion:
            return _expanded(expansion) or codes
        return codes

    def _composed(self, compose: Mapping[str, Any]) -> Codes | None:
        included = self._all(compose.get("include", []))
        excluded = self._all(compose.get("exclude", []))
        if included is None or excluded is None:
            return None
        codes: dict[str, frozenset[str] | None] = dict(included)
        for system, some in excluded.items():
            all_codes = codes.get(system, frozenset())
            if some is None:
                codes[system] = frozenset()
            elif all_codes is None:
                return None
            else:
                codes[system] = all_codes - some
        return codes

    def _all(self, includes: Iterable[Mapping[str, Any]]) -> Codes | None:
        parts = []
        for include in includes:
            part = self._included(include)
            if part is None:
                return None
            parts.append(part)
        return _united(parts)

    def _included(self, include: Mapping[str, Any]) -> Codes | None:
        """An include or exclude: what its system and all of its value sets have in common."""
        parts: list[Codes | None] = []
        system = include.get("system")
        if "filter" in include:
            some = self._filtered(include)
            if system is None or some is None:
                return None
            parts.append({system: some})
        elif system is not None and "concept" in include:
            parts.append({system: frozenset(concept["code"] for concept in include["concept"])})
        elif system is not None:
            parts.append({system: self._whole(system, include.get("version"))})
        parts += [self.codes(url) for url in include.get("valueSet", [])]
        common = parts[0] if parts else {}
        for part in parts[1:]:
            common = _common(common, part)
        return common

    def _filtered(self, include: Mapping[str, Any]) -> frozenset[str] | None:
        if self._choose is None:
            return None
        return self._choose(include.get("system", ""), include.get("version"), include["filter"])

    def _whole(self, system: str, version: str | None) -> frozenset[str] | None:
        if self._choose is not None:
            return self._choose(system, version, ())
        code_system = code_systems.complete(self._find, system, version)
        return None if code_system is None else code_systems.Concepts(code_system).codes


def _expanded(expansion: Mapping[str, Any]) -> Codes | None:
    """What an expansion lists; None where it is a page of it only, or empty."""
    codes: dict[str, set[str]] = {}
    entries = 0
    waiting = list(expansion.get("contains", ()))
    while waiting:
        concept = waiting.pop()
        waiting += concept.get("contains", ())
        entries += 1
        if "code" in concept:
            codes.setdefault(concept.get("system", ""), set()).add(concept["code"])
    if expansion.get("total", 0) > entries:
        return None
    return {system: frozenset(some) for system, some in codes.items()} or None


def _united(parts: Iterable[Codes]) -> dict[str, frozenset[str] | None]:
    united: dict[str, set[str] | None] = {}
    for part in parts:
        for system, some in part.items():
            codes = united.setdefault(system, set())
            if some is None:
                united[system] = None
            elif codes is not None:
                codes |= some
    return {system: None if some is None else frozenset(some) for system, some in united.items()}


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
