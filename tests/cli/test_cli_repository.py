"""init, serve, verify and reindex."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main
from tests.cli.conftest import GitFhir, command, git, ndjson


def test_init_makes_a_bare_repository(tmp_path: Path) -> None:
    """One that plain git can read at once."""
    place = tmp_path / "new.git"

    result = CliRunner().invoke(main, ["init", str(place)])

    assert result.stdout == f"Initialized empty FHIR repository in {place}\n"
    assert git(place, "rev-parse", "--is-bare-repository", "--abbrev-ref", "HEAD") == "true\nmain\n"
    assert "git-fhir.json" in git(place, "ls-tree", "--name-only", "HEAD")


def test_init_takes_the_current_folder(tmp_path: Path) -> None:
    """As git does, and -C names it."""
    place = tmp_path / "here"
    place.mkdir()

    result = CliRunner().invoke(main, ["-C", str(place), "init", "--json"])

    assert json.loads(result.stdout) == {"repository": str(place)}
    assert (place / "HEAD").exists()


def test_init_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    """Nothing of anybody's is overwritten."""
    (tmp_path / "thesis.txt").touch()

    result = CliRunner().invoke(main, ["init", str(tmp_path)])

    assert result.exit_code == 128
    assert result.stderr.startswith("git-fhir: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt"]


def test_serve_becomes_the_api(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process turns into `python -m api`, so that signals reach the server itself; a folder `api` isn't taken for it."""
    (repository / "api").mkdir()
    (repository / "api" / "__main__.py").write_text("raise SystemExit('the wrong api')")
    arguments = command("-C", repository, "serve", "--host", "192.0.2.1", "--threads", "0")
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == 2

    # An address of nobody's: the api refuses it at once, in its own words.
    arguments[-1] = "4"
    answer = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30)

    assert answer.returncode != 0
    assert answer.stderr.startswith("git-fhir: 192.0.2.1 port")
    assert "wrong" not in answer.stderr
    assert "Traceback" not in answer.stderr


def test_serve_needs_a_repository(tmp_path: Path) -> None:
    """Refused before anything is started."""
    result = CliRunner().invoke(main, ["-C", str(tmp_path), "serve"])

    assert result.exit_code == 128
    assert result.stderr.startswith("git-fhir: ")


def test_serve_serves_a_folder_of_repositories(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--root DIR; it is no place for another way to name one repository, and --open is for it alone."""
    folder = str(repository.parent)
    arguments = command("serve", "--root", folder, "--open", "2", "--host", "192.0.2.1")
    answer = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30)
    assert answer.stderr.startswith("git-fhir: 192.0.2.1 port"), answer.stderr

    named = CliRunner().invoke(main, ["-C", str(repository), "serve", "--root", folder])
    alone = CliRunner().invoke(main, ["-C", str(repository), "serve", "--open", "2"])
    monkeypatch.setenv("GIT_DIR", str(repository))
    set_outside = CliRunner().invoke(main, ["serve", "--root", folder])

    assert [named.exit_code, alone.exit_code, set_outside.exit_code] == [2, 2, 2]
    assert "--root" in named.stderr


def test_verify_says_that_a_clean_record_is_clean(clinic: Path, git_fhir: GitFhir) -> None:
    """One line, and with --json no finding."""
    result = git_fhir("verify")

    assert (result.stdout, result.exit_code) == ("clean: 6 commits\n", 0)
    assert git_fhir("verify", "--json").stdout == ""


def test_verify_names_what_is_wrong_and_exits_with_1(clinic: Path, git_fhir: GitFhir, tmp_path: Path) -> None:
    """A commit by hand is no unit of work of ours."""
    work = tmp_path / "work"
    git(clinic, "clone", "--quiet", str(clinic), str(work))
    (work / "note.txt").write_text("by hand")
    git(work, "add", "note.txt")
    git(work, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "-m", "by hand")
    git(work, "push", "--quiet", "origin", "main")
    commit = git(clinic, "rev-parse", "main").strip()

    result = git_fhir("verify")

    assert result.exit_code == 1
    assert commit[:7] in result.stdout
    findings = ndjson(git_fhir("verify", "--json"))
    assert findings
    assert all(finding.keys() == {"kind", "where", "text"} for finding in findings)


def test_reindex_reads_all_commits_again(clinic: Path, git_fhir: GitFhir) -> None:
    """The record answers the same before and after."""
    before = git_fhir("log", "--json").stdout

    assert git_fhir("reindex").stdout == "indexed 6 commits\n"
    facts = json.loads(git_fhir("reindex", "--json").stdout)

    assert facts == {"commits": 6, "commit": git(clinic, "rev-parse", "main").strip()}
    assert git_fhir("log", "--json").stdout == before
