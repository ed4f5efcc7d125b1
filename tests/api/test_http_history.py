"""The three histories over HTTP. https://hl7.org/fhir/R4/http.html#history"""

from __future__ import annotations

from itertools import chain

import pytest

from gitstore.histories import AUTHOR_URL, COMMIT_URL

BASE = "http://localhost:8080/fhir"


@pytest.fixture
def story(client, clock):
    """Created by POST, updated, deleted, revived; and an Observation, one minute apart from 22:13:20.25."""
    client.post("Patient", {"resourceType": "Patient"})
    clock.forward(60)
    client.put("Patient/new-1", {"resourceType": "Patient", "id": "new-1", "active": True})
    clock.forward(60)
    client.delete("Patient/new-1")
    clock.forward(60)
    client.put("Patient/new-1", {"resourceType": "Patient", "id": "new-1", "active": False})
    clock.forward(60)
    client.put("Observation/o", {"resourceType": "Observation", "id": "o"})


def versions(response):
    """Method, URL and version of each entry."""
    return [
        (entry["request"]["method"], entry["request"]["url"], entry["response"]["etag"])
        for entry in response.json.get("entry", [])
    ]


def links(response):
    return {link["relation"]: link["url"] for link in response.json["link"]}


def test_an_instance_history_has_every_version_newest_first(client, story, store):
    """15.1, 15.2, 15.3, 15.5: a create is a POST to the type, an update and a revival a PUT, a deletion a DELETE."""
    response = client.get("Patient/new-1/_history")

    assert response.status_code == 200
    assert (response.json["type"], response.json["total"]) == ("history", 4)
    assert versions(response) == [
        ("PUT", "Patient/new-1", 'W/"4"'),
        ("DELETE", "Patient/new-1", 'W/"3"'),
        ("PUT", "Patient/new-1", 'W/"2"'),
        ("POST", "Patient", 'W/"1"'),
    ]
    assert [entry["response"]["status"][:3] for entry in response.json["entry"]] == [
        "201",
        "204",
        "200",
        "201",
    ]
    assert response.headers["Git-Commit"] == store.snapshot().commit.id
    assert response.json["meta"]["lastUpdated"] == "2023-11-14T22:17:20.250000Z"


def test_type_and_system_histories(client, story):
    """15.1, 15.7: an empty type is an empty history."""
    assert len(versions(client.get("Patient/_history"))) == 4
    assert versions(client.get("_history"))[0] == ("PUT", "Observation/o", 'W/"1"')
    assert len(versions(client.get("_history"))) == 5
    empty = client.get("Device/_history")
    assert (empty.status_code, empty.json["total"]) == (200, 0)
    assert "entry" not in empty.json


def test_an_entry_says_what_happened(client, story, store):
    """15.4, 15.6: fullUrl without version, the stored resource, lastModified; and who and which commit, as extensions."""
    entry = client.get("Patient/new-1/_history").json["entry"][2]

    assert entry["fullUrl"] == f"{BASE}/Patient/new-1"
    assert entry["resource"] == client.get("Patient/new-1/_history/2").json
    assert entry["response"]["lastModified"] == entry["resource"]["meta"]["lastUpdated"]
    extensions = {each["url"]: each["valueString"] for each in entry["response"]["extension"]}
    assert store.resolve(extensions[COMMIT_URL]).sequence == 3
    assert extensions[AUTHOR_URL] == "anonymous <anonymous@fhir.invalid>"


def test_a_deletion_has_no_resource(client, story):
    """15.4"""
    entry = client.get("Patient/new-1/_history").json["entry"][1]

    assert "resource" not in entry
    assert entry["response"]["lastModified"] == "2023-11-14T22:15:20.250000Z"


def test_the_history_of_the_unknown_is_not_found(client, story):
    """15.7: an id that never was, a type that isn't; a deleted one has a history."""
    assert client.get("Patient/nobody/_history").status_code == 404
    assert client.get("Gurke/_history").status_code == 404
    client.delete("Observation/o")
    assert client.get("Observation/o/_history").json["total"] == 2


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("2023-11-14T22:14:20.25Z", 4),
        ("2023-11-14T22:14:20.250001Z", 3),
        ("2023-11-14T23:14:20.25+01:00", 4),
        ("2023-11-14T23:14:20.25 01:00", 4),
        ("2033-01-01T00:00:00Z", 0),
    ],
)
def test_since_is_inclusive(client, story, since, expected):
    """15.8, 15.14: a + that arrives as a space is still a +."""
    response = client.get(f"_history?_since={since}")

    assert response.json["total"] == expected == len(versions(response))


@pytest.mark.parametrize("since", ["2023-11-14", "yesterday", "2023-11-14T22:14:20", ""])
def test_since_must_be_an_instant(client, story, since, issue):
    """15.8"""
    response = client.get(f"_history?_since={since}")

    assert response.status_code == 400
    assert issue(response)[1] == "value"


def test_at_shows_what_was_current(client, story):
    """15.9: versions that were current at some point of the period, a deletion among them."""
    assert versions(client.get("Patient/new-1/_history?_at=2023-11-14T22:15:00Z")) == [
        ("PUT", "Patient/new-1", 'W/"2"')
    ]
    assert versions(client.get("Patient/new-1/_history?_at=2023-11-14T22:16:00Z")) == [
        ("DELETE", "Patient/new-1", 'W/"3"')
    ]
    assert len(versions(client.get("Patient/new-1/_history?_at=2023"))) == 4
    assert client.get("Patient/new-1/_history?_at=2022").json["total"] == 0


def test_count_limits_a_page(client, story):
    """15.10: never exceeded; 0 is the total alone, as is _summary=count."""
    assert len(versions(client.get("_history?_count=2"))) == 2
    for url in ("_history?_count=0", "_history?_summary=count"):
        counted = client.get(url)
        assert counted.json["total"] == 5
        assert "entry" not in counted.json


@pytest.mark.parametrize(
    "query",
    [
        "_count=-1",
        "_count=x",
        "_count=1.5",
        "_count=",
        "_sort=_lastUpdated",
        "_list=List/1",
        "name=x",
        "_page=x",
        "_page=0",
    ],
)
def test_what_a_history_can_not_do_is_refused(client, story, query):
    """15.10, 15.12"""
    assert client.get(f"_history?{query}").status_code == 400


def test_parameters_must_not_repeat(client, story, issue):
    """15.12"""
    response = client.get("_history?_count=1&_count=2")

    assert response.status_code == 400
    assert "_count" in issue(response)[2]


def test_pages_lead_forward_and_back(client, story):
    """15.13: all entries once, newest first; back over the same pages."""
    pages = [client.get("_history?_count=2&_since=2000-01-01T00:00:00Z")]
    while "next" in links(pages[-1]):
        pages.append(client.follow(links(pages[-1])["next"]))

    assert [len(versions(page)) for page in pages] == [2, 2, 1]
    assert list(chain(*map(versions, pages))) == versions(client.get("_history"))
    assert {page.json["total"] for page in pages} == {5}
    assert "previous" not in links(pages[0])

    back = [pages[-1]]
    while "previous" in links(back[-1]):
        back.append(client.follow(links(back[-1])["previous"]))
    assert [versions(page) for page in back] == [versions(page) for page in reversed(pages)]
    assert versions(client.follow(links(pages[2])["first"])) == versions(pages[0])
    for page in pages:
        assert versions(client.follow(links(page)["self"])) == versions(page)


@pytest.mark.parametrize("scope", ["_history", "Patient/_history", "Patient/new-1/_history"])
def test_pages_are_pinned(client, story, scope):
    """15.13: writes between two pages move nothing, and the date of the Bundle stays that of the first page."""
    first = client.get(f"{scope}?_count=2")
    expected = versions(client.get(scope))
    client.put("Patient/new-1", {"resourceType": "Patient", "id": "new-1"})
    client.put("Patient/later", {"resourceType": "Patient", "id": "later"})

    second = client.follow(links(first)["next"])

    assert versions(first) + versions(second) == expected[:4]
    assert second.json["total"] == len(expected)
    assert second.json["meta"] == first.json["meta"]
    assert second.headers["Git-Commit"] == first.headers["Git-Commit"]


def test_the_self_link_says_what_was_asked(client, story):
    """15.13"""
    response = client.get("Patient/_history?_since=2023-11-14T23:14:20 01:00&_count=2")

    assert links(response)["self"] == f"{BASE}/Patient/_history?_since=2023-11-14T23:14:20%2B01:00&_count=2"


def test_history_can_be_printed_prettily(client, story):
    """15.14: _pretty changes the form only."""
    assert client.get("_history?_pretty=true").json == client.get("_history").json
    assert "\n" in client.get("_history?_pretty=true").text
    assert "\n  " not in client.get("Device/_history").text


def test_history_can_not_be_posted_to(client, story):
    """15.18"""
    response = client.post("Patient/_history", {})

    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_the_verb_of_a_conditional_or_bundled_write_is_the_direct_one(client):
    """15.5: what a transaction made stands as if each had come by itself."""
    entries = [
        {"request": {"method": "POST", "url": "Patient"}, "resource": {"resourceType": "Patient"}},
        {
            "request": {"method": "PUT", "url": "Patient/p"},
            "resource": {"resourceType": "Patient", "id": "p"},
        },
    ]
    client.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries})

    assert versions(client.get("_history")) == [("PUT", "Patient/p", 'W/"1"'), ("POST", "Patient", 'W/"1"')]
