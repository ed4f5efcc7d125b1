"""`git fhir --at POINT …` and `git fhir tag`: the record as it was, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from falcon.testing import TestClient

from api.app import create_app
from cli.past import COMMANDS
from gitstore import Settings, Store
from tests.cli.conftest import GRACE, GitFhir, git, ndjson

AT_FIRST, MARRIED, DELETED = "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z", "2026-01-01T00:03:00Z"
"""What `tell_story` has come to at these instants: see conftest.py."""


def test_a_search_finds_what_it_found_then(git_fhir: GitFhir, clinic: Path) -> None:
    assert git_fhir("--at", AT_FIRST, "search", "Patient?family=lovelace").stdout.startswith(
        "Patient/example  v1"
    )
    assert git_fhir("--at", MARRIED, "search", "Patient?family=lovelace", "--count").stdout == "0\n"
    assert [
        one["birthDate"] for one in ndjson(git_fhir("--at", MARRIED, "search", "Patient?", "--json"))
    ] == ["1815-12-10"]
    assert git_fhir("--at", DELETED, "search", "Patient?", "--count").stdout == "0\n"


def test_other_commands_look_at_the_same_record(git_fhir: GitFhir, clinic: Path) -> None:
    """cat, ls, log, show, diff and blame: what came later is not there."""
    assert json.loads(git_fhir("--at", AT_FIRST, "cat", "Patient/example").stdout)["name"] == [
        {"family": "Lovelace"}
    ]
    assert git_fhir("--at", DELETED, "cat", "Patient/example").exit_code == 3
    assert git_fhir("--at", AT_FIRST, "cat", "Patient/example", "--version", "2").exit_code == 3
    assert git_fhir("--at", MARRIED, "ls").stdout == "1  Patient\n"
    assert len(ndjson(git_fhir("--at", MARRIED, "log", "--json"))) == 2
    assert "Married." in git_fhir("--at", MARRIED, "show").stdout
    assert git_fhir("--at", MARRIED, "show", "HEAD").exit_code == 3
    assert "birthDate" in git_fhir("--at", MARRIED, "diff", "Patient/example").stdout
    blamed = ndjson(git_fhir("--at", MARRIED, "blame", "Patient/example", "--json"))
    assert {each["versionId"] for each in blamed} == {"2"}


@pytest.mark.parametrize("point", ["main~4", "first", AT_FIRST])
def test_points_are_what_http_takes_and_what_git_takes(git_fhir: GitFhir, clinic: Path, point: str) -> None:
    git(clinic, "tag", "first", "main~4")

    assert len(ndjson(git_fhir("--at", point, "log", "--json"))) == 1
    assert len(ndjson(git_fhir("log", "--json", GIT_FHIR_AT=point))) == 1


@pytest.mark.parametrize(("point", "code"), [("2001-01-01", 3), ("no-such", 3), ("2026-02-30", 1)])
def test_what_is_no_point_of_the_record_is_refused(
    git_fhir: GitFhir, clinic: Path, point: str, code: int
) -> None:
    result = git_fhir("--at", point, "ls")

    assert (result.exit_code, result.stdout) == (code, "")


def test_what_looks_at_the_record_as_it_is_says_so(git_fhir: GitFhir, clinic: Path) -> None:
    """A usage error, and not an answer about another record than was asked for."""
    for command in (
        ["stats"],
        ["verify"],
        ["indexed", "Patient/example"],
        ["tag", "x"],
        ["reindex"],
        ["path", "Patient/a"],
    ):
        result = git_fhir("--at", AT_FIRST, *command)
        assert result.exit_code == 2
        assert all(name in result.stderr for name in COMMANDS)


# tag


def test_a_tag_names_a_point_for_good(git_fhir: GitFhir, clinic: Path) -> None:
    """An annotated tag, by whom git knows, with the reason; without a point it is that of now."""
    made = git_fhir("tag", "study-1.0", MARRIED, "-m", "What the paper is based on.")
    now = json.loads(git_fhir("tag", "v2", "--json").stdout)

    assert made.stdout == f"study-1.0 is {git(clinic, 'rev-parse', 'main~3').strip()}\n"
    shown = git(clinic, "cat-file", "tag", "study-1.0")
    assert f"tagger {GRACE.name} <{GRACE.email}>" in shown
    assert shown.endswith("\n\nWhat the paper is based on.\n")
    assert now == {"tag": "v2", "commit": git(clinic, "rev-parse", "main").strip()}
    assert git_fhir("--at", "study-1.0", "search", "Patient?", "--count").stdout == "1\n"
    assert git(clinic, "fsck", "--strict") == ""


def test_a_tag_is_never_moved(git_fhir: GitFhir, clinic: Path) -> None:
    assert git_fhir("tag", "v1", MARRIED).exit_code == 0
    before = git(clinic, "rev-parse", "v1")

    for point in (MARRIED, "main"):
        result = git_fhir("tag", "v1", point)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "stays where it is" in result.stderr
    assert git(clinic, "rev-parse", "v1") == before


@pytest.mark.parametrize(
    "name",
    ["2026", "2026-01", "2026-01-01", "2026-01-01T00", "2026-99-99", "deadbeef", "0" * 40, "a_b", "a/b", "ä", "", "a..b", "-a", "v1.", "v1.lock", "x" * 65, "a b"],
)  # fmt: skip
def test_a_name_can_be_taken_for_nothing_else(git_fhir: GitFhir, clinic: Path, name: str) -> None:
    """No date, no instant, no commit, and nothing that a URL or git would not take."""
    result = git_fhir("tag", "--", name)

    assert result.exit_code == 1
    assert "no name for a tag" in result.stderr
    assert git(clinic, "tag") == ""


def test_a_tag_is_a_service_base(git_fhir: GitFhir, clinic: Path) -> None:
    """docs/audit.md, "Tags": the same point for HTTP."""
    git_fhir("tag", "study-1.0", MARRIED)
    with Store.open(clinic, Settings(durability="off")) as store:
        answer = TestClient(create_app(store)).simulate_get(
            "/at/study-1.0/fhir/Patient/example", headers={"Host": "localhost"}
        )

    assert answer.json["birthDate"] == "1815-12-10"


def test_tags_are_not_refused_by_any_check(git_fhir: GitFhir, clinic: Path) -> None:
    """They are no part of the record: verify says nothing of them, and writes go on."""
    git_fhir("tag", "v1")

    assert git_fhir("verify").exit_code == 0
    imported = git_fhir("import", "-", input='{"resourceType": "Patient", "id": "x"}')
    assert imported.exit_code == 0, imported.stderr
