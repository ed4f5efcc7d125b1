"""Faults of more than 100 kinds, put into HL7's examples one by one: what is found, and what two others find.

The others are fhirkit-rs, and jsonschema-rs with HL7's own fhir.schema.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fhirkit
import pytest

from gitstore.fhir import json, validation
from tests.gitstore.fhir.mutations import RULES, STRUCTURE

PAGE = Path(__file__).parents[3] / "docs" / "validation.md"
MOST = 8
"""So many examples, each of another type, get a fault of one kind."""


@dataclass
class Score:
    """For one kind of fault: how many examples had it, and who noticed it how often."""

    examples: int = 0
    ours: int = 0
    rightly: int = 0  # as 400 or 422, whichever it is, and by the name of the invariant that the kind says
    fhirkit: int = 0
    schema: int = 0
    only_others: int = 0


@pytest.fixture(scope="session")
def scores(examples: dict[str, bytes], fits_schema: Callable[[bytes], bool]) -> dict[str, Score]:
    sound = [
        (json.loads_trusted(data)["resourceType"], json.dumps(json.loads_trusted(data)))
        for data in examples.values()
        if len(data) < 100_000 and not errors(json.loads_trusted(data)) and fits_schema(data)
    ]
    return {
        kind: score(kind, mutate, sound, structural=kind in STRUCTURE, fits_schema=fits_schema)
        for kind, mutate in (STRUCTURE | RULES).items()
    }


def errors(resource: Any) -> list[Any]:
    return [issue for issue in validation.issues(resource) if issue.severity == "error"]


def score(
    kind: str,
    mutate: Callable[[Any], bool],
    sound: list[tuple[str, bytes]],
    *,
    structural: bool,
    fits_schema: Callable[[bytes], bool],
) -> Score:
    result = Score()
    types = set()
    key = re.match(r"[a-z]{3}-\d+\b|", kind)[0]
    for type, data in sound:
        if type in types or len(types) == MOST:
            continue
        resource = json.loads_trusted(data)
        if not mutate(resource):
            continue
        types.add(type)
        found = errors(resource)
        changed = json.dumps(resource)
        by_fhirkit = any(issue.severity == "error" for issue in fhirkit_issues(changed))
        by_schema = not fits_schema(changed)
        result.examples += 1
        result.ours += bool(found)
        result.rightly += any(map(validation.is_structural, found)) == structural and any(
            f"breaks {key}:" in issue.text or not key for issue in found
        )
        result.fhirkit += by_fhirkit
        result.schema += by_schema
        result.only_others += (by_fhirkit or by_schema) and not found
    return result


def fhirkit_issues(data: bytes) -> Any:
    try:
        return fhirkit.validate(data)
    except fhirkit.ValidationError as error:
        return error.issues


def test_there_are_many_kinds_of_fault_and_each_fits_some_example(scores):
    assert len(scores) >= 60
    assert [kind for kind, result in scores.items() if result.examples == 0] == []


def test_a_fault_of_any_kind_is_found_in_every_example(scores):
    """The aim is 95 % by kind."""
    assert [kind for kind, result in scores.items() if result.ours < result.examples] == []


def test_faults_of_structure_and_broken_rules_are_told_apart(scores):
    """400 for the ones and 422 for the others."""
    assert [kind for kind, result in scores.items() if result.rightly < result.ours] == []


def test_whatever_another_validator_finds_is_found_here(scores):
    assert [kind for kind, result in scores.items() if result.only_others] == []


def test_the_page_says_who_finds_what(scores):
    """docs/validation.md has the table of these scores."""
    expected = [
        f"| {kind} | {result.examples} | {result.ours} | {result.fhirkit} | {result.schema} |"
        for kind, result in scores.items()
    ]
    table = PAGE.read_text().partition("| kind of fault |")[2].partition("\n\n")[0]

    assert table.splitlines()[2:] == expected
