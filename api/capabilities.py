"""The CapabilityStatement, derived from the route table. https://hl7.org/fhir/R4/http.html#capabilities"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from msgspec import Struct

from api import everything, smart
from api.searchable import Parameter, Searchable
from api.subsets import Subset
from gitstore.fhir import json, patch
from gitstore.fhir.definitions import RESOURCE_TYPES

VERSION = "0.1.0"
RELEASED = "2026-11-22"
"""The day of this version of the software, and so of what it can do: a date of the request would change the ETag."""

TYPE_LEVEL = (
    "read",
    "vread",
    "update",
    "patch",
    "delete",
    "history-instance",
    "history-type",
    "create",
    "search-type",
)
SYSTEM_LEVEL = ("transaction", "batch", "history-system", "search-system")
_SEARCHES = frozenset({"search-type", "search-system", "$everything"})
OPERATIONS = {
    "$validate": "http://hl7.org/fhir/OperationDefinition/Resource-validate",
    "$meta": "http://hl7.org/fhir/OperationDefinition/Resource-meta",
    "$meta-add": "http://hl7.org/fhir/OperationDefinition/Resource-meta-add",
    "$meta-delete": "http://hl7.org/fhir/OperationDefinition/Resource-meta-delete",
    "$everything": "http://hl7.org/fhir/OperationDefinition/{type}-everything",
    "$diff": "https://git-fhir.dev/OperationDefinition/diff",
    "$blame": "https://git-fhir.dev/OperationDefinition/blame",
    "$restore": "https://git-fhir.dev/OperationDefinition/restore",
}
"""Of each type, but for those that only some types have, with their definitions."""
SYSTEM_OPERATIONS = {
    "$meta": OPERATIONS["$meta"],
    "$diff": OPERATIONS["$diff"],
    "$changes": "https://git-fhir.dev/OperationDefinition/changes",
    "$revert": "https://git-fhir.dev/OperationDefinition/revert",
}
"""Of the base; `$meta` of everything is a search."""
_ONLY_OF = {"$everything": everything.TYPES}
_DOCUMENTATION = (
    "Writes and transactions take a Provenance in X-Provenance; POSTs are done once with Idempotency-Key."
)
_PAST = "The record as it was at one point; nothing can be written here."
_REPLICATION = (
    " A Bundle of type history, posted to the base, is taken over with its version ids, dates and authors."
)
_READS_ONLY = " This node is a replica, and knows no primary: for now writes are answered 503."
MODES = ("full", "normative", "terminology")
"""All answered with the whole statement, as a server without a terminology service may."""


class Statement(Struct, frozen=True):
    """A CapabilityStatement as JSON, and the tag that changes with its content."""

    data: bytes
    tag: str

    @property
    def etag(self) -> str:
        return f'W/"{self.tag}"'

    def body(self, part: Subset | None) -> bytes:
        """All of it, or the part that `_summary` or `_elements` asks for."""
        return self.data if part is None else json.dumps(part.of(json.loads_trusted(self.data)))


@lru_cache(maxsize=16)
def statement(
    base: str,
    interactions: frozenset[str],
    parameters: tuple[Parameter, ...],
    *,
    cors: bool = False,
    conditional_delete: str = "single",
    replication: bool = False,
    enforced: bool = False,
    reads_only: bool = False,
    authentication: bool = False,
    oauth: smart.OAuthUris | None = None,
) -> Statement:
    """What this server can do under `base`, from the codes of the interactions that its routes offer.

    `parameters` are those of all resource types; without any nothing can be searched, and there are no conditions.
    `conditional_delete` is a code of http://hl7.org/fhir/conditional-delete-status; `replication` says that histories
    are taken over, `enforced` that references must lead to something, `reads_only` that nothing can be written here for now. `authentication` says that credentials are needed, `oauth`
    where apps get some.
    """
    offered = interactions if parameters else interactions - _SEARCHES
    has_conditions = bool(parameters) and "update" in interactions
    policies = {
        **_conditional(conditional_delete if has_conditions else "not-supported"),
        "referencePolicy": ["literal", "logical", *(["enforced"] if enforced else [])],
    }
    security = smart.security(cors=cors, authentication=authentication, oauth=oauth)
    resource = _resource(base, offered, Searchable.of(parameters), policies, security)
    if replication:
        resource["rest"][0]["documentation"] += _REPLICATION
    if reads_only:
        resource["rest"][0]["documentation"] += _READS_ONLY
    data = json.dumps(resource)
    return Statement(data, hashlib.sha256(data).hexdigest()[:16])


def _conditional(delete: str) -> dict[str, Any]:
    """R4 has no word for conditional patches, which work wherever conditional updates do."""
    return {
        "conditionalCreate": delete != "not-supported",
        "conditionalRead": "full-support",
        "conditionalUpdate": delete != "not-supported",
        "conditionalDelete": delete,
    }


def _resource(
    base: str,
    interactions: Collection[str],
    searchable: Searchable,
    policies: dict[str, Any],
    security: dict[str, Any],
) -> dict[str, Any]:
    per_type = [{"code": code} for code in TYPE_LEVEL if code in interactions]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": RELEASED,
        "kind": "instance",
        "software": {"name": "git-fhir", "version": VERSION, "releaseDate": RELEASED},
        "implementation": {"description": "FHIR R4 over a git repository", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json", "application/fhir+xml", "xml"],
        **({"patchFormat": list(patch.MEDIA_TYPES)} if "patch" in interactions else {}),
        "rest": [
            {
                "mode": "server",
                "documentation": _DOCUMENTATION if "transaction" in interactions else _PAST,
                "security": security,
                "resource": [
                    {
                        "type": type,
                        "interaction": per_type,
                        "versioning": "versioned",
                        "readHistory": "vread" in interactions,
                        "updateCreate": "update" in interactions,
                        **policies,
                        **searchable.type(type),
                        "operation": _operations(type, interactions),
                    }
                    for type in RESOURCE_TYPES
                ],
                "interaction": [{"code": code} for code in SYSTEM_LEVEL if code in interactions],
                **searchable.system(),
                **_system_operations(interactions),
            }
        ],
    }


def _operations(type: str, interactions: Collection[str]) -> list[dict[str, str]]:
    return [
        _operation(code, type)
        for code in OPERATIONS
        if code in interactions and type in _ONLY_OF.get(code, (type,))
    ]


def _system_operations(interactions: Collection[str]) -> dict[str, Any]:
    codes = [code for code in SYSTEM_OPERATIONS if code in interactions]
    if "search-system" not in interactions:
        codes = [code for code in codes if code != "$meta"]
    found = [{"name": code[1:], "definition": SYSTEM_OPERATIONS[code]} for code in codes]
    return {"operation": found} if found else {}


def _operation(code: str, type: str) -> dict[str, str]:
    return {"name": code.removeprefix("$"), "definition": OPERATIONS[code].format(type=type)}
