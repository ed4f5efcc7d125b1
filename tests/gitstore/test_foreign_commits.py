"""Commits that the store did not make: reads go on, writes say what is in the way. docs/architecture.md"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gitstore import ForeignCommit, Settings, Store, Unit, Update, path_of
from gitstore.fhir.ids import ResourceId

PATIENT = ResourceId("Patient", "p")
PATH = path_of(PATIENT)
Git = Callable[..., str]


def update(**elements: Any) -> Update:
    return Update(PATIENT, {"resourceType": "Patient", "id": "p"} | elements)


@pytest.fixture
def written(store: Store, ada: Any) -> Store:
    """Two versions of one patient: commits 2 and 3."""
    store.commit([update()], ada)
    store.commit([update(active=True)], ada)
    return store


@pytest.fixture
def clone(written: Store, record: str, git_in: Any, tmp_path: Any) -> Git:
    """git in a clone with a work tree, where people commit by hand."""
    git_in(tmp_path)("clone", "--quiet", record, "clone")
    run: Git = git_in(tmp_path / "clone")
    return run


def message(version: int, time: str, interaction: str = "update", verb: str = "PUT") -> str:
    """A commit message that looks like one of the store's."""
    return (
        f"{interaction} Patient/p\n\nFHIR-Interaction: {interaction}\n"
        f"FHIR-Version: {verb} Patient/p/_history/{version}\nFHIR-Last-Updated: 2026-01-01T12:00:{time}Z\n"
    )


def edit(git: Git, text: str = "x") -> None:
    git("rm", "--quiet", "--cached", PATH)
    git(
        "update-index",
        "--add",
        "--cacheinfo",
        f"100644,{git('hash-object', '-w', '--stdin', input=text)},{PATH}",
    )


def by_hand(git: Git) -> None:
    edit(git)
    git("commit", "--quiet", "-m", "Fix a typo")


def by_hand_deleted(git: Git) -> None:
    git("rm", "--quiet", "--cached", PATH)
    git("commit", "--quiet", "-m", "Remove a patient")


def merged(git: Git) -> None:
    git("checkout", "--quiet", "-b", "side", "main~1")
    git("commit", "--quiet", "--allow-empty", "-m", "side")
    git("checkout", "--quiet", "main")
    git("merge", "--quiet", "--no-ff", "-m", "Merge branch 'side'", "side")


def merged_with_our_trailers(git: Git) -> None:
    merged(git)
    edit(git)
    git("commit", "--quiet", "--amend", "-m", message(3, "09"))


def empty(git: Git) -> None:
    git("commit", "--quiet", "--allow-empty", "-m", "Nothing")


def forged_gap(git: Git) -> None:
    edit(git)
    git("commit", "--quiet", "-m", message(7, "09"))


def forged_repeat(git: Git) -> None:
    edit(git)
    git("commit", "--quiet", "-m", message(2, "09"))


def forged_past(git: Git) -> None:
    edit(git)
    git("commit", "--quiet", "-m", message(3, "02"))


def forged_deletion(git: Git) -> None:
    edit(git)
    git("commit", "--quiet", "-m", message(3, "09", "delete", "DELETE"))


def forged_without_change(git: Git) -> None:
    git("commit", "--quiet", "--allow-empty", "-m", message(3, "09"))


def forged_and_more(git: Git) -> None:
    edit(git)
    git("update-index", "--add", "--cacheinfo", f"100644,{git('rev-parse', 'HEAD:README.md')},more.txt")
    git("commit", "--quiet", "-m", message(3, "09"))


def forged_link(git: Git) -> None:
    git("update-index", "--cacheinfo", f"120000,{git('rev-parse', 'HEAD:README.md')},{PATH}")
    git("commit", "--quiet", "-m", message(3, "09"))


def forged_twice(git: Git) -> None:
    edit(git)
    text = message(3, "09").replace("FHIR-Last", "FHIR-Version: PUT Patient/p/_history/4\nFHIR-Last")
    git("commit", "--quiet", "-m", text)


def forged_promotion(git: Git) -> None:
    edit(git)
    git("commit", "--quiet", "-m", message(3, "09", "promote"))


def forged_settling(git: Git) -> None:
    edit(git)
    git("commit", "--quiet", "-m", message(3, "09", "settle"))


FOREIGN = {
    forged_promotion: "a promote commit makes no version",
    forged_settling: "a settle commit makes no version",
    by_hand: "doesn't end in FHIR trailers",
    by_hand_deleted: "doesn't end in FHIR trailers",
    empty: "doesn't end in FHIR trailers",
    merged: "doesn't end in FHIR trailers",
    merged_with_our_trailers: "it has the parents",
    forged_gap: "makes version 7 of Patient/p, whose last one is 2",
    forged_repeat: "makes version 2 of Patient/p, whose last one is 2",
    forged_past: "not later than that of the commit before it",
    forged_deletion: f"differ at {PATH}",
    forged_without_change: f"differ at {PATH}",
    forged_and_more: "differ at more.txt",
    forged_link: "a link or executable",
    forged_twice: "two versions of one resource",
}


@pytest.mark.parametrize(
    ("change", "reason"), FOREIGN.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_reads_go_on_and_writes_wait_until_a_foreign_commit_is_gone(
    record, written, clone, git, ada, clock, change, reason
):
    """Each write fails with an error that names the commit; once main is back, the store goes on as if nothing had
    been. The same for a store that opens then, and for one that makes its index anew."""
    good = git("rev-parse", "main")
    change(clone)
    clone("push", "--quiet", "origin", "main")
    foreign = git("rev-parse", "main")
    assert foreign != good

    def check(store: Store) -> None:
        before = store.snapshot()
        assert (before.commit.id, before.read(PATIENT).version_id, before.history().total) == (good, 2, 2)
        for _ in range(2):
            with pytest.raises(ForeignCommit) as refused:
                store.commit([update()], ada)
            assert refused.value.commit == foreign
            assert foreign in str(refused.value)
            assert reason in str(refused.value)
            assert refused.value.issues[0].code == "conflict"
        [refusal] = store.commit_each([Unit([update()], ada)])
        assert isinstance(refusal, ForeignCommit)
        assert store.snapshot().commit == before.commit
        assert foreign in {finding.where for finding in store.verify()}
        assert git("rev-parse", "main") == foreign

    check(written)
    with Store.open(record, Settings(durability="off", validation="off"), clock=clock) as opened:
        check(opened)
        opened.reindex()
        check(opened)
    git("update-ref", "refs/heads/main", good)

    [outcome] = written.commit([update()], ada)

    assert outcome.version is not None
    assert outcome.version.version_id == 3
    assert list(written.verify()) == []


def test_what_the_store_pushed_elsewhere_and_back_is_no_foreign_commit(
    record, written, clone, git, ada, clock, tmp_path
):
    """A fast-forward of main with our own commits, made on a bare clone, is caught up with."""
    clone("clone", "--quiet", "--bare", record, str(tmp_path / "bare.git"))
    with Store.open(tmp_path / "bare.git", Settings(durability="off", validation="off"), clock=clock) as copy:
        copy.commit([update()], ada)
    git("fetch", "--quiet", str(tmp_path / "bare.git"), "main:main")

    [outcome] = written.commit([update()], ada)

    assert outcome.version is not None
    assert outcome.version.version_id == 4
    assert list(written.verify()) == []


def test_ours_before_the_foreign_one_are_read(record, written, clone, git, ada, clock, tmp_path):
    """What is pushed together may hold good commits before the bad one."""
    clone("clone", "--quiet", "--bare", record, str(tmp_path / "bare.git"))
    with Store.open(tmp_path / "bare.git", Settings(durability="off", validation="off"), clock=clock) as copy:
        copy.commit([update()], ada)
    clone("fetch", "--quiet", str(tmp_path / "bare.git"), "main")
    clone("reset", "--quiet", "FETCH_HEAD")
    by_hand(clone)
    clone("push", "--quiet", "origin", "main")

    with pytest.raises(ForeignCommit):
        written.commit([update()], ada)

    assert written.snapshot().read(PATIENT).version_id == 3
    git("update-ref", "refs/heads/main", "main~1")
    assert written.commit([update()], ada)[0].changed


def test_an_amended_commit_is_a_moved_branch(record, written, clone, git, ada):
    """init refuses to let one in by push; by force it is as any other rewind."""
    good = git("rev-parse", "main")
    clone("commit", "--quiet", "--amend", "--reset-author", "--no-edit")
    with pytest.raises(AssertionError, match="denying non-fast-forward"):
        clone("push", "--quiet", "--force", "origin", "main")
    git("fetch", "--quiet", "--force", str(clone("rev-parse", "--show-toplevel")), "main:main")

    with pytest.raises(ForeignCommit, match=f"no longer holds {good}"):
        written.commit([update()], ada)

    assert written.snapshot().commit.id == good


def test_a_rewound_main_is_refused_and_reindex_accepts_it(record, written, git, ada, clock):
    """Never by itself: versions that were acknowledged would be gone."""
    good = git("rev-parse", "main")
    git("update-ref", "refs/heads/main", "main~1")

    for _ in range(2):
        with pytest.raises(ForeignCommit, match="git fhir reindex") as refused:
            written.commit([update()], ada)
        assert good in str(refused.value)
    assert written.snapshot().read(PATIENT).version_id == 2
    assert "index" in {finding.kind for finding in written.verify()}
    with Store.open(record, Settings(durability="off", validation="off"), clock=clock) as opened:
        assert opened.snapshot().read(PATIENT).version_id == 2

    written.reindex()

    assert written.snapshot().read(PATIENT).version_id == 1
    assert written.commit([update()], ada)[0].changed
    assert list(written.verify()) == []


def test_a_rewound_main_that_comes_back_is_as_if_nothing_had_been(written, git, ada):
    good = git("rev-parse", "main")
    git("update-ref", "refs/heads/main", "main~2")
    with pytest.raises(ForeignCommit):
        written.commit([update()], ada)
    git("update-ref", "refs/heads/main", good)

    assert written.commit([update()], ada)[0].changed
    assert list(written.verify()) == []


def test_main_may_not_be_deleted_by_a_push(written, clone):
    with pytest.raises(AssertionError, match="deletion"):
        clone("push", "--quiet", "origin", ":main")


def test_other_branches_are_nobodys_business(written, clone, ada):
    """15.15"""
    clone("checkout", "--quiet", "-b", "idea")
    by_hand(clone)
    clone("push", "--quiet", "origin", "idea")

    assert written.commit([update()], ada)[0].changed
    assert list(written.verify()) == []


def test_replaced_objects_do_not_change_the_record(written, git, ada):
    """`git replace` shows other objects in place of the real ones, to this repository only."""
    other = git("commit-tree", "main^{tree}", "-m", "another history")
    git("replace", "main", other)
    git("replace", "main~1:" + PATH, git("hash-object", "-w", "--stdin", input="x"))

    assert list(written.verify()) == []
    written.reindex()
    assert written.snapshot().history().total == 2
    assert written.commit([update()], ada)[0].changed


def test_a_commit_with_more_files_than_anybody_could_list_is_foreign_at_once(
    written: Store, record: str, git: Git, ada: Any
) -> None:
    """Forty trees, each of which holds the one before it ten times, are 10^40 files in four kilobytes."""
    blob = git("hash-object", "-w", "--stdin", input="x")
    entry = f"100644 blob {blob}"
    for _ in range(40):
        tree = git("mktree", input="".join(f"{entry}\t{name}\n" for name in "abcdefghij"))
        entry = f"040000 tree {tree}"
    tip = written.snapshot().commit
    text = message(3, "59")
    bomb = git("commit-tree", tree, "-p", tip.id, "-m", text)
    git("update-ref", "refs/heads/main", bomb)

    with pytest.raises(ForeignCommit, match="its trailers and its tree differ"):
        written.commit([update(gender="male")], ada)
    assert written.snapshot().commit == tip
    assert [finding.kind for finding in written.verify()] == ["foreign"]
