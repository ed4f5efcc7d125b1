"""import: what becomes of resources, NDJSON and Bundles of each type."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.cli.conftest import FULL_URL, GitFhir, bundle, git, lines, ndjson, patient, report


def test_a_resource_with_an_id_is_an_update(repository: Path, git_fhir: GitFhir) -> None:
    """Created under its id, updated when it has changed, left as it is when it has not."""
    first = git_fhir("import", "-", "--json", input=json.dumps(patient()))
    again = git_fhir("import", "-", "--json", input=json.dumps(patient()))
    changed = git_fhir("import", "-", "--json", input=json.dumps(patient(gender="male")))

    assert [report(result) for result in (first, again, changed)] == [
        {"created": 1},
        {"unchanged": 1},
        {"updated": 1},
    ]
    assert [line["method"] for line in ndjson(git_fhir("log", "Patient/example", "--json"))] == ["PUT", "PUT"]


def test_force_writes_what_is_unchanged(repository: Path, git_fhir: GitFhir) -> None:
    """A new version, though nothing differs."""
    git_fhir("import", "-", input=lines(patient(), patient(None)))

    forced = git_fhir("import", "-", "--force", "--json", input=lines(patient(), patient(None)))

    assert report(forced) == {"updated": 1, "created": 1}


def test_a_resource_without_an_id_is_created_once(repository: Path, git_fhir: GitFhir) -> None:
    """Its content tells whether it has come before; two equal ones in one input are two."""
    content = lines(patient(None, gender="male"), patient(None, gender="male"), patient(None))
    spaced = json.dumps(patient(None), indent=4)

    assert report(git_fhir("import", "-", "--json", input=content)) == {"created": 3}
    assert report(git_fhir("import", "-", "--json", input=content)) == {"alreadyImported": 3}
    assert report(git_fhir("import", "-", "--json", input=spaced)) == {"alreadyImported": 1}
    assert git_fhir("ls").stdout == "3  Patient\n"


def test_numbers_and_text_are_stored_as_they_came(repository: Path, git_fhir: GitFhir) -> None:
    """Digits, key order and every character. https://hl7.org/fhir/R4/json.html#decimal"""
    observation = (
        '{"resourceType":"Observation","id":"o","note":"Zoë 🩺","valueQuantity":{"value":1.0e2,"unit":"%"}}'
    )
    git_fhir("import", "-", input=observation.encode())

    assert (
        '"note":"Zoë 🩺","valueQuantity":{"value":1.0e2,' in git_fhir("cat", "Observation/o", "--json").stdout
    )


def test_author_and_reason_stand_in_each_commit(repository: Path, git_fhir: GitFhir) -> None:
    """--author and --message; who git says you are by default."""
    git_fhir("import", "-", "-m", "From the old system.", input=json.dumps(patient("a")))
    git_fhir("import", "-", "--author", "Ada Lovelace <ada@example.org>", input=json.dumps(patient("b")))

    named, default = git(repository, "log", "-2", "--format=%an <%ae>").splitlines()
    assert (named, default) == ("Ada Lovelace <ada@example.org>", "Grace Hopper <grace@example.org>")
    assert [line["message"] for line in ndjson(git_fhir("log", "--json"))] == ["", "From the old system."]


def test_a_bad_line_in_the_middle_is_reported_and_the_rest_imported(
    repository: Path, git_fhir: GitFhir, tmp_path: Path
) -> None:
    """With file and line, and exit code 1."""
    path = tmp_path / "patients.ndjson"
    path.write_text(lines(patient("a"), '{"resourceType": "Patient", "id":', patient("b"), patient("b_d")))

    result = git_fhir("import", path)

    assert result.exit_code == 1
    assert f"{path}:2: " in result.stdout
    assert f"{path}:4: " in result.stdout
    assert "2 created" in result.stdout
    assert "2 refused" in result.stdout
    assert git_fhir("ls").stdout == "2  Patient\n"


def test_strict_stops_at_the_first_refusal(repository: Path, git_fhir: GitFhir) -> None:
    """What came before it is in the record, what came after it is not."""
    content = lines(patient("a"), patient("b_d"), patient("c"))

    result = git_fhir("import", "-", "--strict", "--json", input=content)

    assert result.exit_code == 1
    assert report(result) == {"created": 1, "refused": 1}
    assert [line["resource"] for line in ndjson(git_fhir("ls", "Patient", "--json"))] == ["Patient/a"]


def test_strict_also_stops_at_what_the_store_refuses(repository: Path, git_fhir: GitFhir) -> None:
    """If-Match on what isn't there; the entry after it is not done."""
    entries = [
        {"resource": patient("a"), "request": {"method": "PUT", "url": "Patient/a", "ifMatch": 'W/"7"'}},
        {"resource": patient("b"), "request": {"method": "PUT", "url": "Patient/b"}},
    ]

    result = git_fhir("import", "-", "--strict", "--json", input=bundle("batch", *entries))

    assert report(result) == {"refused": 1}
    assert git_fhir("ls").stdout == ""


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("[]", "must be a JSON object"),
        ('{"id": "a"}', "`resourceType` is missing"),
        ('{"resourceType": "Foo"}', "`resourceType` is `Foo`"),
        ('{"resourceType": "Patient", "id": ".."}', "is not an id"),
        ('{"resourceType": "Patient", "id": 1}', "is not an id"),
        ('{"resourceType": "Patient", "id": "a", "id": "b"}', "id"),
        ('{"resourceType": "Bundle"}', "`Bundle.type` is missing"),
        ('{"resourceType": "Bundle", "type": "transaction", "entry": {}}', "must be a list"),
        (bundle("transaction", {"resource": patient()}), "request"),
        (bundle("collection", {"fullUrl": "http://example.org"}), "must be a JSON object"),
        ("{", "line 1"),
    ],
)
def test_what_is_no_resource_is_refused_with_the_reason(
    repository: Path, git_fhir: GitFhir, document: str, text: str
) -> None:
    """Nothing is written, and nothing is a traceback."""
    result = git_fhir("import", "-", "--json", input=document)

    assert result.exit_code == 1
    [refusal] = json.loads(result.stdout)["refused"]
    assert refusal["file"] == "stdin"
    assert text in " ".join(f"{issue['text']} {issue['diagnostics']}" for issue in refusal["issues"])
    assert git_fhir("log").stdout == ""


def test_dry_run_says_what_would_happen_and_writes_nothing(clinic: Path, git_fhir: GitFhir) -> None:
    """Also where one line depends on another."""
    before = git(clinic, "rev-parse", "main")
    content = lines(
        patient("new"),
        patient("new"),
        patient("new", gender="male"),
        patient("example", gender="female"),
        patient(None),
        {"resourceType": "Foo"},
        bundle("batch", {"request": {"method": "DELETE", "url": "Patient/new"}}),
        patient("new"),
    )

    rehearsed = git_fhir("import", "-", "--dry-run", "--json", input=content)
    assert git(clinic, "rev-parse", "main") == before
    done = git_fhir("import", "-", "--json", input=content)

    assert report(rehearsed) == report(done)
    assert report(done) == {"created": 3, "updated": 1, "deleted": 1, "unchanged": 2, "refused": 1}
    assert rehearsed.exit_code == done.exit_code == 1
    again = git_fhir("import", "-", "--dry-run", input=lines(patient(None)))
    assert again.stdout == "Nothing was written. This would happen:\n        1 already imported\n"


def test_a_transaction_bundle_is_one_commit(repository: Path, git_fhir: GitFhir) -> None:
    """References between its entries lead to the new ids. https://hl7.org/fhir/R4/http.html#trules"""
    observation = {"resourceType": "Observation", "subject": {"reference": FULL_URL}}
    content = bundle(
        "transaction",
        {"resource": observation, "request": {"method": "POST", "url": "Observation"}},
        {"fullUrl": FULL_URL, "resource": patient(None), "request": {"method": "POST", "url": "Patient"}},
        {"request": {"method": "GET", "url": "Patient/1"}},
    )

    assert report(git_fhir("import", "-", "--json", input=content)) == {"created": 2}
    assert git(repository, "rev-list", "--count", "main") == "2\n"
    created = {
        line["resource"].partition("/")[0]: line["resource"] for line in ndjson(git_fhir("log", "--json"))
    }
    stored = json.loads(git_fhir("cat", created["Observation"]).stdout)
    assert stored["subject"]["reference"] == created["Patient"]
    assert report(git_fhir("import", "-", "--json", input=content)) == {"alreadyImported": 2}


def test_a_copy_of_a_transaction_is_the_same_transaction(repository: Path, git_fhir: GitFhir) -> None:
    """Within one import too; and a copy of a refused one is refused as well, not taken for done."""
    entry = {"resource": patient(None), "request": {"method": "POST", "url": "Patient"}}
    stale = {"resource": patient("a"), "request": {"method": "PUT", "url": "Patient/a", "ifMatch": 'W/"7"'}}
    good, bad = bundle("transaction", entry), bundle("transaction", stale)

    result = git_fhir("import", "-", "--json", input=lines(good, bad, good, bad))

    assert report(result) == {"created": 1, "alreadyImported": 1, "refused": 2}


def test_a_transaction_is_refused_whole(repository: Path, git_fhir: GitFhir) -> None:
    """The report names the entry at fault."""
    content = bundle(
        "transaction",
        {"resource": patient("a"), "request": {"method": "PUT", "url": "Patient/a"}},
        {"request": {"method": "GET", "url": "Patient/1"}},
        {"resource": patient("b"), "request": {"method": "PUT", "url": "Patient/c"}},
    )

    result = git_fhir("import", "-", "--json", input=content)

    [refusal] = json.loads(result.stdout)["refused"]
    assert refusal["issues"][0]["expression"].startswith("Bundle.entry[2]")
    assert git_fhir("ls").stdout == ""


def test_a_batch_is_done_entry_by_entry(repository: Path, git_fhir: GitFhir) -> None:
    """Each is a commit of its own; a bad one hinders no other, and reads do nothing."""
    content = bundle(
        "batch",
        {"resource": patient("a"), "request": {"method": "PUT", "url": "Patient/a"}},
        {"resource": patient(None), "request": {"method": "POST", "url": "Patient"}},
        {"resource": patient("b")},
        {"request": {"method": "GET", "url": "Patient/a"}},
        {"request": {"method": "DELETE", "url": "Patient/a"}},
        {"resource": patient("c"), "request": {"method": "PUT", "url": "Foo/c"}},
    )

    result = git_fhir("import", "-", "--json", input=content)

    assert report(result) == {"created": 2, "deleted": 1, "refused": 2}
    assert [refusal["entry"] for refusal in json.loads(result.stdout)["refused"]] == [2, 5]
    assert git(repository, "rev-list", "--count", "main") == "4\n"


@pytest.mark.parametrize("type", ["collection", "document", "message", "searchset", "batch-response"])
def test_of_other_bundles_the_resources_are_imported(repository: Path, git_fhir: GitFhir, type: str) -> None:
    """Each by itself; the outcome of a search is no resource of the record."""
    outcome = {"resourceType": "OperationOutcome", "issue": []}
    content = bundle(
        type,
        {"fullUrl": "http://example.org/Patient/a", "resource": patient("a")},
        {"resource": patient(None)},
        {"resource": outcome, "search": {"mode": "outcome"}},
    )

    assert report(git_fhir("import", "-", "--json", input=content)) == {"created": 2}
    assert report(git_fhir("import", "-", "--json", input=content)) == {"unchanged": 1, "alreadyImported": 1}
    assert git(repository, "rev-list", "--count", "main") == "3\n"


def test_a_bundle_whose_entries_call_one_another_by_urn_is_one_commit(
    repository: Path, git_fhir: GitFhir
) -> None:
    """Taken apart, its references would lead nowhere."""
    content = bundle(
        "collection",
        {"fullUrl": FULL_URL, "resource": patient("a")},
        {"resource": {"resourceType": "Observation", "id": "o", "subject": {"reference": FULL_URL}}},
    )

    assert report(git_fhir("import", "-", "--json", input=content)) == {"created": 2}
    assert json.loads(git_fhir("cat", "Observation/o").stdout)["subject"]["reference"] == "Patient/a"
    assert git(repository, "rev-list", "--count", "main") == "2\n"


def test_of_a_history_the_newest_versions_are_imported(repository: Path, git_fhir: GitFhir) -> None:
    """The newest come first in it; a deletion deletes. https://hl7.org/fhir/R4/http.html#history"""
    git_fhir("import", "-", input=json.dumps(patient("b")))
    content = bundle(
        "history",
        {"resource": patient("a", gender="female"), "request": {"method": "PUT", "url": "Patient/a"}},
        {"request": {"method": "DELETE", "url": "Patient/b"}},
        {"resource": patient("b"), "request": {"method": "PUT", "url": "Patient/b"}},
        {"resource": patient("a"), "request": {"method": "PUT", "url": "Patient/a"}},
    )

    assert report(git_fhir("import", "-", "--json", input=content)) == {"created": 1, "deleted": 1}
    assert report(git_fhir("import", "-", "--json", input=content)) == {"unchanged": 2}
    assert json.loads(git_fhir("cat", "Patient/a").stdout)["gender"] == "female"


def test_files_folders_and_gzip_in_one_import(repository: Path, git_fhir: GitFhir, tmp_path: Path) -> None:
    """The report for people counts by outcome."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.ndjson.gz").write_bytes(gzip.compress(lines(patient("b"), patient("c")).encode()))
    (tmp_path / "a.json").write_text(json.dumps(patient("a"), indent=2))

    result = git_fhir("import", tmp_path / "a.json", tmp_path / "in", "-", input=json.dumps(patient("d")))

    assert result.exit_code == 0
    assert result.stdout.startswith("        4 created\n")
    assert git_fhir("ls").stdout == "4  Patient\n"
    (tmp_path / "empty").mkdir()
    empty = git_fhir("import", tmp_path / "empty")
    assert (empty.exit_code, empty.stdout) == (0, "There was nothing to import.\n")


def test_limits_of_the_repository_hold(repository: Path, git_fhir: GitFhir) -> None:
    """fhir.maxBody and fhir.maxEntries, as over HTTP."""
    git(repository, "config", "fhir.maxBody", "100")
    git(repository, "config", "fhir.maxEntries", "1")
    entry = {"resource": patient("a")}

    long = git_fhir("import", "-", "--json", input=json.dumps(patient(gender="x" * 100)))
    many = git_fhir("import", "-", "--json", input=bundle("collection", entry, entry))

    for result in (long, many):
        [refusal] = json.loads(result.stdout)["refused"]
        assert refusal["issues"][0]["code"] == "too-long"
