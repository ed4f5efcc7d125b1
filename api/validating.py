"""What `$validate` is asked, by a request or by an entry of a Bundle, and what it answers.

https://hl7.org/fhir/R4/resource-operation-validate.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from api.errors import outcome_bytes
from api.request import parameters
from gitstore import Invalid, Issue, NotFound, Snapshot
from gitstore.fhir import Resource, json
from gitstore.fhir.conformance import without_replaced
from gitstore.fhir.ids import ResourceId, check_id

Judge: TypeAlias = Callable[..., Sequence[Issue]]
"""`Canonicals.issues`: by the profiles of the record."""

MODES = ("create", "update", "delete")
_PARAMETERS = ("mode", "profile")
_VALUES = ("valueCode", "valueUri", "valueCanonical", "valueUrl", "valueString")


class Question(Struct, frozen=True):
    """What is to be validated: a resource (None: the stored one), for what, and by which profiles besides its own."""

    resource: Any
    mode: str | None
    profiles: tuple[str, ...]


def question(type: str, query: str, body: Resource | None) -> Question:
    """What a POST asks: its body is the resource, or Parameters with the resource, mode and profile.

    Mode and profile may also stand in the URL, as clients that send a bare resource need it. Raises Invalid.
    """
    asked = of_query(query)
    if body is None:
        return asked
    if body.get("resourceType") != "Parameters" or (type == "Parameters" and not _wraps_parameters(body)):
        return Question(body, asked.mode, asked.profiles)
    wrapped = _of_parameters(body)
    if asked.mode and wrapped.mode:
        raise _refused("value", "`mode` stands in the URL and in the Parameters.")
    return Question(wrapped.resource, wrapped.mode or asked.mode, (*asked.profiles, *wrapped.profiles))


def of_query(query: str) -> Question:
    """What a GET asks, of the stored resource. Raises Invalid."""
    given = parameters(query, _PARAMETERS)
    profile = given.get("profile")
    return Question(None, _mode(given.get("mode")), (profile,) if profile else ())


def nothing_sent() -> Invalid:
    """The error of an operation on a type that has no resource to look at."""
    return _refused("required", "There is no resource to validate: it has to be sent.")


def outcome(asked: Question, type: str, target: ResourceId | None, snapshot: Snapshot, judge: Judge) -> bytes:
    """The OperationOutcome, which is there also for what is not valid: the operation itself has succeeded."""
    found = list(_issues(asked, type, target, snapshot, judge))
    return outcome_bytes(found or [Issue("information", "informational", "All OK")])


def _issues(
    asked: Question, type: str, target: ResourceId | None, snapshot: Snapshot, judge: Judge
) -> Iterator[Issue]:
    resource = asked.resource
    if target is not None and asked.mode in ("update", "delete"):
        try:
            snapshot.read(target)
        except NotFound as error:
            yield from error.issues
    if asked.mode == "delete":
        return
    if target is not None and resource is None:
        resource = json.loads_trusted(snapshot.body(snapshot.read(target)))
    if isinstance(resource, dict):
        if asked.mode == "update" and target is not None:
            yield from _identity(resource, target)
            resource = without_replaced(resource, target.id)
        elif asked.mode == "create":
            resource = without_replaced(resource, None)
    yield from judge(resource, type=type, asked=asked.profiles)


def named(asked: Question, type: str) -> ResourceId | None:
    """The resource that an update or deletion is about, where the URL doesn't name it. Raises Invalid."""
    if asked.mode not in ("update", "delete"):
        return None
    resource = asked.resource
    if not isinstance(resource, dict) or "id" not in resource:
        text = f"To be updated or deleted a resource must have an id; it can also stand in the URL: {type}/id/$validate."
        raise _refused("required", text, f"{type}.id")
    return ResourceId(type, check_id(resource["id"], f"{type}.id"))


def _mode(text: str | None) -> str | None:
    if text is not None and text not in MODES:
        raise _refused("value", f"The mode `{text[:80]}` is none of {', '.join(MODES)}.")
    return text


def _wraps_parameters(body: Resource) -> bool:
    """Whether Parameters at `Parameters/$validate` are those of the operation, and not what is to be validated."""
    found = body.get("parameter")
    return any(
        isinstance(each, dict)
        and each.get("name") == "resource"
        and isinstance(each.get("resource"), dict)
        and each["resource"].get("resourceType") == "Parameters"
        for each in (found if isinstance(found, list) else ())
    )


def _of_parameters(body: Resource) -> Question:
    given = body.get("parameter", [])
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise _refused(
            "structure", "`Parameters.parameter` must be an array of objects.", "Parameters.parameter"
        )
    resources: list[Any] = []
    modes: list[str] = []
    profiles: list[str] = []
    for number, each in enumerate(given):
        place = f"Parameters.parameter[{number}]"
        match each.get("name"):
            case "resource" if "resource" in each:
                resources.append(each["resource"])
            case "mode" if (value := _value(each)) is not None:
                modes.append(value)
            case "profile" if (value := _value(each)) is not None:
                profiles.append(value)
            case "resource" | "mode" | "profile":
                raise _refused("required", f"`{place}` has no value that fits its name.", place)
            case name:
                text = (
                    f"There is no parameter `{str(name)[:80]}` of $validate, only resource, mode and profile."
                )
                raise _refused("not-supported", text, place)
    if len(resources) > 1 or len(modes) > 1:
        text = "The parameters resource and mode of $validate can stand there once."
        raise _refused("value", text, "Parameters.parameter")
    return Question(resources[0] if resources else None, _mode(modes[0] if modes else None), tuple(profiles))


def _value(parameter: Resource) -> str | None:
    return next((parameter[name] for name in _VALUES if isinstance(parameter.get(name), str)), None)


def _identity(resource: Resource, target: ResourceId) -> Iterator[Issue]:
    """What an update would be refused for: the resource must have the id of its URL."""
    found = resource.get("id")
    if found != target.id:
        given = f"the id `{str(found)[:80]}`" if "id" in resource else "no id"
        text = f"The resource has {given}; an update of `{target}` must have its id."
        yield Issue("error", "value" if "id" in resource else "required", text, f"{target.type}.id")


def _refused(code: str, text: str, expression: str | None = None) -> Invalid:
    return Invalid(Issue("error", code, text, expression))
