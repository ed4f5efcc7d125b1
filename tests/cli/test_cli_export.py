"""What export writes: every current resource as it is stored, on one line or in a Bundle, now or as it was."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.main import main
from gitstore import Delete, Settings, Store, Unit, Update, init
from gitstore.fhir.ids import ResourceId
from gitstore.fhir.json import loads
from gitstore.fhir.stored import template
from tests.cli.conftest import ADA, START, GitFhir, command, git, lines, ndjson, open_store, patient
from tests.conftest import copy_record


def test_ndjson_is_each_resource_as_stored_on_one_line(clinic: Path, git_fhir: GitFhir) -> None:
    """By type and id; what is deleted isn't there. `cat --json` prints the same lines."""
    result = git_fhir("export")

    names = ["Observation/new-1", "Patient/example", "Patient/new-2"]
    assert result.stdout == "".join(git_fhir("cat", name, "--json").stdout for name in names)


def test_numbers_stay_as_they_were_written(repository: Path, git_fhir: GitFhir) -> None:
    """https://hl7.org/fhir/R4/json.html#decimal"""
    position = '{"longitude": -0.0, "latitude": 1.50e1, "altitude": 12345678901234567890.10}'
    git_fhir("import", "-", input=f'{{"resourceType": "Location", "id": "a", "position": {position}}}')

    written = '"position":{"longitude":-0.0,"latitude":1.50e1,"altitude":12345678901234567890.10}'
    assert written in git_fhir("export").stdout
    assert written in git_fhir("export", "--format", "bundle").stdout


def test_a_folder_gets_a_file_for_each_type(clinic: Path, git_fhir: GitFhir, tmp_path: Path) -> None:
    """It is made if need be; all files together are the stream, and nothing unfinished is left."""
    folder = tmp_path / "new" / "export"

    git_fhir("export", "-o", folder)

    assert sorted(path.name for path in folder.iterdir()) == ["Observation.ndjson", "Patient.ndjson"]
    found = "".join(path.read_text() for path in sorted(folder.iterdir()))
    assert found == git_fhir("export").stdout


def test_a_folder_with_another_export_is_refused(clinic: Path, git_fhir: GitFhir, tmp_path: Path) -> None:
    """Files of types that are gone by now would be taken for current."""
    (tmp_path / "Encounter.ndjson").write_text("older\n")

    result = git_fhir("export", "-o", tmp_path)

    assert result.exit_code == 1
    assert result.stderr == f"git-fhir: {tmp_path} holds NDJSON already; choose another folder or empty it.\n"
    assert not (tmp_path / "Patient.ndjson").exists()


def test_only_some_types(clinic: Path, git_fhir: GitFhir, tmp_path: Path) -> None:
    """Separated by commas; a type without resources gets no file; what is no type is refused."""
    assert {line["resourceType"] for line in ndjson(git_fhir("export", "--type", "Patient"))} == {"Patient"}
    git_fhir("export", "--type", "Encounter,Observation", "-o", tmp_path / "some")
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["Observation.ndjson"]
    refused = git_fhir("export", "--type", "Patient,Patent")
    assert (refused.exit_code, "`Patent` is no resource type" in refused.stderr) == (2, True)


def test_a_bundle_is_a_collection(clinic: Path, git_fhir: GitFhir, tmp_path: Path) -> None:
    """Each entry has the URL under which the server serves it; the timestamp is that of the last commit.

    https://hl7.org/fhir/R4/bundle.html#collection
    """
    git(clinic, "config", "fhir.baseUrl", "https://clinic.example/fhir/")

    git_fhir("export", "--format", "bundle", "-o", tmp_path / "all.json")

    bundle = json.loads((tmp_path / "all.json").read_text())
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "collection")
    assert bundle["timestamp"] == "2026-01-01T00:05:00.000000Z"
    assert [entry["resource"] for entry in bundle["entry"]] == ndjson(git_fhir("export"))
    assert bundle["entry"][1]["fullUrl"] == "https://clinic.example/fhir/Patient/example"


def test_a_bundle_of_nothing_has_no_entries(repository: Path, git_fhir: GitFhir) -> None:
    """An empty list is not allowed in FHIR's JSON. https://hl7.org/fhir/R4/json.html"""
    assert "entry" not in json.loads(git_fhir("export", "--format", "bundle").stdout)
    assert git_fhir("export").stdout == ""


VERSIONS: list[tuple[str, list[str]]] = [
    # the story: created at 00:01, renamed at 00:02, deleted at 00:03, revived at 00:04, two more at 00:05
    ("2026-01-01T00:01:00Z", ["Patient/example/1"]),
    ("2026-01-01T00:02:59.999Z", ["Patient/example/2"]),
    ("2026-01-01T00:02", ["Patient/example/2"]),
    ("2026-01-01T01:03:00+01:00", []),
    ("2026-01-01", ["Observation/new-1/1", "Patient/example/4", "Patient/new-2/1"]),
    ("2026", ["Observation/new-1/1", "Patient/example/4", "Patient/new-2/1"]),
    ("main", ["Observation/new-1/1", "Patient/example/4", "Patient/new-2/1"]),
    ("main~1", ["Patient/example/4"]),
    ("main~2", []),
    ("HEAD~3", ["Patient/example/2"]),
]


@pytest.mark.parametrize(("at", "versions"), VERSIONS)
def test_the_record_as_it_was(clinic: Path, git_fhir: GitFhir, at: str, versions: list[str]) -> None:
    """At the end of a date, in UTC if it doesn't say; at an instant, a second of it included; as a commit left it."""
    found = ndjson(git_fhir("export", "--at", at))

    assert [f"{one['resourceType']}/{one['id']}/{one['meta']['versionId']}" for one in found] == versions


@pytest.mark.parametrize("at", ["2025-12-31", "2025", "v1.0", "2026-13-01", "main~9"])
def test_a_state_that_never_was_is_not_there(clinic: Path, git_fhir: GitFhir, at: str) -> None:
    """Before the first commit there was no record; and what git doesn't know it can't name."""
    result = git_fhir("export", "--at", at)

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("git-fhir: ")


def test_a_failed_export_leaves_what_was_there(
    clinic: Path, git_fhir: GitFhir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced when the new one is whole."""
    (tmp_path / "all.json").write_text("the last one")
    objects = clinic / "objects" / "pack"
    shutil.move(objects, tmp_path / "gone")
    objects.mkdir()

    result = git_fhir("export", "--format", "bundle", "-o", tmp_path / "all.json")

    assert result.exit_code != 0
    assert (tmp_path / "all.json").read_text() == "the last one"
    assert not list(tmp_path.glob("*.tmp"))


def test_who_has_seen_enough_may_leave(repository: Path) -> None:
    """`git fhir export | head -1` ends quietly."""
    with open_store(repository) as store:
        units = [
            Unit(
                [Update(ResourceId("Patient", f"p{number}"), patient(f"p{number}", language="x" * 500))], ADA
            )
            for number in range(300)
        ]
        store.commit_each(units)
    process = subprocess.Popen(
        command("-C", repository, "export"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b'{"resourceType":"Patient","id":"p0"')
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


# There and back

names = st.text(st.characters(categories=["L", "N", "S"]), min_size=1, max_size=8)
decimals = st.from_regex(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,12})?([eE][+-]?[1-9])?", fullmatch=True)


@st.composite
def locations(draw: st.DrawFn, id: str) -> str:
    """A Location as JSON text, with any numbers and names."""
    longitude, latitude = draw(decimals), draw(decimals)
    name, alias = draw(names), draw(st.lists(names, min_size=1, max_size=3))
    return (
        f'{{"resourceType": "Location", "name": {json.dumps(name)}, "alias": {json.dumps(alias)}, "id": "{id}",'
        f' "meta": {{"source": "urn:test:{id}"}}, "position": {{"longitude": {longitude}, "latitude": {latitude}}}}}'
    )


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[ResourceId, str | None]]:
    """Writes and deletions of a few resources, one after the other."""
    found: list[tuple[ResourceId, str | None]] = []
    for _ in range(draw(st.integers(0, 6))):
        id = draw(st.sampled_from("abc"))
        if draw(st.integers(0, 3)) == 0:
            found.append((ResourceId("Location", id), None))
        elif draw(st.booleans()):
            found.append((ResourceId("Location", id), draw(locations(id))))
        else:
            found.append((ResourceId("Patient", id), json.dumps(patient(id, name=[{"family": draw(names)}]))))
    return found


def content(record: Path) -> dict[ResourceId, bytes]:
    """Every current resource as the file of a version 0: without what tells its versions apart."""
    with open_store(record) as store:
        snapshot = store.snapshot()
        return {
            version.resource_id: template(version.resource_id, loads(snapshot.body(version))).fill(0, 0)
            for version in snapshot.resources()
        }


@pytest.fixture(scope="module")
def new_record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes an empty record that doesn't wait for the disk, as often as asked."""
    folder = tmp_path_factory.mktemp("records")
    template = Path(init(folder / "template.git", clock=lambda: START))
    git(template, "config", "fhir.durability", "off")
    Store.open(template, Settings(durability="off", validation="off")).close()
    numbers = itertools.count(1)
    return lambda: copy_record(template, folder / f"{next(numbers)}.git")


def run(record: Path, *arguments: Any, input: str | None = None) -> str:
    result = CliRunner().invoke(main, ["-C", str(record), *map(str, arguments)], input=input)
    assert result.exit_code == 0, result.output
    return result.stdout


@settings(max_examples=8, deadline=None)
@given(histories(), st.sampled_from(["ndjson", "bundle", "folder"]))
def test_what_is_exported_and_imported_is_the_same(
    new_record: Callable[[], Path], history: list[tuple[ResourceId, str | None]], form: str
) -> None:
    """Whatever happened to a record, a new one that imports its export has the same content, byte for byte."""
    old, new = new_record(), new_record()
    with open_store(old) as store:
        for resource_id, text in history:
            change = Delete(resource_id) if text is None else Update(resource_id, loads(text.encode()))
            store.commit([change], ADA)

    if form == "folder":
        run(old, "export", "-o", old / "export")
        exported, input = old / "export", None
    else:
        exported, input = Path("-"), run(old, "export", "--format", form)
    before = content(old)
    if before:
        run(new, "import", exported, input=input)

    assert content(new) == before
    shutil.rmtree(old)
    shutil.rmtree(new)


def test_exports_of_the_same_state_are_the_same(clinic: Path, git_fhir: GitFhir) -> None:
    """Later commits don't change what the record was."""
    now = git_fhir("export").stdout
    head = git(clinic, "rev-parse", "main").strip()
    git_fhir("import", "-", input=lines(patient(gender="other"), patient("another")))

    assert git_fhir("export", "--at", head).stdout == now
    assert git_fhir("export").stdout != now
