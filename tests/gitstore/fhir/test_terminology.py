"""What token modifiers ask of code systems and value sets. https://hl7.org/fhir/R4/search.html#token"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.fhir import json
from gitstore.fhir.terminology import Terminology, ancestors, descendants, expansion
from tools.build_definitions import files

SYSTEM = "http://example.org/animals"
OTHER = "http://example.org/plants"
SET = "http://example.org/ValueSet/"


def concept(code: str, *below: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """A concept; its properties are given by their codes, as str (a code), bool or int."""
    values = [
        {"code": name, _value_name(value): value} for name, value in properties.items() if name != "display"
    ]
    return (
        {"code": code}
        | ({"display": properties["display"]} if "display" in properties else {})
        | ({"property": values} if values else {})
        | ({"concept": list(below)} if below else {})
    )


def _value_name(value: object) -> str:
    return {bool: "valueBoolean", int: "valueInteger", str: "valueCode", dict: "valueCoding"}[type(value)]


def code_system(*concepts: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {
        "resourceType": "CodeSystem",
        "url": SYSTEM,
        "content": "complete",
        "concept": list(concepts),
    } | properties


ANIMALS = code_system(
    concept(
        "animal",
        concept("bird", concept("owl", legs=2, display="Owl"), concept("hen", legs=2, farm=True)),
        concept(
            "mammal", concept("cow", legs=4, farm=True, display="Cow"), concept("bat", legs=2, inactive=True)
        ),
        notSelectable=True,
    ),
    concept("owl-of-old", subsumedBy="owl"),
    property=[{"code": "size", "type": "code"}],
)
ALL = {"animal", "bird", "owl", "hen", "mammal", "cow", "bat", "owl-of-old"}


def value_set(name: str, include: list[dict[str, Any]], **properties: Any) -> dict[str, Any]:
    compose = {"include": include}
    if "exclude" in properties:
        compose["exclude"] = properties.pop("exclude")
    return {"resourceType": "ValueSet", "url": SET + name, "compose": compose} | properties


def find_in(*resources: dict[str, Any]):
    known = {}
    for resource in resources:
        known[resource["url"]] = resource
        if "version" in resource:
            known[f"{resource['url']}|{resource['version']}"] = resource
    return known.get


def filtered(property: str, op: str, value: str) -> set[str] | None:
    include = [{"system": SYSTEM, "filter": [{"property": property, "op": op, "value": value}]}]
    found = expansion(SET + "some", find_in(ANIMALS, value_set("some", include)))
    return None if found is None else set(found[SYSTEM])


# Hierarchies.


@pytest.mark.parametrize(
    ("code", "below", "above"),
    [
        ("animal", ALL, {"animal"}),
        ("bird", {"bird", "owl", "hen", "owl-of-old"}, {"bird", "animal"}),
        ("owl-of-old", {"owl-of-old"}, {"owl-of-old", "owl", "bird", "animal"}),
        ("stone", {"stone"}, {"stone"}),
    ],
)
def test_a_code_has_what_lies_below_and_above_it(code, below, above):
    """With itself. https://hl7.org/fhir/R4/codesystem.html#hierarchy"""
    assert descendants(SYSTEM, code, find_in(ANIMALS)) == below
    assert ancestors(SYSTEM, code, find_in(ANIMALS)) == above


@pytest.mark.parametrize(
    "system",
    [
        code_system(concept("a", concept("b", concept("c")))),
        code_system(concept("a"), concept("b", parent="a"), concept("c", parent="b")),
        code_system(concept("a", child="b"), concept("b", child="c"), concept("c")),
        code_system(concept("c", subsumedBy="b"), concept("b", subsumedBy="a"), concept("a")),
        code_system(
            concept("a", isOver="b"),
            concept("b"),
            concept("c", isUnder="b"),
            property=[
                {"code": "isOver", "uri": "http://hl7.org/fhir/concept-properties#child"},
                {"code": "isUnder", "uri": "http://hl7.org/fhir/concept-properties#parent"},
            ],
        ),
        code_system(concept("a", concept("b", concept("c"))), hierarchyMeaning="is-a"),
    ],
)
def test_a_hierarchy_can_be_given_in_several_ways(system):
    """https://hl7.org/fhir/R4/codesystem.html#defined-props"""
    assert descendants(SYSTEM, "a", find_in(system)) == {"a", "b", "c"}
    assert ancestors(SYSTEM, "c", find_in(system)) == {"a", "b", "c"}


def test_a_concept_may_have_several_parents():
    system = code_system(concept("a", concept("c")), concept("b", child="c"), concept("d", parent="c"))

    assert ancestors(SYSTEM, "d", find_in(system)) == {"a", "b", "c", "d"}


def test_a_circle_in_a_hierarchy_ends():
    system = code_system(concept("a", parent="c"), concept("b", parent="a"), concept("c", parent="b"))

    assert (
        descendants(SYSTEM, "a", find_in(system))
        == ancestors(SYSTEM, "a", find_in(system))
        == {"a", "b", "c"}
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"content": "fragment"},
        {"content": "example"},
        {"content": "not-present"},
        {"content": "supplement"},
        {"hierarchyMeaning": "part-of"},
        {"hierarchyMeaning": "grouped-by"},
        {"resourceType": "ValueSet"},
        {"url": "http://example.org/elsewhere"},
    ],
)
def test_what_is_below_can_not_always_be_told(changed):
    """Not all concepts are there, none are, or the hierarchy is not one of kinds."""
    find = find_in(ANIMALS | changed)

    assert descendants(SYSTEM, "bird", find) is None
    assert ancestors(SYSTEM, "bird", find) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25))
def test_what_is_below_a_code_is_what_it_is_above_of(links):
    concepts = [concept(str(code)) for code in range(10)]
    for parent, child in links:
        concepts[child].setdefault("property", []).append({"code": "parent", "valueCode": str(parent)})
    terminology = Terminology(find_in(code_system(*concepts)))

    for one in map(str, range(10)):
        for other in map(str, range(10)):
            is_below = other in terminology.descendants(SYSTEM, one)
            assert is_below == (one in terminology.ancestors(SYSTEM, other))


# Filters.


@pytest.mark.parametrize(
    ("property", "op", "value", "codes"),
    [
        ("concept", "is-a", "bird", {"bird", "owl", "hen", "owl-of-old"}),
        ("concept", "is-a", "stone", {"stone"} & ALL),
        ("code", "is-a", "mammal", {"mammal", "cow", "bat"}),
        ("legs", "is-a", "2", None),
        ("concept", "descendent-of", "mammal", {"cow", "bat"}),
        ("concept", "is-not-a", "bird", {"animal", "mammal", "cow", "bat"}),
        ("concept", "generalizes", "cow", {"cow", "mammal", "animal"}),
        ("concept", "=", "cow", {"cow"}),
        ("code", "=", "cow", {"cow"}),
        ("display", "=", "Cow", {"cow"}),
        ("parent", "=", "mammal", {"cow", "bat"}),
        ("child", "=", "owl", {"bird"}),
        ("legs", "=", "2", {"owl", "hen", "bat"}),
        ("farm", "=", "true", {"hen", "cow"}),
        ("inactive", "=", "false", ALL - {"bat"}),
        ("notSelectable", "=", "true", {"animal"}),
        ("size", "=", "small", set()),
        ("wings", "=", "2", None),
        ("code", "in", "cow, bat,stone", {"cow", "bat"}),
        ("legs", "in", "4,8", {"cow"}),
        ("legs", "not-in", "2", ALL - {"owl", "hen", "bat"}),
        ("legs", "exists", "true", {"owl", "hen", "cow", "bat"}),
        ("legs", "exists", "false", ALL - {"owl", "hen", "cow", "bat"}),
        ("legs", "exists", "perhaps", None),
        ("code", "regex", "[a-c].*", {"animal", "bird", "cow", "bat"}),
        ("display", "regex", "O.*|C.w", {"owl", "cow"}),
        ("code", "regex", "(?=a).*", None),
        ("code", "unknown-operator", "x", None),
    ],
)
def test_filters_choose_codes(property, op, value, codes):
    """https://hl7.org/fhir/R4/valueset.html#filter"""
    assert filtered(property, op, value) == codes


def test_a_concept_fits_all_filters_of_an_include():
    filters = [
        {"property": "concept", "op": "is-a", "value": "bird"},
        {"property": "farm", "op": "=", "value": "true"},
    ]
    include = [{"system": SYSTEM, "filter": filters}]

    assert expansion(SET + "v", find_in(ANIMALS, value_set("v", include))) == {SYSTEM: {"hen"}}


@pytest.mark.parametrize(
    "filter", [{}, {"property": "code", "op": "="}, {"property": "code", "value": "cow"}]
)
def test_half_a_filter_tells_nothing(filter):
    include = [{"system": SYSTEM, "filter": [filter]}]

    assert expansion(SET + "v", find_in(ANIMALS, value_set("v", include))) is None


def test_a_hostile_pattern_ends():
    system = code_system(concept("a" * 5000))
    include = [{"system": SYSTEM, "filter": [{"property": "code", "op": "regex", "value": "(a+)+b"}]}]

    assert expansion(SET + "v", find_in(system, value_set("v", include))) == {SYSTEM: set()}


# Value sets.

BIRDS = value_set(
    "birds", [{"system": SYSTEM, "filter": [{"property": "concept", "op": "is-a", "value": "bird"}]}]
)
LISTED = value_set("listed", [{"system": OTHER, "concept": [{"code": "oak"}]}], version="2")
CONTAINS = [
    {"system": OTHER, "code": "a", "contains": [{"system": OTHER, "code": "b"}]},
    {"display": "group"},
]


@pytest.mark.parametrize(
    ("resource", "codes"),
    [
        (value_set("v", [{"system": SYSTEM}]), {SYSTEM: ALL}),
        (value_set("v", [{"system": OTHER, "concept": [{"code": "x"}]}]), {OTHER: {"x"}}),
        (value_set("v", [{"system": OTHER}]), None),
        (value_set("v", [{"valueSet": [SET + "birds"]}, {"system": OTHER, "concept": [{"code": "oak"}]}]),
         {SYSTEM: {"bird", "owl", "hen", "owl-of-old"}, OTHER: {"oak"}}),
        (value_set("v", [{"valueSet": [SET + "listed|2"]}]), {OTHER: {"oak"}}),
        (value_set("v", [{"valueSet": [SET + "listed|1"]}]), None),
        (value_set("v", [{"valueSet": [SET + "unknown"]}]), None),
        (value_set("v", [{"valueSet": [SET + "birds", SET + "few"]}]), {SYSTEM: {"hen"}}),
        (value_set("v", [{"system": SYSTEM, "concept": [{"code": "owl"}, {"code": "cow"}], "valueSet": [SET + "birds"]}]),
         {SYSTEM: {"owl"}}),
        (value_set("v", [{"system": OTHER, "valueSet": [SET + "listed"]}]), {OTHER: {"oak"}}),
        (value_set("v", [{"system": SYSTEM}], exclude=[{"valueSet": [SET + "birds"]}]),
         {SYSTEM: {"animal", "mammal", "cow", "bat"}}),
        (value_set("v", [{"system": SYSTEM}], exclude=[{"valueSet": [SET + "unknown"]}]), None),
        (value_set("v", [{"valueSet": [SET + "listed"]}], exclude=[{"system": OTHER}]), {OTHER: set()}),
        (value_set("v", [{"system": SYSTEM, "version": "7"}]), {SYSTEM: ALL}),
        (value_set("v", [{"system": "http://versioned", "version": "7"}]), None),
        (value_set("v", [{"system": "http://versioned", "version": "8"}]), {"http://versioned": {"x"}}),
        (value_set("v", [{"filter": [{"property": "code", "op": "=", "value": "x"}]}]), None),
        ({"resourceType": "ValueSet", "url": SET + "v", "expansion": {"contains": CONTAINS}}, {OTHER: {"a", "b"}}),
        ({"resourceType": "ValueSet", "url": SET + "v", "expansion": {"total": 9, "contains": CONTAINS}}, None),
        (value_set("v", [{"system": OTHER}], expansion={"total": 3, "contains": CONTAINS}), {OTHER: {"a", "b"}}),
        (value_set("v", [{"system": SYSTEM}], expansion={"contains": CONTAINS}), {SYSTEM: ALL}),
        ({"resourceType": "ValueSet", "url": SET + "v"}, None),
        ({"resourceType": "CodeSystem", "url": SET + "v"}, None),
    ],
)  # fmt: skip
def test_a_value_set_is_expanded(resource, codes):
    """https://hl7.org/fhir/R4/valueset.html#compositions"""
    few = value_set("few", [{"system": SYSTEM, "concept": [{"code": "hen"}, {"code": "cow"}]}])
    versioned = code_system(concept("x"), url="http://versioned", version="8")

    assert expansion(SET + "v", find_in(ANIMALS, BIRDS, LISTED, few, versioned, resource)) == codes


def test_the_specifications_own_value_sets_are_known():
    found = expansion("http://hl7.org/fhir/ValueSet/administrative-gender|4.0.1", find_in())

    assert found == {"http://hl7.org/fhir/administrative-gender": {"male", "female", "other", "unknown"}}


def test_value_sets_that_import_one_another_end():
    """And what they have can't be told."""
    one = value_set("one", [{"valueSet": [SET + "two"]}])
    two = value_set("two", [{"valueSet": [SET + "one"]}])

    assert expansion(SET + "one", find_in(one, two)) is None
    assert expansion(SET + "two", find_in(one, two)) is None


def test_value_sets_that_import_many_are_read_once():
    """Each of 10 levels imports the next one twenty times over."""
    asked = []
    sets = [value_set(str(level), [{"valueSet": [f"{SET}{level + 1}"]}] * 20) for level in range(9)]
    sets.append(value_set("9", [{"system": OTHER, "concept": [{"code": "oak"}]}]))
    find = find_in(*sets)

    found = expansion(SET + "0", lambda url: asked.append(url) or find(url))

    assert found == {OTHER: {"oak"}}
    assert len(asked) == 10


def test_a_long_chain_of_imports_is_not_followed():
    sets = [value_set(str(level), [{"valueSet": [f"{SET}{level + 1}"]}]) for level in range(5000)]

    assert expansion(SET + "0", find_in(*sets)) is None


def test_large_ones_are_read_in_passing():
    """20,000 includes of one code each, and a system of as many concepts in one line of descent."""
    many = [{"system": OTHER, "concept": [{"code": str(number)}]} for number in range(20_000)]
    chain = code_system(
        concept("0"), *(concept(str(code), parent=str(code - 1)) for code in range(1, 20_000))
    )

    assert len(expansion(SET + "v", find_in(value_set("v", many)))[OTHER]) == 20_000
    assert len(descendants(SYSTEM, "0", find_in(chain))) == 20_000


def test_what_was_read_is_kept():
    asked = []
    find = find_in(ANIMALS, BIRDS)
    terminology = Terminology(lambda url: asked.append(url) or find(url))

    for _ in range(3):
        terminology.expansion(SET + "birds")
        terminology.descendants(SYSTEM, "bird")

    assert asked == [SET + "birds", SYSTEM]


# The specification's own.


@pytest.fixture(scope="module")
def official(examples_package) -> Terminology:
    known = {}
    for name, data in files(examples_package):
        if name.startswith(("CodeSystem-", "ValueSet-")):
            known[json.loads_trusted(data)["url"]] = data
    return Terminology(lambda url: json.loads_trusted(known[url]) if url in known else None)


V3 = "http://terminology.hl7.org/CodeSystem/v3-"


def test_the_hierarchies_of_v3_are_followed(official):
    below = official.descendants(V3 + "RoleCode", "PRN")

    assert {"PRN", "MTH", "FTH", "NMTH"} <= below
    assert "CHILD" not in below
    assert {"NMTH", "MTH", "PRN", "FAMMEMB"} <= official.ancestors(V3 + "RoleCode", "NMTH")


def test_value_sets_of_v3_choose_by_kind(official):
    found = official.expansion("http://terminology.hl7.org/ValueSet/v3-ActEncounterCode")

    assert {"AMB", "EMER", "IMP", "ACUTE", "NONAC", "VR"} <= found[V3 + "ActCode"]
    assert official.expansion("http://hl7.org/fhir/ValueSet/condition-code") is None
