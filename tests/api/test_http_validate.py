"""Validation over HTTP: 400 and 422 of writes, warnings where they are asked for, and $validate.

https://hl7.org/fhir/R4/http.html#create, https://hl7.org/fhir/R4/resource-operation-validate.html
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gitstore import Store
from tests.gitstore.test_validated_writes import URL, profile

PATIENT = {"resourceType": "Patient", "id": "example"}
OUTCOME = {"Prefer": "return=OperationOutcome"}


@pytest.fixture(params=["full"])
def strict(request, make_client, repository, settings, clock):
    """A client of a server whose writes are validated as far as the parameter says."""
    settings = replace(settings, validation=request.param)
    with Store.open(repository, settings, clock=clock) as store:
        yield make_client(settings, store)


def issues(response: Any) -> list[tuple[str, str, str | None]]:
    """Severity, code and expression of each issue, without the remark that there is no narrative (dom-6)."""
    assert response.json["resourceType"] == "OperationOutcome"
    found = response.json["issue"]
    assert all(each["details"]["text"] and each["diagnostics"] for each in found)
    return [
        (each["severity"], each["code"], each.get("expression", [None])[0])
        for each in found
        if "dom-6" not in each["details"]["text"]
    ]


STRUCTURE = [
    ({"gurke": 1}, "structure", "Patient.gurke"),
    ({"active": "yes"}, "structure", "Patient.active"),
    ({"name": {"family": "King"}}, "structure", "Patient.name"),
    ({"name": []}, "structure", "Patient.name"),
    ({"gender": ""}, "structure", "Patient.gender"),
    ({"contact": [{}]}, "structure", "Patient.contact[0]"),
    ({"_gender": [None]}, "structure", "Patient.gender"),
    ({"deceasedBoolean": True, "deceasedDateTime": "2020"}, "structure", "Patient.deceased"),
    ({"link": [{"type": "seealso"}]}, "required", "Patient.link[0]"),
    ({"birthDate": "1990-02-30"}, "value", "Patient.birthDate"),
    ({"contained": [{"id": "a"}]}, "invalid", "Patient.contained[0]"),
]


@pytest.mark.parametrize(("elements", "code", "expression"), STRUCTURE)
def test_what_is_no_fhir_is_400(strict, elements, code, expression):
    """Each sort of fault of structure, with its place; nothing is stored."""
    for response in (
        strict.put("Patient/example", PATIENT | elements),
        strict.post("Patient", PATIENT | elements),
    ):
        assert response.status_code == 400
        assert ("error", code, expression) in issues(response)
    assert strict.get("Patient/example").status_code == 404


RULES = [
    ({"gender": "unsure"}, "code-invalid", "Patient.gender"),
    ({"contact": [{"gender": "male"}]}, "invariant", "Patient.contact[0]"),
    ({"managingOrganization": {"reference": "Patient/1"}}, "business-rule", "Patient.managingOrganization"),
    (
        {"text": {"status": "generated", "div": "<div><script>1</script></div>"}},
        "invariant",
        "Patient.text.div",
    ),
]


@pytest.mark.parametrize(("elements", "code", "expression"), RULES)
def test_what_breaks_a_rule_is_422(strict, elements, code, expression):
    response = strict.put("Patient/example", PATIENT | elements)

    assert response.status_code == 422
    assert ("error", code, expression) in issues(response)
    assert strict.get("Patient/example").status_code == 404


def test_all_problems_are_told_in_one_outcome(strict):
    """Of both kinds; then it is 400. Warnings are no reason, and not told."""
    response = strict.post("Patient", PATIENT | {"gurke": 1, "birthDate": "1990-02-30", "gender": "unsure"})

    assert response.status_code == 400
    assert issues(response) == [
        ("error", "structure", "Patient.gurke"),
        ("error", "value", "Patient.birthDate"),
        ("error", "code-invalid", "Patient.gender"),
    ]
    assert len(response.json["issue"]) == 3


@pytest.mark.parametrize(
    ("strict", "structure", "rule"),
    [("off", 201, 201), ("structure", 400, 201), ("full", 400, 422)],
    indirect=["strict"],
)
def test_the_setting_says_what_is_refused(strict, structure, rule):
    assert strict.post("Patient", PATIENT | {"gurke": 1}).status_code == structure
    assert strict.post("Patient", PATIENT | {"gender": "unsure"}).status_code == rule


def test_the_client_can_not_choose(strict):
    """design 7: not selectable per request."""
    response = strict.post("Patient", PATIENT | {"gender": "unsure"}, Prefer="handling=lenient")

    assert response.status_code == 422


def entry(resource: dict[str, Any]) -> dict[str, Any]:
    return {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}


def test_a_transaction_names_the_entry_and_writes_nothing(strict):
    bundle = {"resourceType": "Bundle", "type": "transaction"}

    response = strict.post("", bundle | {"entry": [entry(PATIENT), entry(PATIENT | {"gender": "unsure"})]})

    assert response.status_code == 422
    assert issues(response) == [("error", "code-invalid", "Bundle.entry[1].resource.gender")]
    assert strict.get("Patient/_history").json["total"] == 0


def test_an_entry_of_a_batch_fails_alone(strict):
    bundle = {"resourceType": "Bundle", "type": "batch"}

    response = strict.post("", bundle | {"entry": [entry(PATIENT | {"gurke": 1}), entry(PATIENT)]})

    first, second = response.json["entry"]
    assert first["response"]["status"].startswith("400")
    assert first["response"]["outcome"]["issue"][0]["expression"] == ["Patient.gurke"]
    assert second["response"]["status"].startswith("201")


def test_warnings_are_told_to_who_asks(strict):
    """`Prefer: return=OperationOutcome`, of single writes and in response Bundles."""
    plain = strict.post("Patient", PATIENT)
    asked = strict.post("Patient", PATIENT, **OUTCOME)
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry(PATIENT)]}
    in_bundle = strict.post("", bundle, **OUTCOME).json["entry"][0]["response"]["outcome"]

    assert plain.json["resourceType"] == "Patient"
    assert asked.status_code == 201
    for outcome in (asked.json, in_bundle):
        first, second = outcome["issue"]
        assert (first["severity"], first["code"]) == ("information", "informational")
        assert second["severity"] == "warning"
        assert "dom-6" in second["details"]["text"]


def test_an_unknown_profile_is_a_warning(strict):
    response = strict.put("Patient/example", PATIENT | {"meta": {"profile": [URL]}}, **OUTCOME)

    assert response.status_code == 201
    assert ("warning", "not-found", "Patient.meta.profile[0]") in issues(response)


def test_a_profile_of_the_repository_is_applied_while_it_is_there(strict):
    claiming = PATIENT | {"meta": {"profile": [URL]}}
    assert strict.put("StructureDefinition/named-patient", profile()).status_code == 201

    refused = strict.put("Patient/example", claiming)
    assert refused.status_code == 422
    assert ("error", "business-rule", "Patient") in issues(refused)
    assert strict.put("Patient/example", claiming | {"name": [{"text": "Ada"}]}).status_code == 201

    assert strict.delete("StructureDefinition/named-patient").status_code == 204
    assert strict.put("Patient/example", claiming).status_code == 200


# $validate


NARRATED = PATIENT | {
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Ada</div>'}
}


def parameters(**values: Any) -> dict[str, Any]:
    """Parameters of $validate."""
    keys = {"resource": "resource", "mode": "valueCode", "profile": "valueUri"}
    given = [{"name": name, keys[name]: value} for name, value in values.items()]
    return {"resourceType": "Parameters", "parameter": given}


@pytest.mark.parametrize("path", ["Patient/$validate", "Patient/example/$validate"])
def test_a_valid_resource_is_all_ok(client, path):
    """16.2: one issue, as OperationOutcome.issue is 1..*; nothing is stored."""
    for body in (NARRATED, parameters(resource=NARRATED)):
        response = client.post(path, body)

        assert response.status_code == 200
        assert issues(response) == [("information", "informational", None)]
        assert response.json["issue"][0]["details"]["text"] == "All OK"
    assert client.get("_history").json["total"] == 0


@pytest.mark.parametrize("path", ["Patient/$validate", "Patient/example/$validate"])
def test_an_invalid_resource_is_200_with_all_that_is_wrong(client, path):
    """16.2: the operation succeeds; its outcome says that the resource doesn't, whatever fhir.validation is."""
    wrong = PATIENT | {"gurke": 1, "gender": "unsure"}

    for body in (wrong, parameters(resource=wrong)):
        response = client.post(path, body)

        assert response.status_code == 200
        assert issues(response) == [
            ("error", "structure", "Patient.gurke"),
            ("error", "code-invalid", "Patient.gender"),
        ]


def test_warnings_are_told(client):
    texts = [each["details"]["text"] for each in client.post("Patient/$validate", PATIENT).json["issue"]]

    assert len(texts) == 1
    assert "dom-6" in texts[0]


def test_a_resource_of_another_type_is_wrong(client):
    response = client.post("Observation/$validate", PATIENT)

    assert response.status_code == 200
    assert [issue[:2] for issue in issues(response)] == [("error", "invalid")]


def test_the_stored_one_is_validated_by_get(client, store, make_client, settings):
    """GET, or POST without a body; the commit that was read is named."""
    careless = make_client(replace(settings, validation="off"))
    careless.put("Patient/example", NARRATED)

    for method in ("GET", "POST"):
        response = client.request(method, "Patient/example/$validate")
        assert response.status_code == 200
        assert issues(response) == [("information", "informational", None)]
        assert response.headers["Git-Commit"] == store.snapshot().commit.id
    assert client.get("Patient/other/$validate").status_code == 404
    client.delete("Patient/example")
    assert client.get("Patient/example/$validate").status_code == 410


@pytest.mark.parametrize("mode", ["update", "delete"])
def test_update_and_delete_look_whether_it_is_there(client, mode):
    """16.2: not-found and deleted are issues of the outcome, not errors of HTTP."""
    path = f"Patient/example/$validate?mode={mode}"
    asked = [lambda: client.post(path, NARRATED), lambda: client.post("Patient/example/$validate", wrapped)]
    asked.append(lambda: client.post("Patient/$validate", wrapped))
    wrapped = parameters(resource=NARRATED, mode=mode)

    for ask in asked:
        assert [issue[:2] for issue in issues(ask())] == [("error", "not-found")]
    client.put("Patient/example", NARRATED)
    for ask in asked:
        assert issues(ask()) == [("information", "informational", None)]
    client.delete("Patient/example")
    for ask in asked:
        assert [issue[:2] for issue in issues(ask())] == [("error", "deleted")]


def test_a_deletion_needs_no_resource(client):
    client.put("Patient/example", NARRATED)

    for response in (
        client.get("Patient/example/$validate?mode=delete"),
        client.post("Patient/example/$validate", parameters(mode="delete")),
    ):
        assert response.status_code == 200
        assert issues(response) == [("information", "informational", None)]


def test_an_update_must_have_its_id(client):
    client.put("Patient/example", NARRATED)
    nameless = {name: value for name, value in NARRATED.items() if name != "id"}

    another = client.post("Patient/example/$validate?mode=update", NARRATED | {"id": "other"})
    none = client.post("Patient/example/$validate?mode=update", nameless)

    assert issues(another) == [("error", "value", "Patient.id")]
    assert issues(none) == [("error", "required", "Patient.id")]
    assert client.post("Patient/$validate?mode=update", nameless).status_code == 400


def test_a_create_is_judged_without_what_the_server_replaces(client):
    odd = NARRATED | {"id": "no id!", "meta": {"versionId": "no version!"}}

    assert issues(client.post("Patient/$validate?mode=create", odd)) == [
        ("information", "informational", None)
    ]
    assert len(issues(client.post("Patient/$validate", odd))) == 2


def test_a_profile_can_be_asked_for(client):
    """16.2: in the URL or in Parameters; one that isn't known is a warning."""
    unknown = client.post("Patient/$validate", parameters(resource=NARRATED, profile=URL))
    assert [issue[:2] for issue in issues(unknown)] == [("warning", "not-found")]
    client.put("StructureDefinition/named-patient", profile())

    for response in (
        client.post("Patient/$validate", parameters(resource=NARRATED, profile=URL)),
        client.post(f"Patient/$validate?profile={URL}", NARRATED),
        client.post("Patient/$validate", NARRATED | {"meta": {"profile": [URL]}}),
    ):
        assert issues(response) == [("error", "business-rule", "Patient")]


def test_parameters_themselves_can_be_validated(client):
    """A bare Parameters resource at its own type; wrapped, its own faults are told."""
    bare = {"resourceType": "Parameters", "parameter": [{"name": "resource", "gurke": 1}]}

    assert issues(client.post("Parameters/$validate", bare)) == [
        ("error", "structure", "Parameters.parameter[0].gurke")
    ]
    assert issues(client.post("Parameters/$validate", parameters(resource=bare))) == [
        ("error", "structure", "Parameters.parameter[0].gurke")
    ]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("Patient/$validate?mode=banana", NARRATED),
        ("Patient/$validate?banana=1", NARRATED),
        ("Patient/$validate?mode=create", parameters(resource=NARRATED, mode="create")),
        ("Patient/$validate", "{"),
        ("Patient/$validate", None),
        ("Patient/$validate", parameters(profile=URL)),
        ("Patient/$validate?mode=delete", {"resourceType": "Patient"}),
        ("Patient/$validate", {"resourceType": "Parameters", "parameter": {}}),
        ("Patient/$validate", {"resourceType": "Parameters", "parameter": [1]}),
        ("Patient/$validate", {"resourceType": "Parameters", "parameter": [{"name": "resource"}]}),
        ("Patient/$validate", {"resourceType": "Parameters", "parameter": [{"name": "banana"}]}),
        (
            "Patient/$validate",
            {"resourceType": "Parameters", "parameter": 2 * [{"name": "resource", "resource": NARRATED}]},
        ),
    ],
)
def test_what_can_not_be_run_is_400(client, path, body):
    """16.1, 16.2"""
    response = client.post(path, body)

    assert response.status_code == 400
    assert issues(response)[0][0] == "error"


def test_a_type_has_nothing_to_get(client):
    """16.1"""
    response = client.get("Patient/$validate")

    assert response.status_code == 405
    assert response.headers["Allow"] == "OPTIONS, POST"
    assert client.post("Banana/$validate", NARRATED).status_code == 404


ENTRIES = {
    "a resource": ("POST", "Patient/$validate", NARRATED, "All OK"),
    "a faulty one": ("POST", "Patient/$validate", NARRATED | {"gender": "x"}, "gender"),
    "the stored one": ("GET", "Patient/example/$validate", None, "All OK"),
    "what could take its place": (
        "POST",
        "Patient/example/$validate?mode=update",
        NARRATED | {"id": "o"},
        "id `o`",
    ),
    "a deletion": ("GET", "Patient/nobody/$validate?mode=delete", None, "not known"),
}


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(("method", "url", "resource", "text"), ENTRIES.values(), ids=ENTRIES)
def test_it_is_an_entry_of_a_bundle(client, kind, method, url, resource, text):
    """14.16: answered with an OperationOutcome, and nothing is written."""
    client.put("Patient/example", NARRATED)
    entry = {"request": {"method": method, "url": url}} | ({"resource": resource} if resource else {})

    [answer] = client.post("", {"resourceType": "Bundle", "type": kind, "entry": [entry]}).json["entry"]

    assert answer["response"]["status"].startswith("200")
    assert answer["resource"]["resourceType"] == "OperationOutcome"
    assert text in answer["resource"]["issue"][0]["details"]["text"]
    assert client.get("_history").json["total"] == 1


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "Patient/$validate", 400),
        ("POST", "Banana/$validate", 404),
        ("PUT", "Patient/1/$validate", 501),
    ],
)
def test_an_entry_that_it_can_not_be_is_refused(client, method, url, status):
    """14.16: in a transaction all of it."""
    entry = {"resource": NARRATED, "request": {"method": method, "url": url}}
    if method == "GET":
        del entry["resource"]

    [answer] = client.post("", {"resourceType": "Bundle", "type": "batch", "entry": [entry]}).json["entry"]

    assert answer["response"]["status"].startswith(str(status))
    transaction = client.post("", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert transaction.status_code == status
