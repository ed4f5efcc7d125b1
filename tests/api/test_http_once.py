"""Idempotency-Key over HTTP. https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.once import key, of_entry
from gitstore import Idempotency, Invalid, Store

OBSERVATION = {"resourceType": "Observation", "status": "final"}
ANSWERED = ("Location", "ETag", "Last-Modified", "Git-Commit")


def entry(method: str, url: str, resource: object = None) -> dict[str, object]:
    return {"request": {"method": method, "url": url}, **({"resource": resource} if resource else {})}


def bundle(kind: str, *entries: object) -> dict[str, object]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def commits(store) -> int:
    return store.snapshot().commit.sequence


@pytest.mark.parametrize("header", ["order-1", '"order-1"', "a", "x" * 128, r'"say\"hi\"\\"'])
def test_a_create_is_done_once(client, store, patient, header):
    """A retry makes nothing, and is answered with status, headers and body of the first time."""
    first = client.post("Patient", patient, Idempotency_Key=header)
    client.put(f"Patient/{first.json['id']}", {**first.json, "active": False})
    before = commits(store)

    again = client.post("Patient", patient, Idempotency_Key=header)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json == first.json
    assert [again.headers[name] for name in ANSWERED] == [first.headers[name] for name in ANSWERED]
    assert commits(store) == before


def test_the_retry_may_prefer_another_body(client, patient):
    """Prefer is about the answer, and no part of what is sent."""
    client.post("Patient", patient, Idempotency_Key="k")

    again = client.post("Patient", patient, Idempotency_Key="k", Prefer="return=minimal")

    assert (again.status_code, again.content) == (201, b"")
    assert again.headers["Location"].endswith("/Patient/new-1/_history/1")


@pytest.mark.parametrize(
    ("url", "change", "headers"),
    [
        ("Patient", {"active": False}, {}),
        ("Patient?_pretty=true", {}, {}),
        ("Patient", {}, {"If_None_Exist": "active=false"}),
    ],
)
def test_a_key_is_for_one_request_alone(client, store, patient, issue, url, change, headers):
    """422 where the same key comes with something else; with quotes or without it is the same key."""
    client.post("Patient", patient, Idempotency_Key="k")
    before = commits(store)

    response = client.post(url, {**patient, **change}, Idempotency_Key='"k"', **headers)

    assert response.status_code == 422
    assert "`k`" in issue(response)[2]
    assert commits(store) == before


def test_another_type_is_another_request(client):
    client.post("Binary", b"x", Content_Type="text/plain", Idempotency_Key="k")

    assert client.post("Binary", b"x", Content_Type="text/csv", Idempotency_Key="k").status_code == 422


def test_the_same_body_may_come_packed(client, patient):
    """The digest is of what was packed: a client may retry by another way."""
    data = json.dumps(patient).encode()
    first = client.post("Patient", data, Idempotency_Key="k")
    again = client.post("Patient", gzip.compress(data), Idempotency_Key="k", Content_Encoding="gzip")

    assert again.headers["Location"] == first.headers["Location"]


@pytest.mark.parametrize("header", ["", '""', "a b", "x" * 129, "ä", '"a', '"a"b', '"a";p=1', '"a\\b"'])
def test_what_is_no_key_is_refused(client, store, patient, issue, header):
    before = commits(store)
    response = client.post("Patient", patient, Idempotency_Key=header)

    assert response.status_code == 400
    assert issue(response)[:2] == ("error", "value")
    assert commits(store) == before


def test_other_methods_need_no_key(client, patient):
    """PUT and DELETE are idempotent by themselves, and a search writes nothing: the header is not looked at."""
    for header in ("k", "a b"):
        assert client.put("Patient/example", patient, Idempotency_Key=header).status_code in (200, 201)
        assert client.delete("Patient/example", Idempotency_Key=header).status_code == 204
        assert client.request("POST", "Patient/_search", Idempotency_Key=header).status_code == 200
    assert client.get("Patient/_history").json["total"] == 4


def test_a_refused_request_uses_up_no_key(client, patient):
    """Nothing happened, so the corrected request may come with the same key."""
    assert (
        client.post("Patient", {**patient, "resourceType": "Nothing"}, Idempotency_Key="k").status_code == 400
    )
    assert client.post("Patient", patient, Idempotency_Key="k").status_code == 201


def test_a_transaction_is_done_once(client, store, patient):
    sent = bundle("transaction", entry("POST", "Patient", patient), entry("POST", "Observation", OBSERVATION))
    first = client.post("", sent, Idempotency_Key="k")
    before = commits(store)

    again = client.post("", sent, Idempotency_Key="k")

    assert again.json == first.json
    assert commits(store) == before
    sent["entry"].pop()
    assert client.post("", sent, Idempotency_Key="k").status_code == 422


def test_a_deletion_by_criteria_does_not_hide_what_came_after_it(
    client, settings, repository, clock, make_client
):
    """Several versions of one entry: the retry gives those after it to the right entries."""
    several = replace(settings, conditional_delete="multiple")
    with Store.open(repository, several, clock=clock) as store:
        other = make_client(several, store)
        for id in "ab":
            other.put(f"Patient/{id}", {"resourceType": "Patient", "id": id, "active": True})
        sent = bundle(
            "transaction", entry("DELETE", "Patient?active=true"), entry("POST", "Observation", OBSERVATION)
        )
        first = other.post("", sent, Idempotency_Key="k")
        assert [each["response"]["status"][:3] for each in first.json["entry"]] == ["204", "201"]
        assert other.post("", sent, Idempotency_Key="k").json == first.json


def test_a_create_that_found_one_says_so_again(client, patient):
    """Within a transaction that wrote something else: 200 and its place, as the first time."""
    client.put("Patient/example", patient)
    conditional = entry("POST", "Patient", patient)
    conditional["request"]["ifNoneExist"] = "active=true"
    sent = bundle("transaction", conditional, entry("POST", "Observation", OBSERVATION))

    first = client.post("", sent, Idempotency_Key="k")

    assert first.json["entry"][0]["response"]["status"].startswith("200")
    assert client.post("", sent, Idempotency_Key="k").json == first.json


def test_a_batch_that_was_half_done_is_completed(client, store, patient):
    """Each entry has a key of its own: what was done is not done again, what was refused is tried again."""
    update = entry("PUT", "Patient/example", patient)
    update["request"]["ifMatch"] = 'W/"1"'
    sent = bundle("batch", entry("POST", "Observation", OBSERVATION), update)
    first = client.post("", sent, Idempotency_Key="x" * 128)
    assert [each["response"]["status"][:3] for each in first.json["entry"]] == ["201", "412"]
    client.put("Patient/example", patient)

    again = client.post("", sent, Idempotency_Key="x" * 128)

    assert again.json["entry"][0] == first.json["entry"][0]
    assert again.json["entry"][1]["response"]["etag"] == 'W/"2"'
    before = commits(store)
    assert client.post("", sent, Idempotency_Key="x" * 128).json == again.json
    assert commits(store) == before


def test_a_batch_with_the_key_of_another_is_refused_as_a_whole(client, store):
    """422, and none of its entries is done: not those either which the other batch did not have."""
    client.post("", bundle("batch", entry("POST", "Observation", OBSERVATION)), Idempotency_Key="k")
    before = commits(store)

    other = bundle(
        "batch",
        entry("POST", "Observation", OBSERVATION),
        entry("POST", "Patient", {"resourceType": "Patient"}),
    )

    assert client.post("", other, Idempotency_Key="k").status_code == 422
    assert commits(store) == before


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128))
def test_every_key_can_be_sent_in_quotes(text):
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')

    assert key(f'"{escaped}"') == text


@given(st.text())
def test_what_is_taken_for_a_key_can_stand_in_a_commit(text):
    try:
        found = key(text)
    except Invalid:
        return
    for each in (Idempotency(found, "ab" * 32), of_entry(Idempotency(found, "ab" * 32), 19_999)):
        assert each is not None
        assert Idempotency.parse(str(each)) == each
