"""The stored form of a resource: the bytes that are in git and that the server sends. docs/format.md, "The file"

What only the writer knows, versionId and lastUpdated, stands at a fixed place near the start, so that everything
else is printed before the writer's lock is taken.
"""

from __future__ import annotations

from typing import NamedTuple

from gitstore.errors import Invalid, Issue
from gitstore.fhir import Resource, json
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId


class Template(NamedTuple):
    """A printed resource with room for versionId (after head) and lastUpdated (after middle)."""

    head: bytes
    middle: bytes
    tail: bytes

    def fill(self, version_id: int, last_updated: int) -> bytes:
        """The stored form as this version of this instant (microseconds)."""
        return b"%b%d%b%b%b" % (
            self.head,
            version_id,
            self.middle,
            format_instant(last_updated).encode(),
            self.tail,
        )


_MIDDLE = b'",\n    "lastUpdated": "'


def template(resource_id: ResourceId, resource: Resource) -> Template:
    """Print a resource: resourceType, id and meta first, then the client's own order.

    The client's meta.versionId and meta.lastUpdated are replaced.
    Raises Invalid where meta is no object. https://hl7.org/fhir/R4/http.html#update
    """
    meta = resource.get("meta", {})
    if not isinstance(meta, dict):
        raise Invalid(Issue("error", "structure", "`meta` must be an object.", f"{resource_id.type}.meta"))
    ordered = {
        "resourceType": resource_id.type,
        "id": resource_id.id,
        "meta": {"versionId": "", "lastUpdated": ""} | _without(meta, "versionId", "lastUpdated"),
        **_without(resource, "resourceType", "id", "meta"),
    }
    printed = json.dumps_pretty(ordered)
    # Type and id are ASCII without escapes, so the place of versionId is known without looking.
    head = b'{\n  "resourceType": "%b",\n  "id": "%b",\n  "meta": {\n    "versionId": "' % (
        resource_id.type.encode(),
        resource_id.id.encode(),
    )
    return Template(head, _MIDDLE, printed[len(head) + len(_MIDDLE) :])


def _without(value: Resource, *names: str) -> Resource:
    return {name: item for name, item in value.items() if name not in names}
