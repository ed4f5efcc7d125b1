"""What the text of a parameter's value means, by the parameter's type, modifier and prefix.

Each function here gets the keys of one kind of parameter; its name as the client wrote it is for messages.
https://hl7.org/fhir/R4/search.html#ptypes
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Literal, TypeAlias, cast

from gitstore.errors import Invalid
from gitstore.fhir import dates, decimals, ucum
from gitstore.search.asking import Asking, bad_value, raise_for
from gitstore.search.criteria_references import references
from gitstore.search.escapes import split, unescape
from gitstore.search.filters import (
    Amount,
    Comparison,
    Dates,
    Keys,
    Near,
    Quantities,
    Strings,
    Tokens,
    TokenValue,
    ValueFilter,
)
from gitstore.search.rows import fold
from gitstore.search.tokens import UCUM, type_system

PREFIXES = frozenset({"eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"})
"""https://hl7.org/fhir/R4/search.html#prefix"""

COMPARED = frozenset({"number", "date", "quantity"})
"""The types that have prefixes. With others a prefix is part of the value."""

_SPACE_FOR_PLUS = re.compile(r"(T[\d:.]+) (\d\d:\d\d)")
_METRE = "m"
_DEFAULT_DISTANCE = Decimal(50)
"""Kilometres, where near gives none: R4 leaves that to the server."""
_EARTH = Decimal(20_100)
"""Kilometres: nothing on it is farther away."""


def prefixed(text: str) -> tuple[Comparison, str]:
    """The prefix of a number, date or quantity, and the rest. Without one it is eq."""
    if text[:2] in PREFIXES:
        return cast(Comparison, text[:2]), text[2:]
    return "eq", text


# Tokens


def token(name: str, text: str) -> TokenValue:
    """`code`, `system|code`, `|code` (no system) or `system|` (any code)."""
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) == 1:
        return TokenValue(None, parts[0])
    if len(parts) > 2 or not any(parts):
        raise bad_value(name, text, r"code, system|code, |code or system| (a | within them is written \|)")
    return TokenValue(parts[0], parts[1] or None)


def identifier_of_type(name: str, text: str) -> TokenValue:
    """The value of :of-type, `system|code|value`: the type of the identifier and its value."""
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) != 3 or not all(parts):
        raise bad_value(name, text, "system|code|value, all three")
    return TokenValue(type_system(parts[0], parts[1]), parts[2])


# Strings and URIs


def folded(name: str, text: str) -> str:
    """Text to be looked for without regard to case and accents. Raises Invalid where nothing is left of it."""
    found = fold(text)
    if not found:
        raise bad_value(name, text, "a letter or digit at least")
    return found


def strings(name: str, keys: Keys, modifier: str | None, texts: Sequence[str]) -> Strings:
    values = [unescape(text) for text in texts]
    if modifier == "exact":
        return Strings(keys, "exact", tuple(values))
    match: Literal["contains", "starts"] = "contains" if modifier == "contains" else "starts"
    return Strings(keys, match, tuple(folded(name, value) for value in values))


def uris(keys: Keys, modifier: str | None, texts: Sequence[str]) -> Strings:
    values = [unescape(text) for text in texts]
    if modifier == "below":
        return Strings(keys, "below", tuple(value.rstrip("/") or value for value in values))
    if modifier == "above":
        values = [above for value in values for above in _above(value)]
    return Strings(keys, "uri", tuple(dict.fromkeys(values)))


def _above(uri: str) -> list[str]:
    """The URI, and what is left of it before each slash of its path, with that slash and without."""
    found = [uri]
    start = uri.find("://")
    place = uri.find("/", start + 3) if start > 0 else -1
    while place > 0:
        found += [uri[:place], uri[: place + 1]]
        place = uri.find("/", place + 1)
    return found


# Dates


def moments(now: int, name: str, text: str, comparison: Comparison) -> tuple[int, int]:
    """The interval that a date is compared as; for ap widened by a tenth of its distance from now.

    A plus in a URL stands for a space, and some clients forget that: `T10:00:00 02:00` is taken for what it was.
    """
    try:
        low, high = dates.interval(_SPACE_FOR_PLUS.sub(r"\1+\2", text))
    except Invalid as error:
        raise_for(name, error)
    if comparison != "ap":
        return low, high
    distance = max(low - now, now - high, 0)
    margin = max(distance // 10, high - low)
    return low - margin, high + margin


# Numbers and quantities

_Convert: TypeAlias = Callable[[Decimal], Decimal]


def _quantity(name: str, keys: Keys, comparison: Comparison, text: str, single: bool) -> Quantities:
    """`5.4`, `5.4|system|code` or `5.4||code`, the last with a code or display text of whatever system."""
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) not in (1, 3):
        raise bad_value(name, text, "number, number|system|code or number||code")
    amount = _amount(name, comparison, parts[0])
    if len(parts) == 1:
        return Quantities(keys, comparison, amount, single=single)
    system, code = parts[1] or None, parts[2] or None
    unit = ucum.canonical(code) if system == UCUM and code is not None else None
    if unit is None:
        return Quantities(keys, comparison, amount, system, code, None, single)
    canonical = unit.unit, _amount(name, comparison, parts[0], unit.convert)
    return Quantities(keys, comparison, amount, system, code, canonical, single)


def _amount(name: str, comparison: Comparison, text: str, convert: _Convert = Decimal) -> Amount:
    try:
        value = decimals.parse(text)
        ends = decimals.approximate_range(value) if comparison == "ap" else decimals.implicit_range(text)
    except Invalid as error:
        raise_for(name, error)
    return Amount(*(decimals.key(convert(each)) for each in (value, *ends)))


# Positions


def near(name: str, keys: Keys, text: str) -> Near:
    """`latitude|longitude|distance|units`, the last two as far as given. https://hl7.org/fhir/R4/location.html#positional"""
    parts = [unescape(part) for part in split(text, "|")]
    expected = "latitude|longitude, perhaps with |distance|units: degrees, and kilometres without units"
    if not 2 <= len(parts) <= 4:
        raise bad_value(name, text, expected)
    try:
        latitude, longitude = decimals.parse(parts[0]), decimals.parse(parts[1])
        distance = decimals.parse(parts[2]) if len(parts) > 2 and parts[2] else None
    except Invalid as error:
        raise_for(name, error)
    if abs(latitude) > 90 or abs(longitude) > 180 or (distance is not None and distance < 0):
        raise bad_value(name, text, "-90 to 90, -180 to 180 and a distance that is not negative")
    kilometres = _DEFAULT_DISTANCE
    if distance is not None:
        kilometres = _kilometres(name, distance, parts[3] if len(parts) == 4 and parts[3] else "km")
    return Near(keys, float(latitude), float(longitude), float(min(kilometres, _EARTH)))


def _kilometres(name: str, distance: Decimal, code: str) -> Decimal:
    unit = ucum.canonical(code)
    if unit is None or unit.unit != _METRE or unit.offset:
        raise bad_value(name, code, "a unit of length, such as km, m or [mi_i]")
    return unit.convert(distance) / 1000


# One value


def compared(
    asking: Asking, name: str, kind: str, keys: Keys, comparison: Comparison, text: str, single: bool = False
) -> Dates | Quantities:
    """A value of one of the types in COMPARED, without its prefix. `single` is that of filters.Dates."""
    if kind == "date":
        return Dates(keys, comparison, *moments(asking.now, name, unescape(text), comparison), single)
    if kind == "quantity":
        return _quantity(name, keys, comparison, text, single)
    return Quantities(keys, comparison, _amount(name, comparison, unescape(text)), single=single)


def component(
    asking: Asking, name: str, kind: str, keys: Keys, targets: Sequence[str], text: str
) -> ValueFilter:
    """One value of a composite, with a prefix where its type has them."""
    if kind in COMPARED:
        comparison, rest = prefixed(text)
        return compared(asking, name, kind, keys, comparison, rest)
    if kind == "token":
        return Tokens(keys, (token(name, text),))
    if kind == "reference":
        return references(asking, name, keys, targets, None, [text])
    if kind == "uri":
        return uris(keys, None, [text])
    return strings(name, keys, None, [text])
