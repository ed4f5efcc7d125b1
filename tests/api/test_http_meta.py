"""$meta over HTTP. https://hl7.org/fhir/R4/resource-operation-meta.html"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gitstore import Store

META = {
    "profile": ["http://example.org/p"],
    "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}],
    "tag": [{"system": "http://example.org", "code": "a"}],
    "source": "#x",
}


@pytest.fixture
def tagged(client, patient):
    """`Patient/example` with labels in version 1, and without in version 2."""
    client.put("Patient/example", {**patient, "meta": META})
    client.put("Patient/example", patient)
    return client


def returned(response):
    assert response.status_code == 200, response.text
    assert response.json["resourceType"] == "Parameters"
    [parameter] = response.json["parameter"]
    assert parameter["name"] == "return"
    return parameter["valueMeta"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_meta_of_a_version_has_its_labels(tagged, method):
    """16.3: profiles, tags and security labels, and which version they are of."""
    meta = returned(tagged.request(method, "Patient/example/_history/1/$meta"))

    assert meta == {
        "versionId": "1",
        "lastUpdated": "2023-11-14T22:13:20.250000Z",
        "profile": META["profile"],
        "security": META["security"],
        "tag": META["tag"],
    }


def test_meta_of_an_instance_is_that_of_its_current_version(tagged, store):
    """16.3: never empty, as FHIR has no empty Meta; the answer names the commit that was read."""
    response = tagged.get("Patient/example/$meta")

    meta = returned(response)
    assert (meta["versionId"], set(meta)) == ("2", {"versionId", "lastUpdated"})
    assert response.headers["Git-Commit"] == store.snapshot().commit.id


def test_meta_comes_in_every_form(tagged):
    """2.8"""
    assert b"<valueMeta>" in tagged.get("Patient/example/$meta?_format=xml").content
    assert tagged.request("HEAD", "Patient/example/$meta").status_code == 200
    assert "\n" in tagged.get("Patient/example/$meta?_pretty=true").text


@pytest.mark.parametrize(
    "body", [b"", b'{"resourceType":"Parameters"}', b'{"resourceType":"Parameters","parameter":[]}']
)
def test_a_post_may_have_no_parameters(tagged, body):
    """16.1: there are none to give."""
    assert returned(tagged.post("Patient/example/$meta", body))["versionId"] == "2"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"resourceType":"Parameters","parameter":[{"name":"meta"}]}', 400),
        (b'{"resourceType":"Patient"}', 400),
        (b"{", 400),
        (b" ", 400),
    ],
)
def test_a_post_that_asks_for_something_is_refused(tagged, issue, body, status):
    response = tagged.post("Patient/example/$meta", body)

    assert response.status_code == status
    assert issue(response)[0] == "error"


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("Patient/nobody/$meta", 404, "not-found"),
        ("Patient/gone/$meta", 410, "deleted"),
        ("Patient/example/_history/9/$meta", 404, "not-found"),
        ("Patient/gone/_history/2/$meta", 410, "deleted"),
        ("Gurke/1/$meta", 404, "not-supported"),
        ("Patient/a_b/$meta", 400, "value"),
        ("Patient/example/$meta?x=y", 400, "not-supported"),
        ("Gurke/$meta", 404, "not-supported"),
        ("$meta?x=y", 400, "not-supported"),
    ],
)
def test_meta_of_what_is_not_there(tagged, patient, issue, url, status, code):
    """4.2, 4.3, 16.1: refused with the same issues as a read is."""
    tagged.put("Patient/gone", patient | {"id": "gone"})
    tagged.delete("Patient/gone")

    for response in (tagged.get(url), tagged.request("POST", url)):
        assert response.status_code == status
        assert issue(response)[1] == code


def test_what_has_no_labels_in_the_record_is_not_a_resource_of_its_own(tagged):
    """1.6: `$meta` is never an id, a version or a compartment; other verbs are 405."""
    for method in ("PUT", "DELETE", "PATCH"):
        response = tagged.request(method, "Patient/example/$meta")
        assert response.status_code == 405
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_meta_is_an_entry_of_a_bundle(tagged, kind):
    """14.16: of a version, an instance, a type and everything, as by itself."""
    urls = ["Patient/example/_history/1/$meta", "Patient/example/$meta", "Patient/$meta", "$meta"]
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]

    answers = tagged.post("", {"resourceType": "Bundle", "type": kind, "entry": entries}).json["entry"]

    assert [answer["resource"] for answer in answers] == [tagged.get(url).json for url in urls]


def tag(code, system="http://example.org"):
    return {"system": system, "code": code}


@pytest.fixture
def labelled(client, patient):
    """Labels on patients, on an observation, in a past version and in a deleted resource."""
    first = {"profile": ["http://example.org/p"], "tag": [tag("A") | {"display": "Alpha"}, tag("b")]}
    client.put("Patient/1", patient | {"id": "1", "meta": first})
    client.put(
        "Patient/2", patient | {"id": "2", "meta": {"tag": [tag("b"), tag("A", "http://other.example")]}}
    )
    client.put("Observation/o", {"resourceType": "Observation", "id": "o", "meta": {"security": [tag("R")]}})
    client.put("Patient/3", patient | {"id": "3", "meta": {"tag": [tag("past")]}})
    client.put("Patient/3", patient | {"id": "3"})
    client.put("Patient/4", patient | {"id": "4", "meta": {"tag": [tag("gone")]}})
    client.delete("Patient/4")
    return client


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_meta_of_a_type_has_each_label_of_its_resources_once(labelled, store, method):
    """16.3: as they are written, with their displays; neither past versions nor deleted resources have a say."""
    response = labelled.request(method, "Patient/$meta")

    assert returned(response) == {
        "lastUpdated": labelled.get("Patient").json["meta"]["lastUpdated"],
        "profile": ["http://example.org/p"],
        "tag": [tag("A") | {"display": "Alpha"}, tag("b"), tag("A", "http://other.example")],
    }
    assert response.headers["Git-Commit"] == store.snapshot().commit.id


def test_meta_of_the_system_has_those_of_all_types(labelled):
    """16.3: system and type are two levels of the same operation."""
    meta = returned(labelled.get("$meta"))

    assert meta["security"] == [tag("R")]
    assert len(meta["tag"]) == 3
    assert set(returned(labelled.get("Encounter/$meta"))) == {"lastUpdated"}


def test_meta_of_many_needs_the_search(repository, settings, clock, make_client, issue):
    """16.3: 501 with fhir.search = off, and no claim of it."""
    off = replace(settings, search="off")
    with Store.open(repository, off, clock=clock) as store:
        client = make_client(off, store)
        assert issue(client.get("Patient/$meta"))[1] == "not-supported"
        assert client.get("$meta").status_code == 501
        operations = client.get("metadata").json["rest"][0]["operation"]
        assert "meta" not in {each["name"] for each in operations}


def test_meta_of_malformed_labels_does_not_fail(client, patient):
    """16.3: where nothing is validated anything may stand there."""
    metas = [{"tag": "x"}, {"tag": ["x", {"code": 1}, tag("a")]}, {"profile": "http://x"}, {"security": {}}]
    for number, meta in enumerate(metas):
        client.put(f"Patient/{number}", patient | {"id": str(number), "meta": meta})

    assert tag("a") in returned(client.get("Patient/$meta"))["tag"]


def test_too_many_labels_are_not_counted(client, patient, store, monkeypatch):
    """16.3: 422, as for a search that takes too much work."""
    monkeypatch.setattr("gitstore.search.labels.LIMIT", 2)
    tags = [tag(str(number)) for number in range(3)]
    client.put("Patient/1", patient | {"id": "1", "meta": {"tag": tags}})

    assert client.get("$meta").status_code == 422
    assert client.get("Encounter/$meta").status_code == 200


# $meta-add and $meta-delete


def labels(**meta):
    return {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": meta}]}


SECRET = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}
TAG = {"system": "http://example.org", "code": "a", "display": "said otherwise"}


def test_meta_add_joins_labels_and_makes_a_version(client, patient, store):
    """16.4: tags are the same by system and code, profiles by URL; the rest of the resource stays as it is."""
    client.put("Patient/example", {**patient, "meta": META})

    added = client.post(
        "Patient/example/$meta-add", labels(tag=[TAG], security=[SECRET], profile=["http://x"])
    )

    meta = returned(added)
    assert added.headers["ETag"] == 'W/"2"'
    assert added.headers["Git-Commit"] == store.snapshot().commit.id
    assert meta["versionId"] == "2"
    assert meta["tag"] == META["tag"]
    assert meta["security"] == [*META["security"], SECRET]
    assert meta["profile"] == [*META["profile"], "http://x"]
    now = client.get("Patient/example").json
    assert now["meta"]["source"] == "#x"
    assert now["active"] is True


def test_meta_delete_takes_labels_away(client, patient):
    """16.4: what isn't there needn't be; lists that are left empty go."""
    client.put("Patient/example", {**patient, "meta": META})

    deleted = client.post("Patient/example/$meta-delete", labels(tag=[TAG], security=[SECRET]))

    meta = returned(deleted)
    assert "tag" not in meta
    assert meta["security"] == META["security"]
    assert client.get("Patient/example/_history/1").json["meta"]["tag"] == META["tag"]


def test_meta_add_of_a_past_version_is_not_allowed(tagged):
    """16.4: 405, and the version stays as it was."""
    for operation in ("$meta-add", "$meta-delete"):
        refused = tagged.post(f"Patient/example/_history/1/{operation}", labels(tag=[TAG]))
        assert refused.status_code == 405
    assert tagged.get("Patient/example/_history").json["total"] == 2


@pytest.mark.parametrize(
    ("id", "body", "status"),
    [
        ("nobody", labels(tag=[TAG]), 404),
        ("gone", labels(tag=[TAG]), 410),
        ("example", {"resourceType": "Patient"}, 400),
        ("example", {"resourceType": "Parameters"}, 400),
        ("example", {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueString": "x"}]}, 400),
        ("example", labels(tag="x"), 400),
        ("example", labels(tag=["x"]), 400),
        ("example", labels(profile=[{}]), 400),
    ],
)
def test_what_meta_add_can_not_do(client, patient, store, id, body, status):
    """16.4: and nothing is written then."""
    client.put("Patient/example", patient)
    client.put("Patient/gone", {**patient, "id": "gone"})
    client.delete("Patient/gone")
    head = store.snapshot().commit

    assert client.post(f"Patient/{id}/$meta-add", body).status_code == status
    assert store.snapshot().commit == head


def test_meta_add_honours_if_match(client, patient):
    """16.4: as every change of a resource does."""
    client.put("Patient/example", patient)

    assert client.post("Patient/example/$meta-add", labels(tag=[TAG]), If_Match='W/"9"').status_code == 412
    assert client.post("Patient/example/$meta-add", labels(tag=[TAG]), If_Match='W/"1"').status_code == 200
