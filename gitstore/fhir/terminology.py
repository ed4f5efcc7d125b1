"""What the modifiers :in, :not-in, :above and :below ask of code systems and value sets.

https://hl7.org/fhir/R4/search.html#token
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gitstore.fhir.code_systems import Concepts, Find, complete
from gitstore.fhir.value_sets import codes_of


class Terminology:
    """Answers by what `find` has, and keeps what it has read: make another when what is found may have changed."""

    def __init__(self, find: Find) -> None:
        self._find = find
        # Only what is there is kept: whoever asks for what isn't can't fill the memory.
        self._systems: dict[tuple[str, str | None], Concepts] = {}
        self._expansions: dict[str, Mapping[str, frozenset[str]]] = {}

    def descendants(self, system: str, code: str) -> frozenset[str] | None:
        """The code and all that are kinds of it, for :below; the code alone if the system hasn't got it.

        None where that can't be told: there is no such CodeSystem, it holds only some of its concepts
        (content other than complete), or its hierarchy means something else than kinds.
        https://hl7.org/fhir/R4/codesystem.html#hierarchy
        """
        concepts = self._concepts(system)
        return concepts.below(code) if concepts and concepts.is_by_kind else None

    def ancestors(self, system: str, code: str) -> frozenset[str] | None:
        """The code and all that it is a kind of, for :above. None as for `descendants`."""
        concepts = self._concepts(system)
        return concepts.above(code) if concepts and concepts.is_by_kind else None

    def expansion(self, url: str) -> Mapping[str, frozenset[str]] | None:
        """The codes of a value set (perhaps with |version) by their systems, for :in and :not-in.

        None where they can't be told. https://hl7.org/fhir/R4/valueset.html#expansion
        """
        if url not in self._expansions:
            expanded = self._expanded(url)
            if expanded is None:
                return None
            self._expansions[url] = expanded
        return self._expansions[url]

    def _expanded(self, url: str) -> Mapping[str, frozenset[str]] | None:
        codes = codes_of(url, self._find, self._chosen)
        if codes is None:
            return None
        listed = {system: some for system, some in codes.items() if some is not None}
        return listed if len(listed) == len(codes) else None

    def _chosen(
        self, system: str, version: str | None, filters: Sequence[Mapping[str, Any]]
    ) -> frozenset[str] | None:
        concepts = self._concepts(system, version)
        return None if concepts is None else concepts.chosen(filters)

    def _concepts(self, system: str, version: str | None = None) -> Concepts | None:
        key = (system, version)
        if key not in self._systems:
            code_system = complete(self._find, system, version)
            if code_system is None:
                return None
            self._systems[key] = Concepts(code_system)
        return self._systems[key]


def descendants(system: str, code: str, find: Find) -> frozenset[str] | None:
    """See `Terminology.descendants`, of which nothing is kept here."""
    return Terminology(find).descendants(system, code)


def ancestors(system: str, code: str, find: Find) -> frozenset[str] | None:
    """See `Terminology.ancestors`."""
    return Terminology(find).ancestors(system, code)


def expansion(value_set_url: str, find: Find) -> Mapping[str, frozenset[str]] | None:
    """See `Terminology.expansion`."""
    return Terminology(find).expansion(value_set_url)
