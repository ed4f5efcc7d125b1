"""`git fhir adopt`, and its --check as git's pre-receive hook, with real pushes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gitstore import path_of
from gitstore.fhir.ids import ResourceId
from tests.cli.conftest import head

PATIENT = ResourceId("Patient", "example")
PATH = path_of(PATIENT)
ZEROS = "0" * 40

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def clone(clinic: Path, tmp_path: Path) -> Run:
    """git in a clone of the clinic with a work tree; pushes over a pipe, as to a server."""
    folder = tmp_path / "clone"

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        who = {f"GIT_{role}_{what}": "Eve" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        found = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**os.environ, **who},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or found.returncode == 0, found.stderr
        return found

    subprocess.run(["git", "clone", "--quiet", clinic, folder], check=True)
    return run


@pytest.fixture
def edit(clone: Run, tmp_path: Path) -> Callable[..., str]:
    """Commits a file of the clone; returns the commit."""

    def commit(path: str = PATH, old: str = "female", new: str = "male") -> str:
        file = tmp_path / "clone" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.read_text().replace(old, new) if file.exists() else new)
        clone("add", "--all")
        clone("commit", "--quiet", "-m", "Correct it")
        return clone("rev-parse", "HEAD").stdout.strip()

    return commit


@pytest.fixture
def hook(clinic: Path) -> None:
    """The hook of docs/operations.md, with the `git-fhir` of this environment."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    script = page.partition("```sh\nmkdir")[2].partition("```")[0]
    assert "git fhir adopt --check" in script
    script = script.replace("git fhir", f"{sys.executable} -P -m cli")
    subprocess.run(  # noqa: S602 - the script of our docs
        f"mkdir{script}", shell=True, cwd=clinic.parent, check=True, env={**os.environ, "RECORD": str(clinic)}
    )
    assert os.access(clinic / "hooks" / "pre-receive", os.X_OK)


def test_adopt_prints_the_versions_it_made(git_fhir, clinic, clone, edit):
    """And the record goes on from there: log, show, diff and verify know them."""
    edit()
    clone("push", "--quiet")

    result = git_fhir("adopt")

    assert result.exit_code == 0
    assert result.stdout == f"{head(clinic)} Eve\nPUT Patient/example/_history/5\n"
    first, *_ = git_fhir("log", "Patient/example").stdout.splitlines()
    assert "Patient/example/_history/5" in first
    assert first.endswith("adopt: Correct it")
    shown = git_fhir("show").stdout
    assert "Author: Eve <Eve>" in shown
    assert "FHIR:   adopt" in shown
    assert "    Correct it" in shown
    assert '~ gender: "female" -> "male"' in shown
    assert '"female" -> "male"' in git_fhir("diff", "Patient/example").stdout
    assert git_fhir("verify").stdout.startswith("clean: ")


def test_adopt_as_json(git_fhir, clinic, clone, edit):
    edit()
    clone("push", "--quiet")

    facts = json.loads(git_fhir("adopt", "--json").stdout)

    assert facts["commit"] == head(clinic)
    [version] = facts["versions"]
    assert (version["resource"], version["versionId"], version["method"]) == ("Patient/example", "5", "PUT")
    assert (version["interaction"], version["author"]["name"]) == ("adopt", "Eve")
    assert json.loads(git_fhir("adopt", "--json").stdout) == {"commit": None, "versions": []}


def test_adopt_without_a_foreign_commit_has_nothing_to_do(git_fhir, clinic):
    before = head(clinic)

    for command in (["adopt"], ["adopt", "--check"]):
        result = git_fhir(*command)
        assert (result.exit_code, result.stdout) == (0, "nothing to adopt\n")

    assert head(clinic) == before


@pytest.mark.parametrize("check", [["--check"], []], ids=["check", "adopt"])
def test_what_is_wrong_is_one_line_for_each_path(git_fhir, clinic, clone, edit, check):
    """Exit code 1, and nothing is written."""
    edit("notes.txt", new="x")
    foreign = edit(old="{", new="[")
    clone("push", "--quiet")

    result = git_fhir("adopt", *check)

    assert result.exit_code == 1
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{PATH}: ")
    assert second.startswith("notes.txt: is no path of a resource")
    result = git_fhir("adopt", "--json", *check)
    assert result.exit_code == 1
    facts = json.loads(result.stdout)
    assert facts["commit"] == foreign
    assert [problem["path"] for problem in facts["problems"]] == [PATH, "notes.txt"]
    assert head(clinic) == foreign


def test_check_changes_nothing(git_fhir, clinic, clone, edit):
    foreign = edit()
    clone("push", "--quiet")

    result = git_fhir("adopt", "--check")

    assert (result.exit_code, result.stdout) == (0, f"{foreign} can be adopted: 1 changed file\n")
    assert json.loads(git_fhir("adopt", "--check", "--json").stdout) == {"commit": foreign, "problems": []}
    assert head(clinic) == foreign


def test_a_rewound_main_is_one_line_and_refused(git_fhir, clinic, clone):
    subprocess.run(["git", "-C", clinic, "update-ref", "refs/heads/main", "main~1"], check=True)
    # The index of the clinic remembers more than main holds.
    for command in (["adopt"], ["adopt", "--check"]):
        result = git_fhir(*command)
        assert result.exit_code == 1
        assert "That can't be adopted" in result.stderr
        assert result.stderr.count("\n") == 1


def test_lines_that_git_does_not_send_are_refused(git_fhir):
    result = git_fhir("adopt", "--check", input="refs/heads/main\n")

    assert result.exit_code == 2
    assert "OLD NEW REF" in result.stderr


# The hook


@pytest.mark.parametrize("unpack_limit", ["100", "1"], ids=["loose objects", "a pack"])
def test_the_hook_accepts_a_good_push(git_fhir, clinic, hook, clone, edit, unpack_limit):
    """Which lies in git's quarantine meanwhile, as loose objects or as a pack."""
    subprocess.run(["git", "-C", clinic, "config", "receive.unpackLimit", unpack_limit], check=True)
    foreign = edit()

    pushed = clone("push", "--quiet")

    assert "remote:" not in pushed.stderr
    assert head(clinic) == foreign
    assert git_fhir("adopt").stdout.endswith("PUT Patient/example/_history/5\n")


@pytest.mark.parametrize("unpack_limit", ["100", "1"], ids=["loose objects", "a pack"])
def test_the_hook_refuses_a_bad_push(clinic, hook, clone, edit, unpack_limit):
    """Who pushes sees each path and why; main stays."""
    subprocess.run(["git", "-C", clinic, "config", "receive.unpackLimit", unpack_limit], check=True)
    before = head(clinic)
    edit("notes.txt", new="x")
    edit(old='"id": "example"', new='"id": "other"')

    pushed = clone("push", "--quiet", check=False)

    assert pushed.returncode != 0
    assert f'remote: {PATH}: the file has the id "other"; its path asks for `example`' in pushed.stderr
    assert "remote: notes.txt: is no path of a resource" in pushed.stderr
    assert "pre-receive hook declined" in pushed.stderr
    assert head(clinic) == before


def test_the_hook_accepts_what_git_fhir_committed_elsewhere(git_fhir, clinic, hook, clone, edit, tmp_path):
    """A bare clone's own versions need no adoption."""
    copy = tmp_path / "copy.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", clinic, copy], check=True)
    edit()
    subprocess.run(["git", "-C", tmp_path / "clone", "push", "--quiet", copy, "HEAD:main"], check=True)
    command = [sys.executable, "-P", "-m", "cli", "-C", str(copy), "adopt"]
    subprocess.run(command, check=True, capture_output=True)

    pushed = subprocess.run(
        ["git", "-C", copy, "push", "--quiet", clinic, "main"], check=True, capture_output=True, text=True
    )

    assert pushed.stderr == ""
    assert git_fhir("adopt").stdout == "nothing to adopt\n"
    assert "Patient/example/_history/5" in git_fhir("log", "-n", "1").stdout


def test_a_forced_push_is_refused_with_the_hook_and_without(request, clinic, clone, edit):
    """The hook says why; without it receive.denyNonFastForwards, which init sets, says no."""
    before = head(clinic)
    clone("reset", "--quiet", "--hard", "HEAD~1")
    edit()

    pushed = clone("push", "--quiet", "--force", check=False)
    assert "denying non-fast-forward" in pushed.stderr
    request.getfixturevalue("hook")
    pushed = clone("push", "--quiet", "--force", check=False)
    assert "rewound or forced main is never adopted" in pushed.stderr.replace("\nremote: ", " ")
    assert "pre-receive hook declined" in pushed.stderr

    assert head(clinic) == before


def test_the_hook_minds_main_only(clinic, hook, clone, edit):
    """Other branches are no part of the record, so there may be anything on them; main can't be deleted."""
    edit("notes.txt", new="x")

    clone("push", "--quiet", "origin", "HEAD:idea")

    pushed = clone("push", "--quiet", "origin", ":main", check=False)
    assert "main is the record; it can't be deleted" in pushed.stderr


def test_the_hook_reads_what_git_sends_it(git_fhir, clinic, clone, edit):
    """Several references in one push: the one that counts is found."""
    foreign = edit(old="{", new="[")
    subprocess.run(["git", "-C", clinic, "fetch", "--quiet", clinic.parent / "clone"], check=True)
    good = head(clinic)
    lines = [f"{ZEROS} {foreign} refs/heads/idea", f"{good} {foreign} refs/heads/main"]

    refused = git_fhir("adopt", "--check", input="\n".join(lines) + "\n")
    other = git_fhir("adopt", "--check", input=lines[0] + "\n")

    assert (refused.exit_code, other.exit_code, other.output) == (1, 0, "")
    assert refused.stdout.startswith(PATH)
    assert head(clinic) == good


def test_any_argument_that_git_gives_is_honoured(clinic, clone, edit, tmp_path):
    """GIT_OBJECT_DIRECTORY and GIT_ALTERNATE_OBJECT_DIRECTORIES too: the objects lie in the clone only."""
    foreign = edit()
    objects = str(tmp_path / "clone" / ".git" / "objects")
    line = f"{head(clinic)} {foreign} refs/heads/main\n"

    def check(**environment: str) -> int:
        command = [sys.executable, "-P", "-m", "cli", "-C", str(clinic), "adopt", "--check"]
        env: dict[str, Any] = {**os.environ, **environment}
        return subprocess.run(
            command, input=line, env=env, capture_output=True, text=True, check=False
        ).returncode

    assert check() == 1
    assert check(GIT_OBJECT_DIRECTORY=objects) == 0
    assert check(GIT_ALTERNATE_OBJECT_DIRECTORIES=f"{tmp_path / 'nowhere'}{os.pathsep}{objects}") == 0
