"""Numbers as search compares them. https://hl7.org/fhir/R4/search.html#number"""

from __future__ import annotations

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir import decimals, json
from gitstore.fhir.decimals import approximate_range, implicit_range, key, parse, value_of

EXACT = Context(prec=5000)

numbers = st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(map(int, str(digits))), exponent)),
    st.integers(0, 1),
    st.one_of(st.integers(0, 1000), st.integers(0, 10**64 - 1)),
    st.one_of(st.integers(-3, 3), st.integers(-1000, 1000)),
)
"""As many digits, and exponents as large, as the JSON reader lets in."""


# Keys.


@given(numbers, numbers)
def test_keys_sort_as_numbers_do(one, other):
    assert (key(one) < key(other)) == (one < other)
    assert (key(one) == key(other)) == (one == other)


@given(numbers, st.integers(0, 70))
def test_neighbours_have_keys_that_sort(number, place):
    """Where one key begins with another it is the digits behind that decide, the other way round below zero."""
    next_one = EXACT.add(number, Decimal((0, (1,), number.as_tuple().exponent - place)))

    assert key(number) < key(next_one)
    assert key(next_one.copy_negate()) < key(number.copy_negate())


@given(numbers)
def test_a_key_leads_back_to_its_number(number):
    assert value_of(key(number)) == number
    assert key(value_of(key(number))) == key(number)
    assert decimals.LOWEST < key(number) < decimals.HIGHEST


@given(st.integers(-(10**60), 10**60))
def test_whole_numbers_have_the_keys_of_decimals(number):
    assert key(number) == key(Decimal(number)) == key(json.Number(f"{number}.0"))


@pytest.mark.parametrize(
    "same", [("1", "1.0", "1E0", "10e-1"), ("0", "-0", "0.000", "0e9", "-0e-9"), ("120", "1.2e2", "120.0")]
)
def test_a_number_has_one_key_however_it_is_written(same):
    assert len({key(json.Number(lexeme)) for lexeme in same}) == 1


@pytest.mark.parametrize(
    ("number", "length"), [("0", 1), ("7.2", 2), ("120", 2), ("98.6", 3), ("-7.2", 3), ("0.0001", 2)]
)
def test_keys_of_common_numbers_are_short(number, length):
    assert len(key(Decimal(number))) == length


def test_the_value_of_a_key_has_no_zeros_at_its_end():
    assert value_of(key(Decimal("120.00"))).as_tuple() == Decimal("1.2E+2").as_tuple()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e40000", "1e-40000"])
def test_what_has_no_place_among_the_numbers_has_no_key(number):
    with pytest.raises(ValueError, match=r"no number|out of range"):
        key(Decimal(number))


@pytest.mark.parametrize("other", [b"", decimals.LOWEST, decimals.HIGHEST, b"\xc0", b"\xc0\xfa"])
def test_other_bytes_are_no_key(other):
    with pytest.raises(ValueError, match="key of no number"):
        value_of(other)


# Search values.


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("100", "99.5", "100.5"),
        ("100.00", "99.995", "100.005"),
        ("1e2", "95", "105"),
        ("5.40e-3", "0.005395", "0.005405"),
        ("10e2", "950", "1050"),
        ("1.0e2", "95", "105"),
        ("1.00e2", "99.5", "100.5"),
        ("5e-3", "0.00495", "0.00505"),
        ("0", "-0.5", "0.5"),
        ("-0", "-0.5", "0.5"),
        ("0.0", "-0.05", "0.05"),
        ("-5", "-5.5", "-4.5"),
        ("-5.0", "-5.05", "-4.95"),
        ("+5", "4.5", "5.5"),
        ("1E+2", "95", "105"),
    ],
)
def test_the_digits_of_a_search_value_say_which_numbers_it_means(text, low, high):
    """The first four stand in the specification. https://hl7.org/fhir/R4/search.html#number"""
    assert implicit_range(text) == (Decimal(low), Decimal(high))


@given(numbers)
def test_the_range_of_a_number_lies_around_it(number):
    lexeme = f"{number:E}"
    if len(lexeme) > json.MAX_NUMBER or abs(int(lexeme.rpartition("E")[2])) > json.MAX_EXPONENT:
        return
    low, high = implicit_range(lexeme)

    assert low < number < high
    assert EXACT.subtract(number, low) == EXACT.subtract(high, number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NaN",
        "Infinity",
        "-inf",
        "1_000",
        "１",
        "٣",
        "1.",
        ".5",
        "01",
        "-01",
        "1e",
        "0x1",
        " 1",
        "1\n",
        "--1",
        "+-1",
        "1,5",
        "1e1001",
        "1e-1001",
        "1e99999999999999999999",
        "1" * 65,
    ],
)
def test_what_is_no_number_is_refused(text):
    """With code value. https://hl7.org/fhir/R4/datatypes.html#decimal"""
    for read in (parse, implicit_range):
        with pytest.raises(Invalid) as refusal:
            read(text)
        assert [(issue.severity, issue.code) for issue in refusal.value.issues] == [("error", "value")]


@pytest.mark.parametrize(
    "text", ["0", "-0", "100", "-2.50", "5.40e-3", "1E+5", "1e1000", "1e-1000", "9" * 64]
)
def test_a_number_is_read_as_json_reads_it(text):
    assert parse(text) == json.Number(text)


def test_a_plus_before_a_number_is_tolerated():
    assert parse("+5.0") == 5


# Nearness.


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [("100", "90", "110"), ("-100", "-110", "-90"), ("0", "0", "0"), ("5.4e-3", "0.00486", "0.00594")],
)
def test_a_tenth_either_way_is_near(value, low, high):
    """For the prefix ap. https://hl7.org/fhir/R4/search.html#prefix"""
    assert approximate_range(Decimal(value)) == (Decimal(low), Decimal(high))


@given(numbers)
def test_what_is_near_is_the_same_below_zero(number):
    low, high = approximate_range(number)

    assert low <= number <= high
    assert approximate_range(number.copy_negate()) == (high.copy_negate(), low.copy_negate())
