"""Patterns that clients send are matched in linear time. https://hl7.org/fhir/R4/valueset.html#filter"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.fhir.patterns import Pattern, UnsupportedPatternError


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("[A-Z]{3}", ["ABC"], ["AB", "ABCD", "abc", ""]),
        ("^[0-9]{3}$", ["123"], ["1234"]),
        ("a|bc", ["a", "bc"], ["abc", "ac"]),
        ("^a|b$", ["a", "b"], ["ab"]),
        ("(ab)+c?", ["ab", "ababc"], ["", "abcc"]),
        ("(?:x|y)*", ["", "xyx"], ["xz"]),
        ("a{2,}", ["aa", "aaaa"], ["a"]),
        ("a{0,2}b", ["b", "aab"], ["aaab"]),
        ("a{,2}", None, None),
        (r"\d+\.\d", ["12.3"], ["12x3"]),
        (r"\w\W\s\S\D", ["a- bc"], ["aa bc"]),
        ("[^a-c]", ["d"], ["a", "dd", ""]),
        ("[]a]", ["]", "a"], ["b"]),
        ("[a-]", ["a", "-"], ["b"]),
        (r"[\d.-]+", ["1.2-3"], ["a"]),
        (r"a\$", ["a$"], ["a"]),
        ("a.c", ["abc"], ["a\nc", "ac"]),
        ("a*?", ["", "aa"], ["b"]),
        ("", [""], ["a"]),
        ("()*", [""], ["a"]),
        ("[é-ü]", ["ö"], ["o"]),
    ],
)
def test_a_pattern_fits_whole_texts(pattern, fitting, other):
    if fitting is None:
        with pytest.raises(UnsupportedPatternError):
            Pattern(pattern)
        return
    compiled = Pattern(pattern)

    assert [text for text in fitting if not compiled.fits(text)] == []
    assert [text for text in other if compiled.fits(text)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "(a",
        "a)",
        "[a",
        "[]",
        "[b-a]",
        "[[a]",
        r"[\d-z]",
        "*a",
        "a**",
        "a*+",
        "a{2",
        "a{2,1}",
        "a{x}",
        "a{99999}",
        "a\\",
        r"\b",
        r"(a)\1",
        r"\p{L}",
        "(?=a)",
        "(?P<n>a)",
        "a^b",
        "a$b",
        "(a{1000}){1000}",
        "((((){999}){999}){999}){999}",
        "(" * 30 + "a" + ")" * 30,
        "a" * 501,
    ],
)
def test_what_is_not_built_is_refused(pattern):
    with pytest.raises(UnsupportedPatternError):
        Pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a*)*b", "(.*a){12}b", "a?" * 100 + "b"])
def test_patterns_that_explode_elsewhere_do_not_here(pattern):
    """Python's re would take longer than anyone waits."""
    assert not Pattern(pattern).fits("a" * 1000)


patterns = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\w", "ab"]),
    lambda inner: (
        st.builds("({}|{})".format, inner, inner)
        | st.builds("{}{}".format, inner, inner)
        | st.builds("({}){}".format, inner, st.sampled_from(["?", "{2}", "{0,2}", "*", "+"]))
    ),
    max_leaves=4,
)


@given(patterns, st.lists(st.text("abc", max_size=5), max_size=5))
def test_a_pattern_means_what_it_means_to_python(pattern, texts):
    compiled, python = Pattern(pattern), re.compile(pattern)

    for text in texts:
        assert compiled.fits(text) == bool(python.fullmatch(text))


@given(st.text("ab[](){}|*+?^$-,.\\d2", max_size=15))
def test_every_text_is_a_pattern_or_refused(text):
    try:
        Pattern(text).fits("ab2")
    except UnsupportedPatternError:
        return
