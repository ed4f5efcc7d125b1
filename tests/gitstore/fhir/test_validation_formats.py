"""The formats of primitive types. https://hl7.org/fhir/R4/datatypes.html#primitive"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.fhir import json
from gitstore.fhir.primitives import IS_VALID, MAX_STRING, fault
from tools.build_definitions import files

SOUND = {
    "base64Binary": ["YQ==", "YWI=", "YWJj", "YWJj\nYWJj", " YQ== "],
    "boolean": [True, False],
    "canonical": ["http://example.org/a|1.0", "#local"],
    "code": ["a", "a b", "entered-in-error", "<="],
    "date": ["2020", "2020-02", "2020-02-29", "0001-01-01", "9999-12-31", "2000-02-29"],
    "dateTime": [
        "2020",
        "2020-02",
        "2020-02-29",
        "2020-02-29T23:59:60Z",
        "2020-01-01T00:00:00.123456789+14:00",
        "2020-01-01T00:00:00-13:59",
    ],
    "decimal": [0, -1, json.Number("1.00"), json.Number("1e5"), json.Number("-0")],
    "id": ["a", "A-1.b", "x" * 64],
    "instant": ["2020-02-29T10:00:00Z", "2020-02-29T10:00:00.1+01:00"],
    "integer": [0, -2_147_483_648, 2_147_483_647],
    "markdown": ["# a", " "],
    "oid": ["urn:oid:1.2.3", "urn:oid:2.0.0"],
    "positiveInt": [1, 2_147_483_647],
    "string": ["a", " a\n", "\u00a0", "😀", "x" * MAX_STRING],
    "time": ["00:00:00", "23:59:60", "10:00:00.5"],
    "unsignedInt": [0],
    "uri": ["http://example.org", "urn:x", "relative/a?b#c", "http://example.org/ä"],
    "url": ["http://example.org"],
    "uuid": ["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"],
    "xhtml": ["<div/>"],
}

UNSOUND = {
    "base64Binary": ["YQ", "YQ=", "YQ===", "Y Q=", "Y%==", "YQ==YQ==", "ä", "=", " ", 1],
    "boolean": ["true", 1, 0, None],
    "canonical": ["a b", "a\n", 1],
    "code": [" a", "a ", "a  b", "a\n\nb", "\t", 1, True],
    "date": [
        "20",
        "2020-2",
        "2020-13",
        "2020-00",
        "2020-02-30",
        "1900-02-29",
        "2021-04-31",
        "2020-01-00",
        "0000",
        "0000-01-01",
        "2020-01-01T10:00:00Z",
        "2020-01-01 ",
        "٢٠٢٠",
        2020,
    ],
    "dateTime": [
        "2020-01-01T10:00:00",
        "2020-01-01T10:00Z",
        "2020-01-01T24:00:00Z",
        "2020-01-01T10:60:00Z",
        "2020-01-01T10:00:61Z",
        "2020-01-01T10:00:00+14:01",
        "2020-01-01T10:00:00z",
        "2020-01T10:00:00Z",
        "2020-01-01t10:00:00Z",
        "2020-01-01T10:00:00.Z",
        "2021-02-29T10:00:00Z",
        "2020-01-01T10:00:00+0100",
    ],
    "decimal": ["1", True, None],
    "id": ["a_b", "x" * 65, "ä", "a/b", "a\n", 1],
    "instant": ["2020-02-29", "2020-02-30T10:00:00Z", "2020-02-29T10:00:00"],
    "integer": [
        2_147_483_648,
        -2_147_483_649,
        json.Number("1.0"),
        json.Number("1e1"),
        json.Number("-0"),
        "1",
        True,
    ],
    "markdown": [1],
    "oid": ["1.2.3", "urn:oid:3.1", "urn:oid:1.02", "urn:oid:1", "urn:oid:1.2."],
    "positiveInt": [0, -1, 2_147_483_648, True],
    "string": [1, True, "x" * (MAX_STRING + 1)],
    "time": ["24:00:00", "10:00", "10:00:00Z", "1:00:00"],
    "unsignedInt": [-1, False],
    "uri": ["a b", "\u00a0", "a\t"],
    "url": ["http://example.org/a b"],
    "uuid": [
        "c757873d-ec9a-4326-a141-556f43239520",
        "urn:uuid:C757873D-EC9A-4326-A141-556F43239520",
        "urn:uuid:1",
    ],
    "xhtml": [1],
}


def test_every_primitive_type_of_r4_has_a_format(examples_package):
    types = {
        json.loads_trusted(data)["type"]
        for name, data in files(examples_package)
        if name.startswith("StructureDefinition-") and b'"kind":"primitive-type"' in data.replace(b" ", b"")
    }

    assert types == IS_VALID.keys() == SOUND.keys() == UNSOUND.keys()


@pytest.mark.parametrize("type", SOUND)
def test_sound_values(type):
    assert [value for value in SOUND[type] if not IS_VALID[type](value)] == []


@pytest.mark.parametrize("type", UNSOUND)
def test_unsound_values(type):
    """17.2"""
    for value in ["", [], {}, None, *UNSOUND[type]]:
        assert not IS_VALID[type](value), value

        issue = fault(type, value, "X.y")
        assert issue.code in ("structure", "value")
        assert issue.text.startswith("`X.y` ")
        assert len(issue.text) < 250


PATTERNS = {
    "code": r"[^\s]+(\s[^\s]+)*",
    "date": r"([0-9]([0-9]([0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)(-(0[1-9]|1[0-2])(-(0[1-9]|[1-2][0-9]|3[0-1]))?)?",
    "id": r"[A-Za-z0-9\-\.]{1,64}",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?",
    "oid": r"urn:oid:[0-2](\.(0|[1-9][0-9]*))+",
}
"""As the StructureDefinitions of R4 have them."""


@pytest.mark.parametrize("type", PATTERNS)
@given(data=st.data())
def test_values_that_fit_the_pattern_of_r4_are_sound(type, data):
    """But for days that the calendar doesn't have."""
    text = data.draw(st.from_regex(re.compile(PATTERNS[type], re.ASCII), fullmatch=True))

    assert IS_VALID[type](text) or (type == "date" and int(text[-2:]) > 28)
