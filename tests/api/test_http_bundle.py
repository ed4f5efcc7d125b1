"""batch and transaction over HTTP. https://hl7.org/fhir/R4/http.html#transaction"""

from __future__ import annotations

import pytest

BASE = "http://localhost:8080/fhir"
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


def statuses(response):
    return [each["response"]["status"][:3] for each in response.json["entry"]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"resourceType": "Patient"}, "invalid"),
        ({"resourceType": "Bundle", "entry": []}, "required"),
        ({"resourceType": "Bundle", "type": "collection", "entry": []}, "value"),
        ({"resourceType": "Bundle", "type": "transaction", "entry": {}}, None),
        (bundle("transaction", {"resource": PATIENT}), None),
        (bundle("transaction", entry("POST", "Patient")), None),
        (bundle("transaction", entry("FETCH", "Patient")), None),
        (bundle("transaction", entry("GET", "http://elsewhere.example/fhir/Patient/1")), None),
        (bundle("transaction", entry("POST", "Patient", PATIENT, f"{BASE}/Patient/1/_history/2")), None),
    ],
)
def test_what_is_no_bundle_to_process_is_refused(client, store, issue, body, code):
    """14.1, 14.16, 14.19"""
    before = store.snapshot().commit

    response = client.post("", body)

    assert response.status_code == 400
    assert issue(response)[0] == "error"
    if code:
        assert issue(response)[1] == code
    assert store.snapshot().commit == before


def test_a_batch_answers_each_entry_in_its_place(client, patient):
    """14.2: 200 and batch-response; a failure of one is its own."""
    response = client.post(
        "",
        bundle(
            "batch",
            entry("GET", "Patient/example"),
            entry("PUT", "Patient/other", PATIENT),
            entry("POST", "Patient", PATIENT),
            entry("PUT", "Patient/example", patient),
            entry("DELETE", "Patient/nobody"),
            entry("GET", "Gurke/1"),
            {"resource": PATIENT},
        ),
    )

    assert response.status_code == 200
    assert response.json["type"] == "batch-response"
    assert statuses(response) == ["200", "400", "201", "201", "204", "404", "400"]
    entries = response.json["entry"]
    assert entries[0]["resource"]["id"] == "example"
    assert entries[1]["response"]["outcome"]["issue"][0]["code"] == "required"
    assert entries[2]["response"]["location"] == f"{BASE}/Patient/new-1/_history/1"
    assert client.get("_history").json["total"] == 2


def test_each_write_of_a_batch_is_a_commit(client, store, patient):
    """Design: one unit of work each."""
    before = store.snapshot().commit.sequence

    client.post("", bundle("batch", *[entry("POST", "Patient", PATIENT) for _ in range(3)]))

    assert store.snapshot().commit.sequence == before + 3


def test_a_batch_may_name_a_resource_twice(client, patient):
    """Unlike a transaction; deletions come first, then updates."""
    client.put("Patient/example", patient)

    response = client.post(
        "", bundle("batch", entry("PUT", "Patient/example", patient), entry("DELETE", "Patient/example"))
    )

    assert statuses(response) == ["201", "204"]
    assert client.get("Patient/example").headers["ETag"] == 'W/"3"'


def test_entries_of_a_batch_can_not_refer_to_one_another(client):
    """14.3: that entry fails, the others don't."""
    observation = {"resourceType": "Observation", "subject": {"reference": "urn:uuid:1"}}

    response = client.post(
        "",
        bundle(
            "batch",
            entry("POST", "Patient", PATIENT, "urn:uuid:1"),
            entry("POST", "Observation", observation, "urn:uuid:2"),
        ),
    )

    assert statuses(response) == ["201", "400"]


def test_a_transaction_is_one_commit(client, store):
    """14.4, 14.15, 14.17: all its versions share commit and lastUpdated."""
    before = store.snapshot().commit.sequence

    response = client.post(
        "", bundle("transaction", entry("POST", "Patient", PATIENT), entry("POST", "Patient", PATIENT))
    )

    assert response.status_code == 200
    assert response.json["type"] == "transaction-response"
    commit = store.snapshot().commit
    assert commit.sequence == before + 1
    assert response.headers["Git-Commit"] == commit.id
    assert [each["response"] for each in response.json["entry"]] == [
        {
            "status": "201 Created",
            "location": f"{BASE}/Patient/new-{number}/_history/1",
            "etag": 'W/"1"',
            "lastModified": "2023-11-14T22:13:20.250000Z",
        }
        for number in (1, 2)
    ]


@pytest.mark.parametrize(
    ("failing", "status"),
    [
        (entry("PUT", "Patient/example", PATIENT | {"id": "example"}, ifMatch='W/"7"'), 412),
        (entry("PUT", "Patient/example", PATIENT | {"id": "example"}, ifNoneMatch="*"), 412),
        (entry("PUT", "Patient/example", PATIENT | {"id": "other"}), 400),
        (entry("POST", "Gurke", {"resourceType": "Gurke"}), 404),
        (entry("GET", "Patient/nobody"), 404),
        (entry("GET", "Patient/gone"), 410),
        (entry("GET", "Patient?name:x=x"), 400),
        (entry("GET", "Patient/example?foo=bar"), 400),
        (entry("GET", "Patient/example/_history?_page=1"), 400),
    ],
)
def test_a_failing_transaction_leaves_nothing(client, store, patient, failing, status):
    """14.4, 14.5: one OperationOutcome with the status and the number of the entry; no commit, no number used up."""
    client.put("Patient/example", patient)
    client.put("Patient/gone", patient | {"id": "gone"})
    client.delete("Patient/gone")
    before = store.snapshot().commit

    response = client.post("", bundle("transaction", entry("POST", "Patient", PATIENT), failing))

    assert response.status_code == status
    assert response.json["resourceType"] == "OperationOutcome"
    assert response.json["issue"][0]["expression"][0].startswith("Bundle.entry[1]")
    assert store.snapshot().commit == before
    assert client.put("Patient/example", patient).headers["ETag"] == 'W/"2"'


@pytest.mark.parametrize("kind", ["transaction", "batch"])
def test_an_empty_bundle_is_no_error(client, store, kind):
    """14.6: and no commit."""
    before = store.snapshot().commit

    for body in (bundle(kind), {"resourceType": "Bundle", "type": kind}):
        response = client.post("", body)
        assert response.status_code == 200
        assert response.json == {"resourceType": "Bundle", "type": f"{kind}-response"}
    assert store.snapshot().commit == before


def test_gets_of_a_transaction_see_what_it_did(client, patient):
    """14.7: whatever their place; HEAD without the resource, histories and metadata too."""
    response = client.post(
        "",
        bundle(
            "transaction",
            entry("GET", "Patient/example"),
            entry("HEAD", "Patient/example"),
            entry("GET", "Patient/example/_history"),
            entry("GET", "Patient/example/_history/1"),
            entry("GET", "_history?_count=1"),
            entry("GET", "Patient/_history"),
            entry("GET", "metadata"),
            entry("PUT", "Patient/example", patient),
        ),
    )

    assert response.status_code == 200, response.text
    read, head, instance, version, system, type_, metadata, _ = response.json["entry"]
    assert read["resource"]["id"] == "example"
    assert read["response"]["etag"] == 'W/"1"'
    assert "resource" not in head
    assert version["resource"] == read["resource"]
    assert instance["resource"]["total"] == system["resource"]["total"] == type_["resource"]["total"] == 1
    assert metadata["resource"]["resourceType"] == "CapabilityStatement"


def test_a_transaction_of_reads_makes_no_commit(client, store, patient):
    client.put("Patient/example", patient)
    before = store.snapshot().commit

    response = client.post("", bundle("transaction", entry("GET", "Patient/example")))

    assert statuses(response) == ["200"]
    assert response.headers["Git-Commit"] == before.id
    assert store.snapshot().commit == before


def test_a_transaction_names_a_resource_once(client, store, patient):
    """14.8: 400."""
    before = store.snapshot().commit

    response = client.post(
        "",
        bundle("transaction", entry("PUT", "Patient/example", patient), entry("DELETE", "Patient/example")),
    )

    assert response.status_code == 400
    assert store.snapshot().commit == before


def test_references_within_a_transaction_are_resolved(client):
    """14.9, 14.11: by urn:uuid, also in circles; the fullUrl of a PUT stands for its URL."""
    observation = {"resourceType": "Observation", "subject": {"reference": "urn:uuid:p"}}
    organization = {"resourceType": "Patient", "id": "q", "link": [{"other": {"reference": "urn:uuid:p"}}]}
    patient = {"resourceType": "Patient", "link": [{"other": {"reference": "urn:uuid:q"}}]}

    response = client.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Observation", observation, "urn:uuid:o"),
            entry("POST", "Patient", patient, "urn:uuid:p"),
            entry("PUT", "Patient/q", organization, "urn:uuid:q"),
        ),
        Prefer="return=representation",
    )

    made = [each["resource"] for each in response.json["entry"]]
    assert made[0]["subject"]["reference"] == f"Patient/{made[1]['id']}"
    assert made[1]["link"][0]["other"]["reference"] == "Patient/q"
    assert made[2]["link"][0]["other"]["reference"] == f"Patient/{made[1]['id']}"


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_conditions_of_entries_work_as_the_headers_do(client, patient, kind):
    """14.14: 304 stands in response.status."""
    client.put("Patient/example", patient)

    response = client.post(
        "",
        bundle(
            kind,
            entry("GET", "Patient/example", ifNoneMatch='W/"2"'),
            entry("GET", "Patient/example", ifNoneMatch='W/"1"'),
            entry("GET", "Patient/example", ifModifiedSince="Tue, 14 Nov 2034 22:13:20 GMT"),
            entry("PUT", "Patient/example", patient, ifMatch='W/"1"'),
        ),
    )

    assert statuses(response) == ["304", "200", "304", "200"]
    assert "resource" not in response.json["entry"][0]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_prefer_chooses_what_writes_carry(client, patient, kind):
    """14.15: minimal unless asked; a GET always has its resource."""
    entries = bundle(
        kind, entry("POST", "Patient", PATIENT), entry("DELETE", "Patient/x"), entry("GET", "Patient/example")
    )
    client.put("Patient/example", patient)

    minimal = client.post("", entries).json["entry"]
    full = client.post("", entries, Prefer="return=representation").json["entry"]
    told = client.post("", entries, Prefer="return=OperationOutcome").json["entry"]

    assert ["resource" in each for each in minimal] == [False, False, True]
    assert ["resource" in each for each in full] == [True, False, True]
    assert ["outcome" in each["response"] for each in told] == [True, True, False]
    assert told[0]["response"]["outcome"]["issue"][0]["severity"] == "information"


@pytest.mark.parametrize("url", ["Patient/p", "/Patient/p", f"{BASE}/Patient/p"])
def test_urls_are_relative_to_the_base(client, url):
    """14.16: a leading slash and our own base are tolerated."""
    response = client.post("", bundle("transaction", entry("PUT", url, PATIENT | {"id": "p"})))

    assert statuses(response) == ["201"]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_bundles_do_not_nest(client, kind):
    """14.18"""
    response = client.post("", bundle(kind, entry("POST", "", bundle("batch"))))

    if kind == "batch":
        assert statuses(response)[0] in ("400", "422")
    else:
        assert response.status_code in (400, 422)


def test_a_bundle_has_a_number_of_entries(client, settings, issue):
    """fhir.maxEntries: 413."""
    full = [entry("GET", "metadata")] * settings.max_entries

    assert client.post("", bundle("batch", *full)).status_code == 200
    response = client.post("", bundle("batch", *full, entry("GET", "metadata")))
    assert response.status_code == 413
    assert issue(response)[1] == "too-long"


def test_a_bundle_may_be_larger_than_a_resource(client, settings):
    """fhir.maxBody is for single resources, fhir.maxBundle for Bundles."""
    big = bundle("transaction", entry("POST", "Patient", PATIENT | {"language": "x" * settings.max_body}))

    assert client.post("", big).status_code == 200
    big["entry"][0]["resource"]["language"] = "x" * settings.max_bundle
    assert client.post("", big).status_code == 413


def test_the_request_id_and_the_why_stand_in_the_commit(client, store):
    """3.5"""
    response = client.post(
        "",
        bundle("transaction", entry("POST", "Patient", PATIENT)),
        X_Request_Id="abc",
        X_Commit_Message="Admission",
    )

    commit = store.resolve(response.headers["Git-Commit"])
    assert (commit.request_id, commit.interaction, store.message(commit)) == (
        "abc",
        "transaction",
        "Admission",
    )


def test_both_forms_of_the_base_take_bundles(client):
    """1.7"""
    for url in ("/fhir", "/fhir/"):
        assert client.request("POST", url, bundle("batch")).status_code == 200


def test_links_of_every_kind_are_resolved_and_names_are_not(client):
    """14.10: references, uri, url, oid, uuid, links and images of the narrative; not canonicals, not plain text."""
    patient, binary = (
        "urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9",
        "http://elsewhere.example/fhir/Binary/7",
    )
    div = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{patient}">{patient}</a><img src="{binary}" alt="x"/></div>'
    observation = {
        "resourceType": "Observation",
        "text": {"status": "generated", "div": div},
        "implicitRules": patient,
        "subject": {"reference": patient + "#part"},
        "instantiatesCanonical": patient,
        "valueString": patient,
        "note": [{"text": f"[it]({patient})"}],
        "extension": [{"url": patient, "valueUuid": patient}, {"url": "x", "valueUrl": binary}],
    }

    response = client.post(
        "",
        bundle(
            "transaction",
            entry("POST", "Observation", observation),
            entry("POST", "Patient", PATIENT, patient),
            entry("POST", "Binary", {"resourceType": "Binary", "contentType": "image/png"}, binary),
        ),
        Prefer="return=representation",
    )

    found, made, image = [each["resource"] for each in response.json["entry"]]
    name, picture = f"Patient/{made['id']}", f"Binary/{image['id']}"
    assert f'<a href="{name}">{patient}</a><img src="{picture}"' in found["text"]["div"]
    assert found["implicitRules"] == name
    assert found["subject"]["reference"] == name + "#part"
    assert (found["extension"][0], found["extension"][1]["valueUrl"]) == (
        {"url": patient, "valueUuid": name},
        picture,
    )
    for untouched in ("instantiatesCanonical", "valueString", "note"):
        assert found[untouched] == observation[untouched]
