"""Foreign commits become versions: `git fhir adopt`. docs/architecture.md, "Foreign commits"; docs/format.md"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gitstore import (
    Author,
    Delete,
    ForeignCommit,
    Gone,
    NotConfirmed,
    Problem,
    RepositoryRefused,
    Settings,
    StorageFailed,
    Store,
    Update,
    durable,
    path_of,
)
from gitstore.adoption import examine
from gitstore.fhir.ids import ResourceId
from gitstore.git import writer as writer_module
from gitstore.git.repository import Repository
from gitstore.git.trees import differences

PATIENT, PERSON = ResourceId("Patient", "p"), ResourceId("Person", "q")
PATH, PERSON_PATH = path_of(PATIENT), path_of(PERSON)
START = 1_767_268_800_000_000
EVE = Author("Eve", "eve@example.org")
OFF = Settings(durability="off", validation="off")
ADOPT = Settings(durability="off", validation="off", foreign_commits="adopt")

Git = Callable[..., str]


def update(id: ResourceId = PATIENT, **elements: Any) -> Update:
    return Update(id, {"resourceType": id.type, "id": id.id} | elements)


def person(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Person", "id": "q"} | elements


class Clone:
    """A clone with a work tree, in which somebody edits files, commits and pushes."""

    def __init__(self, folder: Path, git: Git) -> None:
        self.folder = folder
        self.git = git

    def write(self, path: str, content: str | dict[str, Any]) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))

    def edit(self, old: str, new: str, path: str = PATH) -> None:
        text = (self.folder / path).read_text()
        assert old in text
        self.write(path, text.replace(old, new))

    def commit(self, message: str = "Fix a typo") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def push(self) -> str:
        self.git("push", "--quiet", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def commit_and_push(self, message: str = "Fix a typo") -> str:
        self.commit(message)
        return self.push()


@pytest.fixture(scope="module")
def template(new_record: Any, git_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record with Patient/p at version 2 and Person/q at version 1, commits 2, 3 and 4; beside it a clone."""
    folder = tmp_path_factory.mktemp("template")
    record = shutil.move(new_record(), folder / "record.git")
    ada, seconds = Author("Ada Lovelace", "ada@clinic.example"), itertools.count(1)
    with Store.open(record, OFF, clock=lambda: START + next(seconds) * 1_000_000) as store:
        store.commit([update()], ada)
        store.commit([update(active=True, multipleBirthInteger=2)], ada)
        store.commit([update(PERSON, gender="female")], ada)
    git_in(folder)("clone", "--quiet", "record.git", "clone")
    git_in(folder / "clone")("remote", "set-url", "origin", "../record.git")
    return folder


@pytest.fixture
def record(template: Path, tmp_path: Path, clock: Any) -> str:
    """The git directory of a copy of it; the clock goes on after its last commit."""
    shutil.copytree(template / "record.git", tmp_path / "record.git", symlinks=True)
    clock.now += 3_000_000
    return str(tmp_path / "record.git")


@pytest.fixture
def written(store: Store) -> Store:
    """A store on it."""
    return store


@pytest.fixture
def clone(template: Path, record: str, git_in: Any, tmp_path: Path) -> Clone:
    shutil.copytree(template / "clone", tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone", git_in(tmp_path / "clone"))


def read(store: Store, resource_id: ResourceId = PATIENT) -> dict[str, Any]:
    snapshot = store.snapshot()
    found: dict[str, Any] = json.loads(snapshot.body(snapshot.read(resource_id)))
    return found


def adopted(store: Store) -> list[str]:
    """What `adopt` made: verbs and versions; the record is sound after it, by replay as well."""
    commit = store.adopt()
    assert commit is not None
    made = [f"{version.verb} {version}" for version in store.snapshot().changes(commit)]
    assert_sound(store)
    return made


def assert_sound(store: Store) -> None:
    history = store.snapshot().history(count=1000)
    store.reindex()
    assert store.snapshot().history(count=1000) == history
    assert list(store.verify()) == []


def problems(store: Store) -> list[Problem]:
    """Why `adopt` refuses; it leaves everything as it was."""
    before = store.snapshot().commit
    with pytest.raises(ForeignCommit) as refused:
        store.adopt()
    assert store.snapshot().commit == before
    first = refused.value.problems[0]
    assert first.path in str(refused.value)
    assert first.reason not in str(refused.value), "it quotes the file, and goes to whoever wanted to write"
    found = store.foreign()
    assert found is not None
    assert found.problems == refused.value.problems
    return list(refused.value.problems)


# What becomes of foreign commits


def test_a_commit_by_hand_becomes_the_next_version_under_its_authors_name(written, clone, git, clock):
    """docs/format.md: two parents, the trailers in their order, author and words of the foreign commit."""
    good = git("rev-parse", "main")
    clone.edit("true", "false")
    foreign = clone.commit_and_push("Fix a typo\n\nIt was the other way round.")

    assert adopted(written) == ["PUT Patient/p/_history/3"]

    assert git("log", "-1", "--format=%P%n%an <%ae>%n%cn <%ce>%n%B", "main") == (
        f"{good} {foreign}\nEve <eve@example.org>\ngit-fhir <git-fhir@fhir.invalid>\n"
        "adopt Patient/p\n\nFix a typo\n\nIt was the other way round.\n\n"
        "FHIR-Interaction: adopt\nFHIR-Version: PUT Patient/p/_history/3\n"
        f"FHIR-Last-Updated: 2026-01-01T12:00:04.000000Z\nFHIR-Adopts: {foreign}\n"
    )
    commit = written.snapshot().commit
    assert (commit.sequence, commit.interaction, commit.author) == (5, "adopt", EVE)
    assert written.message(commit) == "Fix a typo\n\nIt was the other way round."
    assert written.resolve("main") == commit
    assert git("fsck", "--full", "--strict") == ""


def test_the_file_is_printed_in_the_stored_form(written, clone, git):
    """Version and date are the store's; digits and the order of keys are the author's."""
    clone.write(
        PATH,
        '{"multipleBirthInteger": 1.0e1, "meta": {"tag": [{"code": "x"}], "versionId": "77"},'
        ' "id": "p", "active": true, "resourceType": "Patient"}',
    )
    clone.commit_and_push()

    assert adopted(written) == ["PUT Patient/p/_history/3"]

    assert git("show", f"main:{PATH}") == (
        '{\n  "resourceType": "Patient",\n  "id": "p",\n  "meta": {\n    "versionId": "3",\n'
        '    "lastUpdated": "2026-01-01T12:00:04.000000Z",\n    "tag": [\n      {\n        "code": "x"\n      }\n'
        '    ]\n  },\n  "multipleBirthInteger": 1.0e1,\n  "active": true\n}'
    )


def test_additions_changes_and_deletions_of_several_commits_are_one_commit(written, clone, git):
    """In the order of types and ids. The words are the last commit's, then the subjects of those before it."""
    clone.write(path_of(ResourceId("Observation", "new")), {"resourceType": "Observation", "id": "new"})
    clone.commit("Add an observation")
    clone.edit("true", "false")
    clone.commit("Correct a patient\n\nWith reasons.")
    clone.git("rm", "--quiet", PERSON_PATH)
    foreign = clone.commit_and_push("Remove a person")

    assert adopted(written) == [
        "PUT Observation/new/_history/1",
        "PUT Patient/p/_history/3",
        "DELETE Person/q/_history/2",
    ]

    snapshot = written.snapshot()
    assert snapshot.history(ResourceId("Observation", "new")).versions[0].created
    with pytest.raises(Gone):
        snapshot.read(PERSON)
    assert [v.version_id for v in snapshot.history(PERSON).versions] == [2, 1]
    assert git("log", "-1", "--format=%s", "main") == "adopt 1 Observation, 1 Patient, 1 Person"
    words = "Remove a person\n\n* Add an observation\n* Correct a patient"
    assert written.message(snapshot.commit) == words
    assert git("rev-parse", "main^2") == foreign
    assert git("rev-list", "--count", "--first-parent", "main") == "5"


def test_a_merged_pull_request_is_adopted(written, clone, git, ada):
    """15.15: although the record went on in the meantime: the merge is the foreign tip."""
    clone.git("checkout", "--quiet", "-b", "correction")
    clone.edit("true", "false")
    clone.commit("Correct a patient")
    written.commit([update(PERSON, gender="male")], ada)
    clone.git("checkout", "--quiet", "main")
    clone.git("pull", "--quiet")
    clone.git("merge", "--quiet", "--no-ff", "-m", "Merge pull request #7", "correction")
    clone.push()

    assert adopted(written) == ["PUT Patient/p/_history/3"]

    assert read(written)["active"] is False
    assert read(written, PERSON)["meta"]["versionId"] == "2"
    words = "Merge pull request #7\n\n* Correct a patient"
    assert written.message(written.snapshot().commit) == words


def test_a_branch_that_merged_main_into_itself_is_adopted(written, clone, git, ada):
    """15.15: its first parents don't lead to the record, but the adopt commit's do."""
    clone.git("checkout", "--quiet", "-b", "correction")
    clone.edit("true", "false")
    clone.commit("Correct a patient")
    written.commit([update(PERSON, gender="male")], ada)
    good = git("rev-parse", "main")
    clone.git("fetch", "--quiet")
    clone.git("merge", "--quiet", "-m", "Catch up", "origin/main")
    clone.push()

    assert adopted(written) == ["PUT Patient/p/_history/3"]
    assert git("rev-parse", "main^1") == good


def test_our_own_commits_before_the_foreign_one_stay_as_they_are(
    record, written, clone, git, ada, clock, git_in, tmp_path
):
    """What was pushed together: good commits are the record, the rest is adopted on top of them."""
    clone.git("clone", "--quiet", "--bare", record, str(tmp_path / "bare.git"))
    with Store.open(tmp_path / "bare.git", OFF, clock=clock) as copy:
        copy.commit([update(active=False)], ada)
    clone.git("pull", "--quiet", str(tmp_path / "bare.git"), "main")
    clone.edit("false", "true")
    clone.commit_and_push()

    assert adopted(written) == ["PUT Patient/p/_history/4"]
    assert written.snapshot().commit.sequence == 6


def test_a_revived_resource_goes_on_counting(written, clone, git, ada):
    written.commit([Delete(PERSON)], ada)
    clone.git("pull", "--quiet")
    clone.write(PERSON_PATH, person())
    clone.commit_and_push("Bring her back")

    assert adopted(written) == ["PUT Person/q/_history/3"]
    assert written.snapshot().history(PERSON).versions[0].created


@pytest.mark.parametrize(
    "change",
    [
        lambda clone: None,
        lambda clone: clone.edit('"versionId": "2"', '"versionId": "9"'),
        lambda clone: clone.edit("2026-", "2027-"),
        lambda clone: clone.write(PATH, json.loads((clone.folder / PATH).read_text())),
    ],
    ids=["nothing", "versionId", "lastUpdated", "white space"],
)
def test_what_changes_no_content_is_adopted_without_a_version(written, clone, git, ada, change):
    """15.17: the foreign tip is absorbed all the same, and the file is again as the store wrote it."""
    good = git("rev-parse", "main^{tree}")
    change(clone)
    clone.commit_and_push()

    assert adopted(written) == []

    assert git("rev-parse", "main^{tree}") == good
    assert git("log", "-1", "--format=%s", "main") == "adopt"
    assert written.commit([update()], ada)[0].version.version_id == 3


def test_writes_go_on_after_it(written, clone, git, ada):
    """Also those of a clone: its own commits are in the record now, so a pull is a fast-forward."""
    clone.edit("true", "false")
    clone.commit_and_push()
    with pytest.raises(ForeignCommit, match="git fhir adopt"):
        written.commit([update()], ada)

    written.adopt()
    [outcome] = written.commit([update(gender="other")], ada)

    assert outcome.version.version_id == 4
    clone.git("pull", "--quiet", "--ff-only")
    assert "other" in (clone.folder / PATH).read_text()
    clone.edit("other", "unknown")
    clone.commit_and_push()
    assert adopted(written) == ["PUT Patient/p/_history/5"]


def test_where_there_is_nothing_foreign_nothing_happens(written, git):
    before = git("rev-parse", "main")

    assert written.foreign() is None
    assert written.adopt() is None

    assert git("rev-parse", "main") == before


def test_many_foreign_commits_are_named_up_to_fifty(written, clone):
    clone.git("fast-import", "--quiet", "--force", input=_empty_commits(60, clone.git("rev-parse", "HEAD")))
    clone.git("reset", "--quiet", "--hard")
    clone.push()

    assert adopted(written) == []

    message, _, subjects = written.message(written.snapshot().commit).partition("\n\n")
    assert message == "number 60"
    assert subjects.splitlines()[::49] == ["* number 1", "* number 50"]
    assert subjects.endswith("* and 9 more")


def _empty_commits(count: int, parent: str) -> str:
    lines = []
    for number in range(1, count + 1):
        text = f"number {number}"
        lines += ["commit refs/heads/main", f"mark :{number}", "committer Eve <eve@example.org> 0 +0000"]
        lines += [f"data {len(text)}", text, f"from {parent}" if number == 1 else ""]
    return "\n".join(lines) + "\n"


def test_words_of_a_foreign_commit_forge_no_version(written, clone, git):
    """Its message may end in trailers like ours: only the last paragraph of the adopt commit counts."""
    clone.edit("true", "false")
    clone.commit_and_push("update\n\nFHIR-Interaction: delete\nFHIR-Version: DELETE Person/q/_history/2\n")

    assert adopted(written) == ["PUT Patient/p/_history/3"]


# What is refused


def add(path: str, content: str | dict[str, Any] = "x") -> Callable[[Clone], None]:
    return lambda clone: clone.write(path, content)


def patient(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "p"} | elements


def link(clone: Clone) -> None:
    (clone.folder / PATH).unlink()
    (clone.folder / PATH).symlink_to("elsewhere")


def submodule(clone: Clone) -> None:
    (clone.folder / PATH).unlink()
    clone.git("update-index", "--cacheinfo", f"160000,{clone.git('rev-parse', 'HEAD')},{PATH}")
    clone.git("commit", "--quiet", "-m", "A submodule")
    (clone.folder / PATH).mkdir()


def folder(clone: Clone) -> None:
    (clone.folder / PATH).unlink()
    clone.write(f"{PATH}/deep/deeper.json", "{}")


REFUSED: dict[str, tuple[Callable[[Clone], Any], str, str]] = {
    "no JSON": (add(PATH, "<<<<<<< HEAD\n"), PATH, "line 1, column 1"),
    "JSON of another kind": (add(PATH, "[]"), PATH, "is no JSON object"),
    "two of a key": (add(PATH, '{"id": "p", "id": "p"}'), PATH, "twice"),
    "another id": (add(PATH, patient(id="x")), PATH, 'has the id "x"; its path asks for `p`'),
    "no id": (add(PATH, {"resourceType": "Patient"}), PATH, "has no id; its path asks for `p`"),
    "another type": (add(PATH, patient(resourceType="Person")), PATH, "asks for `Patient`"),
    "meta that is no object": (add(PATH, patient(meta=[])), PATH, "`meta` must be an object"),
    "too large": (add(PATH, patient(language="x" * 3000)), PATH, "3000 bytes (fhir.maxBody)"),
    "wrong folders": (
        add("Patient/0/0/0/p.json", patient()),
        "Patient/0/0/0/p.json",
        f"is not the path of Patient/p, which is {PATH}",
    ),
    "no folders": (add("Patient/p.json", patient()), "Patient/p.json", f"which is {PATH}"),
    "unknown type": (add("Pet/0/0/0/p.json"), "Pet/0/0/0/p.json", "no path of a resource"),
    "an id that is none": (add("Patient/0/0/0/a_b.json"), "Patient/0/0/0/a_b.json", "no path of a resource"),
    "a stray file": (add("docs/notes.md"), "docs/notes.md", "nothing else may be here"),
    "README.md": (add("README.md"), "README.md", "part of the record itself"),
    "git-fhir.json": (
        add("git-fhir.json", '{"format": 1, "fhirVersion": "4.0.1"}'),
        "git-fhir.json",
        "part of the record itself",
    ),
    ".gitattributes gone": (
        lambda clone: clone.git("rm", "--quiet", ".gitattributes"),
        ".gitattributes",
        "part of the record itself",
    ),
    "an executable": (lambda clone: (clone.folder / PATH).chmod(0o755), PATH, "is an executable"),
    "a symbolic link": (link, PATH, "is a symbolic link"),
    "a submodule": (submodule, PATH, "is a submodule"),
    "a folder in its place": (folder, PATH, "is a folder"),
}


@pytest.mark.parametrize(("change", "path", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_resource_in_its_place_is_refused(
    record, written, clone, git, clock, change, path, reason
):
    """One line says what and where; a good change beside it doesn't help it in."""
    clone.edit("female", "male", PERSON_PATH)
    change(clone)
    foreign = clone.commit_and_push()

    with Store.open(
        record, Settings(durability="off", validation="off", max_body=3000), clock=clock
    ) as store:
        [problem] = problems(store)

    assert problem.path == path
    assert reason in problem.reason
    assert git("rev-parse", "main") == foreign


def test_every_problem_is_told(written, clone, ada):
    """A write tells the first, and how many more there are."""
    clone.write("docs/notes.md", "x")
    clone.write("README.md", "x")
    clone.write(PATH, "x")
    clone.commit_and_push()

    assert [problem.path for problem in problems(written)] == [PATH, "README.md", "docs/notes.md"]


def test_limits_of_a_transaction_hold_for_a_foreign_change(record, written, clone, clock):
    clone.edit("true", "false")
    clone.edit("female", "male", PERSON_PATH)
    clone.commit_and_push()

    for settings, reason in (
        (Settings(validation="off", max_entries=1), "more than 1 files are changed (fhir.maxEntries)"),
        (Settings(validation="off", max_bundle=500), "more than 500 bytes (fhir.maxBundle)"),
    ):
        with Store.open(record, settings, clock=clock) as store:
            assert problems(store) == [Problem("*", next(p.reason for p in problems(store)))]
            assert reason in problems(store)[0].reason


def test_a_correction_on_top_makes_it_good(written, clone):
    """What counts is the tree of the foreign tip, not the way to it."""
    clone.write("docs/notes.md", "x")
    clone.edit("true", "false")
    clone.commit_and_push()
    assert [problem.path for problem in problems(written)] == ["docs/notes.md"]
    clone.git("rm", "--quiet", "docs/notes.md")
    clone.commit_and_push("Not here")

    assert adopted(written) == ["PUT Patient/p/_history/3"]


@pytest.mark.parametrize("settings", [OFF, ADOPT], ids=["refuse", "adopt"])
def test_a_rewound_main_is_never_adopted(record, written, git, ada, clock, settings):
    good = git("rev-parse", "main")
    git("update-ref", "refs/heads/main", "main~1")

    with Store.open(record, settings, clock=clock) as store:
        for refused in (store.adopt, store.foreign, lambda: store.commit([update()], ada)):
            with pytest.raises(ForeignCommit, match=f"no longer holds {good}.* can't be adopted"):
                refused()


def test_a_forced_main_is_never_adopted(written, clone, git):
    """As above: it does not hold the last commit of the record."""
    good = git("rev-parse", "main")
    clone.git("reset", "--quiet", "--hard", "HEAD~1")
    clone.edit("true", "false")
    clone.commit()
    git("fetch", "--quiet", "--force", str(clone.folder), "main:main")

    with pytest.raises(ForeignCommit, match=f"no longer holds {good}"):
        written.adopt()


def test_a_clone_with_a_work_tree_adopts_nothing(written, clone, clock):
    """Its files would stay behind; reading goes on."""
    clone.commit()
    with (
        Store.open(clone.folder / ".git", OFF, clock=clock) as store,
        pytest.raises(RepositoryRefused, match="has a work tree"),
    ):
        store.adopt()


# The setting


def test_by_the_setting_the_writer_adopts_before_it_writes(record, written, clone, git, ada, clock):
    """fhir.foreignCommits = adopt: the waiting unit comes after the foreign change."""
    clone.edit("true", "false")
    foreign = clone.commit_and_push()

    with Store.open(record, ADOPT, clock=clock) as store:
        assert store.snapshot().read(PATIENT).version_id == 2
        [outcome] = store.commit([update(gender="other")], ada)

        assert outcome.version.version_id == 4
        assert git("rev-parse", "main~1^2") == foreign
        assert [v.verb for v in store.snapshot().history(PATIENT).versions] == ["PUT"] * 4
        assert_sound(store)


def test_by_the_setting_a_refused_unit_adopts_all_the_same(record, written, clone, ada, clock):
    """Its condition is judged by what the foreign commit left."""
    clone.edit("true", "false")
    clone.commit_and_push()
    unit = Update(PATIENT, patient(), if_match=frozenset({"3"}))

    with Store.open(record, ADOPT, clock=clock) as store:
        assert store.commit([unit], ada)[0].version.version_id == 4


def test_by_the_setting_what_is_wrong_is_in_every_answer_and_looked_at_once(
    record, written, clone, git, ada, clock, monkeypatch
):
    clone.write("docs/notes.md", "x")
    clone.write("README.md", "x")
    foreign = clone.commit_and_push()

    with Store.open(record, ADOPT, clock=clock) as store:
        for _ in range(3):
            with pytest.raises(ForeignCommit, match=r"README.md \(1 more problem\)") as refused:
                store.commit([update()], ada)
            assert refused.value.commit == foreign
            monkeypatch.setattr("gitstore.adopting.examine", None)
        monkeypatch.undo()
        clone.git("checkout", "--quiet", "HEAD~1", "--", "README.md")
        clone.git("rm", "--quiet", "docs/notes.md")
        clone.commit_and_push("Back")
        assert store.commit([update()], ada)[0].version.version_id == 3


# At the same time as others


def test_units_of_another_process_wait_and_go_on_after_it(
    record, written, clone, git, ada, clock, monkeypatch
):
    """Adopting holds the writer's lock: nobody sees half of it, and nobody is refused because of it."""
    clone.edit("true", "false")
    clone.commit_and_push()
    examining, waiting, outcomes = threading.Event(), threading.Event(), []

    def slowly(*arguments: Any) -> Any:
        examining.set()
        assert waiting.wait(10)
        return examine(*arguments)

    monkeypatch.setattr("gitstore.adopting.examine", slowly)
    with Store.open(record, OFF, clock=clock) as other:
        adopting = threading.Thread(target=written.adopt)
        adopting.start()
        assert examining.wait(10)
        writing = threading.Thread(target=lambda: outcomes.extend(other.commit([update()], ada)))
        writing.start()
        waiting.set()
        writing.join(10)
        adopting.join(10)

        assert [outcome.version.version_id for outcome in outcomes] == [4]
        assert_sound(other)
    assert written.commit([update()], ada)[0].version.version_id == 5


def test_a_push_between_check_and_publish_is_not_lost(written, clone, git, monkeypatch):
    """Main is compared under its own lock: nothing happens, and the next try adopts both."""
    clone.edit("true", "false")
    clone.commit_and_push()

    def and_push(*arguments: Any) -> Any:
        found = examine(*arguments)
        clone.edit("female", "male", PERSON_PATH)
        clone.commit_and_push("One more")
        return found

    monkeypatch.setattr("gitstore.adopting.examine", and_push)
    with pytest.raises(ForeignCommit, match=r"was moved to .* by another git"):
        written.adopt()
    monkeypatch.undo()

    assert written.snapshot().commit.sequence == 4
    assert adopted(written) == ["PUT Patient/p/_history/3", "PUT Person/q/_history/2"]


# When something fails


class Failing:
    """Stands in for the module `os` of the writer: the call of this number fails, and with `dead` all that follow."""

    def __init__(self, fails: int, *, dead: bool) -> None:
        self.calls: list[str] = []
        self._fails = fails
        self._dead = dead

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in ("open", "write", "pwrite", "fsync", "fdatasync", "link", "rename", "unlink", "sync"):
            return found

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) == self._fails or (self._dead and len(self.calls) > self._fails):
                raise OSError(5, "Input/output error")
            # What is on the disk, and what a power cut leaves of it, is told in test_power_cut.py.
            return None if "sync" in name else found(*arguments)

        return call


@pytest.mark.parametrize("dead", [False, True], ids=["one failure", "the end of the process"])
def test_a_failure_at_any_step_leaves_all_or_nothing(record, clone, git, clock, monkeypatch, tmp_path, dead):
    """The intent holds the foreign tip as what main was; the next holder of the lock cleans up after it."""
    clone.edit("true", "false")
    foreign = clone.commit_and_push()
    shutil.copytree(record, tmp_path / "before.git", symlinks=True)
    for step in itertools.count(1):
        shutil.rmtree(record)
        shutil.copytree(tmp_path / "before.git", record, symlinks=True)
        failing = Failing(step, dead=dead)
        with Store.open(record, Settings(), clock=clock) as store:
            for module in (writer_module, durable):
                monkeypatch.setattr(module, "os", failing)
            with contextlib.suppress(OSError, StorageFailed, NotConfirmed):
                store.adopt()
            for module in (writer_module, durable):
                monkeypatch.setattr(module, "os", os)
        with Store.open(record, OFF, clock=clock) as store:
            if Path(record, "refs", "heads", "main").read_text().strip() == foreign:
                assert store.snapshot().commit.sequence == 4
                store.adopt()
            assert store.snapshot().commit.sequence == 5, failing.calls
            assert read(store)["meta"]["versionId"] == "3"
            assert not dead or list(store.verify()) == [], failing.calls
        leftovers = [*Path(record).glob("refs/heads/*.lock"), *Path(record).glob("objects/pack/*.keep")]
        assert leftovers == [], failing.calls
        if len(failing.calls) < step:
            break
    assert step > 15
    assert failing.calls[0] == "sync"


def test_the_foreign_commits_are_on_disk_before_main_builds_on_them(
    record, written, clone, clock, monkeypatch
):
    """git doesn't sync the loose objects of a push."""
    clone.commit_and_push()
    seen: list[str] = []
    publish = writer_module.Writer.publish
    monkeypatch.setattr(os, "sync", lambda: seen.append("sync"))
    monkeypatch.setattr(
        writer_module.Writer, "publish", lambda *arguments: (seen.append("publish"), publish(*arguments))
    )

    with Store.open(record, Settings(), clock=clock) as store:
        store.adopt()

    assert seen == ["sync", "publish"]


# Verify


def forge(git: Git, text: str, tree: str = "main^{tree}", *parents: str) -> str:
    arguments = [argument for parent in parents for argument in ("-p", parent)]
    return git(
        "commit-tree",
        tree,
        *arguments,
        input=text,
        GIT_AUTHOR_DATE="1767268804 +0000",
        GIT_COMMITTER_NAME="git-fhir",
        GIT_COMMITTER_EMAIL="git-fhir@fhir.invalid",
        GIT_COMMITTER_DATE="1767268804 +0000",
    )


def message(adopts: str | None, interaction: str = "adopt") -> str:
    trailer = f"FHIR-Adopts: {adopts}\n" if adopts else ""
    return (
        f"{interaction}\n\nFHIR-Interaction: {interaction}\n"
        f"FHIR-Last-Updated: 2026-01-01T12:00:04.000000Z\n{trailer}"
    )


def test_an_adopt_commit_is_ours_only_with_what_the_format_asks_for(written, git):
    """docs/format.md: FHIR-Adopts names the second parent, and stands in no other commit."""
    good = git("rev-parse", "main")
    side = forge(git, "by hand", "main^{tree}", good)
    for text, parents, reason in (
        (message(side), [good], "it has the parents"),
        (message(side), [side, good], "doesn't end in FHIR trailers"),
        (message(side), [good, side, git("rev-parse", "main~1")], "it has the parents"),
        (message(None), [good, side], "FHIR-Adopts"),
        (message(None), [good], "FHIR-Adopts"),
        (message(side, "update"), [good, side], "FHIR-Adopts"),
        (message("main"), [good, side], "is no commit id"),
    ):
        git("update-ref", "refs/heads/main", forge(git, text, "main^{tree}", *parents))
        [finding] = written.verify()
        assert finding.kind == "foreign"
        assert reason in finding.text
        git("update-ref", "refs/heads/main", good)
    git("update-ref", "refs/heads/main", forge(git, message(side), "main^{tree}", good, side))
    written.reindex()
    assert list(written.verify()) == []


def test_an_adopt_commit_that_says_something_else_than_the_foreign_tip_is_found(written, clone, git):
    good = git("rev-parse", "main")
    clone.edit("true", "false")
    clone.write("docs/notes.md", "x")
    foreign = clone.commit_and_push()
    made = forge(git, message(foreign), f"{good}^{{tree}}", good, foreign)
    git("update-ref", "refs/heads/main", made)
    written.reindex()

    assert {
        (finding.kind, finding.where, finding.text.partition(":")[0]) for finding in written.verify()
    } == {
        ("adopt", made, PATH),
        ("adopt", made, "docs/notes.md"),
    }


def test_an_adopt_commit_of_a_tip_that_does_not_build_on_the_record_is_found(written, git):
    good = git("rev-parse", "main")
    old = forge(git, "by hand", "main^{tree}", git("rev-parse", "main~1"))
    made = forge(git, message(old), "main^{tree}", good, old)
    git("update-ref", "refs/heads/main", made)
    written.reindex()

    [finding] = written.verify()
    assert (finding.kind, finding.where) == ("adopt", made)
    assert "does not build on" in finding.text


# Trees of others


def test_differences_of_trees_are_those_that_git_finds(written, clone, git):
    """All kinds of change, against `git diff-tree`."""
    clone.git("rm", "--quiet", PERSON_PATH)
    clone.write("Person", "a file where a folder was")
    clone.git("rm", "--quiet", "README.md")
    clone.write("README.md/a/b", "a folder where a file was")
    (clone.folder / PATH).chmod(0o755)
    clone.write("a/b/c", "x")
    clone.write("a.b", "x")
    clone.commit()
    repository = Repository(str(clone.folder / ".git"))
    old, new = (bytes.fromhex(clone.git("rev-parse", f"{at}^{{tree}}")) for at in ("HEAD~1", "HEAD"))

    found = list(differences(lambda id: repository.object(id.hex()), old, new))

    expected = {}
    lines = clone.git("diff-tree", "-r", "--no-renames", "HEAD~1", "HEAD").splitlines()
    for line in lines:
        modes, path = line[1:].split("\t")
        _, mode, before, blob, _ = modes.split(" ")
        if mode == "000000":
            expected[path] = (None, None, before)
        else:
            expected[path] = (mode, blob, before if before.strip("0") and mode == "100644" else None)
    for one in found:
        mode, blob, before = expected.pop(one.path)
        assert (one.mode, one.blob) == (mode, blob)
        if before:
            assert one.old == before
    assert expected == {}


def test_a_tree_that_is_made_to_take_for_ever_does_not(record, written, git):
    """Ten levels of ten folders each, with nothing in them: a folder too deep or empty is one path."""
    tree = git("mktree", input="")
    for _ in range(10):
        tree = git("mktree", input="".join(f"040000 tree {tree}\t{name}\n" for name in "abcdefghij"))
    before = written.snapshot().commit
    foreign = forge(git, "by hand", tree, before.id)

    found = examine(Repository(record), before, foreign, Settings(max_entries=100))

    assert len(found.problems) < 102
    assert Problem("*", "more than 100 files are changed (fhir.maxEntries)") in found.problems
