"""Criteria in place of an id, patches, and references that depend on the state: right whoever else writes meanwhile.

https://hl7.org/fhir/R4/http.html#cond-update, https://hl7.org/fhir/R4/http.html#trules
"""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from gitstore import (
    Conflict,
    Create,
    Criteria,
    Delete,
    Gone,
    Invalid,
    MultipleMatches,
    NotFound,
    Outcome,
    Patch,
    Settings,
    Store,
    StoreError,
    Unit,
    Update,
    VersionMismatch,
)
from gitstore.fhir.ids import ResourceId
from gitstore.queue import Pending

QUICK = Settings(durability="off", validation="off")
A = ResourceId("Patient", "a")
MARK = {"url": "http://hl7.org/fhir/StructureDefinition/resolve-as-version-specific", "valueBoolean": True}


def person(number: int, id: str | None = None, **elements: Any) -> dict[str, Any]:
    identifier = [{"system": "urn:mrn", "value": str(number)}]
    return {"resourceType": "Patient", "identifier": identifier} | ({"id": id} if id else {}) | elements


def criteria(number: int) -> Criteria:
    return Criteria.parse("Patient", f"identifier=urn:mrn|{number}")


def update(number: int, id: str = "a", **elements: Any) -> Update:
    return Update(ResourceId("Patient", id), person(number, id, **elements))


class Setting:
    """A patch that sets an element, and notes what it was given."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value
        self.seen: list[dict[str, Any]] = []

    def __call__(self, before: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        self.seen.append(before)
        return {**before, self.name: self.value}, []


def body(store: Store, reference: str) -> Any:
    snapshot = store.snapshot()
    return json.loads(snapshot.body(snapshot.read(ResourceId(*reference.split("/")))))


def matches(store: Store, found: Criteria) -> list[str]:
    with store.reading() as snapshot:
        return [str(each) for each in snapshot.matching(found, 10)]


def each(store: Store, author: Any, *interactions: Any) -> list[Any]:
    """Units that are prepared before any of them is written, and then written in one group: outcomes or errors."""
    results = store.commit_each([Unit([interaction], author) for interaction in interactions])
    return [result if isinstance(result, StoreError) else result[0] for result in results]


def meanwhile(store: Store, unit: Unit, *others: Any) -> list[Outcome]:
    """What becomes of a unit if others are written between its preparation and its turn."""
    pending = Pending(store._prepare(unit))
    for other in others:
        store.commit([other], unit.author)
    store._queue.submit([pending])
    store._queue.wait(pending)
    if pending.error is not None:
        raise pending.error
    return pending.outcomes


def transact(store: Store, author: Any, *interactions: Any) -> list[Outcome]:
    return store.commit(list(interactions), author, interaction="transaction")


# Under the lock


def test_parallel_conditional_creates_make_one(store, ada):
    """11.9: whichever comes first creates, the others find it."""
    start = threading.Barrier(8)
    outcomes: list[Outcome] = []

    def work() -> None:
        start.wait()
        outcomes.extend(store.commit([Create(person(1), unless=criteria(1))], ada))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcome.changed for outcome in outcomes) == [False] * 7 + [True]
    assert len({outcome.version for outcome in outcomes}) == 1
    assert len(matches(store, criteria(1))) == 1


def test_conditional_creates_of_one_group_make_one(store, ada):
    """11.9: they are prepared side by side, and each is looked at again when it is its turn."""
    first, second, third = each(store, ada, *[Create(person(1), unless=criteria(1))] * 3)

    assert [first.changed, second.changed, third.changed] == [True, False, False]
    assert first.version == second.version == third.version
    assert list(store.verify()) == []


def test_criteria_see_what_the_same_group_wrote_before(store, ada):
    """8.6, 9.14, 10.11: also a second match, which refuses that unit alone."""
    results = each(
        store,
        ada,
        update(1),
        Update(criteria(1), person(1, language="de")),
        Create(person(1)),
        Delete(criteria(1)),
        Delete(A),
        Delete(criteria(1)),
    )

    assert str(results[1].version) == "Patient/a/_history/2"
    assert isinstance(results[3], MultipleMatches)
    assert str(results[5].version) == "Patient/id-2/_history/2"
    assert matches(store, criteria(1)) == []
    assert list(store.verify()) == []


def test_a_patch_is_applied_to_the_newest_content(store, ada):
    """9.2: an update that comes between is not undone."""
    store.commit([update(1)], ada)
    patch = Setting("language", "de")

    [outcome] = meanwhile(store, Unit([Patch(A, patch)], ada), update(2, active=True))

    assert str(outcome.version) == "Patient/a/_history/3"
    assert (body(store, "Patient/a")["active"], body(store, "Patient/a")["language"]) == (True, "de")
    assert [before["meta"]["versionId"] for before in patch.seen] == ["1", "2"]


def test_a_patch_is_prepared_once_where_nothing_came_between(store, ada):
    """What others do to other resources does not matter."""
    store.commit([update(1)], ada)
    patch = Setting("language", "de")

    meanwhile(store, Unit([Patch(A, patch)], ada), update(7, "b"))

    assert len(patch.seen) == 1


def test_patches_of_one_group_build_on_each_other(store, ada):
    """9.2: none is lost."""
    store.commit([update(1)], ada)

    results = each(
        store,
        ada,
        *[Patch(A, Setting(name, True)) for name in ("active", "deceasedBoolean", "multipleBirthBoolean")],
    )

    assert [result.version.version_id for result in results] == [2, 3, 4]
    assert {"active", "deceasedBoolean", "multipleBirthBoolean"} <= body(store, "Patient/a").keys()


def test_a_patch_finds_what_its_group_wrote_however_large(store, ada):
    """What is on its way to disk is in no pack yet, and too large to be kept in memory for readers."""
    store.commit([update(1)], ada)

    results = each(store, ada, update(1, language="x" * (6 * 1024**2)), Patch(A, Setting("active", True)))

    assert [result.version.version_id for result in results] == [2, 3]
    assert body(store, "Patient/a")["active"] is True
    assert len(body(store, "Patient/a")["language"]) == 6 * 1024**2


def test_a_patch_of_what_was_deleted_meanwhile_is_refused(store, ada):
    """9.3: it brings nothing back."""
    store.commit([update(1)], ada)

    with pytest.raises(Gone):
        meanwhile(store, Unit([Patch(A, Setting("active", True))], ada), Delete(A))
    with pytest.raises(NotFound):
        store.commit([Patch(ResourceId("Patient", "never"), Setting("active", True))], ada)


def test_if_match_of_a_patch_is_looked_at_again(store, ada):
    """7.7, 7.8: it held when the patch was prepared, and does not when it is written."""
    store.commit([update(1)], ada)
    patch = Patch(A, Setting("active", True), frozenset("1"))

    with pytest.raises(VersionMismatch):
        meanwhile(store, Unit([patch], ada), update(2))
    assert store.snapshot().read(A).version_id == 2


CHANGED_MEANWHILE = {
    "a create finds one": (Create(person(1), unless=criteria(1)), [update(1)], "Patient/a/_history/1"),
    "a create loses its match": (Create(person(9), unless=criteria(9)), [Delete(ResourceId("Patient", "z"))], "Patient/id-1/_history/1"),
    "an update finds one": (Update(criteria(1), person(1)), [update(1)], "Patient/a/_history/2"),
    "an update finds another": (Update(criteria(9), person(9)), [Delete(ResourceId("Patient", "z")), update(9)], "Patient/a/_history/2"),
    "a delete finds one": (Delete(criteria(1)), [update(1)], "Patient/a/_history/2"),
    "a delete loses its match": (Delete(criteria(9)), [update(8, "z")], "None"),
    "a patch finds another": (Patch(criteria(9), Setting("active", True)), [update(8, "z"), update(9)], "Patient/a/_history/2"),
    "what is not about it": (Create(person(1), unless=criteria(1)), [update(2)], "Patient/id-1/_history/1"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("interaction", "others", "expected"), CHANGED_MEANWHILE.values(), ids=CHANGED_MEANWHILE
)
def test_criteria_are_looked_at_again(store, ada, interaction, others, expected):
    """8.8, 9.14, 10.11, 11.9: what counts is the state that the unit is written on."""
    store.commit([update(9, "z")], ada)

    [outcome] = meanwhile(store, Unit([interaction], ada), *others)

    assert str(outcome.version) == expected
    assert list(store.verify()) == []


SECOND_MATCH = [
    Create(person(9), unless=criteria(9)),
    Update(criteria(9), person(9)),
    Patch(criteria(9), Setting("active", True)),
    Delete(criteria(9)),
]


@pytest.mark.parametrize("interaction", SECOND_MATCH, ids=lambda each: type(each).__name__)
def test_a_second_match_that_comes_between_refuses(store, ada, git, interaction):
    """8.6, 9.14, 10.11, 11.8: and nothing is written."""
    store.commit([update(9, "z")], ada)

    with pytest.raises(MultipleMatches):
        meanwhile(store, Unit([interaction], ada), update(9))
    assert store.snapshot().commit.sequence == 3
    assert git("rev-parse", "main") == store.snapshot().commit.id


def test_an_id_that_is_taken_meanwhile_is_not_taken_over(store, ada):
    """8.3: nothing is selected, and the id of the resource is in use."""
    with pytest.raises(Conflict):
        meanwhile(store, Unit([Update(criteria(1), person(1, "a"))], ada), update(2))
    assert store.snapshot().read(A).version_id == 1


def test_another_process_is_seen(record, store, clock, ada):
    """11.9: as between threads; what counts is the record."""
    with Store.open(record, QUICK, clock=clock) as other:
        pending = Pending(store._prepare(Unit([Create(person(1), unless=criteria(1))], ada)))
        other.commit([update(1)], ada)
        store._queue.submit([pending])
        store._queue.wait(pending)

    assert (str(pending.outcomes[0].version), pending.outcomes[0].changed) == ("Patient/a/_history/1", False)


# Deletes


def test_a_conditional_delete_of_several_is_one_commit(record, clock, ada, git):
    """10.11: conditional_delete = multiple; the outcome names them all."""
    settings = Settings(durability="off", validation="off", conditional_delete="multiple")
    with Store.open(record, settings, clock=clock) as store:
        store.commit_each([Unit([update(1, id)], ada) for id in "abc"] + [Unit([update(2, "d")], ada)])
        before = store.snapshot().commit.sequence

        [outcome] = store.commit([Delete(criteria(1))], ada)

        assert {str(each) for each in (outcome.version, *outcome.others)} == {
            f"Patient/{id}/_history/2" for id in "abc"
        }
        assert all(each.deleted for each in (outcome.version, *outcome.others))
        assert store.snapshot().commit.sequence == before + 1
        assert git("log", "-1", "--format=%s", "main") == "delete 3 Patient"
        assert store.snapshot().read(ResourceId("Patient", "d"))
        store.reindex()
        assert list(store.verify()) == []
        assert store.commit([Delete(criteria(1))], ada)[0] == Outcome()


# References


def test_conditional_references_go_to_what_is_there_or_is_made(store, ada):
    """14.12: of the record, of the same transaction, and not what the same transaction changes away."""
    store.commit_each([Unit([update(1, "a")], ada), Unit([update(2, "b")], ada)])
    observation = [{"reference": f"Patient?identifier=urn:mrn|{number}"} for number in (1, 2, 3, 4)]

    transact(
        store,
        ada,
        Create({"resourceType": "Group", "member": [{"entity": each} for each in observation]}),
        update(4, "b"),
        Create(person(2)),
        Create(person(3), full_url="urn:uuid:3"),
    )

    made = matches(store, criteria(2)) + matches(store, criteria(3))
    found = [each["entity"]["reference"] for each in body(store, "Group/id-1")["member"]]
    assert found == ["Patient/a", *made, "Patient/b"]


def test_a_conditional_reference_may_ask_for_a_reference_of_the_transaction(store, ada):
    """14.12: it is resolved once the others are."""
    transact(
        store,
        ada,
        Create(person(1), full_url="urn:uuid:p"),
        Create({"resourceType": "Observation", "subject": {"reference": "urn:uuid:p"}}),
        Create(
            {
                "resourceType": "DiagnosticReport",
                "result": [{"reference": "Observation?subject=Patient/id-1"}],
            }
        ),
    )

    assert body(store, "DiagnosticReport/id-3")["result"] == [{"reference": "Observation/id-2"}]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Patient?identifier=urn:mrn|7", Invalid),
        ("Patient?identifier=urn:mrn|1", MultipleMatches),
        ("Patient?identifier=urn:mrn|2", MultipleMatches),
        ("Patient?identifier=urn:mrn|3", Invalid),
        ("Patient?banana=1", Invalid),
        ("Patient?organization.name=x", Invalid),
    ],
)
def test_a_conditional_reference_selects_one_or_nothing_is_written(store, ada, git, text, error):
    """14.12: none, several of the record, one there and one made here, one that is deleted here."""
    store.commit_each(
        [Unit([update(number, id)], ada) for number, id in ((1, "a"), (1, "b"), (2, "c"), (3, "d"))]
    )
    before = store.snapshot().commit, git("rev-parse", "main")

    with pytest.raises(error) as refused:
        transact(
            store,
            ada,
            Create(person(2)),
            Delete(ResourceId("Patient", "d")),
            Create({"resourceType": "Observation", "subject": {"reference": text}}),
        )

    assert refused.value.entry == 2
    assert refused.value.issues[0].expression.startswith("Bundle.entry[2].resource")
    assert (store.snapshot().commit, git("rev-parse", "main")) == before


def test_a_conditional_reference_is_looked_at_again(store, ada):
    """14.12: the transaction is prepared anew where another write came between."""
    store.commit([update(1)], ada)
    observation = {"resourceType": "Observation", "subject": {"reference": "Patient?identifier=urn:mrn|1"}}
    unit = Unit([Create(observation)], ada, interaction="transaction")

    [outcome] = meanwhile(store, unit, Delete(A), update(1, "b"))

    assert body(store, str(outcome.version.resource_id))["subject"]["reference"] == "Patient/b"


def test_creates_under_the_same_criteria_make_one_in_a_transaction(store, ada):
    """11.9, 14.11: the fullUrl of either stands for it."""
    outcomes = transact(
        store,
        ada,
        Create(person(1), full_url="urn:uuid:1", unless=criteria(1)),
        Create(person(1), full_url="urn:uuid:2", unless=criteria(1)),
        Create({"resourceType": "Observation", "subject": {"reference": "urn:uuid:2"}}),
    )

    assert [outcome.changed for outcome in outcomes] == [True, False, True]
    assert outcomes[0].version == outcomes[1].version
    assert body(store, "Observation/id-2")["subject"]["reference"] == "Patient/id-1"


# Version-specific references: http://hl7.org/fhir/StructureDefinition/resolve-as-version-specific


def provenance(*references: str) -> Create:
    target = [{"reference": reference, "extension": [MARK]} for reference in references]
    return Create({"resourceType": "Provenance", "target": target})


def targets(store: Store, outcome: Outcome) -> list[Any]:
    assert outcome.version is not None
    return [target["reference"] for target in body(store, str(outcome.version.resource_id))["target"]]


def test_marked_references_name_the_versions_made(store, ada):
    """14.13: 1 of what is created, the next of what is updated, patched or brought back, else the current one."""
    store.commit_each([Unit([update(1, id)], ada) for id in "abcd"])
    store.commit([Delete(ResourceId("Patient", "d"))], ada)

    outcomes = transact(
        store,
        ada,
        provenance(*[f"Patient/{id}" for id in "abcdn"], "urn:uuid:x", "urn:uuid:y"),
        update(1, "a"),
        Patch(ResourceId("Patient", "b"), Setting("active", True)),
        update(1, "d"),
        update(5, "n"),
        Create(person(6), full_url="urn:uuid:x"),
        Create(person(6), full_url="urn:uuid:y", unless=Criteria.parse("Patient", "_id=c")),
    )

    made = outcomes[5].version
    expected = ["a/_history/2", "b/_history/2", "c/_history/1", "d/_history/3", "n/_history/1"]
    assert targets(store, outcomes[0]) == [f"Patient/{each}" for each in expected] + [
        str(made),
        "Patient/c/_history/1",
    ]
    for reference in targets(store, outcomes[0]):
        type, id, _, version = reference.split("/")
        assert store.snapshot().vread(ResourceId(type, id), int(version))
    assert "extension" not in str(body(store, "Provenance/id-1"))


def test_marked_references_heed_what_comes_between(store, ada):
    """14.13: the versions are those of the state that the transaction is written on."""
    store.commit_each([Unit([update(1, id)], ada) for id in "ab"])
    unit = Unit([provenance("Patient/a", "Patient/b"), update(1, "a")], ada, interaction="transaction")

    outcomes = meanwhile(store, unit, update(2, "a"), update(2, "b"))

    assert targets(store, outcomes[0]) == ["Patient/a/_history/3", "Patient/b/_history/2"]
    assert str(outcomes[1].version) == "Patient/a/_history/3"


def test_a_version_that_is_named_is_made(record, clock, ada):
    """14.13: unchanged_update = skip leaves out no update whose version a reference names."""
    settings = Settings(durability="off", validation="off", unchanged_update="skip")
    with Store.open(record, settings, clock=clock) as store:
        store.commit_each([Unit([update(1, id)], ada) for id in "ab"])

        outcomes = transact(store, ada, provenance("Patient/a"), update(1, "a"), update(1, "b"))

        assert [outcome.changed for outcome in outcomes] == [True, True, False]
        assert targets(store, outcomes[0]) == ["Patient/a/_history/2"]


def test_outside_of_a_transaction_a_mark_stays(store, ada):
    """It is for transactions: a single create is stored as it was sent."""
    store.commit([update(1), provenance("Patient/a")], ada)

    assert body(store, "Provenance/id-1")["target"] == [{"reference": "Patient/a", "extension": [MARK]}]
