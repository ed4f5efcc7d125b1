"""The CapabilityStatement, derived from the route table. https://hl7.org/fhir/R4/http.html#capabilities"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gitstore.fhir import json
from gitstore.fhir.definitions import RESOURCE_TYPES

VERSION = "0.1.0"
RELEASED = "2026-11-22"
"""The day of this version of the software, and so of what it can do: a date of the request would change the ETag."""

TYPE_LEVEL = ("read", "vread", "update", "delete", "history-instance", "history-type", "create")
SYSTEM_LEVEL = ("transaction", "batch", "history-system")
OPERATIONS = {"$validate": "http://hl7.org/fhir/OperationDefinition/Resource-validate"}
"""Of each type, with their definitions."""
MODES = ("full", "normative", "terminology")
"""All answered with the whole statement, as a server without a terminology service may."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A CapabilityStatement as JSON, and the tag that changes with its content."""

    data: bytes
    tag: str

    @property
    def etag(self) -> str:
        return f'W/"{self.tag}"'


@lru_cache(maxsize=64)
def statement(base: str, interactions: frozenset[str]) -> Statement:
    """What this server can do under `base`, from the codes of the interactions that its routes offer."""
    data = json.dumps(_resource(base, interactions))
    return Statement(data, hashlib.sha256(data).hexdigest()[:16])


def _resource(base: str, interactions: Collection[str]) -> dict[str, Any]:
    per_type = [{"code": code} for code in TYPE_LEVEL if code in interactions]
    operations = [
        {"name": code.removeprefix("$"), "definition": url}
        for code, url in OPERATIONS.items()
        if code in interactions
    ]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": RELEASED,
        "kind": "instance",
        "software": {"name": "git-fhir", "version": VERSION, "releaseDate": RELEASED},
        "implementation": {"description": "FHIR R4 over a git repository", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json", "application/fhir+xml", "xml"],
        "rest": [
            {
                "mode": "server",
                "security": {"cors": False, "description": "There is no authentication in this release."},
                "resource": [
                    {
                        "type": type,
                        "interaction": per_type,
                        "versioning": "versioned",
                        "readHistory": "vread" in interactions,
                        "updateCreate": "update" in interactions,
                        "conditionalCreate": False,
                        "conditionalRead": "full-support",
                        "conditionalUpdate": False,
                        "conditionalDelete": "not-supported",
                        "operation": operations,
                    }
                    for type in RESOURCE_TYPES
                ],
                "interaction": [{"code": code} for code in SYSTEM_LEVEL if code in interactions],
            }
        ],
    }
