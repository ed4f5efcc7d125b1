"""Diverged commits that are none of ours, can't be read, or stand under several refs. docs/diverged.md"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from gitstore import (
    Delete,
    NotFound,
    Outcome,
    Purgeable,
    RepositoryDamaged,
    StoreError,
    Unit,
    apply_diverged,
    diverged,
    path_of,
)
from gitstore.fhir.ids import VersionId
from tests.gitstore.forks import (
    ADA,
    GRACE,
    NAME,
    A,
    B,
    Beside,
    C,
    content,
    hand_made,
    hand_made_update,
    reasons,
    sound,
    states,
    update,
)

# What is none of ours


def test_a_foreign_commit_is_reported_and_what_builds_on_it_is_not_done_again(nodes):
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.git("fetch", "--quiet", nodes.old.git_dir, "main")
    foreign = hand_made(nodes, "FETCH_HEAD", path_of(B), '{"resourceType": "Patient", "id": "b"}')
    tip = foreign
    for second, (id, number) in enumerate([(A, 3), (B, 2)]):
        instant = f"2026-01-01T12:05:0{second}.000000Z"
        body = nodes.git("show", f"{tip}:{path_of(A)}").replace('"a"', f'"{id.id}"').replace("male", "other")
        body = re.sub('"versionId": "[^"]*"', f'"versionId": "{number}"', body)
        body = re.sub('"lastUpdated": "[^"]*"', f'"lastUpdated": "{instant}"', body)
        trailers = f"FHIR-Interaction: update\nFHIR-Version: PUT {id}/_history/{number}\nFHIR-Last-Updated: {instant}\n"
        tip = hand_made(nodes, tip, path_of(id), body + "\n", f"update {id}\n\n{trailers}")
    nodes.refer(tip)

    found = list(apply_diverged(nodes.store))
    assert states(found) == ["applied", "foreign", "applied", "conflicts"]
    assert reasons(found[1]) == "its message doesn't end in FHIR trailers"
    assert f"builds on what commit {foreign}" in reasons(found[3])
    assert nodes.store.snapshot().read(B).version_id == 1
    sound(nodes.store)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"gender": "male"', '"gender":  "male"', "stored form"),
        ('"id": "a"', '"id": "b"', "stored form"),
        ('"versionId": "2"', '"versionId": "3"', "stored form"),
        ('"gender": "male"', '"gender": "male", "gender": "male"', "can't be taken over"),
        ("{", "[", "can't be taken over"),
    ],
)
def test_a_file_that_is_not_what_its_commit_says_is_reported(nodes, old, new, reason):
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.git("fetch", "--quiet", nodes.old.git_dir, "main")
    body = nodes.git("show", f"FETCH_HEAD:{path_of(A)}") + "\n"
    assert old in body
    message = nodes.git("log", "-1", "--format=%B", "FETCH_HEAD")
    nodes.refer(hand_made(nodes, "main", path_of(A), body.replace(old, new, 1), message))

    [one] = apply_diverged(nodes.store)
    assert one.state == "foreign"
    assert reason in reasons(one)
    assert nodes.store.snapshot().read(A).version_id == 1


def test_a_commit_that_skips_a_version_is_none_of_ours(nodes):
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.old.commit([update(A, gender="other")], ADA)
    nodes.git("fetch", "--quiet", nodes.old.git_dir, "main")
    message = nodes.git("log", "-1", "--format=%B", "FETCH_HEAD")
    nodes.refer(nodes.git("commit-tree", "FETCH_HEAD^{tree}", "-p", "main", input=message))

    [one] = diverged(nodes.store)
    assert (one.state, reasons(one)) == ("foreign", "it makes Patient/a/_history/3 after version 1")


def test_another_history_is_reported(nodes):
    nodes.refer(nodes.git("commit-tree", "main^{tree}", input="Something else"))

    [one] = apply_diverged(nodes.store)
    assert (one.state, one.base, reasons(one)) == ("foreign", None, "it is no commit that builds on main")


def test_a_ref_that_leads_nowhere_is_reported(nodes):
    """A blob, and a commit whose content is lost; what stands under other refs is done all the same."""
    nodes.refer(nodes.git("hash-object", "-w", "--stdin", input="no commit"), "20260101T120000Z-")
    lost = nodes.git("commit-tree", "main^{tree}", "-p", "main", input="update")
    nodes.refer(lost, "20260101T120001Z-")
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.keep()
    (nodes.record / "objects" / lost[:2] / lost[2:]).unlink()

    assert states(apply_diverged(nodes.store)) == ["foreign", "foreign", "applied"]


@pytest.mark.parametrize("lost", ["blob", "tree"])
def test_a_file_that_is_lost_is_reported(nodes, lost):
    """Where a tree is lost, git may give up before it has told what the commits before that have changed."""
    nodes.old.commit([update(B, gender="other")], ADA)
    nodes.old.commit([update(A, gender="other")], ADA)
    nodes.keep()
    id = nodes.git("rev-parse", "FETCH_HEAD:" + (path_of(A) if lost == "blob" else "Patient"))
    (nodes.record / "objects" / id[:2] / id[2:]).unlink()

    found = list(apply_diverged(nodes.store))
    assert len(found) == 2
    assert found[0].state == "applied" or lost == "tree"
    assert found[1].state == "foreign"
    assert "missing" in reasons(found[1])


def test_that_main_is_damaged_is_no_fault_of_what_diverged(nodes):
    """It is an error, as everywhere."""
    nodes.old.commit([update(A, gender="other")], ADA)
    nodes.keep()

    class Damaged(Beside):
        def commit_each(self, units: Iterable[Unit]) -> list[list[Outcome] | StoreError]:
            return [RepositoryDamaged("A tree of main is missing.")]

    with pytest.raises(RepositoryDamaged, match="of main"):
        list(apply_diverged(Damaged(nodes.store, lambda: None)))


def test_a_purge_is_to_be_done_again_by_hand(nodes):
    """It made all commits from there on anew, so none of them can be told from others; none is done again."""
    nodes.old.commit([update(C, gender="male")], ADA)
    nodes.old.commit([Delete(C)], ADA)
    nodes.old.purge([Purgeable(C, None)], ADA, "Mixed up.")
    nodes.keep()

    found = list(apply_diverged(nodes.store))
    assert [one.interaction for one in found] == ["update", "delete", "purge"]
    assert states(found) == ["conflicts"] * 3
    assert "has to be purged there" in reasons(found[-1])
    assert nodes.store.snapshot().newest(C) is None


def test_what_was_purged_of_a_diverged_commit_is_not_there_to_be_done_again(nodes):
    """It left no file, as a deletion does, and is none: also where main has deleted the resource by now."""
    nodes.old.commit([update(A, gender="male")], ADA)
    nodes.old.commit([update(A, gender="other")], ADA)
    nodes.old.purge([Purgeable(A, VersionId(2))], ADA, "Mixed up.")
    nodes.keep()
    nodes.store.commit([Delete(A)], GRACE)

    first, second, purge = apply_diverged(nodes.store)
    assert (first.state, reasons(first)) == ("conflicts", "its content was purged")
    assert (second.state, purge.state) == ("conflicts", "conflicts")


def test_a_purge_of_main_is_no_new_base(nodes):
    """Main was made anew from its beginning on; what the base was then stands for what it is now."""
    nodes.old.commit([update(B, gender="other")], ADA)
    nodes.keep()
    ref = nodes.git("for-each-ref", "--format=%(objectname)", "refs/git-fhir/diverged")
    nodes.git("update-ref", "-d", f"refs/git-fhir/diverged/{NAME}{ref[:8]}")
    nodes.store.commit([Delete(A)], GRACE)
    nodes.store.purge([Purgeable(A, None)], GRACE, "Mixed up.")
    nodes.keep()

    [one] = apply_diverged(nodes.store)
    assert one.state == "applied"
    assert content(nodes.store, B) == content(nodes.old, B)


# Several refs


def test_commits_that_two_refs_have_are_looked_at_once(nodes):
    nodes.old.commit([update(A, gender="male")], ADA)
    first = nodes.keep(name="20260101T120000Z-")
    nodes.old.commit([update(A, gender="other")], ADA)
    second = nodes.keep()

    assert [(one.ref, one.state) for one in diverged(nodes.store)] == [
        (first, "applies"),
        (second, "applies"),
    ]
    assert states(apply_diverged(nodes.store)) == ["applied", "applied"]
    assert nodes.store.snapshot().read(A).version_id == 3


def test_of_two_nodes_that_changed_the_same_the_first_is_done_again(nodes):
    """And that is foretold."""
    nodes.old.commit([update(A, gender="male")], ADA)
    first = nodes.keep(name="20260101T120000Z-")
    other = hand_made_update(nodes)
    second = nodes.refer(other)

    assert states(diverged(nodes.store)) == ["applies", "conflicts"]
    assert states(diverged(nodes.store, [second])) == ["applies"]
    assert states(apply_diverged(nodes.store, [first])) == ["applied"]
    assert states(apply_diverged(nodes.store)) == ["applied", "conflicts"]


def test_a_ref_is_named_by_its_last_part_or_whole_and_must_be_there(nodes):
    nodes.old.commit([update(A, gender="male")], ADA)
    ref = nodes.keep()

    assert states(diverged(nodes.store, [ref])) == ["applies"]
    assert states(diverged(nodes.store, [ref.rpartition("/")[2]])) == ["applies"]
    with pytest.raises(NotFound, match="refs/git-fhir/diverged/nothing"):
        list(diverged(nodes.store, ["nothing"]))


def test_what_main_has_got_after_all_has_not_diverged(nodes):
    """A node was fenced, and it turned out that its push had got through."""
    nodes.refer(nodes.git("rev-parse", "main~1"))

    assert list(diverged(nodes.store)) == []
