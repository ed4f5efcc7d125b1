"""What stands between two operands of FHIRPath: equality, order, sums, membership.

http://hl7.org/fhirpath/N1/#operations
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from gitstore.errors import Invalid
from gitstore.fhir.dates import interval
from gitstore.fhir.nodes import Node

Items: TypeAlias = Sequence[Node]

TRUE: Items = [("boolean", True, None)]
FALSE: Items = [("boolean", False, None)]

_DATES = frozenset({"date", "dateTime", "instant"})
_FARTHEST_ZONE = 14 * 3600 * 1_000_000


def boolean(value: bool) -> Items:
    return TRUE if value else FALSE


def truth(items: Items) -> bool | None:
    """A result as true or false: one item that isn't a boolean counts as true, and none as None.

    Several are true as well; FHIRPath calls that an error, but a resource at fault must not stop its own
    examination.
    """
    if not items:
        return None
    if len(items) == 1 and items[0][0] == "boolean":
        value = items[0][1]
        return None if value is None else bool(value)
    return True


def number(value: Any) -> int | Decimal | None:
    """The value where it is a number; true and false are none."""
    return value if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def key(node: Node) -> Hashable:
    """What two nodes have in common exactly when they are equal, to find equals among many."""
    if node[1].__class__ is str and node[0] not in _DATES:
        return str(node[1])
    value = _frozen(node[1])
    if value is None:
        return _frozen(node[2])
    if node[0] in _DATES and "T" in str(value):
        try:
            return interval(str(value))
        except Invalid:
            return value
    return value


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return frozenset((name, _frozen(child)) for name, child in value.items())
    if isinstance(value, list):
        return tuple(_frozen(child) for child in value)
    return (bool, value) if isinstance(value, bool) else value


def _equal(left: Items, right: Items) -> Items:
    if not left or not right:
        return ()
    if len(left) != len(right):
        return FALSE
    if len(left) == 1:
        return boolean(key(left[0]) == key(right[0]))
    return boolean(all(key(one) == key(other) for one, other in zip(left, right, strict=True)))


def _unequal(left: Items, right: Items) -> Items:
    equal = _equal(left, right)
    return boolean(equal is FALSE) if equal else ()


def _equivalent(left: Items, right: Items) -> Items:
    if len(left) != len(right):
        return FALSE
    return boolean(sorted(map(_loosely, left)) == sorted(map(_loosely, right)))


def _loosely(node: Node) -> str:
    value = node[1]
    return " ".join(value.lower().split()) if isinstance(value, str) else repr(key(node))


def order(left: Node, right: Node) -> int | None:
    """-1, 0 or 1 as the left value is less than, equal to or greater than the right one; None if unknown."""
    first, second = left[1], right[1]
    one, other = number(first), number(second)
    if one is not None and other is not None:
        return (one > other) - (one < other)
    if isinstance(first, dict) and isinstance(second, dict):
        return _order_of_quantities(first, second)
    if isinstance(first, str) and isinstance(second, str):
        if left[0] in _DATES or right[0] in _DATES:
            return _order_of_dates(first, second)
        return (first > second) - (first < second)
    return None


def _order_of_dates(first: str, second: str) -> int | None:
    """By what is certain: a date stands for a day that is another one elsewhere."""
    try:
        (start, end), (other_start, other_end) = interval(first), interval(second)
    except Invalid:
        return None
    if ("T" in first) != ("T" in second):
        if "T" in first:
            other_start, other_end = other_start - _FARTHEST_ZONE, other_end + _FARTHEST_ZONE
        else:
            start, end = start - _FARTHEST_ZONE, end + _FARTHEST_ZONE
    if end <= other_start:
        return -1
    if other_end <= start:
        return 1
    return 0 if (start, end) == (other_start, other_end) else None


def _order_of_quantities(first: dict[str, Any], second: dict[str, Any]) -> int | None:
    value, other = number(first.get("value")), number(second.get("value"))
    if value is None or other is None or _unit(first) != _unit(second):
        return None
    return (value > other) - (value < other)


def _unit(quantity: dict[str, Any]) -> tuple[Any, Any]:
    if "code" in quantity:
        return quantity.get("system"), quantity["code"]
    return None, quantity.get("unit")


def _xor(left: Items, right: Items) -> Items:
    first, second = truth(left), truth(right)
    return () if first is None or second is None else boolean(first is not second)


def union(left: Items, right: Items) -> Items:
    if not right and len(left) < 2:
        return left
    if not left and len(right) < 2:
        return right
    return distinct([*left, *right])


def distinct(items: Items) -> Items:
    """Each once, in the order of their first appearance."""
    found: dict[Hashable, Node] = {}
    for item in items:
        found.setdefault(key(item), item)
    return list(found.values())


def _plus(left: Items, right: Items) -> Items:
    if len(left) != 1 or len(right) != 1:
        return ()
    first, second = left[0][1], right[0][1]
    if isinstance(first, str) and isinstance(second, str):
        return [("string", first + second, None)]
    return _arithmetic(first, second, lambda one, other: one + other)


def _minus(left: Items, right: Items) -> Items:
    if len(left) != 1 or len(right) != 1:
        return ()
    return _arithmetic(left[0][1], right[0][1], lambda one, other: one - other)


def _arithmetic(first: Any, second: Any, calculate: Callable[[Any, Any], int | Decimal]) -> Items:
    if number(first) is None or number(second) is None:
        return ()
    result = calculate(first, second)
    return [("integer" if isinstance(result, int) else "decimal", result, None)]


def _joined(left: Items, right: Items) -> Items:
    """`&`, for which nothing is an empty string."""
    text = "".join(str(item[1]) for items in (left, right) for item in items[:1] if item[1] is not None)
    return [("string", text, None)]


ORDERED: dict[str, tuple[int, ...]] = {"<": (-1,), "<=": (-1, 0), ">": (1,), ">=": (0, 1)}
"""Operator -> which results of `order` it accepts."""

OPERATORS: dict[str, Callable[[Items, Items], Items]] = {
    "=": _equal,
    "!=": _unequal,
    "~": _equivalent,
    "!~": lambda left, right: boolean(_equivalent(left, right) is FALSE),
    "xor": _xor,
    "|": union,
    "+": _plus,
    "-": _minus,
    "&": _joined,
}
"""Those of ORDERED, membership and logic are not among them: they need the context, or not always both sides."""
