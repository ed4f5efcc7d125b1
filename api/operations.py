"""The operations `$validate` and `$everything`.

https://hl7.org/fhir/R4/resource-operation-validate.html, https://hl7.org/fhir/R4/patient-operation-everything.html
"""

from __future__ import annotations

from typing import ClassVar

import falcon

from api import everything, media, search, validating
from api.endpoints import Endpoint
from api.reading import known_id, known_type
from api.request import Request
from api.responses import read_at
from gitstore.fhir.ids import ResourceId


class ValidateEndpoint(Endpoint):
    """`$validate` of a type. There is nothing to GET: a resource has to be sent."""

    interactions: ClassVar = {"POST": ("$validate",)}

    def on_post(self, req: Request, resp: falcon.Response, type: str) -> None:
        known_type(type)
        asked = sent(req, type, self.settings.max_body)
        if asked.resource is None:
            raise validating.nothing_sent()
        self.answer(req, resp, asked, type, validating.named(asked, type))

    def answer(
        self,
        req: Request,
        resp: falcon.Response,
        asked: validating.Question,
        type: str,
        target: ResourceId | None,
    ) -> None:
        """200 with an OperationOutcome, also for what is not valid: the operation itself has succeeded."""
        judge = req.store.canonicals.issues
        media.send(req, resp, validating.outcome(asked, type, target, self.snapshot(req, resp), judge))


class InstanceValidateEndpoint(ValidateEndpoint):
    """`$validate` of an instance: of the stored resource, or of what could take its place."""

    interactions: ClassVar = {"GET": ("$validate",), "POST": ("$validate",)}

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        target = known_id(type, id)
        self.answer(req, resp, validating.of_query(req.query_string), type, target)

    on_head = on_get

    def on_post(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:  # type: ignore[override]  # the path has one part more
        target = known_id(type, id)
        self.answer(req, resp, sent(req, type, self.settings.max_body), type, target)


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
        with req.store.reading() as snapshot:
            read_at(resp, snapshot.commit)
            found = everything.page(snapshot, asked)
            read_at(resp, found.state.commit)
            data = everything.bundle(req.base, asked, found)
        media.send(req, resp, data)


def sent(req: Request, type: str, limit: int) -> validating.Question:
    """What a POST asks; there may be no body. Raises Invalid, TooLarge."""
    has_body = req.content_length or req.get_header("Transfer-Encoding") is not None
    return validating.question(type, req.query_string, media.resource(req, limit) if has_body else None)
