"""The Provenance that comes with a write: what it is of, and why. https://hl7.org/fhir/R4/provenance.html#header"""

from __future__ import annotations

from collections.abc import Sequence

from gitstore.errors import Invalid, Issue
from gitstore.fhir import Resource
from gitstore.fhir.ids import ResourceId, VersionId


def check(resource: Resource) -> None:
    """That it is a Provenance, and leaves its target to the server. Raises Invalid."""
    if resource.get("resourceType") != "Provenance":
        found = str(resource.get("resourceType", "nothing"))[:80]
        text = f"X-Provenance holds a `{found}`; a `Provenance` was expected."
        raise Invalid(Issue("error", "invalid", text, "resourceType"))
    if "target" in resource:
        text = (
            "X-Provenance has a target; the server says what it is of: the versions that the request makes."
        )
        raise Invalid(Issue("error", "business-rule", text, "Provenance.target"))


def attested(resource: Resource, targets: Sequence[tuple[ResourceId, int]]) -> Resource:
    """The Provenance of these versions."""
    references = [{"reference": f"{id}/_history/{VersionId(version)}"} for id, version in targets]
    return {"resourceType": "Provenance", "target": references, **resource}


def reason(resource: Resource) -> str | None:
    """Why it was done, in words: the text of the reasons or what their codes are displayed as."""
    reasons = resource.get("reason")
    found = [_words(each) for each in reasons] if isinstance(reasons, list) else []
    return ", ".join(filter(None, found)) or None


def _words(concept: object) -> str | None:
    if not isinstance(concept, dict):
        return None
    codings = concept.get("coding")
    displays = [
        each.get("display")
        for each in (codings if isinstance(codings, list) else ())
        if isinstance(each, dict)
    ]
    return next((text for text in (concept.get("text"), *displays) if isinstance(text, str) and text), None)
