"""UCUM units in a form in which amounts compare: 1 g/L is 100 mg/dL. https://ucum.org/ucum

Amounts compare where their canonical units are the same text. By UCUM's definitions that brings some together
that chemistry keeps apart: a mole is a number, so that mol, osm and eq are alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import cache, lru_cache
from typing import Final

import msgspec
from msgspec import Struct

from gitstore.fhir import ucum_atoms as atoms

SYSTEM: Final = "http://unitsofmeasure.org"
"""The system that a Quantity in UCUM units names. https://hl7.org/fhir/R4/ucum.html"""

DIGITS: Final = 34
"""Significant digits of a converted amount, as many as the widest decimal of IEEE 754 has."""

_MAX_LENGTH = 255
_MAX_DEPTH = 16
_MAX_BITS = 16_384
_ROUNDED = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN, Emax=MAX_EMAX, Emin=MIN_EMIN)
_EXACT = Context(prec=20_000, Emax=MAX_EMAX, Emin=MIN_EMIN)


@dataclass(frozen=True, slots=True)
class Canonical:
    """A unit in terms of base units: an amount in it is `factor` times the number, plus `offset`, of `unit`.

    `unit` is a product of powers, always in the same order (`g.m-3`), `1` where there is none. Only scales
    whose zero lies elsewhere (Cel, [degF], [degRe]) have an offset.
    """

    unit: str
    factor: Fraction
    offset: Fraction = Fraction(0)
    _terms: tuple[Decimal, Decimal, Decimal] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        divisor = self.factor.denominator * self.offset.denominator
        terms = (self.factor * divisor, self.offset * divisor, divisor)
        object.__setattr__(self, "_terms", tuple(Decimal(int(term)) for term in terms))

    def convert(self, value: Decimal | int) -> Decimal:
        """How much of the canonical `unit` an amount of this unit is, half-even to DIGITS digits.

        Each amount is rounded in the same way, so that equal ones stay equal and none overtakes another.
        """
        factor, offset, divisor = self._terms
        return _ROUNDED.divide(_EXACT.fma(Decimal(value), factor, offset), divisor)


@lru_cache(maxsize=8192)
def canonical(code: str) -> Canonical | None:
    """What a case-sensitive UCUM code comes down to; None where it isn't one.

    Annotations are passed over: `{beats}/min` is `/min`. Each arbitrary unit (`[arb'U]`) is a dimension of its
    own, and so is each special unit that is a logarithm or other function of an amount (`[pH]`, `B[SPL]`): a
    higher pH stays the greater. Special units stand alone, as in UCUM, but for prefix and annotation.
    """
    if len(code) > _MAX_LENGTH:
        return None
    term = _special(code)
    try:
        product = term or _Reader(code).main_term()
    except _MalformedError:
        return None
    return Canonical(_unit(product.powers), product.factor, product.offset)


class _Product(Struct, frozen=True):
    """A factor and powers of base units, of which none is 0."""

    factor: Fraction
    powers: dict[str, int] = msgspec.field(default_factory=dict)
    offset: Fraction = Fraction(0)

    def times(self, other: _Product, power: int = 1) -> _Product:
        """This multiplied with the other's power."""
        powers = dict(self.powers)
        for base, exponent in other.powers.items():
            powers[base] = powers.get(base, 0) + exponent * power
            if not powers[base]:
                del powers[base]
        if _bits(other.factor) * abs(power) > _MAX_BITS:
            raise _MalformedError
        factor = self.factor * other.factor**power
        if _bits(factor) > _MAX_BITS:
            raise _MalformedError
        return _Product(factor, powers)


class _MalformedError(Exception):
    """What is read is no UCUM code, or one beyond all measure."""


_ONE = _Product(Fraction(1))
_SYMBOL = re.compile(r"10[*^]|(?:[A-Za-z_%']|\[[^][{}\s]+\])+")
_EXPONENT = re.compile(r"[+-]?[0-9]{1,3}(?![0-9])")
_NUMBER = re.compile(r"[0-9]+(?![0-9*^])")
_ANNOTATION = re.compile(r"\{[ -z|~]*\}")


class _Reader:
    """Reads a code from left to right. https://ucum.org/ucum#section-Character-Set-and-Lexical-Rules

    An annotation is also taken behind a number or parenthesis (`/100{cells}`), as HL7's lists of units have it,
    and may contain spaces.
    """

    def __init__(self, code: str) -> None:
        self._code = code
        self._place = 0

    def main_term(self) -> _Product:
        inverse = self._passes("/")
        product = self._term(_ONE, -1 if inverse else 1, 0)
        if self._place != len(self._code):
            raise _MalformedError
        return product

    def _term(self, product: _Product, power: int, depth: int) -> _Product:
        product = product.times(self._component(depth), power)
        while True:
            if self._passes("."):
                product = product.times(self._component(depth))
            elif self._passes("/"):
                product = product.times(self._component(depth), -1)
            else:
                return product

    def _component(self, depth: int) -> _Product:
        if self._passes("("):
            if depth == _MAX_DEPTH:
                raise _MalformedError
            product = self._term(_ONE, 1, depth + 1)
            if not self._passes(")"):
                raise _MalformedError
        elif number := self._match(_NUMBER):
            product = _Product(Fraction(int(number)))
            if not product.factor:
                raise _MalformedError
        elif symbol := self._match(_SYMBOL):
            product = _ONE.times(_simple_unit(symbol), int(self._match(_EXPONENT) or 1))
        elif self._match(_ANNOTATION):
            return _ONE
        else:
            raise _MalformedError
        self._match(_ANNOTATION)
        return product

    def _passes(self, mark: str) -> bool:
        found = self._code.startswith(mark, self._place)
        self._place += found
        return found

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._code, self._place)
        if match is None:
            return None
        self._place = match.end()
        return match[0]


def _special(code: str) -> _Product | None:
    """What a code is that is a special unit, perhaps with prefix and annotation; None for others."""
    symbol = _ANNOTATION.sub("", code) if code.endswith("}") else code
    for prefix, unit in _readings(symbol):
        factor = atoms.PREFIXES[prefix] if prefix else Fraction(1)
        if unit in atoms.SCALES and (not prefix or unit == "Cel"):
            size, zero = atoms.SCALES[unit]
            return _Product(factor * size, {"K": 1}, zero)
        if unit in atoms.LEVELS or (not prefix and unit in atoms.FUNCTIONS):
            return _Product(factor, {unit: 1})
    return None


@lru_cache(maxsize=8192)
def _simple_unit(symbol: str) -> _Product:
    """An atom, or a prefix and a metric atom. Raises _MalformedError for others."""
    for prefix, unit in _readings(symbol):
        atom = _atom(unit, only_metric=bool(prefix))
        if atom is not None:
            return _Product(atoms.PREFIXES[prefix]).times(atom) if prefix else atom
    raise _MalformedError


def _readings(symbol: str) -> list[tuple[str, str]]:
    """The ways to take a symbol for prefix and atom, the first of them without prefix."""
    prefixes = (symbol[:length] for length in (1, 2) if len(symbol) > length)
    return [("", symbol)] + [
        (prefix, symbol[len(prefix) :]) for prefix in prefixes if prefix in atoms.PREFIXES
    ]


@cache
def _definitions() -> tuple[dict[str, tuple[Fraction, str]], dict[str, tuple[Fraction, str]]]:
    """Metric units, and all."""
    metric = atoms.units(atoms.METRIC)
    return metric, metric | atoms.units(atoms.OTHER)


def _atom(code: str, *, only_metric: bool) -> _Product | None:
    metric, all_units = _definitions()
    if code in atoms.BASE_UNITS or code in atoms.METRIC_ARBITRARY:
        return _Product(Fraction(1), {code: 1})
    if not only_metric and code in _arbitrary():
        return _Product(Fraction(1), {code: 1})
    definition = (metric if only_metric else all_units).get(code)
    return None if definition is None else _defined(*definition)


@cache
def _defined(number: Fraction, expression: str) -> _Product:
    return _Product(number).times(_Reader(expression).main_term())


@cache
def _arbitrary() -> frozenset[str]:
    return frozenset(atoms.ARBITRARY.split())


def _unit(powers: dict[str, int]) -> str:
    """`g.m-3`: base units in UCUM's order, arbitrary ones behind them."""
    ordered = [base for base in atoms.BASE_UNITS if base in powers]
    ordered += sorted(base for base in powers if base not in atoms.BASE_UNITS)
    return ".".join(base if powers[base] == 1 else f"{base}{powers[base]}" for base in ordered) or "1"


def _bits(factor: Fraction) -> int:
    return max(factor.numerator.bit_length(), factor.denominator.bit_length())
