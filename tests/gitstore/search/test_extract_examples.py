"""HL7's examples as rows: every expression against fhirpathpy, and the one walk against each expression by itself."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from decimal import Decimal

import fhirpathpy
import msgspec
import pytest
from fhirpathpy.models import models

from gitstore.fhir import definitions, json, nodes, paths
from gitstore.search.extract import extract
from gitstore.search.parameters import Registry
from gitstore.search.places import alternatives, concerns
from gitstore.search.rows import Rows
from gitstore.search.values import Found, Use, converter
from tools.build_definitions import EXAMPLES, PackageMissingError, instances, package

ALL = os.environ.get("GIT_FHIR_ALL_EXPRESSIONS") == "1"
"""Ask fhirpathpy about all examples, and not only each fourth."""

TABLES = ("tokens", "strings", "dates", "quantities", "references", "positions")

THEIRS_LACKS = {
    "resolve()": "fhirpathpy needs a function for it",
}
"""Part of an expression -> why fhirpathpy can't be asked."""


@pytest.fixture(scope="module")
def examples() -> dict[str, bytes]:
    try:
        return dict(instances(package(*EXAMPLES)))
    except PackageMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


def comparable(value):
    value = getattr(value, "data", value)
    if isinstance(value, dict):
        return {name: comparable(child) for name, child in value.items()}
    if isinstance(value, list):
        return list(map(comparable, value))
    return float(value) if isinstance(value, Decimal | float) else value


def expressions_of(registry, type):
    """Those of the parameters of a type, with what they say of other types."""
    for parameter in registry.of(type).values():
        yield registry.definition(parameter).expression


def part_of(expression, type):
    """The alternatives of an expression's text that can be of a type; none holds a `|` of its own."""
    parts = [part.strip() for part in expression.split("|")]
    return " | ".join(
        part for part, tree in zip(parts, alternatives(expression), strict=True) if concerns(tree, type)
    )


def in_theirs(text, type):
    """The same for fhirpathpy: it refuses `as` for several items, where R4 means ofType, and knows no base types.

    http://hl7.org/fhirpath/N1/#as-type-specifier
    """
    text = re.sub(r"\b(Domain)?Resource\.", f"{type}.", text)
    return re.sub(r"\(([\w.]+) as (\w+)\)", r"\1.ofType(\2)", text).replace(".as(", ".ofType(")


def test_fhirpathpy_finds_the_same(examples, registry):
    """Each expression of each type's parameters, http://hl7.org/fhirpath/N1/, on HL7's examples."""
    asked = 0
    different = {}
    for name, data in sorted(examples.items())[:: 1 if ALL else 4]:
        resource, plain = json.loads(data), msgspec.json.decode(data)
        constants = {"resource": plain, "rootResource": plain}
        for expression in sorted(set(expressions_of(registry, resource["resourceType"]))):
            text = part_of(expression, resource["resourceType"])
            if any(lacking in text for lacking in THEIRS_LACKS):
                continue
            found = paths.evaluate(paths.compile(text), resource)
            ours = [comparable(value) for _, value, _ in found if value is not None]
            theirs = fhirpathpy.evaluate(
                plain, in_theirs(text, resource["resourceType"]), constants, models["r4"]
            )
            asked += 1
            if ours != list(map(comparable, theirs)):
                different[name, text] = (ours, theirs)

    assert asked > 500
    assert different == {}


def test_the_walk_finds_what_each_expression_finds_by_itself(examples, registry):
    """On every example, for each parameter: the rows of what the compiled expression yields, no more and no less.

    Only the system that a code has by its binding is known to the walk alone.
    """
    for name, data in sorted(examples.items()):
        resource = json.loads(data)
        wanted, found = Rows(), extract(registry, resource)
        for parameter in registry.of(resource["resourceType"]).values():
            one_by_one(registry, parameter, resource, wanted)

        for table in TABLES:
            assert of_parameters(found, table) == of_parameters(wanted, table), (name, table)


def one_by_one(registry, parameter, resource, rows):
    definition = registry.definition(parameter)
    node = nodes.of_resource(resource)
    context = paths.Context.of(node)
    types = {one.get("id"): one["resourceType"] for one in resource.get("contained", ())}
    if not definition.components:
        use = Use(parameter.key, 0, parameter.text, parameter.of_type, parameter.identifier)
        for value in paths.compile(definition.expression)([node], context):
            convert(value, definition.kind, use, Found(rows, [0], types, None))
        return
    for number, element in enumerate(paths.compile(definition.expression)([node], context), 1):
        parts = []
        for component, of_component in zip(definition.components, parameter.components, strict=True):
            context.start(element)
            part = Found(Rows(), [number], types, None)
            for value in paths.compile(component.expression)([element], context):
                convert(value, component.kind, Use(of_component.key), part)
            parts.append(part.rows)
        if all(any(getattr(part, table) for table in TABLES) for part in parts):
            for part in parts:
                for table in TABLES:
                    getattr(rows, table).extend(getattr(part, table))


def convert(node, kind, use, found):
    to_rows = converter(kind, node[0])
    if to_rows is not None:
        to_rows(found, node[1], [use])


def of_parameters(rows, table):
    """What is comparable of a table: systems of codes don't count, and elements only by what is in one together."""
    together = defaultdict(set)
    for row in getattr(rows, table):
        if table == "positions":
            together[0].add(row)
        else:
            key, *values, element = row
            together[key, element].add((values[1].casefold() if table == "tokens" else tuple(values),))
    return sorted((key[0] if key else 0, sorted(map(repr, found))) for key, found in together.items())


def test_every_parameter_of_the_specification_has_a_place(registry):
    """All 1,375 but those that every search has, in each of their types."""
    counted = {
        parameter.url for type in definitions.RESOURCE_TYPES for parameter in registry.of(type).values()
    }

    assert len(counted) == 1_375 - len(["_id", "_lastUpdated", "_text", "_content", "_query"])
