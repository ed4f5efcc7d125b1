"""Which documents are patches, what all kinds of them keep to, and what becomes of narratives."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gitstore.errors import Invalid, Issue, NotSupported, Unprocessable
from gitstore.fhir import json, xml
from gitstore.fhir.patch import MEDIA_TYPES, narrative_after, of_binary, of_parameters, parse
from gitstore.fhir.patch.result import finished

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "ada",
    "meta": {"versionId": "3", "lastUpdated": "2026-01-01T12:00:00Z"},
    "birthDate": "1815-12-01",
}
BORN: dict[str, Any] = {
    "resourceType": "Parameters",
    "parameter": [
        {
            "name": "operation",
            "part": [
                {"name": "type", "valueCode": "replace"},
                {"name": "path", "valueString": "Patient.birthDate"},
                {"name": "value", "valueDate": "1815-12-10"},
            ],
        }
    ],
}
JSON_PATCH = b'[{"op": "replace", "path": "/birthDate", "value": "1815-12-10"}]'
MERGE_PATCH = b'{"birthDate": "1815-12-10"}'
XML_PATCH = b"<diff><replace sel='Patient/birthDate/@value'>1815-12-10</replace></diff>"


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json-patch+json", JSON_PATCH),
        ("Application/JSON-Patch+JSON; charset=utf-8", JSON_PATCH),
        ("application/merge-patch+json", MERGE_PATCH),
        ("application/xml-patch+xml", XML_PATCH),
        ("application/fhir+json; fhirVersion=4.0", json.dumps(BORN)),
        ("application/json", json.dumps(BORN)),
        ("text/json", json.dumps(BORN)),
        ("application/fhir+xml", xml.dumps(BORN)),
        ("application/xml", xml.dumps(BORN)),
        ("text/xml", xml.dumps(BORN)),
        ("application/json", MERGE_PATCH),
        ("text/json", MERGE_PATCH),
    ],
)
def test_each_media_type_has_its_kind_of_patch(media_type, body):
    """https://hl7.org/fhir/R4/http.html#patch"""
    assert parse(media_type, body).apply(PATIENT) == PATIENT | {"birthDate": "1815-12-10"}


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", JSON_PATCH),
        ("text/json", b"[]"),
        ("text/plain", b""),
        ("", b""),
        ("application/pdf", b"%"),
    ],
)
def test_other_media_types_are_not_supported(media_type, body):
    """An array as application/json might be anything; 415 is the caller's answer. RFC 5789, section 2.2"""
    with pytest.raises(NotSupported, match="json-patch"):
        parse(media_type, body)


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/fhir+json", MERGE_PATCH),
        ("application/fhir+json", json.dumps(PATIENT)),
        ("application/fhir+json", b"[]"),
        ("application/fhir+json", b""),
        ("application/fhir+xml", xml.dumps(PATIENT)),
        ("application/xml", XML_PATCH),
        ("application/json", b"1"),
    ],
)
def test_fhir_that_is_no_parameters_is_no_patch(media_type, body):
    """https://hl7.org/fhir/R4/fhirpatch.html"""
    with pytest.raises(Invalid) as refusal:
        parse(media_type, body)

    assert not isinstance(refusal.value, Unprocessable)


def binary(content_type: str, body: bytes) -> dict[str, Any]:
    return {
        "resourceType": "Binary",
        "contentType": content_type,
        "data": base64.encodebytes(body).decode(),
    }


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json-patch+json", JSON_PATCH),
        ("application/merge-patch+json; charset=utf-8", MERGE_PATCH),
        ("application/xml-patch+xml", XML_PATCH),
    ],
)
def test_an_entry_of_a_bundle_has_its_patch_in_a_binary(content_type, body):
    """Line breaks in the base64 say nothing. https://hl7.org/fhir/R5/http.html#jsonpatch-transaction"""
    assert of_binary(binary(content_type, body)).apply(PATIENT)["birthDate"] == "1815-12-10"


def test_an_entry_of_a_bundle_can_be_parameters():
    assert of_parameters(BORN).apply(PATIENT)["birthDate"] == "1815-12-10"


@pytest.mark.parametrize(
    "resource",
    [
        binary("application/fhir+json", json.dumps(BORN)),
        binary("application/json", MERGE_PATCH),
        {"resourceType": "Binary", "data": "W10="},
        {"resourceType": "Binary", "contentType": "application/json-patch+json"},
        {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": "W10"},
        {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": "[é]"},
        {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": "W1!0="},
        {"resourceType": "Binary", "contentType": ["application/json-patch+json"], "data": "W10="},
        binary("application/json-patch+json", b"{}"),
        {"resourceType": "Patient", "contentType": "application/json-patch+json", "data": "W10="},
    ],
)
def test_a_binary_without_a_patch_is_invalid(resource):
    with pytest.raises(Invalid):
        of_binary(resource)


def test_accept_patch_says_what_is_understood():
    """RFC 5789, section 3.1"""
    assert len(set(MEDIA_TYPES)) == 5
    for media_type in MEDIA_TYPES:
        with pytest.raises(Invalid):  # and not NotSupported
            parse(media_type, b"?")


# What all kinds keep to.


def finish(**changes: Any) -> dict[str, Any]:
    after = {name: value for name, value in (PATIENT | changes).items() if value is not ...}
    return finished(PATIENT, after)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "x"},
        {"id": ...},
        {"id": 1},
        {"resourceType": "Group"},
        {"resourceType": ...},
        {"resourceType": ["Patient"]},
    ],
)
def test_a_patch_can_not_change_type_or_id(changes):
    """422. https://hl7.org/fhir/R4/http.html#patch"""
    with pytest.raises(Unprocessable) as refusal:
        finish(**changes)

    [issue] = refusal.value.issues
    assert issue.expression == f"Patient.{next(iter(changes))}"


def test_an_id_that_is_new_is_refused_too():
    with pytest.raises(Unprocessable):
        finished({"resourceType": "Patient"}, {"resourceType": "Patient", "id": "x"})


@pytest.mark.parametrize("after", [None, [], "x", True])
def test_a_patch_leaves_a_resource(after):
    with pytest.raises(Unprocessable):
        finished(PATIENT, after)


@pytest.mark.parametrize(
    "meta", [..., {"versionId": "9"}, {"lastUpdated": "1999-01-01T00:00:00Z"}, {"versionId": None}, {}, None]
)
def test_what_the_server_maintains_in_meta_stays(meta):
    """Changes to versionId and lastUpdated are ignored. https://hl7.org/fhir/R4/resource.html#Meta"""
    assert finish(meta=meta)["meta"] == PATIENT["meta"]


def test_other_elements_of_meta_can_be_changed():
    profile = ["http://example.org/p"]

    assert finish(meta={"profile": profile})["meta"] == PATIENT["meta"] | {"profile": profile}
    assert "meta" not in finished(
        {"resourceType": "Patient"}, {"resourceType": "Patient", "meta": {"versionId": "1"}}
    )
    assert finish(meta="x")["meta"] == "x"  # for validation to refuse


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"name": []}, {}),
        ({"name": [{}]}, {}),
        ({"name": [{"period": {}}, {"family": "L"}]}, {"name": [{"family": "L"}]}),
        ({"maritalStatus": {"coding": [{"extension": []}]}}, {}),
        ({"_gender": {}}, {}),
        ({"_gender": {"extension": []}, "gender": "female"}, {"gender": "female"}),
        # a primitive and what is beside it stay together
        (
            {"given": ["A", "B"], "_given": [{}, {"id": "b"}]},
            {"given": ["A", "B"], "_given": [None, {"id": "b"}]},
        ),
        ({"given": ["A", None], "_given": [None, {}]}, {"given": ["A"]}),
        (
            {"given": ["A", None, "C"], "_given": [{"id": "a"}, {}, None]},
            {"given": ["A", "C"], "_given": [{"id": "a"}, None]},
        ),
        ({"given": [None], "_given": [{"extension": []}]}, {}),
        ({"given": [], "_given": [{"id": "a"}]}, {"_given": [{"id": "a"}]}),
        ({"given": ["A"], "_given": [None, {}]}, {"given": ["A"]}),
        ({"given": ["A"], "_given": [{"id": "a"}, {}]}, {"given": ["A"], "_given": [{"id": "a"}]}),
        # values that are false are values
        ({"a": False, "b": 0, "c": ""}, {"a": False, "b": 0, "c": ""}),
    ],
)
def test_what_is_left_empty_is_removed(given, left):
    """FHIR has no empty arrays and objects. https://hl7.org/fhir/R4/json.html#primitive"""
    name = {"resourceType": "Basic"}

    assert finished(name, name | given) == name | left


def test_a_result_that_lies_too_deep_is_refused():
    deep: Any = "x"
    for _ in range(64):
        deep = {"extension": deep}

    with pytest.raises(Unprocessable, match="more than 64 deep"):
        finish(extension=deep)
    assert finish(extension=deep["extension"])


# Narratives.

TEXT = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Born in 1815.</div>'}
TOLD = PATIENT | {"text": TEXT}


def test_a_narrative_that_might_contradict_the_resource_is_removed():
    """It could be clinically unsafe, and the warning says that it is gone. https://hl7.org/fhir/R4/http.html#patch"""
    after = TOLD | {"birthDate": "1816"}

    result, issues = narrative_after(TOLD, after, "drop")

    assert result == PATIENT | {"birthDate": "1816"}
    assert issues == (
        Issue(
            "warning",
            "business-rule",
            "The narrative was removed: the patch changed the resource, and not its narrative.",
            "Patient.text",
        ),
    )
    assert "text" in after


def test_a_narrative_is_left_where_that_is_wanted():
    after = TOLD | {"birthDate": "1816"}

    assert narrative_after(TOLD, after, "keep") == (after, ())


def test_a_patch_is_refused_where_that_is_wanted():
    with pytest.raises(Unprocessable) as refusal:
        narrative_after(TOLD, TOLD | {"birthDate": "1816"}, "reject")

    assert refusal.value.issues[0].expression == "Patient.text"


@pytest.mark.parametrize("mode", ["drop", "keep", "reject"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (TOLD, TOLD),
        (TOLD, TOLD | {"meta": {"tag": [{"code": "x"}]}}),
        (TOLD, TOLD | {"birthDate": "1816", "text": TEXT | {"div": "<div>1816</div>"}}),
        (TOLD, PATIENT | {"birthDate": "1816"}),
        (PATIENT, PATIENT | {"birthDate": "1816"}),
        (PATIENT, TOLD | {"birthDate": "1816"}),
    ],
    ids=["nothing changed", "meta changed", "both changed", "text removed", "no text", "text added"],
)
def test_a_narrative_that_says_what_is_so_stays(mode, before, after):
    assert narrative_after(before, after, mode) == (after, ())


@pytest.mark.parametrize("change", [{"gender": "female"}, {"birthDate": ...}])
def test_elements_that_come_and_go_are_changes(change):
    after = {name: value for name, value in (TOLD | change).items() if value is not ...}

    assert "text" not in narrative_after(TOLD, after, "drop")[0]
