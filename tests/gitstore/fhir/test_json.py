"""JSON: digits and order survive, what is ambiguous is refused. https://hl7.org/fhir/R4/json.html"""

import copy
import decimal
import json as standard_json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir import json


def refusal(data):
    with pytest.raises(Invalid) as refused:
        json.loads(data)
    [issue] = refused.value.issues
    return issue


# Numbers

NUMBERS_AS_WRITTEN = [
    "0",
    "-7",
    "1.00",
    "0.010",
    "100.0",
    "1.0e2",
    "1E+2",
    "1e-07",
    "0.00000010",
    "-0",
    "-0.0",
    "-0e5",
    "9007199254740993",
    "18446744073709551616",
    "123456789012345678901234567890",
    "3.14159265358979323846264338327950288",
    "1e1000",
    "1" * 64,
]


@pytest.mark.parametrize("lexeme", NUMBERS_AS_WRITTEN)
@pytest.mark.parametrize("load", [json.loads, json.loads_trusted])
def test_a_number_keeps_its_digits(lexeme, load):
    """Precision SHALL survive. https://hl7.org/fhir/R4/datatypes.html#decimal"""
    data = b'{"value":%s}' % lexeme.encode()

    assert json.dumps(load(data)) == data
    assert json.dumps(load(json.dumps_pretty(load(data)))) == data


@pytest.mark.parametrize("lexeme", ["0", "-12", "4", "123456789012345678901234567890"])
def test_a_whole_number_is_an_int(lexeme):
    value = json.loads(lexeme.encode())

    assert type(value) is int
    assert value == int(lexeme)


@pytest.mark.parametrize("lexeme", ["1.00", "1e2", "-0"])
def test_a_number_compares_as_the_number_it_is(lexeme):
    assert json.loads(lexeme.encode()) == decimal.Decimal(lexeme)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda number: pickle.loads(pickle.dumps(number))],  # noqa: S301 - made right here
)
def test_a_copied_number_keeps_its_digits(copied):
    """A resource is copied before it is changed, and the copy must print the same."""
    number = copied(json.Number("1.0e2"))

    assert json.dumps(number) == b"1.0e2"
    assert str(number) == "1.0e2"
    assert repr(number) == "Number('1.0e2')"


def test_a_calculated_decimal_prints_as_a_number():
    assert json.dumps([json.Number("1.50") + 1, decimal.Decimal("0.10")]) == b"[2.50,0.10]"


@pytest.mark.parametrize(
    "text", ["", "01", "1.", ".5", "+1", "1_000", "NaN", "Infinity", " 1", "１", "0x1", "1e", "1\n"]
)
def test_only_a_json_number_becomes_a_number(text):
    """Decimal accepts more than JSON does, and a Number prints as it was written."""
    with pytest.raises(Invalid):
        json.Number(text)


# Values, there and back

_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\t\r\n\x7f"))
_lexemes = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**60), 10**60) | _text | _lexemes.map(json.Number),
    lambda children: st.lists(children) | st.dictionaries(_text, children),
    max_leaves=20,
)


def printed(value):
    """A print that shows digits, order and types, made without the code under test."""
    if isinstance(value, json.Number):
        return value.lexeme
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{printed(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(printed, value)) + "]"
    return repr(value)


@given(_values)
@pytest.mark.parametrize("dump", [json.dumps, json.dumps_pretty])
def test_loads_undoes_dumps(dump, value):
    """Digits and the order of keys included."""
    expected = printed(value)

    assert printed(json.loads(dump(value))) == expected
    assert printed(json.loads_trusted(dump(value))) == expected


@given(_values)
def test_escapes_that_were_not_needed_make_no_difference(value):
    """What Python's own json prints escapes every character that isn't ASCII, as many clients do."""
    plain = json.dumps(value).decode()
    escaped = "".join(c if ord(c) < 128 else standard_json.dumps(c)[1:-1] for c in plain).replace("/", r"\/")

    assert printed(json.loads(escaped.encode())) == printed(value)


@given(_values)
def test_printing_again_changes_nothing(value):
    assert json.dumps_pretty(json.loads(json.dumps_pretty(value))) == json.dumps_pretty(value)
    assert json.dumps(json.loads(json.dumps(value))) == json.dumps(value)


def test_the_stored_form_has_two_spaces_and_a_final_newline():
    resource = {
        "resourceType": "Patient",
        "id": "é",
        "name": [{"given": ["Ada", "B"]}],
        "contained": [],
        "x": {},
    }

    assert json.dumps_pretty(resource).decode() == (
        '{\n  "resourceType": "Patient",\n  "id": "é",\n  "name": [\n    {\n      "given": [\n        "Ada",\n'
        '        "B"\n      ]\n    }\n  ],\n  "contained": [],\n  "x": {}\n}\n'
    )


def test_stored_bytes_are_embedded_as_they_lie():
    """Bundles are put together from stored bytes."""
    stored = json.dumps_pretty({"value": json.Number("1.00")})

    assert json.dumps({"resource": json.Raw(stored.rstrip())}) == b'{"resource":{\n  "value": 1.00\n}}'


def test_every_official_example_survives_with_each_digit_in_place(examples):
    """17.1: as a reader that never interprets a number sees it."""

    def numbers_as_text(data):
        return standard_json.loads(data, parse_float=lambda text: ("number", text), object_pairs_hook=list)

    for name, data in examples.items():
        stored = json.dumps_pretty(json.loads(data))
        assert numbers_as_text(stored) == numbers_as_text(data), name
        assert json.dumps_pretty(json.loads_trusted(stored)) == stored, name


def test_a_byte_order_mark_is_tolerated():
    assert json.loads(b'\xef\xbb\xbf{"id":"1"}') == {"id": "1"}


# Refusals

SYNTAX = {
    # data: line, column
    b"": (1, 1),
    b"  ": (1, 3),
    b'{"a":1': (1, 7),
    b'{\n  "a": 1,\n}': (3, 1),
    b'{"a" 1}': (1, 6),
    b'{"\xc3\xa9": 1 2}': (1, 9),
    b'{"a":01}': (1, 7),
    b'{"a":1.}': (1, 7),
    b'{"a":.5}': (1, 6),
    b'{"a":+1}': (1, 6),
    b"{'a':1}": (1, 2),
    b'{"a":1} // comment': (1, 9),
    b'{"a":1}{"a":1}': (1, 8),
    b'["\x0b"]': (1, 3),
    b'["\n"]': (1, 3),
    b'["a\x00b"]': (1, 4),
    b'[\n"abc': (2, 1),
    b'["\\x"]': (1, 3),
    b"\x00": (1, 1),
    b"\xff\xfe[\x00]\x00": (1, 1),
    # not UTF-8
    b'{"a":\n "b\xff"}': (2, 4),
    b'{"\xc3\xa9\xed\xa0\x80":1}': (1, 4),
    b'["\xc0\xaf"]': (1, 3),
}


@pytest.mark.parametrize(("data", "where"), SYNTAX.items())
def test_what_is_not_json_is_refused_with_line_and_column(data, where):
    """17.2, 17.5, 17.10"""
    issue = refusal(data)

    assert (issue.severity, issue.code, issue.expression) == ("error", "structure", None)
    assert issue.diagnostics == "line {}, column {}".format(*where)
    assert issue.diagnostics in issue.text


PLACES = {
    # data: place
    rb'{"a":1,"a":1}': "a",
    rb'{"name":[{"family":"x","family":"y"}]}': "name[0].family",
    rb'{"name":[{},{"b":[0,{"c":1,"\u0063":2}]}]}': "name[1].b[1].c",
    rb'{"a b":{"x":1,"x":2}}': "`a b`.x",
    rb'{"a":NaN}': "a",
    rb'{"a":[1,-Infinity]}': "a[1]",
    rb'{"a":1e1001}': "a",
    rb'{"a":1.5E-999999999999999999999}': "a",
    rb'{"a":1e%s}' % (b"9" * 70): "a",
    rb'{"a":[0,%s]}' % (b"1" * 65): "a[1]",
    rb'{"a":%s}' % (b"1" * 5000): "a",
    rb'{"a":0.%s}' % (b"1" * 63): "a",
    rb'{"a":-%s}' % (b"1" * 64): "a",
    rb'{"a":["\u0000"]}': "a[0]",
    rb'{"a":{"b":"x\u001fy"}}': "a.b",
    rb'{"a":"\b"}': "a",
    rb'{"a":"\f"}': "a",
    rb'{"a":"\ud800"}': "a",
    rb'{"a":["\ud83d","\ude00"]}': "a[0]",
}


@pytest.mark.parametrize(("data", "place"), PLACES.items())
def test_what_is_ambiguous_or_not_fhir_is_refused_at_its_place(data, place):
    """17.5, 17.10"""
    issue = refusal(data)

    assert (issue.severity, issue.code, issue.expression) == ("error", "structure", place)
    assert f"(`{place}`)" in issue.text


@pytest.mark.parametrize("name", ["\\u0000", "\\ud800", "`", "\\n"])
def test_a_refusal_can_itself_be_printed(name):
    """The name of a property may be what is wrong, and the answer is JSON too."""
    issue = refusal(b'{"%s":{"a":1,"a":2,"b":"\\u0000"}}' % name.encode())

    assert json.loads(json.dumps([issue.text, issue.expression]))


@pytest.mark.parametrize(
    "text", ["\\t", "\\r\\n", "\\u0009", "\\u007f", "\\\\b", "\\\\u0000", "C:\\\\f", "\\ud83d\\ude00"]
)
def test_tab_line_ends_and_escaped_backslashes_are_welcome(text):
    data = f'["{text}"]'.encode()

    assert json.loads(data) == standard_json.loads(data)


def test_digits_within_a_text_are_no_number():
    assert json.loads(b'{"a":"%s"}' % (b"1" * 500)) == {"a": "1" * 500}


@pytest.mark.parametrize("number", [b"1" * 65, b"1" * 71, b"1" * 72, b"1" * 73])
@pytest.mark.parametrize("shift", range(8))
def test_a_number_too_long_is_found_wherever_it_starts(number, shift):
    data = b'{"%s":%s}' % (b"x" * (shift + 1), number)

    assert refusal(data).expression == "x" * (shift + 1)


# Nesting


def nested(depth, opening=b"[", closing=b"]"):
    return opening * depth + b"0" + closing * depth


@pytest.mark.parametrize("depth", [1, 63, 64])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_to_64_is_accepted(depth, brackets):
    data = nested(depth, *brackets)

    assert json.dumps(json.loads(data)) == data


@pytest.mark.parametrize("depth", [65, 500, 990, 1_000, 5_000, 100_000])
@pytest.mark.parametrize(
    ("brackets", "place"), [((b"[", b"]"), "[0]" * 64), ((b'{"a":', b"}"), ".".join("a" * 64))]
)
def test_deeper_nesting_is_refused_where_it_begins(depth, brackets, place):
    """17.11: a parser that recurses must not be brought down by it."""
    assert refusal(nested(depth, *brackets)).expression == place


def test_the_place_of_deep_nesting_counts_what_lies_before_it():
    deep = b'{"a":["]","\\"["],"b":[{},[1,2],[%s' % (b"[" * 5_000)

    assert refusal(deep).expression == "b[2]" + "[0]" * 62


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"[[],"])
def test_ten_million_brackets_cost_no_more_than_reading_them(opening):
    assert "64 deep" in refusal(opening * (10_000_000 // len(opening))).text


def test_many_brackets_side_by_side_are_not_deep():
    data = b"[" + b",".join([b"[{}]"] * 200) + b"]"

    assert json.dumps(json.loads(data)) == data


# Any bytes at all


@given(st.binary() | st.text('[]{}",:\\u0123456789dDeE+-. \tntrufalsNI\x00é').map(str.encode))
def test_any_bytes_are_a_value_or_invalid(data):
    try:
        value = json.loads(data)
    except Invalid as refused:
        [issue] = refused.issues
        assert issue.code == "structure"
        assert issue.expression or issue.diagnostics or "`" in issue.text  # a value of its own has no place
    else:
        assert printed(json.loads(json.dumps(value))) == printed(value)
