"""Where a resource lies in the tree. docs/format.md, "The tree" """

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId
from gitstore.git import layout

IDS = st.from_regex(r"[A-Za-z0-9\-.]{1,64}", fullmatch=True).filter(lambda id: id not in (".", ".."))


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("Patient/example", "Patient/c/3/4/example.json"),
        ("Observation/example", "Observation/c/3/4/example.json"),
        ("Patient/1", "Patient/3/5/6/1.json"),
        ("Patient/.git", "Patient/4/b/3/.git.json"),
        ("Patient/a.json", "Patient/d/2/7/a.json.json"),
        ("Patient/EXAMPLE", "Patient/e/9/1/EXAMPLE.json"),
    ],
)
def test_a_resource_has_one_place(reference, path):
    """The three digits are those of SHA-1 over the id alone."""
    type, id = reference.split("/")

    assert layout.path(ResourceId(type, id)) == path
    assert layout.resource_id(path) == ResourceId(type, id)


def test_the_digits_are_what_sha1sum_prints(git_in, tmp_path):
    """Anyone can find a file: `printf example | sha1sum`."""
    printed = subprocess.run(["sha1sum"], input=b"example", capture_output=True, check=True).stdout.decode()

    assert layout.path(ResourceId("Patient", "example")).split("/")[1:4] == list(printed[:3])


@given(st.builds(ResourceId, st.sampled_from(RESOURCE_TYPES), IDS))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_the_resource_of_a_path_undoes_the_path_of_a_resource(resource_id):
    assert layout.resource_id(layout.path(resource_id)) == resource_id


FOREIGN = [
    "",
    "/",
    ".json",
    "README.md",
    "git-fhir.json",
    ".gitattributes",
    "Patient",
    "Patient/example.json",
    "Patient/c/3/example.json",
    "Patient/c34/example.json",
    "Patient/c/3/5/example.json",
    "Patient/C/3/4/example.json",
    "Patient/c/3/4/example.JSON",
    "Patient/c/3/4/example",
    "Patient/c/3/4/example.json/",
    "Patient/c/3/4//example.json",
    "Patient/c/3/4/x/example.json",
    "/Patient/c/3/4/example.json",
    "patient/c/3/4/example.json",
    "Bogus/c/3/4/example.json",
    "DomainResource/c/3/4/example.json",
    "Patient/d/a/3/.json",
    "Patient/9/d/8/...json",
    "Patient/c/3/4/exam ple.json",
    "Patient/c/3/4/example.json\n",
]


@pytest.mark.parametrize("path", FOREIGN)
def test_a_path_that_is_no_resources_place_is_none(path):
    assert layout.resource_id(path) is None


@given(st.text(max_size=40) | st.sampled_from(FOREIGN))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_any_path_is_either_foreign_or_the_resources_own(path):
    found = layout.resource_id(path)

    assert found is None or layout.path(found) == path
