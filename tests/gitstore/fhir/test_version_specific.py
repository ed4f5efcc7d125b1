"""References that are marked to be made version-specific.

http://hl7.org/fhir/StructureDefinition/resolve-as-version-specific
"""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gitstore.fhir.version_specific import URL, resolve_versions

MARK = {"url": URL, "valueBoolean": True}
OTHER = {"url": "http://example.org/other", "valueString": "x"}


def in_first_version(text: str, _place: str) -> str | None:
    return f"{text}/_history/1" if text.startswith("Patient/") else None


def resolved(reference: dict[str, Any]) -> Any:
    return resolve_versions({"resourceType": "Observation", "subject": reference}, in_first_version)[
        "subject"
    ]


def test_a_marked_reference_gets_its_version_and_loses_the_mark():
    """Other extensions and all else in it stay."""
    assert resolved({"reference": "Patient/1", "extension": [MARK]}) == {"reference": "Patient/1/_history/1"}
    assert resolved({"id": "r", "extension": [OTHER, MARK], "reference": "Patient/1", "display": "Ada"}) == {
        "id": "r",
        "extension": [OTHER],
        "reference": "Patient/1/_history/1",
        "display": "Ada",
    }


def test_what_is_not_marked_stays():
    """Also a mark that says false, and one on what has no reference."""
    for reference in (
        {"reference": "Patient/1"},
        {"reference": "Patient/1", "extension": [OTHER]},
        {"reference": "Patient/1", "extension": [{"url": URL, "valueBoolean": False}]},
        {"display": "Ada", "extension": [MARK]},
        {"reference": "Patient/1", "extension": MARK},
        {"reference": "Patient/1", "extension": [None, 1, {}]},
    ):
        assert resolved(reference) is reference


def test_what_can_not_be_resolved_keeps_its_mark():
    """Another server may know it."""
    reference = {"reference": "http://example.org/Patient/1", "extension": [MARK]}

    assert resolved(reference) is reference


def test_places_are_fhirpath():
    """Within the resource, without its type; contained resources and extensions are looked into."""
    marked = {"reference": "Patient/1", "extension": [MARK]}
    places = []
    resource = {
        "resourceType": "Provenance",
        "contained": [{"resourceType": "Observation", "subject": marked}],
        "target": [{"reference": "Patient/1"}, marked],
        "extension": [{"url": "u", "valueReference": marked}],
    }

    resolve_versions(resource, lambda _text, place: places.append(place))

    assert places == [
        "contained[0].subject.reference",
        "target[1].reference",
        "extension[0].valueReference.reference",
    ]


REFERENCES = st.fixed_dictionaries(
    {},
    optional={
        "reference": st.sampled_from(["Patient/1", "urn:uuid:1"]) | st.integers(),
        "extension": st.lists(st.sampled_from([MARK, OTHER]), max_size=3),
        "display": st.text(max_size=3),
    },
)
TREES = st.recursive(
    REFERENCES | st.text(max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from("abc"), TREES, max_size=3))
def test_it_is_done_once_and_changes_nothing_else(resource):
    """The argument is never changed, a second time changes nothing, and what isn't marked is the same object."""
    before = copy.deepcopy(resource)

    once = resolve_versions(resource, in_first_version)

    assert resource == before
    assert resolve_versions(once, in_first_version) is once
    assert (once is resource) == (once == resource)
