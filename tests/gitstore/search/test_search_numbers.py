"""Numbers and quantities: precision, prefixes, units. https://hl7.org/fhir/R4/search.html#number and #quantity"""

from __future__ import annotations

import pytest
from searches import concept, found, refused, resource, words

from gitstore.fhir.json import Number

UCUM, LOCAL = "http://unitsofmeasure.org", "http://acme.org/units"


def risk(id, probability):
    return resource("RiskAssessment", id, prediction=[{"probabilityDecimal": Number(probability)}])


RISKS = [
    risk("zero", "0"),
    risk("minus", "-100"),
    risk("low", "99.5"),
    risk("below", "99.4999999999999999999"),
    risk("100", "100"),
    risk("100.0", "100.0"),
    risk("1e2", "1e2"),
    risk("100.004", "100.004"),
    risk("high", "100.5"),
    risk("5.40", "5.40"),
    risk("5.44", "5.44"),
    risk("5.35", "5.35"),
    risk("tiny", "1E-12"),
    risk("huge", "6.02214076e23"),
    resource(
        "RiskAssessment",
        "range",
        prediction=[{"probabilityRange": {"low": {"value": 10}, "high": {"value": 20}}}],
    ),
    resource(
        "RiskAssessment", "two", prediction=[{"probabilityDecimal": 1000}, {"probabilityDecimal": 3000}]
    ),
    resource("RiskAssessment", "none", status="final"),
]
HUNDREDS = "100 100.0 1e2"
SMALL = "zero minus 5.40 5.44 5.35 tiny"
POINTS = f"{SMALL} low below {HUNDREDS} 100.004 high huge two"

NUMBERS = [
    ("100", f"low {HUNDREDS} 100.004"),
    ("eq100", f"low {HUNDREDS} 100.004"),
    ("100.0", f"{HUNDREDS} 100.004"),
    ("100.00", f"{HUNDREDS} 100.004"),
    ("100.000", HUNDREDS),
    ("1.000e2", f"{HUNDREDS} 100.004"),
    ("1.00e2", f"low {HUNDREDS} 100.004"),
    ("1.00E%2B2", f"low {HUNDREDS} 100.004"),
    ("100.4", ""),
    ("100.5", "high"),
    ("101", "high"),
    ("5.4", "5.40 5.44 5.35"),
    ("5.40", "5.40"),
    ("5.44", "5.44"),
    ("540e-2", "5.40"),
    ("0", "zero tiny"),
    ("-0", "zero tiny"),
    ("0.0", "zero tiny"),
    ("0e-13", "zero"),
    ("-100", "minus"),
    ("-1.00e2", "minus"),
    ("1e-12", "tiny"),
    ("1.0e-12", "tiny"),
    ("6.022e23", "huge"),
    ("602214076000000000000000", "huge"),
    ("ne100", f"{SMALL} below high huge two range"),
    ("ne100.00", f"{SMALL} low below high huge two range"),
    ("gt100", "100.004 high huge two"),
    ("gt100.000", "100.004 high huge two"),
    ("ge100", f"{HUNDREDS} 100.004 high huge two"),
    ("lt100", f"{SMALL} low below range"),
    ("le100", f"{SMALL} low below {HUNDREDS} range"),
    ("sa100", "100.004 high huge two"),
    ("eb100", f"{SMALL} low below range"),
    ("lt0", "minus"),
    ("le0", "minus zero"),
    ("lt1e-12", "minus zero"),
    ("le1e-12", "minus zero tiny"),
    ("gt6.02214076e23", ""),
    ("ge6.02214076e23", "huge"),
    ("gt99.4999999999999999999", f"low {HUNDREDS} 100.004 high huge two"),
    ("ge99.4999999999999999999", f"below low {HUNDREDS} 100.004 high huge two"),
    ("ap100", f"low below {HUNDREDS} 100.004 high"),
    ("ap91", f"low below {HUNDREDS} 100.004"),
    ("ap90", ""),
    ("ap111", f"{HUNDREDS} 100.004 high"),
    ("ap-105", "minus"),
    ("ap-100", "minus"),
    # a range, and several values of one resource
    ("15", ""),
    ("gt15", f"range low below {HUNDREDS} 100.004 high huge two"),
    ("lt15", f"{SMALL} range"),
    ("sa15", f"low below {HUNDREDS} 100.004 high huge two"),
    ("sa5", f"range 5.40 5.44 5.35 low below {HUNDREDS} 100.004 high huge two"),
    ("eb25", f"{SMALL} range"),
    ("ap15", "range"),
    ("gt2000&probability=lt2000", "two"),
    ("gt2000&probability=lt900", ""),
    ("1000,5.40", "two 5.40"),
]


@pytest.fixture(scope="module")
def risks(store_of):
    return store_of(RISKS)


@pytest.mark.parametrize(("value", "expected"), NUMBERS)
def test_numbers(risks, value, expected):
    """12c.5: `eq` and `ne` go by the digits written; the other prefixes take the number as exact."""
    assert found(risks, f"RiskAssessment?probability={value}") == words(expected)


@pytest.mark.parametrize(("value", "expected"), [("true", "none"), ("false", f"{POINTS} range")])
def test_missing_numbers(risks, value, expected):
    """12c.9"""
    assert found(risks, f"RiskAssessment?probability:missing={value}") == words(expected)


@pytest.mark.parametrize(
    ("value", "fits"),
    [("96", True), ("104.9", True), ("100", True), ("200", False), ("-100", False), ("0", False)],
)
def test_one_digit_and_an_exponent(store_of, value, fits):
    """R4 calls 1e2 one significant figure, and gives [95, 105) for it: what is in there has to be found."""
    assert found(store_of([risk("it", value)]), "RiskAssessment?probability=1e2") == (
        {"it"} if fits else set()
    )


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        "1,5x",
        "0x10",
        "1e",
        "1e2000",
        "NaN",
        "Infinity",
        "gt",
        "--1",
        "1 000",
        "5|mg",
        "1e999999999",
        "१",
    ],
)
def test_what_is_no_number_is_refused(risks, value):
    assert refused(risks, f"RiskAssessment?probability={value}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("2", "2"), ("2.0", "2"), ("2.4", ""), ("gt1", "2 3"), ("le2", "1 2"), ("1e0", "1")],
)
def test_whole_numbers(store_of, value, expected):
    """What the digits after the point say beyond zeros can't be met by a whole number."""
    store = store_of([resource("MolecularSequence", str(n), variant=[{"start": n}]) for n in (1, 2, 3)])

    assert found(store, f"MolecularSequence?variant-start={value}") == words(expected)


def quantity(id, value, code=None, system=UCUM, unit=None, comparator=None):
    parts = {
        "value": Number(value) if value else None,
        "comparator": comparator,
        "unit": unit,
        "system": system if code else None,
        "code": code,
    }
    made = {name: part for name, part in parts.items() if part is not None}
    return resource("Observation", id, valueQuantity=made)


AMOUNTS = [
    quantity("mg", "5.4", "mg"),
    quantity("mg-upper", "5.44", "mg", unit="MG"),
    quantity("g", "0.0054", "g"),
    quantity("kg", "5.4e-6", "kg"),
    quantity("ug", "5400", "ug"),
    quantity("text-only", "5.4", unit="mg"),
    quantity("other-system", "5.4", "mg", LOCAL),
    quantity("bare", "5.4"),
    quantity("glucose-mg", "100", "mg/dL"),
    quantity("glucose-g", "1", "g/L"),
    quantity("celsius", "37", "Cel"),
    quantity("fahrenheit", "98.6", "[degF]"),
    quantity("kelvin", "310.15", "K"),
    quantity("minus-forty", "-40", "Cel"),
    quantity("inch", "1", "[in_i]"),
    quantity("pressure", "120", "mm[Hg]"),
    quantity("unknown-unit", "5.4", "[furlong]x"),
    quantity("rate", "23", "mm/h"),
    quantity("percent", "50", "%"),
    quantity("valueless", None, "mg"),
]
QUANTITIES = [
    # no unit: any
    ("5.4", "mg mg-upper text-only other-system bare unknown-unit"),
    ("5.40", "mg text-only other-system bare unknown-unit"),
    ("gt5000", "ug"),
    ("lt0", "minus-forty"),
    # system and code: UCUM's units of the same kind
    (f"5.4|{UCUM}|mg", "mg mg-upper g kg ug"),
    (f"5.40|{UCUM}|mg", "mg g kg ug"),
    (f"5.40e-3|{UCUM}|g", "mg g kg ug"),
    (f"0.0054|{UCUM}|g", "mg mg-upper g kg ug"),
    (f"gt5.4|{UCUM}|mg", "mg-upper"),
    (f"ge5.4|{UCUM}|mg", "mg mg-upper g kg ug"),
    (f"le5.4|{UCUM}|mg", "mg g kg ug"),
    (f"lt5.4|{UCUM}|mg", ""),
    (f"ap5|{UCUM}|mg", "mg mg-upper g kg ug"),
    (f"ne5.40|{UCUM}|mg", "mg-upper"),
    (f"5.4|{LOCAL}|mg", "other-system"),
    (f"1|{UCUM}|g/L", "glucose-mg glucose-g"),
    (f"100|{UCUM}|mg/dL", "glucose-mg glucose-g"),
    (f"0.1|{UCUM}|g/dL", "glucose-mg glucose-g"),
    (f"37|{UCUM}|Cel", "celsius fahrenheit kelvin"),
    (f"98.6|{UCUM}|[degF]", "celsius fahrenheit kelvin"),
    (f"310.15|{UCUM}|K", "celsius fahrenheit kelvin"),
    (f"-40|{UCUM}|[degF]", "minus-forty"),
    (f"lt0|{UCUM}|Cel", "minus-forty"),
    (f"2.54|{UCUM}|cm", "inch"),
    (f"16.0|{UCUM}|kPa", "pressure"),
    (f"120|{UCUM}|mm[Hg]", "pressure"),
    (f"5.4|{UCUM}|[furlong]x", "unknown-unit"),
    (f"0.023|{UCUM}|m/h", "rate"),
    (f"0.5|{UCUM}|1", "percent"),
    # no system: the code or the text of the unit
    ("5.4||mg", "mg mg-upper text-only other-system"),
    ("5.4||MG", "mg-upper"),
    ("5.40||mg", "mg text-only other-system"),
    ("120||mm[Hg]", "pressure"),
    ("5.4||g", ""),
    (f"5.4|{UCUM}|mg,1||[in_i]", "mg mg-upper g kg ug inch"),
]


@pytest.fixture(scope="module")
def amounts(store_of):
    return store_of(AMOUNTS)


@pytest.mark.parametrize(("value", "expected"), QUANTITIES)
def test_quantities(amounts, value, expected):
    """12c.5: units of UCUM are compared by what they measure, exactly."""
    assert found(amounts, f"Observation?value-quantity={value}") == words(expected)


def test_a_quantity_without_a_value_fits_no_comparison(amounts):
    for prefix in ("", "ne", "lt", "gt"):
        assert "valueless" not in found(amounts, f"Observation?value-quantity={prefix}5")


COMPARED = [
    quantity("less", "5", "mg", comparator="<"),
    quantity("at-most", "5", "mg", comparator="<="),
    quantity("more", "5", "mg", comparator=">"),
    quantity("at-least", "5", "mg", comparator=">="),
    quantity("exactly", "5", "mg"),
]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("lt4", "less at-most"),
        ("gt6", "more at-least"),
        ("4", ""),
        ("6", ""),
        ("gt4", "less at-most more at-least exactly"),
        ("lt6", "less at-most more at-least exactly"),
        ("eb6", "less at-most exactly"),
        ("sa4", "more at-least exactly"),
        ("sa6", ""),
        ("eb4", ""),
        ("ne5", "less at-most more at-least"),
        (f"lt0.004|{UCUM}|g", "less at-most"),
        (f"gt4000|{UCUM}|ug", "less at-most more at-least exactly"),
    ],
)
def test_a_comparator_makes_a_range_of_a_quantity(store_of, value, expected):
    """`<5 mg` is anything below: it may be less than 4, it ends before 6, and it is equal to nothing.

    https://hl7.org/fhir/R4/datatypes.html#Quantity, https://hl7.org/fhir/R4/search.html#prefix
    """
    assert found(store_of(COMPARED), f"Observation?value-quantity={value}") == words(expected)


AGES = [
    resource("Condition", "ten", onsetAge={"value": 10, "system": UCUM, "code": "a"}),
    resource(
        "Condition",
        "teens",
        onsetRange={
            "low": {"value": 10, "system": UCUM, "code": "a"},
            "high": {"value": 20, "system": UCUM, "code": "a"},
        },
    ),
    resource("Condition", "grown-up", onsetRange={"low": {"value": 18, "system": UCUM, "code": "a"}}),
    resource(
        "Condition", "months", onsetAge={"value": 120, "system": UCUM, "code": "mo"}, code=concept("|x")
    ),
]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"10|{UCUM}|a", "ten months"),
        (f"gt15|{UCUM}|a", "teens grown-up"),
        (f"lt15|{UCUM}|a", "ten teens months"),
        (f"sa15|{UCUM}|a", "grown-up"),
        (f"eb15|{UCUM}|a", "ten months"),
        (f"eb21|{UCUM}|a", "ten teens months"),
        (f"gt1000|{UCUM}|a", "grown-up"),
        ("sa17", "grown-up months"),
    ],
)
def test_ages_and_ranges_of_ages(store_of, value, expected):
    """A range without an end goes on for ever."""
    assert found(store_of(AGES), f"Condition?onset-age={value}") == words(expected)


@pytest.mark.parametrize(
    "value",
    ["mg", "5.4 mg", "5.4|a|b|c", f"abc|{UCUM}|mg", "|", "xx5", "5..4"],
)
def test_what_is_no_quantity_is_refused(amounts, value):
    assert refused(amounts, f"Observation?value-quantity={value}")


@pytest.mark.parametrize("modifier", ["exact", "not", "text", "above", "in", "Patient"])
def test_modifiers_that_quantities_do_not_have_are_refused(amounts, modifier):
    assert refused(amounts, f"Observation?value-quantity:{modifier}=5")


@pytest.mark.parametrize("value", ["true", "false"])
def test_missing_quantities(amounts, value):
    """12c.9: only what has neither value nor anything else of a quantity is missing for certain."""
    answer = found(amounts, f"Observation?value-quantity:missing={value}")

    assert ("mg" in answer) is (value == "false")
    assert answer - {"valueless"} in ({one["id"] for one in AMOUNTS} - {"valueless"}, set())
