"""What values mean, by type, modifier and prefix. https://hl7.org/fhir/R4/search.html#ptypes"""

from __future__ import annotations

from decimal import Decimal

import pytest
from asked import NOW, ask, asked, key, refused

from gitstore.fhir import dates, decimals
from gitstore.search.filters import (
    All,
    Any,
    Composite,
    Dates,
    Ids,
    Near,
    Not,
    Present,
    Quantities,
    Strings,
    Tokens,
    TokenTexts,
    TokenValue,
    Updated,
)
from gitstore.search.parameters import Registry

CODE, NAME, URL = key("Observation", "code"), key("Patient", "name"), key("ValueSet", "url")
UCUM = "http://unitsofmeasure.org"


@pytest.mark.parametrize(
    ("text", "system", "code"),
    [
        ("a", None, "a"),
        ("A b", None, "A b"),
        ("s|a", "s", "a"),
        ("|a", "", "a"),
        ("s|", "s", None),
        (r"s\|t|a\,b", "s|t", "a,b"),
        (r"a\$b\\", None, "a$b\\"),
        ("gea", None, "gea"),
        ("a$b", None, "a$b"),
    ],
)
def test_a_token_is_a_code_with_or_without_a_system(text, system, code):
    """https://hl7.org/fhir/R4/search.html#token A prefix is part of the value."""
    assert asked("Observation", [("code", text)]) == Tokens((CODE,), (TokenValue(system, code),))


def test_values_between_commas_are_alternatives_and_a_repeated_parameter_asks_for_both():
    """https://hl7.org/fhir/R4/search.html#combining"""
    query = ask("Observation", "code=a,b&code=c")

    assert query.filter.filters == (
        Tokens((CODE,), (TokenValue(None, "a"), TokenValue(None, "b"))),
        Tokens((CODE,), (TokenValue(None, "c"),)),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("code:not", Not(Tokens((CODE,), (TokenValue("http://s", "b"),)))),
        ("code:below", Tokens((CODE,), (TokenValue("http://s", "b"),))),
        ("code:above", Tokens((CODE,), (TokenValue("http://s", "a"), TokenValue("http://s", "b")))),
    ],
)
def test_modifiers_of_tokens(name, expected):
    assert asked("Observation", [(name, "http://s|b")]) == expected


def test_codes_of_a_value_set():
    """:in and :not-in ask the terminology. https://hl7.org/fhir/R4/search.html#token"""
    members = Tokens((CODE,), (TokenValue("http://s", "a"), TokenValue("http://s", "b")))

    assert asked("Observation", "code:in=http://vs") == members
    assert asked("Observation", "code:not-in=http://vs") == Not(members)
    assert asked("Observation", "code:in=http://none") == Any()
    assert asked("Observation", "code:not-in=http://none") == Not(Any())


@pytest.mark.parametrize("name", ["code:in", "code:not-in", "code:below", "code:above"])
def test_what_the_terminology_can_not_tell_is_refused(name):
    code, _ = refused("Observation", [(name, "http://unknown|x")])
    assert code == "not-supported"
    code, _ = refused("Observation", [(name, "http://s|a")], terminology=None)
    assert code == "not-supported"


def test_below_needs_a_system():
    assert refused("Observation", "code:below=a")[0] == "value"


def test_text_of_tokens_is_folded():
    expected = TokenTexts((key("Observation", "code", "text"),), "starts", ("ete", "b"))
    assert asked("Observation", "code:text=Été,B") == expected


def test_identifiers_of_a_type():
    """All three parts are needed. https://hl7.org/fhir/R4/search.html#token"""
    keys = (key("Patient", "identifier", "of_type"),)
    found = asked("Patient", [("identifier:of-type", r"http://t|MR|1\|2")])

    assert found == Tokens(keys, (TokenValue("http://t|mr", "1|2"),))
    for text in ("http://t|MR", "http://t|MR|", "|MR|1", "a|b|c|d"):
        assert refused("Patient", [("identifier:of-type", text)])[0] == "value"
    assert refused("Patient", "gender:of-type=a|b|c")[0] == "not-supported"


@pytest.mark.parametrize("text", ["|", "a|b|c", "||"])
def test_tokens_that_are_none(text):
    code, issue = refused("Observation", [("code", text)])
    assert code == "value"
    assert "`code`" in issue


@pytest.mark.parametrize(
    ("name", "text", "match", "value"),
    [
        ("name", "  Müller-Lüdenscheidt ", "starts", "mullerludenscheidt"),
        ("name", "gea", "starts", "gea"),
        ("name", "a|b$c", "starts", "a|b$c"),
        ("name:contains", "É", "contains", "e"),
        ("name:exact", "É x", "exact", "É x"),
        ("name:exact", r"a\,b\\", "exact", "a,b\\"),
        ("name:exact", "---", "exact", "---"),
    ],
)
def test_strings_are_folded_unless_exact(name, text, match, value):
    """https://hl7.org/fhir/R4/search.html#string"""
    assert asked("Patient", [(name, text)]) == Strings((NAME,), match, (value,))


@pytest.mark.parametrize("text", ["-", " ", "..."])
@pytest.mark.parametrize("name", ["name", "name:contains"])
def test_a_string_of_punctuation_would_match_everything(name, text):
    assert refused("Patient", [(name, text)])[0] == "value"


@pytest.mark.parametrize(
    ("name", "text", "match", "values"),
    [
        ("url", "http://a/B", "uri", ("http://a/B",)),
        ("url", "urn:oid:1.2", "uri", ("urn:oid:1.2",)),
        ("url", r"http://a/b\,c", "uri", ("http://a/b,c",)),
        ("url:below", "http://a/b/", "below", ("http://a/b",)),
        ("url:below", "http://a/b,http://c", "below", ("http://a/b", "http://c")),
        (
            "url:above",
            "http://a/b/c",
            "uri",
            ("http://a/b/c", "http://a", "http://a/", "http://a/b", "http://a/b/"),
        ),
        ("url:above", "urn:oid:1.2", "uri", ("urn:oid:1.2",)),
    ],
)
def test_uris_are_compared_as_they_are(name, text, match, values):
    """https://hl7.org/fhir/R4/search.html#uri"""
    assert asked("ValueSet", [(name, text)]) == Strings((URL,), match, values)


def test_a_url_may_be_asked_for_with_the_version_of_the_resource():
    """https://hl7.org/fhir/R4/references.html#canonical"""
    version = Tokens((key("ValueSet", "version"),), (TokenValue(None, "1.0"),))
    both = All((Strings((URL,), "uri", ("http://a",)), version))

    assert asked("ValueSet", "url=http://a|1.0") == both
    assert asked("ValueSet", "url=http://a|1.0,http://b") == Any(
        (both, Strings((URL,), "uri", ("http://b",)))
    )
    assert asked("ValueSet", [("url", r"http://a\|1")]) == Strings((URL,), "uri", ("http://a|1",))
    assert asked("ValueSet", "url:below=http://a|1.0") == Strings((URL,), "below", ("http://a|1.0",))
    assert asked("Patient", "_profile=http://a|1.0").values == ("http://a|1.0",)


BIRTH = key("Patient", "birthdate")


@pytest.mark.parametrize("prefix", ["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"])
def test_prefixes_of_dates(prefix):
    """https://hl7.org/fhir/R4/search.html#prefix"""
    assert asked("Patient", f"birthdate={prefix}2020-02") == Dates(
        (BIRTH,), prefix, *dates.interval("2020-02"), True
    )


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("2020", "2020"),
        ("2020-02-29", "2020-02-29"),
        ("2020-01-01T10:00Z", "2020-01-01T10:00Z"),
        ("2020-01-01T10:00:00 02:00", "2020-01-01T10:00:00+02:00"),
        ("2020-01-01T10:00:00.5 02:00", "2020-01-01T10:00:00.5+02:00"),
        ("2020-01-01T10:00 14:00", "2020-01-01T10:00+14:00"),
        ("2020-01-01T10:00:00-05:00", "2020-01-01T15:00:00Z"),
    ],
)
def test_a_date_is_the_interval_of_its_precision(text, interval):
    """The plus of a time zone that arrives as a space is taken for one. https://hl7.org/fhir/R4/search.html#date"""
    assert asked("Patient", [("birthdate", text)]) == Dates((BIRTH,), "eq", *dates.interval(interval), True)


def test_near_a_date_is_a_tenth_of_its_distance_from_now():
    low, high = dates.interval("1950")
    margin = (NOW - high) // 10
    assert asked("Patient", "birthdate=ap1950") == Dates((BIRTH,), "ap", low - margin, high + margin, True)


def test_near_a_date_is_at_least_its_precision():
    low, high = dates.interval("2026")
    assert asked("Patient", "birthdate=ap2026") == Dates((BIRTH,), "ap", 2 * low - high, 2 * high - low, True)


@pytest.mark.parametrize(
    "text", ["abc", "xx2020", "2020-13", "2020-02-30", "eq", "2020-01-01T25:00Z", "geeq2020", "2020/01"]
)
def test_dates_that_are_none_are_refused_by_name(text):
    code, issue = refused("Patient", [("birthdate", text)])
    assert code == "value"
    assert "`birthdate`" in issue


def test_last_updated_is_a_date():
    assert asked("Patient", "_lastUpdated=ge2020") == Updated("ge", *dates.interval("2020"))


def number(text, low, high):
    found = asked("RiskAssessment", [("probability", text)])
    amount = [decimals.key(Decimal(each)) for each in (low, high)]
    return found.comparison, [found.amount.low, found.amount.high] == amount


@pytest.mark.parametrize(
    ("text", "comparison", "low", "high"),
    [
        ("100", "eq", "99.5", "100.5"),
        ("100.00", "eq", "99.995", "100.005"),
        ("-1", "eq", "-1.5", "-0.5"),
        ("0", "eq", "-0.5", "0.5"),
        ("1e2", "eq", "95", "105"),
        ("5.40e-3", "ne", "0.005395", "0.005405"),
        ("gt0.8", "gt", "0.75", "0.85"),
        ("ap100", "ap", "90", "110"),
        ("ap-100", "ap", "-110", "-90"),
    ],
)
def test_numbers_stand_for_a_range(text, comparison, low, high):
    """https://hl7.org/fhir/R4/search.html#number"""
    prefix = comparison if text.startswith("5.40") else ""
    assert number(prefix + text, low, high) == (comparison, True)


@pytest.mark.parametrize("text", ["abc", "1.", "0x1", "NaN", "1e9999", "gt", "1|s|c"])
def test_numbers_that_are_none(text):
    assert refused("RiskAssessment", [("probability", text)])[0] == "value"


VALUE = key("Observation", "value-quantity")


@pytest.mark.parametrize(
    ("text", "system", "code"),
    [
        ("5.4", None, None),
        ("5.4||mg", None, "mg"),
        ("5.4|http://u|mg", "http://u", "mg"),
        ("5.4|http://u|", "http://u", None),
        ("5.4||", None, None),
    ],
)
def test_units_of_quantities(text, system, code):
    """https://hl7.org/fhir/R4/search.html#quantity"""
    found = asked("Observation", [("value-quantity", text)])
    assert (found.keys, found.system, found.code, found.canonical) == ((VALUE,), system, code, None)


def test_a_quantity_in_ucum_is_compared_in_canonical_units():
    found = asked("Observation", [("value-quantity", f"gt5.4|{UCUM}|mg/dL")])
    unit, amount = found.canonical

    assert (found.comparison, unit) == ("gt", "g.m-3")
    assert [decimals.value_of(each) for each in (amount.value, amount.low, amount.high)] == [
        Decimal("54"),
        Decimal("53.5"),
        Decimal("54.5"),
    ]


def test_a_unit_that_ucum_does_not_know_is_compared_as_it_is():
    found = asked("Observation", [("value-quantity", f"5|{UCUM}|quux")])
    assert (found.code, found.canonical) == ("quux", None)


@pytest.mark.parametrize("text", ["5.4|mg", "|s|mg", "5|a|b|c", "x||mg"])
def test_quantities_that_are_none(text):
    assert refused("Observation", [("value-quantity", text)])[0] == "value"


def test_composites_are_split_at_the_dollar():
    """Each part is a value of its type, with a prefix where it has them. https://hl7.org/fhir/R4/search.html#composite"""
    first, second = (part.key for part in Registry().find("Observation", "code-value-quantity").components)
    found = asked("Observation", [("code-value-quantity", r"http://l|8480\$6$gt120||mm")])

    assert found.components[0] == Tokens((first,), (TokenValue("http://l", "8480$6"),))
    assert isinstance(found.components[1], Quantities)
    assert found.components[1].keys == (second,)
    assert (found.components[1].comparison, found.components[1].code) == ("gt", "mm")


def test_composites_between_commas_are_alternatives():
    found = asked("Observation", [("code-value-quantity", "a$1,b$2")])
    assert isinstance(found, Any)
    assert all(isinstance(each, Composite) for each in found.filters)


@pytest.mark.parametrize("text", ["a", "a$1$2", "$1", "a$", "a$x"])
def test_composites_that_are_none(text):
    assert refused("Observation", [("code-value-quantity", text)])[0] == "value"


NEAR = key("Location", "near")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42.5|-71.25|10|km", (42.5, -71.25, 10.0)),
        ("42|-71|10", (42.0, -71.0, 10.0)),
        ("42|-71", (42.0, -71.0, 50.0)),
        ("42|-71||", (42.0, -71.0, 50.0)),
        ("42|-71|500|m", (42.0, -71.0, 0.5)),
        ("-90|180|1|[mi_i]", (-90.0, 180.0, 1.609344)),
        ("0|0|1e9", (0.0, 0.0, 20100.0)),
    ],
)
def test_near_a_position(text, expected):
    """https://hl7.org/fhir/R4/location.html#positional"""
    assert asked("Location", [("near", text)]) == Near((NEAR,), *expected)


@pytest.mark.parametrize(
    "text", ["42", "91|0", "0|181", "0|0|-1", "0|0|1|kg", "0|0|1|Cel", "a|b", "1|2|3|m|5"]
)
def test_positions_that_are_none(text):
    assert refused("Location", [("near", text)])[0] == "value"


@pytest.mark.parametrize(
    ("type", "code", "expected"),
    [
        ("Patient", "name", Present("strings", (NAME,))),
        ("Patient", "birthdate", Present("dates", (BIRTH,))),
        ("Observation", "code", Present("tokens", (CODE, key("Observation", "code", "text")))),
        ("Location", "near", Present("positions", (NEAR,))),
        (
            "Observation",
            "subject",
            Any(
                (
                    Present("refs", (key("Observation", "subject"),)),
                    Present("tokens", (key("Observation", "subject", "identifier"),)),
                )
            ),
        ),
    ],
)
def test_missing_is_that_there_is_no_value_of_any_sort(type, code, expected):
    """A code that is text only and a reference by identifier are values. https://hl7.org/fhir/R4/search.html#modifiers"""
    assert asked(type, f"{code}:missing=false") == expected
    assert asked(type, f"{code}:missing=true") == Not(expected)
    assert refused(type, f"{code}:missing=yes")[0] == "value"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", Ids(("1",))), ("1,b-2", Ids(("1", "b-2"))), ("1/_history/2", Any()), ("a b,1", Ids(("1",)))],
)
def test_what_can_not_be_an_id_matches_nothing(text, expected):
    """12c.17"""
    assert asked("Patient", [("_id", text)]) == expected
    assert asked("Patient", [("_id:not", text)]) == Not(expected)


ADMITTED = {
    ("Patient", "name"): ["exact", "contains"],
    ("Patient", "birthdate"): [],
    ("Observation", "code"): ["text", "not", "above", "below", "in", "not-in"],
    ("Patient", "identifier"): ["text", "not", "of-type"],
    ("Observation", "value-quantity"): [],
    ("RiskAssessment", "probability"): [],
    ("ValueSet", "url"): ["above", "below"],
    ("Encounter", "part-of"): ["identifier", "above", "below", "Encounter"],
    ("Observation", "code-value-quantity"): [],
    ("Location", "near"): [],
    ("Patient", "_id"): ["not"],
    ("Patient", "_lastUpdated"): [],
    ("Patient", "_text"): [],
}
MODIFIERS = {modifier for each in ADMITTED.values() for modifier in each} | {"foo", "", "Exact", "iterate"}


@pytest.mark.parametrize(
    ("type", "code", "modifier"),
    [
        (type, code, modifier)
        for (type, code), admitted in ADMITTED.items()
        for modifier in sorted(MODIFIERS - set(admitted))
    ],
)
def test_a_modifier_that_the_type_does_not_admit_is_refused_even_if_lenient(type, code, modifier):
    """https://hl7.org/fhir/R4/search.html#modifiers: servers SHALL reject it."""
    text = "http://unknown|x|y" if modifier == "of-type" else "http://unknown|x"
    assert refused(type, [(f"{code}:{modifier}", text)])[0] == "not-supported"
