"""What rows a resource makes, type by type. https://hl7.org/fhir/R4/search.html#ptypes"""

from __future__ import annotations

import copy
import time
from decimal import Decimal
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.fhir import dates, decimals, json
from gitstore.search.extract import extract
from gitstore.search.parameters import Registry
from gitstore.search.rows import CANONICAL, EVER_AFTER, EVER_BEFORE, TEXT, Rows, exact_hash, span_of
from gitstore.search.values import SPECIAL_VALUES
from tools.build_definitions import EXAMPLES, PackageMissingError, instances, package

UCUM = "http://unitsofmeasure.org"
REGISTRY = Registry()
UNDER_EXAMPLE = Registry(base_url="http://example.org/fhir")
NAMES = {key: (code, variant) for key, _, code, variant in REGISTRY.rows()}


def found(table, code, resource, variant="", registry=REGISTRY):
    """The rows of one parameter without its key, and without the element where that is 0."""
    rows = getattr(extract(registry, resource), table)
    mine = [row for row in rows if NAMES[row[0]] == (code, variant)]
    return [row[1:-1] if not row[-1] and table != "positions" else row[1:] for row in mine]


def patient(**properties):
    return {"resourceType": "Patient", **properties}


def observation(**properties):
    return {"resourceType": "Observation", **properties}


def key(number):
    return decimals.key(Decimal(number))


# Tokens


def test_a_concept_is_each_of_its_codings():
    code = {
        "coding": [
            {"system": "http://loinc.org", "code": "1234-5X", "display": "Body Height"},
            {"system": UCUM, "code": "Mg"},
            {"code": "Own"},
        ],
        "text": "How tall?",
    }

    assert found("tokens", "code", observation(code=code)) == [
        ("http://loinc.org", "1234-5x"),  # LOINC doesn't say that it minds case
        (UCUM, "Mg"),
        ("", "own"),
    ]
    assert found("tokens", "code", observation(code=code), "text") == [
        (TEXT, "body height"),
        (TEXT, "how tall"),
    ]


def test_an_identifier_is_system_and_value_and_has_a_type():
    type = {"coding": [{"system": "http://acme.org/types", "code": "MR"}], "text": "Record Number"}
    resource = patient(identifier=[{"system": "http://acme.org", "value": "Ab1", "type": type}])

    assert found("tokens", "identifier", resource) == [("http://acme.org", "ab1")]
    assert found("tokens", "identifier", resource, "text") == [(TEXT, "record number")]
    assert found("tokens", "identifier", resource, "of-type") == [("http://acme.org/types|mr", "ab1")]


@pytest.mark.parametrize(
    ("resource", "code", "rows"),
    [
        (patient(gender="female"), "gender", [("http://hl7.org/fhir/administrative-gender", "female")]),
        (patient(active=True), "active", [(SPECIAL_VALUES, "true")]),
        (patient(deceasedDateTime="2020"), "deceased", [(SPECIAL_VALUES, "true")]),
        (patient(deceasedBoolean=False), "deceased", [(SPECIAL_VALUES, "false")]),
        (patient(telecom=[{"system": "phone", "value": "+1 555"}]), "telecom", [("", "+1 555")]),
        (patient(telecom=[{"system": "phone", "value": "1"}]), "email", []),
        (patient(telecom=[{"system": "phone", "value": "1"}]), "phone", [("", "1")]),
        (
            {"resourceType": "Binary", "meta": {"tag": [{"system": "urn:x", "code": "A"}]}},
            "_tag",
            [("urn:x", "a")],
        ),
        (
            {"resourceType": "CodeSystem", "content": "complete", "concept": [{"code": "Ab"}]},
            "code",
            [("", "ab")],
        ),
    ],
)
def test_tokens(resource, code, rows):
    assert found("tokens", code, resource) == rows


# Strings and uris


def test_a_name_is_each_of_its_parts_and_the_whole():
    resource = patient(name=[{"family": "Müller", "given": ["Ada", "Eva"], "text": "Dr. A. Müller"}])

    values = [value for value, _ in found("strings", "name", resource)]
    assert values == ["muller", "ada", "eva", "dr a muller", "ada eva muller"]
    assert found("strings", "given", resource) == [
        ("ada", exact_hash("Ada", "ada")),
        ("eva", exact_hash("Eva", "eva")),
    ]


def test_an_address_is_each_of_its_parts():
    address = {
        "line": ["1 Main St."],
        "city": "Hobart",
        "state": "TAS",
        "postalCode": "7000",
        "country": "AU",
    }

    values = [value for value, _ in found("strings", "address", patient(address=[address]))]
    assert values == ["1 main st", "hobart", "tas", "7000", "au"]
    assert found("strings", "address-city", patient(address=[address])) == [
        ("hobart", exact_hash("Hobart", "hobart"))
    ]


def test_a_uri_is_as_it_is_and_a_canonical_also_without_its_version():
    value_set = {
        "resourceType": "ValueSet",
        "url": "http://Acme.org/VS",
        "meta": {"profile": ["http://p.org/P|1.0"]},
    }

    assert found("strings", "url", value_set) == [("http://Acme.org/VS", 0)]
    assert found("strings", "_profile", value_set) == [("http://p.org/P|1.0", 0), ("http://p.org/P", 0)]


# Dates


def instants(low, high):
    return tuple(dates.interval(f"{text}T00:00:00Z")[0] for text in (low, high))


@pytest.mark.parametrize(
    ("effective", "low", "high"),
    [
        ({"effectiveDateTime": "2020-02"}, *instants("2020-02-01", "2020-03-01")),
        ({"effectiveInstant": "2020-02-01T00:00:00Z"}, *dates.interval("2020-02-01T00:00:00Z")),
        ({"effectivePeriod": {"start": "2020", "end": "2021"}}, *instants("2020-01-01", "2022-01-01")),
        ({"effectivePeriod": {"start": "2020"}}, instants("2020-01-01", "2020-01-01")[0], EVER_AFTER),
        ({"effectivePeriod": {"end": "2020"}}, EVER_BEFORE, instants("2021-01-01", "2021-01-01")[0]),
        (
            {"effectiveTiming": {"event": ["2021-05-05", "2020-01-01"], "repeat": {"frequency": 1}}},
            *instants("2020-01-01", "2021-05-06"),
        ),
        (
            {"effectiveTiming": {"repeat": {"boundsPeriod": {"start": "2020-01-01", "end": "2020-01-31"}}}},
            *instants("2020-01-01", "2020-02-01"),
        ),
    ],
)
def test_a_date_is_an_interval(effective, low, high):
    assert found("dates", "date", observation(**effective)) == [(span_of(low, high), low, high)]


@pytest.mark.parametrize(
    "effective",
    [
        {"effectivePeriod": {}},
        {"effectivePeriod": {"start": "2021", "end": "2019"}},
        {"effectiveTiming": {"repeat": {"frequency": 1}}},
        {"effectiveDateTime": "yesterday"},
        {"_effectiveDateTime": {"extension": [{"url": "http://x.org", "valueCode": "unknown"}]}},
    ],
)
def test_what_tells_no_time_has_no_row(effective):
    assert found("dates", "date", observation(**effective)) == []


# Numbers and quantities


def test_a_number_has_no_unit():
    resource = {"resourceType": "RiskAssessment", "prediction": [{"probabilityDecimal": json.loads(b"0.90")}]}
    ranged = {"resourceType": "RiskAssessment", "prediction": [{"probabilityRange": {"high": {"value": 1}}}]}

    assert found("quantities", "probability", resource) == [("", "", key("0.9"), key("0.9"))]
    assert found("quantities", "probability", ranged) == [("", "", decimals.LOWEST, key(1))]


def quantity(**properties):
    return found("quantities", "value-quantity", observation(valueQuantity=properties))


def test_a_quantity_has_its_code_its_unit_and_the_canonical_one():
    assert quantity(value=Decimal("5.4"), system=UCUM, code="mg", unit="milligram") == [
        (UCUM, "mg", key("5.4"), key("5.4")),
        ("", "milligram", key("5.4"), key("5.4")),
        (CANONICAL, "g", key("0.0054"), key("0.0054")),
    ]


@pytest.mark.parametrize(
    ("properties", "rows"),
    [
        ({"value": 1}, [("", "", key(1), key(1))]),
        ({"value": 1, "unit": "drop"}, [("", "drop", key(1), key(1))]),
        ({"value": 1, "comparator": "<", "code": "x"}, [("", "x", decimals.LOWEST, key(1))]),
        ({"value": 1, "comparator": ">=", "code": "x"}, [("", "x", key(1), decimals.HIGHEST)]),
        ({"value": 1, "system": UCUM, "code": "no unit"}, [(UCUM, "no unit", key(1), key(1))]),
        ({"unit": "mg"}, []),
        ({"value": True}, []),
        ({"value": "1"}, []),
    ],
)
def test_quantities(properties, rows):
    assert quantity(**properties) == rows


def test_money_is_in_its_currency():
    invoice = {"resourceType": "Invoice", "totalNet": {"value": Decimal("40.22"), "currency": "EUR"}}

    assert found("quantities", "totalnet", invoice) == [
        ("urn:iso:std:iso:4217", "EUR", key("40.22"), key("40.22"))
    ]


def ranged(low, high):
    ends = {name: end for name, end in (("low", low), ("high", high)) if end is not None}
    return found("quantities", "onset-age", {"resourceType": "Condition", "onsetRange": ends})


def test_a_range_reaches_from_low_to_high_and_may_have_an_open_end():
    years, weeks = {"system": UCUM, "code": "a"}, {"system": UCUM, "code": "wk"}

    assert ranged({"value": 1, **years}, {"value": 2, **years})[0] == (UCUM, "a", key(1), key(2))
    assert ranged({"value": 1, **years}, None)[0] == (UCUM, "a", key(1), decimals.HIGHEST)
    [only] = ranged({"value": 1, **weeks}, {"value": 1, **years})
    assert only[:3] == (CANONICAL, "s", key(604800))


@pytest.mark.parametrize(
    ("data", "low", "high"),
    [
        ("1 5 -2 E", key(8), key(15)),
        ("1 L U", key(-1), key(99)),
        ("1 x", None, None),
        ("E", None, None),
        (None, key(-1), key(99)),
    ],
)
def test_sampled_data_reaches_from_the_least_to_the_greatest_sample(data, low, high):
    sampled = {"origin": {"value": 10}, "factor": 1, "data": data, "lowerLimit": -1, "upperLimit": 99}
    rows = found("quantities", "value-quantity", observation(valueSampledData=sampled))

    assert rows == ([] if low is None else [("", "", low, high)])


# References


@pytest.mark.parametrize(
    ("reference", "row"),
    [
        ("Patient/1", ("Patient", "1", None)),
        ("Patient/1/_history/2", ("Patient", "1", "2")),
        ("http://example.org/fhir/Patient/1", ("Patient", "1", None)),
        ("http://elsewhere.org/Patient/1", (None, "http://elsewhere.org/Patient/1", None)),
        (
            "urn:uuid:c757873d-ec9a-4326-a141-556f43239520",
            (None, "urn:uuid:c757873d-ec9a-4326-a141-556f43239520", None),
        ),
        ("Unknown/1", (None, "Unknown/1", None)),
        ("#p", (None, "#p", None)),
        ("#", None),
        ("", None),
    ],
)
def test_a_reference_is_local_or_a_url(reference, row):
    resource = observation(subject={"reference": reference})

    assert found("references", "subject", resource, registry=UNDER_EXAMPLE) == ([row] if row else [])


def test_a_canonical_is_a_url_with_its_version():
    response = {"resourceType": "QuestionnaireResponse", "questionnaire": "http://example.org/Q|2.0"}

    assert found("references", "questionnaire", response) == [(None, "http://example.org/Q", "2.0")]


def test_the_identifier_of_a_reference_has_rows_of_its_own():
    subject = {"identifier": {"system": "urn:mrn", "value": "A1"}, "display": "Ada"}

    assert found("tokens", "subject", observation(subject=subject), "identifier") == [("urn:mrn", "a1")]
    assert found("references", "subject", observation(subject=subject)) == []


@pytest.mark.parametrize(
    ("subject", "rows"),
    [
        ({"reference": "Patient/1"}, [("Patient", "1", None)]),
        ({"reference": "Group/1"}, []),
        ({"reference": "urn:uuid:1", "type": "Patient"}, [(None, "urn:uuid:1", None)]),
        ({"reference": "urn:uuid:1"}, []),
    ],
)
def test_patient_is_a_subject_that_is_a_patient(subject, rows):
    assert found("references", "patient", observation(subject=subject)) == rows


def test_the_first_resource_of_a_document_is_referred_to():
    first = {"resource": {"resourceType": "Composition", "id": "c"}}

    assert found("references", "composition", {"resourceType": "Bundle", "entry": [first]}) == [
        ("Composition", "c", None)
    ]


# Composites, positions, words, contained resources


def test_a_composite_has_its_components_by_element():
    def part(code, value):
        return {"code": {"coding": [{"code": code}]}, "valueQuantity": {"value": value}}

    resource = observation(component=[part("a", 1), part("b", 2)])
    codes = found("tokens", "component-code-value-quantity", resource, "1")
    amounts = found("quantities", "component-code-value-quantity", resource, "2")

    assert [code for _, code, _ in codes] == ["a", "b"]
    assert [low for _, _, low, _, _ in amounts] == [key(1), key(2)]
    assert [row[-1] for row in codes] == [row[-1] for row in amounts]
    assert len({row[-1] for row in codes}) == 2


def test_an_element_without_all_components_has_no_rows():
    resource = observation(
        code={"coding": [{"code": "a"}]}, component=[{"code": {"coding": [{"code": "b"}]}}]
    )

    assert [row for row in extract(REGISTRY, resource).tokens if row[-1]] == []


def test_a_position_is_in_degrees():
    location = {"resourceType": "Location", "position": {"latitude": Decimal("-42.25"), "longitude": 147}}

    assert found("positions", "near", location) == [(-42.25, 147.0)]
    location["position"]["latitude"] = 91
    assert found("positions", "near", location) == []


def test_narrative_is_text_without_its_markup():
    div = (
        '<div xmlns="http://www.w3.org/1999/xhtml"><p>Bone &amp; <b>liver</b></p><!-- a > b -->1 &lt; 2</div>'
    )
    rows = extract(REGISTRY, patient(text={"status": "generated", "div": div}))

    assert rows.narrative == "Bone & liver 1 < 2"


def test_content_is_all_text_but_uris_and_binary_data():
    rows = extract(
        REGISTRY,
        patient(
            name=[{"family": "King", "given": ["Ada"]}],
            identifier=[{"system": "http://acme.org", "value": "A1"}],
            photo=[{"data": "QUJD" * 100}],
            text={"div": "<div>Narrative</div>"},
            contained=[{"resourceType": "Organization", "name": "Home"}],
        ),
    )

    assert rows.content.split("\n") == ["Narrative", "King", "Ada", "A1", "Organization", "Home"]


def test_contained_resources_have_rows_of_their_own():
    resource = observation(
        contained=[
            patient(id="p", gender="male"),
            {"resourceType": "Nothing", "id": "n"},
            patient(gender="male"),
            1,
        ],
        subject={"reference": "#p"},
    )
    [contained] = extract(REGISTRY, resource).contained

    assert (contained.type, contained.id) == ("Patient", "p")
    gender = REGISTRY.of("Patient")["gender"].key
    assert (gender, "http://hl7.org/fhir/administrative-gender", "male", 0) in contained.rows.tokens


def test_a_parameter_of_the_record_finds_extensions():
    registry = Registry(
        [
            {
                "url": "http://example.org/eyes",
                "code": "eyes",
                "base": ["Patient"],
                "type": "token",
                "expression": "Patient.extension('http://example.org/eye-colour').value.as(code)",
            }
        ]
    )
    resource = patient(extension=[{"url": "http://example.org/eye-colour", "valueCode": "Blue"}])

    row = (registry.of("Patient")["eyes"].key, "", "blue", 0)
    assert row in extract(registry, resource).tokens
    assert row not in extract(registry, patient(extension=[])).tokens


# As a whole


@pytest.fixture(scope="module")
def examples():
    try:
        return [json.loads(data) for _, data in instances(package(*EXAMPLES))]
    except PackageMissingError as missing:
        pytest.skip(str(missing))


def test_a_row_is_there_once_and_the_resource_stays_as_it_is(examples):
    for resource in examples[::5]:
        before = copy.deepcopy(resource)
        rows = extract(REGISTRY, resource)

        assert resource == before
        for table in ("tokens", "strings", "dates", "quantities", "references", "positions"):
            some = getattr(rows, table)
            assert len(set(some)) == len(some)


def test_the_median_example_takes_less_than_400_us(examples):
    for resource in examples:
        extract(REGISTRY, resource)
    times = []
    for resource in examples:
        start = time.process_time_ns()
        extract(REGISTRY, resource)
        times.append(time.process_time_ns() - start)

    assert median(times) < 400_000


SHAPES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["2020", "Patient/1", "#a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["coding", "system", "code", "value", "reference", "identifier", "start", "given", "data"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(["Patient", "Observation", "Bundle", "Location"]),
    st.dictionaries(
        st.sampled_from(
            [
                "name",
                "gender",
                "identifier",
                "contained",
                "text",
                "valueQuantity",
                "valueSampledData",
                "component",
                "effectiveTiming",
                "effectivePeriod",
                "subject",
                "code",
                "entry",
                "position",
                "meta",
                "telecom",
                "id",
            ]
        ),
        SHAPES,
    ),
)
def test_no_shape_is_an_error(type, properties):
    """Validation can be off, and what was written so is searched, too."""
    assert isinstance(extract(REGISTRY, {"resourceType": type, **properties}), Rows)
