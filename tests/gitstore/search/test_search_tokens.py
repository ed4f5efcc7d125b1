"""Tokens: codes, identifiers, booleans. https://hl7.org/fhir/R4/search.html#token"""

from __future__ import annotations

import pytest
from searches import concept, found, refused, resource, words

LOINC, LOCAL, UCUM, MRN = (
    "http://loinc.org",
    "http://acme.org/codes",
    "http://unitsofmeasure.org",
    "http://acme.org/mrn",
)
TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"


def observed(id, *codings, **elements):
    return resource("Observation", id, status="final", code=concept(*codings), **elements)


def identified(id, system, value, kind=None):
    made = ({"system": system} if system else {}) | ({"value": value} if value else {})
    return resource("Patient", id, identifier=[made | ({"type": kind} if kind else {})])


RECORD = [
    observed("loinc", f"{LOINC}|LA6576-8"),
    observed("local", f"{LOCAL}|ABC"),
    observed("lower", f"{LOCAL}|abc"),
    observed("both", f"{LOINC}|LA6576-8", f"{LOCAL}|ABC"),
    observed("crossed", f"{LOINC}|abc", f"{LOCAL}|LA6576-8"),
    observed("no-system", "abc"),
    observed("only-system", f"{LOCAL}|"),
    observed("milli", f"{UCUM}|mL"),
    observed("mega", f"{UCUM}|ML"),
    observed("comma", f"{LOCAL}|a,b"),
    observed("pipe", f"{LOCAL}|x|y".replace("x|y", "x-y"), category=[concept()]),
    observed("accent", f"{LOCAL}|café"),
    observed("decomposed", f"{LOCAL}|cafe\u0301"),
    observed("space", f"{LOCAL}|two words"),
    observed("dollar", f"{LOCAL}|US$"),
    observed("backslash", f"{LOCAL}|a\\b"),
    observed("long", f"{LOCAL}|{'9' * 5000}"),
    resource("Observation", "text", code={"text": "Headache, severe"}),
    resource("Observation", "display", code={"coding": [{"code": "h", "display": "Headache finding"}]}),
    resource("Observation", "codeless", status="amended"),
]
RECORD[10]["code"]["coding"][0]["code"] = "x|y"

CODES = [
    # [code], [system]|[code], |[code], [system]|
    ("code=LA6576-8", "loinc both crossed"),
    (f"code={LOINC}|LA6576-8", "loinc both"),
    (f"code={LOCAL}|LA6576-8", "crossed"),
    ("code=|LA6576-8", ""),
    ("code=|abc", "no-system"),
    (f"code={LOINC}|", "loinc both crossed"),
    (
        f"code={LOCAL}|",
        "local lower both crossed only-system comma pipe accent decomposed space dollar backslash long",
    ),
    ("code=http://nowhere.org|abc", ""),
    ("code=http://LOINC.org|LA6576-8", ""),
    ("code=LA6576", ""),
    # upper and lower case, by system
    (f"code={LOCAL}|Abc", "local lower both"),
    ("code=aBC", "local lower both crossed no-system"),
    ("code=la6576-8", "loinc both crossed"),
    (f"code={UCUM}|mL", "milli"),
    (f"code={UCUM}|ML", "mega"),
    (f"code={UCUM}|ml", ""),
    ("code=mL", "milli"),
    ("code=ML", "mega"),
    # characters
    ("code=a\\,b", "comma"),
    ("code=a,b", ""),
    (f"code={LOCAL}|x\\|y", "pipe"),
    ("code=x\\|y", "pipe"),
    ("code=café", "accent"),
    ("code=cafe\u0301", "decomposed"),
    ("code=cafe", ""),
    ("code=two words", "space"),
    ("code=two", ""),
    ("code=US\\$", "dollar"),
    ("code=us$", "dollar"),
    ("code=a\\\\b", "backslash"),
    (f"code={'9' * 5000}", "long"),
    (f"code={'9' * 4999}", ""),
    # or, and
    (f"code={LOINC}|LA6576-8,{UCUM}|mL", "loinc both milli"),
    (f"code={LOINC}|LA6576-8&code={LOCAL}|ABC", "both"),
    ("code=abc&code=la6576-8", "both crossed"),
    # :not counts the whole set of values
    (
        f"code:not={LOCAL}|ABC",
        "loinc crossed no-system only-system milli mega comma pipe accent decomposed space dollar backslash long text "
        "display codeless",
    ),
    (
        f"code:not={LOCAL}|",
        "loinc no-system milli mega text display codeless",
    ),
    (f"code:not={LOCAL}|,{UCUM}|,|abc", "loinc text display codeless"),
    (f"code:not={LOCAL}|&code:not=h", "loinc no-system milli mega text codeless"),
    ("status:not=final", "text display codeless"),
    # :missing
    ("code:missing=true", "codeless"),
    ("status:missing=true", "text display"),
    ("category:missing=false", ""),
    # :text, as a string
    ("code:text=headache", "text display"),
    ("code:text=HEADACHE SEV", "text"),
    ("code:text=severe", ""),
    ("code:text=abc", ""),
    ("code:text=head,foo", "text display"),
    # the system of a code is that of its binding
    ("status=amended", "codeless"),
    ("status=http://hl7.org/fhir/observation-status|amended", "codeless"),
    ("status=http://hl7.org/fhir/encounter-status|amended", ""),
    ("status=http://hl7.org/fhir/observation-status|&_id=codeless,text", "codeless"),
]


@pytest.fixture(scope="module")
def observations(store_of):
    return store_of(RECORD)


@pytest.mark.parametrize(("query", "expected"), CODES, ids=lambda text: text[:60])
def test_codes(observations, query, expected):
    """12c.2: literal matches of system and code; case matters where the system says so, as UCUM does."""
    assert found(observations, f"Observation?{query}") == words(expected)


PEOPLE = [
    identified(
        "mrn", MRN, "12345", {"coding": [{"system": TYPES, "code": "MR"}], "text": "Medical record number"}
    ),
    identified("dl", "http://acme.org/licences", "12345", {"coding": [{"system": TYPES, "code": "DL"}]}),
    identified("bare", None, "12345"),
    identified("valueless", MRN, None),
    identified("case", MRN, "aBc"),
    resource(
        "Patient",
        "two",
        identifier=[
            {"type": {"coding": [{"system": TYPES, "code": "MR"}]}, "system": MRN, "value": "1"},
            {
                "type": {"coding": [{"system": TYPES, "code": "DL"}]},
                "system": "http://acme.org/licences",
                "value": "2",
            },
        ],
    ),
    resource(
        "Patient",
        "reachable",
        gender="female",
        active=False,
        deceasedBoolean=False,
        telecom=[
            {"system": "phone", "value": "+49 30 1234"},
            {"system": "email", "value": "Ada@Clinic.example", "use": "work"},
            {"system": "url"},
        ],
        communication=[{"language": concept("urn:ietf:bcp:47|de-CH")}],
        meta={
            "tag": [{"system": LOCAL, "code": "Review"}, {"code": "loose"}],
            "security": [{"system": LOCAL, "code": "R"}],
        },
    ),
    resource("Patient", "dead", gender="male", active=True, deceasedDateTime="2020-01-01"),
    resource("Patient", "gone", gender="unknown", deceasedBoolean=True),
]

PEOPLE_QUERIES = [
    ("identifier=12345", "mrn dl bare"),
    (f"identifier={MRN}|12345", "mrn"),
    ("identifier=|12345", "bare"),
    (f"identifier={MRN}|", "mrn valueless case two"),
    ("identifier=1234", ""),
    (f"identifier={MRN}|1&identifier=2", "two"),
    (f"identifier={MRN}|2", ""),
    (f"identifier:of-type={TYPES}|MR|12345", "mrn"),
    (f"identifier:of-type={TYPES}|DL|12345", "dl"),
    (f"identifier:of-type={TYPES}|MR|1", "two"),
    (f"identifier:of-type={TYPES}|MR|2", ""),
    (f"identifier:of-type={TYPES}|DL|2,{TYPES}|MR|12345", "mrn two"),
    ("identifier:of-type=http://nowhere.org|MR|12345", ""),
    ("identifier:text=medical rec", "mrn"),
    ("identifier:missing=true", "reachable dead gone"),
    ("gender=male", "dead"),
    ("gender=http://hl7.org/fhir/administrative-gender|male", "dead"),
    ("gender:not=male", "mrn dl bare valueless case two reachable gone"),
    ("gender:not=male,unknown&identifier:missing=true", "reachable"),
    ("active=true", "dead"),
    ("active=false", "reachable"),
    ("active:not=true&gender:missing=false", "reachable gone"),
    ("deceased=true", "dead gone"),
    ("deceased=false", "mrn dl bare valueless case two reachable"),
    ("death-date=2020", "dead"),
    ("telecom=ada@clinic.example", "reachable"),
    ("email=ada@clinic.example", "reachable"),
    ("phone=ada@clinic.example", ""),
    ("phone=%2B49 30 1234", "reachable"),
    ("telecom:missing=false", "reachable"),
    ("language=urn:ietf:bcp:47|de-ch", "reachable"),
    (f"_tag={LOCAL}|review", "reachable"),
    ("_tag=|loose", "reachable"),
    ("_tag=|review", ""),
    (f"_tag={LOCAL}|review&_tag=loose&_security=R", "reachable"),
    ("_tag:not=review&gender=female", ""),
    ("_id=case", "case"),
    ("_id=CASE", ""),
    ("_id=case,two,unknown", "case two"),
    ("_id=case&_id=two", ""),
    ("_id=case/_history/1", ""),
]


@pytest.fixture(scope="module")
def people(store_of):
    return store_of(PEOPLE)


@pytest.mark.parametrize(("query", "expected"), PEOPLE_QUERIES)
def test_identifiers_booleans_contacts_and_tags(people, query, expected):
    """12c.2"""
    assert found(people, f"Patient?{query}") == words(expected)


@pytest.mark.parametrize(
    "query",
    [
        "identifier:exact=1",
        "gender:contains=m",
        "gender:Patient=male",
        "gender:identifier=x",
        "gender:of-type=a|b|c",
        "identifier:of-type=MR|12345",
        "identifier:of-type=12345",
        "identifier:of-type=|MR|12345",
        "gender:missing=maybe",
        "gender:missing=TRUE",
        "_id:exact=1",
        "gender:iterate=x",
    ],
)
def test_what_tokens_do_not_have_is_refused(people, query):
    """400 for modifiers that don't apply and values that don't parse, also where lenient."""
    assert refused(people, f"Patient?{query}")


DOCUMENTS = [
    resource("DocumentReference", id, content=[{"attachment": {"contentType": type}}])
    for id, type in [
        ("xml", "text/xml"),
        ("utf8", "text/xml; charset=UTF-8"),
        ("tight", "text/xml;charset=UTF-8"),
        ("xmlish", "text/xml-external"),
        ("json", "application/json"),
    ]
]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("contenttype=text/xml", "xml"),
        ("contenttype:below=text/xml", "xml utf8 tight"),
    ],
)
def test_mime_types(store_of, query, expected):
    """:below leaves parameters of a MIME type aside. https://hl7.org/fhir/R4/search.html#mimetype"""
    assert found(store_of(DOCUMENTS), f"DocumentReference?{query}") == words(expected)
