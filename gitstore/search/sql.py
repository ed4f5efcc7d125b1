"""Pieces of SQL with the values that they are to be run with: the only way in which a search becomes a statement.

The text of a piece comes from this program alone. Whatever else goes into one, above all what a client sent, is bound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct

from gitstore.errors import Invalid, Issue

Value: TypeAlias = int | float | str | bytes | None

_FEW = 16
_INTEGERS = 2**63


class Sql(Struct, frozen=True):
    text: str
    values: tuple[Value, ...] = ()


TRUE, FALSE = Sql("1"), Sql("0")


def sql(template: str, *parts: Sql | Value) -> Sql:
    """The template, each `{}` of which is a piece of SQL or a value to be bound.

    Raises Invalid for what SQLite can't hold: half a surrogate pair, or an integer of more than 64 bits.
    """
    texts = template.split("{}")
    values: list[Value] = []
    text = [texts[0]]
    for part, after in zip(parts, texts[1:], strict=True):
        if isinstance(part, Sql):
            text.append(part.text)
            values.extend(part.values)
        else:
            text.append("?")
            values.append(_sound(part))
        text.append(after)
    return Sql("".join(text), tuple(values))


def _sound(value: Value) -> Value:
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Invalid(Issue("error", "value", f"{value[:80]!r} is not Unicode text.")) from None
    elif (isinstance(value, int) and not -_INTEGERS <= value < _INTEGERS) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise Invalid(Issue("error", "value", "A number is too large."))
    return value


def joined(pieces: Iterable[Sql], between: str) -> Sql:
    """The pieces with `between` between them."""
    pieces = list(pieces)
    return Sql(
        between.join(piece.text for piece in pieces), tuple(v for piece in pieces for v in piece.values)
    )


def every(conditions: Iterable[Sql]) -> Sql:
    """All conditions at once."""
    needed = [each for each in conditions if each != TRUE]
    return FALSE if FALSE in needed else _tree(needed, "AND") or TRUE


def either(conditions: Iterable[Sql]) -> Sql:
    """At least one of the conditions."""
    possible = [each for each in conditions if each != FALSE]
    return TRUE if TRUE in possible else _tree(possible, "OR") or FALSE


def _tree(conditions: list[Sql], operator: str) -> Sql | None:
    """A balanced tree: SQLite refuses expressions that are more than 1,000 deep."""
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    middle = len(conditions) // 2
    left, right = _tree(conditions[:middle], operator), _tree(conditions[middle:], operator)
    return sql(f"({{}} {operator} {{}})", left, right)


def among(column: str, values: Sequence[int] | Sequence[str]) -> Sql:
    """The column is one of the values, of which there may be thousands."""
    if not values:
        return FALSE
    if len(values) == 1:
        return sql(f"{column} = {{}}", values[0])
    return sql(f"{column} IN ({{}})", listed(values))


def listed(values: Sequence[int] | Sequence[str]) -> Sql:
    """The inside of IN (...)."""
    if len(values) <= _FEW:
        return joined([sql("{}", value) for value in values], ", ")
    # SQLite ends a text of JSON at a NUL.
    kept = [value for value in values if not (isinstance(_sound(value), str) and "\0" in str(value))]
    return sql("SELECT value FROM json_each({})", json.dumps(kept))
