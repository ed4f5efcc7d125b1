"""stats: the numbers of a record, each of them told by the story."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

from gitstore import Delete, Settings, Store, Unit, Update
from gitstore.fhir.ids import ResourceId
from tests.cli.conftest import ADA, GRACE, PATIENT, GitFhir, git, patient


def facts(git_fhir: GitFhir) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(git_fhir("stats", "--json").stdout)
    return found


def test_the_story_in_numbers(clinic: Path, git_fhir: GitFhir) -> None:
    """Patient/example has four versions, one of them its deletion; a transaction made two more resources."""
    found = facts(git_fhir)

    assert found["resources"] == [
        {"type": "Observation", "current": 1, "deleted": 0, "versions": 1},
        {"type": "Patient", "current": 2, "deleted": 0, "versions": 5},
    ]
    totals = ("current", "deleted", "versions", "commits", "authors")
    # Ada, Grace, and git-fhir itself, which made the first commit
    assert [found[name] for name in totals] == [3, 0, 6, 6, 3]
    assert (found["first"], found["last"]) == ("2026-01-01T00:00:00.000000Z", "2026-01-01T00:05:00.000000Z")
    assert found["longest"][0] == {"resource": "Patient/example", "versions": 4}


def test_what_is_deleted_counts_as_deleted(clinic: Path, git_fhir: GitFhir) -> None:
    """Its versions stay in the record."""
    with Store.open(clinic, Settings(durability="off", validation="off")) as store:
        store.commit([Delete(PATIENT)], ADA)

    found = facts(git_fhir)

    assert found["resources"][1] == {"type": "Patient", "current": 1, "deleted": 1, "versions": 6}
    assert (found["current"], found["deleted"]) == (2, 1)
    assert "Patient/example" not in {one["resource"] for one in found["largest"]}


def test_sizes_are_those_that_git_tells(clinic: Path, git_fhir: GitFhir) -> None:
    """Packs and loose objects as `git count-objects` counts them, the largest resources by the bytes of their files."""
    subprocess.run(["git", "-C", clinic, "hash-object", "-w", "--stdin"], input=b"loose", check=True)
    found = facts(git_fhir)

    told = dict(line.split(": ") for line in git(clinic, "count-objects", "-v").splitlines())
    assert (found["packs"], found["looseObjects"]) == (int(told["packs"]), int(told["count"])) == (6, 1)
    packs = sum(path.stat().st_size for path in (clinic / "objects" / "pack").glob("*.pack"))
    assert found["packBytes"] == packs
    assert found["indexBytes"] > 4096
    sizes = {one["resource"]: one["bytes"] for one in found["largest"]}
    assert sizes == {
        name: len(git_fhir("cat", name).stdout_bytes)
        for name in ("Observation/new-1", "Patient/example", "Patient/new-2")
    }
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)


def test_growth_is_told_by_month(repository: Path, git_fhir: GitFhir) -> None:
    """In UTC; months in which nothing was written are left out. A transaction is one commit of several versions."""
    instants = itertools.chain(
        [1_769_903_999_999_999, 1_769_904_000_000_000], itertools.repeat(1_775_000_000_000_000)
    )
    with Store.open(
        repository, Settings(durability="off", validation="off"), clock=lambda: next(instants)
    ) as store:
        for number in range(4):
            ids = [f"p{number}-{turn}" for turn in range(1 + number % 2)]
            updates = [Update(ResourceId("Patient", id), patient(id)) for id in ids]
            store.commit(updates, GRACE, interaction="transaction")

    assert facts(git_fhir)["growth"] == [
        {"month": "2026-01", "commits": 2, "versions": 1},
        {"month": "2026-02", "commits": 1, "versions": 2},
        {"month": "2026-03", "commits": 2, "versions": 3},
    ]


def test_only_the_first_five_are_named(repository: Path, git_fhir: GitFhir) -> None:
    """The largest resources and the longest histories; of equals the first by name."""
    with Store.open(repository, Settings(durability="off", validation="off")) as store:
        store.commit_each(
            Unit(
                [Update(ResourceId("Patient", f"p{number}"), patient(f"p{number}", language="x" * number))],
                ADA,
            )
            for number in range(8)
        )

    found = facts(git_fhir)

    assert [one["resource"][-1] for one in found["largest"]] == list("76543")
    assert [one["resource"][-1] for one in found["longest"]] == list("01234")


def test_people_get_tables(clinic: Path, git_fhir: GitFhir) -> None:
    """The same numbers under headings, aligned."""
    shown = git_fhir("stats").stdout

    assert (
        "Resources\n               current  deleted  versions\n  Observation        1        0         1\n"
        in shown
    )
    assert "\nGrowth\n           commits  versions\n  2026-01        6         6\n" in shown
    assert "\n  from 2026-01-01 to 2026-01-01\n" in shown


def test_an_empty_record_has_numbers_too(repository: Path, git_fhir: GitFhir) -> None:
    """One commit, nothing in it."""
    found = facts(git_fhir)

    assert (found["resources"], found["largest"], found["longest"]) == ([], [], [])
    assert (found["commits"], found["versions"]) == (1, 0)
    assert git_fhir("stats").stdout.startswith("Record\n")
