r"""Values are divided at marks without a backslash. https://hl7.org/fhir/R4/search.html#escaping"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.search.escapes import escape, split, unescape

TEXTS = st.text(alphabet=st.sampled_from("ab\\,|$ é"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [""]),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (",a,", ["", "a", ""]),
        (r"a\,b", [r"a\,b"]),
        (r"a\\,b", [r"a\\", "b"]),
        (r"a\\\,b", [r"a\\\,b"]),
        (r"a\|b,c", [r"a\|b", "c"]),
        (r"a\n,b", [r"a\n", "b"]),
        ("a\\", ["a\\"]),
    ],
)
def test_splitting(text, parts):
    assert split(text, ",") == parts


@pytest.mark.parametrize(
    ("text", "meant"), [(r"a\,b", "a,b"), (r"\\\,", r"\,"), (r"\n", r"\n"), ("a\\", "a\\"), (r"\\n", r"\n")]
)
def test_only_four_characters_can_be_escaped(text, meant):
    assert unescape(text) == meant


@given(st.lists(TEXTS, min_size=1), st.sampled_from(",|$"))
def test_what_was_escaped_and_joined_comes_back(parts, mark):
    joined = mark.join(map(escape, parts))
    assert [unescape(part) for part in split(joined, mark)] == parts


@given(TEXTS, st.sampled_from(",|$"))
def test_splitting_loses_nothing(text, mark):
    assert mark.join(split(text, mark)) == text


@given(st.lists(st.lists(TEXTS, min_size=1), min_size=1))
def test_parts_within_parts(table):
    joined = ",".join("|".join(map(escape, row)) for row in table)
    assert [[unescape(cell) for cell in split(row, "|")] for row in split(joined, ",")] == table
