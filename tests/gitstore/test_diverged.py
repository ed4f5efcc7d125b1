"""Commits that a fenced node had not pushed are held against main and done again there. docs/diverged.md"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gitstore import (
    Attest,
    Create,
    Delete,
    Idempotency,
    Outcome,
    Restore,
    Settings,
    StorageFailed,
    StoreError,
    Unit,
    apply_diverged,
    diverged,
    path_of,
)
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.interactions import Update
from tests.gitstore.forks import (
    ADA,
    GRACE,
    NAME,
    A,
    B,
    Beside,
    C,
    content,
    head,
    reasons,
    sound,
    states,
    update,
)

# Doing it again


def test_what_was_not_pushed_is_done_again_as_it_was(nodes):
    """Same author, request id, agent, words, interaction and bytes; the next version, and which commit it comes from."""
    resource = json.loads(
        b'{"meta": {"tag": [{"code": "x"}], "versionId": "9"}, "id": "a", "multipleBirthInteger": 1.00e1,'
        b' "resourceType": "Patient"}'
    )
    nodes.old.commit([Update(A, resource)], GRACE, request_id="r-1", message="Twins.", agent="https://id x")
    ref = nodes.keep()
    nodes.store.commit([update(B, gender="other")], ADA)

    [one] = apply_diverged(nodes.store)

    assert (one.ref, one.state, one.is_new) == (ref, "applied", True)
    assert one.by == nodes.store.snapshot().commit
    assert content(nodes.store, A) == content(nodes.old, A)
    assert b"1.00e1" in nodes.store.body(nodes.store.snapshot().read(A))
    assert head(nodes) == (
        "Grace Hopper <grace@clinic.example>\nupdate Patient/a\n\nTwins.\n\n"
        f"Applied from {one.id}, made 2026-01-01T12:01:01.000000Z and never replicated.\n\n"
        "FHIR-Interaction: update\nFHIR-Version: PUT Patient/a/_history/2\n"
        "FHIR-Last-Updated: 2026-01-01T13:00:02.000000Z\nFHIR-Request-Id: r-1\nFHIR-Agent: https://id x\n"
        f"FHIR-Idempotency-Key: {one.by.idempotency}\n"
    )
    assert one.by.idempotency.key == f"diverged:{one.id}"
    sound(nodes.store)


def test_a_transaction_stays_one_commit(nodes):
    """With its versions in their order, resources that the node made under its own ids, and deletions."""
    nodes.old.commit_each(
        [
            Unit(
                [
                    Create({"resourceType": "Observation", "subject": {"reference": "urn:uuid:1"}}),
                    Create({"resourceType": "Patient"}, full_url="urn:uuid:1"),
                    update(A, gender="male"),
                    Delete(B),
                ],
                ADA,
                interaction="transaction",
            )
        ]
    )
    nodes.keep()

    [one] = apply_diverged(nodes.store)

    assert one.state == "applied"
    made = nodes.store.snapshot().changes(one.by)
    assert (
        [f"{version.verb} {version}" for version in made]
        == [str(change) for change in one.changes]
        == [
            "POST Observation/old-1/_history/1",
            "POST Patient/old-2/_history/1",
            "PUT Patient/a/_history/2",
            "DELETE Patient/b/_history/2",
        ]
    )
    assert one.by.interaction == "transaction"
    for version in made:
        assert content(nodes.store, version.resource_id) == content(nodes.old, version.resource_id)
    sound(nodes.store)


def test_commits_that_build_on_one_another_are_done_again_in_their_order(nodes):
    """A create, an update, a deletion and a revival make the versions that they made."""
    for interaction in (
        update(C, gender="male"),
        update(C, gender="other"),
        Delete(C),
        update(C, active=True),
    ):
        nodes.old.commit([interaction], ADA)
    nodes.keep()

    assert states(apply_diverged(nodes.store)) == ["applied"] * 4
    history = nodes.store.snapshot().history(C).versions
    assert [(version.verb, version.created) for version in history] == [
        ("PUT", True),
        ("DELETE", False),
        ("PUT", False),
        ("PUT", True),
    ]
    assert content(nodes.store, C) == content(nodes.old, C)
    sound(nodes.store)


def test_nothing_is_done_twice(nodes):
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.keep()
    [first] = apply_diverged(nodes.store)
    nodes.store.commit([update(A, gender="unknown")], GRACE)
    tip = nodes.store.snapshot().commit

    [again] = apply_diverged(nodes.store)

    assert (again.state, again.is_new, again.by) == ("applied", False, first.by)
    assert nodes.store.snapshot().commit == tip
    assert content(nodes.store, A) is not None
    assert b"unknown" in content(nodes.store, A)


def test_it_goes_on_where_it_was_interrupted(nodes):
    """The process dies, or storage fails, after some of the commits."""
    for gender in ("male", "other", "unknown"):
        nodes.old.commit([update(A, gender=gender)], ADA)
    nodes.keep()
    left = iter([None, StorageFailed("The disk is full of ants.")])

    def happens() -> None:
        if (error := next(left)) is not None:
            raise error

    with pytest.raises(StorageFailed):
        list(apply_diverged(Beside(nodes.store, happens)))
    assert nodes.store.snapshot().read(A).version_id == 2

    found = list(apply_diverged(nodes.store))
    assert [(one.state, one.is_new) for one in found] == [
        ("applied", False),
        ("applied", True),
        ("applied", True),
    ]
    assert nodes.store.snapshot().read(A).version_id == 4
    assert content(nodes.store, A) == content(nodes.old, A)


def test_what_the_store_does_not_do_is_raised(nodes):
    """A refusal of the unit is a conflict; that nothing can be written now isn't one."""
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.keep()

    class Full(Beside):
        def commit_each(self, units: Iterable[Unit]) -> list[list[Outcome] | StoreError]:
            return [StorageFailed("No room.")]

    with pytest.raises(StorageFailed):
        list(apply_diverged(Full(nodes.store, lambda: None)))


def test_what_was_accepted_is_not_validated_again(nodes):
    """The client has its answer. That the rules of the node that takes over are stricter changes nothing of that."""
    nodes.old.commit([update(A, gender="none of your business", unknown={"x": 1})], ADA)
    nodes.keep()
    nodes.reopen(Settings(durability="off"))
    with pytest.raises(StoreError):
        nodes.store.commit([update(A, gender="none of your business")], ADA)

    assert states(apply_diverged(nodes.store)) == ["applied"]
    assert content(nodes.store, A) == content(nodes.old, A)


def test_an_update_that_changed_nothing_is_a_version_here_as_well(nodes):
    """Also where fhir.unchangedUpdate is `skip`: later versions have the numbers that the clients know."""
    nodes.old.commit([update(A, gender="female")], ADA)
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.keep()
    nodes.reopen(Settings(durability="off", validation="off", unchanged_update="skip"))

    assert states(apply_diverged(nodes.store)) == ["applied", "applied"]
    assert nodes.store.snapshot().read(A).version_id == 3


def test_references_stay_as_they_were_stored(nodes):
    """In a transaction, too: what would be a conditional reference in a request was stored as it stands."""
    odd = {"reference": "Patient?identifier=urn:mrn|1"}
    nodes.old.commit(
        [Update(ResourceId("Observation", "o"), {"resourceType": "Observation", "id": "o", "subject": odd})],
        ADA,
        interaction="create",
    )
    nodes.keep()
    tip = nodes.git("rev-parse", "refs/git-fhir/diverged/" + NAME + nodes.git("rev-parse", "FETCH_HEAD")[:8])
    message = nodes.git("log", "-1", "--format=%B", tip).replace(
        "FHIR-Interaction: create", "FHIR-Interaction: transaction"
    )
    stamp = "2026-01-01T12:01:01Z"
    made = nodes.git(
        "commit-tree",
        f"{tip}^{{tree}}",
        "-p",
        f"{tip}~1",
        input=message + "\n",
        GIT_AUTHOR_DATE=stamp,
        GIT_COMMITTER_DATE=stamp,
    )
    ref = nodes.refer(made)

    [one] = apply_diverged(nodes.store, [ref])
    assert (one.state, one.by.interaction) == ("applied", "transaction")
    assert content(nodes.store, ResourceId("Observation", "o")) == content(
        nodes.old, ResourceId("Observation", "o")
    )


def test_a_restore_is_done_again_as_an_update(nodes):
    """A restore commit names the version that it restores, which may have another content on main."""
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.old.commit([Restore(A, VersionId(1))], ADA)
    nodes.keep()

    found = list(apply_diverged(nodes.store))
    assert [one.interaction for one in found] == ["update", "restore"]
    assert found[1].by.interaction == "update"
    assert content(nodes.store, A) == content(nodes.old, A)
    sound(nodes.store)


def test_a_provenance_comes_along(nodes):
    """It names the versions that were made with it, which have the same numbers on main."""
    attest = Attest({"resourceType": "Provenance", "recorded": "2026-01-01T12:00:00Z", "agent": []})
    nodes.old.commit([update(A, gender="male"), attest], ADA)
    nodes.keep()

    [one] = apply_diverged(nodes.store)
    assert one.state == "applied"
    provenance = ResourceId("Provenance", "old-1")
    assert b"Patient/a/_history/2" in content(nodes.store, provenance)
    assert content(nodes.store, provenance) == content(nodes.old, provenance)


# Clients that have asked again


def test_a_request_that_the_client_sent_again_is_applied(nodes):
    """By its idempotency key: main has what it made, under another id."""
    key = Idempotency("order-1", "0" * 64)
    patient = {"resourceType": "Patient", "gender": "male"}
    nodes.old.commit([Create(patient)], ADA, idempotency=key)
    nodes.old.commit([update(ResourceId("Patient", "old-1"), gender="other")], ADA)
    nodes.keep()
    [again] = nodes.store.commit([Create(patient)], ADA, idempotency=key)

    first, second = apply_diverged(nodes.store)
    assert (first.state, first.by, first.is_new) == ("applied", again.version.commit, False)
    assert second.state == "conflicts"
    assert f"builds on what commit {first.id} made of it" in reasons(second)
    assert content(nodes.store, ResourceId("Patient", "old-1")) is None


def test_what_builds_on_a_request_that_came_to_something_else_on_main_is_a_conflict(nodes):
    """Such as a patch: the same request, of another version of the resource."""
    key = Idempotency("patch-1", "0" * 64)
    nodes.old.commit([update(A, gender="male")], ADA, idempotency=key)
    nodes.old.commit([update(A, gender="other")], ADA)
    nodes.keep()
    nodes.store.commit([update(A, gender="male", active=True)], ADA, idempotency=key)

    assert states(apply_diverged(nodes.store)) == ["applied", "conflicts"]
    assert b"active" in content(nodes.store, A)


def test_a_client_that_asks_again_later_gets_the_same_answer(nodes):
    """What was done again keeps the client's key."""
    key = Idempotency("order-1", "0" * 64)
    patient = {"resourceType": "Patient", "gender": "male"}
    [first] = nodes.old.commit([Create(patient)], ADA, idempotency=key)
    nodes.keep()
    assert states(apply_diverged(nodes.store)) == ["applied"]

    [again] = nodes.store.commit([Create(patient)], ADA, idempotency=key)
    assert again.version.resource_id == first.version.resource_id
    assert again.changed


def test_a_key_that_stands_for_something_else_by_now_is_in_nobodys_way(nodes):
    nodes.old.commit([update(A, gender="male")], ADA, idempotency=Idempotency("k", "0" * 64))
    nodes.keep()
    nodes.store.commit([update(B, gender="male")], ADA, idempotency=Idempotency("k", "1" * 64))

    [one] = apply_diverged(nodes.store)
    assert (one.state, one.by.idempotency.key) == ("applied", f"diverged:{one.id}")
    assert states(diverged(nodes.store)) == ["applied"]


def test_what_main_has_said_since_as_well_is_applied(nodes):
    """A client without a key has sent it again, or somebody has resolved a conflict by taking this side."""
    nodes.old.commit([update(A, gender="male"), Delete(B)], ADA)
    nodes.keep()
    nodes.store.commit([Delete(B)], GRACE)
    nodes.store.commit([update(A, gender="other")], GRACE)
    assert states(apply_diverged(nodes.store)) == ["conflicts"]
    [last] = nodes.store.commit([update(A, gender="male")], GRACE)
    nodes.store.commit([update(A, gender="unknown")], GRACE)

    [one] = apply_diverged(nodes.store)
    assert (one.state, one.by, one.is_new) == ("applied", last.version.commit, False)


def test_what_main_had_said_before_is_not_applied_by_that(nodes):
    """Neither at the base nor before what an earlier commit has come to."""
    nodes.old.commit([update(A, gender="other"), update(B, gender="other")], ADA)
    nodes.old.commit([update(A, gender="female")], ADA)
    nodes.keep()
    nodes.store.commit([update(B, gender="unknown")], GRACE)

    assert states(diverged(nodes.store)) == ["conflicts", "conflicts"]
    assert nodes.store.snapshot().read(A).version_id == 1


# Conflicts


def test_what_main_has_changed_since_is_a_conflict(nodes):
    """It tells the versions at the base, on main and of the node, and by whom; main stays as it is."""
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.keep()
    nodes.store.commit([update(A, gender="other")], GRACE)
    tip = nodes.store.snapshot().commit

    [one] = apply_diverged(nodes.store)

    assert (one.state, one.is_left) == ("conflicts", True)
    [obstacle] = one.obstacles
    assert (obstacle.base, str(obstacle.main), str(obstacle.change)) == (
        1,
        "Patient/a/_history/2",
        "PUT Patient/a/_history/2",
    )
    assert obstacle.text == (
        "main is at version 2, made by Grace Hopper on 2026-01-01T13:00:01.000000Z (update " + tip.id + ")"
    )
    assert nodes.store.snapshot().commit == tip
    assert nodes.git("show", f"{one.id}:{path_of(A)}").find('"male"') > 0


def test_a_commit_with_one_conflict_is_not_done_in_part(nodes):
    nodes.old.commit([update(A, gender="male"), update(C, gender="male")], ADA)
    nodes.keep()
    nodes.store.commit([Delete(A)], GRACE)

    [one] = apply_diverged(nodes.store)
    assert [obstacle.change.resource_id for obstacle in one.obstacles] == [A]
    assert "deleted by Grace Hopper" in reasons(one)
    assert content(nodes.store, C) is None


def test_what_builds_on_a_conflict_is_one(nodes):
    """And all else is done again, also where it came later."""
    nodes.old.commit([update(A, gender="male"), update(C, gender="male")], ADA)
    nodes.old.commit([update(B, gender="other")], ADA)
    nodes.old.commit([update(C, gender="other")], ADA)
    nodes.keep()
    nodes.store.commit([update(A, active=True)], GRACE)

    found = list(apply_diverged(nodes.store))
    assert states(found) == ["conflicts", "applied", "conflicts"]
    assert reasons(found[2]) == f"it builds on what commit {found[0].id} made of it, which main doesn't have"
    assert found[2].obstacles[0].main is None
    assert content(nodes.store, C) is None
    sound(nodes.store)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("Patient/a/_history/2", "it refers to Patient/a/_history/2, which main doesn't have"),
        ("Patient/c", "it refers to Patient/c, which main doesn't have"),
        ("Patient/a", None),
        ("Patient/a/_history/1", None),
        ("Patient/nobody", None),
        ("#contained", None),
    ],
)
def test_what_refers_to_a_conflict_is_one_where_the_reference_would_lead_elsewhere(nodes, reference, reason):
    """Version 2 of Patient/a is Grace's on main: nobody of whom the Observation tells anything."""
    nodes.old.commit([update(A, gender="male"), update(C, gender="male")], ADA)
    observation = ResourceId("Observation", "o")
    nodes.old.commit([update(observation, subject={"reference": reference})], ADA)
    nodes.keep()
    nodes.store.commit([update(A, active=True)], GRACE)

    _, second = apply_diverged(nodes.store)
    assert reasons(second) == (reason or "")
    assert second.state == ("conflicts" if reason else "applied")


def test_what_would_refer_to_another_version_of_its_own_is_a_conflict(nodes):
    """Version 3 became version 4, because the client's request came to main behind another one's."""
    attest = Attest({"resourceType": "Provenance", "recorded": "2026-01-01T12:00:00Z", "agent": []})
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.old.commit([update(A, gender="other"), attest], ADA)
    nodes.keep()
    nodes.store.commit([update(A, gender="unknown")], GRACE)
    nodes.store.commit([update(A, gender="male")], GRACE)

    found = list(apply_diverged(nodes.store))
    assert states(found) == ["applied", "conflicts"]
    assert reasons(found[1]) == "it refers to Patient/a/_history/3, which is version 4 on main"


@pytest.mark.parametrize("interaction", [update(A, gender="male"), Delete(A)])
def test_who_writes_meanwhile_is_not_overwritten(nodes, interaction):
    """What was fine a moment ago is a conflict where another write came first."""
    nodes.old.commit([interaction], ADA)
    nodes.keep()
    live = Beside(nodes.store, lambda: nodes.store.commit([update(A, gender="other")], GRACE))

    [one] = apply_diverged(live)
    assert one.state == "conflicts"
    assert "made by Grace Hopper" in reasons(one)
    assert b"other" in content(nodes.store, A)


@pytest.mark.parametrize("interaction", [update(C, gender="male"), Create({"resourceType": "Patient"})])
def test_who_creates_and_deletes_meanwhile_is_not_overwritten(nodes, interaction):
    """Although nothing is there that If-None-Match: * would see."""
    [outcome] = nodes.old.commit([interaction], ADA)
    target = outcome.version.resource_id
    nodes.keep()

    def happens() -> None:
        nodes.store.commit([update(target, gender="other")], GRACE)
        nodes.store.commit([Delete(target)], GRACE)

    [one] = apply_diverged(Beside(nodes.store, happens))
    assert one.state == "conflicts"
    assert content(nodes.store, target) is None


def test_a_deletion_of_what_is_referred_to_by_now_is_a_conflict(nodes):
    """Where references are enforced. Nothing that stands in the way of it is among the resources that it changes."""
    nodes.old.commit([Delete(A)], ADA)
    nodes.keep()
    nodes.reopen(Settings(durability="off", validation="off", referential_integrity="enforce"))
    nodes.store.commit([update(ResourceId("Observation", "o"), subject={"reference": "Patient/a"})], GRACE)

    [one] = apply_diverged(nodes.store)
    assert one.state == "conflicts"
    assert "`Observation/o` refer to it" in reasons(one)
