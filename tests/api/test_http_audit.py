"""$diff, $blame and $changes over HTTP. docs/audit.md"""

from __future__ import annotations

from typing import Any

import pytest

from gitstore import Author, Update
from gitstore.fhir import json
from gitstore.fhir.compare import same
from gitstore.fhir.ids import ResourceId, VersionId


@pytest.fixture
def told(client, patient, clock):
    """`Patient/example` with three versions, ten seconds apart."""
    client.put("Patient/example", patient)
    clock.forward(10)
    client.put("Patient/example", {**patient, "name": [{"family": "Byron"}], "meta": {"source": "#a"}})
    clock.forward(10)
    client.put("Patient/example", {**patient, "name": [{"text": "Ada"}, {"family": "Byron"}]})
    return client


def operations(response: Any) -> list[tuple[str, ...]]:
    assert response.status_code == 200, response.text
    assert response.json["resourceType"] == "Parameters"
    return [
        tuple(str(value) for part in each["part"][:3] for name, value in part.items() if name != "name")
        for each in response.json.get("parameter", [])
    ]


NAMED = ("insert", "Patient.name", "0")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [NAMED]),
        ("?fromVersion=2", [NAMED]),
        ("?fromVersion=1&toVersion=2", [("add", "Patient", "name")]),
        ("?toVersion=2", [("add", "Patient", "name")]),
        ("?fromVersion=3", []),
        ("?fromVersion=3&toVersion=1", [("delete", "Patient.name[1]"), ("delete", "Patient.name[0]")]),
        ("?includeMeta=true", [("delete", "Patient.meta.source"), NAMED]),
        ("?toVersion=1", [("add", "Patient", "active")]),
    ],
)
def test_the_difference_of_two_versions(told, query, expected):
    """HAPI FHIR's $diff: from the version before the newest one, without meta. A first version is compared with nothing."""
    assert sorted(operations(told.get(f"Patient/example/$diff{query}"))) == sorted(expected)


def test_a_difference_is_a_patch(told):
    """Sent to the older version, it makes the newer one."""
    patch = told.get("Patient/example/$diff?fromVersion=1&toVersion=3").json
    told.put("Patient/example", told.get("Patient/example/_history/1").json)

    answer = told.request("PATCH", "Patient/example", patch)

    assert answer.status_code == 200, answer.text
    newer = told.get("Patient/example/_history/3").json
    assert same(
        {name: value for name, value in answer.json.items() if name != "meta"},
        {name: value for name, value in newer.items() if name != "meta"},
    )


def test_the_difference_of_two_resources(told, patient):
    told.put("Patient/other", {**patient, "id": "other", "gender": "female"})

    found = told.get("$diff?from=Patient/example/_history/1&to=Patient/other")

    assert operations(found) == [("add", "Patient", "gender")]


def test_parameters_may_stand_in_the_body(told):
    """https://hl7.org/fhir/R4/operations.html#executing"""
    body = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "fromVersion", "valueInteger": 1},
            {"name": "includeMeta", "valueBoolean": False},
        ],
    }

    assert len(operations(told.post("Patient/example/$diff", body))) == 2
    assert told.post("Patient/example/$diff", {"resourceType": "Patient"}).status_code == 400
    assert told.post("Patient/example/$diff?fromVersion=2", body).status_code == 400
    for wrong in ([{"name": "x", "valueCode": "1"}], [{"name": "fromVersion"}], ["x"], {"a": 1}):
        sent = {"resourceType": "Parameters", "parameter": wrong}
        assert told.post("Patient/example/$diff", sent).status_code == 400


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("Patient/example/$diff?fromVersion=4", 404),
        ("Patient/example/$diff?fromVersion=x", 404),
        ("Patient/example/$diff?includeMeta=x", 400),
        ("Patient/example/$diff?x=1", 400),
        ("Patient/nobody/$diff", 404),
        ("Patent/1/$diff", 404),
        ("Patient/gone/$diff", 410),
        ("$diff?from=Patient/example", 400),
        ("$diff?from=Patient/example&to=Patient", 400),
        ("$diff?from=Patient/example&to=Patient/example/_history/x", 400),
        ("$diff?from=Patient/example&to=Patient/nobody", 404),
        ("$diff?from=Patient/example&to=Patient/gone", 410),
        ("$diff?from=Patient/example&to=Basic/b", 400),
        ("$diff?from=Patient/example&to=Patient/odd", 422),
        ("Patient/nobody/$blame", 404),
        ("Patient/gone/$blame", 410),
        ("Patient/example/$blame?version=9", 404),
        ("$changes", 400),
        ("$changes?from=nothing", 404),
        ("$changes?from=a_b", 400),
        (f"$changes?from={'0' * 40}", 404),
        ("$changes?from=1999-01-01", 404),
        ("$changes?from=2999-13-01", 400),
        ("$changes?from=2999-13-01T00:00:00Z", 400),
        ("$changes?from=2999-01-01&_type=Patent", 404),
        ("$changes?from=2999-01-01&_count=x", 400),
        ("$changes?from=2999-01-01&_page=x", 400),
        ("$changes?from=2999-01-01&to=2023-11-14T22:13:20Z", 400),
    ],
)
def test_what_can_not_be_told(told, patient, issue, url, status):
    """What isn't there is 404, what was deleted 410, what can't be meant 400, what R4 has no path for 422."""
    told.put("Patient/gone", {**patient, "id": "gone"})
    told.delete("Patient/gone")
    told.put("Basic/b", {"resourceType": "Basic", "id": "b"})
    told.put("Patient/odd", {**patient, "id": "odd", "colour": "red"})

    answer = told.get(url)

    assert answer.status_code == status, answer.text
    issue(answer)


def test_blame_names_the_version_of_each_element(told, store):
    """With who and when, and the commit."""
    answer = told.get("Patient/example/$blame")

    assert answer.status_code == 200
    found = [
        {part["name"]: next(value for name, value in part.items() if name != "name") for part in each["part"]}
        for each in answer.json["parameter"]
    ]
    assert [(each["path"], each["version"]) for each in found] == [
        ("Patient.active", "1"),
        ("Patient.name[0].text", "3"),
        ("Patient.name[1].family", "2"),
    ]
    assert found[0]["lastUpdated"] == "2023-11-14T22:13:20.250000Z"
    assert found[0]["author"] == "anonymous <anonymous@fhir.invalid>"
    first = store.snapshot().version(ResourceId("Patient", "example"), VersionId(1))
    assert found[0]["commit"] == first.commit.id
    older = told.get("Patient/example/$blame?version=1").json["parameter"]
    assert len(older) == 1


def entries(answer: Any) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.json["type"] == "history"
    return [
        (each["fullUrl"].partition("/fhir/")[2], each["response"]["status"][:3])
        for each in answer.json.get("entry", [])
    ]


def test_changes_between_two_points_are_net(client, patient, clock, store):
    """One entry for each resource: what came and went in between is not told."""
    client.put("Patient/stays", {**patient, "id": "stays"})
    client.put("Patient/goes", {**patient, "id": "goes"})
    first = store.snapshot().commit.id
    clock.forward(60)
    client.put("Patient/stays", {**patient, "id": "stays", "active": False})
    client.put("Patient/stays", {**patient, "id": "stays", "gender": "female"})
    client.delete("Patient/goes")
    client.put("Patient/fleeting", {**patient, "id": "fleeting"})
    client.delete("Patient/fleeting")
    client.put("Basic/new", {"resourceType": "Basic", "id": "new"})

    every = [("Basic/new", "201"), ("Patient/goes", "204"), ("Patient/stays", "200")]
    assert entries(client.get(f"$changes?from={first}")) == every
    assert entries(client.get("$changes?from=2023-11-14T22:13:30Z&to=2023-11-14")) == every
    assert entries(client.get(f"$changes?from={first}&_type=Basic,Group")) == every[:1]
    assert entries(client.get(f"$changes?from={first}&to={first}")) == []
    whole = client.get(f"$changes?from={first}").json
    assert [each["request"]["method"] for each in whole["entry"]] == ["PUT", "DELETE", "PUT"]
    assert whole["entry"][2]["resource"]["gender"] == "female"

    page = client.get(f"$changes?from={first}&_count=1")
    found = []
    while True:
        found += entries(page)
        links = {link["relation"]: link["url"] for link in page.json["link"]}
        if "next" not in links:
            break
        client.put("Basic/later", {"resourceType": "Basic", "id": "later"})
        page = client.follow(links["next"])
    assert found == every


def test_what_can_be_asked_is_in_the_capability_statement(client):
    """https://hl7.org/fhir/R4/capabilitystatement.html"""
    [rest] = client.get("metadata").json["rest"]

    assert {each["name"] for each in rest["operation"]} >= {"diff", "changes"}
    assert {each["name"] for each in rest["resource"][0]["operation"]} >= {"diff", "blame"}


def test_answers_come_in_every_form(told):
    """2.8"""
    assert b"<Parameters" in told.get("Patient/example/$diff?_format=xml").content
    assert json.loads(told.get("Patient/example/$blame?_pretty=true").content)


@pytest.mark.parametrize("scope", ["", "Patient/", "Patient/example/"])
@pytest.mark.parametrize("author", ["Ada", "ada@example.org"])
def test_a_history_of_one_author(client, store, patient, scope, author):
    """By name or by mail address, at all three levels, with its own total and pages."""
    for number in range(6):
        who = Author("Ada", "ada@example.org") if number % 2 else Author("Grace", "grace@example.org")
        store.commit([Update(ResourceId("Patient", "example"), {**patient, "active": number % 3 == 0})], who)

    page = client.get(f"{scope}_history?_author={author}&_count=2")
    assert page.json["total"] == 3
    found = [entry["response"]["etag"] for entry in page.json["entry"]]
    links = {link["relation"]: link["url"] for link in page.json["link"]}
    rest = client.follow(links["next"])
    found += [entry["response"]["etag"] for entry in rest.json["entry"]]
    assert found == ['W/"6"', 'W/"4"', 'W/"2"']
    back = {link["relation"]: link["url"] for link in rest.json["link"]}
    assert "next" not in back
    assert client.follow(back["previous"]).json["entry"] == page.json["entry"]
    assert client.get(f"{scope}_history?_author=Nobody").json["total"] == 0
    at = client.get(f"{scope}_history?_author={author}&_at=2999").json
    assert at["total"] == 1
