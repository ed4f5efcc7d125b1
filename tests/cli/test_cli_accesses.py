"""`git fhir accesses`, and what `git fhir verify` says about the access journal. docs/audit-journal.md"""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.errors import NOT_FOUND, REFUSED, USAGE
from gitstore import Journal, JournalEntry, journal_head
from tests.cli.conftest import MINUTE, START, GitFhir, ndjson

HOUR = 60 * MINUTE


@pytest.fixture
def ward(repository: Path) -> Path:
    """The repository, with accesses at 00:00, 10:00, 20:00 and, on the next day, 06:00."""
    now = [START]
    journal = Journal.open(str(repository), lambda: now[0], durable=False)
    for entry in (
        JournalEntry("Ada Lovelace", "read", 200, "r-1", type="Patient", id="example", patients=("example",)),
        JournalEntry(
            "Grace Hopper",
            "search-type",
            200,
            "r-2",
            type="Observation",
            query="code=1234",
            patients=("example", "other"),
            remote="10.0.0.7",
        ),
        JournalEntry("Eve \x1b[2J", "vread", 404, "r-3", type="Patient", id="other", version="3"),
        JournalEntry("Ada Lovelace", "transaction", 200, "r-4", patients=("other",), more=True),
    ):
        journal.record(entry)
        now[0] += 10 * HOUR
    journal.close()
    return repository


def requests(git_fhir: GitFhir, *arguments: str) -> list[str]:
    return [line["request"] for line in ndjson(git_fhir("accesses", "--json", *arguments))]


def test_people_see_a_line_for_each_access_with_nothing_that_steers_a_terminal(
    ward: Path, git_fhir: GitFhir
) -> None:
    assert git_fhir("accesses").stdout.splitlines() == [
        "2026-01-01T00:00:00Z  Ada Lovelace  read         200  Patient/example",
        "2026-01-01T10:00:00Z  Grace Hopper  search-type  200  Observation?code=1234     Patient/example Patient/other",
        r"2026-01-01T20:00:00Z  Eve \x1b[2J   vread        404  Patient/other/_history/3",
        "2026-01-02T06:00:00Z  Ada Lovelace  transaction  200                            Patient/other …",
    ]


def test_programs_get_what_the_journal_has(ward: Path, git_fhir: GitFhir) -> None:
    """NDJSON, without what is not known."""
    assert ndjson(git_fhir("accesses", "--json"))[1] == {
        "number": 3,
        "time": "2026-01-01T10:00:00.000000Z",
        "principal": "Grace Hopper",
        "interaction": "search-type",
        "type": "Observation",
        "query": "code=1234",
        "patient": ["example", "other"],
        "request": "r-2",
        "status": 200,
        "remote": "10.0.0.7",
    }


def test_accesses_are_asked_for_by_patient_person_and_time(ward: Path, git_fhir: GitFhir) -> None:
    assert requests(git_fhir, "--patient", "Patient/other") == ["r-2", "r-4"]
    assert requests(git_fhir, "--patient", "example") == ["r-1", "r-2"]
    assert requests(git_fhir, "--principal", "Ada Lovelace") == ["r-1", "r-4"]
    assert requests(git_fhir, "--since", "2026-01-01T10:00:00Z") == ["r-2", "r-3", "r-4"]
    assert requests(git_fhir, "--until", "2026-01-01") == ["r-1", "r-2", "r-3"]
    assert requests(git_fhir, "--patient", "other", "--since", "2026-01-02") == ["r-4"]


@pytest.mark.parametrize("patient", ["Observation/1", "Patient/example/_history/1", "not an id"])
def test_only_a_patient_can_be_one(ward: Path, git_fhir: GitFhir, patient: str) -> None:
    assert git_fhir("accesses", "--patient", patient).exit_code == USAGE


def test_a_record_that_nobody_served_has_no_accesses(repository: Path, git_fhir: GitFhir) -> None:
    assert git_fhir("accesses").stdout == ""
    assert git_fhir("accesses", "--head").exit_code == NOT_FOUND


def test_the_head_is_printed_so_that_it_can_be_kept_elsewhere(ward: Path, git_fhir: GitFhir) -> None:
    head = journal_head(str(ward))
    assert head is not None

    assert git_fhir("accesses", "--head").stdout == f"{head.number} {head.hash}\n"
    assert ndjson(git_fhir("accesses", "--head", "--json")) == [{"number": head.number, "hash": head.hash}]


def test_verify_looks_at_the_journal_too(ward: Path, git_fhir: GitFhir) -> None:
    assert git_fhir("verify").stdout.startswith("clean")
    [path, _] = sorted(ward.glob("git-fhir/journal/*.ndjson"))
    path.write_bytes(path.read_bytes().replace(b"Grace Hopper", b"Nobody"))

    result = git_fhir("verify", "--json")

    assert result.exit_code == REFUSED
    assert [(line["kind"], line["where"]) for line in ndjson(result)] == [("journal", f"{path.name}:4")]
