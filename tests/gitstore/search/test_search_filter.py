"""_filter: expressions of any shape. https://hl7.org/fhir/R4/search_filter.html"""

from __future__ import annotations

from urllib.parse import quote

import pytest
from searches import concept, found, reference, refused, resource, words

LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
RECORD = [
    resource(
        "Patient",
        "peter",
        name=[{"family": "Chalmers", "given": ["Peter", "James"]}],
        birthDate="2014-10-10",
        gender="male",
    ),
    resource(
        "Patient",
        "petra",
        name=[{"family": "van Loon", "given": ["Petra"]}],
        birthDate="2010-01-01",
        gender="female",
    ),
    resource("Patient", "ann", name=[{"family": "O(K)", "given": ["Ann"]}], gender="female", active=True),
    resource("Patient", "none", active=False),
    resource(
        "Observation",
        "sodium",
        code=concept(f"{LOINC}|2951-2"),
        subject=reference("Patient/peter"),
        valueQuantity={"value": 151, "system": UCUM, "code": "mmol/L"},
    ),
    resource(
        "Observation",
        "low",
        code=concept(f"{LOINC}|2951-2"),
        subject=reference("Patient/petra"),
        valueQuantity={"value": 120, "system": UCUM, "code": "mmol/L"},
    ),
    resource(
        "Observation",
        "other",
        code=concept("http://acme.org|2951-2"),
        subject=reference("Patient/ann"),
        status="final",
    ),
    resource(
        "Encounter",
        "stay",
        period={"start": "2014-01-01", "end": "2014-01-31"},
        subject=reference("Patient/peter"),
    ),
]

PATIENTS = [
    ('name co "pet"', "peter petra"),
    ("name co pet", "peter petra"),
    ('name co "ETR"', "petra"),
    ('given eq "peter"', "peter"),
    ('given eq "pet"', ""),
    ('given sw "pet"', "peter petra"),
    ('given ew "er"', "peter"),
    ('family eq "van loon"', "petra"),
    ('family eq "O(K)"', "ann"),
    ('given eq "peter" and birthdate ge 2014-10-10', "peter"),
    ('given eq "peter" and birthdate gt 2014-10-10', ""),
    ("birthdate lt 2012", "petra"),
    ("birthdate eq 2014-10-10", "peter"),
    ("gender eq female", "petra ann"),
    ("gender ne female", "peter"),
    ("gender eq male or gender eq female", "peter petra ann"),
    # from left to right, without precedence
    ("gender eq male or gender eq female and active eq true", "ann"),
    ("gender eq male or (gender eq female and active eq true)", "peter ann"),
    ("active eq true and gender eq female or gender eq male", "peter ann"),
    ("not (gender eq female)", "peter none"),
    ("not (gender eq female) and birthdate pr true", "peter"),
    ("not (not (gender eq female))", "petra ann"),
    ("gender pr true", "peter petra ann"),
    ("gender pr false", "none"),
    ("((gender eq male))", "peter"),
    ("_id eq peter", "peter"),
    ("_id eq peter or _id eq none", "peter none"),
    ('  name   co   "pet"  ', "peter petra"),
]

OBSERVATIONS = [
    (f"code eq {LOINC}|2951-2", "sodium low"),
    ("code eq 2951-2", "sodium low other"),
    ("code eq loinc|2951-2", "sodium low"),
    ('subject.name co "pet"', "sodium low"),
    ("subject re Patient/peter", "sodium"),
    ("patient.gender eq female", "low other"),
    ("value-quantity gt 150", "sodium"),
    (f"value-quantity ge 0.12|{UCUM}|mol/L", "sodium low"),
    ("value-quantity lt 150 or status eq final", "low other"),
    ("subject[gender eq female].name co petra", "low"),
    ("subject[gender eq male].name co petra", ""),
]


@pytest.fixture(scope="module")
def cases(store_of):
    return store_of(RECORD)


@pytest.mark.parametrize(("expression", "expected"), PATIENTS)
def test_patients(cases, expression, expected):
    """12c.11"""
    assert found(cases, f"Patient?_filter={quote(expression)}") == words(expected)


@pytest.mark.parametrize(("expression", "expected"), OBSERVATIONS)
def test_observations(cases, expression, expected):
    """Tokens, references, quantities, chains. Some systems have short names here."""
    assert found(cases, f"Observation?_filter={quote(expression)}") == words(expected)


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ("date po 2014-01-15", True),
        ("date po 2014-02", False),
        ("date sa 2013", True),
        ("date eb 2014-02", True),
        ("date eb 2014-01-20", False),
        ("date ge 2014-01-20", True),
        ("date ap 2014-01-15", True),
    ],
)
def test_dates(cases, expression, matches):
    """`po`: the periods overlap."""
    assert ("stay" in found(cases, f"Encounter?_filter={quote(expression)}")) is matches


def test_a_filter_stands_beside_other_parameters(cases):
    assert found(cases, "Patient?_filter=gender eq female&name=ann") == {"ann"}
    assert found(cases, "Patient?_filter=gender eq female&_filter=active eq true") == {"ann"}


@pytest.mark.parametrize(
    "expression",
    [
        "name",
        'given ne "peter"',  # of several values one may be unequal: `not (given eq "peter")` says what is meant
        "name co",
        'name co "open',
        "name xx pet",
        "nonsense eq 1",
        "(gender eq male",
        "gender eq male)",
        "gender eq male and",
        "and gender eq male",
        "not gender",
        "gender eq male gender eq female",
        "gender pr maybe",
        "birthdate eq yesterday",
        "birthdate co",
        "gender.name eq x",
        "subject re",
        "((((",
        ")",
        "()",
        "name[co",
        "not not (gender eq male",
        "(" * 2000 + "gender eq male" + ")" * 2000,
    ],
)
def test_what_is_no_filter_is_refused(cases, expression):
    """400, whatever it is: a filter is never left out."""
    assert refused(cases, f"Patient?_filter={quote(expression)}")
