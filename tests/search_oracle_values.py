"""Numbers, dates, text and escapes as FHIR search compares them, for the oracle: slow, exact, and by themselves.

https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

import calendar
import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

UCUM = "http://unitsofmeasure.org"
CASE_SENSITIVE = {UCUM}
"""R4 names UCUM as one that minds case; of others the tests here use only those that don't."""

IMPLIED_SYSTEMS = {
    "Patient.gender": "http://hl7.org/fhir/administrative-gender",
    "Practitioner.gender": "http://hl7.org/fhir/administrative-gender",
    "Observation.status": "http://hl7.org/fhir/observation-status",
    "Encounter.status": "http://hl7.org/fhir/encounter-status",
    "MedicationRequest.status": "http://hl7.org/fhir/CodeSystem/medicationrequest-status",
    "MedicationRequest.intent": "http://hl7.org/fhir/CodeSystem/medicationrequest-intent",
    "Location.status": "http://hl7.org/fhir/location-status",
    "ValueSet.status": "http://hl7.org/fhir/publication-status",
}
"""The code systems of elements of type code, by their required bindings."""

UNITS: dict[str, tuple[str, Fraction, Fraction]] = {
    "g": ("g", Fraction(1), Fraction(0)),
    "mg": ("g", Fraction(1, 1000), Fraction(0)),
    "ug": ("g", Fraction(1, 1_000_000), Fraction(0)),
    "kg": ("g", Fraction(1000), Fraction(0)),
    "g/L": ("g/L", Fraction(1), Fraction(0)),
    "mg/dL": ("g/L", Fraction(1, 100), Fraction(0)),
    "g/dL": ("g/L", Fraction(10), Fraction(0)),
    "K": ("K", Fraction(1), Fraction(0)),
    "Cel": ("K", Fraction(1), Fraction("273.15")),
    "[degF]": ("K", Fraction(5, 9), Fraction("459.67") * Fraction(5, 9)),
    "cm": ("m", Fraction(1, 100), Fraction(0)),
    "m": ("m", Fraction(1), Fraction(0)),
    "[in_i]": ("m", Fraction("0.0254"), Fraction(0)),
}
"""UCUM code: the unit it is counted in here, factor, and what is added after that."""

NUMBER = re.compile(r"(?P<prefix>eq|ne|gt|lt|ge|le|sa|eb|ap)?(?P<number>[-+]?\d+(\.\d+)?([eE][-+]?\d+)?)")
DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[-+]\d\d:\d\d)?)?)?)?"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000


# Text and its escapes


def parts(text: str, separator: str, *, keep: bool = False) -> list[str]:
    """Split where the separator stands unescaped; with `keep` the escapes stay for a later reader."""
    found = [""]
    escaped = False
    for character in text:
        if not escaped and character == separator:
            found.append("")
            continue
        found[-1] += character
        escaped = not escaped and character == "\\"
    return found if keep else [unescape(part) for part in found]


def unescape(text: str) -> str:
    return re.sub(r"\\([,|$\\])", r"\1", text)


def fold(text: str) -> str:
    """Without case, accents, punctuation and needless space."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    letters = [
        one for one in plain if unicodedata.category(one) != "Mn" and unicodedata.category(one)[0] != "P"
    ]
    return " ".join("".join(letters).split())


# Dates: intervals [low, high) of microseconds since 1970 UTC


def interval(text: str) -> tuple[float, float]:
    match = DATE.fullmatch(text)
    assert match, text
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    start = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), tzinfo=UTC)
    low = (start - EPOCH) // timedelta(microseconds=1)
    if zone and zone != "Z":
        offset = (int(zone[1:3]) * 60 + int(zone[4:])) * 60 * SECOND
        low += offset if zone[0] == "-" else -offset
    low += int(second or 0) * SECOND + int(((fraction or "") + "000000")[:6])
    if fraction:
        return low, low + 10 ** max(0, 6 - len(fraction))
    if second:
        return low, low + SECOND
    if minute:
        return low, low + 60 * SECOND
    days = 1
    if not day:
        days = calendar.monthrange(int(year), int(month))[1] if month else 365 + calendar.isleap(int(year))
    return low, low + days * 86_400 * SECOND


def period(value: dict[str, Any]) -> list[tuple[float, float]]:
    if "start" not in value and "end" not in value:
        return []
    low = interval(value["start"])[0] if "start" in value else -math.inf
    high = interval(value["end"])[1] if "end" in value else math.inf
    return [(low, high)]


def timing(value: dict[str, Any]) -> list[tuple[float, float]]:
    """From the first to the last that it names."""
    named = [interval(event) for event in value.get("event", [])]
    named += period(value.get("repeat", {}).get("boundsPeriod", {}))
    return [(min(low for low, _ in named), max(high for _, high in named))] if named else []


def moment_fits(has: tuple[float, float], wanted: str, now: int) -> bool:
    prefix, text = (wanted[:2], wanted[2:]) if wanted[:2].isalpha() else ("eq", wanted)
    (low, high), (start, end) = has, interval(text)
    if prefix == "ap":
        middle = (start + end) / 2
        margin = max(end - start, abs(now - middle) / 10)
        return low < end + margin and high > start - margin
    return {
        "eq": start <= low and high <= end,
        "ne": not (start <= low and high <= end),
        "gt": high > end,
        "lt": low < start,
        "ge": low >= start or high > end,
        "le": high <= end or low < start,
        "sa": low >= end,
        "eb": high <= start,
    }[prefix]


# Numbers and quantities


def digits_range(text: str) -> tuple[Fraction, Fraction]:
    """What a number stands for by its digits: 100 is from 99.5 to below 100.5."""
    mantissa, _, exponent = text.lower().partition("e")
    half = Fraction(10) ** (int(exponent or 0) - len(mantissa.partition(".")[2])) / 2
    return Fraction(text) - half, Fraction(text) + half


def number_fits(has: Fraction, prefix: str, value: Fraction, low: Fraction, high: Fraction) -> bool:
    near = abs(value) / 10
    return {
        "eq": low <= has < high,
        "ne": not low <= has < high,
        "gt": has > value,
        "lt": has < value,
        "ge": has >= value,
        "le": has <= value,
        "sa": has > value,
        "eb": has < value,
        "ap": value - near <= has <= value + near,
    }[prefix]


def amount_fits(has: Any, wanted: str) -> bool:
    """`has` is a Quantity, or a number; a Quantity without a value fits nothing."""
    number, *unit = parts(wanted, "|")
    match = NUMBER.fullmatch(number)
    assert match, wanted
    prefix, text = match["prefix"] or "eq", match["number"]
    value, (low, high) = Fraction(text), digits_range(text)
    if not isinstance(has, dict):
        return number_fits(Fraction(str(has)), prefix, value, low, high)
    if "value" not in has:
        return False
    amount = Fraction(str(has["value"]))
    if unit:
        system, code = unit
        if not system:
            if code not in (has.get("code"), has.get("unit")):
                return False
        elif system != has.get("system"):
            return False
        elif code != has.get("code"):
            mine, theirs = UNITS.get(has.get("code", "")), UNITS.get(code)
            if system != UCUM or mine is None or theirs is None or mine[0] != theirs[0]:
                return False
            amount = (amount * mine[1] + mine[2] - theirs[2]) / theirs[1]
    return number_fits(amount, prefix, value, low, high)
