"""What a write is about: the type and id that a resource has, and those that the URL asks for.

https://hl7.org/fhir/R4/http.html#update
"""

from __future__ import annotations

import sys

from gitstore.errors import Invalid, Issue
from gitstore.fhir import Resource
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, check_id


def checked_type(resource: Resource) -> str:
    """The resource's own type. Raises Invalid for one that R4 doesn't have."""
    type = resource.get("resourceType")
    if isinstance(type, str) and is_resource_type(type):
        return sys.intern(type)
    found = f"`{type}`" if type is not None else "nothing"
    raise Invalid(
        f"`resourceType` must name a resource type of R4; found {found}.", expression="resourceType"
    )


def checked_target(resource_id: ResourceId, resource: Resource) -> ResourceId:
    """What an update is of: the resource must say the same. Raises Invalid."""
    type = checked_type(resource)
    if type != resource_id.type:
        raise Invalid(other_type(type, resource_id.type), expression=resource_id.type)
    check_id(resource_id.id)
    expression = f"{type}.id"
    if "id" not in resource:
        text = f"The resource must have the id of the URL, `{resource_id.id}`; it has none."
        raise Invalid(Issue("error", "required", text, expression))
    if check_id(resource["id"], expression) != resource_id.id:
        text = f"The resource has the id `{resource['id']}`, and the URL asks for `{resource_id.id}`."
        raise Invalid(Issue("error", "value", text, expression))
    return resource_id


def other_type(found: str, wanted: str) -> str:
    """What is wrong where a resource is not of the type in the URL."""
    return f"The resource is a `{found}`, and the URL asks for a `{wanted}`."
