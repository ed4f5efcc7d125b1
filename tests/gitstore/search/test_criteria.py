"""A search as a whole: what is known, what was used, what is refused. https://hl7.org/fhir/R4/search.html"""

from __future__ import annotations

import pytest
from asked import BASES, NOW, REGISTRY, Terms, ask, asked, criteria, key, refused
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir.definitions import RESOURCE_TYPES, compartments
from gitstore.fhir.ids import ResourceId
from gitstore.search.criteria import Limits, parse, parse_filter
from gitstore.search.filters import (
    All,
    Any,
    Ids,
    Listed,
    OfTypes,
    Query,
    References,
    ReferenceValue,
    Strings,
    Tokens,
    TokenValue,
)

GENDER = Tokens((key("Patient", "gender"),), (TokenValue(None, "male"),))


@pytest.mark.parametrize("name", ["foo", "Name", "foo:exact", "", "_foo", "name ", "=", "n" * 500])
def test_an_unknown_parameter_is_ignored_with_a_warning_or_refused_if_strict(name):
    """Codes are case-sensitive. https://hl7.org/fhir/R4/search.html#errors"""
    query = ask("Patient", [("gender", "male"), (name, "x")])
    [issue] = query.issues

    assert (issue.severity, issue.code) == ("warning", "not-supported")
    assert name[:80] in issue.text
    assert len(issue.text) < 200
    assert query.used == (("gender", "male"),)
    assert query.filter == All((GENDER,))
    assert refused("Patient", [(name, "x")], strict=True)[0] == "not-supported"


@pytest.mark.parametrize("text", ["", ",", ",,"])
@pytest.mark.parametrize("name", ["name", "name:exact", "birthdate", "_id", "link.name", "_text", "foo"])
def test_an_empty_value_asks_for_nothing(name, text):
    """https://hl7.org/fhir/R4/search.html: empty parameters are not an error, but are ignored."""
    if name == "foo" and text:
        return
    query = ask("Patient", [(name, text)], strict=True)
    assert (query.filter, query.used, query.issues) == (All(), (), ())


def test_what_had_an_effect_stands_in_used_as_it_was_written():
    pairs = [
        ("gender", "male"),
        ("foo", "x"),
        ("name:exact", r"A\,b,"),
        ("_count", "3"),
        ("name", ""),
        ("_format", "json"),
        ("gender", "male"),
        ("_sort", "foo,-name"),
        ("_include", "Patient:foo"),
    ]
    query = ask("Patient", pairs)

    assert query.used == (
        ("gender", "male"),
        ("name:exact", r"A\,b,"),
        ("_count", "3"),
        ("gender", "male"),
        ("_sort", "-name"),
    )
    assert len(query.issues) == 3


def test_named_queries_are_refused():
    assert refused("Patient", "_query=current-high-risk")[0] == "not-supported"


def test_entries_of_a_list():
    """https://hl7.org/fhir/R4/search.html#list"""
    assert asked("Patient", "_list=1,2") == Listed(("1", "2"), (key("List", "item"),))
    assert refused("Patient", "_list=$current-allergies")[0] == "not-supported"
    assert asked("Patient", "_list=List/1") == Listed(("1",), (key("List", "item"),))
    assert refused("Patient", "_list=Patient/1")[0] == "value"
    assert refused("Patient", "_list:not=1")[0] == "not-supported"


# System search


def test_without_a_type_only_what_all_have_is_known():
    """https://hl7.org/fhir/R4/http.html#search"""
    query = ask((), "_tag=a&_profile=http://p&name=x&_id=1")

    assert query.types == RESOURCE_TYPES
    assert query.used == (("_tag", "a"), ("_profile", "http://p"), ("_id", "1"))
    assert query.filter.filters[0].keys == tuple(key(type, "_tag") for type in RESOURCE_TYPES)


def test_types_narrow_a_system_search_to_what_these_have_in_common():
    query = ask((), "_type=Patient,Practitioner&name=x&birthdate=2020")
    keys = key("Patient", "name"), key("Practitioner", "name")

    assert query.types == ("Patient", "Practitioner")
    assert query.filter.filters == (Strings(keys, "starts", ("x",)),)
    assert [name for name, _ in query.used] == ["_type", "name"]
    assert "Practitioner" in query.issues[0].text


def test_types_that_are_none():
    assert refused((), "_type=Foo")[0] == "value"
    assert refused((), "_type=patient")[0] == "value"
    assert refused((), "_type:not=Patient")[0] == "not-supported"


def test_a_type_that_is_not_searched_leaves_nothing():
    query = ask("Patient", "_type=Observation&gender=male")
    assert (query.types, query.filter.filters[0]) == (("Patient",), Any())


def test_one_code_may_be_of_several_kinds():
    """Each kind is looked up in its own table, and the value has to be one of each."""
    types = ("ImagingStudy", "Immunization")
    token = Tokens((key("ImagingStudy", "series"),), (TokenValue(None, "A"),))
    string = Strings((key("Immunization", "series"),), "starts", ("a",))

    assert asked(types, "series=A") == Any((token, string))
    assert refused(types, "series:not=A")[0] == "not-supported"
    assert refused(("GraphDefinition", "Slot"), "start=A")[0] == "value"


# Compartments


def in_compartment(types, **options):
    return ask(types, [], compartment=ResourceId("Patient", "1"), **options)


def test_what_is_in_a_compartment_refers_to_it():
    """https://hl7.org/fhir/R4/compartmentdefinition-patient.html"""
    [filter] = in_compartment("Observation").filter.filters
    keys = tuple(key("Observation", code) for code in ("subject", "performer"))
    assert filter == References(keys, (ReferenceValue("Patient", "1"),))


def test_a_resource_is_in_its_own_compartment():
    """Patients too, for which the definition names only `link` and no {def}."""
    itself = All((OfTypes(("Encounter",)), Ids(("1",))))
    assert ask("Encounter", [], compartment=ResourceId("Encounter", "1")).filter.filters == (itself,)

    links = References((key("Patient", "link"),), (ReferenceValue("Patient", "1"),))
    itself = All((OfTypes(("Patient",)), Ids(("1",))))
    assert in_compartment("Patient").filter.filters == (Any((links, itself)),)


def test_a_type_that_can_not_be_in_a_compartment_matches_nothing():
    assert in_compartment("Location").filter.filters == (Any(),)


def test_all_types_of_a_compartment():
    query = in_compartment(())
    assert query.types == tuple(sorted(type for type, codes in compartments()["Patient"].items() if codes))
    assert key("Group", "member") in query.filter.filters[0].filters[0].keys


def test_there_are_five_compartments():
    with pytest.raises(Invalid):
        ask("Observation", [], compartment=ResourceId("Group", "1"))


def test_a_compartment_is_narrowed_by_parameters():
    query = ask("Observation", "code=a", compartment=ResourceId("Patient", "1"))
    assert len(query.filter.filters) == 2
    assert query.used == (("code", "a"),)


# Limits


def test_limits():
    """Beyond them the code is too-costly."""
    assert refused("Patient", "name=a&name=b", limits=Limits(max_parameters=1))[0] == "too-costly"
    assert refused("Patient", "_id=1,2,3", limits=Limits(max_values=2))[0] == "too-costly"
    assert asked("Patient", "_id=1,,2", limits=Limits(max_values=2)) == Ids(("1", "2"))


@pytest.mark.parametrize("pair", [("name", "a\0"), ("name", "\ud800"), ("\udfff", "x"), ("a\0", "x")])
def test_what_no_database_takes_for_text_is_refused(pair):
    code, text = refused("Patient", [pair])
    assert code == "value"
    text.encode()


# Conditional interactions


def test_criteria_of_a_condition():
    assert criteria("Patient", "gender=male&_format=json&_summary=true") == All((GENDER,))


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "required"),
        ("gender=", "required"),
        ("_format=json", "required"),
        ("_id:missing=false", "required"),
        ("foo=1", "not-supported"),
        ("gender=male&foo=1", "not-supported"),
        ("gender:exact=male", "not-supported"),
        ("birthdate=x", "value"),
    ],
)
def test_a_condition_is_strict_and_selects_something(query, code):
    """It must never fit everything by mistake. https://hl7.org/fhir/R4/http.html#ccreate"""
    with pytest.raises(Invalid) as caught:
        criteria("Patient", query)
    assert caught.value.issues[0].code == code


# Anything at all

COMMON = """
_id _lastUpdated _text _content _list _has _type _query _filter _sort _count _include _revinclude _summary _total
_elements _contained _containedType _format subject
Patient Observation : . :not :missing :exact :of-type :below :identifier _has:Observation:patient:
"""
VALUES = """
a 1 - , | $ \\ ge ap 2020 -01 T10:00 Patient / http://a ( ) " * : organization [ ] true e9 .5
http://unitsofmeasure.org|mg eq and not
"""
PIECES = [*REGISTRY.of("Patient"), *COMMON.split()]
NAMES = st.one_of(st.text(max_size=10), st.lists(st.sampled_from(PIECES), max_size=4).map("".join))
TEXTS = st.one_of(
    st.text(max_size=20), st.lists(st.sampled_from([" ", *VALUES.split()]), max_size=6).map("".join)
)


@given(
    st.sampled_from([(), ("Patient",), ("Observation",), ("Patient", "Location")]),
    st.lists(st.tuples(NAMES, TEXTS), max_size=4),
    st.booleans(),
)
def test_whatever_is_asked_there_is_a_query_or_a_clear_refusal(types, pairs, strict):
    """Never another exception, and what was used asks for the same again, with nothing left to complain of."""
    options = {"now": NOW, "bases": BASES, "terminology": Terms()}
    try:
        query = parse(REGISTRY, types, pairs, strict=strict, **options)
    except Invalid as error:
        for issue in error.issues:
            assert issue.severity == "error"
            assert issue.code in ("value", "invalid", "not-supported", "too-costly")
            issue.text.encode()
        return
    assert isinstance(query, Query)
    again = parse(REGISTRY, types, query.used, strict=True, **options)
    assert (again.filter, again.sort, again.includes) == (query.filter, query.sort, query.includes)
    assert (again.used, again.issues) == (query.used, ())


@given(st.lists(st.tuples(NAMES, TEXTS), max_size=3))
def test_whatever_the_condition_it_selects_or_is_refused(pairs):
    try:
        filter = parse_filter(REGISTRY, "Patient", pairs, now=NOW, bases=BASES)
    except Invalid:
        return
    assert filter.filters
