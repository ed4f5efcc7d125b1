"""read and vread over HTTP. https://hl7.org/fhir/R4/http.html#read"""

from __future__ import annotations

import pytest

BASE = "http://localhost:8080/fhir"


def test_reading_answers_with_the_stored_bytes(client, store, patient):
    """4.1: 200, the id of the URL, ETag and Last-Modified; the body is the file of the record."""
    client.put("Patient/example", patient)

    response = client.get("Patient/example")

    assert response.status_code == 200
    assert response.json["id"] == "example"
    assert response.headers["ETag"] == 'W/"1"'
    assert response.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert response.headers["Content-Location"] == f"{BASE}/Patient/example/_history/1"
    snapshot = store.snapshot()
    assert response.headers["Git-Commit"] == snapshot.commit.id
    [version] = snapshot.resources("Patient")
    assert response.content == snapshot.body(version)


def test_numbers_keep_the_digits_they_were_sent_with(client):
    """6.11, 17.1: what was submitted is what is read."""
    sent = (
        b'{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},'
        b'"valueQuantity":{"value":1.00},"referenceRange":[{"low":{"value":1.0e2},"high":{"value":-0.0}}]}'
    )
    client.put("Observation/o", sent)

    text = client.get("Observation/o").text

    assert '"value": 1.00\n' in text
    assert '"value": 1.0e2\n' in text
    assert '"value": -0.0\n' in text


def test_what_never_existed_is_not_found(client, issue):
    """4.2"""
    response = client.get("Patient/nobody")

    assert response.status_code == 404
    assert issue(response)[:2] == ("error", "not-found")
    assert "Patient/nobody" in issue(response)[2]


def test_reading_a_deleted_resource_is_gone(client, patient, issue):
    """4.3: 410 with the ETag of the deletion, so that a client can revive it with If-Match."""
    client.put("Patient/example", patient)
    client.delete("Patient/example")

    response = client.get("Patient/example")

    assert response.status_code == 410
    assert response.headers["ETag"] == 'W/"2"'
    assert issue(response)[:2] == ("error", "deleted")


def test_a_revived_resource_can_be_read_again(client, patient):
    """4.4, 6.12: 201 and the number after the deletion's."""
    client.put("Patient/example", patient)
    client.delete("Patient/example")

    revived = client.put("Patient/example", patient)

    assert revived.status_code == 201
    assert revived.headers["ETag"] == 'W/"3"'
    assert client.get("Patient/example").status_code == 200


@pytest.mark.parametrize("tags", ['W/"2"', '"2"', "2", 'W/"1", W/"2"', "*"])
def test_a_current_copy_is_not_sent_again(client, patient, tags):
    """4.6: If-None-Match compares weakly, takes lists and `*`; 304 has no body but the ETag."""
    client.put("Patient/example", patient)
    client.put("Patient/example", patient)

    response = client.get("Patient/example", If_None_Match=tags)

    assert response.status_code == 304
    assert response.content == b""
    assert response.headers["ETag"] == 'W/"2"'
    assert "Git-Commit" in response.headers


def test_a_stale_copy_is_replaced(client, patient):
    """4.6"""
    client.put("Patient/example", patient)
    client.put("Patient/example", patient)

    assert client.get("Patient/example", If_None_Match='W/"1"').status_code == 200


@pytest.mark.parametrize(
    ("date", "status"),
    [
        ("Tue, 14 Nov 2023 22:13:21 GMT", 304),
        ("Tue, 14 Nov 2023 22:13:19 GMT", 200),
        ("not a date", 200),
        ("Tue, 99 Nov 2023 99:13:20 GMT", 200),
    ],
)
def test_if_modified_since_is_honoured(client, patient, date, status):
    """4.7: also a date that can't be read is no error."""
    client.put("Patient/example", patient)

    assert client.get("Patient/example", If_Modified_Since=date).status_code == status


def test_two_versions_of_one_second_are_told_apart(client, patient, clock):
    """4.8: the record has microseconds, HTTP dates have seconds; no false 304."""
    first = client.put("Patient/example", patient)
    clock.forward(0.1)
    client.put("Patient/example", patient | {"active": False})

    response = client.get("Patient/example", If_Modified_Since=first.headers["Last-Modified"])

    assert response.status_code == 200


def test_if_none_match_outweighs_if_modified_since(client, patient):
    """4.7"""
    client.put("Patient/example", patient)

    response = client.get(
        "Patient/example", If_None_Match='W/"9"', If_Modified_Since="Tue, 14 Nov 2034 22:13:20 GMT"
    )

    assert response.status_code == 200


def test_a_conditional_read_of_a_deleted_resource_is_gone(client, patient):
    """4.9: never 304."""
    client.put("Patient/example", patient)
    client.delete("Patient/example")

    assert client.get("Patient/example", If_None_Match='W/"2"').status_code == 410
    assert client.get("Patient/example", If_Modified_Since="Tue, 14 Nov 2034 22:13:20 GMT").status_code == 410


def test_a_malformed_if_none_match_is_refused(client, patient, issue):
    """4.6"""
    client.put("Patient/example", patient)

    response = client.get("Patient/example", If_None_Match='W/"1')

    assert response.status_code == 400
    assert issue(response)[1] == "value"


def test_vread_answers_with_that_version(client, patient, clock):
    """5.1, 5.2: id, versionId, ETag and Last-Modified are the version's own."""
    client.put("Patient/example", patient)
    clock.forward(60)
    client.put("Patient/example", patient | {"active": False})

    old = client.get("Patient/example/_history/1")

    assert old.status_code == 200
    assert (old.json["id"], old.json["meta"]["versionId"], old.json["active"]) == ("example", "1", True)
    assert old.headers["ETag"] == 'W/"1"'
    assert old.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"


def test_vread_of_the_current_version_is_a_read(client, patient):
    """5.3"""
    client.put("Patient/example", patient)

    assert client.get("Patient/example/_history/1").content == client.get("Patient/example").content


@pytest.mark.parametrize("vid", ["2", "0", "01", "-1", "abc", "999", "1.0", "99999999999999999999"])
def test_unknown_version_ids_are_not_found(client, patient, issue, vid):
    """5.4: `01` is no other name of `1`."""
    client.put("Patient/example", patient)

    response = client.get(f"Patient/example/_history/{vid}")

    assert response.status_code == 404
    assert issue(response)[1] == "not-found"


def test_vread_of_an_unknown_resource_is_not_found(client):
    """5.4"""
    assert client.get("Patient/nobody/_history/1").status_code == 404


def test_vread_of_the_deletion_is_gone_and_earlier_versions_stay(client, patient):
    """5.5: HEAD too."""
    client.put("Patient/example", patient)
    client.delete("Patient/example")

    assert client.get("Patient/example/_history/2").status_code == 410
    assert client.request("HEAD", "Patient/example/_history/2").status_code == 410
    assert client.get("Patient/example/_history/1").status_code == 200


def test_head_has_the_headers_of_get_and_no_body(client, patient):
    """5.7"""
    client.put("Patient/example", patient)
    urls = ["Patient/example", "Patient/example/_history/1", "Patient/example/_history", "Patient/_history"]

    for url in [*urls, "_history", "metadata", "/health"]:
        got, head = client.get(url), client.request("HEAD", url)
        assert head.status_code == 200, url
        assert head.content == b""
        assert {**head.headers, "x-request-id": ""} == {**got.headers, "x-request-id": ""}
    assert client.request("HEAD", "Patient/nobody").status_code == 404


def test_versions_never_change(client, patient):
    """5.8"""
    client.put("Patient/example", patient)
    before = client.get("Patient/example/_history/1").content
    client.put("Patient/example", patient | {"active": False})
    client.delete("Patient/example")

    assert client.get("Patient/example/_history/1").content == before


def test_versions_may_be_kept_privately_forever_and_errors_not_at_all(client, patient):
    """5.9: a conditional vread works; nothing may sit in a shared cache, or be guessed from its age."""
    client.put("Patient/example", patient)

    kept = client.get("Patient/example/_history/1")
    assert kept.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert client.get("Patient/example/_history/1", If_None_Match='W/"1"').status_code == 304
    for url in ("Patient/example", "Patient/example/_history/2"):
        assert client.get(url).headers["Cache-Control"] == "private, no-cache"


def test_version_ids_count_from_one(client, patient):
    """5.10"""
    tags = [client.put("Patient/example", patient).headers["ETag"] for _ in range(3)]

    assert tags == ['W/"1"', 'W/"2"', 'W/"3"']


@pytest.mark.parametrize("url", ["Patient/example?status=active", "Patient/example/_history/1?name=x"])
def test_unknown_parameters_are_no_search(client, patient, issue, url):
    """1.12"""
    client.put("Patient/example", patient)

    response = client.get(url)

    assert response.status_code == 400
    assert issue(response)[:2] == ("error", "not-supported")
