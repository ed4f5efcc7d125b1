"""Ids. https://hl7.org/fhir/R4/datatypes.html#id"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir.ids import ResourceId, check_id, is_id, parse_version_id

IDS = ["1", "example", "A-b.C", "-", "...", ".git", "x" * 64, "0"]
NOT_IDS = [
    "",
    ".",
    "..",
    "x" * 65,
    "a_b",
    "a/b",
    "a b",
    "a@b",
    "é",
    "١",
    "a\n",
    "\x00",
    "a%20b",
    "$everything",
    "_history",
]


@pytest.mark.parametrize("text", IDS)
def test_an_id_is_itself(text):
    assert is_id(text)
    assert check_id(text) == text


@pytest.mark.parametrize("text", NOT_IDS)
def test_what_is_outside_the_grammar_is_refused(text):
    """`.` and `..` match the grammar of FHIR, but clients would take them out of a URL."""
    assert not is_id(text)
    with pytest.raises(Invalid) as refused:
        check_id(text, "Patient.id")

    [issue] = refused.value.issues
    assert (issue.severity, issue.code, issue.expression) == ("error", "value", "Patient.id")
    assert f"`{text}`" in issue.text


@pytest.mark.parametrize("value", [None, 1, 1.5, True, ["1"], {"a": "b" * 500}])
def test_what_is_no_text_is_no_id(value):
    with pytest.raises(Invalid) as refused:
        check_id(value)

    assert repr(value)[:80] in refused.value.issues[0].text
    assert len(refused.value.issues[0].text) < 300


def test_a_resource_id_prints_as_a_literal_reference():
    assert str(ResourceId("Patient", "example")) == "Patient/example"


@given(st.integers(min_value=1, max_value=10**18 - 1))
def test_a_version_id_is_the_counter_it_prints_as(number):
    assert parse_version_id(str(number)) == number


@pytest.mark.parametrize(
    "text", ["", "0", "01", "-1", "+1", "1.0", "1 ", " 1", "1\n", "abc", "١", "1_0", "1" * 19, "9" * 5000]
)
def test_what_no_counter_prints_is_no_version_id(text):
    assert parse_version_id(text) is None
