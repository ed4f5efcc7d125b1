"""Dates, numbers and quantities as intervals. https://hl7.org/fhir/R4/search.html#date"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

from gitstore.errors import Invalid
from gitstore.fhir import dates, decimals, ucum
from gitstore.search.rows import CANONICAL, EVER_AFTER, EVER_BEFORE

CURRENCIES: Final = "urn:iso:std:iso:4217"
"""The system of the codes of currencies. https://hl7.org/fhir/R4/datatypes.html#Money"""

UnitRow: TypeAlias = tuple[str, str, bytes, bytes]
"""System and code of the unit, least and greatest number."""

_Number: TypeAlias = Decimal | int
_Range: TypeAlias = tuple[_Number | None, _Number | None]
_ARITHMETIC = Context(prec=60)


# Dates

_interval = functools.lru_cache(maxsize=4096)(dates.interval)


def interval_of(value: Any) -> tuple[int, int] | None:
    """What a date, dateTime, instant or Period stands for; a Period may have one end that is open."""
    if isinstance(value, str):
        try:
            return _interval(value)
        except Invalid:
            return None
    if not isinstance(value, dict):
        return None
    start, end = interval_of(value.get("start")), interval_of(value.get("end"))
    if start is None and end is None:
        return None
    low = EVER_BEFORE if start is None else start[0]
    high = EVER_AFTER if end is None else end[1]
    return (low, high) if low < high else None


def timing_interval(value: Any) -> tuple[int, int] | None:
    """From the first to the last moment of a Timing, by its events and bounds."""
    if not isinstance(value, dict):
        return None
    events, repeat = value.get("event"), value.get("repeat")
    parts = [interval_of(event) for event in events] if isinstance(events, list) else []
    if isinstance(repeat, dict):
        parts.append(interval_of(repeat.get("boundsPeriod")))
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return min(low for low, _ in known), max(high for _, high in known)


# Numbers


def number_rows(value: Any) -> Iterator[tuple[bytes, bytes]]:
    """Least and greatest number of a number or Range, as keys of decimals."""
    if isinstance(value, dict):
        low, high = _number_in(value.get("low")), _number_in(value.get("high"))
        if low is not None or high is not None:
            yield from _keys((low, high))
    elif _is_number(value):
        yield from _keys((value, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _number_in(quantity: Any) -> _Number | None:
    value = quantity.get("value") if isinstance(quantity, dict) else None
    return value if _is_number(value) else None


def _keys(range: _Range) -> Iterator[tuple[bytes, bytes]]:
    low, high = range
    try:
        least = decimals.LOWEST if low is None else decimals.key(low)
        greatest = decimals.HIGHEST if high is None else least if high is low else decimals.key(high)
    except ValueError:
        return
    if least <= greatest:
        yield least, greatest


# Quantities


def quantity_rows(type: str, value: Any) -> Iterator[UnitRow]:
    """The amount of a value of type Quantity, Money, Range or SampledData in each unit that it can be asked for in.

    These are its code with the system, its unit as people read it, and, with the system CANONICAL, what UCUM's code
    comes down to.
    """
    if isinstance(value, dict):
        range, quantities = _READERS[type](value)
        if range != (None, None):
            yield from _in_units(range, quantities)


def _quantity(value: dict[str, Any]) -> tuple[_Range, list[dict[str, Any]]]:
    number = _number_in(value)
    comparator = value.get("comparator")
    low = None if comparator in ("<", "<=") else number
    high = None if comparator in (">", ">=") else number
    return (low, high), [value]


def _money(value: dict[str, Any]) -> tuple[_Range, list[dict[str, Any]]]:
    number = _number_in(value)
    return (number, number), [{"system": CURRENCIES, "code": value.get("currency")}]


def _range(value: dict[str, Any]) -> tuple[_Range, list[dict[str, Any]]]:
    low, high = value.get("low"), value.get("high")
    return (_number_in(low), _number_in(high)), [end for end in (low, high) if isinstance(end, dict)]


def _sampled_data(value: dict[str, Any]) -> tuple[_Range, list[dict[str, Any]]]:
    """From the least to the greatest of the samples; `L` and `U` stand for the limits, `E` for none."""
    origin = value.get("origin")
    if not isinstance(origin, dict):
        return (None, None), []
    zero, factor = _number_in(origin), value.get("factor", 1)
    data = value.get("data")
    lower, upper = value.get("lowerLimit"), value.get("upperLimit")
    low, high = lower if _is_number(lower) else None, upper if _is_number(upper) else None
    if not isinstance(data, str) or zero is None or not _is_number(factor):
        return (low, high), [origin]
    points = set(data.split())
    ends = _ends(points - {"E", "L", "U"}, Decimal(zero), Decimal(factor))
    if ends is None:
        return (low, high) if points & {"L", "U"} else (None, None), [origin]
    return (low if "L" in points else ends[0], high if "U" in points else ends[1]), [origin]


def _ends(points: set[str], zero: Decimal, factor: Decimal) -> tuple[Decimal, Decimal] | None:
    """Least and greatest of the samples in the unit of their origin."""
    try:
        by_size = sorted(points, key=float)
        ends = [_ARITHMETIC.fma(decimals.parse(point), factor, zero) for point in (by_size[0], by_size[-1])]
    except (ValueError, IndexError, InvalidOperation, Invalid):
        return None
    return min(ends), max(ends)


_READERS = {"Quantity": _quantity, "Money": _money, "Range": _range, "SampledData": _sampled_data}


def _in_units(range: _Range, quantities: list[dict[str, Any]]) -> Iterator[UnitRow]:
    """`quantities` are those that say the unit: one, or both ends of a range, which must agree."""
    units = [_units(quantity) for quantity in quantities]
    for unit in units[0]:
        if all(unit in others for others in units[1:]):
            for least, greatest in _keys(range):
                yield (*unit, least, greatest)
    codes = [quantity.get("code") for quantity in quantities if quantity.get("system") == ucum.SYSTEM]
    if len(codes) != len(quantities) or not all(isinstance(code, str) for code in codes):
        return
    forms = [ucum.canonical(code) for code in codes if code is not None]
    first, last = forms[0], forms[-1]
    if first is None or last is None or first.unit != last.unit:
        return
    low, high = range
    converted = None if low is None else first.convert(low), None if high is None else last.convert(high)
    for least, greatest in _keys(converted):
        yield CANONICAL, first.unit, least, greatest


def _units(quantity: dict[str, Any]) -> list[tuple[str, str]]:
    """Its code with the system, and its unit as people read it; at least one of them."""
    system, code, unit = (
        text if isinstance(text := quantity.get(name), str) else "" for name in ("system", "code", "unit")
    )
    units = [(system, code)] if code else []
    if unit and unit != code:
        units.append(("", unit))
    return units or [("", "")]
