"""Merge patches. RFC 7396"""

from __future__ import annotations

from typing import Any

import pytest

from gitstore.errors import Invalid, Unprocessable
from gitstore.fhir import json
from gitstore.fhir.patch import merge_patch, parse

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "ada",
    "active": True,
    "name": [{"family": "Lovelace"}],
    "maritalStatus": {"text": "married", "coding": [{"code": "M"}]},
}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({}, {}),
        ({"active": False}, {"active": False}),
        ({"gender": "female"}, {"gender": "female"}),
        ({"active": None}, {"active": ...}),
        ({"gender": None}, {}),
        # objects are merged, arrays are replaced
        ({"maritalStatus": {"text": "M"}}, {"maritalStatus": {"text": "M", "coding": [{"code": "M"}]}}),
        ({"maritalStatus": {"text": None}}, {"maritalStatus": {"coding": [{"code": "M"}]}}),
        ({"name": [{"given": ["Ada"]}]}, {"name": [{"given": ["Ada"]}]}),
        (
            {"maritalStatus": {"coding": {"code": "x"}}},
            {"maritalStatus": {"text": "married", "coding": {"code": "x"}}},
        ),
        # null within an object that is new removes nothing; in an array it is a value
        ({"contact": {"gender": None, "name": {"text": "B"}}}, {"contact": {"name": {"text": "B"}}}),
        (
            {"name": [{"given": ["Ada", None], "_given": [None, {"id": "a"}]}]},
            {"name": [{"given": ["Ada", None], "_given": [None, {"id": "a"}]}]},
        ),
        # what is left empty goes
        ({"maritalStatus": {"text": None, "coding": None}}, {"maritalStatus": ...}),
        ({"name": []}, {"name": ...}),
        # type and id may be repeated
        ({"resourceType": "Patient", "id": "ada", "active": False}, {"active": False}),
    ],
)
def test_a_merge_patch_looks_like_the_resource(patch, expected):
    """RFC 7396, section 2"""
    merged = {name: value for name, value in (PATIENT | expected).items() if value is not ...}

    assert merge_patch.parse(patch).apply(PATIENT) == merged


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"1", b"{"])
def test_what_is_no_object_is_invalid(body):
    """RFC 7396 would replace the resource as a whole."""
    with pytest.raises(Invalid) as refusal:
        parse("application/merge-patch+json", body)

    assert not isinstance(refusal.value, Unprocessable)


@pytest.mark.parametrize(
    "patch", [{"id": None}, {"id": "x"}, {"resourceType": None}, {"resourceType": "Group"}]
)
def test_type_and_id_stay(patch):
    """422. https://hl7.org/fhir/R4/http.html#patch"""
    with pytest.raises(Unprocessable, match="can't change the"):
        merge_patch.parse(patch).apply(PATIENT)


def test_numbers_keep_their_digits():
    """https://hl7.org/fhir/R4/json.html#decimal"""
    resource = {"resourceType": "Observation", "valueQuantity": {"value": json.Number("1.00")}}
    patch = parse("application/merge-patch+json", b'{"component": [{"valueQuantity": {"value": 2.50}}]}')

    assert json.dumps(patch.apply(resource)) == (
        b'{"resourceType":"Observation","valueQuantity":{"value":1.00},'
        b'"component":[{"valueQuantity":{"value":2.50}}]}'
    )
