"""The sample clinic: a story that always comes to the same record, and the bundle of it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitstore import Author, RepositoryRefused, Store, Update, Version, init
from gitstore.fhir import json
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId
from gitstore.fhir.references import references
from sample_repo.build import BUNDLE, HERE, STORY, Step, build, build_once, expected_head, main, steps, tour

AMARA = ResourceId("Patient", "amara-okafor")
LI = ResourceId("Patient", "li-xiulan")
JOSE = ResourceId("Patient", "jose-munoz-ibarra")


def git(*arguments: str) -> str:
    """What git prints, away from the configuration of whoever runs the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    result = subprocess.run(["git", *arguments], check=True, capture_output=True, env=environment, text=True)
    return result.stdout


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built record; tests only read it."""
    folder = tmp_path_factory.mktemp("sample") / "clinic.git"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        build(folder)
    return folder


@pytest.fixture(scope="module")
def opened(clinic: Path) -> Iterator[Store]:
    with Store.open(clinic) as store:
        yield store


def resource(store: Store, version: Version) -> Any:
    return json.loads(store.snapshot().body(version))


# The build


def test_building_twice_gives_the_same_head(clinic: Path, tmp_path: Path) -> None:
    """Times, authors and ids come from the story, none from the machine."""
    assert build(tmp_path / "again.git") == git("-C", str(clinic), "rev-parse", "HEAD").strip()


def test_the_bundle_is_the_build(clinic: Path, tmp_path: Path) -> None:
    """The same refs and the same objects; its bytes may differ between versions of git."""
    git("bundle", "verify", str(BUNDLE))
    git("clone", "--quiet", "--mirror", str(BUNDLE), str(tmp_path / "mirror.git"))

    for question in (
        ["for-each-ref"],
        ["rev-parse", "--symbolic-full-name", "HEAD"],
        ["cat-file", "--batch-all-objects", "--batch-check"],
    ):
        assert git("-C", str(tmp_path / "mirror.git"), *question) == git("-C", str(clinic), *question)
    assert set(git("bundle", "list-heads", str(BUNDLE)).split()[1::2]) == {"refs/heads/main", "HEAD"}


def test_a_clone_of_the_bundle_is_a_folder_of_the_current_resources(opened: Store, tmp_path: Path) -> None:
    """`git clone sample_repo/clinic.bundle` works before anything is installed, and checks out main."""
    git("clone", "--quiet", str(BUNDLE), str(tmp_path / "clinic"))

    files = [path for path in (tmp_path / "clinic").glob("*/**/*.json") if ".git" not in path.parts]
    found = {(file.parts[-5], file.stem): file.read_bytes() for file in files}

    snapshot = opened.snapshot()
    assert found == {tuple(version.resource_id): snapshot.body(version) for version in snapshot.resources()}
    for (type, id), body in found.items():
        told = json.loads(body)
        assert (told["resourceType"], told["id"]) == (type, id)


def test_the_record_is_sound(opened: Store) -> None:
    """`git fhir verify` finds nothing."""
    assert list(opened.verify()) == []


def test_git_finds_the_record_sound(clinic: Path) -> None:
    """https://git-scm.com/docs/git-fsck"""
    assert git("-C", str(clinic), "fsck", "--full", "--strict") == ""


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        ("03-a-test-patient", {"expect": "refused"}, "told should have been refused"),
        ("10-book-amaras-first-visit", {"ids": []}, "creates more resources than it gives ids"),
        ("10-book-amaras-first-visit", {"ids": ["a", "b"]}, "told gives more ids than it creates"),
        ("03-a-test-patient", {"do": "undo"}, "No step can `undo`"),
    ],
)
def test_a_story_that_the_store_contradicts_leaves_no_folder(
    file: str, change: dict[str, object], problem: str, tmp_path: Path
) -> None:
    """A folder that exists is whole: `make serve` may be stopped at any moment, and a story's mistake is named."""
    story = tmp_path / "story"
    story.mkdir()
    told = json.loads((STORY / f"{file}.json").read_bytes())
    (story / "told.json").write_bytes(json.dumps(told | change))

    with pytest.raises(ValueError, match=problem):
        build(tmp_path / "clinic.git", story)

    assert [path.name for path in tmp_path.iterdir() if "clinic" in path.name] == []


# The folder that is there already


def test_a_clinic_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    """`make serve` for the second time."""
    assert build_once(tmp_path) == f"The sample clinic is in {tmp_path}, HEAD {expected_head()}."
    assert build_once(tmp_path) == f"The sample clinic is in {tmp_path} already, HEAD {expected_head()}."


def test_a_clinic_that_its_user_has_written_to_is_left_as_it_is(tmp_path: Path, ada: Author) -> None:
    """`make serve` for the second time, with writes in between: nothing that someone wrote goes away."""
    build(tmp_path / "clinic.git")
    with Store.open(tmp_path / "clinic.git") as store:
        store.commit([Update(LI, {"resourceType": "Patient", "id": LI.id})], ada)
        written = store.snapshot().commit.id

    assert "has been written to since it was built" in build_once(tmp_path / "clinic.git")

    with Store.open(tmp_path / "clinic.git") as store:
        assert store.snapshot().commit.id == written


def test_a_clinic_with_a_commit_of_plain_git_on_top_counts_as_written_to(tmp_path: Path) -> None:
    """A foreign commit is not on the record, but it is not ours to throw away either."""
    record = str(tmp_path / "clinic.git")
    build(Path(record))
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@clinic.example"]
    foreign = git(
        "-C", record, *identity, "commit-tree", "-p", "main", "-m", "By hand", "main^{tree}"
    ).strip()
    git("-C", record, "update-ref", "refs/heads/main", foreign)

    assert "has been written to since it was built" in build_once(Path(record))


@pytest.mark.parametrize("what", ["files", "another record", "a file"])
def test_a_folder_that_is_something_else_is_refused(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on standard error, exit status 1, and nothing touched."""
    folder = tmp_path / "folder"
    if what == "files":
        folder.mkdir()
        (folder / "letter.txt").write_text("Dear Zoë")
    elif what == "another record":
        init(folder)
    else:
        folder.write_text("Dear Zoë")
    before = sorted(
        path.relative_to(tmp_path) for path in tmp_path.rglob("*") if "git-fhir" not in path.parts
    )

    assert main(["--into", str(folder)]) == 1

    assert re.fullmatch(r".*/folder holds something else than .*\n", capsys.readouterr().err)
    after = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if "git-fhir" not in path.parts)
    assert after == before


def test_a_repository_of_an_unknown_format_is_refused(tmp_path: Path) -> None:
    """Any other git repository holds no record of ours."""
    git("init", "--quiet", "--bare", str(tmp_path / "other.git"))

    with pytest.raises(RepositoryRefused):
        build_once(tmp_path / "other.git")


# The story


def test_each_step_is_one_commit_and_the_refused_one_none(clinic: Path) -> None:
    """A unit of work is a commit; what fails leaves no trace. The request id of a commit names its step."""
    log = git(
        "-C", str(clinic), "log", "--reverse", "--format=%(trailers:key=FHIR-Request-Id,valueonly,separator=)"
    )
    told = list(steps())

    assert log.split() == [step.name for step in told if not step.refused]
    assert [step.name for step in told if step.refused] == ["32-a-new-telephone-number-too-late"]


def test_the_commits_carry_the_authors_times_and_words_of_the_story(opened: Store, clinic: Path) -> None:
    """Who, when and why are what an auditor reads with plain git."""
    log = git("-C", str(clinic), "log", "--reverse", "--format=%an <%ae> %at", "main").splitlines()[1:]
    told = [step for step in steps() if not step.refused]

    assert log == [f"{step.author.name} <{step.author.email}> {step.at // 1_000_000}" for step in told]
    page = opened.snapshot().history(count=1000)
    commits = {version.commit.request_id: version.commit for version in page.versions}
    assert {name: opened.message(commit) for name, commit in commits.items()} == {
        step.name: step.why or "" for step in told
    }


def test_the_refused_edit_is_made_again_on_the_newer_version(opened: Store) -> None:
    """If-Match lost against the emergency contact; the version after it has both.

    https://hl7.org/fhir/R4/http.html#concurrency
    """
    versions = opened.snapshot().history(AMARA).versions

    assert [version.version_id for version in versions] == [4, 3, 2, 1]
    newest, contact, corrected, first = (resource(opened, version) for version in versions)
    assert (first["birthDate"], corrected["birthDate"]) == ("1984-09-13", "1984-03-19")
    assert "contact" in contact
    assert newest["contact"] == contact["contact"]
    assert newest["telecom"] != contact["telecom"] == corrected["telecom"]


def test_the_revived_patient_counts_on_after_her_deletion(opened: Store) -> None:
    """Versions 1, 2, 3 (the deletion) and 4; the revival brings back what was deleted."""
    found = opened.snapshot().history(LI).versions[::-1]

    assert [(version.version_id, version.verb, version.deleted, version.created) for version in found] == [
        (1, "PUT", False, True),
        (2, "PUT", False, False),
        (3, "DELETE", True, False),
        (4, "PUT", False, True),
    ]
    second, fourth = resource(opened, found[1]), resource(opened, found[3])
    del second["meta"], fourth["meta"]
    assert fourth == second
    assert fourth["name"][0]["text"] == "李秀蘭"


def test_the_laboratory_corrects_a_value(opened: Store) -> None:
    """preliminary, final, corrected: each its own version, and the digits are those that the laboratory sent."""
    potassium = ResourceId("Observation", "lab-26-0117-potassium")
    versions = opened.snapshot().history(potassium).versions[::-1]

    told = [resource(opened, version) for version in versions]
    assert [(one["status"], str(one["valueQuantity"]["value"])) for one in told] == [
        ("preliminary", "6.10"),
        ("final", "6.10"),
        ("corrected", "4.20"),
    ]


@pytest.mark.parametrize(
    ("id", "written"),
    [
        ("Observation/lab-26-0117-glucose", b'"value": 7.10,'),
        ("Observation/lab-26-2875-colonies", b'"value": 1.0e5,'),
        ("Immunization/nadia-tdap-2026", b'"value": 0.50,'),
        ("Location/examination-room-1", b'"longitude": -1.3700,'),
    ],
)
def test_numbers_keep_their_digits(opened: Store, id: str, written: bytes) -> None:
    """https://hl7.org/fhir/R4/datatypes.html#decimal: the precision of a decimal has meaning."""
    type, _, name = id.partition("/")
    snapshot = opened.snapshot()

    assert written in snapshot.body(snapshot.read(ResourceId(type, name)))


def test_two_records_of_one_man_become_one(opened: Store) -> None:
    """Patients that link to one another, the visit moved, the second check-up deleted: one commit.

    https://hl7.org/fhir/R4/patient.html#links
    """
    snapshot = opened.snapshot()
    kept = snapshot.read(JOSE)
    left = resource(opened, snapshot.read(ResourceId("Patient", "jose-munoz")))

    assert resource(opened, kept)["link"] == [
        {"other": {"reference": "Patient/jose-munoz"}, "type": "replaces"}
    ]
    assert left["link"] == [{"other": {"reference": str(JOSE)}, "type": "replaced-by"}]
    assert left["active"] is False
    changes = snapshot.changes(kept.commit)
    assert [version.verb for version in changes] == ["PUT"] * 8 + ["DELETE"]
    moved = [resource(opened, version) for version in changes[2:8]]
    assert {one["subject"]["reference"] for one in moved} == {str(JOSE)}


def test_every_reference_resolves_when_it_is_made(opened: Store) -> None:
    """Also those that a transaction makes by urn:uuid or by fullUrl; and in the end none points to a deletion."""
    last = opened.snapshot()
    for sequence in range(1, last.commit.sequence + 1):
        snapshot = opened.snapshot(sequence)
        changed = [version for version in snapshot.changes(snapshot.commit) if not version.deleted]
        for version in changed if sequence < last.commit.sequence else snapshot.resources():
            for _, text in references(json.loads(snapshot.body(version))):
                assert ":" not in text
                type, _, id = text.partition("/")
                assert not snapshot.read(ResourceId(type, id)).deleted


def test_the_story_is_wide_enough_to_try_things_on(opened: Store) -> None:
    """About fifteen types, several authors, some months of 2026, and every interaction there is."""
    told = list(steps())

    assert len(opened.snapshot().counts()) >= 15
    assert 30 <= len(told) <= 60
    assert len({step.author.email for step in told}) == 6
    assert [step.at for step in told] == sorted({step.at for step in told})
    commits = {version.commit for version in opened.snapshot().history(count=1000).versions}
    assert {commit.interaction for commit in commits} == {"create", "update", "delete", "transaction"}


def test_the_readme_names_each_step() -> None:
    """Its table is the story's contents, in the story's order."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d) \| \[.*?\]\(story/(.*?)\.json\) \| (\d+) \| (.*?) \|$", text, re.MULTILINE)

    assert rows == [(step.name[:2], step.name, _day(step), step.author.name) for step in steps()]


def _day(step: Step) -> str:
    return format_instant(step.at)[8:10].removeprefix("0")


# The tour


def test_the_tour_has_three_curl_and_three_git_commands(tmp_path: Path) -> None:
    """For the folder and the address that are given, and it builds nothing."""
    text = tour(tmp_path / "my clinic.git", "::1", 8123)

    commands = [line.strip() for line in text.splitlines() if line.strip().startswith(("curl ", "git "))]
    assert [shlex.split(command, posix=False)[0] for command in commands] == ["curl"] * 3 + ["git"] * 3
    assert all("[::1]:8123/fhir/" in command for command in commands[:2])
    assert all(
        shlex.split(command)[1:3] == ["-C", str(tmp_path / "my clinic.git")] for command in commands[3:]
    )
    assert list(tmp_path.iterdir()) == []


def test_the_git_commands_of_the_tour_show_something(clinic: Path) -> None:
    """Wildcards find a resource's file without knowing its folder."""
    text = tour(clinic, "127.0.0.1", 8080)
    commands = [shlex.split(line) for line in text.splitlines() if line.strip().startswith("git ")]

    log, history, show = (git(*command[1:]) for command in commands)

    assert "2026-01-05 Inês Carvalho: delete Patient/li-xiulan\n" in log
    assert '-  "birthDate": "1984-09-13",\n+  "birthDate": "1984-03-19",\n' in history
    assert history.count("FHIR-Interaction: update") == 4
    assert "53-" not in show
    assert "the plan has done its work" in show


def test_the_urls_of_the_tour_are_those_of_resources_that_are_there(opened: Store) -> None:
    """One history, one vread, and one PUT of a resource that is not there yet."""
    text = tour(Path("clinic.git"), "127.0.0.1", 8080)

    assert re.findall(r"http://127.0.0.1:8080/fhir/(\S+)", text) == [
        f"{LI}/_history",
        f"{AMARA}/_history/1",
        "Patient/me",
    ]
    for known in (LI, AMARA):
        assert not opened.snapshot().read(known).deleted
    body = re.search(r"-d '(.*?)'", text)
    assert body is not None
    assert json.loads(body[1].encode())["id"] == "me"
