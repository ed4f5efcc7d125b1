"""Histories posted to the base. docs/interactions/history-bundles.md"""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from gitstore import Settings, Store, init
from gitstore.fhir.json import dumps, loads
from gitstore.histories import COMMIT_URL
from sample_repo.build import BUNDLE

ENTRY = {
    "resource": {"resourceType": "Patient", "id": "a"},
    "request": {"method": "PUT", "url": "Patient/a"},
    "response": {"status": "200", "etag": 'W/"1"', "lastModified": "2023-11-14T22:13:30Z"},
}


@pytest.fixture
def accepting(settings: Settings) -> Settings:
    return replace(settings, history_bundles="accept")


@pytest.fixture
def taker(make_client, accepting):
    """A server of an empty record that takes over histories."""
    return make_client(accepting)


@pytest.fixture
def source(tmp_path, make_client, settings, clock):
    """A server of another record, with a story: by POST, updated, a transaction, deleted, each a minute later."""
    path = init(tmp_path / "source.git", clock=lambda: clock.now)
    ids = count(1)
    with Store.open(path, settings, clock=clock, new_id=lambda: f"new-{next(ids)}") as store:
        client = make_client(settings, store)
        clock.forward(60)
        client.post("Patient", {"resourceType": "Patient", "birthDate": "1815-12-10"})
        clock.forward(60)
        client.put("Patient/new-1", {"resourceType": "Patient", "id": "new-1", "active": True})
        clock.forward(60)
        entries = [
            {"resource": {"resourceType": type, "id": "t"}, "request": {"method": "PUT", "url": f"{type}/t"}}
            for type in ("Observation", "Patient")
        ]
        client.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
        clock.forward(60)
        client.delete("Patient/new-1")
        yield client


def history(*entries: Any, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "history", "entry": list(entries), **more}


def without_commits(bundle: Any) -> Any:
    """The entries, but for what commits are called: that depends on their parents."""
    entries = json.loads(json.dumps(bundle["entry"]))
    for entry in entries:
        told = entry["response"]["extension"]
        entry["response"]["extension"] = [each for each in told if each["url"] != COMMIT_URL]
    return entries


def test_what_history_answers_can_be_posted_to_another_server(source, taker):
    """The whole body as it came: the other server's history is the same."""
    told = source.get("_history")

    response = taker.request("POST", "", told.text)

    assert response.status_code == 200
    assert without_commits(taker.get("_history").json) == without_commits(told.json)
    for name in ("Patient/new-1/_history/1", "Patient/new-1/_history/2", "Patient/t", "Observation/t"):
        assert taker.get(name).content == source.get(name).content
    assert taker.get("Patient/new-1").status_code == 410


def test_the_answer_is_a_batch_response_in_the_order_of_the_request(source, taker):
    """With what each version is now here; Git-Commit is the last commit made."""
    response = taker.post("", source.get("_history").json)

    assert (response.json["resourceType"], response.json["type"]) == ("Bundle", "batch-response")
    base = "http://localhost:8080/fhir"
    assert [
        (each["status"][:3], each["etag"], each["lastModified"][11:19], each.get("location"))
        for each in (entry["response"] for entry in response.json["entry"])
    ] == [
        ("204", 'W/"3"', "22:17:20", None),
        ("201", 'W/"1"', "22:16:20", f"{base}/Patient/t/_history/1"),
        ("201", 'W/"1"', "22:16:20", f"{base}/Observation/t/_history/1"),
        ("200", 'W/"2"', "22:15:20", f"{base}/Patient/new-1/_history/2"),
        ("201", 'W/"1"', "22:14:20", f"{base}/Patient/new-1/_history/1"),
    ]
    newest = taker.get("_history?_count=1")
    assert response.headers["Git-Commit"] == newest.headers["Git-Commit"]
    assert {each["url"]: each for each in newest.json["entry"][0]["response"]["extension"]}[COMMIT_URL][
        "valueString"
    ] == response.headers["Git-Commit"]


def test_xml_is_taken_as_well(source, taker):
    told = source.get("_history", Accept="application/fhir+xml")

    response = taker.request("POST", "", told.text, Content_Type="application/fhir+xml")

    assert response.status_code == 200
    assert taker.get("Patient/t").content == source.get("Patient/t").content


def test_a_server_that_was_not_told_so_takes_none(source, client, issue):
    """405: fhir.historyBundles is a permission of its own."""
    response = client.post("", source.get("_history").json)

    assert response.status_code == 405
    assert issue(response) == (
        "error",
        "not-supported",
        "Histories are taken over only where fhir.historyBundles is `accept`.",
    )
    assert client.get("_history").json["total"] == 0


def test_the_same_again_is_a_conflict(source, taker, issue):
    """409, and nothing is written."""
    told = source.get("_history").json
    taker.post("", told)

    response = taker.post("", told)

    assert response.status_code == 409
    assert issue(response)[:2] == ("error", "conflict")
    assert response.json["issue"][0]["expression"] == ["Bundle.entry[4]"]
    assert taker.get("_history").json["total"] == 5


def test_a_gap_is_a_conflict_and_nothing_is_written(taker, issue):
    third = {
        **ENTRY,
        "response": {**ENTRY["response"], "etag": 'W/"3"', "lastModified": "2023-11-14T22:13:31Z"},
    }

    response = taker.post("", history(third, ENTRY))

    assert response.status_code == 409
    assert issue(response)[2] == "`Patient/a` is at version 1; the next is 2, and not 3."
    assert taker.get("_history").json["total"] == 0


def test_a_page_of_several_is_refused(source, taker, issue):
    """422: a commit may be cut at its end. Joined, the pages are taken."""
    pages = [source.get("_history?_count=2")]
    while len(pages) < 3:
        link = next(each["url"] for each in pages[-1].json["link"] if each["relation"] == "next")
        pages.append(source.follow(link))

    response = taker.post("", pages[-1].json)

    assert (response.status_code, issue(response)[1]) == (422, "business-rule")
    assert "one page of several" in issue(response)[2]
    joined = history(*(entry for page in pages for entry in page.json["entry"]))
    assert taker.post("", joined).status_code == 200
    assert without_commits(taker.get("_history").json) == without_commits(source.get("_history").json)


def test_later_versions_follow_by_since(source, taker, clock):
    """`_since` the last commit, exclusive: a copy is kept up to date."""
    taker.post("", source.get("_history").json)
    last = taker.get("_history?_count=1").json["entry"][0]["response"]["lastModified"]
    clock.forward(60)
    source.put("Patient/t", {"resourceType": "Patient", "id": "t", "active": True})

    after = last.replace(".250000Z", ".250001Z")
    response = taker.post("", source.get(f"_history?_since={after}").json)

    assert response.status_code == 200
    assert without_commits(taker.get("_history").json) == without_commits(source.get("_history").json)


def test_the_future_is_refused(taker, issue):
    response = taker.post(
        "", history({**ENTRY, "response": {**ENTRY["response"], "lastModified": "2024-01-01T00:00:00Z"}})
    )

    assert response.status_code == 422
    assert "five minutes ahead of this server's clock" in issue(response)[2]


@pytest.mark.parametrize("header", ["X_Commit_Message", "X_Provenance", "Idempotency_Key"])
def test_nothing_is_added_to_a_history(taker, header, issue):
    response = taker.post("", history(ENTRY), **{header: "{}"})

    assert response.status_code == 400
    assert issue(response)[1] == "not-supported"


def test_too_many_entries_are_too_large(taker, accepting):
    assert taker.post("", history(*[ENTRY] * (accepting.max_entries + 1))).status_code == 413


@pytest.mark.parametrize("entries", [{}, 1, "text", [1], [None], [{}]])
def test_what_is_no_list_of_entries_is_refused(taker, entries):
    response = taker.post("", {"resourceType": "Bundle", "type": "history", "entry": entries})

    assert response.status_code == 400


def test_an_empty_history_changes_nothing(taker):
    response = taker.post("", {"resourceType": "Bundle", "type": "history"})

    assert response.status_code == 200
    assert response.json == {"resourceType": "Bundle", "type": "batch-response"}
    assert taker.get("_history").json["total"] == 0


def test_the_capability_statement_says_so_where_it_is_on(client, taker):
    says = [each.get("metadata").json["rest"][0].get("documentation", "") for each in (client, taker)]

    assert ["type history" in text for text in says] == [False, True]


def test_the_sample_clinic_moves_by_http(tmp_path, make_client):
    """No git between the two: every version is byte-identical, validated in full on its way."""
    clinic, copy = tmp_path / "clinic.git", tmp_path / "copy.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", BUNDLE, clinic], check=True)
    init(copy)
    with Store.open(clinic) as old, Store.open(copy, Settings(durability="off")) as new:
        source, taker = make_client(Settings(), old), make_client(Settings(history_bundles="accept"), new)
        # Not Python's own json, which writes other digits than it has read.
        page = loads(source.get("_history?_count=1000").content)
        entries = page["entry"]
        while link := {each["relation"]: each["url"] for each in page["link"]}.get("next"):
            page = loads(source.follow(link).content)
            entries += page["entry"]

        response = taker.post("", dumps(history(*entries)))

        assert response.status_code == 200, response.text
        before, after = old.snapshot(), new.snapshot()
        versions = before.history(count=100_000).versions
        assert len(versions) == len(entries) > 20
        for version in versions:
            moved = after.version(version.resource_id, version.version_id)
            assert (moved.last_updated, moved.commit.author) == (version.last_updated, version.commit.author)
            assert moved.deleted == version.deleted
            assert version.deleted or after.body(moved) == before.body(version)
        assert list(new.verify()) == []
