"""show and diff: changes by element."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import GitFhir, git, ndjson

RENAMED = [
    '+ name[0]: {"text":"Countess"}',
    '~ name[1].family: "Lovelace" -> "King"',
    '+ birthDate: "1815-12-10"',
]


def test_show_tells_a_commit_as_fhir_changes(clinic: Path, git_fhir: GitFhir) -> None:
    """Who, when, why, and each change by element."""
    commit = git(clinic, "rev-parse", "main~3").strip()

    assert git_fhir("show", "main~3").stdout.splitlines() == [
        f"commit {commit}",
        "Author: Grace Hopper <grace@example.org>",
        "Date:   2026-01-01T00:02:00.000000Z",
        "FHIR:   update, request rename-1",
        "",
        "    Married.",
        "    ",
        "    The second paragraph.",
        "",
        "PUT Patient/example/_history/2",
        *(f"  {line}" for line in RENAMED),
    ]


def test_show_is_of_the_last_commit_by_default(clinic: Path, git_fhir: GitFhir) -> None:
    """A transaction with all that it made, in the order of the Bundle."""
    shown = [line for line in git_fhir("show").stdout.splitlines() if line.startswith(("POST", "PUT"))]

    assert shown == ["POST Observation/new-1/_history/1", "POST Patient/new-2/_history/1"]


def test_show_tells_deletion_and_revival_element_by_element(clinic: Path, git_fhir: GitFhir) -> None:
    """A deletion removes every element; after it, a revival brings all of its own."""
    deletion = git_fhir("show", "main~2").stdout
    revival = git_fhir("show", "main~1").stdout

    assert '  - birthDate: "1815-12-10"' in deletion
    assert "  + " not in deletion
    assert '  + gender: "female"' in revival
    assert "  - " not in revival


def test_show_json_is_one_document(clinic: Path, git_fhir: GitFhir) -> None:
    """An addition has no `old`, a removal no `new`."""
    facts = json.loads(git_fhir("show", "main~3", "--json").stdout)

    assert facts["message"] == "Married.\n\nThe second paragraph."
    assert facts["sequence"] == 3
    [change] = facts["changes"]
    assert (change["resource"], change["versionId"], change["created"]) == ("Patient/example", "2", False)
    assert change["differences"] == [
        {"path": "name[0]", "new": {"text": "Countess"}},
        {"path": "name[1].family", "old": "Lovelace", "new": "King"},
        {"path": "birthDate", "new": "1815-12-10"},
    ]


@pytest.mark.parametrize(
    ("arguments", "header"),
    [
        (["Patient/example", "1", "2"], ["--- Patient/example/_history/1", "+++ Patient/example/_history/2"]),
        (
            ["Patient/example/_history/1", "Patient/example/_history/2"],
            ["--- Patient/example/_history/1", "+++ Patient/example/_history/2"],
        ),
    ],
)
def test_diff_tells_path_old_and_new(
    clinic: Path, git_fhir: GitFhir, arguments: list[str], header: list[str]
) -> None:
    """Two versions by number, or two references."""
    assert git_fhir("diff", *arguments).stdout.splitlines() == [*header, *RENAMED]


def test_diff_of_a_reference_is_of_its_last_two_versions(clinic: Path, git_fhir: GitFhir) -> None:
    """Here the last but one is a deletion, in which nothing is."""
    assert git_fhir("diff", "Patient/example").stdout.splitlines()[:2] == [
        "--- Patient/example/_history/3",
        "+++ Patient/example/_history/4",
    ]
    assert '+ gender: "female"' in git_fhir("diff", "Patient/example").stdout
    assert git_fhir("diff", "Patient/new-2").stdout.startswith("--- nothing\n+++ Patient/new-2/_history/1\n")


@pytest.mark.parametrize("arguments", [["Patient/example", "2"], ["Patient/example/_history/2"]])
def test_diff_with_one_version_is_with_the_current_one(
    clinic: Path, git_fhir: GitFhir, arguments: list[str]
) -> None:
    """What has happened since."""
    shown = git_fhir("diff", *arguments).stdout.splitlines()

    assert shown[:2] == ["--- Patient/example/_history/2", "+++ Patient/example/_history/4"]
    assert '+ gender: "female"' in shown


def test_diff_of_two_resources(clinic: Path, git_fhir: GitFhir) -> None:
    """Their ids differ, and what else does; --json is a line for each element."""
    lines = ndjson(git_fhir("diff", "Patient/example", "Patient/new-2", "--json"))

    assert {"path": "id", "old": "example", "new": "new-2"} in lines
    assert {"path": "gender", "old": "female"} in lines


def test_diff_of_what_is_equal_prints_nothing(clinic: Path, git_fhir: GitFhir) -> None:
    """As git diff does."""
    result = git_fhir("diff", "Patient/example", "1", "1")

    assert (result.stdout, result.exit_code) == ("", 0)
