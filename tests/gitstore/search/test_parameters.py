"""Which search parameters there are, and how their rows are told apart. https://hl7.org/fhir/R4/searchparameter.html"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.search.parameters import Registry

BASE = "http://hl7.org/fhir/SearchParameter/"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


def stored(**properties):
    """An active SearchParameter for the given names of patients."""
    return {
        "resourceType": "SearchParameter",
        "url": "http://example.org/given-first",
        "status": "active",
        "code": "given-first",
        "base": ["Patient"],
        "type": "string",
        "expression": "Patient.name.given.first()",
        **properties,
    }


def test_keys_are_all_different_and_above_0(registry):
    keys = [key for key, *_ in registry.rows()]

    assert min(keys) == 1
    assert len(set(keys)) == len(keys)


def test_each_key_of_a_parameter_is_in_the_table_of_parameters(registry):
    rows = {key: name for key, *name in registry.rows()}

    for type in RESOURCE_TYPES:
        for code, parameter in registry.of(type).items():
            assert rows[parameter.key] == [type, code, ""]
            for key, variant in (
                (parameter.text, "text"),
                (parameter.identifier, "identifier"),
                (parameter.of_type, "of-type"),
            ):
                assert key is None or rows[key] == [type, code, variant]
            for number, component in enumerate(parameter.components, 1):
                assert rows[component.key] == [type, code, str(number)]


def test_two_processes_have_the_same_keys(registry):
    program = "from gitstore.search.parameters import Registry; r = Registry(); print(hash(str(r.rows())), r.digest)"
    environment = {"PYTHONHASHSEED": "0"}
    answers = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, env=environment
        ).stdout
        for _ in range(2)
    }

    assert len(answers) == 1
    assert registry.digest.encode() in answers.pop()


def test_making_a_registry_takes_less_than_60_ms():
    Registry()
    times = []
    for _ in range(3):
        start = time.process_time()
        Registry([stored()])
        times.append(time.process_time() - start)

    assert min(times) < 0.06


@pytest.mark.parametrize("code", ["_profile", "_tag", "_security", "_source"])
def test_parameters_of_every_resource_are_in_every_type(registry, code):
    """https://hl7.org/fhir/R4/resource.html#search"""
    assert all(code in registry.of(type) for type in RESOURCE_TYPES)


@pytest.mark.parametrize("code", ["_id", "_lastUpdated", "_text", "_content", "_query", "unknown"])
def test_parameters_of_every_search_have_no_rows(registry, code):
    assert registry.find("Patient", code) is None


def test_an_unknown_type_has_no_parameters(registry):
    assert registry.find("Patients", "name") is None


TABLES = {
    ("Patient", "name"): "strings",
    ("Patient", "gender"): "tokens",
    ("Patient", "birthdate"): "dates",
    ("Patient", "organization"): "refs",
    ("Observation", "value-quantity"): "quantities",
    ("RiskAssessment", "probability"): "quantities",
    ("ValueSet", "url"): "strings",
    ("Location", "near"): "positions",
    ("Observation", "code-value-quantity"): None,
}


@pytest.mark.parametrize(("type", "code"), TABLES)
def test_each_kind_has_its_table(registry, type, code):
    assert registry.of(type)[code].table == TABLES[type, code]


def test_references_lead_where_parameter_and_element_allow(registry):
    """clinical-patient names Patient and Group for all types; Observation's expression leaves Patient."""
    assert registry.of("Observation")["patient"].targets == ("Patient",)
    assert registry.of("Observation")["subject"].targets == ("Device", "Group", "Location", "Patient")
    assert len(registry.of("Provenance")["target"].targets) > 140
    assert registry.of("Patient")["name"].targets == ()


def test_variants_are_there_where_values_can_have_them(registry):
    code, identifier = registry.of("Observation")["code"], registry.of("Patient")["identifier"]

    assert code.text is not None
    assert code.of_type is None
    assert identifier.of_type is not None
    assert registry.of("Patient")["gender"].text is None
    assert registry.of("Observation")["subject"].identifier is not None
    assert registry.of("QuestionnaireResponse")["questionnaire"].identifier is None


@pytest.mark.parametrize(
    ("type", "code", "single"),
    [
        ("Patient", "birthdate", True),
        ("Patient", "given", False),  # many names, many givens
        ("Observation", "date", True),  # effective[x] is one element
        ("Observation", "code", False),  # a concept has many codings
        ("Observation", "value-date", True),
        ("Encounter", "length", True),
        ("Encounter", "location-period", False),
        ("Immunization", "reaction-date", False),
        ("Patient", "death-date", True),
        ("Condition", "onset-date", True),
        ("Observation", "code-value-quantity", False),
    ],
)
def test_a_parameter_is_single_where_each_element_on_its_way_is(registry, type, code, single):
    assert registry.of(type)[code].single is single


def test_a_parameter_of_the_record_stands_beside_those_of_r4(registry):
    own = Registry([stored()])

    parameter = own.of("Patient")["given-first"]
    assert (parameter.table, parameter.url) == ("strings", "http://example.org/given-first")
    assert not own.left_out
    assert own.digest != registry.digest
    assert set(own.of("Patient")) == {*registry.of("Patient"), "given-first"}


@pytest.mark.parametrize("base", ["Resource", "DomainResource"])
def test_a_parameter_for_an_abstract_type_is_one_of_all_that_are_one(base):
    own = Registry([stored(base=[base], code="lang", type="token", expression=f"{base}.language")])

    assert own.find("Patient", "lang") is not None
    assert (own.find("Bundle", "lang") is not None) == (base == "Resource")


def test_a_parameter_with_the_url_of_one_of_r4_takes_its_place():
    own = Registry(
        [stored(url=BASE + "Patient-active", code="inactive", type="token", expression="Patient.active")]
    )

    assert own.find("Patient", "active") is None
    assert own.find("Patient", "inactive") is not None


def test_a_copy_of_one_of_r4_changes_nothing(registry):
    copy = stored(url=BASE + "Patient-active", code="active", type="token", expression="Patient.active")

    assert Registry([copy]).digest == registry.digest


def test_a_code_that_is_taken_stays_with_r4():
    own = Registry([stored(code="gender", base=["Patient", "Account"])])

    assert own.of("Patient")["gender"].url == BASE + "individual-gender"
    assert own.of("Account")["gender"].url == "http://example.org/given-first"
    assert own.left_out == {
        "http://example.org/given-first": f"`gender` of Patient is already that of {BASE}individual-gender"
    }


def test_of_two_parameters_with_one_code_the_first_url_stays():
    own = Registry([stored(url="http://example.org/b"), stored(url="http://example.org/a")])

    assert own.of("Patient")["given-first"].url == "http://example.org/a"
    assert list(own.left_out) == ["http://example.org/b"]


def test_a_composite_of_the_record_has_components():
    part = {"definition": BASE + "individual-gender", "expression": "gender"}
    other = {"definition": "http://example.org/given-first", "expression": "name.given.first()"}
    own = Registry(
        [
            stored(),
            stored(
                url="http://example.org/c",
                code="c",
                type="composite",
                expression="Patient",
                component=[part, other],
            ),
        ]
    )

    assert [component.kind for component in own.of("Patient")["c"].components] == ["token", "string"]


LEFT_OUT = {
    "no expression": ({"expression": None}, "there is no `expression`"),
    "no FHIRPath": ({"expression": "Patient.name..given"}, "not understood"),
    "an unknown function": ({"expression": "Patient.name.unknown()"}, "not understood"),
    "special": ({"type": "special"}, "the type is `special`"),
    "no type": ({"base": ["Citation"]}, "`base` names no resource type"),
    "base of another shape": ({"base": "Patient"}, "`base` names no resource type"),
    "a name of every search": ({"code": "_id"}, "can't be the name"),
    "a name with a colon": ({"code": "a:b"}, "can't be the name"),
    "a composite without components": ({"type": "composite"}, "a composite has components"),
    "an unknown component": (
        {"type": "composite", "component": [{"definition": "http://example.org/x", "expression": "id"}]},
        "http://example.org/x is not known",
    ),
    "a component of another shape": ({"type": "composite", "component": ["x"]}, "no object"),
    "components of another shape": ({"type": "composite", "component": 1}, "a composite has components"),
}


@pytest.mark.parametrize(("changes", "reason"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_cannot_be_searched_by_is_left_out_with_a_reason(registry, changes, reason):
    own = Registry([stored(**changes)])

    assert reason in own.left_out["http://example.org/given-first"]
    assert own.digest == registry.digest
