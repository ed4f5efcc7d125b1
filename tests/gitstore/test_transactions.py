"""Transactions: one commit, all or nothing. https://hl7.org/fhir/R4/http.html#transaction"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gitstore import (
    Ask,
    Create,
    Delete,
    Gone,
    Invalid,
    NotFound,
    Store,
    StoreError,
    Unit,
    Update,
    VersionMismatch,
)
from gitstore.fhir.ids import ResourceId

PATIENT = ResourceId("Patient", "p")
PATIENT_URN = "urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9"
OTHER_URN = "urn:oid:1.2.3.4"


def resource(type: str, id: str | None = None, **elements: Any) -> dict[str, Any]:
    return {"resourceType": type} | ({"id": id} if id else {}) | elements


def transact(store: Store, author: Any, *interactions: Any) -> list[Any]:
    return store.commit(list(interactions), author, interaction="transaction")


def body(store: Store, reference: str) -> Any:
    snapshot = store.snapshot()
    return json.loads(snapshot.body(snapshot.read(ResourceId(*reference.split("/")))))


def state(store: Store, git: Any) -> tuple[Any, ...]:
    """All that a refused transaction must leave as it was."""
    snapshot = store.snapshot()
    return git("rev-parse", "main"), snapshot.commit, snapshot.history(count=1000), git("count-objects", "-v")


def test_a_transaction_is_one_commit(store, ada, git):
    """All its versions share commit and lastUpdated, and stand in its trailers in the order of the Bundle."""
    store.commit([Update(PATIENT, resource("Patient", "p"))], ada)

    outcomes = transact(
        store,
        ada,
        Update(ResourceId("Observation", "o"), resource("Observation", "o")),
        Delete(PATIENT),
        Create(resource("Encounter")),
        Delete(ResourceId("Patient", "never")),
    )

    assert [str(outcome.version) for outcome in outcomes] == [
        "Observation/o/_history/1",
        "Patient/p/_history/2",
        "Encounter/id-1/_history/1",
        "None",
    ]
    assert [outcome.changed for outcome in outcomes] == [True, True, True, False]
    commit = store.snapshot().commit
    assert {outcome.version.commit for outcome in outcomes[:3]} == {commit}
    assert (commit.sequence, commit.interaction) == (3, "transaction")
    assert store.snapshot().changes(commit) == [outcome.version for outcome in outcomes[:3]]
    assert git("log", "-1", "--format=%(trailers:key=FHIR-Version,valueonly)", "main").split("\n")[:3] == [
        "PUT Observation/o/_history/1",
        "DELETE Patient/p/_history/2",
        "POST Encounter/id-1/_history/1",
    ]


def test_references_to_other_entries_become_the_new_ids(store, ada):
    """urn:uuid, urn:oid and absolute fullUrls, circular ones too, wherever the specification says.
    https://hl7.org/fhir/R4/http.html#trules"""
    absolute = "http://example.org/fhir/Observation/77"
    transact(
        store,
        ada,
        Create(
            resource(
                "Patient",
                link=[{"other": {"reference": OTHER_URN}, "type": "seealso"}],
                text={"status": "generated", "div": f'<div><a href="{absolute}#x">x</a></div>'},
            ),
            full_url=PATIENT_URN,
        ),
        Update(
            ResourceId("Patient", "second"),
            resource("Patient", "second", link=[{"other": {"reference": PATIENT_URN}, "type": "seealso"}]),
            full_url=OTHER_URN,
        ),
        Create(
            resource(
                "Observation",
                subject={"reference": "Patient/8"},
                derivedFrom=[{"reference": absolute}],
                instantiatesUri="urn:uuid:unknown",
            ),
            full_url=absolute,
        ),
        Create(resource("Patient"), full_url="http://example.org/fhir/Patient/8"),
    )

    patient = body(store, "Patient/id-1")
    assert patient["link"][0]["other"]["reference"] == "Patient/second"
    assert '<a href="Observation/id-2#x">' in patient["text"]["div"]
    assert body(store, "Patient/second")["link"][0]["other"]["reference"] == "Patient/id-1"
    observation = body(store, "Observation/id-2")
    assert observation["subject"]["reference"] == "Patient/id-3"
    assert observation["derivedFrom"][0]["reference"] == "Observation/id-2"
    assert observation["instantiatesUri"] == "urn:uuid:unknown"


def test_a_unit_that_is_no_transaction_keeps_its_references(store, ada):
    """A create on its own has no other entries."""
    subject = {"reference": PATIENT_URN}
    store.commit([Create(resource("Observation", subject=subject), full_url=PATIENT_URN)], ada)

    assert body(store, "Observation/id-1")["subject"] == subject


REFUSED = {
    "a condition fails": (
        [
            Create(resource("Patient")),
            Update(PATIENT, resource("Patient", "p"), if_match=frozenset("7")),
            Create(resource("Patient")),
        ],
        VersionMismatch,
        1,
    ),
    "a delete's condition fails": (
        [Create(resource("Patient")), Delete(PATIENT, frozenset("7"))],
        VersionMismatch,
        1,
    ),
    "the same resource twice": (
        [Update(PATIENT, resource("Patient", "p")), Create(resource("Patient")), Delete(PATIENT)],
        Invalid,
        2,
    ),
    "the same deletion twice": ([Delete(PATIENT), Delete(PATIENT)], Invalid, 1),
    "no type": ([Create(resource("Patient")), Create({})], Invalid, 1),
    "another id": ([Update(PATIENT, resource("Patient", "q"))], Invalid, 0),
    "meta that is no object": ([Delete(PATIENT), Create(resource("Patient", meta=1))], Invalid, 1),
    "a conditional reference": (
        [Create(resource("Observation", subject={"reference": "Patient?identifier=x"}))],
        Invalid,
        0,
    ),
}


@pytest.mark.parametrize(("interactions", "error", "entry"), REFUSED.values(), ids=REFUSED)
def test_one_entry_at_fault_refuses_all_and_is_named(store, ada, git, interactions, error, entry):
    """Nothing is written, no version is burnt, HEAD stays. https://hl7.org/fhir/R4/http.html#transaction-response"""
    store.commit([Update(PATIENT, resource("Patient", "p"))], ada)
    before = state(store, git)

    with pytest.raises(error) as refused:
        transact(store, ada, *interactions)

    assert refused.value.entry == entry
    assert all(issue.expression.startswith(f"Bundle.entry[{entry}]") for issue in refused.value.issues)
    assert state(store, git) == before
    [outcome] = store.commit([Update(PATIENT, resource("Patient", "p"))], ada)
    assert outcome.version is not None
    assert outcome.version.version_id == 2


def test_an_empty_transaction_is_no_error_and_no_commit(store, ada, git):
    """https://hl7.org/fhir/R4/http.html#transaction: "SHALL NOT" be one."""
    before = state(store, git)

    assert transact(store, ada) == []
    assert state(store, git) == before


def test_a_transaction_that_changes_nothing_is_no_commit(store, ada, git):
    store.commit([Update(PATIENT, resource("Patient", "p"))], ada)
    before = state(store, git)

    outcomes = transact(
        store,
        ada,
        Update(PATIENT, resource("Patient", "p"), skip_unchanged=True),
        Delete(ResourceId("Patient", "never")),
        Ask(lambda snapshot: snapshot.commit.sequence),
    )

    assert [(outcome.changed, outcome.answer) for outcome in outcomes] == [
        (False, None),
        (False, None),
        (False, 2),
    ]
    assert state(store, git) == before


# Questions


def test_a_question_sees_what_the_transaction_leaves(store, ada):
    """GET comes last, wherever it stands. https://hl7.org/fhir/R4/http.html#trules"""
    store.commit([Update(PATIENT, resource("Patient", "p"))], ada)
    before = store.snapshot()

    answers = transact(
        store,
        ada,
        Ask(lambda snapshot: snapshot.read(PATIENT)),
        Ask(lambda snapshot: snapshot.history().total),
        Ask(lambda snapshot: snapshot.counts()),
        Update(PATIENT, resource("Patient", "p", active=True)),
        Create(resource("Patient")),
        Ask(lambda snapshot: [str(version) for version in snapshot.resources()]),
    )

    assert answers[0].answer == answers[3].version
    assert store.snapshot().body(answers[0].answer).endswith(b'"active": true\n}\n')
    assert answers[1].answer == 3
    assert answers[2].answer == {"Patient": 2}
    assert answers[5].answer == ["Patient/id-1/_history/1", "Patient/p/_history/2"]
    assert before.read(PATIENT).version_id == 1


def test_a_question_after_a_delete_finds_it_gone(store, ada, git):
    """And refuses the transaction, which would have deleted it."""
    store.commit([Update(PATIENT, resource("Patient", "p"))], ada)
    before = state(store, git)

    with pytest.raises(Gone) as refused:
        transact(store, ada, Delete(PATIENT), Ask(lambda snapshot: snapshot.read(PATIENT)))

    assert refused.value.entry == 1
    assert state(store, git) == before
    assert store.snapshot().read(PATIENT).version_id == 1


def test_a_question_that_is_refused_leaves_nothing_in_its_group(store, ada, git):
    """The units after it stand on the commit before it."""
    refusing = [
        Update(PATIENT, resource("Patient", "p", active=False)),
        Create(resource("Patient")),
        Ask(lambda snapshot: snapshot.read(ResourceId("Patient", "none"))),
    ]
    units = [
        Unit([Update(PATIENT, resource("Patient", "p", active=True))], ada),
        Unit(refusing, ada, interaction="transaction"),
        Unit([Update(PATIENT, resource("Patient", "p"))], ada),
        Unit(refusing, ada, interaction="transaction"),
        Unit([Delete(PATIENT)], ada),
    ]

    first, second, third, fourth, fifth = store.commit_each(units)

    assert isinstance(second, NotFound)
    assert isinstance(fourth, NotFound)
    assert [str(made[0].version) for made in (first, third, fifth) if not isinstance(made, StoreError)] == [
        "Patient/p/_history/1",
        "Patient/p/_history/2",
        "Patient/p/_history/3",
    ]
    assert git("rev-list", "--count", "main") == "4"
    assert git("fsck", "--full", "--strict", "--unreachable") == "", "not one object of what was refused"
    assert "packs: 2" in git("count-objects", "-v").split("\n"), "that of init, and one for the group"
    assert list(store.verify()) == []


def test_an_error_that_is_none_of_the_stores_reaches_the_caller(store, ada, git):
    """And leaves nothing behind."""
    before = state(store, git)

    with pytest.raises(ZeroDivisionError):
        transact(store, ada, Create(resource("Patient")), Ask(lambda snapshot: 1 // 0))

    assert state(store, git) == before
    assert transact(store, ada, Create(resource("Patient")))[0].version.version_id == 1


# Many units


def test_each_unit_happens_alone_and_in_order(store, ada, grace):
    """commit_each: what a batch or an import does. One that fails takes none with it."""
    units = [
        Unit([Update(PATIENT, resource("Patient", "p"))], ada, request_id="one", message="first"),
        Unit([Update(PATIENT, resource("Patient", "p"), if_match=frozenset("1"))], grace),
        Unit([Update(PATIENT, resource("Patient", "wrong"))], ada),
        Unit([Update(PATIENT, resource("Patient", "p"), if_match=frozenset("1"))], ada),
        Unit([Delete(PATIENT), Create(resource("Patient"))], ada, interaction="transaction"),
        Unit([], ada, interaction="transaction"),
        Unit([Delete(PATIENT)], ada),
    ]

    results = store.commit_each(units)

    assert [type(result) for result in results] == [list, list, Invalid, VersionMismatch, list, list, list]
    assert [
        str(outcome.version) for result in results if not isinstance(result, StoreError) for outcome in result
    ] == [
        "Patient/p/_history/1",
        "Patient/p/_history/2",
        "Patient/p/_history/3",
        "Patient/id-1/_history/1",
        "Patient/p/_history/3",
    ]
    history = store.snapshot().history().versions
    assert [version.commit.sequence for version in history] == [4, 4, 3, 2]
    assert history[-1].commit.request_id == "one"
    assert [version.commit.author for version in history[1:]] == [ada, grace, ada]


def test_no_units_are_no_work(store):
    assert store.commit_each([]) == []


def test_the_units_of_one_call_share_packs(store, ada, git):
    """Group commit: one durable write for up to 128 units."""
    units = [Unit([Create(resource("Patient", active=bool(number % 2)))], ada) for number in range(300)]

    results = store.commit_each(iter(units))

    assert [str(result[0].version) for result in results if not isinstance(result, StoreError)] == [
        f"Patient/id-{number}/_history/1" for number in range(1, 301)
    ]
    assert git("rev-list", "--count", "main") == "301"
    packs = int(git("count-objects", "-v").split("packs: ")[1].split("\n")[0])
    assert packs <= 1 + 4
    assert list(store.verify()) == []
