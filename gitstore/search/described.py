"""The rows of one resource, for people: by which parameters and values a search finds it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from msgspec import Struct

from gitstore.fhir import decimals
from gitstore.fhir.dates import format_instant
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId
from gitstore.search.contents import stored
from gitstore.search.index import storage_errors
from gitstore.search.rows import EVER_AFTER, EVER_BEFORE, TEXT, TYPE_NUMBERS


class Indexed(Struct, frozen=True):
    """One row: the parameter's code, perhaps with a variant such as `text`, the kind of value, and the value.

    `within` is the id of the contained resource that has it, "" for the resource itself. `element` numbers the
    elements of a composite parameter from 1; 0 elsewhere.
    """

    within: str
    parameter: str
    variant: str
    kind: str
    value: str
    element: int


@storage_errors
def described(connection: sqlite3.Connection, resource_id: ResourceId) -> list[Indexed]:
    """What the index holds of the newest version of a resource, but for the words of its text."""
    found = connection.execute(
        "SELECT key FROM resources WHERE type = ? AND id = ?",
        (TYPE_NUMBERS[resource_id.type], resource_id.id),
    ).fetchone()
    names = {
        key: (code, variant)
        for key, code, variant in connection.execute("SELECT key, code, variant FROM parameters")
    }
    rows = []
    for table, *row in stored(connection, found[0]) if found else ():
        if table in _SHOWN:
            within, parameter, *values = row
            code, variant = names.get(parameter, ("(any reference)", ""))
            element = values[-1] if table != "positions" else 0
            assert isinstance(element, int)
            rows.append(Indexed(str(within), code, variant, str(table), _SHOWN[str(table)](values), element))
    return sorted(
        rows, key=lambda each: (each.within, each.parameter, each.variant, each.element, each.value)
    )


def _token(row: list[object]) -> str:
    system, code, _ = row
    return f"{system}|{code}" if system and system != TEXT else str(code)


def _date(row: list[object]) -> str:
    _, low, high, _ = row
    return f"{_instant(low)} to {_instant(high)}"


def _instant(value: object) -> str:
    assert isinstance(value, int)
    return "…" if value in (EVER_BEFORE, EVER_AFTER) else format_instant(value)


def _quantity(row: list[object]) -> str:
    system, code, low, high, _ = row
    amount = _number(low) if low == high else f"{_number(low)} to {_number(high)}"
    return amount + (f" {system}|{code}" if system else f" {code}" if code else "")


def _number(key: object) -> str:
    assert isinstance(key, bytes)
    return "…" if key in (decimals.LOWEST, decimals.HIGHEST) else format(decimals.value_of(key), "f")


def _reference(row: list[object]) -> str:
    type, name, version, _ = row
    if isinstance(type, int):
        return f"{RESOURCE_TYPES[type]}/{name}" + (f"/_history/{version}" if version else "")
    return f"{name}|{version}" if version else str(name)


_SHOWN: dict[str, Callable[[list[object]], str]] = {
    "tokens": _token,
    "strings": lambda row: str(row[0]),
    "dates": _date,
    "quantities": _quantity,
    "references": _reference,
    "positions": lambda row: f"{row[0]}, {row[1]}",
}
