"""cat, ls and path."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import GitFhir, git, ndjson


def test_cat_prints_the_stored_bytes(clinic: Path, git_fhir: GitFhir) -> None:
    """Byte for byte what plain git has, and what the server would send."""
    path = git_fhir("path", "Patient/example").stdout.strip()

    assert git_fhir("cat", "Patient/example").stdout == git(clinic, "show", f"main:{path}")
    assert git_fhir("cat", "Patient/example").stdout_bytes.endswith(b"}\n")


def test_cat_prints_any_version(clinic: Path, git_fhir: GitFhir) -> None:
    """By --version or by a version-specific reference. https://hl7.org/fhir/R4/references.html#literal"""
    first = git_fhir("cat", "Patient/example", "--version", "1").stdout

    assert json.loads(first)["meta"]["versionId"] == "1"
    assert git_fhir("cat", "Patient/example/_history/1").stdout == first
    assert json.loads(git_fhir("cat", "Patient/example").stdout)["meta"]["versionId"] == "4"


def test_cat_of_a_deletion_says_that_it_is_one(clinic: Path, git_fhir: GitFhir) -> None:
    """Exit code 3 and one line."""
    result = git_fhir("cat", "Patient/example/_history/3")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert "delet" in result.stderr


def test_cat_on_one_line_keeps_numbers_as_written(repository: Path, git_fhir: GitFhir) -> None:
    """--json is a line for NDJSON. https://hl7.org/fhir/R4/json.html#decimal"""
    observation = '{"resourceType":"Observation","id":"o","valueQuantity":{"value":1.00}}'
    git_fhir("import", "-", input=observation)

    line = git_fhir("cat", "Observation/o", "--json").stdout

    assert line.count("\n") == 1
    assert '"value":1.00' in line


def test_cat_prints_xml(repository: Path, git_fhir: GitFhir) -> None:
    """--xml is FHIR's, with a line for each element. https://hl7.org/fhir/R4/xml.html"""
    git_fhir("import", "-", input='{"resourceType":"Observation","id":"o","valueQuantity":{"value":1.00}}')

    printed = git_fhir("cat", "Observation/o", "--xml").stdout

    assert printed.startswith(
        '<?xml version="1.0" encoding="UTF-8"?>\n<Observation xmlns="http://hl7.org/fhir">\n'
    )
    assert '\n    <value value="1.00"/>\n' in printed
    assert printed.endswith("</Observation>\n")
    assert git_fhir("cat", "Observation/o", "--xml", "--json").exit_code == 2


def test_ls_counts_by_type(clinic: Path, git_fhir: GitFhir) -> None:
    """Current resources only."""
    assert git_fhir("ls").stdout == "1  Observation\n2  Patient\n"
    assert ndjson(git_fhir("ls", "--json")) == [
        {"resourceType": "Observation", "count": 1},
        {"resourceType": "Patient", "count": 2},
    ]


def test_ls_of_a_type_lists_ids_with_version_and_date(clinic: Path, git_fhir: GitFhir) -> None:
    """In the order of the ids."""
    assert git_fhir("ls", "Patient").stdout.splitlines() == [
        "Patient/example  4  2026-01-01T00:04:00Z",
        "Patient/new-2    1  2026-01-01T00:05:00Z",
    ]
    assert [line["resource"] for line in ndjson(git_fhir("ls", "Patient", "--json"))] == [
        "Patient/example",
        "Patient/new-2",
    ]


def test_ls_of_nothing_prints_nothing(repository: Path, git_fhir: GitFhir) -> None:
    """No resource of a type is no error."""
    for arguments in (["ls"], ["ls", "Patient"], ["ls", "--json"]):
        result = git_fhir(*arguments)
        assert (result.stdout, result.exit_code) == ("", 0)


def test_path_is_where_git_finds_the_resource(clinic: Path, git_fhir: GitFhir) -> None:
    """For `git log -- PATH`. docs/format.md, "The tree" """
    path = git_fhir("path", "Patient/example").stdout.strip()

    assert path.startswith("Patient/")
    assert len(git(clinic, "log", "--format=%h", "main", "--", path).splitlines()) == 4
    assert json.loads(git_fhir("path", "Patient/example", "--json").stdout) == {
        "resource": "Patient/example",
        "path": path,
    }
