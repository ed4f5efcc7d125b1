"""X-Provenance: a Provenance that comes with a write. https://hl7.org/fhir/R4/provenance.html#header"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gitstore import Store

AGENT = {"who": {"display": "Ada"}}
PROVENANCE = {
    "resourceType": "Provenance",
    "recorded": "2026-01-01T12:00:00Z",
    "agent": [AGENT],
    "reason": [{"coding": [{"code": "TREAT", "display": "treatment"}]}, {"text": "a move to Größe"}],
}
OBSERVATION = {"resourceType": "Observation", "status": "final", "code": {"text": "weight"}}


def header(**changes: object) -> str:
    return json.dumps({**PROVENANCE, **changes}, ensure_ascii=False).encode().decode("latin-1")


def provenances(client) -> list[dict[str, object]]:
    return [each["resource"] for each in client.get("Provenance/_history").json.get("entry", [])]


def targets(client) -> list[str]:
    """Of the only Provenance there is."""
    [found] = provenances(client)
    return [target["reference"] for target in found["target"]]


def of_the_last_commit(store) -> list[str]:
    snapshot = store.snapshot()
    return [f"{each.verb} {each}" for each in snapshot.changes(snapshot.commit)]


def test_a_create_is_stored_with_its_provenance(client, store, patient):
    """3.7: in one commit, with the version that was made as target, and the reason as its words."""
    response = client.post("Patient", patient, X_Provenance=header())

    assert response.status_code == 201
    assert response.headers["Location"].endswith("/Patient/new-1/_history/1")
    [stored] = provenances(client)
    assert stored["target"] == [{"reference": "Patient/new-1/_history/1"}]
    assert {name: stored[name] for name in PROVENANCE} == PROVENANCE
    assert of_the_last_commit(store) == ["POST Patient/new-1/_history/1", "POST Provenance/new-2/_history/1"]
    commit = store.snapshot().commit
    assert commit.interaction == "create"
    assert store.message(commit) == "treatment, a move to Größe"
    assert list(store.verify()) == []


def test_it_can_be_found_by_what_it_is_of(client, patient):
    """3.7: it is a resource like any other."""
    client.post("Patient", patient, X_Provenance=header())

    assert client.get("Provenance?target=Patient/new-1").json["total"] == 1
    assert client.get("Patient?_id=new-1&_revinclude=Provenance:target").json["entry"][1]["search"] == {
        "mode": "include"
    }


def test_every_write_can_bring_one(client, store, patient):
    """3.7: update, update as create, patch, delete; each is named with the version that it made."""
    patch = [{"op": "replace", "path": "/active", "value": False}]
    made = [
        client.put("Patient/example", patient, X_Provenance=header()),
        client.put("Patient/example", patient, X_Provenance=header()),
        client.request(
            "PATCH",
            "Patient/example",
            patch,
            Content_Type="application/json-patch+json",
            X_Provenance=header(),
        ),
        client.delete("Patient/example", X_Provenance=header()),
    ]

    assert [each.status_code for each in made] == [201, 200, 200, 204]
    assert [each["target"][0]["reference"][-1] for each in provenances(client)] == ["4", "3", "2", "1"]
    history = [store.snapshot(sequence).commit.interaction for sequence in range(2, 6)]
    assert history == ["update", "update", "patch", "delete"]
    assert list(store.verify()) == []


def test_the_authors_own_words_come_first(client, store, patient):
    """3.7: X-Commit-Message says why; the reason is only in the Provenance then."""
    client.post("Patient", patient, X_Provenance=header(), X_Commit_Message="by phone")

    assert store.message(store.snapshot().commit) == "by phone"


def test_a_transaction_has_one_for_all_it_writes(client, store, patient):
    """3.7: what only was read, or found, is not named; it may refer to what the transaction makes."""
    client.put("Patient/example", patient)
    client.put("Patient/found", patient | {"id": "found", "gender": "female"})
    sent = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"request": {"method": "GET", "url": "Patient/example"}},
            {
                "request": {"method": "POST", "url": "Patient", "ifNoneExist": "gender=female"},
                "resource": patient,
            },
            {
                "fullUrl": "urn:uuid:5a1f6d3c-0f0e-4a52-9f5e-0c6f8f3c5b11",
                "request": {"method": "POST", "url": "Practitioner"},
                "resource": {"resourceType": "Practitioner"},
            },
            {"request": {"method": "PUT", "url": "Patient/example"}, "resource": patient},
        ],
    }
    who = {"reference": "urn:uuid:5a1f6d3c-0f0e-4a52-9f5e-0c6f8f3c5b11"}

    response = client.post("", sent, X_Provenance=header(agent=[{"who": who}]))

    assert [each["response"]["status"][:3] for each in response.json["entry"]] == ["200", "200", "201", "200"]
    assert targets(client) == ["Practitioner/new-1/_history/1", "Patient/example/_history/2"]
    assert provenances(client)[0]["agent"] == [{"who": {"reference": "Practitioner/new-1"}}]
    assert store.snapshot().commit.interaction == "transaction"
    assert store.snapshot().history().total == 5


def test_where_nothing_changes_there_is_none(client, store, patient):
    """3.7: a conditional create that found one, a deletion of nothing."""
    client.put("Patient/example", patient)
    before = store.snapshot().commit

    found = client.post("Patient", patient, X_Provenance=header(), If_None_Exist="active=true")
    nothing = client.delete("Patient/nobody", X_Provenance=header())

    assert (found.status_code, nothing.status_code) == (200, 204)
    assert store.snapshot().commit == before


def test_an_update_that_comes_to_nothing_is_not_named(
    client, settings, repository, clock, make_client, patient
):
    """3.7: with fhir.unchangedUpdate = skip."""
    skipping = replace(settings, unchanged_update="skip")
    with Store.open(repository, skipping, clock=clock) as store:
        other = make_client(skipping, store)
        other.put("Patient/example", patient)
        assert other.put("Patient/example", patient, X_Provenance=header()).status_code == 200
        assert provenances(other) == []

        put = {"request": {"method": "PUT", "url": "Patient/example"}, "resource": patient}
        post = {"request": {"method": "POST", "url": "Patient"}, "resource": patient}
        other.post(
            "", {"resourceType": "Bundle", "type": "transaction", "entry": [put, post]}, X_Provenance=header()
        )
        [only] = targets(other)
        assert only != "Patient/example/_history/1"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("{", "structure"),
        ("", "structure"),
        ("[]", "structure"),
        ('"x"', "structure"),
        ('{"resourceType": "Patient"}', "invalid"),
        ("{}", "invalid"),
        (header(target=[{"reference": "Patient/example"}]), "business-rule"),
        (header(target=[]), "business-rule"),
        ('{"resourceType": "Provenance", "resourceType": "Provenance"}', None),
    ],
)
def test_what_is_no_provenance_without_target_is_refused(client, store, patient, issue, value, code):
    """3.7: 400, and nothing is written."""
    before = store.snapshot().commit

    bundle = {"resourceType": "Bundle", "type": "transaction"}
    entry = {"request": {"method": "POST", "url": "Patient"}, "resource": patient}
    for response in (
        client.put("Patient/example", patient, X_Provenance=value),
        client.post("Patient", patient, X_Provenance=value),
        client.post("", {**bundle, "entry": [entry]}, X_Provenance=value),
    ):
        assert response.status_code == 400, value
        assert code is None or issue(response)[1] == code
    assert store.snapshot().commit == before


def test_it_is_validated_like_any_resource(settings, repository, clock, make_client, issue):
    """3.7: with every problem and its place; target alone may be missing."""
    checked = replace(settings, validation="full")
    with Store.open(repository, checked, clock=clock) as store:
        client = make_client(checked, store)
        patient = {"resourceType": "Patient", "id": "example"}
        bad = client.put(
            "Patient/example", patient, X_Provenance='{"resourceType": "Provenance", "activty": 1}'
        )
        assert bad.status_code == 400
        assert [one["expression"] for one in bad.json["issue"]] == [
            ["Provenance.activty"],
            ["Provenance"],  # recorded
            ["Provenance"],  # agent
        ]

        entry = {"request": {"method": "PUT", "url": "Patient/example"}, "resource": patient}
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
        bad = client.post("", bundle, X_Provenance='{"resourceType": "Provenance"}')
        assert bad.status_code == 400
        assert [one["expression"] for one in bad.json["issue"]] == [["Provenance"], ["Provenance"]]

        fit = {name: value for name, value in PROVENANCE.items() if name != "reason"}
        assert client.put("Patient/example", patient, X_Provenance=json.dumps(fit)).status_code == 201


def test_a_batch_has_none(client, store, patient, issue):
    """3.7: its entries are commits of their own; 400 before anything is written."""
    before = store.snapshot().commit
    entry = {"request": {"method": "POST", "url": "Patient"}, "resource": patient}

    response = client.post(
        "", {"resourceType": "Bundle", "type": "batch", "entry": [entry]}, X_Provenance=header()
    )

    assert response.status_code == 400
    assert issue(response)[1] == "not-supported"
    assert store.snapshot().commit == before


def test_a_refused_write_leaves_no_provenance(client, patient):
    """3.7: one commit, or none."""
    client.put("Patient/example", patient)

    assert client.put("Patient/example", patient, If_Match='W/"9"', X_Provenance=header()).status_code == 412
    assert provenances(client) == []


def test_reads_do_not_look_at_it(client, patient):
    client.put("Patient/example", patient)

    assert client.get("Patient/example", X_Provenance="{").status_code == 200


def test_a_retry_stores_no_second_one(client, patient):
    """With Idempotency-Key; another Provenance makes it another request."""
    for _ in range(2):
        response = client.post("Patient", patient, X_Provenance=header(), Idempotency_Key="k")
        assert response.headers["Location"].endswith("/Patient/new-1/_history/1")

    assert targets(client) == ["Patient/new-1/_history/1"]
    other = header(reason=[])
    assert client.post("Patient", patient, X_Provenance=other, Idempotency_Key="k").status_code == 422


def test_what_it_names_can_be_deleted_where_references_must_lead_somewhere(
    settings, repository, clock, make_client, patient
):
    """fhir.referentialIntegrity: it names a version, and versions stay."""
    strict = replace(settings, referential_integrity="enforce")
    with Store.open(repository, strict, clock=clock) as store:
        client = make_client(strict, store)
        assert client.put("Patient/example", patient, X_Provenance=header()).status_code == 201
        assert client.delete("Patient/example", X_Provenance=header()).status_code == 204
        dangling = header(agent=[{"who": {"reference": "Practitioner/nobody"}}])
        assert client.put("Patient/example", patient, X_Provenance=dangling).status_code == 422
        entry = {"request": {"method": "PUT", "url": "Patient/example"}, "resource": patient}
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
        refused = client.post("", bundle, X_Provenance=dangling)
        assert refused.status_code == 422
        assert "expression" not in refused.json["issue"][0] or "Bundle" not in str(
            refused.json["issue"][0]["expression"]
        )
