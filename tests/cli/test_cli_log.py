"""log: which versions there are, who made them, when and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import GitFhir, git, ndjson


def lines(git_fhir: GitFhir, *arguments: str) -> list[list[str]]:
    """The columns of log without the commit."""
    shown = git_fhir("log", *arguments).stdout.splitlines()
    return [[cell for cell in line.split("  ") if cell][1:] for line in shown]


def test_log_tells_version_date_author_verb_and_why(clinic: Path, git_fhir: GitFhir) -> None:
    """Newest first; a deletion is a version too."""
    assert [[cell.strip() for cell in line] for line in lines(git_fhir, "Patient/example")] == [
        ["Patient/example/_history/4", "2026-01-01T00:04:00Z", "Ada Lovelace", "PUT", "update"],
        ["Patient/example/_history/3", "2026-01-01T00:03:00Z", "Ada Lovelace", "DELETE", "delete"],
        ["Patient/example/_history/2", "2026-01-01T00:02:00Z", "Grace Hopper", "PUT", "update: Married."],
        ["Patient/example/_history/1", "2026-01-01T00:01:00Z", "Ada Lovelace", "PUT", "update: Admission."],
    ]


@pytest.mark.parametrize(
    ("scope", "versions"),
    [
        ([], ["Patient/new-2/_history/1", "Observation/new-1/_history/1", "Patient/example/_history/4"]),
        (
            ["Patient"],
            ["Patient/new-2/_history/1", "Patient/example/_history/4", "Patient/example/_history/3"],
        ),
        (["Observation"], ["Observation/new-1/_history/1"]),
    ],
)
def test_log_of_everything_of_a_type(
    clinic: Path, git_fhir: GitFhir, scope: list[str], versions: list[str]
) -> None:
    """The three histories of FHIR. https://hl7.org/fhir/R4/http.html#history"""
    assert [line[0].strip() for line in lines(git_fhir, *scope, "-n", "3")] == versions


@pytest.mark.parametrize(
    ("period", "versions"),
    [
        (["--since", "2026-01-01T00:04:00Z"], ["4"]),
        (["--until", "2026-01-01T00:02Z"], ["2", "1"]),
        (["--since", "2026-01-01T00:02:00Z", "--until", "2026-01-01T00:03:00Z"], ["3", "2"]),
        (["--since", "2026", "--until", "2026-01"], ["4", "3", "2", "1"]),
        (["--since", "2027"], []),
        (["--until", "2025-12-31"], []),
    ],
)
def test_log_of_a_period_includes_both_ends(
    clinic: Path, git_fhir: GitFhir, period: list[str], versions: list[str]
) -> None:
    """`--until 2026-01` is to the end of January, `--since 2026-01` from its start."""
    result = git_fhir("log", "Patient/example", "--json", *period)

    assert [line["versionId"] for line in ndjson(result)] == versions


def test_log_json_has_every_fact(clinic: Path, git_fhir: GitFhir) -> None:
    """What history reports, with author, commit, request id and why."""
    [line] = ndjson(
        git_fhir("log", "Patient/example", "--until", "2026-01-01T00:02:00Z", "--json", "-n", "1")
    )

    assert line == {
        "resource": "Patient/example",
        "versionId": "2",
        "lastUpdated": "2026-01-01T00:02:00.000000Z",
        "method": "PUT",
        "created": False,
        "interaction": "update",
        "author": {"name": "Grace Hopper", "email": "grace@example.org"},
        "commit": git(clinic, "rev-parse", "main~3").strip(),
        "requestId": "rename-1",
        "message": "Married.\n\nThe second paragraph.",
    }


def test_log_goes_on_over_many_pages(repository: Path, git_fhir: GitFhir) -> None:
    """All versions, each once."""
    resources = "".join(f'{{"resourceType": "Patient", "id": "p{number}"}}\n' for number in range(250))
    git_fhir("import", "-", input=resources)

    seen = [line["resource"] for line in ndjson(git_fhir("log", "--json"))]

    assert seen == [f"Patient/p{number}" for number in reversed(range(250))]
