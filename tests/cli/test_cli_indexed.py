"""indexed: by what searches find a resource."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import GitFhir

HOME = Path(__file__).parents[2]


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    bundle, folder = HOME / "sample_repo" / "clinic.bundle", tmp_path / "sample.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", bundle, folder], check=True)
    return folder


def test_the_rows_in_the_documentation_are_those_of_the_sample_clinic(
    git_fhir: GitFhir, sample: Path
) -> None:
    """docs/search.md shows how a real resource is indexed."""
    page = (HOME / "docs" / "search.md").read_text(encoding="utf-8")
    command, _, rows = page.partition("```\n$ git fhir ")[2].partition("```")[0].partition("\n")

    result = git_fhir("-C", sample, *command.split())

    assert result.exit_code == 0, result.output
    assert result.output == rows


def test_as_json_each_row_has_its_parts(git_fhir: GitFhir, sample: Path) -> None:
    result = git_fhir("-C", sample, "indexed", "Patient/amara-okafor", "--json")

    rows = json.loads(result.output)
    assert {"parameter": "gender", "kind": "tokens"}.items() <= next(
        row for row in rows if row["parameter"] == "gender"
    ).items()
    assert {row["value"] for row in rows if row["parameter"] == "family"} == {"okafor"}


@pytest.mark.parametrize("reference", ["Patient/nobody", "Nothing/1"])
def test_what_is_not_there_is_an_error(git_fhir: GitFhir, sample: Path, reference: str) -> None:
    result = git_fhir("-C", sample, "indexed", reference)

    assert result.exit_code != 0
    assert result.stderr.count("\n") <= 4
