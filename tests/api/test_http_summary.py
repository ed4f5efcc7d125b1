"""_summary and _elements over HTTP. https://hl7.org/fhir/R4/http.html#parameters"""

from __future__ import annotations

from typing import Any

import pytest

from gitstore.fhir import xml
from gitstore.fhir.summary import SUBSETTED


@pytest.fixture
def ada(client) -> dict[str, Any]:
    """A Patient in two versions."""
    patient = {
        "resourceType": "Patient",
        "id": "ada",
        "text": {"status": "generated", "div": "<div xmlns='http://www.w3.org/1999/xhtml'>Ada</div>"},
        "active": True,
        "name": [{"family": "Lovelace"}],
        "photo": [{"url": "http://photo"}],
    }
    client.put("Patient/ada", patient)
    client.put("Patient/ada", {**patient, "birthDate": "1815"})
    return patient


PARTS = [
    ("_summary=true", ["active", "name", "birthDate"]),
    ("_summary=text", ["text"]),
    ("_summary=data", ["active", "name", "photo", "birthDate"]),
    ("_elements=photo,birthDate", ["active", "photo", "birthDate"]),
    ("_elements=photo&_summary=false", ["active", "photo"]),
]


@pytest.mark.parametrize(("query", "names"), PARTS)
def test_a_part_of_a_resource_is_read(client, ada, query, names):
    """2.14: tagged, with the headers of the whole version."""
    whole = client.get("Patient/ada")

    response = client.get(f"Patient/ada?{query}")

    assert response.status_code == 200
    assert list(response.json) == ["resourceType", "id", "meta", *names]
    assert response.json["meta"] == {**whole.json["meta"], "tag": [SUBSETTED]}
    assert response.headers["ETag"] == whole.headers["ETag"] == 'W/"2"'
    assert client.get("Patient/ada").content == whole.content


@pytest.mark.parametrize(("query", "names"), PARTS)
def test_a_part_of_a_version_is_read(client, ada, query, names):
    """2.14: vread, and in XML."""
    response = client.get(f"Patient/ada/_history/1?{query}", Accept="application/fhir+xml")

    part = xml.loads(response.content)
    assert [name for name in part if name not in ("resourceType", "id", "meta")] == sorted(
        (name for name in names if name != "birthDate"), key=list(ada).index
    )
    assert part["meta"]["tag"] == [SUBSETTED]
    assert part["meta"]["versionId"] == "1"


def test_parts_of_a_history(client, ada):
    """15.14: each entry's resource; the links go on asking for it."""
    client.delete("Patient/ada")

    page = client.get("Patient/ada/_history?_elements=birthDate&_count=2").json

    deletion, second = page["entry"]
    assert "resource" not in deletion
    assert list(second["resource"]) == ["resourceType", "id", "meta", "active", "birthDate"]
    assert second["resource"]["meta"]["tag"] == [SUBSETTED]
    [following] = [link["url"] for link in page["link"] if link["relation"] == "next"]
    [first] = client.follow(following).json["entry"]
    assert list(first["resource"]) == ["resourceType", "id", "meta", "active"]


def test_the_count_of_a_history(client, ada):
    """15.10: the total alone."""
    page = client.get("_history?_summary=count").json

    assert page["total"] == 2
    assert "entry" not in page


def test_an_entry_of_a_bundle_can_ask_for_a_part(client, ada):
    """A GET within a batch has the parameters of its interaction."""
    urls = ["Patient/ada?_elements=name", "Patient/ada/_history/1?_summary=text", "Patient/ada?_summary=x"]
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]

    answer = client.post("", {"resourceType": "Bundle", "type": "batch", "entry": entries}).json

    named, text, refused = answer["entry"]
    assert list(named["resource"]) == ["resourceType", "id", "meta", "active", "name"]
    assert list(text["resource"]) == ["resourceType", "id", "meta", "text"]
    assert refused["response"]["status"] == "400 Bad Request"


@pytest.mark.parametrize(
    "query",
    [
        "_summary=yes",
        "_summary=",
        "_summary=count",
        "_summary=true&_elements=name",
        "_elements=a&_elements=b",
    ],
)
def test_what_can_not_be_understood_is_refused(client, ada, issue, query):
    """2.14: 400 rather than silently the whole; one resource has no count."""
    response = client.get(f"Patient/ada?{query}")

    assert response.status_code == 400
    assert issue(response)[:2] == ("error", "value")


def test_false_and_no_names_are_the_whole(client, ada):
    """Not a byte is different."""
    whole = client.get("Patient/ada").content

    for query in ("_summary=false", "_elements=", "_elements=,"):
        assert client.get(f"Patient/ada?{query}").content == whole


def test_a_write_has_no_summary(client, ada, store):
    """What comes back of a write is what Prefer says; the parameter is refused before anything happens."""
    before = store.snapshot().commit

    assert client.put("Patient/ada?_summary=true", ada).status_code == 400
    assert client.delete("Patient/ada?_elements=name").status_code == 400
    assert store.snapshot().commit == before
