"""What verify finds, each made with git's plumbing in a record that was sound. docs/cli.md, "verify" """

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gitstore import Create, Delete, Settings, Store, Update
from gitstore.git.layout import FIRST_FILES
from gitstore.version import SERVER
from tests.conftest import Clock, copy_record
from tests.gitstore.tampering import ADA, PATH, PATIENT, Git, check_index, stage, verified

OPTIONS = Settings(durability="off", validation="off")


STORY = 5
"""Commits that `told` has beside the first."""


@pytest.fixture(scope="session")
def template(new_record: Callable[[], str]) -> str:
    """Commits 2 to 6: created, updated, deleted, revived, and a transaction with another."""
    record = new_record()
    update = Update(PATIENT, {"resourceType": "Patient", "id": "p"})
    with Store.open(record, OPTIONS, clock=Clock(), new_id=lambda: "id-1") as store:
        for unit in ([update], [update], [Delete(PATIENT)], [update]):
            store.commit(unit, ADA)
        both = [update, Create({"resourceType": "Observation"})]
        store.commit(both, ADA, message="why", interaction="transaction")
    return record


@pytest.fixture
def record(template: str, tmp_path: Path) -> str:
    return str(copy_record(template, tmp_path / "record.git"))


@pytest.fixture
def told(record: str, clock: Clock) -> Iterator[Store]:
    """A store of a copy of `template`, at the time of its last commit."""
    clock.now += STORY * clock.tick
    with Store.open(record, OPTIONS, clock=clock) as store:
        yield store


class Tamper:
    """Makes a commit of the record again with something changed, and all that follow it as they were."""

    def __init__(self, git: Git) -> None:
        self.git = git

    def commit(
        self,
        number: int,
        *,
        message: Callable[[str], str] = lambda text: text,
        files: dict[str, str | None] | None = None,
        seconds: int = 0,
        drop: bool = False,
        keep: bool = True,
    ) -> str:
        """`number` is the sequence. `files` maps a path to its new content, None for a removal; with `keep` the files
        are changed in what follows, too. Returns the new id (of the parent, where the commit is dropped)."""
        ids = self.git("rev-list", "--reverse", "main").split("\n")
        parent = ids[number - 2] if number > 1 else None
        made = ""
        for at, id in enumerate(ids[number - 1 :], number):
            if at == number and drop:
                made = parent or ""
                continue
            text = self.git("log", "-1", "--format=%B", id).rstrip("\n") + "\n"
            when = int(self.git("log", "-1", "--format=%at", id))
            self.git("read-tree", id)
            if at == number or keep:
                self.put(files or {})
            if at == number:
                text, when = message(text), when + seconds
            parent = self.git(
                "commit-tree",
                self.git("write-tree"),
                *(["-p", parent] if parent else []),
                input=text,
                GIT_AUTHOR_NAME="Ada Lovelace",
                GIT_AUTHOR_EMAIL="ada@clinic.example",
                GIT_AUTHOR_DATE=f"{when} +0000",
                GIT_COMMITTER_NAME=SERVER.name,
                GIT_COMMITTER_EMAIL=SERVER.email,
                GIT_COMMITTER_DATE=f"{when} +0000",
            )
            made = made or parent
        self.git("update-ref", "refs/heads/main", str(parent))
        return made

    def put(self, files: dict[str, str | None]) -> None:
        for path, content in files.items():
            stage(self.git, path, content)

    def file(self, number: int, change: Callable[[str], str]) -> str:
        """Change the patient's file in one commit, and let the next ones write theirs as they did."""
        id = self.git("rev-list", "--reverse", "main").split("\n")[number - 1]
        content = self.git("cat-file", "blob", f"{id}:{PATH}") + "\n"
        return self.commit(number, files={PATH: change(content)}, keep=False)


@pytest.fixture
def tamper(told: Store, git: Git) -> Tamper:
    return Tamper(git)


def kinds(store: Store) -> list[str]:
    return [finding.kind for finding in verified(store)]


def test_a_sound_record_has_no_findings(told, git):
    assert list(told.verify()) == []
    assert verified(told) == []
    assert git("rev-list", "--count", "main") == "6"


def test_tampering_with_nothing_changes_nothing(told, tamper, git):
    """The tool of these tests by itself makes no finding."""
    before = git("log", "--format=%T %an %ae %at %B", "main")

    tamper.commit(2)

    assert git("log", "--format=%T %an %ae %at %B", "main") == before
    assert verified(told) == []


def test_progress_is_told(told, monkeypatch):
    monkeypatch.setattr("gitstore.verify._EVERY", 2)
    seen: list[tuple[int, int]] = []

    assert list(told.verify(lambda done, of: seen.append((done, of)))) == []
    assert seen == [(2, 6), (4, 6), (6, 6)]


def test_an_edited_file_whose_meta_is_untouched_is_found_by_its_form(told, tamper):
    """What a hand types is seldom to the byte what the store prints."""
    tamper.file(3, lambda text: text.replace('"Patient"', '"Patient" '))

    assert [(f.kind, f.where) for f in verified(told)] == [("file", "PUT Patient/p/_history/2")]


EDITS: dict[str, tuple[Callable[[str], str], str, str]] = {
    "another version": (lambda t: t.replace('"versionId": "2"', '"versionId": "3"'), "meta", "version 3"),
    "another id": (lambda t: t.replace('"id": "p"', '"id": "q"'), "meta", "Patient/q version 2"),
    "another type": (lambda t: t.replace('"Patient"', '"Person"'), "meta", "Person/p version 2"),
    "another time": (lambda t: t.replace("12:00:02", "12:00:03"), "file", "lastUpdated is not the commit's"),
    "no meta": (lambda t: '{"resourceType": "Patient", "id": "p"}\n', "meta", "version None"),
    "meta that is no object": (
        lambda t: '{"resourceType": "Patient", "id": "p", "meta": 1}\n',
        "file",
        "meta",
    ),
    "no JSON": (lambda t: t + "}", "file", "can't be read"),
    "no object": (lambda t: "[]\n", "file", "can't be read"),
    "null": (lambda t: "null\n", "file", "can't be read"),
    "no UTF-8": (lambda t: "", "file", "can't be read"),
    "two of a key": (lambda t: t.replace('"id"', '"id": "p",\n  "id"'), "file", "can't be read"),
    "CRLF": (lambda t: t.replace("\n", "\r\n"), "file", "not in the stored form"),
    "no last line end": (lambda t: t.rstrip("\n"), "file", "not in the stored form"),
    "compact": (lambda t: t.replace("\n", "").replace("  ", ""), "file", "not in the stored form"),
}


@pytest.mark.parametrize(("change", "kind", "text"), EDITS.values(), ids=EDITS)
def test_an_edited_file_is_found(told, tamper, change, kind, text):
    """Its trailer says what it must say."""
    tamper.file(3, change)

    [finding] = verified(told)

    assert (finding.kind, finding.where) == (kind, "PUT Patient/p/_history/2")
    assert text in finding.text
    assert str(finding) == f"{kind}: PUT Patient/p/_history/2: {finding.text}"


def test_a_wrong_counter_is_found(told, tamper):
    """And the commits after it are no longer part of the record, for a counter with a gap is none."""
    made = tamper.commit(3, message=lambda text: text.replace("_history/2", "_history/5"))

    assert ("counter", "PUT Patient/p/_history/5") in {(f.kind, f.where) for f in verified(told)}
    assert told.snapshot().commit.sequence == 2
    assert made


@pytest.mark.parametrize(
    ("number", "old", "new", "where"),
    [
        (3, "PUT", "POST", "POST Patient/p/_history/2"),
        (5, "PUT", "POST", "POST Patient/p/_history/4"),
    ],
)
def test_a_verb_that_does_not_fit_is_found(told, tamper, number, old, new, where):
    """A create makes the first version."""
    tamper.commit(number, message=lambda text: text.replace(f"{old} Patient", f"{new} Patient"))

    assert [(f.kind, f.where) for f in verified(told)] == [("verb", where)]


def test_a_wrong_date_is_found(told, tamper):
    """git's time is the whole seconds of FHIR-Last-Updated."""
    made = tamper.commit(4, seconds=1)

    assert [(f.kind, f.where) for f in verified(told)] == [("date", made)]


def test_an_unknown_trailer_is_found(told, tamper):
    """Kept and ignored by reading, reported here. docs/format.md"""
    made = tamper.commit(3, message=lambda text: text + "FHIR-Color: blue\n")

    [finding] = verified(told)

    assert (finding.kind, finding.where) == ("trailer", made)
    assert "`FHIR-Color: blue` is unknown" in finding.text
    assert told.snapshot().commit.sequence == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("update Patient/p", "correct Patient/p"),
        lambda text: text.replace("\n\n", "\n\nwhy\x01\n\n", 1),
        lambda text: text + "Signed-off-by: Eve <eve@example.org>\n",
        lambda text: text.replace("FHIR-Interaction: update\n", "") + "FHIR-Interaction: update\n",
        lambda text: text.replace("FHIR-Interaction: update", "FHIR-Interaction: patch"),
        lambda text: text.replace(".000000Z", "Z"),
        lambda text: text + "FHIR-Request-Id: a b\n",
    ],
)
def test_a_message_that_is_not_as_the_store_writes_it_is_found(told, tamper, change):
    """It says the same, but somebody else wrote it."""
    made = tamper.commit(3, message=change)

    assert [(f.kind, f.where) for f in verified(told)] == [("message", made)]


FOREIGN: dict[str, dict[str, Any]] = {
    "a commit by hand": {"message": lambda text: "Fix a typo\n"},
    "trailers that are cut off": {"message": lambda text: text.partition("FHIR-Version")[0]},
    "another resource's trailer": {"message": lambda text: text.replace("PUT Patient/p/", "PUT Patient/q/")},
    "a version that is not recorded": {"message": lambda text: text.replace("FHIR-Version", "X-Version")},
    "a time that steps back": {"message": lambda text: text.replace("12:00:02", "12:00:01")},
    "an extra file": {"files": {"Patient/0/0/0/extra.json": "{}"}},
    "a file that is missing": {"files": {"README.md": None}},
    "a first file that is changed": {"files": {"git-fhir.json": FIRST_FILES["git-fhir.json"].upper()}},
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_a_commit_that_is_not_ours_is_found_and_ends_the_record(told, tamper, git, change):
    """What follows it is not part of the record, and can't be checked."""
    made = tamper.commit(3, **change)

    [finding] = verified(told)

    assert (finding.kind, finding.where) == ("foreign", made)
    assert made in finding.text
    assert told.snapshot().commit.sequence == 2


def test_a_file_that_is_missing_from_its_commit_is_found(told, tamper):
    """The trailer says PUT, and the tree has nothing."""
    made = tamper.commit(3, files={PATH: None}, keep=False)

    assert ("foreign", made) in {(f.kind, f.where) for f in verified(told)}


def test_a_deletion_that_deletes_nothing_is_found(told, tamper, git):
    content = git("cat-file", "blob", f"main:{PATH}")
    made = tamper.commit(4, files={PATH: content}, keep=False)

    assert ("foreign", made) in {(f.kind, f.where) for f in verified(told)}


def test_a_dropped_commit_is_found(told, tamper):
    """The counter has a gap where it was."""
    tamper.commit(3, drop=True)

    found = {(f.kind, f.where) for f in verified(told)}

    assert ("counter", "DELETE Patient/p/_history/3") in found


def test_the_last_commit_dropped_is_found_by_the_index(told, git):
    """The record alone can't tell; the index remembers more than it."""
    last = git("rev-parse", "main")
    git("update-ref", "refs/heads/main", "main~1")

    assert [(f.kind, f.where) for f in told.verify()] == [("index", last)]
    assert verified(told) == []


def test_a_first_commit_that_is_not_ours_is_found(told, git):
    """There is no record then; what the index holds has no source."""
    git("update-ref", "refs/heads/main", git("commit-tree", "main^{tree}", "-m", "all in one"))

    assert [f.kind for f in told.verify()] == ["foreign", "index"]


def test_no_branch_is_found(told, git):
    git("update-ref", "-d", "refs/heads/main")

    assert [(f.kind, f.where) for f in told.verify()] == [("branch", "refs/heads/main")]


@pytest.mark.parametrize("what", ["blob", "tree", "commit"])
def test_an_object_that_is_missing_is_found(told, git, record, what):
    """As after a repair that wasn't one. Every finding, never a crash."""
    id = git("rev-parse", {"blob": f"main~3:{PATH}", "tree": "main~3:Patient", "commit": "main~3"}[what])
    unpack_without(git, record, id)

    found = list(told.verify())

    assert found
    assert all(finding.kind in ("damaged", "file", "foreign", "index") for finding in found)


def unpack_without(git: Git, record: str, id: str) -> None:
    """All objects as loose ones, but for one."""
    packs = list(Path(record, "objects", "pack").iterdir())
    contents = [path.read_bytes() for path in packs if path.suffix == ".pack"]
    for path in packs:
        path.unlink()
    for content in contents:
        git("unpack-objects", "-q", input=content)
    Path(record, "objects", id[:2], id[2:]).unlink()


INDEX = {
    "a blob": "UPDATE versions SET blob = zeroblob(20) WHERE version = 2",
    "a deletion": "UPDATE versions SET blob = NULL WHERE version = 2",
    "a verb": "UPDATE versions SET verb = 2 WHERE version = 2",
    "a row that is gone": "DELETE FROM versions WHERE version = 2",
    "another resource": "UPDATE resources SET id = 'q' WHERE id = 'p'",
    "an author": "UPDATE authors SET name = 'Eve' WHERE name LIKE 'Ada%'",
    "a time": "UPDATE commits SET last_updated = last_updated + 1 WHERE sequence = 3",
    "a request id": "UPDATE commits SET request_id = 'x' WHERE sequence = 3",
    "an interaction": "UPDATE commits SET interaction = 'delete' WHERE sequence = 3",
    "a commit id": "UPDATE commits SET id = zeroblob(20) WHERE sequence = 3",
    "a commit that is gone": "DELETE FROM commits WHERE sequence = 3",
    "a commit too many": "INSERT INTO commits SELECT 9, zeroblob(20), last_updated + 9, interaction, author, NULL, NULL, 0"
    " FROM commits WHERE sequence = 6",
    "an order": "UPDATE versions SET position = 1 - position + 2 WHERE sequence = 6",
    "created": "UPDATE versions SET created = 1 - created WHERE version = 2",
    "an ordinal": "UPDATE versions SET ordinal = ordinal + 1 WHERE sequence = 6",
    "how many somebody wrote": "UPDATE versions SET authored = authored + 1 WHERE sequence = 6",
    "how many resources there were": "UPDATE versions SET known = known + 1 WHERE sequence = 6",
    "how many resources are there": "UPDATE versions SET present = present - 1 WHERE sequence = 6",
    "the author of a version": "UPDATE versions SET author = author + 9 WHERE sequence = 6",
    "the newest version": "UPDATE resources SET version = 4 WHERE id = 'p'",
    "the newest is a deletion": "UPDATE resources SET deleted = 1 WHERE id = 'p'",
    "a running count": "UPDATE commits SET versions = versions + 1 WHERE sequence = 6",
    "a resource that never was": "INSERT INTO resources (type, id, version, deleted, sequence)"
    " VALUES (0, 'ghost', 1, 0, 2)",
    "a value too many": "INSERT INTO strings SELECT key, 1, 'x', 0, 0 FROM resources WHERE id = 'p'",
    "the commit of the newest": "UPDATE resources SET sequence = sequence + 1 WHERE id = 'p'",
    "a resource that was only referred to": "INSERT INTO resources (type, id, version, deleted, sequence)"
    " VALUES (0, 'ghost', 0, 0, 0)",
}


@pytest.mark.parametrize("change", INDEX.values(), ids=INDEX)
def test_an_index_that_differs_from_replay_is_found_and_mended_by_reindex(told, change):
    """Each column of each table: what is answered from it must be what git says."""
    check_index(told, change)
