"""Operations on labels as entries of Bundles. https://hl7.org/fhir/R4/resource-operation-meta-add.html"""

from __future__ import annotations

import pytest

KINDS = pytest.mark.parametrize("kind", ["batch", "transaction"])
OLD = {"system": "http://example.org", "code": "a"}
NEW = {"system": "http://example.org", "code": "b", "display": "Beta"}
SECRET = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}


def labels(**meta):
    return {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": meta}]}


def entry(method, url, resource=None, **request):
    made = {"request": {"method": method, "url": url, **request}}
    return made if resource is None else {**made, "resource": resource}


def posted(client, kind, *entries, **headers):
    return client.post("", {"resourceType": "Bundle", "type": kind, "entry": list(entries)}, **headers)


@pytest.fixture
def labelled(client, patient):
    """`Patient/example` with a tag, in version 1."""
    client.put("Patient/example", {**patient, "meta": {"tag": [OLD]}})
    return client


@KINDS
@pytest.mark.parametrize("prefer", [None, "return=minimal", "return=representation"])
def test_an_entry_adds_labels_and_answers_with_the_new_meta(labelled, kind, prefer):
    """14.16, 16.4: what it answers by itself, beside what the entry of a patch has; Prefer is about resources."""
    headers = {} if prefer is None else {"Prefer": prefer}

    response = posted(
        labelled,
        kind,
        entry("POST", "Patient/example/$meta-add", labels(tag=[OLD, NEW], security=[SECRET])),
        **headers,
    )

    assert response.status_code == 200
    [answer] = response.json["entry"]
    assert answer["response"] == {
        "status": "200 OK",
        "etag": 'W/"2"',
        "lastModified": labelled.get("Patient/example").json["meta"]["lastUpdated"],
        "location": "http://localhost:8080/fhir/Patient/example/_history/2",
    }
    assert "fullUrl" not in answer
    assert answer["resource"] == labelled.get("Patient/example/$meta").json
    [parameter] = answer["resource"]["parameter"]
    assert (parameter["name"], parameter["valueMeta"]["versionId"]) == ("return", "2")
    assert parameter["valueMeta"]["tag"] == [OLD, NEW]
    assert parameter["valueMeta"]["security"] == [SECRET]


@KINDS
def test_an_entry_takes_labels_away(labelled, kind):
    """16.4: the rest of the resource stays."""
    response = posted(labelled, kind, entry("POST", "Patient/example/$meta-delete", labels(tag=[OLD])))

    [answer] = response.json["entry"]
    assert set(answer["resource"]["parameter"][0]["valueMeta"]) == {"versionId", "lastUpdated"}
    now = labelled.get("Patient/example").json
    assert (now["active"], set(now["meta"])) == (True, {"versionId", "lastUpdated"})


def test_in_a_transaction_labels_change_with_everything_else(labelled, patient, store):
    """14.4, 14.17: one commit; what reads in it sees the new labels."""
    before = store.snapshot().commit

    response = posted(
        labelled,
        "transaction",
        entry("GET", "Patient/example/$meta"),
        entry("POST", "Patient/example/$meta-add", labels(tag=[NEW])),
        entry("PUT", "Patient/other", {**patient, "id": "other"}),
    )

    read, added, _ = response.json["entry"]
    assert read["resource"] == added["resource"]
    assert store.snapshot().commit.sequence == before.sequence + 1


def test_a_transaction_changes_a_resource_once(labelled, store, issue):
    """14.8: labels are of the resource, so two entries that add some are two writes of it."""
    head = store.snapshot().commit
    adds = [entry("POST", "Patient/example/$meta-add", labels(tag=[tag])) for tag in (NEW, SECRET)]

    response = posted(labelled, "transaction", *adds)

    assert response.status_code == 400
    assert "entry 0" in issue(response)[2]
    assert store.snapshot().commit == head


@KINDS
def test_an_entry_honours_if_match(labelled, kind):
    """14.14, 16.4"""
    url, tag = "Patient/example/$meta-add", labels(tag=[NEW])

    refused = posted(labelled, kind, entry("POST", url, tag, ifMatch='W/"9"'))
    done = posted(labelled, kind, entry("POST", url, tag, ifMatch='W/"1"'))

    found = refused.json["entry"][0]["response"]["status"][:3] if kind == "batch" else refused.status_code
    assert str(found) == "412"
    assert done.json["entry"][0]["response"]["etag"] == 'W/"2"'


@pytest.mark.parametrize(
    ("url", "body", "status", "code"),
    [
        ("Patient/nobody/$meta-add", labels(tag=[NEW]), 404, "not-found"),
        ("Patient/gone/$meta-delete", labels(tag=[NEW]), 410, "deleted"),
        ("Patient/example/$meta-add", {"resourceType": "Patient"}, 400, "invalid"),
        ("Patient/example/$meta-add", labels(tag="x"), 400, "invalid"),
        ("Patient/example/$meta-add", None, 400, "required"),
        ("Patient/example/$meta-add?x=y", labels(tag=[NEW]), 400, "not-supported"),
        ("Patient/a_b/$meta-add", labels(tag=[NEW]), 400, "value"),
        ("Patient/example/_history/1/$meta-add", labels(tag=[NEW]), 400, "not-supported"),
        ("Patient/$meta-add", labels(tag=[NEW]), 404, "not-supported"),
        ("Patient/example/$banana", labels(), 404, "not-supported"),
        ("Gurke/1/$meta-add", labels(tag=[NEW]), 404, None),
        ("Patient/example/$meta", labels(tag=[NEW]), 400, "not-supported"),
        ("Patient/example/$everything", labels(tag=[NEW]), 400, "not-supported"),
    ],
)
def test_what_an_entry_can_not_do(labelled, patient, store, issue, url, body, status, code):
    """14.5, 16.1, 16.4: as by itself, with the place of the entry; nothing is written then."""
    labelled.put("Patient/gone", {**patient, "id": "gone"})
    labelled.delete("Patient/gone")
    head = store.snapshot().commit

    response = posted(labelled, "transaction", entry("GET", "Patient/example"), entry("POST", url, body))

    assert response.status_code == status
    assert code is None or issue(response)[1] == code
    assert response.json["issue"][0]["expression"][0].startswith("Bundle.entry[1]")
    assert store.snapshot().commit == head


@KINDS
def test_operations_that_read_may_be_posted(labelled, kind):
    """14.16, 16.3: `$meta` and `$everything` with Parameters, as by themselves."""
    nothing = {"resourceType": "Parameters"}
    counted = {"resourceType": "Parameters", "parameter": [{"name": "_count", "valueInteger": 0}]}

    response = posted(
        labelled,
        kind,
        entry("POST", "Patient/example/$meta", nothing),
        entry("POST", "Patient/$meta", nothing),
        entry("POST", "Patient/example/$everything", counted),
    )

    meta, of_type, everything = (each["resource"] for each in response.json["entry"])
    assert meta == labelled.get("Patient/example/$meta").json
    assert of_type == labelled.get("Patient/$meta").json
    assert (everything["total"], "entry" in everything) == (1, False)


def test_a_batch_sent_again_labels_once(labelled):
    """16.4: with an Idempotency-Key the second answer is the first."""
    add = entry("POST", "Patient/example/$meta-add", labels(tag=[NEW]))

    first = posted(labelled, "batch", add, Idempotency_Key='"once"')
    again = posted(labelled, "batch", add, Idempotency_Key='"once"')

    assert first.json["entry"][0]["response"]["etag"] == 'W/"2"'
    assert again.json == first.json
    assert labelled.get("Patient/example/_history").json["total"] == 2


@pytest.mark.parametrize("meta", [{"tag": "x"}, {"tag": {"system": "s"}}])
def test_labels_that_are_none_are_no_accident(client, patient, issue, meta):
    """16.4: where nothing is validated anything may stand there; 422, and never 500."""
    client.put("Patient/example", {**patient, "meta": meta})

    response = client.post("Patient/example/$meta-add", labels(tag=[NEW]))

    assert response.status_code == 422
    assert issue(response)[1] == "structure"
