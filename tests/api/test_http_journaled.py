"""What the access journal says of requests over HTTP, and what is answered where it can't say anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from api.credentials import Credentials
from gitstore import (
    Journal,
    JournalEntry,
    Settings,
    StorageFull,
    Store,
    Tokens,
    accesses,
)
from tests.api.conftest import START, Client

OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "x"},
    "subject": {"reference": "Patient/ann"},
}


class Full(Journal):
    """A journal on a disk that is full."""

    def __init__(self) -> None:
        pass

    def record(self, *entries: JournalEntry) -> None:
        raise StorageFull("no space left")


@pytest.fixture
def journal(repository: Path) -> Iterator[Journal]:
    opened = Journal.open(str(repository), durable=False)
    yield opened
    opened.close()


@pytest.fixture
def make(
    store: Store, repository: Path, settings: Settings, clock: Callable[[], int]
) -> Callable[..., Client]:
    def make(journal: Journal, settings: Settings = settings, *, credentials: bool = False) -> Client:
        ids = count(1)
        door = Credentials(str(repository), settings, lambda: START) if credentials else None
        app = create_app(
            store,
            settings,
            clock=clock,
            journal=journal,
            credentials=door,
            new_request_id=lambda: f"request-{next(ids)}",
        )
        return Client(app)

    return make


@pytest.fixture
def client(make: Callable[..., Client], journal: Journal) -> Client:
    made = make(journal)
    for id in ("ann", "ben"):
        assert made.put(f"Patient/{id}", {"resourceType": "Patient", "id": id}).status_code == 201
    for id in ("o1", "o2"):
        assert made.put(f"Observation/{id}", {**OBSERVATION, "id": id}).status_code == 201
    return made


def lines(repository: Path) -> list[JournalEntry]:
    return [recorded.entry for recorded in accesses(str(repository))]


def last(repository: Path) -> dict[str, Any]:
    entry = lines(repository)[-1]
    return {
        "interaction": entry.interaction,
        "type": entry.type,
        "id": entry.id,
        "version": entry.version,
        "patients": sorted(entry.patients),
        "status": entry.status,
    }


@pytest.mark.parametrize(
    ("method", "url", "body", "interaction", "named", "patients"),
    [
        ("GET", "Patient/ann", None, "read", ("Patient", "ann", "1"), ["ann"]),
        ("GET", "Observation/o1", None, "read", ("Observation", "o1", "1"), ["ann"]),
        ("GET", "Observation/o1/_history/1", None, "vread", ("Observation", "o1", "1"), ["ann"]),
        ("GET", "Observation/o1/_history", None, "history-instance", ("Observation", "o1", None), ["ann"]),
        ("GET", "_history", None, "history-system", (None, None, None), ["ann", "ben"]),
        ("GET", "Observation?status=final", None, "search-type", ("Observation", None, None), ["ann"]),
        ("GET", "Observation?status=amended", None, "search-type", ("Observation", None, None), []),
        ("GET", "Patient?_summary=count", None, "search-type", ("Patient", None, None), []),
        ("GET", "Observation?_id=o1&_include=*", None, "search-type", ("Observation", None, None), ["ann"]),
        ("GET", "Patient/ann/$everything", None, "$everything", ("Patient", "ann", None), ["ann"]),
        ("GET", "Observation/o1/$blame", None, "$blame", ("Observation", "o1", None), ["ann"]),
        ("POST", "Observation", OBSERVATION, "create", ("Observation", "new-1", "1"), ["ann"]),
    ],
)
def test_a_line_names_what_was_asked_for_and_whose_data_was_given_out(
    client: Client,
    repository: Path,
    method: str,
    url: str,
    body: Any,
    interaction: str,
    named: tuple[str | None, ...],
    patients: list[str],
) -> None:
    before = len(lines(repository))
    response = client.request(method, url, body)
    assert len(lines(repository)) == before + 1
    assert last(repository) == {
        "interaction": interaction,
        **dict(zip(("type", "id", "version"), named, strict=True)),
        "patients": patients,
        "status": response.status_code,
    }
    assert lines(repository)[-1].request_id == response.headers["X-Request-Id"]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_bundle_names_the_patients_of_all_that_its_entries_read_and_write(
    client: Client, repository: Path, kind: str
) -> None:
    entries = [
        {"request": {"method": "GET", "url": "Patient/ben"}},
        {"request": {"method": "GET", "url": "Observation?_count=1"}},
        {"request": {"method": "POST", "url": "Observation"}, "resource": OBSERVATION},
    ]
    client.post("", {"resourceType": "Bundle", "type": kind, "entry": entries[:1]})
    assert last(repository)["patients"] == ["ben"]
    client.post("", {"resourceType": "Bundle", "type": kind, "entry": entries[1:2]})
    assert last(repository)["patients"] == ["ann"]
    client.post("", {"resourceType": "Bundle", "type": kind, "entry": entries[2:]}, Prefer="return=minimal")
    assert last(repository)["patients"] == ["ann"]


def test_what_the_client_holds_already_is_not_given_out(client: Client, repository: Path) -> None:
    assert client.get("Patient/ann", If_None_Match='W/"1"').status_code == 304
    assert (last(repository)["patients"], last(repository)["status"]) == ([], 304)


def test_refusals_have_lines_too_and_monitors_have_none(
    make: Callable[..., Client], journal: Journal, repository: Path, client: Client
) -> None:
    closed = make(journal, credentials=True)
    before = len(lines(repository))
    for url in ("/health", "/ready", "/fhir/metadata", "/login"):
        closed.get(url)
    assert len(lines(repository)) == before
    assert closed.get("Patient/ann").status_code == 401
    assert (last(repository)["status"], last(repository)["patients"]) == (401, [])
    secret, token = Tokens(str(repository)).create(
        name="Ada", email="ada@clinic.example", scope="user/Observation.r", now=START - 1, expires=None
    )
    assert closed.get("Patient/ann", Authorization=f"Bearer {secret}").status_code == 403
    found = lines(repository)[-1]
    assert (found.principal, found.agent, found.status) == ("Ada", f"token {token.id}", 403)


def test_what_cannot_be_journaled_is_not_given_out(make: Callable[..., Client], client: Client) -> None:
    blind = make(Full())
    for url in ("Patient/ann", "Patient", "_history", "Patient/ann/$everything"):
        response = blind.get(url)
        assert response.status_code == 507
        assert response.json["resourceType"] == "OperationOutcome"
        assert "ann" not in response.text
        assert not {"ETag", "Last-Modified", "Git-Commit"} & set(response.headers)


def test_a_write_that_has_happened_is_answered_although_it_cannot_be_journaled(
    make: Callable[..., Client], client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = make(Full()).post("Observation", OBSERVATION)
    assert response.status_code == 201
    assert "the access journal: no space left" in caplog.text


def test_the_journal_can_be_searched_as_audit_events(
    make: Callable[..., Client], journal: Journal, settings: Settings, client: Client
) -> None:
    from dataclasses import replace

    auditor = make(journal, replace(settings, audit_events="on"))
    client.get("Observation/o1")
    found = auditor.get("AuditEvent?patient=ann&_count=1").json
    event = found["entry"][0]["resource"]
    assert event["subtype"][0]["code"] == "read"
    assert auditor.get(f"AuditEvent/{event['id']}").json["id"] == event["id"]
    assert client.get(f"AuditEvent/{event['id']}").status_code == 404
