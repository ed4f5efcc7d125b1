"""`git fhir restore` and `git fhir revert`. docs/audit.md"""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import head, said


def test_restore_prints_the_version_it_made(git_fhir, clinic):
    """By who git says it is, with the words of -m."""
    result = git_fhir("restore", "Patient/example", "1", "-m", "Wrong patient.")

    assert result.exit_code == 0, result.output
    assert result.stdout == f"{head(clinic)} Grace Hopper\nPUT Patient/example/_history/5\n"
    assert json.loads(git_fhir("cat", "Patient/example").stdout)["name"] == [{"family": "Lovelace"}]
    assert said(clinic).startswith(
        "Grace Hopper|restore Patient/example\n\nWrong patient.\n\nFHIR-Interaction: restore\n"
    )
    assert "FHIR-Restores: Patient/example/_history/1\n" in said(clinic)
    assert git_fhir("verify").stdout.startswith("clean: ")


def test_restore_of_what_was_deleted_needs_no_version(git_fhir, clinic):
    git_fhir("revert", "main~1")  # the revival

    result = git_fhir("restore", "Patient/example", "--author", "Eve <eve@example.org>")

    assert result.exit_code == 0, result.output
    assert result.stdout == f"{head(clinic)} Eve\nPUT Patient/example/_history/6\n"
    assert "FHIR-Restores: Patient/example/_history/4\n" in said(clinic)


def test_revert_undoes_a_commit(git_fhir, clinic):
    """The last one made an Observation and a Patient, and the one before it had revived a Patient."""
    last = head(clinic)

    result = git_fhir("revert", "main", "-m", "Twice.")

    assert result.exit_code == 0, result.output
    first, *made = result.stdout.splitlines()
    assert first == f"{head(clinic)} Grace Hopper"
    assert [line.split("/")[0] for line in made] == ["DELETE Observation", "DELETE Patient"]
    assert f"\n\nTwice.\n\nThis reverts commit {last}.\n\n" in said(clinic)
    assert git_fhir("verify").stdout.startswith("clean: ")


def test_a_dry_run_shows_what_would_change_and_writes_nothing(git_fhir, clinic):
    """Against the current version, by element."""
    before = head(clinic)

    restored = git_fhir("restore", "Patient/example/_history/2", "--dry-run")
    undone = git_fhir("revert", "main", "--dry-run")

    assert restored.stdout.startswith("PUT Patient/example/_history/5, as version 2\n")
    assert '  - gender: "female"' in restored.stdout.splitlines()
    assert '  + birthDate: "1815-12-10"' in restored.stdout.splitlines()
    assert [line for line in undone.stdout.splitlines() if not line.startswith("  ")] == [
        "DELETE Observation/new-1/_history/2",
        "DELETE Patient/new-2/_history/2",
    ]
    assert head(clinic) == before


def test_both_print_json(git_fhir, clinic):
    """For programs: the versions that were made, or with --dry-run what would change."""
    [change] = json.loads(git_fhir("restore", "Patient/example", "2", "--dry-run", "--json").stdout)[
        "changes"
    ]
    facts = json.loads(git_fhir("restore", "Patient/example", "2", "--json").stdout)

    assert {name: change[name] for name in ("resource", "versionId", "method", "restores")} == {
        "resource": "Patient/example",
        "versionId": "5",
        "method": "PUT",
        "restores": "2",
    }
    assert {"path": "gender", "old": "female"} in change["differences"]
    assert facts["commit"] == head(clinic)
    [version] = facts["versions"]
    assert (version["resource"], version["versionId"], version["interaction"]) == (
        "Patient/example",
        "5",
        "restore",
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["restore", "Patient/example"], 1),
        (["restore", "Patient/example", "4"], 1),
        (["restore", "Patient/example", "3"], 1),
        (["restore", "Patient/example", "5"], 3),
        (["restore", "Patient/nobody"], 3),
        (["restore", "Patient/example/_history/1", "2"], 2),
        (["restore", "Patient/example", "0"], 2),
        (["revert", "main~2"], 1),
        (["revert", "main~5"], 1),
        (["revert", "nothing"], 3),
        (["revert"], 2),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_what_is_refused_writes_nothing(git_fhir, clinic, arguments, code, dry):
    """With the exit code that other commands have for it."""
    before = head(clinic)

    result = git_fhir(*arguments, *dry)

    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr
    assert head(clinic) == before


def test_revert_lists_all_that_is_in_the_way(git_fhir, clinic):
    """A line on stderr for each resource."""
    last = head(clinic)
    for id in ("Observation/new-1", "Patient/new-2"):
        git_fhir("revert", last)
        assert git_fhir("restore", id).exit_code == 0

    result = git_fhir("revert", last)

    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.partition(", made by Grace Hopper on ")[0] for line in lines] == [
        "git-fhir: `Observation/new-1` is at version 3",
        "git-fhir: `Patient/new-2` is at version 3",
    ]
