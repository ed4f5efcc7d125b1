"""What `$meta` answers. https://hl7.org/fhir/R4/resource-operation-meta.html"""

from __future__ import annotations

from gitstore import Snapshot
from gitstore.fhir import Resource, json
from gitstore.fhir.dates import format_instant

SHOWN = ("versionId", "lastUpdated", "profile", "security", "tag")
"""Of `meta`. The first two are always there, so that the Meta which is returned is never empty: FHIR has no empty ones."""


def shown(body: bytes) -> Resource:
    """What `$meta` tells of a stored resource."""
    meta = json.loads_trusted(body)["meta"]
    return {name: meta[name] for name in SHOWN if name in meta}


def returned(meta: Resource) -> bytes:
    """The Parameters that answer the operation."""
    parameter = {"name": "return", "valueMeta": meta}
    return json.dumps({"resourceType": "Parameters", "parameter": [parameter]})


def of_many(snapshot: Snapshot, type: str | None) -> bytes:
    """All labels that current resources have, of a type or of all."""
    instant = format_instant(snapshot.commit.last_updated)
    return returned({"lastUpdated": instant, **snapshot.labels(type)})
