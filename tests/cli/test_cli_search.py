"""search: the server's search, on any clone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.search import headline
from gitstore import Update, init
from gitstore.fhir.ids import ResourceId
from gitstore.fhir.json import loads
from tests.cli.conftest import ADA, START, GitFhir, git, ndjson, open_store
from tests.conftest import copy_record


def observation(id: str, **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id, "subject": {"reference": "Patient/ada"}} | elements


WARD = [
    {"resourceType": "Patient", "id": "ada", "name": [{"given": ["Ada", "King"], "family": "Byron"}]},
    {"resourceType": "Patient", "id": "bob", "name": [{"text": "Bob \u202e"}], "birthDate": "1999-02-01"},
    observation("o1", code={"coding": [{"code": "29463-7"}], "text": "Body\n weight"}, status="final"),
    observation("o2", valueQuantity={"value": 1}, status="final"),
    {"resourceType": "Basic", "id": "b"},
]


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients, two observations of the first, and something else; for tests that write nothing."""
    path = tmp_path_factory.mktemp("ward") / "ward.git"
    init(path, clock=lambda: START)
    for name in ("durability", "validation"):
        git(path, "config", f"fhir.{name}", "off")
    with open_store(path) as store:
        resources = [loads(json.dumps(one).replace('"value": 1', '"value": 1.00').encode()) for one in WARD]
        store.commit([Update(ResourceId(one["resourceType"], one["id"]), one) for one in resources], ADA)
    return path


@pytest.fixture
def repository(ward: Path) -> Path:
    """What commands work on here."""
    return ward


@pytest.fixture
def copy(ward: Path, tmp_path: Path) -> Path:
    """A ward of one's own."""
    return copy_record(ward, tmp_path / "copy.git")


def names(result: Any) -> list[str]:
    """The first column."""
    assert result.exit_code == 0, result.stderr
    return [line.split("  ")[0] for line in result.stdout.splitlines()]


def test_each_match_is_a_line(ward: Path, git_fhir: GitFhir) -> None:
    """Which resource, version and date as `ls` has them, and what it is about; nothing steers the terminal."""
    result = git_fhir("search", "Patient?_sort=birthdate")

    bob, ada = (line.split() for line in result.stdout.splitlines())
    assert (ada[:2], ada[3:]) == (["Patient/ada", "v1"], ["Ada", "King", "Byron"])
    assert (bob[:2], bob[3:]) == (["Patient/bob", "v1"], ["Bob", "\\u202e"])
    assert ada[2] == git_fhir("ls", "Patient").stdout.split()[2]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("Patient?name=byron", ["Patient/ada"]),
        ("Patient?name=nobody", []),
        ("Patient", ["Patient/ada", "Patient/bob"]),
        ("/Patient?name=ada%20", ["Patient/ada"]),
        ("Observation?subject=Patient/ada&code=29463-7", ["Observation/o1"]),
        ("Patient/ada/Observation", ["Observation/o1", "Observation/o2"]),
        ("Patient/ada/Observation?code=29463-7", ["Observation/o1"]),
        ("Patient/ada/*", ["Observation/o1", "Observation/o2", "Patient/ada"]),
        ("?_type=Patient,Basic", ["Basic/b", "Patient/ada", "Patient/bob"]),
        ("?_id=ada", ["Patient/ada"]),
        ("", ["Basic/b", "Observation/o1", "Observation/o2", "Patient/ada", "Patient/bob"]),
    ],
)
def test_a_query_is_what_stands_behind_the_base(
    ward: Path, git_fhir: GitFhir, asked: str, found: list[str]
) -> None:
    """A type, a compartment or everything. https://hl7.org/fhir/R4/http.html#search"""
    assert sorted(names(git_fhir("search", asked))) == found


def test_what_is_included_is_marked_and_there_once(ward: Path, git_fhir: GitFhir) -> None:
    lines = git_fhir("search", "Observation?_include=Observation:subject&_sort=_id").stdout.splitlines()

    assert [line.split()[0] for line in lines] == ["Observation/o1", "Observation/o2", "Patient/ada"]
    assert lines[0].endswith("Body weight")
    assert lines[2].endswith("included: Ada King Byron")


def test_json_is_a_resource_a_line(ward: Path, git_fhir: GitFhir) -> None:
    """Numbers as written, so that `import` could read it again. https://hl7.org/fhir/R4/json.html#decimal"""
    result = git_fhir("search", "--json", "Observation?_id=o2&_include=*")

    found = ndjson(result)
    assert [one["id"] for one in found] == ["o2", "ada"]
    assert found[0]["meta"]["versionId"] == "1"
    assert '"value":1.00' in result.stdout


def test_a_part_of_each_can_be_asked_for(ward: Path, git_fhir: GitFhir) -> None:
    """https://hl7.org/fhir/R4/search.html#elements"""
    [found] = ndjson(git_fhir("search", "--json", "Patient?_id=bob&_elements=birthDate"))

    assert found["birthDate"] == "1999-02-01"
    assert "name" not in found
    assert found["meta"]["tag"][0]["code"] == "SUBSETTED"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--count", "Observation"),
        ("--count", "Observation?_count=1&_total=none"),
        ("Observation?_summary=count",),
    ],
)
def test_how_many_there_are_can_be_asked_alone(
    ward: Path, git_fhir: GitFhir, arguments: tuple[str, ...]
) -> None:
    assert git_fhir("search", *arguments).stdout == "2\n"
    assert ndjson(git_fhir("search", "--json", *arguments)) == [{"total": 2}]


def test_all_pages_are_followed_unless_it_says_how_many(copy: Path, git_fhir: GitFhir) -> None:
    """More than the thousand that a page of the server can have."""
    lines = "".join(json.dumps({"resourceType": "Group", "id": f"g{n}"}) + "\n" for n in range(1_100))
    git_fhir("-C", copy, "import", "-", input=lines)

    def found(*arguments: str) -> list[str]:
        return names(git_fhir("-C", copy, "search", *arguments))

    everything = found("Group?_sort=-_id")

    assert len(everything) == len(set(everything)) == 1_100
    assert everything == sorted(everything, reverse=True)
    assert len(found("Group?_count=7")) == 7
    assert found("-n", "3", "Group?_sort=-_id") == everything[:3]
    assert len(found("--limit", "1050", "Group")) == 1_050
    assert len(found("--limit", "3", "Group?_count=10")) == 3


def test_contained_resources_are_named_with_their_container(copy: Path, git_fhir: GitFhir) -> None:
    """https://hl7.org/fhir/R4/search.html#contained"""
    inner = {"resourceType": "Patient", "id": "p", "name": [{"family": "Inner"}]}
    outer = observation("o3", contained=[inner], status="final") | {"subject": {"reference": "#p"}}
    git_fhir("-C", copy, "import", "-", input=json.dumps(outer))
    asked = "Patient?name=inner&_contained=true&_containedType=contained"

    assert names(git_fhir("-C", copy, "search", asked)) == ["Observation/o3#p"]
    assert ndjson(git_fhir("-C", copy, "search", "--json", asked)) == [inner]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("Patient?unknown=x", 1),
        ("Patient?name:x=y", 1),
        ("Patient?birthdate=abc", 1),
        ("Gurke", 2),
        ("Gurke/1/Patient", 2),
        ("Basic/b/Patient", 2),
        ("Patient/ada", 2),
        ("Patient/a_b/Observation", 2),
        ("Patient/ada/Observation/x", 2),
        ("name=byron", 2),
        ("Patient?name=%FF", 2),
    ],
)
def test_what_makes_no_sense_is_refused(ward: Path, git_fhir: GitFhir, asked: str, code: int) -> None:
    """In one line, exit code 1 for what the search refuses and 2 for what is none. A typing error is no search of everything."""
    result = git_fhir("search", asked)

    assert (result.exit_code, result.stdout) == (code, "")
    if code == 1:
        assert result.stderr.startswith("git-fhir: ")
        assert result.stderr.count("\n") == 1


def test_an_unknown_parameter_can_be_left_out(ward: Path, git_fhir: GitFhir) -> None:
    """With a warning, as the server does it."""
    result = git_fhir("search", "--lenient", "Patient?unknown=x&name=byron")

    assert names(result) == ["Patient/ada"]
    assert result.stderr.startswith("git-fhir: ")
    assert "unknown" in result.stderr


def test_a_page_of_the_servers_is_none_here(ward: Path, git_fhir: GitFhir) -> None:
    assert git_fhir("search", "Patient?_page=1.1..x").exit_code == 1


def test_a_reference_under_the_servers_url_is_one_of_the_record(copy: Path, git_fhir: GitFhir) -> None:
    """`fhir.baseUrl`. https://hl7.org/fhir/R4/search.html#reference"""
    asked = "Observation?subject=https://clinic.example/fhir/Patient/ada"
    assert names(git_fhir("-C", copy, "search", asked)) == []

    git(copy, "config", "fhir.baseUrl", "https://clinic.example/fhir/")

    assert len(names(git_fhir("-C", copy, "search", asked))) == 2


def test_a_plain_clone_can_be_searched(ward: Path, tmp_path: Path, git_fhir: GitFhir) -> None:
    """Without a server: the index is made from what git has."""
    clone = tmp_path / "clone"
    git(ward, "clone", "--quiet", str(ward), str(clone))

    assert names(git_fhir("-C", clone, "search", "Patient?name=byron")) == ["Patient/ada"]


def test_without_search_it_says_so(copy: Path, git_fhir: GitFhir) -> None:
    """`fhir.search = off`"""
    git(copy, "config", "fhir.search", "off")

    result = git_fhir("-C", copy, "search", "Patient")

    assert result.exit_code == 1
    assert "fhir.search" in result.stderr


@pytest.mark.parametrize(
    ("elements", "text"),
    [
        ({}, ""),
        ({"name": "Clinic"}, "Clinic"),
        ({"name": []}, ""),
        ({"name": [{"given": ["Ada"]}]}, "Ada"),
        ({"name": "TobaccoUse", "title": "Tobacco use"}, "Tobacco use"),
        ({"name": [{"use": "old"}], "code": {"text": "C"}}, "C"),
        ({"code": {"coding": [{"display": "Weight", "code": "w"}]}}, "Weight"),
        ({"code": {"coding": [{"code": "w"}]}}, "w"),
        ({"code": {"coding": []}}, ""),
        ({"type": [{"text": "A"}, {"text": "B"}]}, "A"),
        ({"description": "x" * 99}, "x" * 59 + "…"),
    ],
)
def test_a_headline_is_what_tells_a_reader_most(elements: dict[str, Any], text: str) -> None:
    """The first of some elements that has words, whatever the type of the resource."""
    assert headline({"resourceType": "Anything"} | elements) == text
