"""delete over HTTP. https://hl7.org/fhir/R4/http.html#delete"""

from __future__ import annotations

import pytest


def test_deleting_leaves_a_version_without_content(client, patient, store):
    """10.1, 10.4, 10.5: 204, no body, the ETag of the deletion; the history stays."""
    client.put("Patient/example", patient)

    response = client.delete("Patient/example")

    assert response.status_code == 204
    assert response.content == b""
    assert response.headers["ETag"] == 'W/"2"'
    assert "Last-Modified" in response.headers
    assert "Content-Type" not in response.headers
    assert response.headers["Git-Commit"] == store.snapshot().commit.id
    assert client.get("Patient/example/_history").json["total"] == 2
    assert client.get("Patient/example/_history/1").status_code == 200


def test_deleting_what_never_existed_is_fine(client, store):
    """10.2: 204, and no commit."""
    before = store.snapshot().commit

    response = client.delete("Patient/nobody")

    assert response.status_code == 204
    assert "ETag" not in response.headers
    assert response.headers["Git-Commit"] == before.id
    assert store.snapshot().commit == before


def test_deleting_twice_makes_no_second_version(client, patient):
    """10.3: 204 with the same ETag."""
    client.put("Patient/example", patient)
    client.delete("Patient/example")

    again = client.delete("Patient/example")

    assert again.status_code == 204
    assert again.headers["ETag"] == 'W/"2"'
    assert client.get("Patient/example/_history").json["total"] == 2


def test_a_body_is_ignored(client, patient):
    """10.7: the choice of this server."""
    client.put("Patient/example", patient)

    assert client.request("DELETE", "Patient/example", "nonsense").status_code == 204


def test_if_match_protects_from_deleting_what_one_has_not_seen(client, patient):
    """10.9: stale 412, current 204."""
    client.put("Patient/example", patient)
    client.put("Patient/example", patient)

    assert client.delete("Patient/example", If_Match='W/"1"').status_code == 412
    assert client.get("Patient/example").status_code == 200
    assert client.delete("Patient/example", If_Match='W/"2"').status_code == 204


def test_an_unknown_type_is_not_found(client):
    """10.10"""
    assert client.delete("Gurke/1").status_code == 404


@pytest.mark.parametrize(
    ("url", "allowed"), [("Patient", "GET, HEAD, OPTIONS, POST"), ("", "GET, HEAD, OPTIONS, POST")]
)
def test_a_type_is_never_wiped(client, patient, url, allowed):
    """10.12, 10.13: 405."""
    client.put("Patient/example", patient)

    response = client.delete(url)

    assert response.status_code == 405
    assert response.headers["Allow"] == allowed
    assert client.get("Patient/example").status_code == 200


@pytest.mark.parametrize("url", ["Patient/example/_history", "Patient/example/_history/1"])
def test_history_can_not_be_deleted(client, patient, url):
    """10.15: 405."""
    client.put("Patient/example", patient)

    assert client.delete(url).status_code == 405


@pytest.mark.parametrize(
    ("preference", "status"),
    [("return=OperationOutcome", 200), ("return=representation", 204), ("return=minimal", 204)],
)
def test_an_outcome_comes_only_when_asked_for(client, patient, preference, status):
    """3.11.5"""
    client.put("Patient/example", patient)

    response = client.delete("Patient/example", Prefer=preference)

    assert response.status_code == status
    assert response.headers["ETag"] == 'W/"2"'
    assert bool(response.content) == (status == 200)
