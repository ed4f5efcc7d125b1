"""Rows of the checklist on formats and headers that hold for all interactions alike. https://hl7.org/fhir/R4/http.html"""

from __future__ import annotations

import pytest
from falcon.testing import TestClient

from api.app import create_app
from gitstore.fhir.summary import SUBSETTED

BASE = "http://localhost:8080/fhir"
PATIENT = {"resourceType": "Patient"}
FIRST = "Tue, 14 Nov 2023 22:13:20 GMT"
VERSIONED = {"ETag": 'W/"1"', "Last-Modified": FIRST, "Content-Location": f"{BASE}/Patient/a/_history/1"}
CREATED = {**VERSIONED, "Location": f"{BASE}/Patient/a/_history/1"}
SECOND = {name: value.replace("1", "2") if name == "ETag" else value for name, value in VERSIONED.items()}
SECOND["Content-Location"] = f"{BASE}/Patient/a/_history/2"
DELETED = {"ETag": 'W/"2"', "Last-Modified": FIRST}
BARE: dict[str, str] = {}
NAMES = ("ETag", "Last-Modified", "Location", "Content-Location")

MATRIX = {
    # interaction: what happens before; the request; status and headers of its answer
    "create": ([], ("POST", "Patient", PATIENT, {}), 201, CREATED),
    "conditional create": (["a"], ("POST", "Patient", PATIENT, {"If-None-Exist": "_id=a"}), 200, CREATED),
    "update": (["a"], ("PUT", "Patient/a", PATIENT | {"id": "a"}, {}), 200, SECOND),
    "update as create": ([], ("PUT", "Patient/a", PATIENT | {"id": "a"}, {}), 201, CREATED),
    "patch": (
        ["a"],
        ("PATCH", "Patient/a", [], {"Content-Type": "application/json-patch+json"}),
        200,
        SECOND,
    ),
    "delete": (["a"], ("DELETE", "Patient/a", None, {}), 204, DELETED),
    "read": (["a"], ("GET", "Patient/a", None, {}), 200, VERSIONED),
    "read, 304": (["a"], ("GET", "Patient/a", None, {"If-None-Match": "*"}), 304, VERSIONED),
    "read, 404": ([], ("GET", "Patient/a", None, {}), 404, BARE),
    "read, 410": (["a", "-a"], ("GET", "Patient/a", None, {}), 410, DELETED),
    "vread": (["a", "a"], ("GET", "Patient/a/_history/1", None, {}), 200, VERSIONED),
    "vread, 304": (["a"], ("GET", "Patient/a/_history/1", None, {"If-None-Match": "*"}), 304, VERSIONED),
    "vread, 410": (["a", "-a"], ("GET", "Patient/a/_history/2", None, {}), 410, DELETED),
    "history": (["a"], ("GET", "Patient/a/_history", None, {}), 200, BARE),
    "search": (["a"], ("GET", "Patient", None, {}), 200, BARE),
}


@pytest.mark.parametrize(("before", "request_", "status", "expected"), MATRIX.values(), ids=MATRIX)
def test_each_interaction_has_its_headers(make_client, store, settings, before, request_, status, expected):
    """3.1, 3.2, 3.10: ETag, Last-Modified, Location and Content-Location, of which version, and not otherwise."""
    client = make_client(settings, store)
    for id in before:
        if id.startswith("-"):
            client.delete(f"Patient/{id[1:]}")
        else:
            client.put(f"Patient/{id}", PATIENT | {"id": id})
    method, url, body, headers = request_

    response = client.request(method, url, body, **headers)

    assert response.status_code == status, response.text
    found = {name: response.headers[name] for name in NAMES if name in response.headers}
    assert {name: value.replace("new-1", "a") for name, value in found.items()} == expected


def test_the_tag_is_the_version_id_and_the_date_that_of_the_version(client, patient, clock):
    """3.1, 3.2: weak and quoted; whole seconds, cut off and never rounded up."""
    for number in (1, 2, 3):
        clock.forward(0.7)
        response = client.put("Patient/example", patient)
        meta = response.json["meta"]
        assert response.headers["ETag"] == f'W/"{meta["versionId"]}"' == f'W/"{number}"'
        assert response.headers["Last-Modified"][-12:-4] == meta["lastUpdated"][11:19]


@pytest.mark.parametrize("url", ["Patient", "_history", "Patient/a/_history", ""])
def test_bundles_have_no_tag_of_their_own(client, url):
    """3.3: the version stands in each resource; in a history also as response.etag."""
    client.put("Patient/a", PATIENT | {"id": "a"})

    response = client.get(url)

    assert "ETag" not in response.headers
    [entry] = response.json["entry"]
    assert entry["resource"]["meta"]["versionId"] == "1"
    assert "history" not in url or entry["response"]["etag"] == 'W/"1"'


def test_what_proxies_say_about_themselves_has_no_effect(client, patient, store):
    """3.6: X-Intermediary changes no answer and stands in no commit."""
    answers = [
        client.put("Patient/example", patient, X_Intermediary=name) for name in ("", "stunnel", "x, y")
    ]

    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/fhir+json"}
    assert "stunnel" not in store.message(store.resolve(answers[1].headers["Git-Commit"]))


def test_http_and_https_are_the_same_resource(store, settings, patient):
    """1.10: only the URLs of the answer differ, as those of the request do."""
    http = TestClient(create_app(store, settings), headers={"Host": "localhost:8080"})
    http.simulate_put("/fhir/Patient/example", json=patient, protocol="https")

    plain, secure = (http.simulate_get("/fhir/Patient/example", protocol=name) for name in ("http", "https"))

    assert plain.content == secure.content
    assert plain.headers["ETag"] == secure.headers["ETag"]
    assert plain.headers["Content-Location"] == f"{BASE}/Patient/example/_history/1"
    assert secure.headers["Content-Location"] == "https://localhost:8080/fhir/Patient/example/_history/1"


@pytest.mark.parametrize(
    "body", [b'{"resourceType":"Patient","id":"example","language":"\xff"}', b"\xff\xfe{\x00"]
)
def test_a_body_is_utf_8(client, store, issue, body):
    """2.11: 400, and nothing is written."""
    before = store.snapshot().commit

    response = client.put("Patient/example", body)

    assert response.status_code == 400
    assert issue(response)[:2] == ("error", "structure")
    assert store.snapshot().commit == before


def test_a_part_that_is_sent_back_is_stored_as_it_says(client, patient):
    """2.15: the choice of this server. The tag stays, so that the version can be told from a whole one."""
    client.put("Patient/example", patient | {"birthDate": "1815"})
    part = client.get("Patient/example?_elements=active").json

    response = client.put("Patient/example", part)

    assert response.status_code == 200
    assert response.json["meta"]["tag"] == [SUBSETTED]
    assert client.get("Patient/example/_history/1").json["birthDate"] == "1815"


def test_without_prefer_it_is_the_representation(client, patient):
    """3.11.2, 3.11.4: the resource as stored, with its new meta; of no write an OperationOutcome."""
    written = client.put("Patient/example", patient)
    asked = client.put("Patient/example", patient, Prefer="return=representation")
    deleted = client.delete("Patient/example")

    assert written.json == patient | {"meta": written.json["meta"]}
    assert asked.json == patient | {"meta": asked.json["meta"]}
    assert (written.json["meta"]["versionId"], asked.json["meta"]["versionId"]) == ("1", "2")
    assert deleted.content == b""


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_could_be_done_later_is_done_at_once(client, patient, method):
    """3.11.8: `respond-async` is a wish that need not be granted. RFC 7240, section 4.1"""
    client.put("Patient/example", patient)

    response = client.request(
        method, "Patient/example", patient if method == "PUT" else None, Prefer="respond-async"
    )

    assert response.status_code in (200, 204)
    assert "Content-Location" not in response.headers or "_history" in response.headers["Content-Location"]
