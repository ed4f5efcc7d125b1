"""Refs, tags, notes, packs and foreign commits follow a purge. docs/security.md, "Erasure" """

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from purges import (
    OTHER,
    PATIENT,
    purge,
    put,
    told,
    traces,
    unreachable,
)

from gitstore import (
    Store,
)
from gitstore.git.rewritten import successor


def test_refs_tags_notes_and_reflogs_follow(store: Store, record: str, git: Callable[..., str]) -> None:
    """Annotated tags are made anew, light ones move; a branch beside main is rewritten; reflogs and old packs go."""
    put(store, OTHER, "Other")
    untouched = git("rev-parse", "main")
    git("tag", "early", untouched)
    put(store, PATIENT, "Marker")
    secret = git("rev-parse", "main")
    git("tag", "light")
    git("tag", "-a", "-m", "a tag", "annotated")
    git("tag", "-a", "-m", "a tag of a tag", "twice", "annotated")
    git(
        "update-ref",
        "--create-reflog",
        "refs/heads/side",
        git("commit-tree", "-p", "main", "-m", "beside", "main^{tree}"),
    )
    git("notes", "add", "-m", "a note about Marker", secret)
    git("notes", "add", "-m", "a note about the other", untouched)
    put(store, PATIENT, "Second")
    later = git("rev-parse", "main")
    git("notes", "add", "-m", "a note about the second", later)
    git("pack-refs", "--all")
    git("repack", "-adk")
    Path(record, "FETCH_HEAD").write_text(f"{secret}\t\tx\n")

    purge(store, "Patient/a/_history/1")

    assert traces(record, "Marker") == []
    assert traces(record, secret) == [str(Path(record, "git-fhir", "rewritten"))]
    assert unreachable(record) == []
    assert git("rev-parse", "early") == untouched
    new = store.resolve(secret).id
    assert (
        git("rev-parse", "light") == git("rev-parse", "annotated^{}") == git("rev-parse", "twice^{}") == new
    )
    assert git("cat-file", "-p", "annotated").endswith("a tag")
    assert git("rev-parse", "side~1") == new
    assert git("notes", "show", untouched) == "a note about the other"
    assert git("notes", "show", store.resolve(later).id) == "a note about the second"
    assert not Path(record, "logs").exists()
    assert not Path(record, "FETCH_HEAD").exists()
    assert git("fsck", "--full", "--strict") == ""
    assert list(store.verify()) == []


def test_packs_that_somebody_keeps_and_pushes_that_wait_go(
    store: Store, record: str, git: Callable[..., str]
) -> None:
    put(store, PATIENT, "Marker")
    git("repack", "-ad")
    [pack] = Path(record).glob("objects/pack/*.pack")
    pack.with_suffix(".keep").write_text("mine\n")
    waiting = Path(record, "objects", "tmp_objdir-incoming-x", "pack")
    waiting.mkdir(parents=True)
    shutil.copy(pack, waiting)
    git("hash-object", "-w", "--stdin", input="Marker, in a loose object that nothing leads to")

    purge(store, "Patient/a")

    assert traces(record, "Marker") == []
    assert [
        path.name for path in Path(record, "objects").iterdir() if path.name not in ("info", "pack")
    ] == []
    assert unreachable(record) == []


def adopted(store: Store, git: Callable[..., str], path: str, text: str, words: str) -> str:
    """A foreign commit that changes one file, taken into the record; its id."""
    blob = git("hash-object", "-w", "--stdin", input=text)
    git("read-tree", "main")
    git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    foreign = git("commit-tree", "-p", "main", "-m", words, git("write-tree"))
    git("update-ref", "refs/heads/main", foreign)
    assert store.adopt() is not None
    return foreign


def test_foreign_commits_that_held_it_are_cut_off(store: Store, record: str, git: Callable[..., str]) -> None:
    """An adopt commit stays, and says that what it adopted is gone; one that had nothing to do with it is rewritten."""
    put(store, PATIENT, "First")
    put(store, OTHER, "Other")
    paths = git("ls-tree", "-r", "--name-only", "main").split()
    [mine] = [path for path in paths if path.endswith("/a.json")]
    [others] = [path for path in paths if path.endswith("/b.json")]
    text = '{"resourceType": "Patient", "id": "%s", "name": [{"family": "%s"}]}'
    foreign = adopted(store, git, mine, text % ("a", "Marker"), "Marker was wrong.")
    kept = adopted(store, git, others, text % ("b", "By hand"), "By hand.")
    before = told(store)

    done = purge(store, "Patient/a")

    assert traces(record, "Marker") == []
    assert unreachable(record) == []
    assert len(done.cut) == 1
    assert "FHIR-Purged: FHIR-Adopts\n" in git("log", "-1", "--format=%B", done.cut[0])
    assert git("log", "-1", "--format=%p", done.cut[0]).count(" ") == 0
    assert git("log", "-1", "--format=%s", "main~1^2") == "By hand."
    assert git("rev-parse", "main~1^2") == successor(record, kept)
    assert told(store) == {name: facts for name, facts in before.items() if not name.startswith("Patient/a/")}
    assert list(store.verify()) == []
    assert foreign not in git("rev-list", "--all")


def test_branches_beside_main_lose_foreign_files_and_words_about_it(
    store: Store, record: str, git: Callable[..., str]
) -> None:
    """A branch by hand that changed it: the commits stay, without the file and without what they said; others are as they were."""
    put(store, PATIENT, "First")
    put(store, OTHER, "Other")
    [mine] = [
        path for path in git("ls-tree", "-r", "--name-only", "main").split() if path.endswith("/a.json")
    ]
    git("read-tree", "main")
    git("update-index", "--cacheinfo", f"100644,{git('hash-object', '-w', '--stdin', input='Marker')},{mine}")
    first = git("commit-tree", "-p", "main", "-m", "Marker is her name.", git("write-tree"))
    git("read-tree", first)
    git(
        "update-index",
        "--add",
        "--cacheinfo",
        f"100644,{git('hash-object', '-w', '--stdin', input='text')},notes.txt",
    )
    second = git("commit-tree", "-p", first, "-m", "Something else.", git("write-tree"))
    git("update-ref", "refs/heads/side", second)
    put(store, PATIENT, "Second")

    purge(store, "Patient/a/_history/1")

    assert traces(record, "Marker") == []
    assert unreachable(record) == []
    assert git("log", "-2", "--format=%s", "side").splitlines() == [
        "Something else.",
        "(The words of this commit were dropped with what it changed.)",
    ]
    assert git("show", "side:notes.txt") == "text"
    assert mine not in git("ls-tree", "-r", "--name-only", "side")
    assert mine in git("ls-tree", "-r", "--name-only", "main")
    assert list(store.verify()) == []
