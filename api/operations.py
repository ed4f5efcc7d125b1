"""The operations `$validate` and `$everything`.

https://hl7.org/fhir/R4/resource-operation-validate.html, https://hl7.org/fhir/R4/patient-operation-everything.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import falcon

from api import everything, media, search
from api.endpoints import Endpoint
from api.errors import outcome_bytes
from api.reading import known_id, known_type
from api.request import Request
from api.responses import read_at
from gitstore import Invalid, Issue, NotFound, Snapshot
from gitstore.fhir import Resource, json
from gitstore.fhir.conformance import without_replaced
from gitstore.fhir.ids import ResourceId, check_id

MODES = ("create", "update", "delete")
_PARAMETERS = ("mode", "profile")
_VALUES = ("valueCode", "valueUri", "valueCanonical", "valueUrl", "valueString")


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be validated: a resource (None: the stored one), for what, and by which profiles besides its own."""

    resource: Any
    mode: str | None
    profiles: tuple[str, ...]


class ValidateEndpoint(Endpoint):
    """`$validate` of a type. There is nothing to GET: a resource has to be sent."""

    interactions: ClassVar = {"POST": ("$validate",)}

    def on_post(self, req: Request, resp: falcon.Response, type: str) -> None:
        known_type(type)
        asked = question(req, type, self.settings.max_body)
        if asked.resource is None:
            raise Invalid(Issue("error", "required", "There is no resource to validate: it has to be sent."))
        target = _named(type, asked.resource) if asked.mode in ("update", "delete") else None
        self.answer(req, resp, asked, type, target)

    def answer(
        self, req: Request, resp: falcon.Response, asked: Question, type: str, target: ResourceId | None
    ) -> None:
        """200 with an OperationOutcome, also for what is not valid: the operation itself has succeeded."""
        found = list(self._issues(asked, type, target, self.snapshot(resp)))
        media.send(req, resp, outcome_bytes(found or [Issue("information", "informational", "All OK")]))

    def _issues(
        self, asked: Question, type: str, target: ResourceId | None, snapshot: Snapshot
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
        yield from self.store.canonicals.issues(resource, type=type, asked=asked.profiles)


class InstanceValidateEndpoint(ValidateEndpoint):
    """`$validate` of an instance: of the stored resource, or of what could take its place."""

    interactions: ClassVar = {"GET": ("$validate",), "POST": ("$validate",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        target = known_id(type, id)
        self.answer(req, resp, _of_query(req), type, target)

    on_head = on_get

    def on_post(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:  # type: ignore[override]  # the path has one part more
        target = known_id(type, id)
        self.answer(req, resp, question(req, type, self.settings.max_body), type, target)


class EverythingEndpoint(Endpoint):
    """`$everything` of a patient or an encounter."""

    interactions: ClassVar = {"GET": ("$everything",), "POST": ("$everything",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        self.answer(req, resp, known_id(type, id), search.pairs(req.query_string))

    on_head = on_get

    def on_post(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        """Parameters in the body, in the URL or in both; there may be no body."""
        focus = known_id(type, id)
        data = media.body(req, self.settings.max_body)
        body = media.parsed(media.content_type(req.content_type), data) if data else None
        given = everything.pairs_of_parameters(body) if body is not None else []
        self.answer(req, resp, focus, [*search.pairs(req.query_string), *given])

    def answer(
        self, req: Request, resp: falcon.Response, focus: ResourceId, given: list[tuple[str, str]]
    ) -> None:
        asked = everything.question(focus, given, req.base)
        with self.store.reading() as snapshot:
            read_at(resp, snapshot.commit)
            found = everything.page(snapshot, asked)
            read_at(resp, found.state.commit)
            data = everything.bundle(req.base, asked, found)
        media.send(req, resp, data)


def question(req: Request, type: str, limit: int) -> Question:
    """What a POST asks: its body is the resource, or Parameters with the resource, mode and profile.

    Mode and profile may also stand in the URL, as clients that send a bare resource need it; there may be no body.
    Raises Invalid, TooLarge.
    """
    asked = _of_query(req)
    if not req.content_length and req.get_header("Transfer-Encoding") is None:
        return asked
    body = media.resource(req, limit)
    if body.get("resourceType") != "Parameters" or (type == "Parameters" and not _wraps_parameters(body)):
        return Question(body, asked.mode, asked.profiles)
    wrapped = _of_parameters(body)
    if asked.mode and wrapped.mode:
        raise _refused("value", "`mode` stands in the URL and in the Parameters.")
    return Question(wrapped.resource, wrapped.mode or asked.mode, (*asked.profiles, *wrapped.profiles))


def _of_query(req: Request) -> Question:
    given = req.parameters(*_PARAMETERS)
    profile = given.get("profile")
    return Question(None, _mode(given.get("mode")), (profile,) if profile else ())


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


def _named(type: str, resource: Any) -> ResourceId:
    """The resource that an update or deletion is about, where the URL doesn't name it. Raises Invalid."""
    if not isinstance(resource, dict) or "id" not in resource:
        text = f"To be updated or deleted a resource must have an id; it can also stand in the URL: {type}/id/$validate."
        raise _refused("required", text, f"{type}.id")
    return ResourceId(type, check_id(resource["id"], f"{type}.id"))


def _identity(resource: Resource, target: ResourceId) -> Iterator[Issue]:
    """What an update would be refused for: the resource must have the id of its URL."""
    found = resource.get("id")
    if found != target.id:
        given = f"the id `{str(found)[:80]}`" if "id" in resource else "no id"
        text = f"The resource has {given}; an update of `{target}` must have its id."
        yield Issue("error", "value" if "id" in resource else "required", text, f"{target.type}.id")


def _refused(code: str, text: str, expression: str | None = None) -> Invalid:
    return Invalid(Issue("error", code, text, expression))
