"""The Provenance that comes with a unit of work. https://hl7.org/fhir/R4/provenance.html#header"""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gitstore import Attest, Create, Criteria, Delete, Invalid, Settings, Store, Update
from gitstore.attestation import reason
from gitstore.fhir.ids import ResourceId

PROVENANCE = {"resourceType": "Provenance", "recorded": "2026-01-01T12:00:00Z"}
PATIENT = ResourceId("Patient", "p")
SEVERAL = Settings(validation="off", conditional_delete="multiple")


def update(**elements: object) -> Update:
    return Update(PATIENT, {"resourceType": "Patient", "id": "p", **elements})


def targets(snapshot, version) -> list[str]:
    return [each["reference"] for each in json.loads(snapshot.body(version))["target"]]


def test_it_names_the_version_that_was_made_whoever_came_between(store, ada):
    """What was foreseen before the lock is looked at again under it."""

    def write(number: int) -> None:
        store.commit([update(gender=str(number)), Attest(PROVENANCE)], ada)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    snapshot = store.snapshot()
    for sequence in range(2, snapshot.commit.sequence + 1):
        written, provenance = snapshot.changes(store.snapshot(sequence).commit)
        assert targets(snapshot, provenance) == [str(written)]
    assert snapshot.read(PATIENT).version_id == 12
    assert list(store.verify()) == []


def test_an_unchanged_update_is_judged_at_the_version_it_meets(store, ada):
    """With skip_unchanged: between two contents that take turns, each version made is named and no other."""

    def write(number: int) -> None:
        interaction = replace(update(active=bool(number % 2)), skip_unchanged=True)
        store.commit([interaction, Attest(PROVENANCE)], ada)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    snapshot = store.snapshot()
    made = snapshot.history("Patient").versions
    named = [targets(snapshot, each) for each in snapshot.history("Provenance").versions]
    assert named == [[str(each)] for each in made]


def test_all_that_criteria_delete_is_named(record, clock, new_id, ada):
    with Store.open(record, SEVERAL, clock=clock, new_id=new_id) as store:
        for _ in range(3):
            store.commit([Create({"resourceType": "Patient", "active": True})], ada)

        deleted, attested = store.commit(
            [Delete(Criteria("Patient", (("active", "true"),))), Attest(PROVENANCE)], ada
        )

        assert attested.version is not None
        made = [deleted.version, *deleted.others]
        assert targets(store.snapshot(), attested.version) == [str(each) for each in made]
        assert store.snapshot().commit.interaction == "delete"


def test_the_record_is_the_same_after_a_rebuild(store, ada):
    """A commit that changes two files and is no transaction is one of the format."""
    store.commit([update(), Attest(PROVENANCE)], ada)
    before = store.snapshot().commit

    store.reindex()

    assert store.snapshot().commit == before
    assert list(store.verify()) == []


@pytest.mark.parametrize(
    "wrong", [{"resourceType": "Patient"}, {}, {**PROVENANCE, "target": [{"reference": "Patient/p"}]}]
)
def test_what_is_no_provenance_without_target_refuses_it_all(store, ada, wrong):
    before = store.snapshot().commit

    with pytest.raises(Invalid):
        store.commit([update(), Attest(wrong)], ada)

    assert store.snapshot().commit == before


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "coding", "display", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(ANYTHING)
def test_any_reason_has_words_or_none(value):
    """Also where nobody has validated it yet."""
    words = reason({"resourceType": "Provenance", "reason": value})

    assert words is None or words
