"""Bundles so large that their entries are kept packed: they do what small ones do, in little memory."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import pytest

from gitstore.fhir import packed

PATIENT = {"resourceType": "Patient"}


def bundle(kind, *entries):
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def entry(method, url, resource=None, full_url=None, **request):
    made = {"request": {"method": method, "url": url, **request}}
    if resource is not None:
        made["resource"] = resource
    if full_url is not None:
        made["fullUrl"] = full_url
    return made


@pytest.fixture
def client(make_client, settings):
    return make_client(replace(settings, max_bundle=8_000_000, max_entries=5000))


@pytest.fixture
def padded():
    """The text of a Bundle with so much space in it that its entries are packed."""

    def pad(value):
        return json.dumps(value).replace('"entry": [', '"entry": [' + " " * packed.MANY)

    return pad


def of_every_kind():
    """One entry for each thing that an entry can do with its resource."""
    urn = "urn:uuid:5a1f6d3c-0f0e-4a52-9f5e-0c6f8f3c5b11"
    parts = [{"name": "type", "valueCode": "add"}, {"name": "path", "valueString": "Patient"}]
    parts += [{"name": "name", "valueString": "active"}, {"name": "value", "valueBoolean": True}]
    patch = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    meta = {"name": "meta", "valueMeta": {"tag": [{"code": "a"}]}}
    observation = {"resourceType": "Observation", "status": "final", "subject": {"reference": urn}}
    by_name = {**PATIENT, "identifier": [{"value": "1"}]}
    return [
        entry("POST", "Patient", {**PATIENT, "meta": {"tag": [{"code": "x"}]}}, urn),
        entry("PUT", "Observation/o", {**observation, "id": "o"}),
        entry("PUT", "Patient?identifier=1", by_name),
        entry("PATCH", "Patient/old", patch),
        entry("POST", "Patient/other/$meta-add", {"resourceType": "Parameters", "parameter": [meta]}),
        entry("DELETE", "Patient/gone"),
        entry("POST", "Patient/$validate", PATIENT),
        entry("GET", "Observation/o"),
    ]


def test_a_large_transaction_does_what_a_small_one_does(make_client, client, padded, store):
    """14.4, 14.7: references, conditions, patches, operations and reads."""
    for id in ("old", "other", "gone"):
        client.put(f"Patient/{id}", {**PATIENT, "id": id})

    response = client.post("", padded(bundle("transaction", *of_every_kind())))

    assert response.status_code == 200, response.text
    found = [each["response"]["status"][:3] for each in response.json["entry"]]
    assert found == ["201", "201", "201", "200", "200", "204", "200", "200"]
    [made, *_] = response.json["entry"]
    subject = response.json["entry"][-1]["resource"]["subject"]["reference"]
    assert made["response"]["location"].endswith(f"/{subject}/_history/1")
    assert client.get("Patient/old").json["active"] is True
    assert client.get("Patient/other").json["meta"]["tag"] == [{"code": "a"}]
    assert client.get("Patient?identifier=1").json["total"] == 1


def test_a_large_batch_answers_each_entry(client, padded):
    """14.2, 14.3: also one that refers to another, and one that is nothing."""
    urn = "urn:uuid:5a1f6d3c-0f0e-4a52-9f5e-0c6f8f3c5b11"
    link = {**PATIENT, "managingOrganization": {"reference": urn}}
    entries = [entry("POST", "Patient", PATIENT, urn), entry("POST", "Patient", link), 7]

    response = client.post("", padded(bundle("batch", *entries)))

    found = [each["response"]["status"][:3] for each in response.json["entry"]]
    assert found == ["201", "400", "400"]


@pytest.mark.parametrize(
    "entries",
    [
        [7],
        [entry("POST", "Patient")],
        [entry("POST", "Patient", 7)],
        [entry("POST", "Patient", {"resourceType": "Observation"})],
        [entry("POST", "Patient", PATIENT, "urn:uuid:1"), entry("POST", "Patient", PATIENT, "urn:uuid:1")],
        [entry("GET", "Patient"), entry("PUT", "Patient/1", {**PATIENT, "id": "2"})],
    ],
)
def test_a_large_transaction_is_refused_in_the_same_words(client, padded, store, entries):
    """14.1, 14.5: with the same place."""
    head = store.snapshot().commit

    small = client.post("", bundle("transaction", *entries))
    large = client.post("", padded(bundle("transaction", *entries)))

    assert small.status_code == 400
    assert (large.status_code, large.json) == (small.status_code, small.json)
    assert store.snapshot().commit == head


def test_a_large_bundle_that_is_no_json_is_refused_with_its_place(client, padded, issue):
    """2.11: by line and column of the body."""
    sent = padded(bundle("batch", entry("GET", "Patient")))

    response = client.post("", sent[:-3])

    assert response.status_code == 400
    assert f"column {len(sent) - 2}" in issue(response)[2]


def test_a_transaction_takes_a_few_times_the_memory_of_its_body(client):
    """Neither all resources as dicts, nor all files and rows, are held at once, nor the pack and the trees of a large unit.

    That would be more than 20 times as much. 20,000 entries take 5 times their body (docs/performance.md); beside these
    few small ones the buffers are large.
    """
    concept = {"coding": [{"system": "http://loinc.org", "code": "29463-7", "display": "Body weight"}]}
    quantity = {"value": 70.5, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"}
    weight = {"resourceType": "Observation", "status": "final", "code": concept, "valueQuantity": quantity}
    entries = [
        entry("POST", "Observation", {**weight, "effectiveDateTime": f"20{number % 90 + 10}-02-01"})
        for number in range(2000)
    ]
    body = json.dumps(bundle("transaction", *entries)).encode()
    del entries
    client.post("", json.dumps(bundle("transaction", entry("POST", "Observation", weight))))

    tracemalloc.start()
    response = client.post("", body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert response.status_code == 200
    assert peak < 8 * len(body)
