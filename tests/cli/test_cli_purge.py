"""`git fhir purge`. docs/security.md, "Erasure" """

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli import purging
from tests.cli.conftest import head, said


def test_purge_says_what_it_removed_and_what_it_cannot_reach(git_fhir: Any, clinic: Path) -> None:
    """By who git says it is, with the reason; copies elsewhere are named."""
    result = git_fhir("purge", "Patient/example/_history/1", "-m", "Wrong patient.", "--yes")

    assert result.exit_code == 0, result.output
    first, second, third, last = result.stdout.splitlines()
    assert first == f"{head(clinic)} Grace Hopper"
    assert second == "purged Patient/example/_history/1"
    assert third == "5 commits were made anew; these refs moved: refs/heads/main"
    assert last.startswith("Clones, mirrors, bundles, exports and backups")
    assert said(clinic).startswith("Grace Hopper|purge\n\nWrong patient.\n\n")
    gone = git_fhir("cat", "Patient/example/_history/1")
    assert (gone.exit_code, gone.stdout) == (3, "")
    assert "was purged by Grace Hopper on" in gone.stderr
    assert git_fhir("verify").stdout.startswith("clean: ")
    assert "Patient/example/_history/1 " not in git_fhir("log").stdout


def test_purge_of_everything_about_a_resource(git_fhir: Any, clinic: Path) -> None:
    """Several at once, in one commit; old commit ids go on to be understood."""
    old = head(clinic)

    result = git_fhir(
        "purge",
        "Patient/example",
        "Observation/new-1",
        "-m",
        "Both.",
        "--author",
        "Eve <e@x.org>",
        "--yes",
        "--json",
    )

    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["commit"] == head(clinic)
    assert len(said["purged"]) == 5
    assert (said["cut"], said["refs"]) == ([], ["refs/heads/main"])
    assert "out of reach" in said["outOfReach"]
    shown = git_fhir("show", old, "--json")
    assert [change["resource"] for change in json.loads(shown.stdout)["changes"]] == ["Patient/new-2"]
    assert git_fhir("cat", "Patient/example").exit_code == 3
    assert git_fhir("verify").exit_code == 0


def test_a_dry_run_shows_what_would_go(git_fhir: Any, clinic: Path) -> None:
    before = head(clinic)

    result = git_fhir("purge", "Patient/example", "-m", "Why.", "--dry-run")

    assert result.exit_code == 0, result.output
    assert [line.split("  ")[0] for line in result.stdout.splitlines()] == [
        f"Patient/example/_history/{number}" for number in (1, 2, 3, 4)
    ]
    told = git_fhir("purge", "Patient/example/_history/1", "-m", "Why.", "--dry-run", "--json")
    assert json.loads(told.stdout) == {"purge": ["Patient/example/_history/1"], "alike": [], "words": []}
    assert head(clinic) == before


def test_nothing_goes_unless_somebody_says_so(git_fhir: Any, clinic: Path) -> None:
    """Without --yes and without a terminal it is refused; a reason is demanded."""
    before = head(clinic)

    asked = git_fhir("purge", "Patient/example", "-m", "Why.")
    unexplained = git_fhir("purge", "Patient/example", "--yes")

    assert (asked.exit_code, asked.stdout) == (1, "")
    assert (
        asked.stderr == "git-fhir: nothing is purged without --yes, or somebody at a terminal who says so.\n"
    )
    assert unexplained.exit_code == 2
    assert head(clinic) == before


@pytest.mark.parametrize(("answer", "status"), [("n\n", 1), ("y\n", 0)])
def test_at_a_terminal_it_asks(
    git_fhir: Any, clinic: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    """It shows what will go, and takes a no."""
    monkeypatch.setattr(purging, "_is_terminal", lambda: True)
    before = head(clinic)

    result = git_fhir("purge", "Patient/example/_history/2", "-m", "Why.", input=answer)

    assert result.exit_code == status
    assert "Patient/example/_history/2  2026-01-01" in result.stderr
    assert "Remove this from all history, for good?" in result.stderr
    assert (head(clinic) == before) == bool(status)


def test_the_newest_version_is_refused(git_fhir: Any, clinic: Path) -> None:
    result = git_fhir("purge", "Patient/example/_history/4", "-m", "Why.", "--yes")

    assert result.exit_code == 1
    assert "is the newest version of its resource" in result.stderr
    assert git_fhir("purge", "Patient/unknown", "-m", "Why.", "--yes").exit_code == 3
