"""What all that reads a search's text has in common: limits, the terminology it may ask, and how it says no."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NoReturn, Protocol

from msgspec import Struct

from gitstore.errors import Invalid, Issue
from gitstore.search.filters import All, Any, Filter
from gitstore.search.parameters import Parameter, Registry
from gitstore.search.places import Place, found_places
from gitstore.search.tokens import MEDIA_TYPES_VALUE_SET

SHOWN = 80
"""So many characters of what a client wrote stand in a message at most."""


class Limits(Struct, frozen=True):
    """What one search may ask for.

    `max_chain` links in a chain or _has, `max_values` values between commas, `max_parameters` parameters (and as
    many comparisons in a _filter), `max_includes` of _include and _revinclude together.
    """

    max_chain: int = 5
    max_values: int = 1000
    max_parameters: int = 100
    max_includes: int = 20


class Terminology(Protocol):
    """What the CodeSystems and ValueSets of the record say; None wherever they can't tell."""

    def codes_in(self, value_set: str) -> Mapping[str, frozenset[str]] | None:
        """The codes of a value set by their systems. It is named as the client does: a URL, perhaps with |version."""

    def below(self, system: str, code: str) -> frozenset[str] | None:
        """The codes that the code subsumes."""

    def above(self, system: str, code: str) -> frozenset[str] | None:
        """The codes that subsume the code."""


class Asking(Struct, frozen=True):
    """With what a search's text is read. `now` is an instant, `bases` are the URLs under which this server answers."""

    registry: Registry
    now: int
    limits: Limits = Limits()
    bases: Collection[str] = ()
    terminology: Terminology | None = None

    def parameters(self, types: Iterable[str], code: str) -> tuple[Parameter, ...]:
        """The parameter of each of the types that has it."""
        found = (self.registry.find(type, code) for type in types)
        return tuple(parameter for parameter in found if parameter is not None)

    def canonical_keys(
        self, parameters: Iterable[Parameter], types: Iterable[str]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The keys of url and version of those of the types that these references may name by canonicals."""
        if self.are_literal(parameters):
            return (), ()
        named = [
            type for type in types if self.registry.find(type, "url") and self.registry.find(type, "version")
        ]
        return self.keys(named, "url"), self.keys(named, "version")

    def are_literal(self, parameters: Iterable[Parameter]) -> bool:
        """Whether these references are of the type Reference for sure, and never canonicals."""
        return all(
            places is not None and all(place.type == "Reference" for place in places)
            for places in self._places(parameters)
        )

    def are_media_types(self, parameters: Iterable[Parameter]) -> bool:
        """Whether these tokens are media types for sure."""
        return all(
            places and all(place.value_set == MEDIA_TYPES_VALUE_SET for place in places)
            for places in self._places(parameters)
        )

    def _places(self, parameters: Iterable[Parameter]) -> Iterator[list[Place] | None]:
        """Where the values of each parameter are, None where its expression is no plain path."""
        for parameter in parameters:
            yield found_places(self.registry.definition(parameter).expression, parameter.type)

    def keys(self, types: Iterable[str], code: str) -> tuple[int, ...]:
        """The keys of the rows of `parameters`."""
        return tuple(parameter.key for parameter in self.parameters(types, code))


class UnknownError(Exception):
    """There is no such parameter here: a reason to ignore it, or to refuse the search where it must be strict."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def shown(text: str) -> str:
    """What a client wrote, as messages quote it."""
    return f"`{text[:SHOWN]}`" if len(text) <= SHOWN else f"`{text[:SHOWN]}…`"


def bad_value(name: str, value: str, expected: str) -> Invalid:
    """The value of a parameter isn't what it should be."""
    return Invalid(Issue("error", "value", f"{shown(name)} can't be {shown(value)}: expected {expected}."))


def not_supported(text: str) -> Invalid:
    return Invalid(Issue("error", "not-supported", text))


def too_costly(text: str) -> Invalid:
    return Invalid(Issue("error", "too-costly", text))


def raise_for(name: str, error: Invalid) -> NoReturn:
    """Say again what is wrong with a value, and of which parameter it is."""
    issue = error.issues[0]
    raise Invalid(Issue("error", "value", f"{shown(name)}: {issue.text}")) from error


def any_of(filters: Sequence[Filter]) -> Filter:
    return filters[0] if len(filters) == 1 else Any(tuple(filters))


def all_of(filters: Sequence[Filter]) -> Filter:
    return filters[0] if len(filters) == 1 else All(tuple(filters))
