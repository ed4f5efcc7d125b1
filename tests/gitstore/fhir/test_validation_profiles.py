"""Profiles: what a StructureDefinition says beyond the specification. https://hl7.org/fhir/R4/profiling.html"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gitstore.fhir import json, validation
from gitstore.fhir.profiles import Profiles
from gitstore.fhir.value_sets import codes_of, has
from tools.build_definitions import files

URL = "http://example.org/StructureDefinition/test"
SYSTEM = "http://example.org/codes"
VALUE_SET = "http://example.org/ValueSet/test"
BASE = "http://hl7.org/fhir/StructureDefinition/"


def structure(*elements: dict[str, Any], type: str = "Observation", url: str = URL) -> dict[str, Any]:
    return {
        "resourceType": "StructureDefinition",
        "url": url,
        "type": type,
        "snapshot": {"element": [{"id": type, "path": type}, *elements]},
    }


def element(id: str, **properties: Any) -> dict[str, Any]:
    """An element of a snapshot; its path is its id without the names of slices."""
    path = ".".join(part.partition(":")[0] for part in id.split("."))
    slice = {"sliceName": id.rpartition(":")[2]} if ":" in id.rpartition(".")[2] else {}
    return {"id": id, "path": path, "min": 0, "max": "*"} | slice | properties


def observation(**properties: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "meta": {"profile": [URL]},
        "status": "final",
        "code": {"text": "x"},
    } | properties


def found(resource: dict[str, Any], *known: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    assert [issue for issue in validation.issues(resource) if issue.severity == "error"] == []
    by_url = {definition["url"]: definition for definition in known}
    issues = Profiles(lambda url: by_url.get(url.partition("|")[0])).issues(resource)
    return [(issue.severity, issue.code, issue.expression) for issue in issues]


def broken(code: str, expression: str) -> list[tuple[str, str, str]]:
    return [("error", code, expression)]


CODING = {"system": SYSTEM, "code": "a"}
OTHER = {"system": SYSTEM, "code": "z"}
QUANTITY = {"value": 1, "unit": "m"}
VALUES = {
    "resourceType": "ValueSet",
    "url": VALUE_SET,
    "compose": {"include": [{"system": SYSTEM, "concept": [{"code": "a"}, {"code": "b"}]}]},
}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], tuple[str, str]]] = {
    # name: what the profile says, a resource that fits, one that doesn't, how that is reported
    "an element that must be there": (
        element("Observation.subject", min=1),
        observation(subject={"display": "Ada"}),
        observation(),
        ("business-rule", "Observation"),
    ),
    "an element that must not be there": (
        element("Observation.bodySite", max="0"),
        observation(),
        observation(bodySite={"text": "x"}),
        ("business-rule", "Observation.bodySite"),
    ),
    "at most two": (
        element("Observation.note", max="2"),
        observation(note=[{"text": "a"}] * 2),
        observation(note=[{"text": "a"}] * 3),
        ("business-rule", "Observation.note"),
    ),
    "a fixed value": (
        element("Observation.status", fixedCode="final"),
        observation(),
        observation(status="amended"),
        ("business-rule", "Observation.status"),
    ),
    "a fixed object": (
        element("Observation.code", fixedCodeableConcept={"text": "x"}),
        observation(),
        observation(code={"text": "x", "coding": [CODING]}),
        ("business-rule", "Observation.code"),
    ),
    "a pattern": (
        element("Observation.code", patternCodeableConcept={"coding": [CODING]}),
        observation(code={"text": "x", "coding": [OTHER, CODING | {"display": "A"}]}),
        observation(code={"text": "x", "coding": [OTHER]}),
        ("business-rule", "Observation.code"),
    ),
    "a type of a choice": (
        element("Observation.value[x]", type=[{"code": "Quantity"}]),
        observation(valueQuantity=QUANTITY),
        observation(valueString="a"),
        ("business-rule", "Observation.value"),
    ),
    "a choice under the name of its JSON": (
        element("Observation.valueQuantity", min=1),
        observation(valueQuantity=QUANTITY),
        observation(valueString="a"),
        ("business-rule", "Observation"),
    ),
    "a required binding": (
        element("Observation.code", binding={"strength": "required", "valueSet": VALUE_SET}),
        observation(code={"coding": [OTHER, CODING]}),
        observation(code={"coding": [OTHER]}),
        ("code-invalid", "Observation.code"),
    ),
    "a target of a reference": (
        element("Observation.subject", type=[{"code": "Reference", "targetProfile": [f"{BASE}Group"]}]),
        observation(subject={"reference": "Group/1"}),
        observation(subject={"reference": "Patient/1"}),
        ("business-rule", "Observation.subject"),
    ),
    "the length of a text": (
        element("Observation.code.text", maxLength=3),
        observation(),
        observation(code={"text": "long"}),
        ("business-rule", "Observation.code.text"),
    ),
    "an invariant": (
        {
            "id": "Observation",
            "path": "Observation",
            "constraint": [
                {"key": "test-1", "severity": "error", "expression": "value.exists() or note.exists()"}
            ],
        },
        observation(valueString="a"),
        observation(),
        ("invariant", "Observation"),
    ),
    "an element within another": (
        element("Observation.component.interpretation", min=1),
        observation(),
        observation(component=[{"code": {"text": "x"}}]),
        ("business-rule", "Observation.component[0]"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_profile_says_is_applied(case):
    said, fitting, unfitting, expected = CASES[case]
    parent = said["id"].rpartition(".")[0]
    profile = structure(*[element(parent)] * (parent.count(".") == 1), said)
    if said["id"] == "Observation":
        profile["snapshot"]["element"] = [said]

    assert found(fitting, profile, VALUES) == []
    assert found(unfitting, profile, VALUES) == broken(*expected)


SLICING = {
    "value": (
        [{"type": "value", "path": "code"}],
        [element("Observation.component:a.code", patternCodeableConcept={"coding": [CODING]})],
    ),
    "value deeper": (
        [{"type": "value", "path": "code.coding.code"}],
        [
            element("Observation.component:a.code"),
            element("Observation.component:a.code.coding"),
            element("Observation.component:a.code.coding.code", min=1, fixedCode="a"),
        ],
    ),
    "value below the path": (
        [{"type": "value", "path": "code"}],
        [
            element("Observation.component:a.code"),
            element("Observation.component:a.code.coding", min=1),
            element("Observation.component:a.code.coding.code", min=1, fixedCode="a"),
        ],
    ),
    "pattern": (
        [{"type": "pattern", "path": "code"}],
        [element("Observation.component:a.code", patternCodeableConcept={"coding": [{"code": "a"}]})],
    ),
    "binding": (
        [{"type": "value", "path": "code"}],
        [element("Observation.component:a.code", binding={"strength": "required", "valueSet": VALUE_SET})],
    ),
    "type": (
        [{"type": "type", "path": "value"}],
        [element("Observation.component:a.value[x]", type=[{"code": "Quantity"}])],
    ),
    "existence": (
        [{"type": "exists", "path": "value"}],
        [element("Observation.component:a.value[x]", min=1)],
    ),
}
IN_THE_SLICE = {"code": {"coding": [CODING]}, "valueQuantity": QUANTITY}
OUTSIDE = {"code": {"coding": [OTHER]}, "dataAbsentReason": {"text": "x"}}


@pytest.mark.parametrize("by", SLICING)
@pytest.mark.parametrize("rules", ["open", "closed"])
def test_slices_are_told_apart(by, rules):
    """One of the slice must be there and at most one may be; what is in no slice is for the rules to judge."""
    discriminator, within = SLICING[by]
    profile = structure(
        element("Observation.component", slicing={"discriminator": discriminator, "rules": rules}),
        element("Observation.component:a", min=1, max="1"),
        *within,
    )

    def components(*items):
        return found(observation(component=list(items)), profile, VALUES)

    assert components(IN_THE_SLICE) == []
    assert components(IN_THE_SLICE, IN_THE_SLICE) == broken("business-rule", "Observation.component")
    refused = broken("business-rule", "Observation.component[1]") if rules == "closed" else []
    assert components(IN_THE_SLICE, OUTSIDE) == refused
    missing = broken("business-rule", "Observation.component")
    assert components(OUTSIDE) == [
        *(broken("business-rule", "Observation.component[0]") if refused else []),
        *missing,
    ]


def test_the_rules_of_a_slice_hold_only_in_it():
    profile = structure(
        element("Observation.component", slicing={"discriminator": [{"type": "value", "path": "code"}]}),
        element("Observation.component:a"),
        element("Observation.component:a.code", patternCodeableConcept={"coding": [CODING]}),
        element("Observation.component:a.value[x]", min=1),
    )

    assert found(observation(component=[OUTSIDE]), profile) == []
    assert found(observation(component=[{"code": {"coding": [CODING]}}]), profile) == broken(
        "business-rule", "Observation.component[0]"
    )


EXTENSION_URL = "http://example.org/StructureDefinition/colour"
EXTENSION = structure(
    element("Extension.url", min=1, max="1", fixedUri=EXTENSION_URL),
    element("Extension.value[x]", min=1, max="1", type=[{"code": "code"}]),
    type="Extension",
    url=EXTENSION_URL,
)


def test_a_slice_of_extensions_is_known_by_the_url_of_its_profile():
    profile = structure(
        element("Observation.extension", slicing={"discriminator": [{"type": "value", "path": "url"}]}),
        element(
            "Observation.extension:colour", min=1, type=[{"code": "Extension", "profile": [EXTENSION_URL]}]
        ),
    )

    def extended(**value):
        return found(observation(extension=[{"url": EXTENSION_URL} | value]), profile, EXTENSION)

    assert extended(valueCode="red") == []
    assert extended(valueString="red") == broken("business-rule", "Observation.extension[0].value")
    assert found(observation(), profile, EXTENSION) == broken("business-rule", "Observation.extension")


def test_resolved_references_are_told_apart_by_type():
    profile = structure(
        element(
            "Observation.performer",
            slicing={"discriminator": [{"type": "type", "path": "resolve()"}], "rules": "closed"},
        ),
        element(
            "Observation.performer:person",
            type=[{"code": "Reference", "targetProfile": [f"{BASE}Practitioner"]}],
        ),
    )

    assert found(observation(performer=[{"reference": "Practitioner/1"}]), profile) == []
    assert found(observation(performer=[{"reference": "Organization/1"}]), profile) == broken(
        "business-rule", "Observation.performer[0]"
    )


def test_a_snapshot_without_ids_is_understood_by_its_order():
    profile = structure(
        element("Observation.component", slicing={"discriminator": [{"type": "value", "path": "code"}]}),
        element("Observation.component:a", min=1),
        element("Observation.component:a.code", patternCodeableConcept={"coding": [CODING]}),
    )
    for part in profile["snapshot"]["element"]:
        del part["id"]

    assert found(observation(component=[IN_THE_SLICE]), profile) == []
    assert found(observation(component=[OUTSIDE]), profile) == broken(
        "business-rule", "Observation.component"
    )


def test_resources_within_are_examined_by_what_they_claim():
    profile = structure(element("Observation.subject", min=1))
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": observation()}]}

    assert found(bundle, profile) == broken("business-rule", "Bundle.entry[0].resource")


def test_an_unknown_profile_is_a_warning():
    assert found(observation()) == [("warning", "not-found", "Observation.meta.profile[0]")]
    no_snapshot = {"resourceType": "StructureDefinition", "url": URL, "type": "Observation"}
    assert found(observation(), no_snapshot) == [("warning", "not-found", "Observation.meta.profile[0]")]


def test_the_specifications_own_types_may_be_claimed():
    assert found(observation(meta={"profile": [f"{BASE}Observation"]})) == []


def test_a_profile_of_another_type_is_an_error():
    assert found(observation(), structure(type="Patient")) == broken("business-rule", "Observation")


def test_what_can_not_be_examined_is_a_warning():
    profile = structure(
        element(
            "Observation.code", binding={"strength": "required", "valueSet": "http://example.org/unknown"}
        ),
        element(
            "Observation.status",
            constraint=[{"key": "t-1", "severity": "error", "expression": "memberOf('x')"}],
        ),
    )

    assert found(observation(), profile) == [
        ("warning", "not-found", "Observation.code"),
        ("warning", "not-supported", "Observation.status"),
    ]


def test_a_profile_can_be_asked_for():
    """Instead of being claimed; it is applied once where it is both."""
    profile = structure(element("Observation.subject", min=1))
    profiles = Profiles({URL: profile}.get)

    assert len(profiles.issues(observation(meta={"versionId": "1"}), [URL])) == 1
    assert len(profiles.issues(observation(), [URL])) == 1
    assert [issue.text for issue in profiles.issues(observation())] == [
        f"`Observation.subject` is not there; `{URL}` expects at least 1."
    ]


# Value sets.


def value_set(**compose: Any) -> dict[str, Any]:
    return {"resourceType": "ValueSet", "url": VALUE_SET, "compose": compose}


CODE_SYSTEM = {
    "resourceType": "CodeSystem",
    "url": SYSTEM,
    "content": "complete",
    "concept": [{"code": "a", "concept": [{"code": "b"}]}],
}


@pytest.mark.parametrize(
    ("resource", "codes"),
    [
        (value_set(include=[{"system": SYSTEM}]), {SYSTEM: {"a", "b"}}),
        (value_set(include=[{"system": "http://unknown"}]), {"http://unknown": None}),
        (
            value_set(include=[{"system": SYSTEM}], exclude=[{"system": SYSTEM, "concept": [{"code": "a"}]}]),
            {SYSTEM: {"b"}},
        ),
        (value_set(include=[{"system": SYSTEM, "filter": [{}]}]), None),
        (value_set(include=[{"valueSet": [VALUE_SET]}]), None),
        (
            value_set(include=[{"valueSet": ["http://hl7.org/fhir/ValueSet/administrative-gender"]}]),
            {"http://hl7.org/fhir/administrative-gender": {"male", "female", "other", "unknown"}},
        ),
        (
            {
                "resourceType": "ValueSet",
                "expansion": {"contains": [{"contains": [{"system": SYSTEM, "code": "c"}]}]},
            },
            {SYSTEM: {"c"}},
        ),
        (None, None),
    ],
)
def test_a_value_set_is_expanded_as_far_as_it_can_be(resource, codes):
    known = {VALUE_SET: resource, SYSTEM: CODE_SYSTEM}

    assert codes_of(VALUE_SET, known.get) == codes


def test_a_code_without_its_system_is_looked_for_in_all():
    assert has({SYSTEM: frozenset("a")}, None, "a")
    assert not has({SYSTEM: frozenset("a")}, None, "b")
    assert not has({SYSTEM: frozenset("a")}, "http://other", "a")
    assert has({SYSTEM: None}, SYSTEM, "anything")


# The profiles of the specification itself.


@pytest.fixture(scope="session")
def official(examples_package) -> Profiles:
    known = {}
    for name, data in files(examples_package):
        if name.startswith(("StructureDefinition-", "ValueSet-")):
            resource = json.loads_trusted(data)
            known[resource["url"]] = resource
    return Profiles(known.get)


def test_the_examples_fit_the_profiles_that_they_claim(official, examples):
    for name, data in examples.items():
        errors = [issue for issue in official.issues(json.loads(data)) if issue.severity == "error"]
        assert errors == [], name


VITAL_SIGNS = {
    "Observation-blood-pressure.json": "bp",
    "Observation-body-height.json": "bodyheight",
    "Observation-body-temperature.json": "bodytemp",
    "Observation-heart-rate.json": "heartrate",
    "Observation-respiratory-rate.json": "resprate",
}


@pytest.mark.parametrize("name", VITAL_SIGNS)
def test_vital_signs_fit_their_profile_and_no_other(name, official, examples):
    """Slices by value of category, code and component. https://hl7.org/fhir/R4/observation-vitalsigns.html"""
    resource = json.loads(examples[name])

    def errors(profile, resource=resource):
        return [issue for issue in official.issues(resource, [BASE + profile]) if issue.severity == "error"]

    assert errors(VITAL_SIGNS[name]) == []
    for other in set(VITAL_SIGNS.values()) - {VITAL_SIGNS[name]}:
        assert errors(other), other
    changed = copy.deepcopy(resource)
    del changed["category"]
    assert errors(VITAL_SIGNS[name], changed)
