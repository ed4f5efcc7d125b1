"""Blame: the version that last set each element."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore import Author, Delete, Gone, NotFound, Store, Update
from gitstore.blame import _after, blame, carried
from gitstore.fhir import json
from gitstore.fhir.alignment import matched
from gitstore.fhir.compare import same
from gitstore.fhir.element_paths import element_path
from gitstore.fhir.ids import ResourceId, VersionId

ADA = ResourceId("Patient", "ada")


def patient(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "ada", **elements}


@pytest.fixture
def write(store: Store, grace: Author):
    def commit(**elements: Any) -> None:
        store.commit([Update(ADA, patient(**elements))], grace)

    return commit


def told(store: Store, version: int | None = None) -> dict[str, int]:
    found = blame(store.snapshot(), ADA, VersionId(version) if version else None)
    return {each.path: each.version.version_id for each in found}


def test_each_element_names_the_version_that_set_it(store: Store, write: Any, grace: Author) -> None:
    """Also of an earlier version; what is put in front of a list moves blame, and doesn't change it."""
    write(birthDate="1815", name=[{"family": "Byron", "given": ["Ada"]}])
    write(birthDate="1815", name=[{"family": "Lovelace", "given": ["Ada"]}])
    write(birthDate="1815", name=[{"text": "Countess"}, {"family": "Lovelace", "given": ["Augusta", "Ada"]}])

    assert told(store) == {
        "Patient.birthDate": 1,
        "Patient.name[0].text": 3,
        "Patient.name[1].family": 2,
        "Patient.name[1].given[0]": 3,
        "Patient.name[1].given[1]": 1,
    }
    assert set(told(store, 1).values()) == {1}
    last = list(blame(store.snapshot(), ADA))[-1]
    assert (last.value, last.version.commit.author) == ("Ada", grace)
    assert last.steps == ("name", 1, "given", 1)


def test_a_deletion_ends_what_was_known(store: Store, write: Any, grace: Author) -> None:
    """After a revival all is from that version: nobody had to look at what was before."""
    write(gender="female")
    store.commit([Delete(ADA)], grace)

    with pytest.raises(Gone):
        told(store)
    write(gender="female")

    assert told(store) == {"Patient.gender": 3}
    assert told(store, 1) == {"Patient.gender": 1}
    with pytest.raises(Gone):
        told(store, 2)
    with pytest.raises(NotFound):
        told(store, 4)


def test_what_the_server_writes_into_meta_is_nobodys(store: Store, write: Any) -> None:
    write(meta={"tag": [{"code": "a"}]})
    write(meta={"tag": [{"code": "a"}]}, active=True)

    assert told(store) == {"Patient.meta.tag[0].code": 1, "Patient.active": 2}


def test_a_resource_with_more_versions_than_a_page(store: Store, write: Any) -> None:
    """600 versions: the first one is still found."""
    for number in range(600):
        write(birthDate="1815", multipleBirthInteger=number)

    assert told(store) == {"Patient.birthDate": 1, "Patient.multipleBirth": 600}


@pytest.mark.parametrize(
    ("steps", "path"),
    [
        (("valueQuantity", "value"), "Observation.value.value"),
        (("_issued", "extension", 0, "valueCode"), "Observation.issued.extension[0].value"),
        (("component", 0, "valueCodeableConcept", "text"), "Observation.component[0].value.text"),
        (("contained", 0, "deceasedBoolean"), "Observation.contained[0].deceased"),
        (("colour", "valueCode"), "Observation.colour.valueCode"),
    ],
)
def test_paths_are_fhirpath(steps: tuple[str | int, ...], path: str) -> None:
    """http://hl7.org/fhirpath/N1/#path-selection"""
    observation = {
        "resourceType": "Observation",
        "valueQuantity": {"value": 1},
        "_issued": {"extension": [{"url": "u", "valueCode": "x"}]},
        "component": [{"valueCodeableConcept": {"text": "x"}}],
        "contained": [{"resourceType": "Patient", "deceasedBoolean": True}],
        "colour": {"valueCode": "red"},
    }

    assert element_path(observation, steps) == path


# Against looking back from each primitive, version by version.

leaves = st.one_of(st.sampled_from(["a", "b", True, 1]), st.sampled_from(["1.0", "1.00"]).map(json.Number))
contents = st.recursive(
    st.dictionaries(st.sampled_from("pqr"), leaves, min_size=1),
    lambda inner: st.dictionaries(
        st.sampled_from("pqr"), st.one_of(leaves, inner, st.lists(st.one_of(leaves, inner), min_size=1, max_size=4)), min_size=1
    ),
    max_leaves=8,
)  # fmt: skip


def all_of(steps: tuple[Any, ...], value: Any) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [found for name, child in value.items() for found in all_of((*steps, name), child)]
    if isinstance(value, list):
        return [found for place, child in enumerate(value) for found in all_of((*steps, place), child)]
    return [steps]


def at(value: Any, steps: tuple[Any, ...]) -> Any:
    for step in steps:
        value = value[step]
    return value


def before(old: Any, new: Any, steps: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Where what lies at the steps of the new value was in the old one; None where it wasn't."""
    found: tuple[Any, ...] = ()
    for number, step in enumerate(steps):
        mine, theirs = at(new, steps[:number]), at(old, found)
        if type(mine) is not type(theirs):
            return None
        place = matched(theirs, mine)[step] if isinstance(mine, list) else step if step in theirs else None
        if place is None:
            return None
        found = (*found, place)
    return found


def looked_back(versions: list[Any], steps: tuple[Any, ...]) -> int:
    """The number of the version, from 1, in which what is at the steps of the last one last changed."""
    for number in range(len(versions) - 1, 0, -1):
        earlier = before(versions[number - 1], versions[number], steps)
        if earlier is None or not same(at(versions[number - 1], earlier), at(versions[number], steps)):
            return number + 1
        steps = earlier
    return 1


def carried_on(versions: list[Any]) -> Any:
    origin: Any = {}
    for number, version in enumerate(versions, 1):
        origin = carried(versions[number - 2] if number > 1 else {}, origin, version, number)
    return origin


@given(st.lists(contents, min_size=1, max_size=6))
@settings(deadline=None)
def test_blame_is_the_version_of_the_last_change(versions: list[Any]) -> None:
    """Looking back from each primitive finds the same version as going through them once."""
    origin = carried_on(versions)

    for steps in all_of((), versions[-1]):
        assert at(origin, steps) == looked_back(versions, steps), steps


@given(st.lists(contents, min_size=1, max_size=6), st.booleans())
@settings(deadline=None)
def test_what_has_the_same_bytes_is_not_looked_into(versions: list[Any], stored: bool) -> None:
    """Going by the bytes of each element tells the same, whether or not a file is in the stored form."""
    elements: dict[bytes, Any] = {}
    for number, version in enumerate(versions, 1):
        meta = {"versionId": str(number), "lastUpdated": "2026-01-05T08:47:00Z"}
        whole = {"resourceType": "Basic", "id": "b", "meta": meta, **version}
        elements = _after(elements, json.dumps_pretty(whole) if stored else json.dumps(whole), number)

    assert [each.name for each in elements.values()] == ["meta", *versions[-1]]
    found = {each.name: each.origin for each in elements.values() if each.name != "meta"}
    assert found == carried_on(versions)


rows = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(0, 2)), max_size=5, unique_by=lambda row: row[0]
)


@given(st.lists(rows, min_size=1, max_size=7))
@settings(deadline=None)
def test_elements_with_ids_keep_their_blame_wherever_they_move(states: list[list[tuple[str, int]]]) -> None:
    """Lists in any order: told by the ids alone, without any alignment."""
    versions = [{"item": [{"id": id, "value": value} for id, value in state]} for state in states]
    origin = carried_on(versions)

    for place, (id, value) in enumerate(states[-1]):
        since = len(states)
        while since > 1 and dict(states[since - 2]).get(id) == value:
            since -= 1
        assert origin["item"][place]["value"] == since
