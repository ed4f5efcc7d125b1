"""Batch and transaction: from the entries of a Bundle to interactions, and from outcomes to a response Bundle.

https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from msgspec import Struct

from api import once
from api.errors import status_of
from api.labels import of_one
from api.reading import Finder, Found, asks, finder
from api.request import Preference
from api.responses import (
    body_after,
    entry_of,
    location,
    outcome_of_write,
    snapshot_after,
    status_line,
    status_of_write,
)
from api.validating import Judge
from gitstore import (
    Ask,
    Attest,
    Author,
    Commit,
    Gone,
    Idempotency,
    Interaction,
    Invalid,
    Issue,
    Outcome,
    Snapshot,
    StoreError,
    TooLarge,
    Unavailable,
    Unit,
    View,
    check_keys,
    write_of,
)
from gitstore.fhir import Resource, json
from gitstore.fhir.bundle import Request as Entry
from gitstore.fhir.bundle import requests
from gitstore.fhir.conditions import format_etag
from gitstore.fhir.labels import CHANGES
from gitstore.fhir.outcome import operation_outcome
from gitstore.fhir.patch.narrative import Mode as Narrative
from gitstore.fhir.references import rewrite

_ORDER = ("DELETE", "POST", "PUT", "PATCH")
"""https://hl7.org/fhir/R4/http.html#trules"""


class Caller(Struct, frozen=True):
    """Who sends a Bundle, and what its entries share. `metadata` is the CapabilityStatement under this base.

    `provenance` is to be stored with a transaction, `idempotency` says that the Bundle is to be processed once.
    `strict` is how searches treat parameters that they don't know, `judge` what `$validate` goes by, `narrative` what becomes of one that a patch leaves.
    """

    base: str
    author: Author
    request_id: str
    message: str | None
    provenance: Resource | None
    idempotency: Idempotency | None
    preference: Preference | None
    strict: bool
    judge: Judge
    narrative: Narrative
    metadata: Callable[[], bytes]


def check(bundle: Resource, max_entries: int) -> str:
    """The type of a Bundle that can be processed: batch or transaction. Raises Invalid, TooLarge."""
    if bundle.get("resourceType") != "Bundle":
        raise Invalid(Issue("error", "invalid", "A Bundle was expected; single resources go to their type."))
    kind = bundle.get("type")
    if kind is None:
        raise Invalid(Issue("error", "required", "The Bundle has no type.", "Bundle.type"))
    if kind not in ("batch", "transaction"):
        text = "The type of the Bundle must be batch or transaction; no other can be processed here."
        raise Invalid(Issue("error", "value", text, "Bundle.type"))
    entries = bundle.get("entry", [])
    if isinstance(entries, list) and len(entries) > max_entries:
        raise TooLarge(f"The Bundle has {len(entries)} entries, more than the limit of {max_entries}.")
    return str(kind)


def transaction(store: View, bundle: Resource, caller: Caller) -> tuple[bytes, Commit | None]:
    """All entries in one commit, or none of them. The commit is the one made, or the one that was read.

    The Bundle is empty afterwards: its entries would be in memory for as long as they are written and answered.
    Raises StoreError with the number of the entry at fault.
    """
    interactions, shown = _interactions(bundle, caller)
    bundle.clear()
    outcomes = _committed(store, interactions, caller) if interactions else []
    interactions.clear()
    made = next((each.version.commit for each in outcomes if each.version and each.changed), None)
    snapshot = snapshot_after(store) if made else store.snapshot()
    answers = (
        _found_entry(entry, outcome.answer, snapshot, caller)
        if entry is not None and asks(entry)
        else _written_entry(entry, outcome, snapshot, caller)
        for entry, outcome in zip(shown, outcomes, strict=True)
    )
    return _response("transaction-response", map(json.dumps, answers)), made or _commit_of(snapshot)


def _interactions(bundle: Resource, caller: Caller) -> tuple[list[Interaction], list[Entry | None]]:
    """What there is to do, and the entries that the answer is about: None for writes, all of which are answered alike."""
    interactions: list[Interaction] = []
    shown: list[Entry | None] = []
    for entry in requests(bundle, [caller.base]):
        try:
            find = finder(entry, caller.base, caller.judge, strict=caller.strict) if asks(entry) else None
            interactions.append(_interaction(entry, find, caller))
        except StoreError as error:
            error.at_entry(entry.entry)
            raise
        shown.append(entry if asks(entry) or _relabels(entry) else None)
    return interactions, shown


def _committed(store: View, interactions: Sequence[Interaction], caller: Caller) -> list[Outcome]:
    attests = [Attest(caller.provenance)] if caller.provenance is not None else []
    return store.commit(
        [*interactions, *attests],
        caller.author,
        request_id=caller.request_id,
        message=caller.message,
        interaction="transaction",
        idempotency=caller.idempotency,
    )[: len(interactions)]


def _commit_of(snapshot: Snapshot | None) -> Commit | None:
    return None if snapshot is None else snapshot.commit


def _interaction(entry: Entry, find: Finder | None, caller: Caller) -> Interaction:
    if not asks(entry):
        return write_of(entry, caller.narrative, (caller.base,))
    return Ask(find or (lambda _snapshot: None))


def batch(store: View, bundle: Resource, caller: Caller) -> tuple[bytes, Commit | None]:
    """Each entry for itself, writes first, answers in the order of the entries. The commit is the last one seen.

    Raises Invalid for a Provenance, Unprocessable where the key of the batch was used for something else.
    """
    if caller.provenance is not None:
        text = (
            "X-Provenance is for a write or a transaction; the entries of a batch are commits of their own."
        )
        raise Invalid(Issue("error", "not-supported", text))
    entries = requests(bundle, [caller.base], each=True)
    names = {entry.full_url for entry in entries if isinstance(entry, Entry) and entry.full_url}
    urns = {name for name in names if name.startswith("urn:")}
    answers: dict[int, bytes] = {}
    units: list[tuple[int, Entry, Unit]] = []
    for place, entry in enumerate(entries):
        try:
            if isinstance(entry, StoreError):
                raise entry
            if not asks(entry):
                _check_independent(entry, urns)
                write = write_of(entry, caller.narrative, (caller.base,))
                unit = Unit(
                    [write],
                    caller.author,
                    caller.request_id,
                    caller.message,
                    idempotency=once.of_entry(caller.idempotency, entry.entry),
                )
                units.append((place, entry, unit))
        except StoreError as error:
            answers[place] = json.dumps(_refused_entry(error))
    units.sort(key=lambda each: _ORDER.index(each[1].method))
    if caller.idempotency is not None:
        with store.reading() as before:
            check_keys((unit for _, _, unit in units), before)
    results = store.commit_each([unit for _, _, unit in units])
    with ExitStack() as stack:
        snapshot = snapshot_after(store, stack) if units else stack.enter_context(store.reading())
        for (place, written, _), result in zip(units, results, strict=True):
            if isinstance(result, StoreError):
                answers[place] = json.dumps(_refused_entry(result))
            else:
                answers[place] = json.dumps(_written_entry(written, result[0], snapshot, caller))
        for place, entry in enumerate(entries):
            if isinstance(entry, Entry) and asks(entry):
                answers[place] = json.dumps(_asked_entry(entry, snapshot, caller))
    in_order = (answers.pop(place) for place in range(len(entries)))
    return _response("batch-response", in_order), _commit_of(snapshot)


def _check_independent(entry: Entry, urns: set[str]) -> None:
    """Refuse an entry that refers to another of its batch: that one may fail, or come later.

    https://hl7.org/fhir/R4/http.html#brules
    """
    if entry.resource is None or not urns:
        return
    others = urns - {entry.full_url}
    seen: list[str] = []

    def look(reference: str) -> None:
        name = reference.partition("#")[0]
        if name in others:
            seen.append(name)

    rewrite(entry.content or {}, look)
    if seen:
        text = f"Refers to `{seen[0]}`, another entry of the same batch; only a transaction can do that."
        raise Invalid(Issue("error", "invalid", text, f"Bundle.entry[{entry.entry}].resource"))


def _asked_entry(entry: Entry, snapshot: Snapshot | None, caller: Caller) -> dict[str, Any]:
    """The answer to a GET of a batch, which may fail for itself."""
    try:
        find = finder(entry, caller.base, caller.judge, strict=caller.strict)
        found = find(_readable(snapshot)) if find else None
        return _read_entry(entry, found, snapshot, caller)
    except StoreError as error:
        return _refused_entry(error)


def _found_entry(
    entry: Entry, found: Found | None, snapshot: Snapshot | None, caller: Caller
) -> dict[str, Any]:
    """The answer to a GET of a transaction. It has happened: what can't be read any more does not undo that."""
    try:
        return _read_entry(entry, found, snapshot, caller)
    except StoreError as error:
        return _refused_entry(error)


def _readable(snapshot: Snapshot | None) -> Snapshot:
    if snapshot is None:
        raise Unavailable("The record can't be read now; what the Bundle wrote is written.")
    return snapshot


def _read_entry(
    entry: Entry, found: Found | None, snapshot: Snapshot | None, caller: Caller
) -> dict[str, Any]:
    """A GET always carries its resource, whatever Prefer says; a HEAD never."""
    with_resource = entry.method != "HEAD"
    if found is None:
        return _document(caller.metadata() if with_resource else None)
    if found.version is not None:
        if found.not_modified:
            return {"response": {"status": status_line(304), "etag": format_etag(found.version.version_id)}}
        body = _readable(snapshot).body(found.version) if with_resource else None
        if body is not None and found.part is not None:
            body = json.dumps(found.part.of(json.loads_trusted(body)))
        return entry_of(caller.base, found.version, 200, body)
    assert found.document is not None
    return _document(found.document() if with_resource else None)


def _document(data: bytes | None) -> dict[str, Any]:
    entry: dict[str, Any] = {} if data is None else {"resource": json.Raw(data)}
    return {**entry, "response": {"status": status_line(200)}}


def _written_entry(
    written: Entry | None, outcome: Outcome, snapshot: Snapshot | None, caller: Caller
) -> dict[str, Any]:
    """The answer to a write, `written` where that may be an operation. An operation answers with its result, whatever Prefer says of resources."""
    status = status_of_write(outcome)
    if outcome.version is None:
        entry: dict[str, Any] = {"response": {"status": status_line(status)}}
    else:
        relabels = written is not None and _relabels(written)
        wanted = relabels or caller.preference == "representation"
        body = body_after(snapshot, outcome.version) if wanted else None
        entry = entry_of(caller.base, outcome.version, status, None if relabels else body)
        if relabels and body is not None:
            entry = {"resource": json.Raw(of_one(body)), **entry}
        if outcome.others:
            del entry["response"]["etag"]
        if not outcome.version.deleted:
            entry["response"]["location"] = location(caller.base, outcome.version)
    if caller.preference == "OperationOutcome":
        entry["response"]["outcome"] = operation_outcome(outcome_of_write(outcome))
    return entry


def _refused_entry(error: StoreError) -> dict[str, Any]:
    response: dict[str, Any] = {"status": status_line(status_of(error))}
    if isinstance(error, Gone):
        response["etag"] = format_etag(error.version_id)
    response["outcome"] = operation_outcome(error.issues)
    return {"response": response}


def _relabels(entry: Entry) -> bool:
    """Whether it is `$meta-add` or `$meta-delete`."""
    return bool(entry.path) and entry.path[-1] in CHANGES


def _response(kind: str, entries: Iterable[bytes]) -> bytes:
    """The answer, of entries that are JSON. It is put together one by one: very many would take twice the memory."""
    made = io.BytesIO()
    made.write(json.dumps({"resourceType": "Bundle", "type": kind})[:-1])
    end = b"}"
    for entry in entries:
        made.write(b',"entry":[' if end == b"}" else b",")
        made.write(entry)
        end = b"]}"
    made.write(end)
    return made.getvalue()
