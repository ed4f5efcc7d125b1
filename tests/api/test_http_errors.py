"""Errors as OperationOutcomes, the table behind them, and the log."""

from __future__ import annotations

import io
import json
import logging
from contextlib import contextmanager

import pytest
from falcon.testing import TestClient

import gitstore
from api import errors
from api.app import create_app
from api.log import ACCESS, JsonFormatter


def every_class(kind=gitstore.StoreError):
    for child in kind.__subclasses__():
        yield child
        yield from every_class(child)


@pytest.mark.parametrize("kind", list(every_class()))
def test_every_error_of_the_store_has_a_status(kind):
    """None is left to chance, not even by inheritance."""
    assert kind in errors.STATUS
    assert errors.STATUS[kind] == 202 if kind is gitstore.Preparing else 400 <= errors.STATUS[kind] < 600


def failing(error, settings):
    """A client of a store that can only fail."""

    class Failing:
        cluster = None

        def snapshot(self, sequence=None, **access):
            raise error

        def commit(self, *args, **named):
            raise error

    return TestClient(create_app(Failing(), settings), headers={"Host": "localhost"})


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (gitstore.Locked("x"), 503, "lock-error"),
        (gitstore.ForeignCommit("x", "c0ffee"), 503, "conflict"),
        (gitstore.StorageFailed("x"), 503, "exception"),
        (gitstore.StorageFull("x"), 507, "no-store"),
        (gitstore.NotConfirmed("x"), 500, "exception"),
        (gitstore.RepositoryDamaged("x", "c0ffee"), 500, "exception"),
        (gitstore.NotAllowed("x"), 405, "not-supported"),
        (gitstore.MultipleMatches("x"), 412, "multiple-matches"),
        (gitstore.Unprocessable("x"), 422, "business-rule"),
    ],
)
def test_failures_of_the_store_are_told(settings, patient, error, status, code):
    """2.16: 503 and 507 with what to do, 405 with Allow."""
    response = failing(error, settings).simulate_put("/fhir/Patient/example", json=patient)

    assert response.status_code == status
    assert response.json["issue"][0]["code"] == code
    assert ("Retry-After" in response.headers) == (status == 503)
    assert ("Allow" in response.headers) == (status == 405)


def test_the_unexpected_is_a_500_without_details(settings, caplog):
    """2.16: fatal, exception, the id of the request; the traceback is in the log alone."""
    response = failing(ZeroDivisionError("secret"), settings).simulate_get("/fhir/Patient/example")

    assert response.status_code == 500
    [issue] = response.json["issue"]
    assert (issue["severity"], issue["code"]) == ("fatal", "exception")
    assert response.headers["X-Request-Id"] in issue["diagnostics"]
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert "secret" in caplog.text


def test_an_outcome_is_complete(client):
    """2.16, 5.11: severity, code, details.text and diagnostics, in FHIR's type."""
    response = client.get("Patient/nobody")

    assert response.headers["Content-Type"] == "application/fhir+json"
    [issue] = response.json["issue"]
    assert issue["details"]["text"] == issue["diagnostics"]
    assert set(issue) == {"severity", "code", "details", "diagnostics"}


def test_errors_that_read_the_record_name_the_commit(client, store):
    assert client.get("Patient/nobody").headers["Git-Commit"] == store.snapshot().commit.id


@pytest.fixture
def lines():
    """What the log says, line by line."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger("git-fhir")
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


def test_each_request_is_one_line_of_json(client, patient, lines):
    """Time, request id, author, method, path without query, status, milliseconds, bytes."""
    client.put("Patient/example", patient)
    response = client.get("Patient/example?_format=json", X_Request_Id="abc")

    [_, line] = lines()
    assert line["time"].endswith("Z")
    assert line["milliseconds"] >= 0
    expected = {
        "level": "info",
        "message": "request",
        "requestId": "abc",
        "author": "anonymous",
        "method": "GET",
        "path": "/fhir/Patient/example",
        "status": 200,
        "bytes": len(response.content),
    }
    assert {name: line[name] for name in expected} == expected


def test_nothing_of_the_query_is_logged(client, lines):
    client.get("Patient?name=Lovelace")

    assert "Lovelace" not in str(lines())


def test_a_line_of_the_log_is_one_line(client, lines):
    """What a client sends can't forge another."""
    client.get("Patient/a%0A%7B%22status%22:200%7D")

    [line] = lines()
    assert line["status"] == 400
    assert "\n" in line["path"]


def test_the_access_log_is_a_logger_of_its_own():
    assert ACCESS.name == "git-fhir.access"


@pytest.mark.parametrize("preference", ["return=representation", "return=minimal", "return=OperationOutcome"])
def test_a_write_that_can_not_be_read_back_has_still_happened(store, settings, patient, preference):
    """An answer of 503 or 500 would say that nothing was written; the body is left out instead."""

    class Unreadable:
        broken = False
        canonicals = store.canonicals
        cluster = None

        def snapshot(self, sequence=None, **access):
            if self.broken:
                raise gitstore.StorageFailed("the index is gone")
            return store.snapshot(sequence)

        @contextmanager
        def reading(self, **access):
            yield self.snapshot()

        def commit(self, *args, **named):
            outcomes = store.commit(*args, **named)
            self.broken = True
            return outcomes

        def commit_each(self, units):
            outcomes = store.commit_each(units)
            self.broken = True
            return outcomes

    def send(method, path, body):
        client = TestClient(
            create_app(Unreadable(), settings), headers={"Host": "localhost", "Prefer": preference}
        )
        return client.simulate_request(method, path, json=body)

    put = send("PUT", "/fhir/Patient/example", patient)
    assert put.status_code == 201
    assert put.headers["ETag"] == 'W/"1"'
    for kind in ("transaction", "batch"):
        entries = [
            {"request": {"method": "PUT", "url": "Patient/example"}, "resource": patient},
            {"request": {"method": "GET", "url": "Patient/example"}},
        ]
        bundle = send("POST", "/fhir", {"resourceType": "Bundle", "type": kind, "entry": entries})
        assert bundle.status_code == 200, bundle.text
        assert [each["response"]["status"][:3] for each in bundle.json["entry"]] == ["200", "503"]
