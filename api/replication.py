"""Bundles of type history, posted to take over what another record has: docs/interactions/history-bundles.md."""

from __future__ import annotations

from typing import Any

from api.request import Request
from api.responses import entry_of, location, status_of_write
from gitstore import (
    Commit,
    Invalid,
    Issue,
    NotAllowed,
    Outcome,
    Settings,
    TooLarge,
    replicas_of,
)
from gitstore.fhir import Resource, json

_HEADERS = ("X-Commit-Message", "X-Provenance", "Idempotency-Key")
"""What a history brings along for each commit: nothing is added to it."""


def is_history(bundle: Resource) -> bool:
    """Whether it is a Bundle that wants to be taken over."""
    return bundle.get("resourceType") == "Bundle" and bundle.get("type") == "history"


def accept(req: Request, settings: Settings, bundle: Resource) -> tuple[bytes, Commit | None]:
    """Take over a history, all of it or nothing, and answer with a batch-response. The commit is the last one made.

    Raises NotAllowed unless fhir.historyBundles says so, Forbidden without the role, TooLarge, Invalid, Conflict,
    Unprocessable with the entry at fault.
    """
    if settings.history_bundles != "accept":
        raise NotAllowed("Histories are taken over only where fhir.historyBundles is `accept`.")
    req.principal.check_role("replication")
    for header in _HEADERS:
        if req.get_header(header) is not None:
            raise Invalid(Issue("error", "not-supported", f"{header} can't come with a history."))
    entries = bundle.get("entry", [])
    if isinstance(entries, list) and len(entries) > settings.max_entries:
        raise TooLarge(
            f"The Bundle has {len(entries)} entries, more than the limit of {settings.max_entries}."
        )
    replicas = replicas_of(bundle, req.author, [req.base])
    outcomes = req.store.replicate(replicas)
    places = [version.entry for replica in replicas for version in replica.versions]
    answers = {place: _answer(req.base, outcome) for place, outcome in zip(places, outcomes, strict=True)}
    response: dict[str, Any] = {"resourceType": "Bundle", "type": "batch-response"}
    if answers:
        response["entry"] = [answers[place] for place in sorted(answers)]
    last = outcomes[-1].version if outcomes else None
    return json.dumps(response), last.commit if last is not None else None


def _answer(base: str, outcome: Outcome) -> dict[str, Any]:
    version = outcome.version
    assert version is not None
    entry = entry_of(base, version, status_of_write(outcome), None)
    if not version.deleted:
        entry["response"]["location"] = location(base, version)
    return entry
