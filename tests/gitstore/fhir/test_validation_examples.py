"""Sound resources pass: HL7's examples, Synthea's patients; and whatever comes, there is an answer."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import fhirkit
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitstore.fhir import json, validation
from tools.build_definitions import files

PAGE = Path(__file__).parents[3] / "docs" / "validation.md"


def errors(resource: Any) -> list[Any]:
    return [issue for issue in validation.issues(resource) if issue.severity == "error"]


def rows(section: str) -> list[list[str]]:
    """The cells of each row of the table in a section of the page."""
    text = PAGE.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)[2:]
    return [line.split(" | ") for line in lines]


def test_the_official_examples_have_no_faults_but_those_that_the_page_proves(examples):
    found = {
        (name, code, str(count))
        for name, data in examples.items()
        for code, count in Counter(issue.code for issue in errors(json.loads(data))).items()
    }

    assert found == {
        (name, code, count) for name, code, count, _ in rows("Proven faults of the official examples")
    }


def test_what_the_schema_says_of_the_official_examples_is_explained(examples, fits_schema):
    refused = {name for name, data in examples.items() if not fits_schema(data)}

    assert refused == {name for name, _ in rows("Where others disagree about sound examples")}


def test_what_fhirkit_says_of_the_official_examples_is_found_here_too(examples):
    refused = {
        name
        for name, data in examples.items()
        if any(issue.severity == "error" for issue in fhirkit.validate(data))
    }

    assert refused == {"Questionnaire-qs1.json"}


def test_synthea_has_no_faults(synthea):
    """Each resource in its Bundle, where references by urn:uuid are followed."""
    counted = Counter()
    for name, bundle in synthea:
        assert errors(bundle) == [], name
        counted.update(entry["resource"]["resourceType"] for entry in bundle["entry"])

    assert counted.total() == 6649


def test_the_definitions_of_fhir_are_sound_too(examples_package):
    """Types that the examples lack; what is refused lacks an element, has a long id, or lacks an ancestor."""
    small = (
        data for name, data in files(examples_package) if len(data) < 40_000 and not name.startswith("Bundle")
    )
    resources = (json.loads_trusted(data) for data in small)
    found = Counter(
        (resource["resourceType"], issue.code)
        for resource in resources
        if resource["resourceType"] in DEFINITIONS
        for issue in errors(resource)
    )

    assert found == {
        ("SearchParameter", "required"): 10,
        ("SearchParameter", "value"): 1,
        ("StructureDefinition", "invariant"): 3,
    }


DEFINITIONS = (
    "CodeSystem",
    "ConceptMap",
    "OperationDefinition",
    "SearchParameter",
    "StructureDefinition",
    "ValueSet",
)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["", "x", "#x", "Patient/1", "2020-02-30", "urn:uuid:x", "<div>", json.Number("1.50")]),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "resourceType",
                    "reference",
                    "coding",
                    "code",
                    "system",
                    "value",
                    "extension",
                    "url",
                    "div",
                ]
            ),
            values,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@pytest.fixture(scope="session")
def small_examples(examples: dict[str, bytes]) -> list[bytes]:
    return [data for data in examples.values() if len(data) < 10_000]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_in_any_place_has_an_answer(small_examples, data):
    """Whatever stands wherever, the result is a list of issues and never another error."""
    resource = json.loads_trusted(data.draw(st.sampled_from(small_examples)))
    for _ in range(data.draw(st.integers(1, 3))):
        parent, step = data.draw(st.sampled_from(list(places(resource))))
        if isinstance(parent, dict) and data.draw(st.booleans()):
            step = data.draw(st.sampled_from([f"_{step}", "contained", "extension", "meta", "text"]))
        parent[step] = data.draw(JSON)

    for issue in validation.issues(resource):
        assert issue.severity in ("error", "warning")
        assert issue.text.endswith((".", "?"))
        assert issue.expression


@given(JSON)
def test_any_json_that_is_no_resource_is_refused(value):
    if not isinstance(value, dict) or "resourceType" not in value:
        assert any(map(validation.is_structural, validation.issues(value)))


def places(value):
    """Each object or array with each of its keys."""
    for step, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, step
        if isinstance(child, dict | list):
            yield from places(child)
