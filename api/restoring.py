"""The operations `$restore` and `$revert` (docs/audit.md): what was there before is there again, in new versions."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import falcon

from api import media
from api.audit import OperationEndpoint
from api.conditions import version_tags_of
from api.html.links import Links
from api.reading import known_id
from api.request import Request
from api.responses import (
    body_after,
    entry_of,
    location,
    outcome_of_write,
    read_at,
    snapshot_after,
    status_of_write,
)
from gitstore import Commit, Invalid, Issue, NotFound, Outcome, Restore, Revert, Snapshot
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId, VersionId, parse_version_id
from gitstore.fhir.outcome import operation_outcome

_ROLE = "restore"
_COMMIT = re.compile(r"[0-9a-f]{4,40}", re.ASCII)
"""An id, or as much of its beginning as git takes."""


class RestoreEndpoint(OperationEndpoint):
    """`$restore`: a resource as one of its versions was; without one, what it was before it was deleted."""

    interactions: ClassVar = {"POST": ("$restore",)}
    known: ClassVar = ("version",)

    def on_post(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        req.principal.check_role(_ROLE)
        target = known_id(type, id)
        version = _version(target, self.given(req).get("version"))
        self.write(req, resp, Restore(target, version, version_tags_of(req, "If-Match")))
        if req.html and resp.status_code < 400:  # a button of a page
            resp.status = 303
            resp.set_header("Location", Links.of(req).resource(target))


class RevertEndpoint(OperationEndpoint):
    """`$revert`: all that one commit changed, as it was before."""

    interactions: ClassVar = {"POST": ("$revert",)}
    known: ClassVar = ("commit",)

    def on_post(self, req: Request, resp: falcon.Response) -> None:
        req.principal.check_role(_ROLE)
        given = self.given(req).get("commit")
        if given is None:
            raise Invalid(Issue("error", "required", "The parameter `commit` is missing."))
        try:
            outcome = self.commit(req, Revert(self._commit(given.lower())))
        except NotFound as error:
            # One text for whatever is not there: that of a commit which may not be seen would tell that it is.
            text = f"`{given[:80]}` is no commit of the record, or not all that it changed is there."
            raise NotFound(text) from error
        self._answer(req, resp, outcome)

    def _commit(self, text: str) -> Commit:
        if _COMMIT.fullmatch(text) is None:
            raise Invalid(
                Issue("error", "value", "`commit` has to be a commit's id, or 4 digits of it at least.")
            )
        found = self.house.store.resolve(text)
        if not found.id.startswith(text):
            # A tag or a branch can be called like a commit.
            raise NotFound(f"`{text}` is no commit of the record.")
        return found

    def _answer(self, req: Request, resp: falcon.Response, outcome: Outcome) -> None:
        """A Bundle as a transaction would be answered with, an entry for each version that was made."""
        assert outcome.version is not None
        read_at(resp, outcome.version.commit)
        snapshot = snapshot_after(req.store)
        made = [Outcome(version, changed=True) for version in (outcome.version, *outcome.others)]
        entries = [_entry(req, snapshot, each) for each in made]
        media.send(
            req,
            resp,
            json.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": entries}),
        )


def _version(target: ResourceId, text: str | None) -> VersionId | None:
    """Raises NotFound for what is no version id of ours."""
    number = None if text is None else parse_version_id(text)
    if number is None and text is not None:
        raise NotFound(f"`{target}` has no version `{text[:80]}`.")
    return number


def _entry(req: Request, snapshot: Snapshot | None, outcome: Outcome) -> dict[str, Any]:
    version, preference = outcome.version, req.preference()
    assert version is not None
    body = body_after(snapshot, version) if preference == "representation" else None
    entry = entry_of(req.base, version, status_of_write(outcome), body)
    if not version.deleted:
        entry["response"]["location"] = location(req.base, version)
    if preference == "OperationOutcome":
        entry["response"]["outcome"] = operation_outcome(outcome_of_write(outcome))
    return entry
