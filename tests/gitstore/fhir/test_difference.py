"""The difference of two resources as a FHIRPath Patch. https://hl7.org/fhir/R4/fhirpatch.html"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitstore.errors import Invalid, Unprocessable
from gitstore.fhir import definitions, json
from gitstore.fhir.alignment import aligned, matched, rising
from gitstore.fhir.compare import SERVER_ELEMENTS, same
from gitstore.fhir.patch import fhirpath_patch
from gitstore.fhir.patch.differences import difference
from gitstore.fhir.validation import issues

SLOW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def operations(before: Any, after: Any, **options: bool) -> list[str]:
    """The operations on one line each: their type, and their parts in order."""
    found = difference(before, after, **options).get("parameter", [])
    return [" ".join(_shown(part) for part in operation["part"]) for operation in found]


def _shown(part: dict[str, Any]) -> str:
    value = next(value for name, value in part.items() if name != "name")
    return value if isinstance(value, str) else json.dumps(value).decode()


def patient(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "ada", **elements}


def applied(patch: dict[str, Any], resource: dict[str, Any]) -> dict[str, Any]:
    """What our own PATCH makes of the resource, the patch having been sent as JSON."""
    return fhirpath_patch.parse(json.loads(json.dumps(patch))).apply(resource)


ADA, COUNTESS = {"family": "Lovelace", "given": ["Ada"]}, {"text": "Countess"}
MOTHER = {"name": {"family": "Byron"}, "gender": "female"}
REGISTERED = {"url": "http://example.org/registered", "valueDateTime": "1815-12-10T12:00:00Z"}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # single elements
        ({}, {"birthDate": "1815-12-10"}, ["add Patient birthDate 1815-12-10"]),
        ({"birthDate": "1815-12-10"}, {}, ["delete Patient.birthDate"]),
        ({"birthDate": "1815-12-01"}, {"birthDate": "1815-12-10"}, ["replace Patient.birthDate 1815-12-10"]),
        # choices are named as FHIRPath names them, and change their type in place
        ({"deceasedBoolean": True}, {"deceasedDateTime": "1852"}, ["replace Patient.deceased 1852"]),
        ({}, {"deceasedBoolean": True}, ["add Patient deceased true"]),
        # the extensions of a primitive come with it
        (
            {"birthDate": "1815"},
            {"birthDate": "1815", "_birthDate": {"extension": [REGISTERED]}},
            ["replace Patient.birthDate 1815"],
        ),
        # within an element
        (
            {"name": [ADA]},
            {"name": [ADA | {"family": "King"}]},
            ["replace Patient.name[0].family King"],
        ),
        # lists: one operation for what came, went or moved
        ({"name": [ADA]}, {"name": [COUNTESS, ADA]}, ['insert Patient.name 0 {"text":"Countess"}']),
        ({"name": [ADA]}, {"name": [ADA, COUNTESS]}, ['add Patient name {"text":"Countess"}']),
        ({"name": [COUNTESS, ADA]}, {"name": [ADA]}, ["delete Patient.name[0]"]),
        ({"name": [COUNTESS, ADA]}, {}, ["delete Patient.name[1]", "delete Patient.name[0]"]),
        (
            {"name": [{"given": list("ABCD")}]},
            {"name": [{"given": list("BCDA")}]},
            ["move Patient.name[0].given 0 3"],
        ),
        (
            {"name": [{"id": "1", "text": "A"}, {"id": "2", "text": "B"}]},
            {"name": [{"id": "2", "text": "B"}, {"id": "1", "text": "C"}]},
            ["move Patient.name 1 0", "replace Patient.name[1].text C"],
        ),
        # backbone elements have no value[x]
        (
            {},
            {"contact": [MOTHER]},
            ['add Patient contact [{"name":"name","valueHumanName":{"family":"Byron"}},{"name":"gender","valueCode":"female"}]'],
        ),
        # nothing
        ({"name": [ADA]}, {"name": [dict(reversed(ADA.items()))]}, []),
    ],
)  # fmt: skip
def test_operations_are_few_and_say_what_was_done(before: Any, after: Any, expected: list[str]) -> None:
    """One operation for one thing done, which leads where it should."""
    assert operations(patient(**before), patient(**after)) == expected
    assert same(applied(difference(patient(**before), patient(**after)), patient(**before)), patient(**after))


@pytest.mark.parametrize(("old", "new"), [("1.0", "1.00"), ("1e2", "100"), ("0", "-0")])
def test_every_digit_counts(old: str, new: str) -> None:
    """1.0 and 1.00 have different precision. https://hl7.org/fhir/R4/datatypes.html#decimal"""
    before, after = (
        {"resourceType": "Observation", "valueQuantity": {"value": json.loads(text.encode())}}
        for text in (old, new)
    )

    assert operations(before, after) == [f"replace Observation.value.value {new}"]
    assert json.dumps(applied(difference(before, after), before)) == json.dumps(after)


def test_what_the_server_maintains_is_left_out() -> None:
    """No patch can change versionId, lastUpdated and id; the rest of meta is told, unless it isn't wanted."""
    before = patient(meta={"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"})
    after = {**patient(meta={"versionId": "2", "source": "#x"}), "id": "grace"}

    assert operations(before, before | {"meta": {"versionId": "7"}}) == []
    assert operations(before, after) == ["add Patient.meta source #x"]
    assert operations(before, after, meta=False) == []
    assert applied(difference(before, after), before)["meta"] == before["meta"] | {"source": "#x"}


def test_a_narrative_changes_to_the_character() -> None:
    before, after = (
        patient(
            text={"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{text}</div>'}
        )
        for text in ("Ada", "<b>Ada</b>\n &quot;Countess&quot;")
    )

    assert applied(difference(before, after), before) == after


def test_a_resource_in_a_resource_is_compared_by_its_own_type() -> None:
    """A path may lead into a contained resource; one of another type takes its place as a whole."""
    before = patient(contained=[{"resourceType": "Organization", "id": "o", "name": "A"}])
    renamed = patient(contained=[{"resourceType": "Organization", "id": "o", "name": "B"}])
    other = patient(contained=[{"resourceType": "Practitioner", "id": "o", "active": True}])

    assert operations(before, renamed) == ["replace Patient.contained[0].name B"]
    assert len(operations(before, other)) == 1
    assert same(applied(difference(before, other), before), other)


def test_resources_of_two_types_have_no_difference() -> None:
    with pytest.raises(Invalid, match="can't be compared"):
        difference({"resourceType": "Patient"}, {"resourceType": "Group"})


NOT_R4 = [
    {"colour": "red"},
    {"name": {"family": "X"}},
    {"name": [None]},
    {"name": [{}]},
    {"contact": [{"telecom": [None]}]},
    {"birthDate": {"x": 1}},
    {"birthDate": ["1815"]},
    {"_birthDate": "x"},
    {"_name": [{"id": "x"}]},
    {"deceasedBoolean": True, "deceasedDateTime": "1852"},
    {"contact": [{"colour": "red"}]},
    {"contained": [{"resourceType": 1}, "x"]},
    {"maritalStatus": "M"},
]


@pytest.mark.parametrize("content", NOT_R4, ids=str)
def test_what_is_no_fhir_is_refused(content: dict[str, Any]) -> None:
    """A record that was written without validation may hold anything; a path to it there is not."""
    with pytest.raises(Unprocessable, match=r"R4|array"):
        difference(patient(), patient(**content))
    assert operations(patient(name=[ADA]), patient(name=[ADA])) == []


# Random resources, made of the definitions: few values, so that they meet again.

TEXTS = {
    "boolean": [True, False],
    "decimal": [json.Number("1.0"), json.Number("1.00"), 1, json.Number("2e3")],
    "integer": [0, 1],
    "positiveInt": [1, 2],
    "unsignedInt": [0, 1],
    "date": ["2020", "2020-02"],
    "dateTime": ["2020", "2020-02-01T10:00:00Z"],
    "instant": ["2020-02-01T10:00:00Z", "2021-02-01T10:00:00Z"],
    "time": ["10:00:00", "11:00:00"],
    "base64Binary": ["YQ==", "Yg=="],
    "uuid": ["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"],
    "oid": ["urn:oid:1.2", "urn:oid:1.3"],
    "xhtml": [
        f'<div xmlns="http://www.w3.org/1999/xhtml">{text}</div>' for text in ("<p>a</p>", "b &amp; c")
    ],
}
RESOURCES = ("Patient", "Observation", "Questionnaire", "Bundle", "ValueSet", "Basic")
EXTRAS = [{"id": "a"}, {"extension": [{"url": "urn:a", "valueDecimal": json.Number("1.50")}]}]


@st.composite
def objects(draw: st.DrawFn, type: str, depth: int) -> dict[str, Any]:
    """An object of a type, of R4's structure; a resource with its type."""
    made: dict[str, Any] = {"resourceType": type} if definitions.is_resource_type(type) else {}
    known = definitions.elements(type)
    simple = sorted(name for name in known if depth > 0 or definitions.is_primitive(known[name].type))
    chosen = draw(st.lists(st.sampled_from(simple), min_size=1, max_size=4, unique=True))
    choices: set[str] = set()
    for name in dict.fromkeys([*chosen, *(name for name in known if known[name].min)]):
        element = known[name]
        if element.choice in choices:
            continue
        choices |= {element.choice} if element.choice else set()
        count = 1 if element.max == 1 else draw(st.integers(1, 3))
        items = [draw(values("id" if name == "id" else element.type, depth - 1)) for _ in range(count)]
        columns = [value for value, _ in items], [extra for _, extra in items]
        for key, column in zip((name, f"_{name}"), columns, strict=True):
            if any(item is not None for item in column):
                made[key] = column[0] if element.max == 1 else column
    return made


@st.composite
def values(draw: st.DrawFn, type: str, depth: int) -> tuple[Any, Any]:
    """A value of a type, and the object beside it, which may be all that there is of a primitive."""
    if not definitions.is_primitive(type):
        return draw(objects(draw(st.sampled_from(RESOURCES)) if type == "Resource" else type, depth)), None
    value = draw(st.sampled_from(TEXTS.get(type, ["a", "b", "c"])))
    if type in ("xhtml", "id") or draw(st.integers(0, 5)):
        return value, None
    return draw(st.sampled_from([value, None])), draw(st.sampled_from(EXTRAS))


@st.composite
def edited(draw: st.DrawFn, value: dict[str, Any], type: str) -> dict[str, Any]:
    """The object with lists that are shuffled, shortened and lengthened, and some elements gone."""
    made: dict[str, Any] = {}
    for name, item in value.items():
        element = definitions.elements(type).get(name)
        if element is None or definitions.is_primitive(element.type):
            if element is None or element.min or f"_{name}" in value or draw(st.integers(0, 6)):
                made[name] = item
            continue
        inner = element.type
        items = [
            draw(edited(each, each["resourceType"] if inner == "Resource" else inner))
            for each in (item if isinstance(item, list) else [item])
            if element.min or draw(st.integers(0, 5))
        ]
        if isinstance(item, list):
            items += [copy.deepcopy(draw(st.sampled_from(item))) for _ in range(draw(st.integers(0, 1)))]
            items = draw(st.permutations(items))
        if items:
            made[name] = items if isinstance(item, list) else items[0]
    return made if made.keys() - {"resourceType"} else value


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    type = draw(st.sampled_from(RESOURCES))
    before = draw(objects(type, 3))
    after = draw(st.one_of(edited(before, type), objects(type, 3)))
    return before | {"id": "x"}, after | {"id": "x"}


def as_after(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The second resource with what no patch changes: what the server maintains is as in the first."""
    kept = {name: value for name, value in (before.get("meta") or {}).items() if name in SERVER_ELEMENTS}
    rest = {name: value for name, value in (after.get("meta") or {}).items() if name not in SERVER_ELEMENTS}
    result = {**after, "id": before.get("id"), "meta": kept | rest}
    return {name: value for name, value in result.items() if value is not None and value != {}}


@given(pairs())
@SLOW
def test_applied_to_the_first_it_gives_the_second(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Exactly: lists in order, extensions of primitives, digits, narratives, contained resources, choices of types."""
    before, after = pair
    text = json.dumps(before)
    assert issues(before, structure_only=True) == issues(after, structure_only=True) == []

    patch = difference(before, after)

    assert same(applied(patch, before), as_after(before, after))
    assert json.dumps(before) == text
    assert issues(patch, structure_only=True) == []
    assert difference(applied(patch, before), as_after(before, after)) == {"resourceType": "Parameters"}


def test_it_leads_from_any_official_example_to_the_next(examples: dict[str, bytes]) -> None:
    """HL7's own resources, each compared with another of its type."""
    last: dict[str, dict[str, Any]] = {}
    tried = 0
    for name in sorted(examples)[::3]:
        if len(examples[name]) > 30_000:
            continue
        after = json.loads(examples[name])
        before = last.get(after["resourceType"])
        last[after["resourceType"]] = after
        if before is None:
            continue
        patch = difference(before, after)
        if len(patch.get("parameter", [])) > fhirpath_patch.MAX_OPERATIONS:
            continue
        assert same(fhirpath_patch.parse(patch).apply(before), as_after(before, after)), name
        tried += 1
    assert tried > 100


# Alignment


def test_elements_that_changed_places_are_matched() -> None:
    """`aligned` keeps the order and so tells of a removal and an addition; `matched` follows the element."""
    assert matched(list("ABCD"), list("DABXC")) == [3, 0, 1, None, 2]
    assert list(aligned(list("AB"), list("BA"))) in (
        [(None, 0), (0, 1), (1, None)],
        [(0, None), (1, 0), (None, 1)],
    )
    assert matched(["A", "A", "B"], ["B", "A", "A"]) == [2, 0, 1]


@given(st.lists(st.sampled_from("abcdef"), max_size=12), st.lists(st.sampled_from("abcdef"), max_size=12))
def test_each_element_is_matched_once(old: list[str], new: list[str]) -> None:
    """And an alignment names each element of both lists once, in order."""
    found = [origin for origin in matched(old, new) if origin is not None]
    assert len(set(found)) == len(found)
    assert {old[i] for i in set(range(len(old))) - set(found)}.isdisjoint(
        new[j] for j, origin in enumerate(matched(old, new)) if origin is None
    )
    both = list(aligned(old, new))
    assert [i for i, _ in both if i is not None] == list(range(len(old)))
    assert [j for _, j in both if j is not None] == list(range(len(new)))


@given(st.permutations(range(7)))
def test_the_longest_rise_is_found(numbers: list[int]) -> None:
    """Against trying all 128 parts."""
    found = [numbers[place] for place in rising(numbers)]
    parts = [[number for place, number in enumerate(numbers) if chosen >> place & 1] for chosen in range(128)]

    assert found == sorted(found)
    assert len(found) == max(len(part) for part in parts if part == sorted(part))


def test_a_list_of_many_equal_elements_is_aligned_in_bearable_time() -> None:
    """20,000 elements without a key, most of them equal: no table of 400,000,000 cells."""
    old = [{"display": "a" if number % 2 else "b"} for number in range(20_000)]

    found = matched(old, [{"display": "c"}, *old, {"display": "d"}])

    assert found.count(None) == 2
