"""A diverged commit that somebody has looked at is off the list on every node, and nothing of it is dropped. docs/diverged.md"""

from __future__ import annotations

import pytest

from gitstore import (
    Delete,
    Idempotency,
    Invalid,
    NotFound,
    Store,
    apply_diverged,
    diverged,
    settle_diverged,
)
from tests.conftest import copy_record
from tests.gitstore.forks import (
    ADA,
    GRACE,
    NAME,
    OFF,
    A,
    B,
    C,
    Nodes,
    content,
    hand_made,
    head,
    sound,
    states,
    update,
)


def conflict(nodes: Nodes) -> str:
    """The id of a commit that changed a, which main has changed, too."""
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.keep()
    nodes.store.commit([update(A, gender="other")], GRACE)
    [one] = diverged(nodes.store)
    assert one.state == "conflicts"
    return one.id


def test_a_conflict_that_is_settled_is_left_no_more(nodes):
    """The settling is a commit of main without versions: who, when, why, and of which commit. The ref stays."""
    id = conflict(nodes)
    refs = nodes.git("for-each-ref", "refs/git-fhir/diverged")

    [settled] = settle_diverged(nodes.store, [id], ADA, "Grace asked the patient.")

    assert (settled.id, settled.state, settled.is_left) == (id, "settled", False)
    assert settled.by == nodes.store.snapshot().commit
    assert head(nodes) == (
        "Ada Lovelace <ada@clinic.example>\nsettle\n\nGrace asked the patient.\n\n"
        f"Settled: {id}, which is kept as it is.\n\n"
        "FHIR-Interaction: settle\nFHIR-Last-Updated: 2026-01-01T13:00:02.000000Z\n"
        f"FHIR-Idempotency-Key: {settled.by.idempotency}\n"
    )
    [again] = diverged(nodes.store)
    assert (again.state, again.by, again.obstacles) == ("settled", settled.by, ())
    assert nodes.git("for-each-ref", "refs/git-fhir/diverged") == refs
    assert nodes.git("rev-parse", "main^{tree}") == nodes.git("rev-parse", "main~1^{tree}")
    sound(nodes.store)


def test_other_nodes_see_it(nodes, tmp_path):
    """Any clone has the commit, and an index that is built from nothing knows it."""
    id = conflict(nodes)
    settle_diverged(nodes.store, [id], GRACE, "Seen.")
    nodes.git("push", "--quiet", "--mirror", str(copy_record(nodes.record, tmp_path / "other.git")))

    with Store.open(tmp_path / "other.git", OFF) as other:
        other.reindex()
        assert states(diverged(other)) == ["settled"]


def test_what_is_settled_is_not_applied(nodes):
    """Also where it would apply: somebody has decided that it is not to be. What builds on it conflicts, until it is settled as well."""
    nodes.old.commit([update(C, gender="male")], ADA)
    nodes.old.commit([update(C, gender="female")], ADA)
    nodes.keep()
    first, second = diverged(nodes.store)
    assert (first.state, second.state) == ("applies", "applies")

    settle_diverged(nodes.store, [first.id[:7]], GRACE, "Entered twice.")
    assert states(apply_diverged(nodes.store)) == ["settled", "conflicts"]
    settle_diverged(nodes.store, [second.id], GRACE, "The same.")
    assert states(apply_diverged(nodes.store)) == ["settled", "settled"]
    assert content(nodes.store, C) is None


def test_a_ref_stands_for_what_is_left_of_it(nodes):
    """Not for what applies: nobody gives that up by accident."""
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.old.commit([update(C, gender="male")], ADA)
    ref = nodes.keep()
    nodes.store.commit([Delete(A)], GRACE)

    settle_diverged(nodes.store, [ref.removeprefix("refs/git-fhir/diverged/")], GRACE, "Deleted.")

    assert states(diverged(nodes.store)) == ["settled", "applies"]
    with pytest.raises(NotFound, match="Nothing is left"):
        settle_diverged(nodes.store, [ref], GRACE, "Deleted.")


def test_what_git_fhir_did_not_make_is_settled_as_well(nodes):
    id = hand_made(nodes, "main", "notes.txt", "by hand")
    nodes.refer(id)
    assert states(diverged(nodes.store)) == ["foreign"]

    settle_diverged(nodes.store, [id], GRACE, "A mistake.")

    assert [(one.state, one.obstacles) for one in diverged(nodes.store)] == [("settled", ())]


def test_settling_twice_is_settling_once(nodes):
    """By the same person or another one."""
    id = conflict(nodes)
    [first] = settle_diverged(nodes.store, [id, id], GRACE, "Seen.")

    [second] = settle_diverged(nodes.store, [id], ADA, "I, too.")

    assert (second.state, second.by) == ("settled", first.by)
    assert nodes.store.snapshot().commit == first.by


def test_a_conflict_that_main_comes_to_say_is_applied_although_it_was_settled(nodes):
    id = conflict(nodes)
    settle_diverged(nodes.store, [id], GRACE, "Seen.")
    nodes.store.commit([update(A, gender="male")], ADA)

    assert states(diverged(nodes.store)) == ["applied"]
    with pytest.raises(NotFound, match="main has it"):
        settle_diverged(nodes.store, [id], GRACE, "Seen.")


def test_a_clients_key_settles_nothing(nodes):
    """What says so is the kind of commit, which no client chooses."""
    id = conflict(nodes)
    [settled] = settle_diverged(nodes.store, [id], GRACE, "Seen.")
    key = settled.by.idempotency
    nodes.git("update-ref", "refs/heads/main", "main~1")
    nodes.store.reindex()
    nodes.store.commit([update(B, gender="other")], ADA, idempotency=Idempotency(key.key, key.digest))

    assert states(diverged(nodes.store)) == ["conflicts"]


def test_what_names_nothing_or_too_much_settles_nothing(nodes):
    """Seven digits at least, as git shows them; several only where they all begin so."""
    id = conflict(nodes)
    tip = nodes.store.snapshot().commit
    for name in (id[:6], "f" * 40, "main", "", NAME):
        with pytest.raises(NotFound, match="no commit that has diverged"):
            settle_diverged(nodes.store, [id, name], GRACE, "Seen.")
    assert nodes.store.snapshot().commit == tip


def test_digits_of_several_commits_are_refused(nodes, monkeypatch):
    monkeypatch.setattr("gitstore.cluster.diverged._SHORTEST", 0)
    conflict(nodes)
    nodes.old.commit([update(B, gender="other")], ADA)
    nodes.keep()

    with pytest.raises(Invalid, match="may be any of"):
        settle_diverged(nodes.store, [""], GRACE, "Seen.")
