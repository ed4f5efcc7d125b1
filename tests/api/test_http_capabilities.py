"""The CapabilityStatement, walked claim by claim. https://hl7.org/fhir/R4/http.html#capabilities"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from api.app import ROUTES
from api.capabilities import OPERATIONS, SYSTEM_LEVEL, SYSTEM_OPERATIONS, TYPE_LEVEL, VERSION
from gitstore.fhir import validation
from gitstore.fhir.definitions import RESOURCE_TYPES

JSON_PATCH = "application/json-patch+json"


@pytest.fixture
def statement(client):
    return client.get("metadata").json


def test_it_says_what_it_is(statement):
    """13.1"""
    assert statement["resourceType"] == "CapabilityStatement"
    assert (statement["kind"], statement["fhirVersion"], statement["status"]) == (
        "instance",
        "4.0.1",
        "active",
    )
    assert statement["implementation"]["url"] == "http://localhost:8080/fhir"
    assert statement["rest"][0]["mode"] == "server"


def test_its_version_is_the_softwares(statement):
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]

    assert statement["software"]["version"] == VERSION == project["version"]


def test_it_has_every_type(statement):
    """13.3"""
    types = [each["type"] for each in statement["rest"][0]["resource"]]

    assert types == list(RESOURCE_TYPES)
    assert len(types) == 146


@pytest.mark.parametrize("mode", ["full", "normative", "terminology"])
def test_modes_are_answered_with_the_whole(client, statement, mode):
    """13.2"""
    assert client.get(f"metadata?mode={mode}").json == statement


def test_an_unknown_mode_is_refused(client):
    """13.2"""
    assert client.get("metadata?mode=banana").status_code == 400


def test_its_tag_changes_with_its_content_only(client):
    """13.4: 304, and another tag under another base."""
    first = client.get("metadata")

    assert client.get("metadata", If_None_Match=first.headers["ETag"]).status_code == 304
    assert client.get("metadata").headers["ETag"] == first.headers["ETag"]
    assert client.get("metadata", Host="127.0.0.1").headers["ETag"] != first.headers["ETag"]


def test_every_format_it_names_works(client, statement):
    """13.5"""
    for name in statement["format"]:
        assert client.get("metadata?_format=" + name.replace("+", "%2B")).status_code == 200


def test_every_interaction_it_names_works_on_every_type(client, statement):
    """13.3: each type's own claims, tried one by one."""
    for claim in statement["rest"][0]["resource"]:
        type = claim["type"]
        assert tuple(each["code"] for each in claim["interaction"]) == TYPE_LEVEL
        for code in TYPE_LEVEL:
            assert _works(client, code, type), (code, type)
        assert claim["versioning"] == "versioned"
        assert claim["readHistory"] is True
        assert claim["updateCreate"] is True


def _works(client, code, type):
    """Whether one interaction of a type can be carried out."""
    resource = {"resourceType": type, "id": "x"}
    match code:
        case "create":
            return client.post(type, resource).status_code == 201
        case "search-type":
            return client.get(type).json["type"] == "searchset"
        case "history-type":
            return client.get(f"{type}/_history").status_code == 200
    if client.get(f"{type}/x").status_code == 404 and client.put(f"{type}/x", resource).status_code != 201:
        return False
    match code:
        case "read":
            return client.get(f"{type}/x", Accept="application/fhir+json").json["resourceType"] == type
        case "vread":
            return client.get(f"{type}/x/_history/1").status_code == 200
        case "history-instance":
            return client.get(f"{type}/x/_history").status_code == 200
        case "update":
            return client.put(f"{type}/x", resource).status_code in (200, 201)
        case "delete":
            deleted = client.delete(f"{type}/x").status_code == 204
            return deleted and client.put(f"{type}/x", resource).status_code == 201
        case "patch":
            return client.request("PATCH", f"{type}/x", [], Content_Type=JSON_PATCH).status_code == 200
    return False


def test_every_operation_it_names_works_on_every_type(client, statement):
    """13.3: named with its definition, and answered with what that says."""
    version = {"resourceType": "Parameters", "parameter": [{"name": "version", "valueInteger": 1}]}
    for claim in statement["rest"][0]["resource"]:
        *operations, diff, blame, restore = claim["operation"]
        validate, meta, add, delete, *others = operations
        assert validate == {
            "name": "validate",
            "definition": "http://hl7.org/fhir/OperationDefinition/Resource-validate",
        }
        answer = client.post(f"{claim['type']}/$validate", {"resourceType": claim["type"]})
        assert answer.status_code == 200
        assert answer.json["resourceType"] == "OperationOutcome"
        assert (meta["name"], meta["definition"]) == (
            "meta",
            "http://hl7.org/fhir/OperationDefinition/Resource-meta",
        )
        assert client.get(f"{claim['type']}/$meta").json["resourceType"] == "Parameters"
        client.put(f"{claim['type']}/m", {"resourceType": claim["type"], "id": "m"})
        assert client.get(f"{claim['type']}/m/$meta").json["resourceType"] == "Parameters"
        for operation, name in ((add, "meta-add"), (delete, "meta-delete")):
            assert operation["name"] == name
            assert operation["definition"].endswith(f"/OperationDefinition/Resource-{name}")
            labels = {"name": "meta", "valueMeta": {"tag": [{"code": "a"}]}}
            body = {"resourceType": "Parameters", "parameter": [labels]}
            assert client.post(f"{claim['type']}/m/${name}", body).json["resourceType"] == "Parameters"
        for operation, name in ((diff, "diff"), (blame, "blame"), (restore, "restore")):
            assert operation == {
                "name": name,
                "definition": f"https://git-fhir.dev/OperationDefinition/{name}",
            }
        for name in ("diff", "blame"):
            assert client.get(f"{claim['type']}/m/${name}").json["resourceType"] == "Parameters"
        restored = client.post(f"{claim['type']}/m/$restore", version)
        assert (restored.json["resourceType"], restored.json["meta"]["versionId"]) == (claim["type"], "4")
        works = client.get(f"{claim['type']}/m/$everything").status_code == 200
        definition = f"http://hl7.org/fhir/OperationDefinition/{claim['type']}-everything"
        assert others == ([{"name": "everything", "definition": definition}] if works else [])
        assert works == (claim["type"] in ("Patient", "Encounter"))


def test_it_is_valid(statement):
    """https://hl7.org/fhir/R4/capabilitystatement.html: by its own judge, without an error."""
    assert [issue for issue in validation.issues(statement) if issue.severity == "error"] == []


def test_conditional_reads_work_as_claimed(client, statement, patient):
    """4.10: full-support means both headers."""
    client.put("Patient/example", patient)

    assert {each["conditionalRead"] for each in statement["rest"][0]["resource"]} == {"full-support"}
    assert client.get("Patient/example", If_None_Match='W/"1"').status_code == 304
    date = "Tue, 14 Nov 2034 22:13:20 GMT"
    assert client.get("Patient/example", If_Modified_Since=date).status_code == 304


def test_the_system_interactions_work(client, statement):
    """13.3"""
    codes = tuple(each["code"] for each in statement["rest"][0]["interaction"])

    assert codes == SYSTEM_LEVEL
    for kind in ("transaction", "batch"):
        assert client.post("", {"resourceType": "Bundle", "type": kind}).status_code == 200
    assert client.get("_history").status_code == 200
    assert client.get("").status_code == 200


def test_each_format_works(client, statement):
    """2.17: as `_format`, as Accept, and a short name as well."""
    assert statement["format"] == ["application/fhir+json", "json", "application/fhir+xml", "xml"]
    for name in statement["format"]:
        escaped = name.replace("+", "%2B")
        assert name in client.get(f"metadata?_format={escaped}").headers["Content-Type"]
        if "/" in name:
            assert client.get("metadata", Accept=name).headers["Content-Type"] == name


def test_the_operations_of_the_system_work(client, statement, patient):
    """13.3, 16.3"""
    meta, diff, changes, revert = statement["rest"][0]["operation"]
    for operation, name in ((diff, "diff"), (changes, "changes"), (revert, "revert")):
        assert operation == {"name": name, "definition": f"https://git-fhir.dev/OperationDefinition/{name}"}
    client.put("Patient/example", patient)
    assert client.get("$diff?from=Patient/example&to=Patient/example").status_code == 200
    assert client.get("$changes?from=2999-01-01").status_code == 200
    commit = client.get("Patient/example").headers["Git-Commit"]
    assert client.post(f"$revert?commit={commit}", "").json["resourceType"] == "Bundle"
    assert meta == {"name": "meta", "definition": "http://hl7.org/fhir/OperationDefinition/Resource-meta"}
    assert client.get("$meta").status_code == 200


def test_the_headers_it_tells_of_work(client, statement, patient):
    """3.7: there is no other place in the statement for them."""
    told = statement["rest"][0]["documentation"]
    assert "X-Provenance" in told
    assert "Idempotency-Key" in told
    provenance = '{"resourceType": "Provenance"}'
    for _ in range(2):
        client.post("Patient", patient, X_Provenance=provenance, Idempotency_Key="k")
    assert client.get("_history").json["total"] == 2


def test_every_interaction_has_its_page():
    """One word of the specification names code, test and page."""
    docs = Path(__file__).parents[2] / "docs"
    pages = {page.stem for page in (*docs.joinpath("interactions").glob("*.md"), docs / "audit.md")}
    named = {"history-instance": "history", "history-type": "history", "history-system": "history"}
    named |= {"search-type": "search", "search-system": "search"}
    named |= {
        "batch": "batch-and-transaction",
        "transaction": "batch-and-transaction",
        "$validate": "validate",
        "$meta": "meta",
        "$meta-add": "meta",
        "$meta-delete": "meta",
        "$everything": "everything",
        "$diff": "audit",
        "$blame": "audit",
        "$changes": "audit",
        "$restore": "audit",
        "$revert": "audit",
    }
    codes = {code for _, endpoint in ROUTES for each in endpoint.interactions.values() for code in each}

    assert codes == {*TYPE_LEVEL, *SYSTEM_LEVEL, *OPERATIONS, *SYSTEM_OPERATIONS, "capabilities"}
    assert {named.get(code, code) for code in codes} <= pages
