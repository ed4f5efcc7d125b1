"""The parameters that say how a search is answered. https://hl7.org/fhir/R4/search.html#return"""

from __future__ import annotations

import pytest
from asked import REGISTRY, ask, criteria, key, refused

from gitstore.errors import Invalid
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.search.criteria import Limits
from gitstore.search.filters import Include, SortKey

DATE, CODE = key("Observation", "date"), key("Observation", "code")


def test_without_any_the_answer_is_whole():
    query = ask("Patient", [])
    assert (query.sort, query.count, query.total, query.includes) == ((), None, "accurate", ())
    assert (query.summary, query.elements, query.contained) == ("false", frozenset(), "false")
    assert (query.contained_type, query.used, query.issues) == ("container", (), ())


def test_sorting_by_several_keys():
    query = ask("Observation", "_sort=-date,code,_id,-_lastUpdated")

    assert query.sort == (
        SortKey("dates", (DATE,), descending=True),
        SortKey("tokens", (CODE,)),
        SortKey("id"),
        SortKey("updated", (), descending=True),
    )
    assert query.used == (("_sort", "-date,code,_id,-_lastUpdated"),)


@pytest.mark.parametrize(
    "code", ["foo", "code-value-quantity", "_text", "_score", "-", "date:missing", "--date"]
)
def test_what_can_not_be_sorted_by_is_left_out_with_a_warning(code):
    query = ask("Observation", f"_sort=-date,{code}")

    assert len(query.sort) == 1
    assert query.used == (("_sort", "-date"),)
    assert [(issue.severity, issue.code) for issue in query.issues] == [("warning", "not-supported")]
    assert refused("Observation", f"_sort={code}", strict=True)[0] == "not-supported"


def test_a_position_has_no_order():
    assert ask("Location", "_sort=near").used == ()


def test_several_types_are_sorted_by_what_all_of_them_have():
    query = ask(("Condition", "Observation"), "_sort=code")
    assert query.sort == (SortKey("tokens", (key("Condition", "code"), CODE)),)
    assert ask(("Condition", "Observation"), "_sort=date").issues


@pytest.mark.parametrize(("text", "count"), [("0", 0), ("10", 10), ("007", 7), ("99999999999", 2**31 - 1)])
def test_count(text, count):
    query = ask("Patient", f"_count={text}")
    assert (query.count, query.used) == (count, (("_count", text),))


@pytest.mark.parametrize(
    "query",
    [
        "_count=x",
        "_count=-1",
        "_count=1.5",
        "_count=٣",
        "_total=all",
        "_summary=yes",
        "_contained=1",
        "_containedType=both",
    ],
)
def test_values_that_are_none(query):
    assert refused("Patient", query)[0] == "value"


@pytest.mark.parametrize(
    ("name", "values", "field"),
    [
        ("_total", ("none", "estimate", "accurate"), "total"),
        ("_summary", ("true", "text", "data", "count", "false"), "summary"),
        ("_contained", ("true", "both", "false"), "contained"),
        ("_containedType", ("container", "contained"), "contained_type"),
    ],
)
def test_choices(name, values, field):
    for value in values:
        query = ask("Patient", f"{name}={value}")
        assert (getattr(query, field), query.used) == (value, ((name, value),))


def test_elements():
    assert ask("Patient", "_elements=id, Patient.name,,birthDate").elements == {
        "id",
        "Patient.name",
        "birthDate",
    }
    assert ask("Patient", "_elements=,").used == ()


@pytest.mark.parametrize(
    "name", ["_sort", "_count", "_total", "_summary", "_elements", "_contained", "_type"]
)
def test_they_may_not_be_repeated(name):
    value = {
        "_count": "1",
        "_total": "none",
        "_summary": "true",
        "_contained": "true",
        "_type": "Patient",
    }.get(name, "_id")
    assert refused("Patient", [(name, value), (name, value)])[0] == "invalid"
    assert refused("Patient", [(f"{name}:exact", value)])[0] == "not-supported"


def test_the_form_of_the_answer_is_no_matter_of_search():
    """https://hl7.org/fhir/R4/http.html#general"""
    query = ask("Patient", "_format=json&_pretty=true", strict=True)
    assert (query.used, query.issues, query.filter.filters) == ((), (), ())


SUBJECT, TARGETS = key("Observation", "subject"), {"Device", "Group", "Location", "Patient"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("_include=Observation:subject", Include(False, (SUBJECT,), frozenset(TARGETS))),
        ("_include=Observation:subject:Patient", Include(False, (SUBJECT,), frozenset({"Patient"}))),
        ("_include:iterate=Observation:subject", Include(False, (SUBJECT,), frozenset(TARGETS), True)),
        ("_include:recurse=Observation:subject", Include(False, (SUBJECT,), frozenset(TARGETS), True)),
        (
            "_include:iterate=Patient:organization",
            Include(False, (key("Patient", "organization"),), frozenset({"Organization"}), True),
        ),
        (
            "_revinclude=Provenance:target",
            Include(True, (key("Provenance", "target"),), frozenset({"Provenance"})),
        ),
        (
            "_revinclude=Provenance:target:Observation",
            Include(True, (key("Provenance", "target"),), frozenset({"Provenance"})),
        ),
    ],
)
def test_includes(query, expected):
    """https://hl7.org/fhir/R4/search.html#revinclude"""
    found = ask("Observation", query)
    assert (found.includes, found.used) == ((expected,), (tuple(query.split("=")),))


def test_canonicals_are_included_by_url_and_version():
    [found] = ask("QuestionnaireResponse", "_include=QuestionnaireResponse:questionnaire").includes
    named = (key("Questionnaire", "url"),), (key("Questionnaire", "version"),)
    assert (found.urls, found.versions) == named
    [found] = ask("Questionnaire", "_revinclude=QuestionnaireResponse:questionnaire").includes
    assert (found.urls, found.versions) == named


def test_everything_that_is_referred_to():
    references = {each.key for each in REGISTRY.of("Observation").values() if each.kind == "reference"}
    for query in ("_include=*", "_include=Observation:*"):
        [found] = ask("Observation", query).includes
        assert set(found.keys) == references
        assert not found.iterate
    [found] = ask("Observation", "_include=Observation:*:Patient").includes
    assert found.types == {"Patient"}
    assert set(found.keys) < references


def test_everything_that_refers_to_what_was_found():
    [found] = ask("Patient", "_revinclude=*").includes
    assert {key("Observation", "subject"), key("Group", "member")} <= set(found.keys)
    assert key("Observation", "encounter") not in found.keys
    assert {"Observation", "Group"} <= found.types
    [found] = ask("Patient", "_revinclude=Observation:*").includes
    assert found.types == {"Observation"}


def test_what_is_included_again_and_again_may_begin_anywhere():
    [found] = ask("Patient", "_include:iterate=*").includes
    assert {key("Observation", "subject"), key("Location", "partof")} <= set(found.keys)
    assert found.types == set(RESOURCE_TYPES)


@pytest.mark.parametrize(
    "query",
    [
        "_include=Foo:subject",
        "_include=Observation:foo",
        "_include=Observation",
        "_include=Observation:",
        "_include=Observation:code",
        "_include=Observation:subject:Foo",
        "_include=Observation:subject:Practitioner",
        "_include=Observation:subject:",
        "_include=Patient:organization",
        "_revinclude=Patient:organization",
        "_revinclude=Provenance:target:Patient",
        "_revinclude=Provenance:foo",
    ],
)
def test_an_include_without_effect_is_ignored_with_a_warning(query):
    """https://hl7.org/fhir/R4/search.html#errors"""
    found = ask("Observation", query)
    assert (found.includes, found.used) == ((), ())
    [issue] = found.issues
    assert (issue.severity, issue.code) == ("warning", "not-supported")
    assert refused("Observation", query, strict=True)[0] == "not-supported"


def test_an_include_has_no_other_modifier():
    assert refused("Observation", "_include:exact=Observation:subject")[0] == "not-supported"


def test_the_target_of_a_revinclude_among_several_types_is_refused():
    types = ("Observation", "Patient")
    assert refused(types, "_revinclude=Provenance:target:Patient")[0] == "not-supported"


def test_includes_have_a_limit():
    pairs = [("_include", "Observation:subject")] * 3
    assert len(ask("Observation", pairs).includes) == 3
    assert refused("Observation", pairs, limits=Limits(max_includes=2))[0] == "too-costly"


@pytest.mark.parametrize(
    "query", ["_sort=_id", "_count=1", "_include=Patient:link", "_total=none", "_type=Patient"]
)
def test_they_have_no_place_in_a_condition(query):
    with pytest.raises(Invalid) as caught:
        criteria("Patient", f"name=a&{query}")
    assert caught.value.issues[0].code == "not-supported"
