"""SMART's scopes and ours. https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html"""

from __future__ import annotations

import re

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from gitstore import ROLES, Grant, Invalid, Scopes, check_scopes, parse_scopes
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.scopes import COMMON, LETTERS


def granted(word: str, patient: str | None = None) -> Grant:
    """The one grant of a scope that gives no role."""
    scopes = parse_scopes(word, patient)
    assert scopes.roles == frozenset()
    [grant] = scopes.grants
    return grant


LAB = "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
UNDERSTOOD = [
    # level and type
    ("user/Patient.r", Grant("Patient", frozenset("r"))),
    ("system/Patient.r", Grant("Patient", frozenset("r"))),
    ("patient/Patient.r", Grant("Patient", frozenset("r"), "p1")),
    ("patient/*.cruds", Grant(None, frozenset("cruds"), "p1")),
    # letters
    ("user/*.c", Grant(None, frozenset("c"))),
    ("user/*.cud", Grant(None, frozenset("cud"))),
    ("user/*.rs", Grant(None, frozenset("rs"))),
    # version 1
    ("user/*.read", Grant(None, frozenset("rs"))),
    ("user/*.write", Grant(None, frozenset("cud"))),
    ("user/*.*", Grant(None, frozenset("cruds"))),
    # search parameters
    (
        f"user/Observation.rs?category={LAB}",
        Grant("Observation", frozenset("rs"), None, (("category", LAB),)),
    ),
    ("user/*.r?_tag=b&_tag=a", Grant(None, frozenset("r"), None, (("_tag", "b"), ("_tag", "a")))),
    ("user/*.r?_tag=a%26b%3Dc%20d", Grant(None, frozenset("r"), None, (("_tag", "a&b=c d"),))),
    ("user/*.r?_tag=a+b", Grant(None, frozenset("r"), None, (("_tag", "a b"),))),
    ("user/*.r?_tag=a%2Bb", Grant(None, frozenset("r"), None, (("_tag", "a+b"),))),
    ("user/*.r?_tag=%C3%A4", Grant(None, frozenset("r"), None, (("_tag", "ä"),))),
    ("user/*.r?_tag=a=b", Grant(None, frozenset("r"), None, (("_tag", "a=b"),))),
    ("user/*.r?_tag=a?b", Grant(None, frozenset("r"), None, (("_tag", "a?b"),))),
    ("user/*.r?_tag:not=a", Grant(None, frozenset("r"), None, (("_tag:not", "a"),))),
    ("user/*.r?_tag%3Anot=a", Grant(None, frozenset("r"), None, (("_tag:not", "a"),))),
]


@pytest.mark.parametrize(("text", "expected"), UNDERSTOOD)
def test_a_scope_is_compiled_to_a_grant(text: str, expected: Grant) -> None:
    assert granted(text, "p1") == expected
    assert check_scopes(text, "p1").grants == (expected,)


RESULTS_AND_OTHERS = [
    "_include",
    "_revinclude",
    "_sort",
    "_count",
    "_total",
    "_summary",
    "_elements",
    "_contained",
    "_containedType",
    "_format",
    "_pretty",
    "_filter",
    "_text",
    "_content",
    "_list",
    "_query",
    "_type",
    "_since",
    "_language",
    "_unheard-of",
    "_include:iterate",
]
"""What searches are answered by, or ask of others; and what no resource has."""

MALFORMED = [
    # letters: "to prevent misinterpretation of scopes with other conventions"
    ("user/Patient.", "none of read"),
    ("user/Patient.sr", "in that order"),
    ("user/Patient.dus", "in that order"),
    ("user/Patient.rr", "in that order"),
    ("user/Patient.R", "in that order"),
    ("user/Patient.reads", "in that order"),
    ("user/Patient.r.s", "in that order"),
    ("user/Patient.rs/", "in that order"),
    # types
    ("user/Patients.r", "no resource type"),
    ("user/patient.r", "no resource type"),
    ("user/.r", "no resource type"),
    ("user/**.r", "no resource type"),
    ("user/Resource.r", "no resource type"),
    ("user/Patient", "expected a resource type"),
    ("user/Patient/r", "expected a resource type"),
    ("user/", "expected a resource type"),
    ("user/Patient?_id=a.r", "expected a resource type"),
    # search parameters
    ("user/Patient.r?", "the name of a search parameter"),
    ("user/Patient.r?gender", "no value"),
    ("user/Patient.r?gender=", "no value"),
    ("user/Patient.r?gender=,", "no value"),
    ("user/Patient.r?=female", "the name of a search parameter"),
    ("user/Patient.r?gender=female&", "the name of a search parameter"),
    ("user/Patient.r?&gender=female", "the name of a search parameter"),
    ("user/Patient.r?gender=%zz", "percent-encoded"),
    ("user/Patient.r?gender=%", "percent-encoded"),
    ("user/Patient.r?gender=%ff", "no UTF-8"),
    ("user/Patient.r?gender=%00", "percent-encoded"),
    ("user/Patient.r?gender=a%0Ab", "percent-encoded"),
    ("user/Patient.read?gender=female", "letters of version 2"),
    ("user/Patient.*?gender=female", "letters of version 2"),
    ("user/Patient.r?organization.name=a", "the name of a search parameter"),
    ("user/Patient.r?organization:Organization.name=a", "the name of a search parameter"),
    ("user/Patient.r?_has:Observation:patient:code=a", "the name of a search parameter"),
    ("user/Patient.r?_has=a", "resources apart"),
    *((f"user/Patient.r?{name}=1", "resources apart") for name in RESULTS_AND_OTHERS),
    ("user/Patient.r?" + "&".join(["gender=female"] * 21), "more than 20"),
    # characters
    ('user/Patient.r?gender="a"', "no scope may have"),
    ("user/Patient.r?gender=a\\b", "no scope may have"),
    ("user/Patient.r?gender=ä", "no scope may have"),
    # roles
    ("git-fhir/", "the roles are"),
    ("git-fhir/History", "the roles are"),
    ("git-fhir/root", "the roles are"),
    ("git-fhir/history,clone", "the roles are"),
    ("git-fhir/**", "the roles are"),
]


@pytest.mark.parametrize(("text", "reason"), MALFORMED)
def test_a_malformed_scope_gives_nothing_and_is_never_given(text: str, reason: str) -> None:
    assert parse_scopes(text, "p1") == Scopes((), frozenset())
    with pytest.raises(Invalid) as caught:
        check_scopes(text, "p1")
    [issue] = caught.value.issues
    assert (issue.severity, issue.code) == ("error", "value")
    assert issue.text.startswith(f"The scope `{text[:80]}")
    assert reason in issue.text


UNSEARCHABLE = [
    ("user/Patient.r?unheard-of=1", "not known for Patient"),
    ("user/Patient.r?category=lab", "not known for Patient"),
    ("user/Patient.r?gender:exact=female", "exact"),
    ("user/Patient.r?birthdate=yesterday", "no valid date"),
    ("user/Patient.r?gender:missing=perhaps", "true or false"),
    ("user/Patient.r?_id:missing=false", "select nothing"),
    ("user/Patient.r?gender=female&_id:missing=false", "select nothing"),
    ("user/*.r?code=a", "all types"),
    ("user/*.r?identifier=a", "all types"),
]


@pytest.mark.parametrize(("text", "reason"), UNSEARCHABLE)
def test_search_parameters_of_a_scope_that_is_given_must_be_r4s_and_select(text: str, reason: str) -> None:
    """One that search would ignore must never widen a grant; parse_scopes keeps it for the record to refuse."""
    assert granted(text).query
    with pytest.raises(Invalid, match=reason):
        check_scopes(text, None)


@pytest.mark.parametrize("name", sorted(COMMON))
def test_what_tells_of_every_resource_can_limit_a_grant_of_all_types(name: str) -> None:
    check_scopes(f"user/*.r?{name}=2026", None)
    check_scopes(f"user/Basic.r?{name}=2026", None)


@pytest.mark.parametrize("patient", [None, "", "a/b", "..", "Patient/p1", "ä", "a" * 65])
def test_a_scope_of_a_patient_needs_one(patient: str | None) -> None:
    """Without a patient in context, `patient/` can't mean all patients."""
    assert parse_scopes("patient/*.cruds patient/Patient.read", patient) == Scopes((), frozenset())
    with pytest.raises(Invalid, match="of which Patient"):
        check_scopes("patient/*.r", patient)


def test_a_patient_that_can_not_be_is_refused_even_where_no_scope_asks_for_one() -> None:
    with pytest.raises(Invalid, match="no id of a Patient"):
        check_scopes("user/*.r", "Patient/p1")


def test_scopes_of_other_kinds_mean_nothing() -> None:
    """openid, fhirUser, launch and the like come along in every token of an authorization server."""
    others = "openid fhirUser profile offline_access online_access launch launch/patient smart/x https://a.example/b"
    assert parse_scopes(others, "p1") == Scopes((), frozenset())
    assert check_scopes(f"{others} user/Patient.r", None) == parse_scopes("user/Patient.r", None)


@pytest.mark.parametrize(
    "text", ["users/Patient.r", "User/Patient.r", "patient.read", "Patient.r", "everything"]
)
def test_what_nobody_knows_is_refused_when_it_is_given(text: str) -> None:
    """A typing error is told, instead of making a token that opens nothing."""
    assert parse_scopes(text, "p1") == Scopes((), frozenset())
    with pytest.raises(Invalid, match="a scope is such as"):
        check_scopes(f"user/*.r {text}", "p1")


@pytest.mark.parametrize("text", ["", " ", "openid", "launch/patient offline_access"])
def test_scopes_that_allow_nothing_are_not_given(text: str) -> None:
    with pytest.raises(Invalid, match="allow nothing"):
        check_scopes(text, None)


def test_every_bad_word_is_told() -> None:
    with pytest.raises(Invalid) as caught:
        check_scopes("user/Patient.sr user/*.r git-fhir/x patient/*.r", None)
    assert [re.findall("`(.*?)`", issue.text)[0] for issue in caught.value.issues] == [
        "user/Patient.sr",
        "git-fhir/x",
        "patient/*.r",
    ]


def test_roles_are_scopes() -> None:
    assert parse_scopes("git-fhir/history git-fhir/clone", None).roles == {"history", "clone"}
    assert parse_scopes("git-fhir/*", None).roles == ROLES
    assert parse_scopes("user/*.cruds", None).roles == frozenset()


def test_repeated_scopes_are_one_grant() -> None:
    assert len(parse_scopes("user/*.rs user/*.read system/*.rs", None).grants) == 1


@pytest.mark.parametrize("space", ["\n", "\t", "\u00a0", "\u2003", "\v"])
def test_only_a_space_divides_scopes(space: str) -> None:
    """https://www.rfc-editor.org/rfc/rfc6749#section-3.3"""
    assert parse_scopes(f"user/Patient.r{space}user/*.cruds", None) == Scopes((), frozenset())


# Properties

types = st.sampled_from(["*", *RESOURCE_TYPES])
levels = st.sampled_from(["patient", "user", "system"])
letters = st.sets(st.sampled_from(LETTERS), min_size=1).map(
    lambda chosen: "".join(letter for letter in LETTERS if letter in chosen)
)
ids = st.from_regex(r"[A-Za-z0-9-]{1,8}", fullmatch=True)
names = st.from_regex(r"[a-z][a-z-]{0,9}(:[a-z]{1,5})?", fullmatch=True) | st.sampled_from(sorted(COMMON))
characters = st.characters(exclude_categories=["Cs", "Cc"])
values = st.text(characters, min_size=1, max_size=8).filter(lambda text: text.strip(","))
grants = st.builds(
    Grant,
    st.none() | st.sampled_from(RESOURCE_TYPES),
    letters.map(frozenset),
    st.just("p1") | st.none(),
    st.lists(st.tuples(names, values), max_size=3).map(tuple),
)
scopes = st.builds(
    Scopes,
    st.lists(grants, max_size=4, unique=True).map(tuple),
    st.sets(st.sampled_from(sorted(ROLES))).map(frozenset),
)


@given(scopes)
def test_what_is_written_is_read_as_the_same(given_scopes: Scopes) -> None:
    """Grants, roles, and queries with any text in them."""
    assert parse_scopes(str(given_scopes), "p1") == given_scopes


@given(levels, types, st.sampled_from([("read", "rs"), ("write", "cud"), ("*", "cruds")]))
def test_version_1_is_its_translation(level: str, type: str, pair: tuple[str, str]) -> None:
    """Section "Scopes for requesting FHIR Resources": v1 .read => v2 .rs, .write => .cud, .* => .cruds"""
    old, new = pair
    assert granted(f"{level}/{type}.{old}", "p1") == granted(f"{level}/{type}.{new}", "p1")


WORDS = ["user/", "patient/", "system/", "git-fhir/", "Patient", "read", "write", "history", "_tag", "%41"]
pieces = st.sampled_from(LETTERS) | st.sampled_from(WORDS) | st.sampled_from("*.?&=%,: \nä\ud800")
garbage = st.text() | st.lists(pieces, max_size=12).map("".join)


@given(garbage, ids | st.none() | st.text())
def test_no_text_gives_more_than_its_words_say(text: str, patient: str | None) -> None:
    """Whatever is sent, parse_scopes answers, and each grant is one that a word spells out."""
    found = parse_scopes(text, patient)

    words = text.split(" ")
    for grant in found.grants:
        spelled = [
            re.match(r"(patient|user|system)/([A-Za-z]+|\*)\.([a-z]+|\*)(\?|$)", word) for word in words
        ]
        assert any(
            match is not None
            and match[2] == (grant.type or "*")
            and grant.letters <= set({"read": "rs", "write": "cud", "*": "cruds"}.get(match[3], match[3]))
            and (grant.patient is not None or match[1] != "patient")
            and (bool(grant.query) or match[4] == "")
            for match in spelled
        )
        assert grant.patient in (None, patient)
    for role in found.roles:
        assert f"git-fhir/{role}" in words or "git-fhir/*" in words


@given(garbage, ids | st.none() | st.text())
def test_what_is_given_is_what_is_read(text: str, patient: str | None) -> None:
    """check_scopes refuses with Invalid or agrees with parse_scopes about the words."""
    try:
        checked = check_scopes(text, patient)
    except Invalid:
        event("refused")
    else:
        assert checked == parse_scopes(" ".join(text.split()), patient)
        assert checked.grants or checked.roles
