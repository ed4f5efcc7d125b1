"""What of the search goes into the CapabilityStatement.

https://hl7.org/fhir/R4/capabilitystatement-definitions.html#CapabilityStatement.rest.resource.searchParam
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from gitstore.fhir.definitions import compartments

_BASE = "http://hl7.org/fhir"
_OF_EVERY_RESOURCE = {
    "_id": ("token", "Resource-id"),
    "_lastUpdated": ("date", "Resource-lastUpdated"),
    "_profile": ("uri", "Resource-profile"),
    "_security": ("token", "Resource-security"),
    "_source": ("uri", "Resource-source"),
    "_tag": ("token", "Resource-tag"),
    "_content": ("string", "Resource-content"),
    "_text": ("string", "DomainResource-text"),
}
_CONTROLS = {
    "_contained": "token",
    "_containedType": "token",
    "_count": "number",
    "_elements": "string",
    "_filter": "special",
    "_has": "special",
    "_include": "special",
    "_list": "special",
    "_revinclude": "special",
    "_sort": "string",
    "_summary": "token",
    "_total": "token",
    "_type": "token",
}
"""Those without a definition of their own, with the type that comes nearest."""


class Parameter(Hashable, Protocol):
    """A search parameter of one resource type; `targets` are the types that a reference may lead to."""

    @property
    def type(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def targets(self) -> tuple[str, ...]: ...


class Searchable(Struct, frozen=True):
    """The parameters of each type, and the references by which others lead to it."""

    parameters: Mapping[str, Sequence[Parameter]]
    referring: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, parameters: Iterable[Parameter]) -> Searchable:
        by_type: dict[str, list[Parameter]] = defaultdict(list)
        referring: dict[str, list[str]] = defaultdict(list)
        for parameter in parameters:
            by_type[parameter.type].append(parameter)
            for target in parameter.targets:
                referring[target].append(f"{parameter.type}:{parameter.code}")
        return cls(by_type, referring)

    def type(self, type: str) -> dict[str, Any]:
        """The elements of rest.resource."""
        own = self.parameters.get(type)
        if not own:
            return {}
        includes = [f"{type}:{each.code}" for each in own if each.kind == "reference"]
        found: dict[str, Any] = {"searchInclude": ["*", *includes] if includes else []}
        found["searchRevInclude"] = sorted(self.referring.get(type, ()))
        codes = {each.code for each in own}
        found["searchParam"] = [
            *(_common(code) for code in _OF_EVERY_RESOURCE if code not in codes),
            *({"name": each.code, "definition": each.url, "type": each.kind} for each in own),
        ]
        return {name: value for name, value in found.items() if value}

    def system(self) -> dict[str, Any]:
        """The elements of rest."""
        if not self.parameters:
            return {}
        return {
            "searchParam": [
                *map(_common, _OF_EVERY_RESOURCE),
                *({"name": name, "type": kind} for name, kind in _CONTROLS.items()),
            ],
            "compartment": [
                f"{_BASE}/CompartmentDefinition/{type.lower()}" for type in sorted(compartments())
            ],
        }


def _common(code: str) -> dict[str, str]:
    kind, id = _OF_EVERY_RESOURCE[code]
    return {"name": code, "definition": f"{_BASE}/SearchParameter/{id}", "type": kind}
