"""Comparing two versions of a resource by element."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.fhir import json
from gitstore.fhir.compare import ABSENT, apply, differences, same


def told(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """The differences as (path, old, new)."""
    return [(difference.path, difference.old, difference.new) for difference in differences(old, new)]


PHONE = {"system": "phone", "value": "555-1"}
MAIL = {"system": "email", "value": "ada@example.org"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # single elements
        ({"a": "x"}, {"a": "y"}, [("a", "x", "y")]),
        ({"a": "x"}, {}, [("a", "x", ABSENT)]),
        ({}, {"a": {"b": True}}, [("a", ABSENT, {"b": True})]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, [("a.b.c", 1, 2)]),
        ({"a": True}, {"a": 1}, [("a", True, 1)]),
        ({"a": "1"}, {"a": 1}, [("a", "1", 1)]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"a": {"b": 1}}, {"a": [{"b": 1}]}, [("a", {"b": 1}, [{"b": 1}])]),
        # lists of primitives
        ({"given": ["A", "B"]}, {"given": ["A", "C"]}, [("given[1]", "B", "C")]),
        ({"given": ["A", "B"]}, {"given": ["Z", "A", "B"]}, [("given[0]", ABSENT, "Z")]),
        ({"given": ["A", "B", "C"]}, {"given": ["A", "C"]}, [("given[1]", "B", ABSENT)]),
        ({"given": [None, "B"]}, {"given": ["A", "B"]}, [("given[0]", None, "A")]),
        # lists of objects: by key
        ({"telecom": [PHONE]}, {"telecom": [MAIL, PHONE]}, [("telecom[0]", ABSENT, MAIL)]),
        (
            {"telecom": [PHONE]},
            {"telecom": [MAIL, PHONE | {"use": "home"}]},
            [("telecom[0]", ABSENT, MAIL), ("telecom[1].use", ABSENT, "home")],
        ),
        (
            {"item": [{"id": "1", "text": "x"}, {"id": "2", "text": "y"}]},
            {"item": [{"id": "2", "text": "z"}]},
            [("item[0]", {"id": "1", "text": "x"}, ABSENT), ("item[0].text", "y", "z")],
        ),
        (
            {"item": [{"id": "1", "text": "x"}]},
            {"item": [{"id": "2", "text": "x"}]},
            [("item[0]", {"id": "1", "text": "x"}, ABSENT), ("item[0]", ABSENT, {"id": "2", "text": "x"})],
        ),
        # lists of objects: by likeness
        (
            {"name": [{"family": "Lovelace", "given": ["Ada"]}]},
            {"name": [{"text": "Countess"}, {"family": "King", "given": ["Ada"]}]},
            [("name[0]", ABSENT, {"text": "Countess"}), ("name[1].family", "Lovelace", "King")],
        ),
        ({"name": [{"text": "A"}]}, {"name": [{"text": "B"}]}, [("name[0].text", "A", "B")]),
        # two elements with one key are still two
        ({"telecom": [PHONE, PHONE]}, {"telecom": [PHONE]}, [("telecom[1]", PHONE, ABSENT)]),
        # names that FHIRPath must quote
        ({"odd key": 1}, {}, [("`odd key`", 1, ABSENT)]),
    ],
)
def test_differences_are_few_and_say_where(old: Any, new: Any, expected: list[Any]) -> None:
    """An insertion is one addition, a change within an element is told at its own path."""
    assert told(old, new) == expected


@pytest.mark.parametrize(("old", "new"), [("1.0", "1.00"), ("1e2", "100"), ("-0", "0"), ("10", "1e1")])
def test_numbers_differ_by_their_digits(old: str, new: str) -> None:
    """1.0 and 1.00 have different precision, which FHIR keeps. https://hl7.org/fhir/R4/datatypes.html#decimal"""
    before, after = (json.loads(f'{{"value": {text}}}'.encode()) for text in (old, new))

    assert [difference.path for difference in differences(before, after)] == ["value"]
    assert not same(before, after)
    assert differences(before, before) == []


def test_what_the_server_writes_into_meta_is_no_difference() -> None:
    """versionId and lastUpdated change with every version, whatever the author did."""
    old = {"resourceType": "Patient", "meta": {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"}}

    assert differences(old, {"resourceType": "Patient"}) == []
    assert told(old, old | {"meta": {"versionId": "2", "source": "#x"}}) == [
        ("meta", ABSENT, {"source": "#x"})
    ]


def test_a_resource_that_is_not_there_differs_in_all_its_elements() -> None:
    """A create tells each element that it brings, a delete each that it takes."""
    patient = {"resourceType": "Patient", "gender": "female"}

    assert told(None, patient) == [("resourceType", ABSENT, "Patient"), ("gender", ABSENT, "female")]
    assert told(patient, None) == [("resourceType", "Patient", ABSENT), ("gender", "female", ABSENT)]
    assert differences(None, None) == []


def test_a_long_list_is_aligned_in_bearable_time() -> None:
    """2,000 changed concepts without a key between them are paired in their order, not in 4,000,000 comparisons."""
    old = {"concept": [{"display": f"old {number}"} for number in range(2_000)]}
    new = {"concept": [{"display": f"new {number}"} for number in range(2_001)]}

    found = differences(old, new)

    assert len(found) == 2_001
    assert found[0].path == "concept[0].display"


# Few names and values, so that lists meet equal, similar and keyed elements often.
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(0, 2), st.sampled_from(["a", "b", "1"]).map(str),
    st.sampled_from(["1.0", "1.00", "1e0"]).map(lambda text: json.loads(text.encode())),
)  # fmt: skip
objects = st.recursive(
    st.dictionaries(st.sampled_from(["id", "system", "value", "code", "x"]), scalars, max_size=4),
    lambda inner: st.dictionaries(
        st.sampled_from(["id", "system", "value", "x", "y"]),
        st.one_of(scalars, inner, st.lists(st.one_of(scalars, inner), max_size=5)),
        max_size=4,
    ),
    max_leaves=12,
)


@given(objects, objects)
def test_applying_the_differences_to_the_old_gives_the_new(old: Any, new: Any) -> None:
    """Nothing is left out and nothing told twice."""
    assert same(apply(old, differences(old, new)) or {}, new)


@given(objects)
def test_nothing_differs_from_itself(resource: Any) -> None:
    """A version compared with an equal one tells nothing."""
    assert differences(resource, json.loads(json.dumps(resource))) == []
