"""import of real and of interrupted input: it goes on where it ended, and nothing is created twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import FULL_URL, GitFhir, bundle, command, git, lines, ndjson, patient, report

# Read here, as the fixtures of a test empty the environment.
SYNTHEA = Path(
    os.environ.get("GIT_FHIR_SYNTHEA") or Path(__file__).parents[2].parent / "shared" / "data" / "synthea"
)
"""Synthea's bundles: where GIT_FHIR_SYNTHEA says, or beside the checkout."""


@pytest.mark.skipif(
    not SYNTHEA.is_dir(), reason="needs Synthea's bundles: set GIT_FHIR_SYNTHEA to their folder"
)
def test_two_patients_of_synthea_come_whole(repository: Path, git_fhir: GitFhir) -> None:
    """965 resources in two commits, every urn:uuid reference resolved; a second import finds them all."""
    folder = SYNTHEA / "v2.4"

    first = git_fhir("import", folder, "--json")
    again = git_fhir("import", folder, "--json")

    assert first.exit_code == 0
    assert report(first) == {"created": 965}
    assert report(again) == {"alreadyImported": 965}
    assert git(repository, "rev-list", "--count", "main") == "3\n"
    with pytest.raises(subprocess.CalledProcessError):  # how git grep says that it found nothing
        git(repository, "grep", "--quiet", '"reference": "urn:uuid:', "main")
    assert {line["resourceType"]: line["count"] for line in ndjson(git_fhir("ls", "--json"))}[
        "Observation"
    ] == 525


@pytest.mark.skipif(
    not SYNTHEA.is_dir(), reason="needs Synthea's bundles: set GIT_FHIR_SYNTHEA to their folder"
)
def test_synthea_comes_whole_in_whatever_order_its_files_come(repository: Path, git_fhir: GitFhir) -> None:
    """Its patients refer to hospitals and practitioners by conditional references: 6,649 resources less 965 of v2.4."""
    files = sorted((SYNTHEA / "v2.7").glob("*.json.gz"))
    random.Random(1).shuffle(files)  # some patients come before what they refer to, some after it

    result = git_fhir("import", *files, "--json")

    assert result.exit_code == 0, result.output
    assert report(result) == {"created": 6649 - 965}
    for unresolved in ("urn:uuid:", "[A-Z][A-Za-z]*?"):
        with pytest.raises(subprocess.CalledProcessError):
            git(repository, "grep", "--quiet", f'"reference": "{unresolved}', "main")


@pytest.mark.parametrize("order", [("ward", "patient"), ("patient", "ward")])
def test_a_conditional_reference_waits_for_what_it_selects(
    repository: Path, tmp_path: Path, git_fhir: GitFhir, order: tuple[str, str]
) -> None:
    """Files come in whatever order: what is not there yet may be in the next one."""
    identifier = {"system": "http://example.org", "value": "w1"}
    reference = {"reference": "Organization?identifier=http://example.org|w1"}
    resources = {
        "ward": {"resourceType": "Organization", "identifier": [identifier]},
        "patient": {"resourceType": "Patient", "managingOrganization": reference},
    }
    files = []
    for number, name in enumerate(order):
        resource = resources[name]
        entry = {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}
        files.append(tmp_path / f"{number}-{name}.json")
        files[-1].write_text(json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [entry]}))

    result = git_fhir("import", *files, "--json")

    assert result.exit_code == 0, result.output
    assert report(result) == {"created": 2}
    assert "Organization/" in git(repository, "grep", '"reference"', "main")


def test_an_interrupted_import_reports_and_is_resumed(
    repository: Path, tmp_path: Path, git_fhir: GitFhir
) -> None:
    """Ctrl-C between groups: what is written is counted, and the same command brings the rest, once."""
    content = lines(*(patient(None, birthDate=f"{year}") for year in range(1000, 1600)))
    with subprocess.Popen(
        command("-C", repository, "import", "-", "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(content)
        process.stdin.flush()
        wait_for_commits(repository, process, 501)
        process.send_signal(signal.SIGINT)
        facts = json.loads(process.stdout.read())
        assert process.stderr.read() == ""
    assert process.returncode == 130
    assert facts["interrupted"]
    assert facts["created"] == 500

    resumed = git_fhir("import", "-", "--json", input=content)

    assert report(resumed) == {"created": 100, "alreadyImported": 500}
    assert git_fhir("ls").stdout == "600  Patient\n"


def wait_for_commits(repository: Path, process: subprocess.Popen[str], count: int) -> None:
    """Until the process has made so many commits; it keeps its input open, so that it can't be done before."""
    deadline = time.monotonic() + 60
    while int(git(repository, "rev-list", "--count", "main")) < count:
        assert process.poll() is None
        assert time.monotonic() < deadline


def test_a_killed_import_is_resumed(repository: Path, git_fhir: GitFhir) -> None:
    """kill -9 leaves a whole record; a transaction is there or not."""
    transaction = bundle(
        "transaction",
        {"fullUrl": FULL_URL, "resource": patient(None), "request": {"method": "POST", "url": "Patient"}},
        {"resource": patient("put"), "request": {"method": "PUT", "url": "Patient/put"}},
    )
    content = lines(transaction, *(patient(f"p{number}") for number in range(700)))
    with subprocess.Popen(
        command("-C", repository, "import", "-"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin
        process.stdin.write(content)
        process.stdin.flush()
        wait_for_commits(repository, process, 2)
        process.kill()

    resumed = report(git_fhir("import", "-", "--json", input=content))

    assert resumed["alreadyImported"] == 2
    assert resumed["unchanged"] + resumed.get("created", 0) == 700
    assert git_fhir("ls").stdout == "702  Patient\n"
    assert git_fhir("verify").exit_code == 0


def test_what_stops_the_store_stops_the_import(clinic: Path, git_fhir: GitFhir) -> None:
    """A foreign commit is no fault of the input: one line instead of a refusal for each resource."""
    git(clinic, "config", "user.email", "x@example.org")
    tree = git(clinic, "rev-parse", "main^{tree}").strip()
    commit = git(clinic, "commit-tree", "-m", "by hand", "-p", "main", tree).strip()
    git(clinic, "update-ref", "refs/heads/main", commit)

    result = git_fhir("import", "-", "--json", input=lines(patient("a"), patient("b")))

    facts = json.loads(result.stdout)
    assert result.exit_code == 1
    assert commit[:7] in facts["stopped"]
    assert (facts["created"], facts["refused"]) == (0, [])
    assert result.stderr.count("\n") == 1
    assert "git-fhir: stopped: " in result.stderr
