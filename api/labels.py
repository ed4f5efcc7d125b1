"""What `$meta` answers. https://hl7.org/fhir/R4/resource-operation-meta.html"""

from __future__ import annotations

from gitstore import Invalid, Issue, Snapshot
from gitstore.fhir import Resource, json
from gitstore.fhir.dates import format_instant
from gitstore.fhir.labels import returned, shown


def check_input(parameters: Resource) -> None:
    """That Parameters hold nothing, as `$meta` has no input. Raises Invalid."""
    if parameters.get("resourceType", "Parameters") != "Parameters" or parameters.get("parameter"):
        raise Invalid(Issue("error", "not-supported", "$meta has no parameters; the body may be empty."))


def of_one(body: bytes) -> bytes:
    """The labels of a resource as it is stored."""
    return json.dumps(returned(shown(json.loads_trusted(body))))


def of_many(snapshot: Snapshot, type: str | None) -> bytes:
    """All labels that current resources have, of a type or of all."""
    instant = format_instant(snapshot.commit.last_updated)
    return json.dumps(returned({"lastUpdated": instant, **snapshot.labels(type)}))
