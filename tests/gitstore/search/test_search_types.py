"""What holds for parameters of every type: and, or, escapes, composites, errors; and the common and special ones.

Each type has a table of its own beside this file. https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

import pytest
from searches import concept, found, listed, reference, refused, resource, search, used, warnings, words

from gitstore.fhir.json import Number

UCUM, LOINC = "http://unitsofmeasure.org", "http://loinc.org"


def amount(value, code="mm[Hg]"):
    return {"value": value, "system": UCUM, "code": code}


def pressure(id, systolic, diastolic):
    return resource(
        "Observation",
        id,
        status="final",
        code=concept(f"{LOINC}|85354-9"),
        component=[
            {"code": concept(f"{LOINC}|8480-6"), "valueQuantity": amount(systolic)},
            {"code": concept(f"{LOINC}|8462-4"), "valueQuantity": amount(diastolic)},
        ],
    )


MEASURED = [
    pressure("normal", 120, 80),
    pressure("high", 180, 120),
    pressure("reversed", 80, 120),
    resource("Observation", "single", code=concept(f"{LOINC}|8480-6"), valueQuantity=amount(120)),
    resource("Observation", "kilo", code=concept(f"{LOINC}|8480-6"), valueQuantity=amount(16, "kPa")),
    resource(
        "Observation",
        "blood-group",
        code=concept(f"{LOINC}|882-1"),
        valueCodeableConcept=concept("http://acme.org|A$B"),
    ),
    resource("Observation", "text", code=concept(f"{LOINC}|882-1"), valueString="Amber, clear"),
    resource("Observation", "dated", code=concept(f"{LOINC}|8665-2"), valueDateTime="2024-02-29"),
    resource("Observation", "empty", code=concept(f"{LOINC}|8480-6")),
]

COMPOSITES = [
    (f"component-code-value-quantity={LOINC}|8480-6$120", "normal"),
    (f"component-code-value-quantity={LOINC}|8480-6$120|{UCUM}|mm[Hg]", "normal"),
    (f"component-code-value-quantity={LOINC}|8462-4$120", "high reversed"),
    (f"component-code-value-quantity={LOINC}|8480-6$lt100", "reversed"),
    ("component-code-value-quantity=8480-6$ge120", "normal high"),
    ("component-code-value-quantity=8480-6$ge120,8462-4$le80", "normal high"),
    ("component-code-value-quantity=8480-6$ge120&component-code-value-quantity=8462-4$le80", "normal"),
    (f"component-code-value-quantity=8480-6$gt15|{UCUM}|kPa", "normal high"),
    # both parts are there, but not in one component
    ("component-code-value-quantity=8480-6$80&component-code-value-quantity=8462-4$80", ""),
    ("component-code-value-quantity=8462-4$180", ""),
    ("component-code-value-quantity=85354-9$120", ""),
    ("component-code=8480-6&component-value-quantity=80", "normal reversed"),
    ("combo-code-value-quantity=8480-6$120", "normal single"),
    (f"combo-code-value-quantity=8480-6$16.0|{UCUM}|kPa", "normal single kilo"),
    ("combo-code-value-quantity=85354-9$gt0", ""),
    ("code-value-quantity=8480-6$120", "single"),
    (f"code-value-quantity={LOINC}|8480-6$ap120|{UCUM}|mm[Hg]", "single kilo"),
    ("code-value-concept=882-1$http://acme.org|A\\$B", "blood-group"),
    ("code-value-concept=882-1$A\\$B", "blood-group"),
    ("code-value-concept=882-1$A", ""),
    ("code-value-string=882-1$amber\\, cl", "text"),
    ("code-value-string=882-1$amber", "text"),
    ("code-value-string=8480-6$amber", ""),
    ("code-value-date=8665-2$2024", "dated"),
    ("code-value-date=8665-2$gt2024-02-28T23:00:00Z", "dated"),
    ("code-value-date=8665-2$lt2024", ""),
]


@pytest.fixture(scope="module")
def measured(store_of):
    return store_of(MEASURED)


@pytest.mark.parametrize(("query", "expected"), COMPOSITES)
def test_composites(measured, query, expected):
    """12c.7: one and the same element has to meet all parts. https://hl7.org/fhir/R4/search.html#composite"""
    assert found(measured, f"Observation?{query}") == words(expected)


@pytest.mark.parametrize(
    "query",
    [
        "code-value-quantity=8480-6",
        "code-value-quantity=8480-6$120$3",
        "code-value-quantity=8480-6$abc",
        "code-value-quantity=$",
        "code-value-date=8665-2$yesterday",
        "code-value-quantity:exact=8480-6$120",
        "code-value-quantity:text=8480-6$120",
    ],
)
def test_composites_that_say_nothing_are_refused(measured, query):
    """All parts have to be there, each valid by itself; modifiers are not used."""
    assert refused(measured, f"Observation?{query}")


# And, or, empty values


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "normal high reversed single kilo blood-group text dated empty"),
        ("code=", "normal high reversed single kilo blood-group text dated empty"),
        ("code=&value-string=", "normal high reversed single kilo blood-group text dated empty"),
        ("code=882-1&value-string=", "blood-group text"),
        ("code=882-1,", "blood-group text"),
        ("code=,882-1,,8665-2", "blood-group text dated"),
        ("code=882-1,8665-2&code=8665-2", "dated"),
        ("code=882-1&code=8665-2", ""),
        ("code=882-1&value-string=amber", "text"),
        ("code=882-1&code=882-1", "blood-group text"),
    ],
)
def test_and_or_and_empty_values(measured, query, expected):
    """Empty parameters are ignored; commas mean or, repetitions and. https://hl7.org/fhir/R4/search.html#errors"""
    assert found(measured, f"Observation?{query}") == words(expected)


def test_what_was_used_is_said(measured):
    """For the self link. https://hl7.org/fhir/R4/search.html#conformance"""
    text = "Observation?code=882-1&nonsense=1&value-string=&_count=5"

    assert ("code", "882-1") in used(measured, text)
    assert not [name for name, _ in used(measured, text) if name in ("nonsense", "value-string")]


@pytest.mark.parametrize(
    "query", ["nonsense=1", "name=1", "CODE=1", "nonsense:exact=1", "_nonsense=1", "code.x=1"]
)
def test_unknown_parameters_are_warned_of_or_refused(measured, query):
    """Lenient: left out, and said. Strict: 400 not-supported."""
    if query != "code.x=1":  # a chain through a code can't be meant well
        assert found(measured, f"Observation?{query}&code=882-1") == {"blood-group", "text"}
        assert warnings(measured, f"Observation?{query}") == ["not-supported"]
        assert refused(measured, f"Observation?{query}", strict=True) == "not-supported"
    else:
        assert refused(measured, f"Observation?{query}", strict=True)


@pytest.mark.parametrize(
    "query",
    [
        "_count=x",
        "_count=-1",
        "_count=1.5",
        "_total=maybe",
        "_summary=maybe",
        "_query=anything",
        "_list=$current-problems",
        "_has:Observation=1",
        "code:missing=1",
        "_lastUpdated=yesterday",
        "_lastUpdated:exact=2026",
        "code=" + ",".join(str(n) for n in range(1001)),
    ],
)
def test_what_cannot_be_meant_is_refused_even_when_lenient(measured, query):
    assert refused(measured, f"Observation?{query}")


def test_too_many_parameters_are_refused(measured):
    assert refused(measured, "Observation?" + "&".join(["code=1"] * 101))
    assert refused(measured, "Observation?code=1&" + "&".join(["_include=Observation:subject"] * 21))


@pytest.mark.parametrize(
    "value",
    [
        "'; DROP TABLE resources; --",
        "\x00",
        "a\x00b",
        "\\",
        "a\\",
        "\ud800",
        "%",
        "\U0010ffff",
        "$",
        "|",
        "||",
    ],
)
@pytest.mark.parametrize(
    "name", ["code", "value-string", "value-quantity", "subject", "date", "code-value-string", "_id", "_text"]
)
def test_odd_values_find_nothing_or_are_refused(measured, name, value):
    """Whatever is sent, the answer is a page or Invalid, never a crash."""
    from gitstore import Invalid

    try:
        with measured.reading() as snapshot:
            page = snapshot.search(("Observation",), [(name, value)])
    except Invalid:
        return
    if value not in ("%", "$", "|", "||", "\\") or name not in ("value-string", "code-value-string"):
        assert page.matches == [] or ("Observation", name) not in page.query.used


# Searches of several types


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("?_type=Patient", "Patient/p Patient/q"),
        ("?_type=Patient,Encounter", "Patient/p Patient/q Encounter/p"),
        ("?_type=Encounter,Patient&_id=p", "Patient/p Encounter/p"),
        ("?_id=p", "Patient/p Encounter/p List/p"),
        ("?_tag=t", "Patient/p List/p"),
        ("?_type=Patient,Encounter&_tag=t", "Patient/p"),
        ("?_type=Patient,Encounter&identifier=1", "Patient/q Encounter/p"),
        ("?_lastUpdated=lt2000", ""),
        ("?_profile=http://acme.org/profile", "Patient/p"),
        ("?_source=http://acme.org/feed", "List/p"),
    ],
)
def test_searches_of_several_types(common, text, expected):
    """With _type, what these types have in common may be asked; without it, what all have."""
    assert found(common, text) == words(expected)


def test_what_only_some_of_the_types_have_is_not_asked(common):
    assert refused(common, "?_type=Patient,Encounter&gender=female", strict=True) == "not-supported"
    assert refused(common, "?identifier=1", strict=True) == "not-supported"
    assert refused(common, "?_type=Nonsense")
    assert refused(common, "?_type=Patient,nonsense")


COMMON = [
    resource(
        "Patient",
        "p",
        meta={"tag": [{"code": "t"}], "profile": ["http://acme.org/profile"]},
        text={
            "status": "generated",
            "div": '<div xmlns="http://www.w3.org/1999/xhtml">A <b>bone</b> fracture, métastases</div>',
        },
        name=[{"family": "Lovelace"}],
    ),
    resource(
        "Patient",
        "q",
        identifier=[{"value": "1"}],
        meta={"profile": ["http://acme.org/other|1.0"]},
        language="bone",
    ),
    resource("Encounter", "p", identifier=[{"value": "1"}], reasonCode=[{"text": "Liver pain"}]),
    resource(
        "List",
        "p",
        meta={"tag": [{"code": "t"}], "source": "http://acme.org/feed"},
        entry=[
            {"item": reference("Patient/p")},
            {"item": reference("Patient/nobody")},
            {"item": {"display": "x"}},
        ],
    ),
    resource("List", "empty", status="current"),
]


@pytest.fixture(scope="module")
def common(store_of):
    return store_of(COMMON)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Patient?_list=p", "p"),
        ("Patient?_list=List/p", "p"),
        ("Patient?_list=empty", ""),
        ("Patient?_list=nowhere", ""),
        ("Patient?_list=empty,p", "p"),
        ("Patient?_list=p&family=turing", ""),
        ("Encounter?_list=p", ""),
        ("List?item=Patient/p", "p"),
        ("Patient?_profile=http://acme.org/profile", "p"),
        ("Patient?_profile=http://acme.org/other|1.0", "q"),
        ("Patient?_profile:missing=true", ""),
        ("Patient?_profile:below=http://acme.org", "p q"),
        # narrative and content
        ("Patient?_text=bone", "p"),
        ("Patient?_text=BONE fracture", "p"),
        ("Patient?_text=metastases", "p"),
        ("Patient?_text=lovelace", ""),
        ("Patient?_text=div", ""),
        ("Patient?_text=bone AND liver", ""),
        ("Patient?_text=bone OR liver", "p"),
        ("Patient?_text=(liver OR bone) AND fracture", "p"),
        ('Patient?_text="bone fracture"', "p"),
        ("Patient?_content=lovelace", "p"),
        ("Patient?_content=bone", "p q"),
        ("Encounter?_content=liver", "p"),
        ("Encounter?_content=liver pain", "p"),
        ("Encounter?_content=reasonCode", ""),
        ("Encounter?_text=liver", ""),
    ],
)
def test_lists_profiles_narrative_and_content(common, text, expected):
    """12c.11: https://hl7.org/fhir/R4/search.html#list, #text"""
    assert found(common, text) == words(expected)


@pytest.mark.parametrize(
    "value",
    ['"open', "(bone", "AND", "bone OR", "bone)", "NEAR(", "narrative:bone", "*", "^bone", "bone NOT"],
)
def test_texts_that_are_no_query_never_crash(common, value):
    from gitstore import Invalid

    try:
        found(common, f"Patient?_text={value}")
    except Invalid as error:
        assert error.issues[0].text  # noqa: PT017 - either answer will do


# near


def place(id, latitude, longitude):
    return resource(
        "Location", id, position={"latitude": Number(str(latitude)), "longitude": Number(str(longitude))}
    )


WORLD = [
    place("greenwich", 51.4779, 0),
    place("just-west", 51.4779, -0.02),
    place("fiji-west", -16.8, 179.95),
    place("fiji-east", -16.8, -179.95),
    place("north-pole", 90, 0),
    place("near-pole", 89.99, 180),
    place("near-pole-2", 89.99, -90),
    place("south-pole", -90, 77),
    place("null-island", 0, 0),
    resource("Location", "nowhere", name="x"),
]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("51.4779|0|1|km", "greenwich"),
        ("51.4779|0|1.39|km", "greenwich just-west"),
        ("51.4779|0|1", "greenwich"),
        ("51.4779|-0.01|800|m", "greenwich just-west"),
        ("51.4779|-0.01|600|m", ""),
        ("51.4779|0|0.9|[mi_i]", "greenwich just-west"),
        ("-16.8|180|6|km", "fiji-west fiji-east"),
        ("-16.8|-180|6|km", "fiji-west fiji-east"),
        ("-16.8|179.95|11|km", "fiji-west fiji-east"),
        ("-16.8|179.95|10|km", "fiji-west"),
        ("-16.8|-179.95|11|km", "fiji-west fiji-east"),
        ("89.99|0|2.3|km", "north-pole near-pole near-pole-2"),
        ("89.99|0|1.2|km", "north-pole"),
        ("90|123|1.2|km", "north-pole near-pole near-pole-2"),
        ("-90|0|1|km", "south-pole"),
        ("0|0|0|km", "null-island"),
        (
            "0|0|30000|km",
            "greenwich just-west fiji-west fiji-east north-pole near-pole near-pole-2 south-pole null-island",
        ),
        ("0|1|1|km", ""),
        ("0|0|1|km,51.4779|0|1|km", "null-island greenwich"),
    ],
)
def test_near(world, value, expected):
    """12c.8: latitude|longitude|distance|units, across the 180th meridian and the poles too.

    https://hl7.org/fhir/R4/location.html#positional
    """
    assert found(world, f"Location?near={value}") == words(expected)


@pytest.fixture(scope="module")
def world(store_of):
    return store_of(WORLD)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "1",
        "91|0|1|km",
        "0|181|1|km",
        "0|0|-1|km",
        "0|0|1|furlongs",
        "0|0|x|km",
        "a|b|1",
        "0|0|1|km|x",
        "nan|0|1|km",
        "0|inf|1|km",
        "1e400|0|1",
    ],
)
def test_what_is_no_place_is_refused(world, value):
    if value:
        assert refused(world, f"Location?near={value}")
    else:
        assert len(found(world, "Location?near=")) == len(WORLD)


# What is answered


def test_counting_alone(measured):
    """12c.14: _count=0 and _summary=count: the total, no matches. https://hl7.org/fhir/R4/search.html#count"""
    for wish in ("_count=0", "_summary=count"):
        page = search(measured, f"Observation?code=882-1&{wish}")

        assert (page.total, page.matches, page.next, page.previous) == (2, [], None, None)


def test_without_a_total(measured):
    assert search(measured, "Observation?code=882-1&_total=none").total is None
    assert search(measured, "Observation?code=882-1&_total=accurate").total == 2


SORTED = [
    resource("Patient", "a", name=[{"family": "émile"}], birthDate="1980", gender="male"),
    resource("Patient", "b", name=[{"family": "Eduard"}], birthDate="1980-05", gender="female"),
    resource("Patient", "c", name=[{"family": "Zoe"}, {"family": "Abel"}], birthDate="1979-12-31"),
    resource("Patient", "d", gender="male"),
]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("_id", "a b c d"),
        ("-_id", "d c b a"),
        ("family", "c b a d"),
        ("-family", "c a b d"),
        ("birthdate", "c a b d"),
        ("-birthdate,_id", "b a c d"),
        ("gender,family", "b a d c"),
        ("gender,-_id", "b d a c"),
        ("-gender,-_id", "d a b c"),
        ("nonsense,-_id", "d c b a"),
        ("", "a b c d"),
    ],
)
def test_sorting(store_of, sort, expected):
    """12b.12, 12c.13: missing values last in either direction, unknown keys left out; of several values
    the one that comes first.

    A date counts from where it begins.
    """
    store = store_of(SORTED)

    assert listed(store, f"Patient?_sort={sort}") == expected.split()
    if "nonsense" in sort:
        assert warnings(store, f"Patient?_sort={sort}")
        assert refused(store, f"Patient?_sort={sort}", strict=True)
