"""`git fhir diverged` and `git fhir diverged apply`; the session of docs/diverged.md is this one."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from cli import diverged as command
from gitstore import Create, Delete, HubUnreachable, Settings, Store, Update, path_of
from gitstore.fhir.ids import ResourceId
from tests.cli.conftest import ADA, GRACE, MINUTE, PATIENT, START, git, head, ndjson, patient
from tests.conftest import copy_record

PAGE = (Path(__file__).parents[2] / "docs" / "diverged.md").read_text(encoding="utf-8")
PATH = path_of(PATIENT)
OBSERVATION = ResourceId("Observation", "old-1")


def node(path: Path, name: str, minute: int) -> Store:
    """A node whose commits are a minute apart."""
    minutes, numbers = itertools.count(minute), itertools.count(1)
    return Store.open(
        path,
        Settings(durability="off", validation="off"),
        clock=lambda: START + next(minutes) * MINUTE,
        new_id=lambda: f"{name}-{next(numbers)}",
    )


@pytest.fixture
def fork(clinic: Path, tmp_path: Path) -> Path:
    """The clinic, to which a node did not push three commits; meanwhile Grace changed Patient/example on another one."""
    with node(copy_record(clinic, tmp_path / "old.git"), "old", 10) as old:
        old.commit(
            [Update(PATIENT, patient(gender="female", birthDate="1815-12-10"))], ADA, message="Passport."
        )
        old.commit([Create({"resourceType": "Observation", "status": "final"})], GRACE)
        old.commit([Update(PATIENT, patient(gender="female", deceasedDateTime="1852-11-27"))], ADA)
    with node(clinic, "new", 20) as new:
        new.commit([Update(PATIENT, patient(gender="female", active=True))], GRACE)
    id = head(tmp_path / "old.git")
    ref = f"refs/git-fhir/diverged/20260101T002500Z-{id[:8]}"
    git(clinic, "fetch", "--quiet", str(tmp_path / "old.git"), f"main:{ref}")
    return clinic


def typed(shell: str) -> str:
    """What the page says that a command prints; commits that are made now have any id."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    [found] = [printed for block in blocks for line, printed in session(block) if line == shell]
    return found


def session(block: str) -> list[tuple[str, str]]:
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def masked(text: str) -> str:
    return re.sub(r"(applied as|settled in) [0-9a-f]{10}", r"\1 ??????????", text)


def test_the_page_is_real(git_fhir, fork):
    """List, look, foretell, apply, list again."""
    listed = git_fhir("diverged")
    assert (listed.stdout, listed.exit_code) == (typed("git fhir diverged"), 0)
    foretold = git_fhir("diverged", "apply", "--dry-run")
    assert (foretold.stdout, foretold.exit_code) == (listed.stdout, 1)
    [shown] = re.findall(r"^\$ (git show .*)$", PAGE, re.MULTILINE)
    assert f"    {shown.replace('--format= ', '')}\n" in listed.stdout
    assert git(fork, *shown.split()[1:]) == typed(shown)

    applied = git_fhir("diverged", "apply")
    assert (masked(applied.stdout), applied.exit_code) == (masked(typed("git fhir diverged apply")), 1)
    assert git_fhir("verify").stdout.startswith("clean: ")


def test_what_was_applied_is_listed_when_asked_for(git_fhir, fork):
    before = git_fhir("diverged", "apply")
    commit = head(fork)

    again = git_fhir("diverged", "apply")
    assert (again.exit_code, commit) == (1, head(fork))
    assert "applied" not in again.stdout
    assert git_fhir("diverged").stdout == again.stdout
    assert f"applied as {commit[:10]}" in before.stdout
    assert git_fhir("diverged", "--applied").stdout == before.stdout


def test_a_conflict_is_resolved_by_taking_its_side(git_fhir, fork):
    """Then what builds on it applies, and nothing is left."""
    conflict = ndjson(git_fhir("diverged", "--json"))[0]
    with node(fork, "new", 30) as store:
        store.commit([Update(PATIENT, patient(gender="female", birthDate="1815-12-10"))], GRACE)

    assert [one["state"] for one in ndjson(git_fhir("diverged", "--applied", "--json"))] == [
        "applied",
        "applies",
        "applies",
    ]
    applied = git_fhir("diverged", "apply")
    assert (applied.exit_code, conflict["commit"][:10] in applied.stdout) == (0, False)
    assert git_fhir("diverged").stdout == "nothing is left of what has diverged\n"


def test_what_is_settled_is_listed_when_asked_for(git_fhir, fork):
    """The session of the page, whose commits have the ids of this fork."""
    git_fhir("diverged", "apply")
    conflict, last = ndjson(git_fhir("diverged", "--json"))

    settled = git_fhir(
        "diverged", "settle", conflict["commit"][:10], "-m", "The passport has a typing error."
    )
    assert (masked(settled.stdout), settled.exit_code) == (
        masked(typed('git fhir diverged settle 21c5a6eeb9 -m "The passport has a typing error."')),
        0,
    )
    assert [one["commit"] for one in ndjson(git_fhir("diverged", "--json"))] == [last["commit"]]
    assert git_fhir("diverged", "settle", last["ref"], "-m", "She lives.").exit_code == 0

    assert git_fhir("diverged").stdout == "nothing is left of what has diverged\n"
    assert git_fhir("diverged", "apply").exit_code == 0
    shown = ndjson(git_fhir("diverged", "--applied", "--json"))
    assert [one["state"] for one in shown] == ["settled", "applied", "settled"]
    assert shown[2]["by"] == head(fork)
    assert "She lives." in git(fork, "log", "-1", "--format=%an%n%B", "main")
    assert git_fhir("verify").stdout.startswith("clean: ")


def test_who_settles_says_why(git_fhir, fork):
    tip = head(fork)
    for words in ([], ["-m", " "]):
        assert git_fhir("diverged", "settle", "21c5a6eeb9", *words).exit_code == 2
    unknown = git_fhir("diverged", "settle", "0000000", "-m", "Seen.")
    assert (unknown.exit_code, head(fork)) == (3, tip)
    assert "`0000000` is no commit that has diverged" in unknown.stderr


def test_a_record_of_one_node_has_nothing_diverged(git_fhir, clinic):
    assert git_fhir("diverged").stdout == "nothing is left of what has diverged\n"
    assert git_fhir("diverged", "--json").stdout == ""
    result = git_fhir("diverged", "apply")
    assert (result.stdout, result.exit_code) == ("nothing to apply\n", 0)


def test_as_json_each_commit_is_a_line(git_fhir, fork):
    """With all that is needed to go on by hand."""
    main = head(fork)

    conflict, applied, last = ndjson(git_fhir("diverged", "apply", "--json"))

    assert conflict == {
        "ref": git(fork, "for-each-ref", "--format=%(refname)", "refs/git-fhir").strip(),
        "base": git(fork, "rev-parse", f"{main}~1").strip(),
        "commit": conflict["commit"],
        "state": "conflicts",
        "author": {"name": ADA.name, "email": ADA.email},
        "lastUpdated": "2026-01-01T00:10:00.000000Z",
        "interaction": "update",
        "changes": [{"method": "PUT", "resource": "Patient/example", "versionId": "5", "path": PATH}],
        "by": None,
        "reasons": [
            {
                "text": f"main is at version 5, made by Grace Hopper on 2026-01-01T00:20:00.000000Z (update {main})",
                "resource": "Patient/example",
                "path": PATH,
                "versionId": "5",
                "base": "4",
                "main": {"versionId": "5", "commit": main},
            }
        ],
    }
    assert '"1815-12-10"' in git(fork, "show", conflict["commit"], "--", PATH)
    assert (applied["state"], applied["by"], applied["reasons"]) == ("applied", head(fork), [])
    assert applied["changes"][0]["resource"] == str(OBSERVATION)
    assert (
        last["reasons"][0]["text"]
        == f"it builds on what commit {conflict['commit']} made of it, which main doesn't have"
    )


def test_json_and_applied_stand_before_or_after(git_fhir, fork):
    """They are options of `diverged`, and so of what it does."""
    assert (
        git_fhir("diverged", "--json", "apply", "--dry-run").stdout == git_fhir("diverged", "--json").stdout
    )
    git_fhir("diverged", "apply")
    assert len(ndjson(git_fhir("diverged", "--applied", "apply", "--json"))) == 3


def test_a_ref_that_is_not_there_is_not_found(git_fhir, fork):
    result = git_fhir("diverged", "apply", "20260101T000000Z-00000000")

    assert result.exit_code == 3
    assert "git-fhir: There is no `refs/git-fhir/diverged/20260101T000000Z-00000000`" in result.stderr


def test_only_the_refs_that_are_named_are_applied(git_fhir, fork):
    with node(fork, "new", 30) as store:
        store.commit([Delete(ResourceId("Patient", "new-2"))], GRACE)
    git(fork, "update-ref", "refs/git-fhir/diverged/20250101T000000Z-00000000", "main~1")
    ref = git(fork, "for-each-ref", "--format=%(refname:lstrip=3)", "refs/git-fhir/diverged/2026*").strip()

    assert [one["state"] for one in ndjson(git_fhir("diverged", "apply", "--json", ref))] == [
        "conflicts",
        "applied",
        "conflicts",
    ]


def test_foreign_commits_are_told_with_their_reason(git_fhir, clinic, monkeypatch):
    """Whoever made them by hand may have written anything: nothing of it steers the terminal."""
    tree = git(clinic, "rev-parse", "main^{tree}").strip()
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Eve\x1b[31m")
    made = git(
        clinic,
        "-c",
        "user.name=Eve",
        "-c",
        "user.email=eve@example.org",
        "commit-tree",
        tree,
        "-p",
        "main",
        "-m",
        "By hand",
    ).strip()
    git(clinic, "update-ref", "refs/git-fhir/diverged/x", made)

    result = git_fhir("diverged", "apply")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1:] == [
        f"{made[:10]} foreign: by Eve\\x1b[31m",
        "  its message doesn't end in FHIR trailers",
    ]


def test_without_the_hub_there_is_what_is_here(capsys):
    """That it could not be asked is told on stderr."""

    class Cluster:
        def fetch_diverged(self) -> None:
            raise HubUnreachable("The hub does not answer.")

    class Record:
        cluster = Cluster()

    command._fetch(Record())
    assert capsys.readouterr().err == "git-fhir: The hub does not answer.\n"
