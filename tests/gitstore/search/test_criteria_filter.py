"""_filter: its language and what it asks for. https://hl7.org/fhir/R4/search_filter.html"""

from __future__ import annotations

import pytest
from asked import ask, asked, key, referring, refused
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir import dates
from gitstore.search.criteria import Limits
from gitstore.search.filter_syntax import OPERATORS, Logic, Negation, Step, Test, parse, print_filter
from gitstore.search.filters import (
    All,
    Any,
    Chain,
    Dates,
    Ids,
    Not,
    Present,
    ReferenceValue,
    Strings,
    Tokens,
    TokenValue,
    Updated,
)

Test.__test__ = False  # pytest would take the class for a group of tests

NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,6}", fullmatch=True)
PIECES = 'a eq "b" and or not ( ) [ ] . pr true'
VALUES = st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"]))


def trees():
    def step(inner):
        return st.builds(Step, NAMES, inner)

    def test(inner):
        path = st.builds(
            lambda steps, last: (*steps, Step(last)),
            st.lists(step(st.one_of(st.none(), inner)), max_size=2),
            NAMES,
        )
        return st.builds(Test, path, st.sampled_from(sorted(OPERATORS)), VALUES)

    return st.recursive(
        test(st.none()),
        lambda inner: st.one_of(
            st.builds(Negation, inner),
            st.builds(Logic, inner, st.sampled_from(["and", "or"]), inner),
            test(inner),
        ),
        max_leaves=12,
    )


@given(trees())
def test_what_is_printed_is_parsed_to_the_same_tree(tree):
    assert parse(print_filter(tree)) == tree


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES.split())).map(" ".join)))
def test_any_text_is_parsed_or_refused(text):
    code = None
    try:
        tree = parse(text)
    except Invalid as error:
        code = error.issues[0].code
    assert code in ("value", "too-costly") or parse(print_filter(tree)) == tree


A, B, C = (Test((Step(name),), "eq", "1") for name in "abc")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a eq 1", A),
        ('  a  eq   "1"  ', A),
        ("(a eq 1)", A),
        ("((a eq 1))", A),
        ("not (a eq 1)", Negation(A)),
        ("not(a eq 1)", Negation(A)),
        ("a eq 1 and b eq 1", Logic(A, "and", B)),
        ("a eq 1 or b eq 1 and c eq 1", Logic(Logic(A, "or", B), "and", C)),
        ("a eq 1 or (b eq 1 and c eq 1)", Logic(A, "or", Logic(B, "and", C))),
        ("(a eq 1)and(b eq 1)", Logic(A, "and", B)),
        ("not (a eq 1) and b eq 1", Logic(Negation(A), "and", B)),
        ("x.y co pet", Test((Step("x"), Step("y")), "co", "pet")),
        ("x[a eq 1].y pr true", Test((Step("x", A), Step("y")), "pr", "true")),
        ("(a eq x|1)", Test((Step("a"),), "eq", "x|1")),
        (r'a eq "(] \" ü \u00fc"', Test((Step("a"),), "eq", '(] " ü ü')),
        ("not eq 1", Test((Step("not"),), "eq", "1")),
        ("_id eq a:b(c", Test((Step("_id"),), "eq", "a:b(c")),
    ],
)
def test_the_language(text, tree):
    """Logic is from left to right, without precedence."""
    assert parse(text) == tree


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a eq",
        "a eq ",
        "a xx 1",
        "a EQ 1",
        "a eq 1 b eq 1",
        "a eq 1 and",
        "a eq 1 andb eq 1",
        "(a eq 1",
        "a eq 1)",
        "x[a eq 1] eq 2",
        "x[a eq 1.y eq 2",
        "x. eq 1",
        "1a eq 1",
        'a eq "1',
        r'a eq "\x"',
        r'a eq "\ud800"',
        'a eq "1"b',
        "not a eq 1",
        "x:Patient.name eq 1",
    ],
)
def test_what_is_not_in_the_language(text):
    code, issue = refused("Patient", [("_filter", text)])
    assert code == "value"
    assert "_filter" in issue


@pytest.mark.parametrize(
    "text", ["(" * 32 + "a eq 1" + ")" * 32, "a." * 40 + "b eq 1", "x[" * 32, " and ".join(["a eq 1"] * 101)]
)
def test_a_filter_has_a_limit(text):
    assert refused("Patient", [("_filter", text)])[0] == "too-costly"


GENDER, NAME, BIRTH = (key("Patient", code) for code in ("gender", "name", "birthdate"))
CODE, SUBJECT = key("Observation", "code"), key("Observation", "subject")
MALE = Tokens((GENDER,), (TokenValue(None, "male"),))
ADA = Strings((NAME,), "contains", ("ada",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gender eq male", MALE),
        ("gender ne male", All((Present("tokens", (GENDER,)), Not(MALE)))),
        ("gender pr true", Present("tokens", (GENDER,))),
        ("gender pr false", Not(Present("tokens", (GENDER,)))),
        ("name co Ada", ADA),
        ("name eq Ada", Strings((NAME,), "equals", ("ada",))),
        ("name sw Ada", Strings((NAME,), "starts", ("ada",))),
        ('name ew "Ada, Müller"', Strings((NAME,), "ends", ("ada muller",))),
        ("birthdate ge 2014-10-10", Dates((BIRTH,), "ge", *dates.interval("2014-10-10"), True)),
        ("birthdate ne 2014", Dates((BIRTH,), "ne", *dates.interval("2014"), True)),
        ("birthdate po 2014", Dates((BIRTH,), "ap", *dates.interval("2014"), True)),
        ("_lastUpdated gt 2014", Updated("gt", *dates.interval("2014"))),
        ("_lastUpdated po 2014", Updated("ap", *dates.interval("2014"))),
        ("_id eq 1", Ids(("1",))),
        ("_id ne 1", Not(Ids(("1",)))),
        ("_id eq a/b", Any()),
        ("not (gender eq male)", Not(MALE)),
        ("gender eq male and name co ada", All((MALE, ADA))),
        ("gender eq male or name co ada", Any((MALE, ADA))),
        ("gender eq male and name co ada and gender eq male", All((MALE, ADA, MALE))),
        ("gender eq male or name co ada and gender eq male", All((Any((MALE, ADA)), MALE))),
        ("name co ada and (gender eq male or name co ada)", All((ADA, Any((MALE, ADA))))),
        ("link re Patient/1", referring(key("Patient", "link"), ReferenceValue("Patient", "1"))),
    ],
)
def test_what_is_asked_of_patients(text, expected):
    assert asked("Patient", [("_filter", text)]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("code eq loinc|1-5", Tokens((CODE,), (TokenValue("http://loinc.org", "1-5"),))),
        ("code eq http://x|1-5", Tokens((CODE,), (TokenValue("http://x", "1-5"),))),
        ("code eq loinc", Tokens((CODE,), (TokenValue(None, "loinc"),))),
        ("code in http://vs", Tokens((CODE,), (TokenValue("http://s", "a"), TokenValue("http://s", "b")))),
        (
            "code ni http://vs",
            Not(Tokens((CODE,), (TokenValue("http://s", "a"), TokenValue("http://s", "b")))),
        ),
        ("code ss http://s|a", Tokens((CODE,), (TokenValue("http://s", "a"), TokenValue("http://s", "b")))),
        ("code sb http://s|a", Tokens((CODE,), (TokenValue("http://s", "a"),))),
        ("subject re Patient/1", referring(SUBJECT, ReferenceValue("Patient", "1"))),
        ("subject.name co ada", Chain((SUBJECT,), ("Location", "Patient"), None)),
        (
            "subject[gender eq male].name co ada",
            Chain((SUBJECT,), ("Patient",), All((MALE, ADA))),
        ),
    ],
)
def test_what_is_asked_of_observations(text, expected):
    found = asked("Observation", [("_filter", text)])
    if isinstance(expected, Chain) and expected.filter is None:
        assert (found.keys, set(found.types) >= {"Patient"}) == (expected.keys, True)
    else:
        assert found == expected


def test_a_quantity_names_its_unit_in_short():
    found = asked("Observation", [("_filter", "value-quantity gt 5|ucum|mg")])
    assert (found.comparison, found.system, found.canonical[0]) == ("gt", "http://unitsofmeasure.org", "g")


@pytest.mark.parametrize(
    ("type", "text", "code"),
    [
        ("Patient", "foo eq 1", "not-supported"),
        ("Patient", "gender co ma", "not-supported"),
        ("Patient", "name gt a", "not-supported"),
        ("Patient", "birthdate co 2014", "not-supported"),
        ("Patient", "link eq Patient/1", "not-supported"),
        ("Patient", "name ne ada", "not-supported"),
        ("Patient", "_text co x", "not-supported"),
        ("Patient", "_id co x", "not-supported"),
        ("Patient", "name pr yes", "value"),
        ("Patient", "birthdate gt x", "value"),
        ("Patient", "name.family eq x", "not-supported"),
        ("Patient", "link.foo eq x", "not-supported"),
        ("Patient", "link[foo eq 1].name eq x", "not-supported"),
        ("Observation", "code in http://x", "not-supported"),
        ("Observation", "code-value-quantity eq a$1", "not-supported"),
        ("Observation", "related[type eq has-component].target pr true", "not-supported"),
        ("Location", "near eq 1|2", "not-supported"),
        ("Location", "partof.partof.partof.partof.partof.partof.name eq a", "too-costly"),
    ],
)
def test_what_can_not_be_done_is_refused_even_if_lenient(type, text, code):
    """Leaving out a part of a filter would find something else."""
    assert refused(type, [("_filter", text)])[0] == code


def test_several_filters_are_all_asked_for():
    query = ask("Patient", [("_filter", "gender eq male"), ("_filter", "name co ada")])
    assert query.filter.filters == (MALE, ADA)
    assert len(query.used) == 2


def test_a_long_row_of_tests_is_no_deep_recursion():
    text = " or ".join(["name co ada"] * 5000)
    found = asked("Patient", [("_filter", text)], limits=Limits(max_parameters=5000))
    assert len(found.filters) == 5000
