"""Chains and _has. https://hl7.org/fhir/R4/search.html#chaining https://hl7.org/fhir/R4/search.html#has"""

from __future__ import annotations

import pytest
from asked import NOW, ask, asked, key, refused

from gitstore.search.chains import Has, Leaf, Link, parse
from gitstore.search.criteria import Limits
from gitstore.search.criteria import parse as parse_query
from gitstore.search.filters import (
    Chain,
    Ids,
    Not,
    Present,
    ReferredBy,
    Strings,
    Tokens,
    TokenValue,
    Updated,
)
from gitstore.search.parameters import Registry

SUBJECT, PATIENT = key("Observation", "subject"), key("Observation", "patient")
A = TokenValue(None, "a")


def code_filter(type, value=A, code="code"):
    return Tokens((key(type, code),), (value,))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("name", Leaf("name")),
        ("name:exact", Leaf("name", "exact")),
        ("name:", Leaf("name", "")),
        ("subject:Patient.name", Link("subject", "Patient", Leaf("name"))),
        ("subject.name:exact", Link("subject", None, Leaf("name", "exact"))),
        ("a.b:C.d", Link("a", None, Link("b", "C", Leaf("d")))),
        ("_has:A:b:c", Has("A", "b", Leaf("c"))),
        ("_has:A:b:_has:C:d:e", Has("A", "b", Has("C", "d", Leaf("e")))),
        ("_has:A:b:c.d:not", Has("A", "b", Link("c", None, Leaf("d", "not")))),
        ("a._has:B:c:d", Link("a", None, Has("B", "c", Leaf("d")))),
        ("_hash", Leaf("_hash")),
    ],
)
def test_names(text, name):
    assert parse(text, 5) == name


def test_a_chain_leads_to_resources_of_a_type():
    found = asked("Observation", "subject:Patient.name=Ada")

    assert found == Chain((SUBJECT,), ("Patient",), Strings((key("Patient", "name"),), "starts", ("ada",)))


def test_a_chain_without_a_type_leads_to_all_that_know_the_parameter():
    """All that an Observation can be about has identifiers, but only Patients are born."""
    found = asked("Observation", "subject.identifier=a")
    types = ("Device", "Group", "Location", "Patient")
    keys = tuple(key(type, "identifier") for type in types)
    assert found == Chain((SUBJECT,), types, Tokens(keys, (A,)))

    assert asked("Observation", "subject.birthdate=2020").types == ("Patient",)


def test_a_chain_may_be_long_and_end_in_a_modifier():
    found = asked("Observation", "patient.organization.name:exact=Acme")
    name = Strings((key("Organization", "name"),), "exact", ("Acme",))

    assert found == Chain(
        (PATIENT,), ("Patient",), Chain((key("Patient", "organization"),), ("Organization",), name)
    )


def test_a_chain_may_go_in_circles():
    found = asked("Location", "partof.partof.name=a")
    assert (found.types, found.filter.types) == (("Location",), ("Location",))


@pytest.mark.parametrize(
    ("query", "inner"),
    [
        ("subject:Patient._id=1", Ids(("1",))),
        ("subject:Patient._tag=a", code_filter("Patient", code="_tag")),
        ("subject:Patient.gender:not=a", Not(code_filter("Patient", code="gender"))),
        ("subject:Patient.name:missing=true", Not(Present("strings", (key("Patient", "name"),)))),
    ],
)
def test_chains_end_in_any_parameter(query, inner):
    assert asked("Observation", query) == Chain((SUBJECT,), ("Patient",), inner)


def test_a_chain_to_when_a_resource_was_updated():
    found = asked("Observation", "subject:Patient._lastUpdated=ge2020")
    assert isinstance(found.filter, Updated)


def test_canonicals_lead_by_url_and_version():
    """The parameters url and version of what is led to tell where a canonical goes."""
    found = asked("QuestionnaireResponse", "questionnaire.title=a")
    assert found.types == ("Questionnaire",)
    assert found.urls == (key("Questionnaire", "url"),)
    assert found.versions == (key("Questionnaire", "version"),)


def test_has():
    found = asked("Patient", "_has:Observation:patient:code=a")
    assert found == ReferredBy((PATIENT,), code_filter("Observation"))


def test_has_within_has():
    found = asked("Patient", "_has:Observation:patient:_has:AuditEvent:entity:agent-name=a")
    entity = key("AuditEvent", "entity")
    name = Strings((key("AuditEvent", "agent-name"),), "starts", ("a",))
    assert found == ReferredBy((PATIENT,), ReferredBy((entity,), name))


def test_has_within_a_chain_and_a_chain_within_has():
    member = ReferredBy((key("Group", "member"),), Ids(("1",)))
    assert asked("Observation", "patient._has:Group:member:_id=1") == Chain((PATIENT,), ("Patient",), member)

    found = asked("Patient", "_has:Observation:patient:performer:Practitioner.family=a")
    family = Strings((key("Practitioner", "family"),), "starts", ("a",))
    performer = Chain((key("Observation", "performer"),), ("Practitioner",), family)
    assert found == ReferredBy((PATIENT,), performer)


@pytest.mark.parametrize(
    ("types", "name", "code"),
    [
        ("Patient", "name.family", "not-supported"),
        ("Observation", "subject:Foo.name", "not-supported"),
        ("Observation", "subject:identifier.name", "not-supported"),
        ("Observation", "subject:Practitioner.name", "not-supported"),
        ("Observation", "subject:Patient.name:below", "not-supported"),
        ("Patient", "_has", "value"),
        ("Patient", "_has:Observation", "value"),
        ("Patient", "_has:Observation:patient", "value"),
        ("Patient", "_has:Observation:patient:", "value"),
        ("Patient", "_has::patient:code", "value"),
        ("Patient", "_has:Foo:patient:code", "value"),
        ("Patient", "_has:Observation:code:code", "not-supported"),
        ("Questionnaire", "_has:QuestionnaireResponse:questionnaire:status", "not-supported"),
        ("Patient", "a.a.a.a.a.a.a", "too-costly"),
        ("Patient", "_has:A:b:" * 6 + "c", "too-costly"),
    ],
)
def test_names_that_can_not_be_even_if_lenient(types, name, code):
    assert refused(types, [(name, "a")])[0] == code


@pytest.mark.parametrize(
    "name",
    [
        "foo.name",
        "_id.name",
        "general-practitioner.foo",
        "general-practitioner:Practitioner.birthdate",
        "general-practitioner.",
        ".name",
        "_has:Observation:foo:code",
        "_has:Observation:patient:foo",
        "_has:Group:managing-entity:code",
        "organization._type",
        "organization._filter",
        "organization._sort",
        "organization._count",
    ],
)
def test_names_that_are_not_known_are_ignored_with_a_warning(name):
    query = ask("Patient", [(name, "a")])
    [issue] = query.issues

    assert (issue.severity, issue.code) == ("warning", "not-supported")
    assert name.rsplit(".", 1)[0] in issue.text
    assert query.used == ()
    assert query.filter.filters == ()
    assert refused("Patient", [(name, "a")], strict=True)[0] == "not-supported"


def test_as_many_links_as_the_limits_say():
    assert asked("Location", "partof." * 5 + "name=a")
    assert asked("Location", "partof.name=a", limits=Limits(max_chain=1))
    assert refused("Location", "partof.partof.name=a", limits=Limits(max_chain=1))[0] == "too-costly"


def test_a_chain_from_several_types():
    found = asked(("Condition", "Observation"), "subject:Patient.name=a")
    assert found.keys == (key("Condition", "subject"), SUBJECT)


def test_a_chain_over_references_to_anything_is_found_quickly():
    """Each link is looked at once for all types together, so cost grows with the links and not with the paths."""
    looked_up = []

    class Counting(Registry):
        def find(self, type, code):
            looked_up.append(code)
            return super().find(type, code)

    parse_query(Counting(), ("Provenance",), [("target.focus.focus.focus._id", "1")], now=NOW)

    assert len(looked_up) < 10_000
