"""An access in the journal as an AuditEvent. https://hl7.org/fhir/R4/auditevent.html"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

from gitstore import JournalEntry, Recorded
from gitstore.fhir import Resource
from gitstore.fhir.dates import format_instant
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import is_id

PREFIX = "access-"
"""How the ids of these events begin, so that no stored AuditEvent is taken for one."""

REST = "http://terminology.hl7.org/CodeSystem/audit-event-type"
INTERACTIONS = "http://hl7.org/fhir/restful-interaction"
_ENTITY_TYPES = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ROLES = "http://terminology.hl7.org/CodeSystem/object-role"
_PERSON = {"system": _ENTITY_TYPES, "code": "1", "display": "Person"}
_SYSTEM_OBJECT = {"system": _ENTITY_TYPES, "code": "2", "display": "System Object"}
_REQUEST_ID = {
    "system": "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType",
    "code": "XrequestId",
}

_ACTIONS = {"create": "C", "update": "U", "patch": "U", "delete": "D"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def id_of(access: Recorded) -> str:
    return f"{PREFIX}{access.number}"


def number_of(id: str) -> int | None:
    """The number of the line that an event was made of; None where the id is none of ours."""
    text = id.removeprefix(PREFIX)
    is_ours = (
        id.startswith(PREFIX) and text.isascii() and text.isdigit() and text[0] != "0" and len(text) < 19
    )
    return int(text) if is_ours else None


def action(entry: JournalEntry) -> str:
    """Create, read, update, delete, or execute. https://hl7.org/fhir/R4/valueset-audit-event-action.html"""
    code = entry.interaction
    if code in ("read", "vread", "capabilities") or code.startswith("history"):
        return "R"
    return _ACTIONS.get(code, "E")


def subtypes(entry: JournalEntry) -> tuple[str, ...]:
    """The code of the interaction; of an operation `operation`, and what it is called."""
    return ("operation", entry.interaction) if entry.interaction.startswith("$") else (entry.interaction,)


def outcome(entry: JournalEntry) -> str:
    """0 success, 4 the client's failure, 8 the server's. https://hl7.org/fhir/R4/valueset-audit-event-outcome.html"""
    return "0" if entry.status < 400 else "4" if entry.status < 500 else "8"


def references(entry: JournalEntry) -> set[str]:
    """What the entities of the event refer to, without versions."""
    found = {f"Patient/{id}" for id in entry.patients}
    if (own := _resource(entry)) is not None:
        found.add(own)
    return found


def event(access: Recorded, base: str) -> Resource:
    """The AuditEvent; `base` is the server's, as the source of the event has it."""
    entry = access.entry
    time = format_instant(access.time)
    operation, *called = subtypes(entry)
    found: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": id_of(access),
        "meta": {"versionId": "1", "lastUpdated": time},
        "type": {"system": REST, "code": "rest", "display": "RESTful Operation"},
        "subtype": [{"system": INTERACTIONS, "code": operation}, *({"code": name} for name in called)],
        "action": action(entry),
        "recorded": time,
        "outcome": outcome(entry),
        "agent": [_agent(entry)],
        "source": {
            "site": base,
            "observer": {"display": "git-fhir"},
            "type": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/security-source-type",
                    "code": "4",
                    "display": "Application Server",
                }
            ],
        },
    }
    if entry.status >= 400:
        found["outcomeDesc"] = f"HTTP {entry.status}"
    if entities := _entities(entry):
        found["entity"] = entities
    return found


def _agent(entry: JournalEntry) -> Resource:
    name = _text(entry.principal) or "unknown"
    who: dict[str, Any] = {"display": name}
    if entry.agent and (value := _text(entry.agent)):
        who["identifier"] = {"value": value}
    agent: dict[str, Any] = {"who": who, "name": name, "requestor": True}
    if entry.remote and (address := _text(entry.remote)):
        agent["network"] = {"address": address, "type": "2"}  # an IP address
    if entry.purpose and (purpose := _text(entry.purpose)):
        agent["purposeOfUse"] = [{"text": purpose}]
    return agent


def _entities(entry: JournalEntry) -> list[Resource]:
    """What was asked for, the patients whose data was given out, and the request by its id."""
    found: list[Resource] = []
    own = _resource(entry)
    if own is not None and own not in {f"Patient/{id}" for id in entry.patients}:
        place = f"{own}/_history/{entry.version}" if entry.version and is_id(entry.version) else own
        found.append({"what": {"reference": place}, "type": _SYSTEM_OBJECT})
    role = {"system": _ROLES, "code": "1", "display": "Patient"}
    found += [
        {"what": {"reference": f"Patient/{id}"}, "type": _PERSON, "role": role}
        for id in entry.patients
        if is_id(id)
    ]
    if entry.query is not None:
        query = f"{entry.type or ''}?{entry.query}".encode()
        role = {"system": _ROLES, "code": "24", "display": "Query"}
        found.append({"type": _SYSTEM_OBJECT, "role": role, "query": b64encode(query).decode()})
    if request := _text(entry.request_id):
        found.append({"what": {"identifier": {"value": request}}, "type": _REQUEST_ID})
    return found


def _resource(entry: JournalEntry) -> str | None:
    """The resource that was asked for; None where there is none, and for what can be no name of one."""
    if entry.type and entry.id and is_resource_type(entry.type) and is_id(entry.id):
        return f"{entry.type}/{entry.id}"
    return None


def _text(text: str) -> str:
    """As a string of FHIR may be. https://hl7.org/fhir/R4/datatypes.html#string"""
    return _CONTROL.sub(" ", text).strip()
