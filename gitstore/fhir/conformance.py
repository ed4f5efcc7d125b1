"""All that is to be said about a resource: what FHIR asks of it, and then what profiles ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gitstore.errors import Issue
from gitstore.fhir import Resource, validation
from gitstore.fhir.profiles import Profiles

_CONTAINERS = ("Bundle", "Parameters")


def issues(
    resource: Any, profiles: Callable[[], Profiles], *, type: str | None = None, asked: Sequence[str] = ()
) -> list[Issue]:
    """What breaks FHIR (of `type`, if that is said), the profiles that the resource claims, and those `asked` for.

    Profiles are applied to what is sound in its structure only; `profiles` is called where one may be needed.
    """
    found = validation.issues(resource, type=type)
    if any(map(validation.is_structural, found)) or not (asked or _may_claim(resource)):
        return found
    return found + profiles().issues(resource, asked)


def _may_claim(resource: Resource) -> bool:
    """Whether the resource, or one in it, may name a profile in meta.profile."""
    if resource["resourceType"] in _CONTAINERS or "contained" in resource:
        return True
    return "profile" in resource.get("meta", {})


def without_replaced(resource: Resource, id: str | None) -> Resource:
    """The resource as a write of it is judged: with the id that it gets, without what the server replaces.

    That is meta.versionId and meta.lastUpdated; with the id None, the resource goes without one.
    https://hl7.org/fhir/R4/http.html#update
    """
    judged = {name: value for name, value in resource.items() if name != "id"}
    if id is not None:
        judged["id"] = id
    meta = resource.get("meta")
    if isinstance(meta, dict) and meta:
        rest = {name: value for name, value in meta.items() if name not in ("versionId", "lastUpdated")}
        if rest:
            judged["meta"] = rest
        else:
            del judged["meta"]
    return judged
