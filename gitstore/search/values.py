"""What rows the values of FHIR's types make, by the kind of the parameter. https://hl7.org/fhir/R4/search.html#ptypes

A value may have any shape, since validation can be off: what can't be read makes no row.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

from gitstore.fhir import definitions
from gitstore.fhir.path_functions import literal_type
from gitstore.search.amounts import interval_of, number_rows, quantity_rows, timing_interval
from gitstore.search.rows import TEXT, Rows, exact_hash, fold, span_of
from gitstore.search.tokens import MEDIA_TYPES, MEDIA_TYPES_VALUE_SET, UCUM, minds_case, type_system

SPECIAL_VALUES: Final = "http://terminology.hl7.org/CodeSystem/special-values"
"""The system that true and false belong to. https://hl7.org/fhir/R4/search.html#token"""

_SYSTEMS_WITHOUT_LIST = {
    MEDIA_TYPES_VALUE_SET: MEDIA_TYPES,
    "http://hl7.org/fhir/ValueSet/ucum-units": UCUM,
}
_LITERAL = re.compile(r"([A-Z][A-Za-z]*)/([A-Za-z0-9.-]{1,64})(?:/_history/([A-Za-z0-9.-]{1,64}))?", re.ASCII)


class Use(NamedTuple):
    """One parameter that a value is for: the keys of its rows, and where the number of their element stands."""

    key: int
    slot: int = 0
    text: int | None = None
    of_type: int | None = None
    identifier: int | None = None


@dataclass(slots=True)
class Found:
    """The rows of a resource as they are found.

    `elements` are the numbers of the composites' elements that are being looked at, by slot; slot 0 is none, and
    `number` is the last one given. `contained` are the types of the contained resources by id. What is below
    `base_url`, which ends in a slash, is on this server.
    """

    rows: Rows
    elements: list[int]
    contained: Mapping[str, str]
    base_url: str | None
    number: int = 0


Convert: TypeAlias = Callable[[Found, Any, Sequence[Use]], None]
"""Adds the rows of one value for each of its uses."""


@functools.lru_cache(maxsize=4096)
def converter(
    kind: str, type: str, refers_to: str | None = None, value_set: str | None = None
) -> Convert | None:
    """What makes rows of values of a FHIR type, None where they have nothing that a parameter of the kind finds.

    `refers_to` and `value_set` are those of the Place.
    """
    if kind == "token" and type == "code":
        return functools.partial(_code, systems=_systems(value_set))
    if kind == "reference" and type == "Reference" and refers_to is not None:
        return functools.partial(_reference_to, type=refers_to)
    converters = _CONVERTERS[kind]
    return next((converters[name] for name in definitions.lineage(type) if name in converters), None)


@functools.cache
def _systems(value_set: str | None) -> dict[str, str] | str:
    """The one system of all codes of a value set, or code -> system; "" where none is known."""
    if value_set is None:
        return ""
    codes = definitions.codes(value_set)
    if codes is None:
        return _SYSTEMS_WITHOUT_LIST.get(value_set, "")
    if len(codes) == 1:
        return next(iter(codes))
    return {code: system for system, found in codes.items() for code in found}


_folded = functools.lru_cache(maxsize=16_384)(fold)
_MOST_CACHED = 100


def _fold(text: str) -> str:
    return _folded(text) if len(text) <= _MOST_CACHED else fold(text)


# Tokens


def _token(found: Found, system: str, code: str, uses: Sequence[Use]) -> None:
    term = code if minds_case(system) else code.casefold()
    elements, tokens = found.elements, found.rows.tokens
    for use in uses:
        tokens.append((use.key, system, term, elements[use.slot]))


def _text(found: Found, text: Any, uses: Sequence[Use]) -> None:
    if isinstance(text, str):
        folded = _fold(text)
        for use in uses:
            if use.text is not None:
                found.rows.tokens.append((use.text, TEXT, folded, 0))


def _code(found: Found, value: Any, uses: Sequence[Use], systems: dict[str, str] | str) -> None:
    if isinstance(value, str):
        system = systems if isinstance(systems, str) else systems.get(value, "")
        _token(found, system, value, uses)


def _primitive_token(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
        _token(found, "", str(value), uses)


def _boolean(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, bool):
        _token(found, SPECIAL_VALUES, "true" if value else "false", uses)


def _coding(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, dict):
        system, code = _system_and(value, "code")
        if system or code:
            _token(found, system, code, uses)
        _text(found, value.get("display"), uses)


def _system_and(value: dict[str, Any], name: str) -> tuple[str, str]:
    """The system and another text of a value; "" where it has none."""
    system, text = value.get("system"), value.get(name)
    return system if isinstance(system, str) else "", text if isinstance(text, str) else ""


def _codings(value: Any) -> list[Any]:
    codings = value.get("coding") if isinstance(value, dict) else None
    return codings if isinstance(codings, list) else []


def _concept(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, dict):
        for coding in _codings(value):
            _coding(found, coding, uses)
        _text(found, value.get("text"), uses)


def _identifier(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if not isinstance(value, dict):
        return
    system, number = _system_and(value, "value")
    if system or number:
        _token(found, system, number, uses)
    type = value.get("type")
    if not isinstance(type, dict):
        return
    _text(found, type.get("text"), uses)
    if number:
        for coding in _codings(type):
            if isinstance(coding, dict):
                kind = type_system(*_system_and(coding, "code"))
                variants = [Use(use.of_type) for use in uses if use.of_type is not None]
                _token(found, kind, number, variants)


def _contact_point(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, dict):
        _primitive_token(found, value.get("value"), uses)


# Strings and uris


def _string(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, str):
        folded = _fold(value)
        exact = exact_hash(value, folded)
        for use in uses:
            found.rows.strings.append((use.key, folded, exact, found.elements[use.slot]))


def _human_name(found: Found, value: Any, uses: Sequence[Use]) -> None:
    """All parts one by one, and the given names with the family name as they are usually said."""
    if not isinstance(value, dict):
        return
    given, family = _texts(value.get("given")), _texts(value.get("family"))
    whole = " ".join([*given, *family]) if len(given) + len(family) > 1 else None
    others = [text for name in ("prefix", "suffix", "text") for text in _texts(value.get(name))]
    for text in (*family, *given, *others, whole):
        _string(found, text, uses)


def _address(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, dict):
        for name in ("line", "city", "district", "state", "postalCode", "country", "text"):
            for text in _texts(value.get(name)):
                _string(found, text, uses)


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _concept_text(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, dict):
        for text in (value.get("text"), value.get("display"), *map(_display, _codings(value))):
            _string(found, text, uses)


def _display(coding: Any) -> Any:
    return coding.get("display") if isinstance(coding, dict) else None


def _named_string(found: Found, value: Any, uses: Sequence[Use], name: str) -> None:
    if isinstance(value, dict):
        _string(found, value.get(name), uses)


def _uri(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, str):
        for use in uses:
            found.rows.strings.append((use.key, value, 0, found.elements[use.slot]))


def _canonical_uri(found: Found, value: Any, uses: Sequence[Use]) -> None:
    """A search for the URL alone finds each version. https://hl7.org/fhir/R4/references.html#canonical"""
    _uri(found, value, uses)
    if isinstance(value, str) and "|" in value:
        _uri(found, value.partition("|")[0], uses)


# Dates, numbers, positions


def _interval(found: Found, interval: tuple[int, int] | None, uses: Sequence[Use]) -> None:
    if interval is not None:
        low, high = interval
        span = span_of(low, high)
        for use in uses:
            found.rows.dates.append((use.key, span, low, high, found.elements[use.slot]))


def _date(found: Found, value: Any, uses: Sequence[Use]) -> None:
    _interval(found, interval_of(value), uses)


def _timing(found: Found, value: Any, uses: Sequence[Use]) -> None:
    _interval(found, timing_interval(value), uses)


def _number(found: Found, value: Any, uses: Sequence[Use]) -> None:
    for low, high in number_rows(value):
        for use in uses:
            found.rows.quantities.append((use.key, "", "", low, high, found.elements[use.slot]))


def _quantity(found: Found, value: Any, uses: Sequence[Use], type: str) -> None:
    for system, code, low, high in quantity_rows(type, value):
        for use in uses:
            found.rows.quantities.append((use.key, system, code, low, high, found.elements[use.slot]))


def _position(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, dict):
        latitude, longitude = _degrees(value.get("latitude"), 90), _degrees(value.get("longitude"), 180)
        if latitude is not None and longitude is not None:
            for use in uses:
                found.rows.positions.append((use.key, latitude, longitude))


def _degrees(value: Any, most: int) -> float | None:
    if not isinstance(value, int | Decimal) or isinstance(value, bool):
        return None
    return float(value) if -most <= value <= most else None


# References


def _reference(found: Found, value: Any, uses: Sequence[Use]) -> None:
    if isinstance(value, dict):
        _link(found, value.get("reference"), uses)
        identifier = value.get("identifier")
        if identifier is not None:
            variants = [Use(use.identifier) for use in uses if use.identifier is not None]
            _identifier(found, identifier, variants)


def _reference_to(found: Found, value: Any, uses: Sequence[Use], type: str) -> None:
    """As `where(resolve() is Patient)` has it, but that nothing is looked up: the reference tells the type."""
    if isinstance(value, dict) and _type_of(found, value) == type:
        _reference(found, value, uses)


def _type_of(found: Found, reference: dict[str, Any]) -> Any:
    text = reference.get("reference")
    if not isinstance(text, str):
        return None
    if text.startswith("#"):
        return found.contained.get(text[1:])
    return literal_type(text) or reference.get("type")


def _link(found: Found, value: Any, uses: Sequence[Use]) -> None:
    """A literal reference, URL or canonical. `#id`, of a contained resource, is a URL that only chains look at."""
    if not isinstance(value, str) or value in ("", "#"):
        return
    row = literal(value, found.base_url)
    if row is None:
        url, _, version = value.partition("|")
        row = literal(url, found.base_url) if version else None
        row = (row[0], row[1], version) if row is not None else (None, url, version or None)
    type, name, version_id = row
    for use in uses:
        found.rows.references.append((use.key, type, name, version_id, found.elements[use.slot]))


def literal(text: str, base_url: str | None) -> tuple[str | None, str, str | None] | None:
    """Type, id and version of a resource of this server."""
    if base_url is not None:
        text = text.removeprefix(base_url)
    match = _LITERAL.fullmatch(text)
    if match is None or not definitions.is_resource_type(match[1]):
        return None
    return match[1], match[2], match[3]


def _resource(found: Found, value: Any, uses: Sequence[Use]) -> None:
    """A resource in a Bundle, as the first one of a document."""
    if isinstance(value, dict) and isinstance(value.get("id"), str):
        _link(found, f"{value.get('resourceType')}/{value['id']}", uses)


_PRIMITIVES = ("string", "uri", "date", "dateTime", "instant", "time", "integer", "decimal")
_QUANTITIES = ("Quantity", "Money", "Range", "SampledData")

_CONVERTERS: dict[str, dict[str, Convert]] = {
    "token": {
        **dict.fromkeys(_PRIMITIVES, _primitive_token),
        "boolean": _boolean,
        "Coding": _coding,
        "CodeableConcept": _concept,
        "Identifier": _identifier,
        "ContactPoint": _contact_point,
    },
    "string": {
        **dict.fromkeys(_PRIMITIVES, _string),
        "HumanName": _human_name,
        "Address": _address,
        "CodeableConcept": _concept_text,
        "Coding": _concept_text,
        "Annotation": functools.partial(_named_string, name="text"),
        "ContactPoint": functools.partial(_named_string, name="value"),
        "Identifier": functools.partial(_named_string, name="value"),
    },
    "uri": {"uri": _uri, "string": _uri, "canonical": _canonical_uri},
    "date": {
        **dict.fromkeys(("date", "dateTime", "instant", "Period"), _date),
        "Timing": _timing,
    },
    "number": {"integer": _number, "decimal": _number, "Range": _number},
    "quantity": {
        "integer": _number,
        "decimal": _number,
        **{type: functools.partial(_quantity, type=type) for type in _QUANTITIES},
    },
    "reference": {"Reference": _reference, "uri": _link, "Resource": _resource},
    "special": {"Location.position": _position},
}
