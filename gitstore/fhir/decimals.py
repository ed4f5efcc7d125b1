"""Decimals as keys that sort, and the ranges that a search value stands for.

https://hl7.org/fhir/R4/search.html#number
"""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Final

from gitstore.errors import Invalid, Issue
from gitstore.fhir.json import MAX_EXPONENT, MAX_NUMBER

LOWEST: Final = b"\x00"
"""Lies below the key of each number."""

HIGHEST: Final = b"\xff"
"""Lies above the key of each number."""

_NUMBER = re.compile(
    r"[+-]?(?P<whole>0|[1-9][0-9]*)(?P<fraction>\.[0-9]+)?(?:[eE](?P<exponent>[+-]?[0-9]+))?"
)
_EXACT = Context(prec=10_000, Emax=MAX_EMAX, Emin=MIN_EMIN)
_TENTH = Decimal("0.1")

# A number other than 0 is 0.d1d2d3... times a power of ten, d1 not being 0. Its key has the power first, in one
# byte where it is near, and then two digits in each byte. The key of a negative number has the complement of
# those bytes, of which the digits are one more than before, and at the end one that is larger than digits are:
# so the longer of two, where one begins with the other, sorts first there and last among the positive ones.
_ZERO = 0x80
_SMALL, _NEAREST, _LARGE = 0x81, 0x82, 0xFE
_LEAST_NEAR, _MOST_NEAR = -60, 60
_MAX_POWER = 0x7FFF
_COMPLEMENT = bytes(0xFF - byte for byte in range(256))
_COMPLEMENT_OF_DIGITS = bytes((0xFE - byte) & 0xFF for byte in range(256))
_END_OF_NEGATIVE = b"\xff"


def key(value: Decimal | int) -> bytes:
    """Bytes that sort as the numbers do, the same for the same number however it is written (1, 1.0, 1E0).

    Two bytes for 7.2 or 120, half a byte for each further digit, one more where it is negative. Raises
    ValueError for NaN, the infinities and powers of ten beyond 32,767.
    """
    sign, digits, exponent = Decimal(value).as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is no number")  # noqa: TRY004 - the value is wrong, not its type
    first, end = 0, len(digits)
    while end and not digits[end - 1]:
        end -= 1
    if not end:
        return b"\x80"
    while not digits[first]:
        first += 1
    head = _head(len(digits) - first + exponent)
    significant = digits[first:end]
    if len(significant) % 2:
        significant += (0,)
    pairs = bytes([10 * ten + one for ten, one in zip(significant[::2], significant[1::2], strict=True)])
    if sign:
        return head.translate(_COMPLEMENT) + pairs.translate(_COMPLEMENT_OF_DIGITS) + _END_OF_NEGATIVE
    return head + pairs


def value_of(key: bytes) -> Decimal:
    """The number of a key, without zeros at its end: 1.2E+2 for 120. Raises ValueError for other bytes."""
    if key == b"\x80":
        return Decimal(0)
    if not key or key in (LOWEST, HIGHEST):
        raise ValueError(f"{key!r} is the key of no number")
    sign = int(key[0] < _ZERO)
    start = 3 if key[0] in (_SMALL, _LARGE, 0xFF - _SMALL, 0xFF - _LARGE) else 1
    head, pairs = key[:start], key[start:]
    if sign:
        head, pairs = head.translate(_COMPLEMENT), pairs[:-1].translate(_COMPLEMENT_OF_DIGITS)
    far = int.from_bytes(head[1:], "big") - _MAX_POWER
    power = far if start == 3 else head[0] - _NEAREST + _LEAST_NEAR
    digits = [digit for pair in pairs for digit in divmod(pair, 10)]
    if not digits or max(digits) > 9:
        raise ValueError(f"{key!r} is the key of no number")
    if not digits[-1]:
        digits.pop()
    return Decimal((sign, tuple(digits), power - len(digits)))


def parse(text: str) -> Decimal:
    """The number of a search value; a leading plus is tolerated.

    Raises Invalid (code value) for what is no decimal of R4, has more than MAX_NUMBER characters or an
    exponent beyond MAX_EXPONENT. https://hl7.org/fhir/R4/datatypes.html#decimal
    """
    _parts(text)
    return Decimal(text)


def implicit_range(text: str) -> tuple[Decimal, Decimal]:
    """The half-open range [low, high) of the numbers that a search value means, by the digits it is given in.

    100 is [99.5, 100.5), 100.00 is [99.995, 100.005), 5.40e-3 is [0.005395, 0.005405). A single digit with
    an exponent counts as if a zero followed, since the specification has [95, 105) for 1e2.
    Raises Invalid as `parse` does. https://hl7.org/fhir/R4/search.html#number
    """
    match = _parts(text)
    value = Decimal(text)
    last_place = int(match["exponent"] or 0)
    if match["fraction"]:
        last_place -= len(match["fraction"]) - 1
    elif match["exponent"] and len(match["whole"]) == 1:
        last_place -= 1
    half = Decimal((0, (5,), last_place - 1))
    return _EXACT.subtract(value, half), _EXACT.add(value, half)


def approximate_range(value: Decimal | int) -> tuple[Decimal, Decimal]:
    """The closed range within a tenth of a number, for the prefix ap. 0 is near to itself only.

    https://hl7.org/fhir/R4/search.html#prefix
    """
    number = Decimal(value)
    margin = _EXACT.multiply(_EXACT.abs(number), _TENTH)
    return _EXACT.subtract(number, margin), _EXACT.add(number, margin)


def _head(power: int) -> bytes:
    if _LEAST_NEAR <= power <= _MOST_NEAR:
        return bytes([_NEAREST + power - _LEAST_NEAR])
    if abs(power) > _MAX_POWER:
        raise ValueError(f"the power of ten {power} is out of range")
    return bytes([_SMALL if power < 0 else _LARGE]) + (power + _MAX_POWER).to_bytes(2, "big")


def _parts(text: str) -> re.Match[str]:
    if len(text) > MAX_NUMBER:
        raise _invalid(f"The number `{text[:20]}…` has {len(text)} characters; at most {MAX_NUMBER} may be.")
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise _invalid(f"`{text}` is not a number: expected one such as 100, -2.50 or 5.4e-3.")
    if abs(int(match["exponent"] or 0)) > MAX_EXPONENT:
        raise _invalid(
            f"The exponent of `{text}` is out of range; at most {MAX_EXPONENT} either way is accepted."
        )
    return match


def _invalid(text: str) -> Invalid:
    return Invalid(Issue("error", "value", text))
