"""Restore and Revert: what was there before is there again, as new versions. docs/audit.md"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore import (
    Attest,
    Author,
    Commit,
    Conflict,
    Create,
    Delete,
    Gone,
    Idempotency,
    Interaction,
    Invalid,
    Issue,
    NotFound,
    Restore,
    Revert,
    Settings,
    Store,
    StoreError,
    Unit,
    Unprocessable,
    Update,
    VersionMismatch,
    View,
)
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git.message import parse_message
from gitstore.queue import Pending

ADA = Author("Ada Lovelace", "ada@clinic.example")
P = ResourceId("Patient", "p")
Q = ResourceId("Patient", "q")
ALL = frozenset("cruds")


def patient(id: str = "p", **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, **elements}


def put(store: Store | View, target: ResourceId = P, **elements: Any) -> Commit:
    return done(store, Update(target, {"resourceType": target.type, "id": target.id, **elements}))


def done(store: Store | View, *interactions: Interaction) -> Commit:
    """Do them as one unit of work; its commit."""
    kind = "transaction" if len(interactions) > 1 else None
    outcomes = store.commit(interactions, ADA, interaction=kind)
    assert outcomes[0].version is not None
    return outcomes[0].version.commit


def content(store: Store, target: ResourceId, version: int | None = None) -> dict[str, Any] | None:
    """What a version says, without what the server says in it; None where it is not there."""
    snapshot = store.snapshot()
    try:
        found = snapshot.vread(target, VersionId(version)) if version else snapshot.read(target)
    except NotFound:
        return None
    resource: dict[str, Any] = json.loads(snapshot.body(found))
    del resource["meta"]["versionId"], resource["meta"]["lastUpdated"]
    return resource


def restore(store: Store | View, version: int | None = None, target: ResourceId = P, **more: Any) -> Any:
    number = VersionId(version) if version is not None else None
    [outcome] = store.commit([Restore(target, number, **more)], ADA)
    return outcome.version


def trailers(store: Store, git: Callable[..., str]) -> list[str]:
    """Those of the last commit that say what came of what."""
    lines = git("log", "-1", "--format=%B", "main").splitlines()
    return [line for line in lines if line.startswith(("FHIR-Interaction", "FHIR-Version", "FHIR-Restores"))]


# Restore


def test_a_restored_version_is_a_new_one(store: Store, git: Callable[..., str]) -> None:
    """With the content of the old one to the digit, its labels included, and a PUT in the history."""
    put(
        store,
        meta={"tag": [{"code": "a"}]},
        extension=[{"url": "urn:x", "valueDecimal": json.loads(b"1.00")}],
    )
    put(store, active=True)

    made = restore(store, 1)

    assert (made.version_id, made.verb, made.created) == (3, "PUT", False)
    assert content(store, P) == content(store, P, 1)
    assert b"1.00" in store.snapshot().body(made)
    assert content(store, P)["meta"] == {"tag": [{"code": "a"}]}
    assert trailers(store, git) == [
        "FHIR-Interaction: restore",
        "FHIR-Version: PUT Patient/p/_history/3",
        "FHIR-Restores: Patient/p/_history/1",
    ]
    assert git("log", "-1", "--format=%s", "main") == "restore Patient/p"
    assert list(store.verify()) == []


def test_what_was_deleted_comes_back(store: Store) -> None:
    """Without a version that is what it was before its deletion; the counter goes on."""
    put(store, gender="female")
    put(store, gender="other")
    done(store, Delete(P))

    made = restore(store)

    assert (made.version_id, made.created) == (4, True)
    assert content(store, P) == content(store, P, 2)
    done(store, Delete(P))
    assert restore(store, 1).version_id == 6
    assert list(store.verify()) == []


def test_what_can_not_be_restored(store: Store) -> None:
    put(store)
    done(store, Delete(P))
    put(store, active=True)

    for wanted, error in (
        (Restore(P), Invalid),
        (Restore(P, VersionId(2)), Unprocessable),
        (Restore(P, VersionId(3)), Conflict),
        (Restore(P, VersionId(4)), NotFound),
        (Restore(Q), NotFound),
        (Restore(P, VersionId(1), if_match=frozenset("1")), VersionMismatch),
        (Restore(ResourceId("Patient", "a b")), Invalid),
    ):
        with pytest.raises(error) as raised:
            store.commit([wanted], ADA)
        assert type(raised.value) is error
    assert restore(store, 1, if_match=frozenset("3")).version_id == 4


def test_a_restore_is_never_a_part_of_something_else(store: Store) -> None:
    put(store)
    put(store)
    for interaction in (Restore(P, VersionId(1)), Revert(store.snapshot().commit)):
        with pytest.raises(ValueError, match="alone"):
            store.commit([interaction, Delete(Q)], ADA, interaction="transaction")


def test_a_restore_that_changes_nothing_is_a_version(record: str, clock: Callable[[], int]) -> None:
    """Also where updates that change nothing are none: somebody wanted the record to say so."""
    rules = Settings(durability="off", validation="off", unchanged_update="skip")
    with Store.open(record, rules, clock=clock) as store:
        for gender in ("female", "other", "female"):
            put(store, gender=gender)
        assert restore(store, 1).version_id == 4
        assert list(store.verify()) == []


def test_the_rules_of_today_apply(record: str, clock: Callable[[], int]) -> None:
    """What was taken when nothing was validated is not put back now, and it is told which version that is."""
    with Store.open(record, Settings(durability="off", validation="off"), clock=clock) as loose:
        bad = put(loose, gender="rather not")
        put(loose, gender="female")
        done(loose, Delete(P))
        assert bad.sequence == 2
    with Store.open(record, Settings(durability="off"), clock=clock) as strict:
        with pytest.raises(Invalid, match=r"`Patient/p/_history/1` is not valid: "):
            restore(strict, 1)
        assert restore(strict).version_id == 4


def test_a_restore_looks_again_under_the_lock(store: Store) -> None:
    """What was the last version when it was asked for is another one when it is done."""
    put(store, gender="male")
    put(store, gender="female")
    done(store, Delete(P))
    late = [
        Pending(store.rehearse(Unit([Restore(P)], ADA))),
        Pending(store.rehearse(Unit([Restore(P, VersionId(1), frozenset("3"))], ADA))),
        Pending(store.rehearse(Unit([Restore(P, VersionId(1))], ADA))),
    ]
    put(store, gender="other")

    store._queue.submit(late)
    for each in late:
        store._queue.wait(each)

    assert [type(each.error) for each in late] == [Invalid, VersionMismatch, type(None)]
    assert content(store, P) == content(store, P, 1)


# Revert


def test_a_commit_is_undone_as_one(store: Store, git: Callable[..., str]) -> None:
    """What it changed is as before, what it created is gone, what it deleted is back; the message says which commit."""
    put(store, gender="female")
    put(store, Q, gender="male")
    wrong = done(store, Update(P, patient(gender="other")), Delete(Q), Create({"resourceType": "Basic"}))

    [outcome] = store.commit([Revert(wrong)], ADA, message="Wrong ward.")

    assert [str(each) for each in (outcome.version, *outcome.others)] == [
        "Patient/p/_history/3",
        "Patient/q/_history/3",
        "Basic/id-1/_history/2",
    ]
    assert content(store, P) == content(store, P, 1)
    assert content(store, Q) == content(store, Q, 1)
    assert content(store, ResourceId("Basic", "id-1")) is None
    assert trailers(store, git) == [
        "FHIR-Interaction: restore",
        "FHIR-Version: PUT Patient/p/_history/3",
        "FHIR-Version: PUT Patient/q/_history/3",
        "FHIR-Version: DELETE Basic/id-1/_history/2",
        "FHIR-Restores: Patient/p/_history/1",
        "FHIR-Restores: Patient/q/_history/1",
    ]
    assert git("log", "-1", "--format=%s", "main") == "restore 2 Patient, 1 Basic"
    assert store.message(outcome.version.commit) == f"Wrong ward.\n\nThis reverts commit {wrong.id}."
    assert list(store.verify()) == []


def test_a_revert_is_itself_undone(store: Store) -> None:
    put(store, gender="female")
    wrong = put(store, gender="other")
    right = done(store, Revert(wrong))
    done(store, Revert(right))

    assert content(store, P) == content(store, P, 2)
    assert store.snapshot().read(P).version_id == 4


def test_a_revival_that_is_undone_is_a_deletion_again(store: Store) -> None:
    put(store)
    done(store, Delete(P))
    done(store, Revert(put(store)))

    with pytest.raises(Gone):
        store.snapshot().read(P)
    assert list(store.verify()) == []


def test_all_that_is_in_the_way_is_told(store: Store) -> None:
    """One issue for each resource, with who made the later version and when; nothing is written."""
    both = done(store, Update(P, patient()), Update(Q, patient("q")), Create({"resourceType": "Basic"}))
    late = put(store, active=True)
    gone = done(store, Delete(Q))

    with pytest.raises(Conflict) as raised:
        store.commit([Revert(both)], ADA)

    assert raised.value.issues == [
        Issue(
            "error",
            "conflict",
            f"`Patient/p` is at version 2, made by Ada Lovelace on 2026-01-01T12:00:02.000000Z (update {late.id}).",
        ),
        Issue(
            "error",
            "conflict",
            f"`Patient/q` is at version 2, deleted by Ada Lovelace on 2026-01-01T12:00:03.000000Z (delete {gone.id}).",
        ),
    ]
    assert store.snapshot().commit == gone


def test_a_later_version_is_found_under_the_lock(store: Store) -> None:
    """All conflicts are told then, too."""
    both = done(store, Update(P, patient()), Update(Q, patient("q")))
    late = Pending(store.rehearse(Unit([Revert(both)], ADA)))
    put(store, active=True)
    put(store, Q, active=True)

    store._queue.submit([late])
    store._queue.wait(late)

    assert isinstance(late.error, Conflict)
    assert len(late.error.issues) == 2


def test_of_many_who_undo_the_same_one_does(store: Store) -> None:
    """The others find his versions in their way."""
    both = done(store, Update(P, patient()), Update(Q, patient("q")))
    found: list[str] = []
    threads = [Thread(target=lambda: found.extend(in_the_way(store, both) or ["done"])) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == ["Patient/p"] * 3 + ["Patient/q"] * 3 + ["done"]
    assert store.snapshot().history().total == 4


def test_commits_that_change_no_resource_can_not_be_undone(store: Store) -> None:
    """The first one makes the record itself."""
    first = store.snapshot(1).commit

    with pytest.raises(Unprocessable, match=r"\(init\) changed no resource"):
        store.commit([Revert(first)], ADA)


def test_references_must_lead_somewhere_after_a_revert(record: str, clock: Callable[[], int]) -> None:
    rules = Settings(durability="off", validation="off", referential_integrity="enforce")
    with Store.open(record, rules, clock=clock) as store:
        made = put(store)
        put(store, Q, link=[{"other": {"reference": "Patient/p"}, "type": "seealso"}])
        with pytest.raises(Conflict, match="`Patient/q` refer to it"):
            store.commit([Revert(made)], ADA)
        put(store, Q)
        done(store, Revert(made))
        with pytest.raises(Unprocessable, match="refers to what isn't there: `Patient/p`"):
            restore(store, 1, Q)


def test_a_revert_is_done_once(store: Store) -> None:
    """A retry with its key is answered as the first time, though its own versions stand in its way by now."""
    both = done(store, Update(P, patient()), Update(Q, patient("q")))
    key = Idempotency("again", "ab" * 32)
    provenance = Attest({"resourceType": "Provenance", "agent": [{"who": {"display": "Ada"}}]})

    answers = [store.commit([Revert(both), provenance], ADA, idempotency=key)[0] for _ in range(2)]

    assert answers[0] == answers[1]
    assert [str(each) for each in (answers[0].version, *answers[0].others)] == [
        "Patient/p/_history/2",
        "Patient/q/_history/2",
    ]
    assert store.snapshot().counts() == {"Provenance": 1}


# What verify says


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("FHIR-Restores: Patient/p/_history/1", "FHIR-Restores: Patient/p/_history/2", "another content"),
        ("FHIR-Restores: Patient/p/_history/1", "FHIR-Restores: Patient/p/_history/3", "was a deletion"),
        ("FHIR-Restores: Patient/p/_history/1", "FHIR-Restores: Patient/p/_history/4", "no such version"),
        ("FHIR-Restores: Patient/p/_history/1", "FHIR-Restores: Patient/q/_history/1", "in that order"),
        ("\nFHIR-Restores: Patient/p/_history/1", "", "in that order"),
        ("FHIR-Interaction: restore", "FHIR-Interaction: update", "nowhere else"),
    ],
)
def test_verify_looks_at_what_was_restored(
    store: Store, git: Callable[..., str], old: str, new: str, text: str
) -> None:
    put(store, gender="female")
    put(store, gender="male")
    done(store, Delete(P))
    restore(store, 1)
    message = git("log", "-1", "--format=%B", "main")
    assert old in message
    who = {"GIT_AUTHOR_NAME": ADA.name, "GIT_AUTHOR_EMAIL": ADA.email}
    when = {"GIT_AUTHOR_DATE": git("log", "-1", "--format=%at +0000", "main")}
    changed = message.replace(old, new).rstrip("\n") + "\n"
    commit = git("commit-tree", "main^{tree}", "-p", "main^", input=changed, **who, **when)
    git("update-ref", "refs/heads/main", commit)
    store.reindex()

    found = [finding for finding in store.verify() if finding.kind == "restore"]

    assert len(found) == 1 or new.endswith("q/_history/1")
    assert any(text in finding.text for finding in found)


def test_a_trailer_that_names_no_version_is_no_trailer_of_ours(store: Store, git: Callable[..., str]) -> None:
    put(store)
    put(store)
    restore(store, 1)
    message = git("log", "-1", "--format=%B", "main")

    assert parse_message(message).restores == ((P, VersionId(1)),)
    for wrong in ("Patient/p", "Patient/p/_history/0", "Patent/p/_history/1", "PUT Patient/p/_history/1"):
        with pytest.raises(Invalid, match="FHIR-Restores"):
            parse_message(message.replace("Patient/p/_history/1", wrong))


# Whatever happened before

IDS = [ResourceId("Patient", id) for id in "abc"]
WRITES = st.lists(
    st.tuples(st.sampled_from(IDS), st.sampled_from(["", "male", "female", "other"])),
    min_size=1,
    max_size=3,
    unique_by=lambda write: write[0],
)


@dataclass
class Told:
    """What must be there: the versions of each resource, None for a deletion, and which commit made them."""

    versions: dict[ResourceId, list[str | None]] = field(default_factory=lambda: {each: [] for each in IDS})
    changed: dict[int, list[tuple[ResourceId, int]]] = field(default_factory=dict)

    def now(self, target: ResourceId) -> str | None:
        return (self.versions[target] or [None])[-1]

    def add(self, sequence: int, changes: dict[ResourceId, str | None]) -> None:
        made = []
        for target, value in changes.items():
            if value is not None or self.now(target) is not None:
                self.versions[target].append(value)
                made.append((target, len(self.versions[target])))
        if made:
            self.changed[sequence] = made

    def check(self, store: Store) -> None:
        for target, values in self.versions.items():
            shown = [content(store, target, number + 1) for number in range(len(values))]
            assert [each and each["gender"] for each in shown] == values
            newest = store.snapshot().newest(target)
            assert (newest.version_id if newest else 0) == len(values)


def tell(store: Store, units: list[list[tuple[ResourceId, str]]]) -> Told:
    told = Told()
    for unit in units:
        interactions: list[Interaction] = [
            Update(target, patient(target.id, gender=value)) if value else Delete(target)
            for target, value in unit
        ]
        outcomes = store.commit(interactions, ADA, interaction="transaction")
        if any(outcome.changed for outcome in outcomes):
            told.add(store.snapshot().commit.sequence, {target: value or None for target, value in unit})
    return told


def in_the_way(store: Store, commit: Commit) -> list[str]:
    """Revert a commit; the resources whose later versions keep it from that."""
    try:
        store.commit([Revert(commit)], ADA)
    except Conflict as error:
        return [issue.text.split("`")[1] for issue in error.issues]
    return []


@settings(max_examples=15, deadline=None)
@given(st.lists(WRITES, min_size=1, max_size=7), st.data())
def test_reverting_any_commit_leaves_no_difference_in_what_it_touched(
    new_record: Callable[[], str], units: list[list[tuple[ResourceId, str]]], data: st.DataObject
) -> None:
    """Or tells exactly what is in the way. Several times over, so that reverts are reverted as well."""
    with Store.open(new_record(), Settings(durability="off", validation="off")) as store:
        told = tell(store, units)
        for _ in range(data.draw(st.integers(1, 3))):
            if not told.changed:
                return
            sequence = data.draw(st.sampled_from(sorted(told.changed)))
            late = [
                target for target, number in told.changed[sequence] if len(told.versions[target]) > number
            ]
            commit = store.snapshot(sequence).commit
            assert in_the_way(store, commit) == [str(each) for each in late]
            if not late:
                before = {
                    target: told.versions[target][number - 2] if number > 1 else None
                    for target, number in told.changed[sequence]
                }
                told.add(store.snapshot().commit.sequence, before)
        told.check(store)
        assert list(store.verify()) == []


@settings(max_examples=15, deadline=None)
@given(st.lists(WRITES, min_size=1, max_size=7), st.sampled_from(IDS), st.integers(1, 8))
def test_any_version_that_was_there_can_be_restored(
    new_record: Callable[[], str], units: list[list[tuple[ResourceId, str]]], target: ResourceId, number: int
) -> None:
    """And no other; nothing else changes."""
    with Store.open(new_record(), Settings(durability="off", validation="off")) as store:
        told = tell(store, units)
        values = told.versions[target]
        there = number < len(values) and values[number - 1] is not None
        try:
            restore(store, number, target)
        except StoreError:
            assert not there
        else:
            assert there
            told.add(store.snapshot().commit.sequence, {target: values[number - 1]})
        told.check(store)
        assert list(store.verify()) == []
