"""A place between two matches of a search, as it stands in the link to a page."""

from __future__ import annotations

import base64
import json
from typing import Any

from msgspec import Struct

from gitstore.errors import Invalid, Issue
from gitstore.search.sql import Value

_LONGEST = 20_000


class Cursor(Struct, frozen=True):
    """The place after the resource `key`, with the `values` that it is sorted by, or `backward` the place before it."""

    values: tuple[Value, ...]
    key: int
    backward: bool = False

    def __str__(self) -> str:
        values = [[value.hex()] if isinstance(value, bytes) else value for value in self.values]
        text = json.dumps([int(self.backward), self.key, *values], separators=(",", ":"), ensure_ascii=False)
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Undoes str(). Raises Invalid."""
        try:
            backward, key, *values = _decoded(text)
            cursor = cls(tuple(_value(each) for each in values), key, backward == 1)
        except (ValueError, TypeError, RecursionError) as error:
            raise _no_page(text) from error
        # Whatever reads as a place and isn't written like this was made up.
        if type(key) is not int or abs(key) >= 2**63 or str(cursor) != text:
            raise _no_page(text)
        return cursor


def _decoded(text: str) -> list[Any]:
    if len(text) > _LONGEST or not text.isascii():
        raise ValueError(text)
    found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
    if not isinstance(found, list):
        raise TypeError(found)
    return found


def _value(value: Any) -> Value:
    match value:
        case [str(digits)]:
            return bytes.fromhex(digits)
        case bool() | list() | dict():
            raise TypeError(value)
        case int() if abs(value) >= 2**63:
            raise ValueError(value)
        case None | int() | float() | str():
            return value
        case _:
            raise TypeError(value)


def _no_page(text: str) -> Invalid:
    return Invalid(Issue("error", "value", f"`{text[:80]}` is no page of this server."))
