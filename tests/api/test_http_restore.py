"""$restore and $revert over HTTP. docs/audit.md"""

from __future__ import annotations

from typing import Any

import falcon
import pytest

from api.app import Gate
from api.principal import Principal
from gitstore import FULL_ACCESS, ROLES, Access, Author, Grant, Settings, Store, View

ADA = Author("Ada Lovelace", "ada@clinic.example")


@pytest.fixture
def told(client, patient):
    """`Patient/example` with two versions."""
    client.put("Patient/example", {**patient, "gender": "female"})
    client.put("Patient/example", {**patient, "gender": "other"})
    return client


def parameters(**given: Any) -> dict[str, Any]:
    named = [
        {"name": name, "valueInteger" if isinstance(value, int) else "valueString": value}
        for name, value in given.items()
    ]
    return {"resourceType": "Parameters", "parameter": named}


def bundle(*entries: dict[str, Any], type: str = "transaction") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": type, "entry": list(entries)}


def entry(method: str, url: str, resource: Any = None) -> dict[str, Any]:
    return {"request": {"method": method, "url": url}, **({"resource": resource} if resource else {})}


def head(store: Store) -> str:
    return store.snapshot().commit.id


# $restore


def test_restore_answers_as_an_update(told, store):
    """The new version is the answer, and the history has it as a PUT."""
    answer = told.post("Patient/example/$restore?version=1", "", X_Commit_Message="Wrong patient.")

    assert answer.status_code == 200, answer.text
    assert answer.headers["ETag"] == 'W/"3"'
    assert answer.headers["Git-Commit"] == head(store)
    assert answer.headers["Content-Location"].endswith("/fhir/Patient/example/_history/3")
    assert answer.json["gender"] == "female"
    assert answer.json["meta"]["versionId"] == "3"
    newest = told.get("Patient/example/_history").json["entry"][0]
    assert newest["request"] == {"method": "PUT", "url": "Patient/example"}
    assert newest["response"]["status"] == "200 OK"
    assert store.message(store.snapshot().commit) == "Wrong patient."


@pytest.mark.parametrize("version", [1, "1"])
def test_the_version_may_stand_in_the_body(told, version):
    """https://hl7.org/fhir/R4/operations.html#executing"""
    answer = told.post("Patient/example/$restore", parameters(version=version))

    assert answer.json["gender"] == "female"


def test_prefer_holds_for_restore_as_well(told):
    """https://hl7.org/fhir/R4/http.html#prefer"""
    minimal = told.post("Patient/example/$restore?version=1", "", Prefer="return=minimal")
    assert (minimal.status_code, minimal.content) == (200, b"")
    said = told.post("Patient/example/$restore?version=2", "", Prefer="return=OperationOutcome")
    assert said.json["issue"][0]["details"]["text"] == "Updated: `Patient/example/_history/4`."


def test_what_was_deleted_is_restored_without_a_version(told):
    """201, as for an update that brings a resource back."""
    told.delete("Patient/example")

    answer = told.post("Patient/example/$restore", "")

    assert (answer.status_code, answer.headers["ETag"]) == (201, 'W/"4"')
    assert answer.headers["Location"].endswith("/fhir/Patient/example/_history/4")
    assert told.get("Patient/example").json["gender"] == "other"


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("Patient/example/$restore", 400, "required"),
        ("Patient/example/$restore?version=2", 409, "conflict"),
        ("Patient/example/$restore?version=3", 404, "not-found"),
        ("Patient/example/$restore?version=x", 404, "not-found"),
        ("Patient/example/$restore?x=1", 400, "not-supported"),
        ("Patient/back/$restore?version=2", 422, "business-rule"),
        ("Patient/nobody/$restore?version=1", 404, "not-found"),
        ("Patient/a_b/$restore?version=1", 400, "value"),
        ("Patent/example/$restore?version=1", 404, "not-supported"),
    ],
)
def test_what_can_not_be_restored(told, patient, store, issue, url, status, code):
    """Nothing is written then."""
    told.put("Patient/back", {**patient, "id": "back"})
    told.delete("Patient/back")
    told.put("Patient/back", {**patient, "id": "back"})
    before = head(store)

    answer = told.post(url, "")

    assert answer.status_code == status, answer.text
    assert issue(answer)[:2] == ("error", code)
    assert head(store) == before


def test_restore_honours_if_match(told):
    """https://hl7.org/fhir/R4/http.html#concurrency"""
    assert told.post("Patient/example/$restore?version=1", "", If_Match='W/"1"').status_code == 412
    assert told.post("Patient/example/$restore?version=1", "", If_Match='W/"2"').status_code == 200


def test_both_operations_change_something_and_are_posted(told):
    assert told.get("Patient/example/$restore?version=1").status_code == 405
    assert told.get("$revert?commit=abcd").headers["Allow"] == "OPTIONS, POST"


def test_what_was_valid_once_need_not_be_today(told, store, settings, make_client, clock, repository):
    """422 with what is wrong by the rules of now."""
    told.put("Patient/odd", {"resourceType": "Patient", "id": "odd", "gender": "odd"})
    told.delete("Patient/odd")
    store.close()
    with Store.open(repository, Settings(durability="off"), clock=clock) as strict:
        answer = make_client(store=strict).post("Patient/odd/$restore", "")

    assert answer.status_code == 422
    assert answer.json["issue"][0]["details"]["text"].startswith("`Patient/odd/_history/1` is not valid: ")


# $revert


@pytest.fixture
def wrong(told, patient):
    """A transaction that changes, creates and deletes."""
    told.put("Patient/gone", {**patient, "id": "gone"})
    answer = told.post(
        "",
        bundle(
            entry("PUT", "Patient/example", {**patient, "gender": "male"}),
            entry("PUT", "Patient/made", {**patient, "id": "made"}),
            entry("DELETE", "Patient/gone"),
        ),
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["Git-Commit"]


@pytest.mark.parametrize("in_body", [True, False])
@pytest.mark.parametrize("digits", [40, 12])
def test_revert_answers_with_what_it_made(told, store, wrong, in_body, digits):
    """One entry for each version, in the order of the commit that was undone; all are of one commit."""
    name = wrong[:digits]
    answer = (
        told.post("$revert", parameters(commit=name)) if in_body else told.post(f"$revert?commit={name}", "")
    )

    assert answer.status_code == 200, answer.text
    assert answer.headers["Git-Commit"] == head(store)
    assert answer.json["type"] == "transaction-response"
    responses = [each["response"] for each in answer.json["entry"]]
    assert [(each["status"], each["etag"]) for each in responses] == [
        ("200 OK", 'W/"4"'),
        ("204 No Content", 'W/"2"'),
        ("201 Created", 'W/"3"'),
    ]
    assert responses[0]["location"].endswith("/fhir/Patient/example/_history/4")
    assert "resource" not in answer.json["entry"][0]
    assert told.get("Patient/example").json["gender"] == "other"
    assert told.get("Patient/made").status_code == 410
    assert told.get("Patient/gone").status_code == 200
    assert store.message(store.snapshot().commit) == f"This reverts commit {wrong}."
    assert list(store.verify()) == []


def test_prefer_holds_for_revert_as_well(told, wrong):
    answer = told.post(f"$revert?commit={wrong}", "", Prefer="return=representation")
    assert answer.json["entry"][0]["resource"]["gender"] == "other"
    again = answer.headers["Git-Commit"]
    said = told.post(f"$revert?commit={again}", "", Prefer="return=OperationOutcome").json["entry"]
    assert said[0]["response"]["outcome"]["issue"][0]["details"]["text"] == (
        "Updated: `Patient/example/_history/5`."
    )


def test_a_revert_tells_all_that_is_in_the_way(told, patient, store, wrong):
    """409 with one issue for each resource; nothing is written."""
    told.put("Patient/example", patient)
    told.put("Patient/gone", {**patient, "id": "gone"})
    before = head(store)

    answer = told.post(f"$revert?commit={wrong}", "")

    assert answer.status_code == 409
    texts = [(each["code"], each["details"]["text"]) for each in answer.json["issue"]]
    assert [(code, text.partition(", ")[0]) for code, text in texts] == [
        ("conflict", "`Patient/example` is at version 4"),
        ("conflict", "`Patient/gone` is at version 3"),
    ]
    assert "made by anonymous on 2023-11-14T22:13:20" in texts[0][1]
    assert head(store) == before


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "required"),
        ("?commit=abc", 400, "value"),
        ("?commit=main", 400, "value"),
        ("?commit=main~1", 400, "value"),
        (f"?commit={'0' * 40}", 404, "not-found"),
        (f"?commit={'a' * 41}", 400, "value"),
        ("?commit=INIT", 422, "business-rule"),
        ("?commit=cafe", 404, "not-found"),
    ],
)
def test_what_can_not_be_reverted(told, store, issue, query, status, code):
    """A commit that made nothing, one that isn't there, and what is no commit; a tag is none, whatever it is called."""
    repository = store._repository._git
    repository.references.create("refs/tags/cafe", repository.head.target)
    query = query.replace("INIT", store.snapshot(1).commit.id)

    answer = told.post(f"$revert{query}", "")

    assert answer.status_code == status, answer.text
    assert issue(answer)[:2] == ("error", code)


def test_a_revert_is_done_once(told, store, wrong):
    """https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/"""
    first, second = (told.post(f"$revert?commit={wrong}", "", Idempotency_Key="k") for _ in range(2))

    assert (first.status_code, first.json) == (second.status_code, second.json)
    assert first.headers["Git-Commit"] == second.headers["Git-Commit"] == head(store)


# Who may, and how else


@pytest.fixture
def act_as(monkeypatch):
    """From now on all requests are from somebody with this access and these roles."""

    def become(access: Access = FULL_ACCESS, roles: frozenset[str] = ROLES) -> None:
        before = Gate.process_request

        def process_request(gate: Gate, req: Any, resp: falcon.Response) -> None:
            before(gate, req, resp)
            req.principal = Principal(ADA, access, roles, None, "ada", "bearer")
            req.store = View(gate._store, access)

        monkeypatch.setattr(Gate, "process_request", process_request)

    return become


def test_both_operations_need_the_role(told, store, wrong, make_client, act_as):
    """403, whatever there is."""
    act_as(roles=ROLES - {"restore"})
    client = make_client()
    for url in ("Patient/example/$restore?version=1", "Patient/nobody/$restore", f"$revert?commit={wrong}"):
        answer = client.post(url, "")
        assert answer.status_code == 403
        assert "git-fhir/restore" in answer.text


def test_a_commit_that_is_seen_in_part_can_not_be_told_from_none(told, patient, wrong, make_client, act_as):
    """Only the commit's name as it was asked for comes back."""
    act_as(Access((Grant(None, frozenset("cruds"), patient="example"),)))
    client = make_client()

    unseen, unknown = (client.post(f"$revert?commit={name}", "") for name in (wrong[:8], "0" * 8))

    assert unseen.status_code == unknown.status_code == 404
    assert unseen.text.replace(wrong[:8], "0" * 8) == unknown.text


@pytest.mark.parametrize("url", ["Patient/example/$restore", "$revert", "$restore"])
@pytest.mark.parametrize("type", ["batch", "transaction"])
def test_in_a_bundle_they_are_not_supported(told, store, url, type):
    """501: each is a request of its own."""
    before = head(store)

    answer = told.post("", bundle(entry("POST", url, parameters(version=1)), type=type))

    if type == "batch":
        assert answer.json["entry"][0]["response"]["status"] == "501 Not Implemented"
    else:
        assert answer.status_code == 501
        assert answer.json["issue"][0]["expression"] == ["Bundle.entry[0]"]
    assert head(store) == before
