"""update over HTTP. https://hl7.org/fhir/R4/http.html#update"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from gitstore import Settings, Store

BASE = "http://localhost:8080/fhir"


def test_an_update_makes_the_next_version(client, patient, clock, store):
    """6.1, 6.13: 200, versionId one more, lastUpdated later, no Location."""
    first = client.put("Patient/example", patient)
    clock.forward(5)

    response = client.put("Patient/example", patient | {"active": False})

    assert response.status_code == 200
    assert response.headers["ETag"] == 'W/"2"'
    assert response.json["meta"]["versionId"] == "2"
    assert response.json["meta"]["lastUpdated"] > first.json["meta"]["lastUpdated"]
    assert response.json["active"] is False
    assert "Location" not in response.headers
    assert response.headers["Content-Location"] == f"{BASE}/Patient/example/_history/2"
    assert response.headers["Git-Commit"] == store.snapshot().commit.id


def test_an_update_of_nothing_creates(client, patient):
    """6.2: 201 and Location under the client's own id."""
    response = client.put("Patient/example", patient)

    assert response.status_code == 201
    assert response.headers["Location"] == f"{BASE}/Patient/example/_history/1"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"resourceType": "Patient"}, "required"),
        ({"resourceType": "Patient", "id": "other"}, "value"),
        ({"resourceType": "Patient", "id": 7}, "value"),
        ({"resourceType": "Observation", "id": "example"}, "invalid"),
        ({"id": "example"}, "invalid"),
        ("{", "structure"),
    ],
)
def test_a_body_that_contradicts_the_url_is_refused(client, store, issue, body, code):
    """6.3, 6.4, 6.5"""
    before = store.snapshot().commit

    response = client.put("Patient/example", body)

    assert response.status_code == 400
    assert issue(response)[:2] == ("error", code)
    assert store.snapshot().commit == before


def test_an_unknown_type_can_not_be_updated(client):
    """6.5"""
    assert client.put("Gurke/1", {"resourceType": "Gurke", "id": "1"}).status_code == 404


def test_the_bodys_version_is_replaced_and_the_rest_of_meta_kept(client, patient):
    """6.6: a stale versionId in the body is no conflict."""
    meta = {"versionId": "9", "lastUpdated": "1999-01-01T00:00:00Z", "profile": ["http://example.org/p"]}
    client.put("Patient/example", patient)

    response = client.put("Patient/example", patient | {"meta": meta})

    assert response.status_code == 200
    assert response.json["meta"]["versionId"] == "2"
    assert response.json["meta"]["profile"] == ["http://example.org/p"]


def test_tags_are_replaced_not_merged(client, patient):
    """6.7"""
    client.put("Patient/example", patient | {"meta": {"tag": [{"code": "a"}]}})

    assert "tag" not in client.put("Patient/example", patient).json["meta"]


def test_past_versions_can_not_be_updated(client, patient):
    """6.8"""
    client.put("Patient/example", patient)

    response = client.put("Patient/example/_history/1", patient)

    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_every_update_is_a_version(client, patient):
    """6.10: the choice of this server: each accepted update is a commit, also where nothing changed."""
    client.put("Patient/example", patient)

    assert client.put("Patient/example", patient).headers["ETag"] == 'W/"2"'


def test_unchanged_updates_can_be_skipped(make_client, repository, settings, clock, patient):
    """6.10: with fhir.unchangedUpdate = skip, 200 with the version there is, and no commit."""
    settings = replace(settings, unchanged_update="skip")
    with Store.open(repository, settings, clock=clock) as store:
        client = make_client(settings, store)
        made = client.put("Patient/example", patient)
        again = client.put("Patient/example", patient)
        told = client.put("Patient/example", patient, Prefer="return=OperationOutcome")

        assert (made.status_code, again.status_code) == (201, 200)
        assert again.headers["ETag"] == 'W/"1"'
        assert "Location" not in again.headers
        assert again.content == made.content
        assert "left as it is" in told.json["issue"][0]["diagnostics"]
        assert client.put("Patient/example", patient | {"active": False}).headers["ETag"] == 'W/"2"'


@pytest.mark.parametrize("tags", ['W/"1"', '"1"', "1", 'W/"7", W/"1"', "*"])
def test_if_match_of_the_current_version_lets_an_update_through(client, patient, tags):
    """7.1, 7.2: weak comparison, lists, `*`."""
    client.put("Patient/example", patient)

    assert client.put("Patient/example", patient, If_Match=tags).status_code == 200


@pytest.mark.parametrize("tags", ['W/"1"', 'W/"3"', 'W/"1", W/"7"', 'W/"abc"', 'W/"02"'])
def test_if_match_of_another_version_stops_an_update(client, patient, store, issue, tags):
    """7.1: 412, and nothing is written."""
    client.put("Patient/example", patient)
    client.put("Patient/example", patient)
    before = store.snapshot().commit

    response = client.put("Patient/example", patient, If_Match=tags)

    assert response.status_code == 412
    assert issue(response)[:2] == ("error", "conflict")
    assert store.snapshot().commit == before


def test_a_malformed_if_match_is_refused(client, patient):
    """7.3"""
    assert client.put("Patient/example", patient, If_Match='W/"1').status_code == 400


@pytest.mark.parametrize("tags", ['W/"1"', "*"])
def test_if_match_on_what_never_existed_does_not_create(client, patient, tags):
    """7.3"""
    assert client.put("Patient/example", patient, If_Match=tags).status_code == 412
    assert client.get("Patient/example").status_code == 404


def test_if_match_on_a_deleted_resource_means_the_deletion(client, patient):
    """7.4"""
    client.put("Patient/example", patient)
    client.delete("Patient/example")

    assert client.put("Patient/example", patient, If_Match='W/"1"').status_code == 412
    assert client.put("Patient/example", patient, If_Match='W/"2"').status_code == 201


def test_of_parallel_updates_with_one_if_match_one_gets_through(client, patient):
    """7.8: one 200, the others 412; no version is lost."""
    client.put("Patient/example", patient)

    with ThreadPoolExecutor(8) as threads:
        tries = [threads.submit(client.put, "Patient/example", patient, If_Match='W/"1"') for _ in range(16)]
        statuses = sorted(each.result().status_code for each in tries)

    assert statuses == [200] + [412] * 15
    assert client.get("Patient/example").headers["ETag"] == 'W/"2"'


def test_if_none_match_on_put_only_creates(client, patient, issue):
    """7.9: `*` refuses any current version, a tag that version."""
    assert client.put("Patient/example", patient, If_None_Match="*").status_code == 201
    again = client.put("Patient/example", patient, If_None_Match="*")
    assert again.status_code == 412
    assert issue(again)[1] == "duplicate"
    assert client.put("Patient/example", patient, If_None_Match='W/"1"').status_code == 412
    assert client.put("Patient/example", patient, If_None_Match='W/"9"').status_code == 200


def test_prefer_minimal_keeps_the_status(client, patient):
    """3.11.1: 200 stays 200."""
    client.put("Patient/example", patient)

    response = client.put("Patient/example", patient, Prefer="return=minimal")

    assert (response.status_code, response.content) == (200, b"")


def test_a_body_above_the_limit_is_refused(client, patient, settings, issue):
    """17.11: 413, exactly above fhir.maxBody."""
    room = settings.max_body - len('{"resourceType": "Patient", "id": "example", "language": ""}')

    def sized(spare: int) -> str:
        return '{"resourceType": "Patient", "id": "example", "language": "%s"}' % ("x" * (room + spare))

    assert client.put("Patient/example", sized(0)).status_code == 201
    response = client.put("Patient/example", sized(1))
    assert response.status_code == 413
    assert issue(response)[1] == "too-long"


def test_the_authors_why_stands_in_the_commit(client, patient, store):
    """3.5: X-Commit-Message: UTF-8 as it is, RFC 2047, RFC 8187; X-Request-Id in the trailer."""
    for number, header in enumerate(
        [
            "Größe geprüft".encode().decode("latin-1"),
            "=?utf-8?Q?Gr=C3=B6=C3=9Fe_gepr=C3=BCft?=",
            "=?utf-8?B?R3LDtsOfZSBnZXByw7xmdA==?=",
            "UTF-8''Gr%C3%B6%C3%9Fe%20gepr%C3%BCft",
        ]
    ):
        response = client.put(
            "Patient/example", patient, X_Commit_Message=header, X_Request_Id=f"id-{number}"
        )
        commit = store.resolve(response.headers["Git-Commit"])
        assert store.message(commit) == "Größe geprüft"
        assert commit.request_id == f"id-{number}"


def test_the_why_has_limits(client, patient, issue):
    """500 characters of one line."""
    fits = client.put("Patient/example", patient, X_Commit_Message="x" * 500)
    long = client.put("Patient/example", patient, X_Commit_Message="x" * 501)
    two_lines = client.put("Patient/example", patient, X_Commit_Message="=?utf-8?Q?a=0AFHIR-Version:_x?=")

    assert [each.status_code for each in (fits, long, two_lines)] == [201, 400, 400]
    assert issue(long)[1] == "too-long"


def test_a_base_url_of_the_settings_stands_in_every_link(make_client, settings, patient):
    """1.8, 1.9: without a slash at its end."""
    client = make_client(replace(settings, base_url="https://fhir.example.org/r4/"))

    response = client.put("Patient/example", patient)

    assert response.headers["Location"] == "https://fhir.example.org/r4/Patient/example/_history/1"


def test_if_match_is_not_required(client, patient):
    """7.5: the choice of this server; `versioned` is what the CapabilityStatement says."""
    client.put("Patient/example", patient)

    assert client.put("Patient/example", patient).status_code == 200
    assert client.get("metadata").json["rest"][0]["resource"][0]["versioning"] == "versioned"


@pytest.mark.parametrize(
    ("wrong", "status"), [({"banana": 1}, 400), ({"active": "yes"}, 400), ({"gender": "banana"}, 422)]
)
def test_an_invalid_update_is_refused(repository, make_client, clock, patient, wrong, status):
    """6.9: 400 for what is no FHIR, 422 for what breaks a rule; what is there stays."""
    strict = Settings(durability="off")
    with Store.open(repository, strict, clock=clock) as store:
        client = make_client(strict, store)
        client.put("Patient/example", patient)
        assert client.put("Patient/example", patient | wrong).status_code == status
        assert client.get("Patient/example").headers["ETag"] == 'W/"1"'
