"""git fhir maintain."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from gitstore import Create, Settings, Store
from tests.cli.conftest import GRACE, GitFhir, git, lines, patient


@pytest.mark.parametrize("option", [[], ["--full"]])
def test_maintain_tells_packs_and_bytes_before_and_after(
    clinic: Path, git_fhir: GitFhir, option: list[str]
) -> None:
    """For people as two lines, for programs as JSON; and the record is as it was."""
    head = git(clinic, "rev-parse", "main")

    first = git_fhir("maintain", *option)
    second = git_fhir("maintain", "--json", *option)

    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    before, after = (line.split() for line in first.stdout.splitlines())
    assert [before[0], *before[1:3]] == ["before", "6", "packs"]
    assert [after[0], *after[1:3]] == ["after", "1", "packs"]
    assert int(after[3].replace(",", "")) < int(before[3].replace(",", ""))
    facts = json.loads(second.stdout)
    assert facts.keys() == {"before", "after"}
    assert facts["after"]["packs"] == 1
    assert 0 < facts["after"]["bytes"] < int(before[3].replace(",", ""))
    assert git(clinic, "rev-parse", "main") == head
    assert git_fhir("verify").exit_code == 0


def test_maintain_where_another_is_at_it(clinic: Path, git_fhir: GitFhir) -> None:
    """It waits for fhir.lockTimeout, then says so in one line."""
    git(clinic, "config", "fhir.lockTimeout", "0.05")
    with (clinic / "git-fhir" / "maintenance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        result = git_fhir("maintain")

    assert result.exit_code == 1
    assert result.stderr.startswith("git-fhir: ")
    assert "under maintenance" in result.stderr


@pytest.mark.parametrize(("setting", "merged"), [("auto", True), ("off", False)])
def test_imports_tidy_up_after_themselves(
    repository: Path, git_fhir: GitFhir, setting: str, merged: bool
) -> None:
    """Each writes a pack; when there are 64, one of them merges them. `fhir.maintenance = off` says not to."""
    git(repository, "config", "fhir.maintenance", setting)
    with Store.open(repository, Settings(durability="off", maintenance="off")) as store:
        for _ in range(61):
            store.commit([Create(patient(None))], GRACE)
    for number in range(4):
        done = git_fhir("import", "-", input=lines(patient(f"p-{number}")))
        assert done.exit_code == 0, done.output

    packs = len(list((repository / "objects" / "pack").glob("*.idx")))

    assert (packs < 10) == merged


def test_a_setting_that_is_neither_is_refused(clinic: Path, git_fhir: GitFhir) -> None:
    git(clinic, "config", "fhir.maintenance", "sometimes")

    result = git_fhir("maintain")

    assert "fhir.maintenance is `sometimes`; expected one of auto, off." in result.stderr
