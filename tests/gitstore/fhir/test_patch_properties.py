"""What holds for all patches: they lead where they should, leave their argument alone, and can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.errors import StoreError
from gitstore.fhir import definitions, json, paths
from gitstore.fhir.compare import ABSENT, differences, same
from gitstore.fhir.patch import Patch, fhirpath_patch, json_patch, merge_patch, parse, places
from gitstore.fhir.patch.result import Work

NAMES = st.sampled_from(["name", "given", "a/b", "m~n", "0", "-", "code", "value"])
LEAVES = st.one_of(
    st.sampled_from(["", "x", "y", "1", True, False, 0, 1, -1]),
    st.sampled_from(["1.0", "1.00", "-0", "2e3"]).map(json.Number),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4) | st.dictionaries(NAMES, inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)
RESOURCES = st.dictionaries(NAMES, VALUES, max_size=5).map(
    lambda rest: {"resourceType": "Basic", "id": "b"} | rest
)


def pointer(steps: tuple[str | int, ...]) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def as_json_patch(old: Any, new: Any) -> list[dict[str, Any]]:
    """The differences as operations: what goes, from the last one to the first, and then what comes."""
    changes = differences(old, new)
    operations: list[dict[str, Any]] = []
    for change in reversed(changes):
        if change.new is ABSENT:
            operations += [
                {"op": "test", "path": pointer(change.steps), "value": change.old},
                {"op": "remove", "path": pointer(change.steps)},
            ]
    for change in changes:
        if change.new is not ABSENT:
            op = "add" if change.old is ABSENT else "replace"
            operations.append({"op": op, "path": pointer(change.steps), "value": change.new})
    return operations


@given(RESOURCES, RESOURCES)
def test_a_json_patch_made_of_differences_leads_to_the_other_resource(old, new):
    """RFC 6902; numbers by their digits."""
    patch = parse("application/json-patch+json", json.dumps(as_json_patch(old, new)))

    assert same(patch.apply(old), new)


def as_merge_patch(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    gone = {name: None for name in old if name not in new}
    changed = {
        name: as_merge_patch(old.get(name), value)
        for name, value in new.items()
        if name not in old or not same(old[name], value)
    }
    return gone | changed


@given(RESOURCES, RESOURCES)
def test_a_merge_patch_made_of_two_resources_leads_from_one_to_the_other(old, new):
    """RFC 7396; it can't say null, and FHIR's objects hold none."""
    patch = parse("application/merge-patch+json", json.dumps(as_merge_patch(old, new)))

    assert same(patch.apply(old), new)


POINTERS = (
    st.lists(NAMES | st.integers(0, 3).map(str) | st.just("resourceType"), max_size=4).map(tuple).map(pointer)
)
OPERATIONS = st.one_of(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "replace", "test"]), "path": POINTERS, "value": VALUES}
    ),
    st.fixed_dictionaries({"op": st.sampled_from(["copy", "move"]), "path": POINTERS, "from": POINTERS}),
    st.fixed_dictionaries({"op": st.just("remove"), "path": POINTERS}),
)


@given(RESOURCES, st.lists(OPERATIONS, max_size=6))
def test_any_json_patch_leaves_its_argument_alone(resource, operations):
    """It is applied as a whole or refused with an issue. RFC 5789, section 2"""
    before = json.dumps(resource)
    patch = json_patch.parse(operations)

    assert is_refused(patch, resource) or patch.apply(resource) == patch.apply(resource)

    assert json.dumps(resource) == before


@given(RESOURCES, st.dictionaries(NAMES | st.just("id"), VALUES | st.none()))
def test_any_merge_patch_leaves_its_argument_alone(resource, document):
    before = json.dumps(resource)

    assert is_refused(merge_patch.parse(document), resource) is ("id" in document and document["id"] != "b")

    assert json.dumps(resource) == before


# FHIRPath Patch and XML Patch, on a resource with all kinds of elements.

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "ada",
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Ada</div>'},
    "extension": [
        {"url": "http://example.org/a", "valueDecimal": json.Number("1.50")},
        {"url": "http://example.org/b", "extension": [{"url": "c", "valueCode": "x"}]},
    ],
    "identifier": [{"system": "urn:a", "value": "1"}, {"system": "urn:b", "value": "1"}],
    "active": True,
    "name": [
        {
            "family": "X",
            "given": ["A", None, "A"],
            "_given": [None, {"id": "g"}, None],
            "period": {"start": "1815"},
        },
        {"family": "X", "_family": {"id": "f"}, "given": ["A"]},
    ],
    "gender": "female",
    "birthDate": "1815-12-10",
    "multipleBirthInteger": 1,
    "contact": [{"relationship": [{"coding": [{"code": "C"}, {"code": "N"}]}], "name": {"family": "X"}}],
    "link": [{"other": {"reference": "Patient/b"}, "type": "refer"}],
}


def below(place: places.Place) -> Iterator[places.Place]:
    yield place
    names = {element.choice or element.name for element in definitions.elements(place.type).values()}
    for name in sorted(names):
        for child in places._children(place, name):
            yield from below(child)


def everywhere(resource: dict[str, Any]) -> list[places.Place]:
    [root] = places.compile(str(resource["resourceType"])).places(resource, Work())
    return list(below(root))


PLACES = everywhere(PATIENT)
ITEMS = [place for place in PLACES if place.index is not None]
EXCHANGEABLE = [
    place
    for place in PLACES
    if place.element is not None
    and place.text != "Patient.id"
    and any(element.type == place.node[0] for element in places.choices("Parameters.parameter", "value"))
]


def value_part(place: places.Place, **other: Any) -> dict[str, Any]:
    """The value of a place as part of an operation; `other` is another value of its type."""
    type, value, extra = place.node
    name = f"value{type[0].upper()}{type[1:]}"
    both = {name: other.get("value", value), f"_{name}": None if other else extra}
    return {"name": "value"} | {key: item for key, item in both.items() if item is not None}


def operation(type: str, path: str, *parts: dict[str, Any]) -> dict[str, Any]:
    texts = [{"name": "type", "valueCode": type}, {"name": "path", "valueString": path}]
    return {"name": "operation", "part": [*texts, *parts]}


def patched(resource: dict[str, Any], *operations: dict[str, Any]) -> dict[str, Any]:
    return fhirpath_patch.parse({"resourceType": "Parameters", "parameter": list(operations)}).apply(resource)


def is_refused(patch: Patch, resource: dict[str, Any]) -> bool:
    """Whether a patch can't be applied; anything but an error of the store's fails the test."""
    try:
        patch.apply(resource)
    except StoreError:
        return True
    return False


OTHERS = {
    "boolean": False,
    "integer": 7,
    "decimal": json.Number("7.0"),
    "date": "2000",
    "dateTime": "2000",
    "uri": "urn:other",
    "code": "other",
}


def test_every_element_has_its_place():
    """The text of a place is a path that leads to it and to nothing else, and FHIRPath finds the same value."""
    assert len(PLACES) > 40
    for place in PLACES:
        [found] = places.compile(place.text).places(PATIENT, Work())

        assert found == place
        assert paths.evaluate(paths.compile(place.text), PATIENT) == [place.node]


@pytest.mark.parametrize("place", EXCHANGEABLE, ids=lambda place: place.text)
def test_a_replacement_can_be_replaced_back(place):
    """Another value of the same type is there in between, and nothing else has changed."""
    type = place.node[0]
    other = OTHERS.get(type, "other") if definitions.is_primitive(type) else {"id": "other"}
    if type == "Reference":
        other = {"display": "other"}

    between = patched(PATIENT, operation("replace", place.text, value_part(place, value=other)))
    back = patched(between, operation("replace", place.text, value_part(place)))

    [found] = places.compile(place.text).places(between, Work())
    assert found.node == (type, other, None)
    assert {each.text for each in everywhere(between)} - {each.text for each in PLACES} <= {
        f"{place.text}.id",
        f"{place.text}.display",
    }
    assert same(back, PATIENT)


@pytest.mark.parametrize(
    "place", [place for place in ITEMS if place in EXCHANGEABLE], ids=lambda place: place.text
)
def test_an_item_that_was_deleted_can_be_inserted_again(place):
    """https://hl7.org/fhir/R4/fhirpatch.html"""
    the_list = place.text.rpartition("[")[0]
    gone = patched(PATIENT, operation("delete", place.text))
    parent = the_list.rpartition(".")[0]
    if not places.compile(parent).places(gone, Work()):
        return  # it was all that its parent had

    index = {"name": "index", "valueInteger": place.index}
    back = patched(gone, operation("insert", the_list, index, value_part(place)))

    assert not same(gone, PATIENT)
    assert same(back, PATIENT)


@given(st.sampled_from(ITEMS), st.data())
def test_an_item_that_was_moved_can_be_moved_back(place, data):
    """https://hl7.org/fhir/R4/fhirpatch.html"""
    the_list = place.text.rpartition("[")[0]
    count = sum(each.text.rpartition("[")[0] == the_list and each.text.endswith("]") for each in ITEMS)
    other = data.draw(st.integers(0, count - 1))
    here, there = ({"valueInteger": number} for number in (place.index, other))

    moved = patched(
        PATIENT, operation("move", the_list, {"name": "source", **here}, {"name": "destination", **there})
    )
    back = patched(
        moved, operation("move", the_list, {"name": "source", **there}, {"name": "destination", **here})
    )

    found = places.compile(f"{the_list}[{other}]").places(moved, Work())
    assert [each.node for each in found] == [place.node]
    assert same(back, PATIENT)


RANDOM_PATHS = st.sampled_from(
    [place.text for place in PLACES] + ["Patient.name", "Patient.name.given", "Patient.x"]
)
NUMBERS = st.integers(-1, 3)


@given(
    st.lists(
        st.one_of(
            st.builds(lambda path: operation("delete", path), RANDOM_PATHS),
            st.builds(
                lambda path, place: operation("replace", path, value_part(place)),
                RANDOM_PATHS,
                st.sampled_from(EXCHANGEABLE),
            ),
            st.builds(
                lambda path, place, name: operation(
                    "add", path, {"name": "name", "valueString": name}, value_part(place)
                ),
                RANDOM_PATHS,
                st.sampled_from(EXCHANGEABLE),
                st.sampled_from(["given", "name", "extension", "id", "code", "value"]),
            ),
            st.builds(
                lambda path, source, destination: operation(
                    "move",
                    path,
                    {"name": "source", "valueInteger": source},
                    {"name": "destination", "valueInteger": destination},
                ),
                RANDOM_PATHS.map(lambda path: path.partition("[")[0]),
                NUMBERS,
                NUMBERS,
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(deadline=None)
def test_any_fhirpath_patch_leaves_its_argument_alone(operations):
    """It is applied as a whole or refused with an issue. RFC 5789, section 2"""
    before = json.dumps(PATIENT)

    is_refused(fhirpath_patch.parse({"resourceType": "Parameters", "parameter": operations}), PATIENT)

    assert json.dumps(PATIENT) == before


SELECTORS = st.sampled_from(["name[1]", "name[2]/given[1]", "birthDate", "active", "text", "text/h:div", "."])
ENDS = st.sampled_from(["", "", "/@value", "/@id", "/text()", "/*[1]", "/h:div"])
CONTENTS = st.sampled_from(
    [
        "",
        "x",
        "<extension url='u'/>",
        "a<id value='q'/>b",
        "<h:div>z</h:div>",
        "<!-- c -->",
        "<active value='true'/>",
    ]
)
ATTRIBUTES = st.sampled_from(
    ["pos='before'", "pos='after'", "pos='prepend'", "type='@id'", "type='@value'", ""]
)


def xml_operation(name: str, selector: str, end: str, attributes: str, content: str) -> str:
    given = attributes if name == "add" else "ws='both'" if name == "remove" and not attributes else ""
    return f'<{name} sel="Patient/{selector}{end}" {given}>{content}</{name}>'.replace("Patient/.", "Patient")


@given(
    st.lists(
        st.builds(
            xml_operation,
            st.sampled_from(["add", "replace", "remove"]),
            SELECTORS,
            ENDS,
            ATTRIBUTES,
            CONTENTS,
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(deadline=None)
def test_any_xml_patch_leaves_its_argument_alone(operations):
    """It is applied as a whole or refused with an issue. RFC 5789, section 2"""
    before = json.dumps(PATIENT)
    document = f'<diff xmlns:h="http://www.w3.org/1999/xhtml">{"".join(operations)}</diff>'

    is_refused(parse("application/xml-patch+xml", document.encode()), PATIENT)

    assert json.dumps(PATIENT) == before


NO_CHANGE = {
    "application/json-patch+json": b"[]",
    "application/merge-patch+json": b"{}",
    "application/fhir+json": b'{"resourceType": "Parameters"}',
    "application/xml-patch+xml": b"<diff/>",
}


@pytest.mark.parametrize("media_type", NO_CHANGE)
def test_a_patch_without_operations_changes_nothing(media_type, examples):
    """HL7's own resources, to the byte: order, digits and narratives."""
    patch = parse(media_type, NO_CHANGE[media_type])
    tried = 0
    for name in sorted(examples)[::25]:
        if len(examples[name]) > 100_000:
            continue
        resource = json.loads(examples[name])

        assert json.dumps(patch.apply(resource)) == json.dumps(resource), name
        tried += 1
    assert tried > 25
