"""Dates, with each prefix and at the edges of their intervals. https://hl7.org/fhir/R4/search.html#date"""

from __future__ import annotations

import pytest
from searches import found, refused, resource, words


def observed(id, when):
    return resource("Observation", id, effectiveDateTime=when)


DAYS = [
    observed("year", "2013"),
    observed("month", "2013-01"),
    observed("13", "2013-01-13"),
    observed("14", "2013-01-14"),
    observed("15", "2013-01-15"),
    observed("midnight", "2013-01-14T00:00:00Z"),
    observed("ten", "2013-01-14T10:00:00Z"),
    observed("minute", "2013-01-14T10:00Z"),
    observed("end", "2013-01-14T23:59:59.999Z"),
    observed("next", "2013-01-15T00:00:00Z"),
    resource("Observation", "dateless", status="final"),
]

TABLE = [
    ("2013-01-14", "14 midnight ten minute end"),
    ("eq2013-01-14", "14 midnight ten minute end"),
    ("ne2013-01-14", "year month 13 15 next"),
    ("gt2013-01-14", "year month 15 next"),
    ("lt2013-01-14", "year month 13"),
    ("ge2013-01-14", "year month 14 midnight ten minute end 15 next"),
    ("le2013-01-14", "year month 13 14 midnight ten minute end"),
    ("sa2013-01-14", "15 next"),
    ("eb2013-01-14", "13"),
    ("2013-01", "month 13 14 15 midnight ten minute end next"),
    ("2013", "year month 13 14 15 midnight ten minute end next"),
    ("ne2013-01", "year"),
    ("gt2013-01", "year"),
    ("lt2013-01", ""),
    ("sa2012", "year month 13 14 15 midnight ten minute end next"),
    ("eb2014", "year month 13 14 15 midnight ten minute end next"),
    ("sa2013", ""),
    ("lt2013-01-14T10:00:00Z", "year month 13 14 midnight"),
    ("gt2013-01-14T10:00:00Z", "year month 14 15 minute end next"),
    ("ge2013-01-14T10:00:00Z", "year month 14 15 ten minute end next"),
    ("le2013-01-14T10:00:00Z", "year month 13 14 midnight ten"),
    ("2013-01-14T10:00:00Z", "ten"),
    ("2013-01-14T10:00Z", "ten minute"),
    ("2013-01-14T10:00", "ten minute"),
    ("2013-01-14T12:00:00%2B02:00", "ten"),
    ("2013-01-14T05:00:00-05:00", "ten"),
    ("2013-01-14T10:00:00.000Z", ""),
    ("2013-01-14T23:59:59.999Z", "end"),
    ("2013-01-14T23:59:59Z", "end"),
    ("2013-01-15T00:00:00%2B00:00", "next"),
    ("eb2013-01-14T10:00:00Z", "13 midnight"),
    ("sa2013-01-14T10:00:00Z", "15 end next"),
    ("2013-01-13,2013-01-15", "13 15 next"),
    ("ge2013-01-14&date=lt2013-01-15", "year month 14 midnight ten minute end"),
    ("sa2013-01-13&date=eb2013-01-15", "14 midnight ten minute end"),
]


@pytest.fixture(scope="module")
def days(store_of):
    return store_of(DAYS)


@pytest.mark.parametrize(("value", "expected"), TABLE)
def test_a_date_stands_for_all_the_time_that_its_digits_leave_open(days, value, expected):
    """12c.4: `eq` contains the whole of it, `gt` and `lt` overlap what is after and before, `sa` and `eb`
    are wholly there."""
    assert found(days, f"Observation?date={value}") == words(expected)


@pytest.mark.parametrize(
    ("query", "expected"), [("missing=true", "dateless"), ("missing=false&date=sa2013-01-14", "15 next")]
)
def test_missing_dates(days, query, expected):
    """12c.9: what has no date fits no comparison, `ne` neither: only :missing finds it."""
    assert found(days, f"Observation?date:{query}") == words(expected)


PERIODS = [
    resource("Encounter", "jan", period={"start": "2013-01-01", "end": "2013-01-31"}),
    resource("Encounter", "from-21-jan", period={"start": "2013-01-21"}),
    resource("Encounter", "from-15-mar", period={"start": "2013-03-15"}),
    resource("Encounter", "till-21-jan", period={"end": "2013-01-21"}),
    resource("Encounter", "mar-14", period={"start": "2013-03-14", "end": "2013-03-14"}),
    resource("Encounter", "decade", period={"start": "2010", "end": "2019"}),
    resource(
        "Encounter",
        "hours",
        period={"start": "2013-03-14T22:00:00-05:00", "end": "2013-03-14T23:00:00-05:00"},
    ),
    resource("Encounter", "empty", period={"extension": [{"url": "http://acme.org/x", "valueCode": "x"}]}),
]

PERIOD_TABLE = [
    ("2013-03-14", "mar-14"),
    ("2013-03-15", "hours"),
    ("2013-03", "mar-14 hours"),
    ("2013", "jan mar-14 hours"),
    ("ne2013", "from-21-jan from-15-mar till-21-jan decade"),
    ("ge2013-03-14", "from-21-jan from-15-mar mar-14 decade hours"),
    ("le2013-03-14", "jan from-21-jan till-21-jan mar-14 decade"),
    ("gt2013-03-14", "from-21-jan from-15-mar decade hours"),
    ("lt2013-03-14", "jan from-21-jan till-21-jan decade"),
    ("sa2013-03-14", "from-15-mar hours"),
    ("eb2013-03-14", "jan till-21-jan"),
    ("eb2013-01-22", "till-21-jan"),
    ("eb2013-01-21", ""),
    ("sa2013-01-20", "from-21-jan from-15-mar mar-14 hours"),
    ("gt9999", "from-21-jan from-15-mar"),
    ("lt0001", "till-21-jan"),
    ("gt2019", "from-21-jan from-15-mar"),
    ("lt2010", "till-21-jan"),
    ("ap2013-01-31", "jan from-21-jan from-15-mar till-21-jan mar-14 decade hours"),
    ("eq0001", ""),
]


@pytest.fixture(scope="module")
def periods(store_of):
    return store_of(PERIODS)


@pytest.mark.parametrize(("value", "expected"), PERIOD_TABLE)
def test_periods_without_an_end_go_on_for_ever(periods, value, expected):
    """12c.4: a missing boundary is before, or after, any date there is."""
    assert found(periods, f"Encounter?date={value}") == words(expected)


def test_a_period_without_both_ends_says_nothing(periods):
    assert found(periods, "Encounter?date:missing=true") <= {"empty"}
    assert "empty" not in found(periods, "Encounter?date=ne2013")


TIMINGS = [
    resource(
        "ServiceRequest", "events", occurrenceTiming={"event": ["2013-03-24", "2013-01-31", "2013-02-10"]}
    ),
    resource(
        "ServiceRequest", "bounds", occurrenceTiming={"repeat": {"boundsPeriod": {"start": "2013-06-01"}}}
    ),
    resource(
        "ServiceRequest",
        "daily",
        occurrenceTiming={"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}},
    ),
    resource("ServiceRequest", "once", occurrenceDateTime="2013-02-01"),
]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("occurrence=ge2013-02-01&occurrence=lt2013-02-02", "events once"),
        ("occurrence=sa2013-01-30&occurrence=eb2013-03-25", "events once"),
        ("occurrence=sa2013-01-31", "bounds once"),
        ("occurrence=gt2050", "bounds"),
        ("occurrence=2013", "events once"),
        ("occurrence:missing=true", "daily"),
    ],
)
def test_of_a_timing_only_the_outer_limits_count(store_of, query, expected):
    assert found(store_of(TIMINGS), f"ServiceRequest?{query}") == words(expected)


MOMENTS = [
    observed("leap", "2016-12-31T23:59:60Z"),
    observed("before-leap", "2016-12-31T23:59:59Z"),
    observed("kiribati", "2017-01-01T00:30:00+14:00"),
    observed("samoa", "2016-12-31T23:30:00-11:00"),
    observed("half-hour", "2017-06-01T00:00:00+05:30"),
    observed("micro", "2018-01-01T00:00:00.123456Z"),
    observed("nano", "2018-01-01T00:00:00.123456789Z"),
    observed("old", "0001-01-01"),
    observed("far", "9999-12-31"),
    observed("leap-day", "2016-02-29"),
    resource("Observation", "instant", effectiveInstant="2019-05-05T05:05:05.5Z"),
]

MOMENT_TABLE = [
    ("2017-01-01", "leap samoa"),
    ("2016-12-31", "before-leap kiribati"),
    ("2017-01-01T00:00:00Z", "leap"),
    ("2016-12-31T23:59:60Z", "leap"),
    ("2016-12-31T10:30:00Z", "kiribati"),
    ("2017-01-01T10:30:00Z", "samoa"),
    ("2017-05-31T18:30:00Z", "half-hour"),
    ("2018-01-01T00:00:00.123456Z", "micro nano"),
    ("2018-01-01T00:00:00.123Z", "micro nano"),
    ("2018-01-01T00:00:00.124Z", ""),
    ("lt0002", "old"),
    ("0001-01-01", "old"),
    ("gt9998", "far"),
    ("9999-12-31", "far"),
    ("9999", "far"),
    ("gt9999", ""),
    ("2016-02-29", "leap-day"),
    ("2016-02", "leap-day"),
    ("2019-05-05T05:05:05Z", "instant"),
    ("2019-05-05T05:05:05.5Z", "instant"),
]


@pytest.mark.parametrize(("value", "expected"), MOMENT_TABLE)
def test_zones_leap_seconds_fractions_and_the_ends_of_the_calendar(moments, value, expected):
    """Compared as instants; a leap second is the first of the next minute; no zone means UTC."""
    assert found(moments, f"Observation?date={value}") == words(expected)


@pytest.fixture(scope="module")
def moments(store_of):
    return store_of(MOMENTS)


@pytest.mark.parametrize(
    ("value", "near"),
    [
        ("ap2013-03-14", True),  # a tenth of almost 13 years is more than a year
        ("ap2012-03-14", True),
        ("ap2015-06-15", False),
        ("ap2000", False),
        ("ap2013-01-14", True),
    ],
)
def test_approximately_is_a_tenth_of_the_time_until_now(days, value, near):
    """The store's clock stands in 2026."""
    assert ("14" in found(days, f"Observation?date={value}")) is near


def test_approximately_now_is_at_least_as_wide_as_the_value(store_of):
    store = store_of([observed("today", "2026-01-01"), observed("lately", "2025-12-20")])

    assert found(store, "Observation?date=ap2026-01-01") == {"today"}


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        "2013-13",
        "2013-02-30",
        "2013-1-4",
        "23 May 2009",
        "2013-01-14T10",
        "2013-01-14T25:00:00Z",
        "2013-01-14T10:00:00%2B25:00",
        "xx2013",
        "GT2013",
        "gt",
        "gtlt2013",
        "2013-01-14T24:00:00Z",
        "99999",
        "-2013",
        "2013-01-14 10:00",
    ],
)
def test_what_is_no_date_is_refused(days, value):
    """https://hl7.org/fhir/R4/search.html#errors"""
    assert refused(days, f"Observation?date={value}")


@pytest.mark.parametrize("modifier", ["exact", "contains", "text", "not", "below", "Patient"])
def test_modifiers_that_dates_do_not_have_are_refused(days, modifier):
    assert refused(days, f"Observation?date:{modifier}=2013")


def test_last_updated(days):
    """Resources were written on 2026-01-01 at 12:00 and some seconds."""
    everything = found(days, "Observation?_lastUpdated=2026-01-01")

    assert len(everything) == len(DAYS)
    assert found(days, "Observation?_lastUpdated=ge2026-01-01T12:00:00Z") == everything
    assert found(days, "Observation?_lastUpdated=gt2026-01-01T13:00:00Z") == set()
    assert found(days, "Observation?_lastUpdated=lt2026-01-01T12:00:00Z") == set()
    assert found(days, "Observation?_lastUpdated=2026-01-01T14:00:00%2B02:00,2025") == set()
    assert (
        found(days, "Observation?_lastUpdated=2026-01&_lastUpdated=le2026-01-01T14:01%2B02:00") == everything
    )
    assert found(days, "Observation?_lastUpdated=eb2026-01-02,1999") == everything
    assert found(days, "Observation?_lastUpdated=ne2026") == set()
