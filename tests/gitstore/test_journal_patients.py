"""Which patients an answer tells of. docs/audit-journal.md, "What is on a line" """

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore import Author, Create, Delete, Store, Update, patients_of
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.journal.patients import patients_in

BASE = "https://fhir.example.org/fhir"
OBSERVATION = ResourceId("Observation", "o1")


def observation(reference: str, **others: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": "o1", "subject": {"reference": reference}} | others


def test_a_patient_tells_of_itself_alone(store: Store, ada: Author) -> None:
    """Also where it is linked to another."""
    id = ResourceId("Patient", "p1")
    linked = {"resourceType": "Patient", "id": "p1", "link": [{"other": {"reference": "Patient/p2"}}]}
    store.commit([Update(id, linked)], ada)
    snapshot = store.snapshot()

    assert patients_of(snapshot, [snapshot.read(id)]) == ("p1",)
    store.commit([Delete(id)], ada)
    [deletion, _] = store.snapshot().history(id).versions
    assert patients_of(store.snapshot(), [deletion]) == ("p1",)


def test_a_page_tells_of_each_patient_once_in_order(store: Store, ada: Author) -> None:
    for id in ("p2", "p1", "p2"):
        store.commit([Create(observation(f"Patient/{id}"))], ada)
    snapshot = store.snapshot()
    versions = snapshot.history("Observation").versions[::-1]

    assert patients_of(snapshot, versions) == ("p2", "p1")
    assert patients_of(snapshot, []) == ()


def test_a_past_version_tells_of_whom_it_was_about(store: Store, ada: Author) -> None:
    """Who reads the mistake that was corrected has seen the data of that patient."""
    store.commit([Update(OBSERVATION, observation("Patient/wrong"))], ada)
    store.commit([Update(OBSERVATION, observation("Patient/right"))], ada)
    store.commit([Delete(OBSERVATION)], ada)
    snapshot = store.snapshot()

    assert patients_of(snapshot, [snapshot.version(OBSERVATION, VersionId(1))]) == ("wrong",)
    assert patients_of(snapshot, [snapshot.version(OBSERVATION, VersionId(2))]) == ("right",)
    assert patients_of(snapshot, [snapshot.version(OBSERVATION, VersionId(3))]) == ()


REFERENCES = [
    ("Patient/p1", ["p1"]),
    ("Patient/p1/_history/2", ["p1"]),
    (f"{BASE}/Patient/p1", ["p1"]),
    ("https://elsewhere.example.org/fhir/Patient/p1", []),
    (f"{BASE}/other/Patient/p1", []),
    ("Group/p1", []),
    ("Patient/p1/extra", []),
    ("Patient/", []),
    ("#p1", []),
    ("urn:uuid:5e0a4c6e-0000-4000-8000-000000000001", []),
]


@pytest.mark.parametrize(("reference", "expected"), REFERENCES)
def test_references_to_patients_of_this_server_count(reference, expected):
    """https://hl7.org/fhir/R4/references.html#literal"""
    assert patients_in(json.dumps_pretty(observation(reference)), [BASE]) == expected


@given(st.text(max_size=60).map(lambda text: f'{text}"reference": "Patient/p9"'))
def test_a_text_that_looks_like_a_reference_is_none(text):
    """Its quotation marks are escaped in the stored bytes."""
    assert patients_in(json.dumps_pretty(observation("Patient/p1", note=[{"text": text}]))) == ["p1"]
