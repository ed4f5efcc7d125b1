"""What an access lets through, as filters of a search: which resources of each type a letter of its scopes is for.

A search within an access is an ordinary one with more conditions: of its matches, and of every other resource that it
looks at on the way, so that what may not be seen has no part in any answer.
https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from gitstore.access import Access, Grant
from gitstore.errors import Forbidden, Invalid
from gitstore.fhir.definitions import RESOURCE_TYPES, compartments
from gitstore.fhir.ids import ResourceId
from gitstore.search.asking import all_of, any_of
from gitstore.search.criteria import parse_filter
from gitstore.search.filters import (
    All,
    Any,
    Chain,
    Filter,
    Hierarchy,
    Ids,
    Include,
    Listed,
    Not,
    OfTypes,
    Query,
    References,
    ReferenceValue,
    ReferredBy,
    Tokens,
    TokenValue,
    Words,
)
from gitstore.search.parameters import Registry

EVERYTHING = All()
NOTHING = Any()


class Sight:
    """What one access sees, by the search parameters of `registry`; without any, limited grants come to nothing."""

    def __init__(self, access: Access, registry: Registry | None) -> None:
        self.access = access
        self.registry = registry
        self._limits: dict[tuple[str, tuple[str, ...]], Filter] = {}
        self._types: dict[int, str] = {}

    def limit(self, letter: str, types: Sequence[str]) -> Filter:
        """Which of the resources of these types the letter is for: all, with EVERYTHING; none, with NOTHING."""
        known = self._limits.get((letter, tuple(types)))
        if known is None:
            known = self._limits[letter, tuple(types)] = self._limit(letter, types)
        return known

    def types(self, letter: str, types: Iterable[str]) -> tuple[str, ...]:
        """Those of the types of which the letter is for any resources."""
        return tuple(type for type in types if self.access.may(letter, type))

    def _limit(self, letter: str, types: Sequence[str]) -> Filter:
        grants = dict.fromkeys(grant for type in types for grant in self.access.of(letter, type))
        allowed = any_of([each for grant in grants if (each := self._granted(grant, types)) != NOTHING])
        if allowed == NOTHING or not self.access.withheld:
            return allowed
        kept = Not(self._withheld(types))
        return kept if allowed == EVERYTHING else All((allowed, kept))

    def _granted(self, grant: Grant, types: Sequence[str]) -> Filter:
        covered = tuple(type for type in types if grant.type in (None, type))
        if not grant.is_limited:
            return EVERYTHING if len(covered) == len(types) else OfTypes(covered)
        if self.registry is None:
            return NOTHING
        inside = EVERYTHING if grant.patient is None else self._in_compartment(grant.patient, covered)
        if not grant.query or inside == NOTHING:
            return inside
        selected = [
            All((OfTypes((type,)), filter))
            for type in covered
            if (filter := _plain(self.registry, type, grant.query)) is not None
        ]
        return all_of([each for each in (inside, any_of(selected)) if each != EVERYTHING])

    def _in_compartment(self, patient: str, types: Sequence[str]) -> Filter:
        """The Patient itself, and what refers to it as CompartmentDefinition says.

        No other Patient, although R4 counts those with a link to it: that is another record, of perhaps another person.
        """
        assert self.registry is not None
        members = compartments()["Patient"]
        keys = [
            parameter.key
            for type in types
            if type != "Patient"
            for code in members.get(type, ())
            if (parameter := self.registry.find(type, code)) is not None
        ]
        filters: list[Filter] = []
        if keys:
            filters.append(References(tuple(keys), (ReferenceValue("Patient", patient),)))
        if "Patient" in types:
            filters.append(All((OfTypes(("Patient",)), Ids((patient,)))))
        return any_of(filters)

    def _withheld(self, types: Sequence[str]) -> Filter:
        if self.registry is None:
            return EVERYTHING
        found = [self.registry.find(type, "_security") for type in types]
        values = [label.rpartition("|")[::2] for label in self.access.withheld]
        return Tokens(
            tuple(parameter.key for parameter in found if parameter is not None),
            tuple(TokenValue(system or None, code) for system, code in values),
        )

    # Searches

    def within(self, query: Query) -> Query:
        """The query as it is answered to this access. Raises Forbidden where it may search none of the types."""
        filter = self.guarded(query.filter)
        includes = tuple(self._guarded_include(each) for each in query.includes)
        if query.contained != "false":
            # What is contained is seen with its container, of whatever type that is.
            limit = self.limit("s", self._searchable(RESOURCE_TYPES))
            return replace(query, filter=filter, includes=includes, sight=limit)
        types = self._searchable(query.types)
        limit = self.limit("s", types)
        if limit != EVERYTHING:
            filter = All((filter, limit))
        return replace(query, types=types, filter=filter, includes=includes)

    def _searchable(self, types: Sequence[str]) -> tuple[str, ...]:
        found = self.types("s", types)
        if not found:
            raise Forbidden(f"Searching {_listed(types)} is not allowed with these scopes.")
        return found

    def guarded(self, filter: Filter) -> Filter:
        """The filter, in which every other resource that has a part has to be seen as well. Raises Forbidden."""
        match filter:
            case All(filters):
                return All(tuple(map(self.guarded, filters)))
            case Any(filters):
                return Any(tuple(map(self.guarded, filters)))
            case Not(inner):
                return Not(self.guarded(inner))
            case Chain():
                limit = self.limit("s", filter.types)
                return replace(filter, filter=All((self.guarded(filter.filter), limit)))
            case ReferredBy():
                limit = self.limit("s", self._types_of(filter.keys))
                return replace(filter, filter=All((self.guarded(filter.filter), limit)))
            case Listed():
                limit = self.limit("s", ("List",))
                return ReferredBy(filter.keys, All((Ids(filter.lists), limit)))
            case Hierarchy():
                if self.limit("s", (filter.type,)) != EVERYTHING:
                    raise Forbidden(
                        f"To go along the hierarchy of {filter.type}, all of them must be visible."
                    )
        return filter

    def _guarded_include(self, include: Include) -> Include:
        return replace(include, types=frozenset(self.types("r", include.types)))

    def _types_of(self, keys: Iterable[int]) -> tuple[str, ...]:
        assert self.registry is not None
        if not self._types:
            self._types = {key: type for key, type, _, _ in self.registry.rows()}
        return tuple(dict.fromkeys(self._types[key] for key in keys))


def _plain(registry: Registry, type: str, query: Sequence[tuple[str, str]]) -> Filter | None:
    """What a scope's parameters select, by what stands in the resource itself; None where they can't say that."""
    try:
        filter = parse_filter(registry, type, query, now=0)
    except Invalid:
        return None
    return filter if _is_plain(filter) else None


def _is_plain(filter: Filter) -> bool:
    match filter:
        case All(filters) | Any(filters):
            return all(map(_is_plain, filters))
        case Not(inner):
            return _is_plain(inner)
    return not isinstance(filter, Chain | ReferredBy | Listed | Hierarchy | Words)


def patient_of(access: Access, letter: str, types: Sequence[str]) -> ResourceId | None:
    """The one Patient in whose compartment everything is that the letter is for; None where there is no such."""
    patients = {grant.patient for type in types for grant in access.of(letter, type)}
    found = patients.pop() if len(patients) == 1 else None
    return ResourceId("Patient", found) if found is not None else None


def _listed(types: Sequence[str]) -> str:
    return "everything" if len(types) == len(RESOURCE_TYPES) else ", ".join(types[:5])
