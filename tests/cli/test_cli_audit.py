"""blame, changes, and diff --patch. docs/audit.md"""

from __future__ import annotations

import json
from pathlib import Path

from gitstore.fhir.compare import same
from gitstore.fhir.patch import of_parameters
from tests.cli.conftest import GitFhir, git, ndjson


def test_blame_tells_who_set_each_element(clinic: Path, git_fhir: GitFhir) -> None:
    """One line for each element, the commit first, as git blame has it."""
    result = git_fhir("blame", "Patient/example/_history/2")

    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[1] for line in lines] == ["2", "2", "2"]
    assert [line[-2:] for line in lines] == [
        ["Patient.name[0].text", '"Countess"'],
        ["Patient.name[1].family", '"King"'],
        ["Patient.birthDate", '"1815-12-10"'],
    ]
    assert all("Grace Hopper" in line for line in result.stdout.splitlines())


def test_blame_for_programs(clinic: Path, git_fhir: GitFhir) -> None:
    """Version, instant, author and commit, with the value."""
    [gender] = ndjson(git_fhir("blame", "Patient/example", "--json"))

    assert (gender["path"], gender["value"], gender["versionId"]) == ("Patient.gender", "female", "4")
    assert gender["author"]["name"] == "Ada Lovelace"
    assert git(clinic, "cat-file", "-t", gender["commit"]) == "commit\n"


def test_blame_of_nothing(clinic: Path, git_fhir: GitFhir) -> None:
    """Exit code 3 for what isn't there or was deleted; 2 for a version that is given twice."""
    assert git_fhir("blame", "Patient/nobody").exit_code == 3
    assert git_fhir("blame", "Patient/example", "--version", "3").exit_code == 3
    assert git_fhir("blame", "Patient/example/_history/1", "--version", "1").exit_code == 2


def test_changes_are_net(clinic: Path, git_fhir: GitFhir) -> None:
    """Between the second version and now: deleted and revived is updated."""
    lines = git_fhir("changes", "HEAD~3").stdout.splitlines()

    assert [line.split()[:3] for line in lines] == [
        ["created", "Patient/new-2", "..1"],
        ["created", "Observation/new-1", "..1"],
        ["updated", "Patient/example", "2..4"],
    ]
    assert [line["change"] for line in ndjson(git_fhir("changes", "HEAD~3", "HEAD~2", "--json"))] == [
        "deleted"
    ]
    assert ndjson(git_fhir("changes", "HEAD~5", "HEAD~2", "--json")) == []


def test_changes_between_points(clinic: Path, git_fhir: GitFhir) -> None:
    """Instants, days, tags and commits, as over HTTP."""
    git(clinic, "tag", "v1", "main~2")
    first = git(clinic, "log", "--format=%H", "main").split()[-1]

    assert len(ndjson(git_fhir("changes", first, "--json"))) == 3
    assert len(ndjson(git_fhir("changes", "v1", "--json"))) == 3
    assert len(ndjson(git_fhir("changes", "2026-01-01T00:00:00Z", "2026-01-01", "--json"))) == 3
    assert len(ndjson(git_fhir("changes", "v1", "--type", "Observation", "--json"))) == 1
    assert git_fhir("changes", "2025-12-31").exit_code == 3
    assert git_fhir("changes", "v2").exit_code == 3
    assert git_fhir("changes", "HEAD", "v1").exit_code != 0
    assert git_fhir("changes", "v1", "--type", "Patent").exit_code == 2


def test_a_difference_as_a_patch(clinic: Path, git_fhir: GitFhir) -> None:
    """It makes the newer version out of the older one. https://hl7.org/fhir/R4/fhirpatch.html"""
    old, new = (
        json.loads(git_fhir("cat", "Patient/example", "--version", version).stdout) for version in "12"
    )

    patch = json.loads(git_fhir("diff", "Patient/example", "1", "2", "--patch").stdout)

    assert same(of_parameters(patch).apply(old) | {"meta": new["meta"]}, new)
    assert git_fhir("diff", "Patient/example", "--patch", "--json").exit_code == 2


def test_control_characters_don_t_steer_the_terminal(repository: Path, git_fhir: GitFhir) -> None:
    """What others wrote is shown as an escape."""
    git_fhir("import", "-", input='{"resourceType":"Patient","id":"x","name":[{"text":"\\u202eb"}]}')

    assert "\\u202e" in git_fhir("blame", "Patient/x").stdout
