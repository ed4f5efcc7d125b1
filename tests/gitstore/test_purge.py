"""Taking something out of all history: what goes is gone from every file, and all else is what it was. docs/security.md, "Erasure" """

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from purges import (
    ADA,
    OTHER,
    PATIENT,
    PLAIN,
    gone,
    purge,
    put,
    target,
    told,
    traces,
    unreachable,
    update,
)

from gitstore import (
    Conflict,
    Create,
    Delete,
    Gone,
    Idempotency,
    NotFound,
    RepositoryRefused,
    Restore,
    Revert,
    Settings,
    Store,
    Unprocessable,
    Update,
    blame,
    changes,
    commit_at,
)
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git import outbox

# What a purge does


def test_a_past_version_is_gone_and_the_others_are_what_they_were(store: Store, record: str) -> None:
    """Its bytes are nowhere in the git directory; numbers, dates and authors of the others stay."""
    put(store, PATIENT, "First")
    put(store, OTHER, "Other")
    put(store, PATIENT, "Marker", words="Marker is her name.")
    put(store, PATIENT, "Third")
    before = told(store)

    done = purge(store, "Patient/a/_history/2")

    assert traces(record, "Marker") == []
    assert unreachable(record) == []
    assert told(store) == {name: facts for name, facts in before.items() if name != "Patient/a/_history/2"}
    assert [str(version) for version in done.versions] == ["Patient/a/_history/2"]
    assert list(store.verify()) == []
    assert gone(store, "Patient/a/_history/2").startswith(
        "`Patient/a/_history/2` was purged by Grace Hopper on "
    )


def test_a_whole_resource_is_gone_and_its_counter_goes_on(store: Store, record: str) -> None:
    """No version number is given twice. https://hl7.org/fhir/R4/http.html#versions"""
    put(store, PATIENT, "Marker")
    store.commit([Delete(PATIENT)], ADA)
    put(store, PATIENT, "Marker again")
    put(store, OTHER, "Other")

    purge(store, "Patient/a")

    assert traces(record, "Marker") == []
    assert "was purged by Grace Hopper" in gone(store, "Patient/a")
    with pytest.raises(Gone):
        store.snapshot().history(PATIENT)
    made = put(store, PATIENT, "New")
    assert (made.version_id, made.created) == (4, True)
    assert [version.version_id for version in store.snapshot().history(PATIENT).versions] == [4]
    assert list(store.verify()) == []


def test_the_record_says_what_was_purged_by_whom_and_why(
    store: Store, record: str, git: Callable[..., str]
) -> None:
    """docs/format.md, "Purging": one FHIR-Purged for each version, with the digest of its file."""
    first = put(store, PATIENT, "First")
    put(store, PATIENT, "Second")
    store.commit([Delete(PATIENT)], ADA)
    digest = hashlib.sha256(store.snapshot().body(first)).hexdigest()

    purge(store, "Patient/a", reason="Mixed up with her sister.")

    author, body = git("log", "-1", "--format=%an <%ae>%x00%B").split("\0")
    assert author == "Grace Hopper <grace@clinic.example>"
    assert body.startswith(
        "purge\n\nMixed up with her sister.\n\nCommits made anew: 3.\n\nFHIR-Interaction: purge\n"
    )
    lines = re.findall("FHIR-Purged: (.*)", body)
    assert lines[0] == f"Patient/a/_history/1 {digest}"
    assert re.fullmatch("Patient/a/_history/2 [0-9a-f]{64}", lines[1])
    assert lines[2] == "Patient/a/_history/3 -"


def test_nothing_is_left_of_it_that_waits_for_the_hub(store: Store, record: str) -> None:
    """The hub is unset before a purge, but not what was put aside for it. docs/scaling.md, "Erasure"."""
    put(store, PATIENT, "First")
    put(store, PATIENT, "Second")
    waiting = [Path(record, name) for name in outbox.FILES]
    for path in waiting:
        path.write_bytes(b"Marker")

    purge(store, "Patient/a/_history/1")

    assert not any(path.exists() for path in waiting)


def test_words_go_with_what_they_are_about(store: Store, git: Callable[..., str]) -> None:
    """A commit that made nothing else loses its words; one that made other versions, too, keeps them, and is named."""
    put(store, PATIENT, "First", words="All about Marker.")
    both = [update(PATIENT, "Second"), update(OTHER, "Other")]
    store.commit(both, ADA, interaction="transaction", message="Two at once.")

    selection = store.purgeable([target("Patient/a")])
    purge(store, "Patient/a")

    assert [commit.sequence for commit in selection.wordy] == [3]
    messages = git("log", "--format=%B")
    assert "All about Marker." not in messages
    assert "Two at once." in messages


def test_what_stays_and_says_the_same_is_named(store: Store) -> None:
    put(store, PATIENT, "Same")
    put(store, PATIENT, "Other")
    store.commit([Restore(PATIENT, VersionId(1))], ADA)

    selection = store.purgeable([target("Patient/a/_history/1")])

    assert [str(version) for version in selection.alike] == ["Patient/a/_history/3"]


def test_searches_find_nothing_of_it(store: Store, record: str) -> None:
    put(store, PATIENT, "Marker")
    put(store, OTHER, "Other")

    purge(store, "Patient/a")

    with store.reading() as snapshot:
        assert snapshot.search(["Patient"], [("name", "Marker")]).matches == []
        found = [str(match.version.resource_id) for match in snapshot.search(["Patient"], []).matches]
    assert found == ["Patient/b"]
    assert traces(record, "marker") == []  # as strings are folded in the index


# Over the gap


def test_what_looks_across_a_gap_works_or_says_what_is_missing(store: Store) -> None:
    """Blame goes on behind it; a restore, a revert and a difference are refused as Gone."""
    put(store, PATIENT, "First")
    second = put(store, PATIENT, "Second")
    put(store, PATIENT, "Third")
    purge(store, "Patient/a/_history/2")
    new = store.resolve(second.commit.id)

    blamed = {each.path: each.version.version_id for each in blame(store.snapshot(), PATIENT)}
    assert blamed == {"Patient.name[0].family": 3}
    with pytest.raises(Gone):
        store.commit([Restore(PATIENT, VersionId(2))], ADA)
    with pytest.raises(Gone):
        store.commit([Revert(new)], ADA)
    assert store.snapshot().changes(new) == []
    with pytest.raises(Gone):
        store.snapshot().at(new).read(PATIENT)
    [net] = changes(store.snapshot(), new).entries
    assert net.version.version_id == 3


def test_old_commit_ids_lead_to_the_new_commits(store: Store) -> None:
    """However often history is rewritten: `git fhir show`, `$changes?from=`."""
    first = put(store, PATIENT, "First").commit
    second = put(store, PATIENT, "Second").commit
    put(store, PATIENT, "Third")
    put(store, OTHER, "Other")
    purge(store, "Patient/a/_history/2")
    between = store.resolve(second.id)
    purge(store, "Patient/a")

    assert store.resolve(first.id).sequence == first.sequence
    assert store.resolve(second.id).sequence == second.sequence
    assert store.resolve(second.id[:12]).sequence == second.sequence
    assert store.resolve(between.id) == store.resolve(second.id)
    assert commit_at(store, second.id) == store.resolve(second.id)
    with pytest.raises(NotFound):
        store.resolve("0" * 40)


def test_a_request_that_made_it_is_not_done_again(store: Store) -> None:
    """A retry with its Idempotency-Key is Gone, and makes nothing."""
    key = Idempotency("key-1", "0" * 64)
    create = Create({"resourceType": "Patient", "name": [{"family": "Marker"}]})
    [outcome] = store.commit([create], ADA, idempotency=key)
    purge(store, str(outcome.version.resource_id))  # type: ignore[union-attr]  # it made one

    with pytest.raises(Gone):
        store.commit([create], ADA, idempotency=key)
    assert store.snapshot().counts() == {}


# What is refused


def test_the_newest_version_alone_is_not_purged(store: Store) -> None:
    put(store, PATIENT, "First")
    put(store, PATIENT, "Second")
    tip = store.snapshot().commit

    with pytest.raises(Unprocessable, match="newest version"):
        purge(store, "Patient/a/_history/2")
    with pytest.raises(NotFound):
        purge(store, "Patient/a/_history/9")
    with pytest.raises(NotFound):
        purge(store, "Patient/nobody")
    assert store.snapshot().commit == tip


def test_what_was_purged_is_not_purged_again(store: Store) -> None:
    put(store, PATIENT, "First")
    put(store, PATIENT, "Second")
    purge(store, "Patient/a/_history/1")

    with pytest.raises(Gone, match="before"):
        purge(store, "Patient/a/_history/1")
    assert [v.version_id for v in purge(store, "Patient/a").versions] == [2]
    with pytest.raises(Gone, match="before"):
        purge(store, "Patient/a")


@pytest.mark.parametrize(
    "path", ["objects/info/alternates", "worktrees/w", "refs/replace/x", "objects/pack/p.promisor"]
)
def test_a_repository_that_would_keep_it_is_refused(store: Store, record: str, path: str) -> None:
    """Borrowed objects, linked work trees, replaced objects, partial clones."""
    put(store, PATIENT, "First")
    place = Path(record, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("")

    with pytest.raises(RepositoryRefused):
        purge(store, "Patient/a")


def test_a_copy_at_another_path_is_not_overlooked(store: Store, record: str, git: Callable[..., str]) -> None:
    """A branch holds the same file under another name: the purge says so, and leaves all as it was."""
    version = put(store, PATIENT, "First")
    put(store, PATIENT, "Second")
    tree = git("mktree", input=f"100644 blob {version.blob}\tcopy.json\n")
    git("update-ref", "refs/heads/copy", git("commit-tree", "-m", "copy", tree))

    with pytest.raises(RepositoryRefused, match="also lies at another path"):
        purge(store, "Patient/a")
    assert not Path(record, "git-fhir", "purge").exists()
    assert list(store.verify()) == []


def test_integrity_of_references_is_kept(record: str, clock: Callable[[], int]) -> None:
    """With fhir.referentialIntegrity, what others refer to is purged only together with them."""
    with Store.open(
        record, Settings(durability="off", validation="off", referential_integrity="enforce"), clock=clock
    ) as store:
        put(store, PATIENT, "First")
        body = {"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/a"}}
        store.commit([Update(ResourceId("Observation", "o"), body)], ADA)

        with pytest.raises(Conflict, match="Observation/o"):
            purge(store, "Patient/a")
        purge(store, "Patient/a", "Observation/o")
        assert list(store.verify()) == []


# What verify says


def test_a_gap_that_nobody_recorded_is_reported(store: Store, record: str, git: Callable[..., str]) -> None:
    """Without the commit that says so, what is missing is a finding; and a commit that says so of what is there is foreign."""
    put(store, PATIENT, "First")
    put(store, PATIENT, "Second")
    purge(store, "Patient/a/_history/1")
    git("update-ref", "refs/heads/main", "main~1")
    store.reindex()

    assert [(finding.kind, finding.where) for finding in store.verify()] == [
        ("purge", "Patient/a/_history/1")
    ]


# Any history


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "put", "delete", "both"])),
    min_size=2,
    max_size=14,
)


def build(store: Store, operations: list[tuple[str, str]]) -> None:
    """Versions whose family names are marks of their own: `mark-a-1x`."""
    counts = dict.fromkeys("abcd", 0)
    for id, kind in operations:
        ids = [id] if kind != "both" else [id, "d"]
        interactions: list[Any] = []
        for each in ids:
            counts[each] += 1
            family = f"mark-{each}-{counts[each]}x"
            resource_id = ResourceId("Patient", each)
            interactions.append(Delete(resource_id) if kind == "delete" else update(resource_id, family))
        store.commit(interactions, ADA, interaction="transaction" if len(ids) > 1 else None)


def possible(store: Store) -> list[str]:
    """All that may be purged."""
    newest: dict[str, int] = {}
    for version in store.snapshot().history(count=100).versions:
        newest[str(version.resource_id)] = max(newest.get(str(version.resource_id), 0), version.version_id)
    past = [
        str(version)
        for version in store.snapshot().history(count=100).versions
        if version.version_id < newest[str(version.resource_id)]
    ]
    return [*newest, *past]


@settings(
    max_examples=int(os.environ.get("GIT_FHIR_EXAMPLES", "5")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(operations=OPERATIONS, data=st.data())
def test_whatever_is_purged_all_else_is_what_it_was(
    new_record: Callable[[], str], operations: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Twice: bytes, numbers, dates and authors stay, verify is clean, no mark is left, and an index made anew is the same."""
    record = new_record()
    ticks = iter(range(10**6))
    with Store.open(record, PLAIN, clock=lambda: 1_767_300_000_000_000 + next(ticks) * 1_000_000) as store:
        build(store, operations)
        for _ in range(2):
            references = data.draw(
                st.lists(st.sampled_from(possible(store) or [""]), min_size=1, max_size=3, unique=True)
            )
            if references == [""]:
                break
            before = told(store)
            selection = store.purgeable([target(reference) for reference in references])
            names = {str(version) for version in selection.versions}
            purge(store, *references)

            assert told(store) == {name: facts for name, facts in before.items() if name not in names}
            for name in names:
                [mark] = re.findall(rb"mark-[a-d]-\d+x", before[name][-1] or b"") or [b""]
                assert not mark or traces(record, mark.decode()) == [], name
            assert list(store.verify()) == []
            assert unreachable(record) == []
        put(store, PATIENT, "goes on")
        after = told(store)
        store.reindex()
        assert told(store) == after
        assert list(store.verify()) == []


def test_the_reason_cannot_pass_for_a_trailer(store: Store, git: Callable[..., str]) -> None:
    """It is words like those of any commit."""
    put(store, PATIENT, "First")

    purge(store, "Patient/a", reason="Why\n\nFHIR-Purged: Patient/b/_history/1 -\x07")

    assert list(store.verify()) == []
    assert "\x07" not in git("log", "-1", "--format=%B")
