"""Searches that are sent rather than linked: `_search`, and entries of Bundles. https://hl7.org/fhir/R4/http.html#search"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl

import pytest

from tests.api.ward import BASE, ids, link, reader, repository, ward

__all__ = ["reader", "repository", "ward"]

FORM = "application/x-www-form-urlencoded"


def send(client, path, form, **headers):
    return client.post(path, form, **{"Content_Type": FORM} | headers)


@pytest.mark.parametrize(
    ("path", "form", "same"),
    [
        ("Patient/_search", "name=byron", "Patient?name=byron"),
        ("Patient/_search?name=byron", "", "Patient?name=byron"),
        ("Observation/_search?status=final", "date=2026-01-02&_sort=date", "Observation?status=final&date=2026-01-02&_sort=date"),
        ("_search", "_type=Patient&_id=ada", "?_type=Patient&_id=ada"),
        ("Patient/ada/Observation/_search", "date=2026-01-02", "Patient/ada/Observation?date=2026-01-02"),
        ("Patient/ada/_search", "_type=Observation", "Patient/ada/*?_type=Observation"),
        ("Patient/ada/*/_search", "_type=Observation", "Patient/ada/*?_type=Observation"),
    ],
)  # fmt: skip
def test_a_form_is_answered_as_a_link(reader, path, form, same):
    """12a.1: GET and POST agree to the byte; what stands in the URL comes first. The self link can be GET."""
    posted = send(reader, path, form)

    assert posted.status_code == 200
    assert posted.content == reader.get(same).content
    assert posted.headers["Git-Commit"]


def test_a_search_may_have_no_body(reader):
    """Then it needs no Content-Type either."""
    response = reader.request("POST", "Patient/_search?name=byron")

    assert response.status_code == 200
    assert ids(response.json) == ["ada"]


@pytest.mark.parametrize(
    "content_type",
    ["application/fhir+json", "text/html", "multipart/form-data; boundary=x", f"{FORM}; charset=latin-1"],
)
def test_the_body_is_a_form(reader, issue, content_type):
    """415"""
    response = send(reader, "Patient/_search", "name=byron", Content_Type=content_type)

    assert response.status_code == 415
    assert issue(response)[1] == "not-supported"


def test_a_body_without_a_type_is_no_form(reader):
    response = reader._http.simulate_post(
        "/fhir/Patient/_search", headers={"Host": "localhost:8080"}, body="name=byron"
    )

    assert response.status_code == 415


def test_a_form_says_its_charset(reader):
    assert ids(send(reader, "Patient/_search", "name=byron", Content_Type=f"{FORM};charset=UTF-8").json) == [
        "ada"
    ]
    assert ids(send(reader, "Patient/_search", "name=Müller".encode()).json) == ["bob"]


@pytest.mark.parametrize("body", [b"name=%FF", b"name=\xff"])
def test_a_form_is_utf_8(reader, issue, body):
    response = send(reader, "Patient/_search", body)

    assert response.status_code == 400
    assert issue(response)[:2] == ("error", "value")


@pytest.mark.parametrize("size", [60_000, 300_000])
def test_a_form_is_no_larger_than_links_can_be(reader, issue, size):
    """413: the pages that follow are links."""
    response = send(reader, "Patient/_search", "name=" + "x" * size)

    assert response.status_code == 413
    assert issue(response)[1] == "too-long"


def test_a_form_may_say_in_which_form_to_answer(reader):
    """2.8: `_format` and `_pretty`, in the URL or in the body."""
    for path, form in (("Patient/_search", "_format=xml"), ("Patient/_search?_format=xml", "name=byron")):
        assert send(reader, path, form).headers["Content-Type"] == "application/fhir+xml"
    assert send(reader, "Patient/_search", "_format=turtle").status_code == 406
    assert b"\n  " in send(reader, "Patient/_search", "name=nobody&_pretty=true").content


def test_the_pages_of_a_form_are_links(reader):
    """12a.7"""
    first = send(reader, "Observation/_search?_count=2", "status=final").json

    assert parse_qsl(link(first, "next").partition("?")[2])[:-1] == [("_count", "2"), ("status", "final")]
    assert ids(reader.follow(link(first, "next")).json) == ["o3"]


def test_a_form_can_be_strict(reader):
    assert send(reader, "Patient/_search", "unknown=x").status_code == 200
    assert send(reader, "Patient/_search", "unknown=x", Prefer="handling=strict").status_code == 400


@pytest.mark.parametrize(
    "path", ["Gurke/_search", "Gurke/1/_search", "Patient/1/Gurke/_search", "Group/1/_search"]
)
def test_an_unknown_place_is_not_found(reader, path):
    assert send(reader, path, "name=x").status_code == 404


# Entries of Bundles


def bundle(kind, *urls, method="GET"):
    entries = [{"request": {"method": method, "url": url}} for url in urls]
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


SEARCHES = (
    "Patient?name=byron",
    "Observation?subject=Patient/ada&_count=1&_include=Observation:subject",
    "Patient/ada/Observation?date=2026-01-02",
    "Patient/ada/*",
    "?_type=Patient",
    "Patient?unknown=x",
    f"{BASE}/Patient?_summary=true",
)


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_an_entry_can_be_a_search(reader, kind):
    """14.16: its answer is the Bundle that a request of its own would get."""
    response = reader.post("", bundle(kind, *SEARCHES))

    assert response.status_code == 200
    for url, entry in zip(SEARCHES, response.json["entry"], strict=True):
        assert entry["response"]["status"] == "200 OK"
        assert entry["resource"] == reader.get(url.removeprefix(f"{BASE}/")).json


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_entry_can_be_a_search_by_its_other_name(reader, kind, method):
    """`_search` writes nothing, so that it needs no resource."""
    urls = ("Patient/_search?name=byron", "_search?_type=Patient", "Patient/ada/_search?_type=Observation")
    response = reader.post("", bundle(kind, *urls, method=method))

    found = [ids(entry["resource"]) for entry in response.json["entry"]]
    assert found == [["ada"], ["ada", "bob"], ["o1", "o2", "o3"]]


def test_a_transactions_search_sees_what_it_writes(client):
    """https://hl7.org/fhir/R4/http.html#trules: reads come last, whatever the order of entries."""
    write = {"resource": {"resourceType": "Patient", "name": [{"family": "Hopper"}]}}
    write["request"] = {"method": "POST", "url": "Patient"}
    sent = bundle("transaction", "Patient?name=hopper")
    sent["entry"].append(write)

    found, created = client.post("", sent).json["entry"]

    assert found["resource"]["total"] == 1
    assert created["response"]["location"].startswith(found["resource"]["entry"][0]["fullUrl"])


def test_a_batchs_search_sees_what_it_writes(client):
    sent = bundle("batch", "Patient?_summary=count", "Gurke?a=b", "Patient?name:x=y")
    sent["entry"].append({"request": {"method": "DELETE", "url": "Patient/bob"}})

    counted, *refused, deleted = client.post("", sent).json["entry"]

    assert counted["resource"]["total"] == 1
    assert [each["response"]["status"][:3] for each in refused] == ["404", "400"]
    assert deleted["response"]["status"].startswith("204")


def test_handling_is_that_of_the_whole_request(client, make_client, settings):
    """Prefer stands on the batch; a transaction is refused as a whole."""
    strict = {"Prefer": "handling=strict"}

    [entry] = client.post("", bundle("batch", "Patient?unknown=x"), **strict).json["entry"]
    assert entry["response"]["status"].startswith("400")
    assert client.post("", bundle("transaction", "Patient?unknown=x"), **strict).status_code == 400
    by_setting = make_client(replace(settings, search_handling="strict"))
    assert by_setting.post("", bundle("transaction", "Patient?unknown=x")).status_code == 400


def test_a_search_among_entries_brings_no_resource(reader, issue):
    """What would be ignored is refused."""
    sent = bundle("transaction", "Patient/_search", method="POST")
    sent["entry"][0]["resource"] = {"resourceType": "Parameters"}

    response = reader.post("", sent)

    assert response.status_code == 400
    assert response.json["issue"][0]["expression"] == ["Bundle.entry[0]"]


def test_a_head_among_entries_has_no_content(reader):
    [entry] = reader.post("", bundle("batch", "Patient?name=byron", method="HEAD")).json["entry"]

    assert entry == {"response": {"status": "200 OK"}}
