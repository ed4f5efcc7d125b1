"""A record that moves by files: `export --history` and `import --history`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.histories import history_lines
from cli.main import main
from gitstore import Store, Update, init
from sample_repo.build import BUNDLE
from tests.cli.conftest import ADA, PATIENT, GitFhir, git, lines, ndjson, open_store, patient, report


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """An empty record that is younger than the clinic's story."""
    path = tmp_path / "copy.git"
    init(path)
    git(path, "config", "fhir.durability", "off")
    git(path, "config", "fhir.validation", "off")
    return path


@pytest.fixture
def into_copy(copy: Path) -> GitFhir:
    def run(*arguments: str | Path, input: str | bytes | None = None, **environment: str) -> Result:
        command = ["-C", str(copy), *map(str, arguments)]
        return CliRunner().invoke(main, command, input=input, env=environment, prog_name="git-fhir")

    return run


def told(path: Path) -> list[object]:
    """Every version with its date, author, words and bytes; without what the commits are called."""
    with Store.open(path) as store:
        snapshot = store.snapshot()
        assert list(store.verify()) == []
        return [
            (
                str(version),
                version.verb,
                version.last_updated,
                version.commit.author,
                version.commit.interaction,
                version.commit.request_id,
                store.message(version.commit),
                None if version.deleted else snapshot.body(version),
            )
            for version in snapshot.history(count=100_000).versions
        ]


def exported(path: Path, **limits: int) -> list[Any]:
    """The Bundles of a record, with other limits than those of the command."""
    with open_store(path) as store:
        written = list(history_lines(store, store.snapshot().commit, "http://127.0.0.1/fhir", **limits))
    return [json.loads(line) for line in written]


def test_a_line_is_a_history_bundle_with_the_newest_first(clinic: Path, git_fhir: GitFhir) -> None:
    """https://hl7.org/fhir/R4/http.html#history; each entry has request, response, and what its commit says."""
    [bundle] = ndjson(git_fhir("export", "--history"))

    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "history")
    assert [(entry["request"]["method"], entry["response"]["etag"]) for entry in bundle["entry"]] == [
        ("POST", 'W/"1"'),
        ("POST", 'W/"1"'),
        ("PUT", 'W/"4"'),
        ("DELETE", 'W/"3"'),
        ("PUT", 'W/"2"'),
        ("PUT", 'W/"1"'),
    ]
    said = {
        each["url"].rpartition("/")[2]: each["valueString"]
        for each in bundle["entry"][4]["response"]["extension"]
    }
    assert said == {
        "commit": git(clinic, "rev-parse", "main~3").strip(),
        "author": "Grace Hopper <grace@example.org>",
        "interaction": "update",
        "message": "Married.\n\nThe second paragraph.",
        "request-id": "rename-1",
    }


def test_a_record_moves_by_a_file(
    clinic: Path, git_fhir: GitFhir, copy: Path, into_copy: GitFhir, tmp_path: Path
) -> None:
    """Versions, dates, authors, words and bytes; and what was imported is counted."""
    file = tmp_path / "history.ndjson"
    assert git_fhir("export", "--history", "-o", file).exit_code == 0

    result = into_copy("import", "--history", "--json", file)

    assert result.exit_code == 0, result.output
    assert report(result) == {"created": 4, "updated": 1, "deleted": 1}
    assert told(copy) == told(clinic)
    assert into_copy("export", "--history").stdout.count("\n") == 1


@pytest.mark.parametrize("entries", [1, 2, 3])
def test_a_commit_is_never_cut(clinic: Path, copy: Path, into_copy: GitFhir, entries: int) -> None:
    """Bundles of few entries, the oldest Bundle first; a transaction stays whole, however small a Bundle is to be."""
    bundles = exported(clinic, max_entries=entries)

    assert len(bundles) > 1
    assert max(len(bundle["entry"]) for bundle in bundles) == max(entries, 2)
    dates = [entry["response"]["lastModified"] for bundle in bundles for entry in reversed(bundle["entry"])]
    assert dates == sorted(dates)
    assert into_copy("import", "--history", "-", input=lines(*bundles)).exit_code == 0
    assert told(copy) == told(clinic)


def test_bundles_are_bounded_in_bytes(clinic: Path) -> None:
    """A commit that is larger by itself goes alone."""
    assert len(exported(clinic, max_bytes=1500)) > 2
    assert len(exported(clinic, max_bytes=1)) == 5


def test_importing_again_goes_on_where_the_record_ends(
    clinic: Path, git_fhir: GitFhir, copy: Path, into_copy: GitFhir
) -> None:
    """What is there already is left as it is, by commit: so a newer export brings a copy up to date."""
    into_copy("import", "--history", "-", input=git_fhir("export", "--history").stdout)
    with open_store(clinic) as store:
        store.commit([Update(PATIENT, patient(active=True))], ADA)

    again = into_copy("import", "--history", "--json", "-", input=git_fhir("export", "--history").stdout)

    assert report(again) == {"updated": 1, "alreadyImported": 6}
    assert told(copy) == told(clinic)


def test_the_first_refusal_ends_it(clinic: Path, into_copy: GitFhir, copy: Path) -> None:
    """A Bundle that is missing is named by the next one's entry; those before it are taken over."""
    bundles = exported(clinic, max_entries=1)

    result = into_copy("import", "--history", "-", input=lines(bundles[0], bundles[2], bundles[3]))

    assert result.exit_code == 1
    assert "stdin:2: `Patient/example` is at version 1; the next is 2, and not 3." in result.stdout
    assert len(told(copy)) == 1


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (patient(), "It is no Bundle of type history."),
        ({"resourceType": "Bundle", "type": "batch"}, "It is no Bundle of type history."),
        ("[", "This is not JSON"),
    ],
)
def test_other_documents_are_refused(into_copy: GitFhir, document: Any, text: str) -> None:
    result = into_copy("import", "--history", "-", input=lines(document))

    assert result.exit_code == 1
    assert text in result.stdout


def test_the_record_as_it_was(clinic: Path, git_fhir: GitFhir) -> None:
    """--at ends the history there."""
    [bundle] = ndjson(git_fhir("export", "--history", "--at", "main~2"))

    assert [entry["response"]["etag"] for entry in bundle["entry"]] == ['W/"3"', 'W/"2"', 'W/"1"']


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--history", "--type", "Patient"],
        ["export", "--history", "--format", "bundle"],
        ["import", "--history", "--dry-run", "-"],
        ["import", "--history", "--force", "-"],
        ["import", "--history", "-m", "why", "-"],
    ],
)
def test_options_that_make_no_sense_with_it(clinic: Path, git_fhir: GitFhir, arguments: list[str]) -> None:
    assert git_fhir(*arguments, input="").exit_code == 2


def test_an_empty_record_has_no_history(git_fhir: GitFhir) -> None:
    assert git_fhir("export", "--history").stdout == ""


def test_the_sample_clinic_moves_by_files(tmp_path: Path, copy: Path, into_copy: GitFhir) -> None:
    """Every version is byte-identical, and the commits say the same; validated in full on the way."""
    clinic = tmp_path / "sample.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(BUNDLE), str(clinic)], check=True)
    git(copy, "config", "fhir.validation", "full")
    history = CliRunner().invoke(main, ["-C", str(clinic), "export", "--history"]).stdout

    result = into_copy("import", "--history", "-", input=history)

    assert result.exit_code == 0, result.output
    assert told(copy) == told(clinic)
