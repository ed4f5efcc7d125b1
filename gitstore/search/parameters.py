"""The search parameters of each resource type: those of R4, and the SearchParameters of the record.

https://hl7.org/fhir/R4/searchparameter.html
"""

from __future__ import annotations

import functools
import hashlib
import json as plain_json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Struct

from gitstore.fhir import Resource, definitions
from gitstore.search.extraction_plan import Plan
from gitstore.search.filters import Table
from gitstore.search.parameter_definitions import Definition, base_definitions, with_stored
from gitstore.search.places import Place, found_places
from gitstore.search.values import Use

ROWS: Final = 1
"""To be raised when other rows are made of the same resources: the indexes there are will be made anew."""

TABLES: Final[Mapping[str, Table | None]] = MappingProxyType(
    {
        "number": "quantities",
        "date": "dates",
        "string": "strings",
        "token": "tokens",
        "reference": "refs",
        "composite": None,
        "quantity": "quantities",
        "uri": "strings",
        "special": "positions",
    }
)
"""Where the rows of each kind of parameter are."""

_VARIANTS = {"token": ("", "of-type", "text"), "reference": ("", "identifier")}
_REPEATED = frozenset({"CodeableConcept", "HumanName", "Address", "canonical"})
"""Types of which one value counts as several."""


class Parameter(Struct, frozen=True):
    """A search parameter of one resource type.

    `key` is that of its rows, which are in `table`; a composite has none itself. `targets` are the types that a
    reference may lead to. `components` of a composite have rows of their own, numbered by element. `text` is the key
    of the rows for :text, whose system is rows.TEXT and whose code is the folded text; `identifier` the key of those
    of Reference.identifier, in the table tokens; `of_type` the key of the rows for :of-type, whose system is
    tokens.type_system. `single` says that a resource has one value at most.
    """

    key: int
    type: str
    code: str
    kind: str
    url: str
    table: Table | None
    targets: tuple[str, ...] = ()
    components: tuple[Parameter, ...] = ()
    text: int | None = None
    identifier: int | None = None
    of_type: int | None = None
    single: bool = False


class Registry:
    """The parameters in effect: those of R4 and `stored`, active SearchParameters of the record.

    A stored one with the URL of another takes its place, with all its resource types. Where two have the same code
    for the same type, that of R4 stays, otherwise the one whose URL sorts first; `left_out` says why the other
    doesn't count, and so it does for what can't be understood.
    """

    def __init__(
        self, stored: Sequence[Resource] = (), *, base_url: str | None = None, all_references: bool = False
    ) -> None:
        """References below `base_url` are to resources of this server; `all_references`: see `integrity`."""
        self.base_url = base_url.rstrip("/") + "/" if base_url else None
        self.all_references = all_references
        self._definitions, self.left_out = with_stored(stored)
        names = [
            (type, code, variant)
            for type, parameters in self._definitions.items()
            for code, definition in parameters.items()
            for variant in _variants(definition)
        ]
        self._keys = {name: number for number, name in enumerate(sorted(names), 1)}
        self._of: dict[str, Mapping[str, Parameter]] = {}
        self._plans: dict[str, Plan] = {}
        self.digest = self._digest()

    def _digest(self) -> str:
        """Changes with anything that changes keys or rows."""
        base = base_definitions()
        changed = [
            [type, code, msgspec.to_builtins(definition)]
            for type, parameters in self._definitions.items()
            for code, definition in parameters.items()
            if base[type].get(code) is not definition
        ]
        removed = [
            [type, code]
            for type, parameters in base.items()
            for code in parameters
            if code not in self._definitions[type]
        ]
        text = plain_json.dumps(
            [ROWS, definitions.digest(), changed, removed, self.base_url, self.all_references], sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def of(self, type: str) -> Mapping[str, Parameter]:
        """Those of a resource type, by code. Raises KeyError for what is none."""
        parameters = self._of.get(type)
        if parameters is None:
            parameters = self._of[type] = {
                code: self._parameter(type, code, definition)
                for code, definition in self._definitions[type].items()
            }
        return parameters

    def find(self, type: str, code: str) -> Parameter | None:
        """None where there is no such type, or it has no such parameter."""
        return self.of(type).get(code) if type in self._definitions else None

    def definition(self, parameter: Parameter) -> Definition:
        """What a parameter of `of` was made of."""
        return self._definitions[parameter.type][parameter.code]

    def plan(self, type: str) -> Plan:
        """How the values of all parameters of a type are found in a resource."""
        plan = self._plans.get(type)
        if plan is None:
            plan = self._plans[type] = Plan(
                type,
                [
                    (
                        self.definition(parameter),
                        Use(parameter.key, 0, parameter.text, parameter.of_type, parameter.identifier),
                        [Use(component.key) for component in parameter.components],
                    )
                    for parameter in self.of(type).values()
                ],
            )
        return plan

    def rows(self) -> list[tuple[int, str, str, str]]:
        """Key, type, code and variant, for the table of parameters; some have no rows in any resource."""
        return [(key, *name) for name, key in self._keys.items()]

    def _parameter(self, type: str, code: str, definition: Definition) -> Parameter:
        found = found_places(definition.expression, type)
        types = {place.type for place in found} if found is not None else None
        is_token = definition.kind == "token"
        return Parameter(
            self._keys[type, code, ""],
            type,
            code,
            definition.kind,
            definition.url,
            TABLES[definition.kind],
            _targets(definition, found),
            self._components(type, code, definition),
            self._keys[type, code, "text"] if is_token and (types is None or types & _WITH_TEXT) else None,
            self._keys[type, code, "identifier"]
            if definition.kind == "reference" and (types is None or "Reference" in types)
            else None,
            self._keys[type, code, "of-type"]
            if is_token and (types is None or "Identifier" in types)
            else None,
            definition.kind != "composite" and found is not None and _is_single(found),
        )

    def _components(self, type: str, code: str, definition: Definition) -> tuple[Parameter, ...]:
        return tuple(
            Parameter(
                self._keys[type, code, str(number)],
                type,
                code,
                component.kind,
                component.url,
                TABLES[component.kind],
                component.target or definitions.RESOURCE_TYPES if component.kind == "reference" else (),
            )
            for number, component in enumerate(definition.components, 1)
        )


def registry_of(
    stored: Sequence[Resource], *, base_url: str | None = None, all_references: bool = False
) -> Registry:
    """A `Registry` of these; where nothing is stored, all stores of the process share one, and what it has compiled."""
    if stored:
        return Registry(stored, base_url=base_url, all_references=all_references)
    return _of_nothing_stored(base_url, all_references)


@functools.lru_cache(maxsize=4)
def _of_nothing_stored(base_url: str | None, all_references: bool) -> Registry:
    return Registry(base_url=base_url, all_references=all_references)


_WITH_TEXT = frozenset({"CodeableConcept", "Coding", "Identifier"})


def _variants(definition: Definition) -> tuple[str, ...]:
    if definition.kind == "composite":
        return ("", *map(str, range(1, len(definition.components) + 1)))
    return _VARIANTS.get(definition.kind, ("",))


def _targets(definition: Definition, found: list[Place] | None) -> tuple[str, ...]:
    """Those that the parameter names, as far as the elements allow them."""
    if definition.kind != "reference":
        return ()
    named = set(definition.target or definitions.RESOURCE_TYPES)
    if found:
        allowed = [
            {place.refers_to} if place.refers_to is not None else place.targets or named for place in found
        ]
        named = named & set().union(*allowed) or named
    return tuple(sorted(named))


def _is_single(found: list[Place]) -> bool:
    return (
        len({place.elements for place in found}) == 1
        and not any(place.many for place in found)
        and not any(place.type in _REPEATED for place in found)
    )
