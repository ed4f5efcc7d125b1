"""FHIRPath as the definitions of R4 use it, with fhirpathpy as a second opinion. http://hl7.org/fhirpath/N1/"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import fhirpathpy
import msgspec
import pytest
from fhirpathpy.models import models

from gitstore.fhir import definitions, json, nodes, paths
from gitstore.fhir.path_syntax import Call, Index, Literal, Member, Operation, parse

PATIENT = {
    "resourceType": "Patient",
    "active": True,
    "birthDate": "1970-01-01",
    "_birthDate": {
        "extension": [{"url": "http://example.org/time", "valueDateTime": "1970-01-01T10:00:00Z"}]
    },
    "_gender": {"extension": [{"url": "http://example.org/absent", "valueCode": "unknown"}]},
    "name": [
        {
            "use": "official",
            "family": "Lovelace",
            "given": ["Ada", None, "Augusta"],
            "_given": [None, {"id": "a"}, None],
        },
        {"use": "maiden", "family": "Byron", "given": ["Ada"]},
    ],
    "multipleBirthInteger": 2,
    "contained": [{"resourceType": "Organization", "id": "o", "name": "Home"}],
    "managingOrganization": {"reference": "#o"},
    "generalPractitioner": [{"reference": "Practitioner/1"}, {"reference": "Organization/2"}],
}

VALUES: dict[str, list[Any]] = {
    # paths
    "Patient.name.family": ["Lovelace", "Byron"],
    "name.family": ["Lovelace", "Byron"],
    "Resource.active": [True],
    "Observation.status": [],
    "name[1].given": ["Ada"],
    "name[7].given": [],
    "name.given": ["Ada", None, "Augusta", "Ada"],
    "multipleBirth": [2],
    "multipleBirth.ofType(integer)": [2],
    "multipleBirth as boolean": [],
    "(multipleBirth as integer) > 1": [True],
    "`active`": [True],
    "contained.name": ["Home"],
    # primitives without a value, and their extensions
    "gender.exists()": [True],
    "gender.hasValue()": [False],
    "birthDate.hasValue()": [True],
    "gender.extension('http://example.org/absent').value": ["unknown"],
    "birthDate.extension.url": ["http://example.org/time"],
    # functions
    "name.where(use = 'maiden').family": ["Byron"],
    "name.exists(use = 'nickname')": [False],
    "name.all(family.exists())": [True],
    "name.select(use | family)": ["official", "Lovelace", "maiden", "Byron"],
    "name.given.count()": [4],
    "name.family.isDistinct()": [True],
    "name.given.isDistinct()": [False],
    "name.first().use": ["official"],
    "name.last().use": ["maiden"],
    "name.tail().use": ["maiden"],
    "name.skip(1).use | name.take(1).use": ["maiden", "official"],
    "name.family.combine(name.family).count()": [4],
    "name.family.intersect('Byron' | 'King')": ["Byron"],
    "name.family.exclude('Byron' | 'King')": ["Lovelace"],
    "name.family.startsWith('L')": [],
    "name[0].family.startsWith('L')": [True],
    "name[0].family.substring(4)": ["lace"],
    "name[0].family.substring(0, 4)": ["Love"],
    "name[0].family.contains('lac')": [True],
    "name[0].family.matches('[A-Z][a-z]+')": [True],
    "name[0].family.matches('L')": [False],
    "name[0].family.replaceMatches('[aeiou]', '')": ["Lvlc"],
    "name[0].family.length()": [8],
    "'12'.toInteger() + 1": [13],
    "'x'.toInteger()": [],
    "12.toString()": ["12"],
    "iif(active, 'yes', 'no')": ["yes"],
    "managingOrganization.resolve().name": ["Home"],
    "generalPractitioner.where(resolve() is Practitioner).reference": ["Practitioner/1"],
    "descendants().where($this is Organization).id": ["o"],
    "children().count() > 5": [True],
    # logic with three values
    "active and {}": [],
    "active.not() and {}": [False],
    "active or {}": [True],
    "{} implies active": [True],
    "active implies {}": [],
    "active.not() implies {}": [True],
    "active xor true": [False],
    "{} xor true": [],
    # comparison
    "1 = 1.0": [True],
    "true = 1": [False],
    "active = {}": [],
    "'a' != 'b'": [True],
    "'A b' ~ 'a  B'": [True],
    "2 in (1 | 2)": [True],
    "(1 | 2) contains 3": [False],
    "birthDate < @1970-01-02": [True],
    "@2020 < @2020-05": [],
    "@2020-01-01T10:00:00Z = @2020-01-01T11:00:00+01:00": [True],
    # arithmetic and precedence
    "1 + 2 - 3": [0],
    "-1 < 0": [True],
    "'a' & {} & 'b'": ["ab"],
    "'a' + {}": [],
    "1 + 1 = 2 and 2 > 1": [True],
    "true or false and false": [True],
    "'it\\'s \\u0041'": ["it's A"],
    "active // a comment": [True],
    "%ucum": ["http://unitsofmeasure.org"],
    "%resource.active": [True],
}


@pytest.mark.parametrize(("expression", "values"), VALUES.items(), ids=VALUES)
def test_an_expression_has_a_value(expression, values):
    result = [value for _, value, _ in paths.evaluate(paths.compile(expression), PATIENT)]

    assert result == values
    assert list(map(type, result)) == list(map(type, values))


def test_results_carry_their_fhir_type():
    result = paths.evaluate(paths.compile("birthDate | multipleBirth | name.first()"), PATIENT)

    assert [type for type, _, _ in result] == ["date", "integer", "HumanName"]


def test_an_expression_is_read_into_a_tree():
    assert parse("a.where(b = 'c')[0]") == Index(
        Call(Member(None, "a"), "where", (Operation("=", Member(None, "b"), Literal("string", "c")),)),
        Literal("integer", 0),
    )


REFUSED = {
    "": "`the end`|the end was not expected",
    "a.": "the end was not expected",
    "a b": "`b` was not expected",
    "(a": "the end was not expected",
    "a ^ b": "is not FHIRPath",
    "a.unknown()": r"unknown\(\) is not known",
    "a.where()": "0 arguments",
    "a.is(1)": "needs the name of a type",
    "$index": r"\$index is not known",
    "%secret": "%secret is not known",
    "1 * 2": r"operator \* is not known",
    "'a": "is not FHIRPath",
    "(" * 60 + "a" + ")" * 60: "nested more than",
    "--1": "was not expected",
    "a" * 5000: "at most 4096",
}


@pytest.mark.parametrize(("expression", "problem"), REFUSED.items(), ids=[text[:20] for text in REFUSED])
def test_what_is_not_known_is_refused_when_it_is_compiled(expression, problem):
    with pytest.raises(paths.PathError, match=problem):
        paths.compile(expression)


def test_an_order_that_can_not_be_told_marks_the_context():
    node = nodes.of_resource(PATIENT)
    context = paths.Context(node, node, node)

    assert paths.holds(paths.compile("birthDate < @1970"), context) is None
    assert context.undecided


@pytest.mark.parametrize(
    ("first", "second", "order"),
    [
        ("2020-01-01", "2020-01-01T23:00:00-05:00", []),  # the same day somewhere
        ("2020-01-01", "2020-01-03T23:00:00Z", [True]),
        ("2020-01-01T10:00:00Z", "2020-01-01T10:30:00+01:00", [False]),
        ("2020", "2020", [True]),
    ],
)
def test_dates_are_ordered_as_far_as_their_precision_and_zone_tell(first, second, order):
    period = {"resourceType": "Encounter", "period": {"start": first, "end": second}}

    result = paths.evaluate(paths.compile("period.select(start <= end)"), period)

    assert [value for _, value, _ in result] == order


def test_quantities_are_ordered_where_their_units_are_the_same():
    low, high = {"value": 1, "unit": "m"}, {"value": Decimal(2), "unit": "m"}

    def is_ordered(high):
        observation = {"resourceType": "Observation", "valueRange": {"low": low, "high": high}}
        return paths.evaluate(paths.compile("value.select(low <= high)"), observation)

    assert is_ordered(high) == [("boolean", True, None)]
    assert is_ordered({**high, "unit": "kg"}) == []


def test_a_reference_is_looked_up_where_there_is_something_to_look_it_up():
    node = nodes.of_resource(PATIENT)
    practitioner = nodes.of_resource({"resourceType": "Practitioner", "name": [{"family": "King"}]})
    context = paths.Context(node, node, node, find={"Practitioner/1": practitioner}.get)

    result = paths.compile("generalPractitioner.resolve().name.family")([node], context)

    assert result == [("string", "King", None)]


def test_every_expression_of_the_definitions_is_known():
    """1,372 search parameters, their components, and the invariants."""
    parameters = definitions.search_parameters().values()
    expressions = [parameter.expression for parameter in parameters if parameter.expression]
    expressions += [expression for parameter in parameters for _, expression in parameter.components]
    for path in definitions.RESOURCE_TYPES:
        expressions += [constraint.expression for constraint in definitions.constraints(path)]

    assert len(expressions) > 1_900
    for expression in expressions:
        paths.compile(expression)


EXAMPLES = [
    "Bundle-bundle-transaction",
    "CarePlan-example",
    "Condition-example",
    "Encounter-f001",
    "MedicationRequest-medrx0301",
    "Observation-blood-pressure",
    "Observation-f001",
    "Patient-example",
    "Questionnaire-bb",
]
NOT_THEIRS = ("resolve()", " as ", ".as(", "hasValue()", "trace(")
"""What fhirpathpy doesn't have, or refuses for several items, or prints."""


@pytest.mark.parametrize("example", EXAMPLES)
def test_fhirpathpy_finds_the_same(example, examples):
    """Each search parameter and invariant of the resource's type."""
    resource = json.loads(examples[f"{example}.json"])
    plain = msgspec.json.decode(examples[f"{example}.json"])
    type = resource["resourceType"]
    expressions = {constraint.expression for constraint in definitions.constraints(type)}
    expressions |= {
        parameter.expression
        for parameter in definitions.search_parameters().values()
        if parameter.expression and type in parameter.base
    }
    constants = {"ucum": "http://unitsofmeasure.org", "resource": plain, "rootResource": plain}

    for expression in sorted(expressions):
        if not any(part in expression for part in NOT_THEIRS):
            ours = [comparable(value) for _, value, _ in paths.evaluate(paths.compile(expression), resource)]
            theirs = fhirpathpy.evaluate(plain, expression, constants, models["r4"])

            assert ours == list(map(comparable, theirs)), expression


def comparable(value):
    value = getattr(value, "data", value)
    if isinstance(value, dict):
        return {name: comparable(child) for name, child in value.items()}
    if isinstance(value, list):
        return list(map(comparable, value))
    return float(value) if isinstance(value, Decimal) else value
