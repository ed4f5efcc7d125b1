"""validate: the answers of the server's $validate, without a server and without a repository."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import GitFhir, bundle, git, lines, ndjson, patient
from tests.gitstore.test_validated_writes import URL, profile


def codes(line: dict[str, object]) -> list[tuple[str, str, str]]:
    """Severity, code and expression of each issue, without the remark that there is no narrative (dom-6)."""
    found = line["issues"]
    assert isinstance(found, list)
    return [
        (issue["severity"], issue["code"], issue["expression"])
        for issue in found
        if "dom-6" not in issue["text"]
    ]


def test_all_problems_of_each_resource_are_told(git_fhir: GitFhir, tmp_path: Path) -> None:
    """NDJSON, one JSON object for each; exit code 1 because of the errors."""
    file = tmp_path / "some.ndjson"
    file.write_text(lines(patient(), patient(gurke=1, gender="unsure"), "{"))

    result = git_fhir("validate", file, "--json")

    first, second, third = ndjson(result)
    assert result.exit_code == 1
    assert (first["file"], first["line"], first["resource"], codes(first)) == (
        str(file),
        1,
        "Patient/example",
        [],
    )
    assert codes(second) == [
        ("error", "structure", "Patient.gurke"),
        ("error", "code-invalid", "Patient.gender"),
    ]
    assert (third["line"], third["resource"]) == (3, None)
    assert third["issues"][0]["severity"] == "error"


def test_people_get_a_line_for_each_problem(git_fhir: GitFhir, tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text(json.dumps(patient(gurke=1)))

    result = git_fhir("validate", file)

    assert result.exit_code == 1
    assert f"{file}: error: `gurke` is no element of Patient. (Patient.gurke)" in result.stdout
    assert result.stdout.endswith("1 validated, 1 with errors\n")


def test_warnings_are_no_reason_to_fail(git_fhir: GitFhir) -> None:
    result = git_fhir("validate", "-", input=json.dumps(patient()))

    assert result.exit_code == 0
    assert "stdin: warning: `Patient` breaks dom-6" in result.stdout
    assert result.stdout.endswith("1 validated, 0 with errors\n")


def test_a_bundle_is_validated_with_all_that_is_in_it(git_fhir: GitFhir) -> None:
    content = bundle("collection", {"resource": patient()}, {"resource": patient(gender="unsure")})

    [line] = ndjson(git_fhir("validate", "-", "--json", input=content))

    assert ("error", "code-invalid", "Bundle.entry[1].resource.gender") in codes(line)


def test_folders_and_gzip_are_read(git_fhir: GitFhir, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.ndjson.gz").write_bytes(gzip.compress(lines(patient(), patient()).encode()))
    (folder / "b.json").write_text(json.dumps(patient()))

    result = git_fhir("validate", folder, "--json")

    assert result.exit_code == 0
    assert [(Path(line["file"]).name, line["line"]) for line in ndjson(result)] == [
        ("a.ndjson.gz", 1),
        ("a.ndjson.gz", 2),
        ("b.json", None),
    ]


def test_a_file_that_is_not_there_is_a_mistake_of_the_command_line(git_fhir: GitFhir) -> None:
    assert git_fhir("validate", "nowhere.json").exit_code == 2


def test_profiles_of_the_repository_are_used(git_fhir: GitFhir) -> None:
    """Claimed in meta.profile, or asked for; not known before they are stored."""
    claiming = json.dumps(patient(meta={"profile": [URL]}))
    plain = json.dumps(patient())
    before = git_fhir("validate", "-", "--json", input=claiming)
    assert git_fhir("import", "-", input=json.dumps(profile())).exit_code == 0

    after = git_fhir("validate", "-", "--json", input=claiming)
    asked = git_fhir("validate", "-", "--json", "--profile", URL, input=plain)

    assert [before.exit_code, after.exit_code, asked.exit_code] == [0, 1, 1]
    assert codes(ndjson(before)[0]) == [("warning", "not-found", "Patient.meta.profile[0]")]
    for result in (after, asked):
        assert codes(ndjson(result)[0]) == [("error", "business-rule", "Patient")]


@pytest.mark.parametrize("repository_of_code", [False, True])
def test_no_repository_is_needed(git_fhir: GitFhir, tmp_path: Path, repository_of_code: bool) -> None:
    """Neither any at all, nor one of ours."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if repository_of_code:
        subprocess.run(["git", "init", "--quiet", str(elsewhere)], check=True)

    result = git_fhir(
        "-C", elsewhere, "validate", "-", "--json", "--profile", URL, input=json.dumps(patient())
    )

    assert result.exit_code == 0
    assert [issue[:2] for issue in codes(ndjson(result)[0])] == [("warning", "not-found")]


def test_nothing_is_written(repository: Path, git_fhir: GitFhir) -> None:
    before = git(repository, "rev-parse", "main")

    git_fhir("validate", "-", input=json.dumps(patient()))

    assert git(repository, "rev-parse", "main") == before


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_an_import_reports_what_validation_refuses(
    repository: Path, git_fhir: GitFhir, options: tuple[str, ...]
) -> None:
    """With line and expression; the rest is imported. A dry run says the same."""
    git(repository, "config", "fhir.validation", "full")
    content = lines(patient(), patient("other", gender="unsure", birthDate="1990-02-30"))

    result = git_fhir("import", "-", *options, "--json", input=content)
    told = git_fhir("import", "-", *options, input=content)

    facts = json.loads(result.stdout)
    assert result.exit_code == 1
    assert facts["created"] == 1
    [refused] = facts["refused"]
    assert refused["line"] == 2
    assert codes(refused) == [
        ("error", "code-invalid", "Patient.gender"),
        ("error", "value", "Patient.birthDate"),
    ]
    assert "stdin:2: `Patient.gender` is `unsure`" in told.stdout
    assert "(Patient.gender)" in told.stdout
