"""What _summary and _elements leave of a resource. https://hl7.org/fhir/R4/search.html#summary"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gitstore.fhir import definitions, json
from gitstore.fhir.summary import SUBSETTED, elements, summary

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "example",
    "meta": {"versionId": "3", "tag": [{"code": "actionable"}]},
    "text": {"status": "generated", "div": "<div xmlns='http://www.w3.org/1999/xhtml'>Ada</div>"},
    "contained": [{"resourceType": "Organization", "id": "o"}],
    "extension": [{"url": "http://e", "valueString": "x"}],
    "modifierExtension": [{"url": "http://m", "valueString": "not really"}],
    "active": True,
    "name": [
        {
            "id": "n",
            "family": "Lovelace",
            "given": ["Ada"],
            "_given": [{"extension": [{"url": "http://e", "valueString": "x"}]}],
        }
    ],
    "_birthDate": {"extension": [{"url": "http://absent", "valueCode": "unknown"}]},
    "photo": [{"url": "http://photo"}],
    "contact": [{"name": {"family": "Byron"}}],
}

OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o",
    "status": "final",
    "_status": {"id": "s"},
    "code": {"text": "weight"},
    "valueQuantity": {"value": json.Number("70.50")},
    "note": [{"text": "after lunch"}],
}


def keys(resource: dict[str, Any]) -> list[str]:
    return [key for key in resource if key not in ("resourceType", "id", "meta")]


def test_a_summary_has_what_the_definitions_mark():
    """Photo, contact, extensions and contained resources are not marked; modifiers always stay."""
    part = summary(PATIENT, "true")

    assert keys(part) == ["modifierExtension", "active", "name", "_birthDate"]
    assert part["modifierExtension"] == PATIENT["modifierExtension"]


def test_a_summary_goes_down_into_elements():
    """Of a name family and given, not the extensions of these; but why there is no value stays."""
    part = summary(PATIENT, "true")

    assert part["name"] == [{"family": "Lovelace", "given": ["Ada"]}]
    assert part["_birthDate"] == PATIENT["_birthDate"]


def test_a_gap_in_an_array_keeps_its_explanation():
    """Otherwise null would stand for nothing."""
    name = {"given": ["Ada", None], "_given": [None, {"extension": [{"url": "http://masked"}]}]}

    assert summary({"resourceType": "Patient", "name": [name]}, "true")["name"] == [name]


def test_mandatory_elements_stay_that_are_not_marked():
    """AuditEvent.agent is no part of the summary, but there is no AuditEvent without one."""
    event = {
        "resourceType": "AuditEvent",
        "agent": [{"requestor": True, "altId": "a"}],
        "source": {"site": "x", "observer": {"display": "o"}},
    }

    part = summary(event, "true")

    assert part["agent"] == [{"requestor": True}]
    assert part["source"] == {"observer": {"display": "o"}}


def test_an_element_of_which_nothing_would_be_left_stays_whole():
    """An empty object would be no FHIR."""
    patient = {"resourceType": "Patient", "name": [{"extension": [{"url": "http://e", "valueString": "x"}]}]}

    assert summary(patient, "true")["name"] == patient["name"]


def test_text_is_the_narrative_with_the_mandatory_elements():
    """And id and meta, to say of what."""
    assert keys(summary(PATIENT, "text")) == ["text"]
    assert keys(summary(OBSERVATION, "text")) == ["status", "_status", "code"]


def test_data_is_all_but_the_narrative():
    """https://hl7.org/fhir/R4/search.html#summary"""
    assert keys(summary(PATIENT, "data")) == [key for key in keys(PATIENT) if key != "text"]


def test_false_is_the_whole():
    """Untagged: nothing is missing."""
    assert summary(PATIENT, "false") is PATIENT


@pytest.mark.parametrize("mode", ["count", "yes", ""])
def test_other_modes_are_none(mode):
    """A count is for Bundles."""
    with pytest.raises(ValueError, match="no summary"):
        summary(PATIENT, mode)


def test_elements_are_the_named_ones_with_mandatory_and_modifiers():
    """Whole, with their ids, extensions and siblings."""
    part = elements(PATIENT, ["name", "birthDate", "gurke"])

    assert keys(part) == ["modifierExtension", "active", "name", "_birthDate"]
    assert part["name"] == PATIENT["name"]
    assert keys(elements(OBSERVATION, ["note"])) == ["status", "_status", "code", "note"]
    assert keys(elements(PATIENT, ["contained"])) == ["contained", "modifierExtension", "active"]


@pytest.mark.parametrize("name", ["value", "value[x]", "valueQuantity", "Observation.value"])
def test_a_choice_has_several_names(name):
    """As FHIR and as JSON call it; the type may stand in front."""
    assert elements(OBSERVATION, [name])["valueQuantity"] == OBSERVATION["valueQuantity"]
    assert "valueQuantity" not in elements(OBSERVATION, ["Patient." + name])


@pytest.mark.parametrize("mode", ["true", "text", "data"])
def test_a_part_says_that_it_is_one(mode):
    """By the tag SUBSETTED, after those that are there."""
    assert summary(PATIENT, mode)["meta"] == {"versionId": "3", "tag": [{"code": "actionable"}, SUBSETTED]}
    assert elements(PATIENT, ["name"])["meta"]["tag"] == [{"code": "actionable"}, SUBSETTED]


def test_the_tag_comes_without_meta_too():
    """Meta stands where the record has it: after id."""
    assert list(summary(OBSERVATION, "true")) == [
        "resourceType",
        "id",
        "meta",
        "status",
        "code",
        "valueQuantity",
    ]


def test_the_tag_comes_once():
    """A part of a part is a part."""
    assert summary(summary(PATIENT, "data"), "true")["meta"]["tag"] == [{"code": "actionable"}, SUBSETTED]


def test_resources_of_a_bundle_are_summarised_and_tagged():
    """A Bundle that is itself in the record."""
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": PATIENT}]}

    part = summary(bundle, "true")

    assert part["entry"] == [{"resource": summary(PATIENT, "true")}]


def test_no_example_is_changed_and_no_order(examples):
    """A resource may be shared; what is left stays in its order, and nothing is empty."""
    for name, data in examples.items():
        resource = json.loads(data)
        for part in (
            *(summary(resource, mode) for mode in ("true", "text", "data")),
            elements(resource, ["code", "subject"]),
        ):
            left = [key for key in resource if key in part and key != "meta"]
            assert [key for key in part if key != "meta"] == left, name
            assert set(mandatory(resource)) <= set(part), name
            assert no_empties(part), name
        assert json.dumps(resource) == json.dumps(json.loads(data)), name


def mandatory(resource: dict[str, Any]) -> list[str]:
    described = definitions.elements(resource["resourceType"])
    return [key for key in resource if key in described and described[key].min > 0]


def no_empties(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(map(no_empties, value.values()))
    return bool(value) and all(map(no_empties, value)) if isinstance(value, list) else True


def test_the_given_resource_is_not_touched():
    """Neither its meta nor its tags."""
    before = copy.deepcopy(PATIENT)

    summary(PATIENT, "true")
    elements(PATIENT, ["name"])

    assert before == PATIENT
