"""The formats of FHIR's primitive types, with real dates. https://hl7.org/fhir/R4/datatypes.html#primitive"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from gitstore.errors import Issue

MAX_STRING = 1024 * 1024
"""Characters of a string. https://hl7.org/fhir/R4/datatypes.html#string"""

Check: TypeAlias = Callable[[Any], bool]

_DAYS = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MAX_SHOWN = 60

_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_DAY = r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_DATE = re.compile(rf"{_DAY}|(?!0000)[0-9]{{4}}(?:-(?:0[1-9]|1[0-2]))?", re.ASCII)
_DATE_TIME = re.compile(rf"{_DAY}(?:T{_CLOCK}{_ZONE})?|(?!0000)[0-9]{{4}}(?:-(?:0[1-9]|1[0-2]))?", re.ASCII)
_INSTANT = re.compile(rf"{_DAY}T{_CLOCK}{_ZONE}", re.ASCII)
_SPACE = re.compile(r"\s")
_BASE64_SPACE = re.compile(r"[ \t\r\n]+")


def _is_dated(pattern: re.Pattern[str]) -> Check:
    def check(value: Any) -> bool:
        match = pattern.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return False
        if match[1] is None:
            return True
        year, month, day = int(match[1]), int(match[2]), int(match[3])
        if year == 0 or day > _DAYS[month]:
            return False
        return day < 29 or month != 2 or (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0))

    return check


def _matches(pattern: str) -> Check:
    fullmatch = re.compile(pattern, re.ASCII).fullmatch
    return lambda value: isinstance(value, str) and fullmatch(value) is not None


def _is_string(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_STRING


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _is_decimal(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _is_whole(least: int) -> Check:
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and least <= value <= 2_147_483_647
    )


def _is_uri(value: Any) -> bool:
    return isinstance(value, str) and value != "" and _SPACE.search(value) is None


def _is_base64(value: Any) -> bool:
    """White space may stand anywhere between the letters, as line breaks in MIME do."""
    if not isinstance(value, str):
        return False
    try:
        text = _BASE64_SPACE.sub("", value).encode("ascii")
        return len(binascii.a2b_base64(text, strict_mode=True)) > 0
    except ValueError:  # of which both UnicodeEncodeError and binascii.Error are kinds
        return False


IS_VALID: Mapping[str, Check] = {
    "base64Binary": _is_base64,
    "boolean": _is_boolean,
    "canonical": _is_uri,
    "code": _matches(r"[^\s]+(?:\s[^\s]+)*"),
    "date": _is_dated(_DATE),
    "dateTime": _is_dated(_DATE_TIME),
    "decimal": _is_decimal,
    "id": _matches(r"[A-Za-z0-9\-.]{1,64}"),
    "instant": _is_dated(_INSTANT),
    "integer": _is_whole(-2_147_483_648),
    "markdown": _is_string,
    "oid": _matches(r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+"),
    "positiveInt": _is_whole(1),
    "string": _is_string,
    "time": _matches(_CLOCK),
    "unsignedInt": _is_whole(0),
    "uri": _is_uri,
    "url": _is_uri,
    "uuid": _matches(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    "xhtml": lambda value: isinstance(value, str) and value != "",
}
"""Type -> whether a JSON value is one of it; what an xhtml says is for `narrative` to judge."""

_EXPECTED = {
    "base64Binary": "text in base64",
    "boolean": "true or false",
    "canonical": "a canonical URL without white space",
    "code": "a code: text without white space at its ends and no two spaces together",
    "date": "a date of the calendar: 2026, 2026-11 or 2026-11-21",
    "dateTime": "a date of the calendar, or one with time and time zone: 2026-11, 2026-11-21T22:30:00Z",
    "decimal": "a number",
    "id": "1 to 64 of A-Z, a-z, 0-9, - and .",
    "instant": "a date of the calendar with time and time zone: 2026-11-21T22:30:00Z",
    "integer": "a whole number from -2147483648 to 2147483647",
    "markdown": "text",
    "oid": "an OID as URI: urn:oid:1.2.3",
    "positiveInt": "a whole number from 1 to 2147483647",
    "string": "text",
    "time": "a time of day: 22:30:00",
    "unsignedInt": "a whole number from 0 to 2147483647",
    "uri": "a URI without white space",
    "url": "a URL without white space",
    "uuid": "a UUID as URI: urn:uuid:c757873d-ec9a-4326-a141-556f43239520",
    "xhtml": "XHTML",
}
_JSON_TYPES = {
    "boolean": (bool, "true or false"),
    **dict.fromkeys(("integer", "positiveInt", "unsignedInt"), (int, "a whole number")),
    "decimal": (int | Decimal, "a number"),
}


def fault(type: str, value: Any, place: str) -> Issue:
    """What is wrong with a value that IS_VALID doesn't accept: code structure or value."""
    json_type, name = _JSON_TYPES.get(type, (str, "text"))
    if not isinstance(value, json_type) or (isinstance(value, bool) and type != "boolean"):
        text = f"`{place}` is {shown(value)}, but must be {name} in JSON: its type is {type}."
        return Issue("error", "structure", text, place)
    if value == "":
        return Issue(
            "error", "structure", f"`{place}` is empty text; leave it out where there is none.", place
        )
    if isinstance(value, str) and len(value) > MAX_STRING and type in ("string", "markdown"):
        text = f"`{place}` has {len(value)} characters; at most {MAX_STRING} may be."
        return Issue("error", "value", text, place)
    return Issue("error", "value", f"`{place}` is {shown(value)}, which is not {_EXPECTED[type]}.", place)


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        short = value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "…"
        return f"`{short}`" if value else "empty text"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"the number {str(value)[:_MAX_SHOWN]}"
