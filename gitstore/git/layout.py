"""Where a resource lies in the tree: `Patient/3/f/a/example.json`. docs/format.md, "The tree"

Three folders of one hex digit each, from SHA-1(id), keep every tree small: a commit rewrites each tree on the path,
and at 100,000 resources of a type that is 2.2 KB instead of 3.3 MB.
"""

from __future__ import annotations

import hashlib

from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, is_id

FORMAT = 1
FORMAT_FILE = "git-fhir.json"
ATTRIBUTES_FILE = ".gitattributes"
FHIR_VERSION = "4.0.1"
BRANCH = "main"
REFERENCE = f"refs/heads/{BRANCH}"
DIVERGED = "refs/git-fhir/diverged"
"""Below it: commits that a fenced node had not pushed."""

LOCAL = "git-fhir"
"""The folder in the git directory for all that is derived or local: index, locks, caches."""

FORMAT_TEXT = f'{{"format": {FORMAT}, "fhirVersion": "{FHIR_VERSION}"}}\n'
ATTRIBUTES_TEXT = "*.json -text diff=fhir\n"
README_TEXT = """\
# A FHIR record in git

This repository holds FHIR R4 resources, one JSON file each, at `Type/x/y/z/id.json`, where x, y and z are
the first three hex digits of the SHA-1 of the id. Each create, update and delete is a commit; a transaction is
one commit that changes all its files. The record is the first-parent chain of `main`.

    git log --stat                          what changed, by whom, when
    git log -- 'Patient/*/example.json'     the history of one resource
    git log --author=ada --since=2026-01    who did what
    git diff HEAD~5 HEAD                    what the last five changes did
    git log --format='%h %an %s %(trailers:key=FHIR-Version)'

The trailers of each commit name the versions that it makes. Don't commit here by hand: git-fhir writes the
version numbers. With git-fhir installed, `git fhir log` and `git fhir verify` read it as FHIR.
"""
FIRST_FILES = {ATTRIBUTES_FILE: ATTRIBUTES_TEXT, "README.md": README_TEXT, FORMAT_FILE: FORMAT_TEXT}


def path(resource_id: ResourceId) -> str:
    """The path of a resource's file in the tree."""
    digits = hashlib.sha1(resource_id.id.encode(), usedforsecurity=False).hexdigest()
    return f"{resource_id.type}/{digits[0]}/{digits[1]}/{digits[2]}/{resource_id.id}.json"


def resource_id(path_in_tree: str) -> ResourceId | None:
    """The resource whose file lies at this path; None for any other path. Undoes `path`."""
    type, _, rest = path_in_tree.partition("/")
    name = rest.rpartition("/")[2]
    if not name.endswith(".json") or not is_resource_type(type):
        return None
    found = ResourceId(type, name.removesuffix(".json"))
    return found if is_id(found.id) and path(found) == path_in_tree else None
