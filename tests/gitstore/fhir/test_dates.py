"""Instants and partial dates. https://hl7.org/fhir/R4/datatypes.html#dateTime"""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir.dates import format_instant, interval, parse_instant

FIRST = -62_135_596_800_000_000  # 0001-01-01
LAST = 253_402_300_799_999_999  # the end of 9999


def at(*parts):
    """Microseconds of a moment of UTC: year, month, day, hour, minute, second, microsecond."""
    whole = datetime(*(parts + (1, 1, 1)[len(parts) :])[:6], tzinfo=UTC)
    return int(whole.timestamp()) * 1_000_000 + (parts[6] if len(parts) > 6 else 0)


INSTANTS = {
    "1970-01-01T00:00:00Z": 0,
    "2026-11-21T22:30:00.123456Z": at(2026, 11, 21, 22, 30, 0, 123_456),
    "2026-11-21T22:30:00.5Z": at(2026, 11, 21, 22, 30, 0, 500_000),
    "2026-11-21T22:30:00.123456999999Z": at(2026, 11, 21, 22, 30, 0, 123_456),
    "2026-11-21T22:30:00+01:00": at(2026, 11, 21, 21, 30),
    "2026-11-21T22:30:00-05:30": at(2026, 11, 22, 4, 0),
    "2026-11-21T22:30:00+14:00": at(2026, 11, 21, 8, 30),
    "2016-12-31T23:59:60Z": at(2017),
    "2016-12-31T23:59:60.25Z": at(2017, 1, 1, 0, 0, 0, 250_000),
    "1969-12-31T23:59:59.999999Z": -1,
    "0001-01-01T00:00:00Z": FIRST,
    "9999-12-31T23:59:59.999999Z": LAST,
}

NOT_INSTANTS = [
    "2026",
    "2026-11-21",
    "2026-11-21T22:30Z",
    "2026-11-21T22:30:00",
    "2026-11-21 22:30:00Z",
    "2026-11-21T22:30:00z",
]

NOT_DATES = [
    "",
    "26",
    "2026-1",
    "2026-13",
    "2026-00",
    "0000",
    "2026-02-29",
    "2026-11-31",
    "2026-11-21T",
    "2026-11-21T22",
    "2026-11-21Z",
    "2026-11-21T24:00:00Z",
    "2026-11-21T22:60:00Z",
    "2026-11-21T22:30:61Z",
    "2026-11-21T22:30:00.Z",
    "2026-11-21T22:30:00+15:00",
    "2026-11-21T22:30:00+01",
    "2026-11-21T22:30:00+01:60",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:60Z",
    "9999-12-31T23:59:59-01:00",
    "2026-11-21T22:30:00Z\n",
    " 2026",
    "٢٠٢٦",
    "yesterday",
    "1" * 10_000,
]

INTERVALS = {
    "2026": (at(2026), at(2027)),
    "2026-11": (at(2026, 11), at(2026, 12)),
    "2026-12": (at(2026, 12), at(2027, 1)),
    "2020-02": (at(2020, 2), at(2020, 3)),
    "2020-02-29": (at(2020, 2, 29), at(2020, 3, 1)),
    "2026-11-21T22:30": (at(2026, 11, 21, 22, 30), at(2026, 11, 21, 22, 31)),
    "2026-11-21T22:30Z": (at(2026, 11, 21, 22, 30), at(2026, 11, 21, 22, 31)),
    "2026-11-21T22:30:05": (at(2026, 11, 21, 22, 30, 5), at(2026, 11, 21, 22, 30, 6)),
    "2026-11-21T22:30:05+02:00": (at(2026, 11, 21, 20, 30, 5), at(2026, 11, 21, 20, 30, 6)),
    "1970-01-01T00:00:00.5Z": (500_000, 600_000),
    "1970-01-01T00:00:00.500Z": (500_000, 501_000),
    "1970-01-01T00:00:00.000001Z": (1, 2),
    "1970-01-01T00:00:00.0000015Z": (1, 2),
    "9999": (at(9999), LAST + 1),
    "9999-12": (at(9999, 12), LAST + 1),
    "9999-12-31": (at(9999, 12, 31), LAST + 1),
}


@pytest.mark.parametrize(("text", "expected"), INSTANTS.items())
def test_an_instant_is_a_number_of_microseconds(text, expected):
    assert parse_instant(text) == expected


@pytest.mark.parametrize("text", NOT_INSTANTS + NOT_DATES)
def test_an_instant_has_seconds_and_a_zone(text):
    with pytest.raises(Invalid) as refused:
        parse_instant(text)

    [issue] = refused.value.issues
    assert (issue.severity, issue.code) == ("error", "value")
    assert f"`{text[:80]}`" in issue.text
    assert len(issue.text) < 250


@pytest.mark.parametrize(("text", "expected"), INTERVALS.items())
def test_a_partial_date_is_all_that_it_covers(text, expected):
    """https://hl7.org/fhir/R4/search.html#date"""
    assert interval(text) == expected


@pytest.mark.parametrize("text", NOT_DATES)
def test_what_is_no_date_has_no_interval(text):
    with pytest.raises(Invalid):
        interval(text)


@given(st.integers(FIRST, LAST))
def test_parse_instant_undoes_format_instant(instant):
    assert parse_instant(format_instant(instant)) == instant


@pytest.mark.parametrize("text", ["2026-11-21T22:30:00.000000Z", "0099-01-02T03:04:05.000006Z"])
def test_an_instant_prints_with_microseconds_in_utc(text):
    assert format_instant(parse_instant(text)) == text


@given(st.integers(FIRST, LAST - 1), st.sampled_from([4, 7, 10, 19, 21, 23, 26]))
def test_cutting_digits_off_widens_the_interval(instant, length):
    """Each coarser form of a date covers the finer ones."""
    text = format_instant(instant)[:length]
    start, end = interval(text if length < 11 else text + "Z")

    assert start <= instant < end
