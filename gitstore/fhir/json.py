"""JSON that keeps each number as it was written, and refuses what two readers could understand differently.

FHIR gives digits a meaning: `1.00` is more precise than `1.0`. https://hl7.org/fhir/R4/json.html#decimal
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gitstore.errors import Invalid, Issue

__all__ = [
    "MAX_DEPTH",
    "MAX_EXPONENT",
    "MAX_NUMBER",
    "Number",
    "Raw",
    "dumps",
    "dumps_pretty",
    "is_deeper",
    "loads",
    "loads_trusted",
]

MAX_DEPTH = 64
"""Objects and arrays may lie this deep in one another."""

MAX_NUMBER = 64
"""Characters of a number."""

MAX_EXPONENT = 1000
"""Larger powers of ten make arithmetic a way to keep a server busy: int(Decimal("1e1000000")) takes 25 s."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE]([+-]?[0-9]+))?")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Number(Decimal):
    """A decimal that prints as it was written: `1.00`, `1.0e2`, `-0`. It compares as the number it is.

    Raises Invalid for text that isn't a JSON number, is longer than MAX_NUMBER or beyond MAX_EXPONENT.
    """

    __slots__ = ("lexeme",)
    lexeme: str

    def __new__(cls, lexeme: str) -> Number:
        fault = _fault_of_number(lexeme)
        if fault:
            raise Invalid(Issue("error", "structure", fault))
        number = super().__new__(cls, lexeme)
        number.lexeme = lexeme
        return number

    def __str__(self) -> str:
        return self.lexeme

    def __repr__(self) -> str:
        return f"Number({self.lexeme!r})"

    def __reduce__(self) -> tuple[type[Number], tuple[str]]:
        return Number, (self.lexeme,)

    def __copy__(self) -> Number:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Number:
        return self


def dumps(value: Any) -> bytes:
    """Compact JSON: keys in their order, numbers as written, `Raw` bytes as they lie."""
    return _ENCODER.encode(value)


def dumps_pretty(value: Any) -> bytes:
    """The stored form: two-space indent and a final newline; keys in their order, numbers as written."""
    return msgspec.json.format(_ENCODER.encode(value), indent=2) + b"\n"


def loads(data: bytes) -> Any:
    """The value of JSON that someone sent. Fractions become `Number`, whole numbers int (`-0` a Number).

    Raises Invalid (code structure) for syntax that isn't JSON and for UTF-8 that isn't, both with line and
    column as diagnostics; and, with the place as FHIRPath expression, for duplicate keys, lone surrogates,
    control characters other than tab, CR and LF, nesting beyond MAX_DEPTH and numbers beyond MAX_NUMBER or
    MAX_EXPONENT. A leading byte order mark is tolerated.
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)
    try:
        value = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Invalid) as error:
        raise _refusal(data, error) from error
    if is_deeper(data, value):
        return _loads_strictly(data)
    compact = _ENCODER.encode(value)
    # A difference means a duplicate key, "-0" or, harmless, an escape such as \/ that wasn't needed.
    if compact != msgspec.json.format(data, indent=-1) or _is_suspect(compact):
        return _loads_strictly(data)
    return value


def loads_trusted(data: bytes) -> Any:
    """The value of JSON that `dumps` or `dumps_pretty` made, without looking for faults."""
    if _MINUS_ZERO.search(data):
        return _loads_strictly(data)
    return _DECODER.decode(data)


def _as_written(value: object) -> Raw:
    if isinstance(value, Number):
        return Raw(value.lexeme.encode("ascii"))
    raise TypeError(f"{type(value).__name__} is no JSON value")


_DECODER = msgspec.json.Decoder(float_hook=Number)
_ENCODER = msgspec.json.Encoder(enc_hook=_as_written, decimal_format="number")
_MINUS_ZERO = re.compile(rb"-0(?=[\s,\]}]|\Z)")
_DIGITS_AS_ZEROS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_EIGHT_DIGITS = b"0" * (MAX_NUMBER // 8)
_ESCAPED_CONTROL = re.compile(rb"\\[bfu]")


def is_deeper(data: bytes, value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether objects and arrays lie deeper than that in one another, in a value and the JSON it was read from."""
    if data.count(b"{") + data.count(b"[") <= depth:
        return False
    level = [value]
    for _ in range(depth):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def _is_suspect(compact: bytes) -> bool:
    """Whether our compact print may hold a control character or a whole number of too many digits."""
    if _ESCAPED_CONTROL.search(compact):
        return True
    # Every eighth byte will do: a run of 65 digits shows there as 8 of them or more.
    return _EIGHT_DIGITS in compact[::8].translate(_DIGITS_AS_ZEROS)


# What follows is for JSON that the fast way above could not vouch for: it finds the fault and its place.


class _Fault(Struct, frozen=True):
    """Stands in the value for what must be refused: an object because of its property `key`, or a number."""

    text: str
    key: str | None = None


_MAX_SHOWN = 80
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFUSED_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|[\[\]{},]', re.DOTALL)


def _loads_strictly(data: bytes) -> Any:
    """The same as `loads`, several times slower, with each fault at its place."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _at_byte(data, error.start, f"byte 0x{data[error.start]:02x} is not UTF-8") from error
    try:
        value = _STRICT_DECODER.decode(text)
    except json.JSONDecodeError as error:
        problem = error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
        raise _not_json(problem, error.lineno, error.colno) from error
    except RecursionError as error:
        raise _refused(_fault_of_depth(), _place_of_depth(text)) from error
    found = _first_fault(value)
    if found:
        fault, steps = found
        raise _refused(fault, _path(reversed(steps)))
    return value


def _refusal(data: bytes, error: Exception) -> Invalid:
    """What is wrong with data that the fast decoder refused, which says less about it."""
    try:
        _loads_strictly(data)
    except Invalid as refusal:
        return refusal
    return Invalid(Issue("error", "structure", f"This is not JSON: {error}."))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Fault:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return _Fault("This property is given twice in the same object", key)
        seen.add(key)
    raise AssertionError("pairs are fewer in the dict only where a key repeats")


def _whole_number(lexeme: str) -> int | Number | _Fault:
    fault = _fault_of_number(lexeme)
    if fault:
        return _Fault(fault.rstrip("."))
    return Number(lexeme) if lexeme == "-0" else int(lexeme)


def _fraction(lexeme: str) -> Number | _Fault:
    fault = _fault_of_number(lexeme)
    return _Fault(fault.rstrip(".")) if fault else Number(lexeme)


_STRICT_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_whole_number,
    parse_float=_fraction,
    parse_constant=lambda name: _Fault(f"`{name}` is not a number of JSON"),
)


def _fault_of_number(lexeme: str) -> str | None:
    if len(lexeme) > MAX_NUMBER:
        return f"The number `{lexeme[:20]}…` has {len(lexeme)} characters; at most {MAX_NUMBER} may be."
    match = _NUMBER.fullmatch(lexeme)
    if match is None:
        return f"`{lexeme}` is not a number of JSON."
    exponent = match[1]
    if exponent is not None and abs(int(exponent)) > MAX_EXPONENT:
        return f"The exponent of `{lexeme}` is out of range; at most {MAX_EXPONENT} either way is accepted."
    return None


def _first_fault(value: Any, depth: int = 0) -> tuple[_Fault, list[str | int]] | None:
    """The first fault of a document, and the steps that lead there, from the last one to the first."""
    if isinstance(value, str):
        return _fault_of_text(value, "text")
    if isinstance(value, _Fault):
        return value, [] if value.key is None else [value.key]
    if not isinstance(value, dict | list):
        return None
    if depth == MAX_DEPTH:
        return _fault_of_depth(), []
    for step, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(step, str):
            found = _fault_of_text(step, "name of a property")
            if found:
                return found
        found = _first_fault(item, depth + 1)
        if found:
            found[1].append(step)
            return found
    return None


def _fault_of_text(text: str, what: str) -> tuple[_Fault, list[str | int]] | None:
    match = _REFUSED_CHARACTER.search(text)
    if match is None:
        return None
    return _Fault(f"The {what} contains U+{ord(match[0]):04X}, which FHIR's strings exclude"), []


def _fault_of_depth() -> _Fault:
    return _Fault(f"Objects and arrays lie more than {MAX_DEPTH} deep in one another here")


def _place_of_depth(text: str) -> str:
    """Where text first goes deeper than MAX_DEPTH; it need not be JSON beyond there."""
    place: list[str | int | None] = []  # a position in an array, or the last name read in an object
    for token in _TOKEN.finditer(text):
        mark = token[0][0]
        if mark == '"':
            if place and not isinstance(place[-1], int):
                place[-1] = token[1]
        elif mark in "[{":
            if len(place) == MAX_DEPTH:
                break
            place.append(0 if mark == "[" else None)
        elif mark == ",":
            if place and isinstance(place[-1], int):
                place[-1] += 1
        elif place:
            place.pop()
    return _path("" if step is None else step for step in place)


def _path(steps: Iterable[str | int]) -> str:
    """Names of properties and numbers of items as FHIRPath: `name[0].family`."""
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{_quoted(step)}" if path else _quoted(step)
    return path


def _quoted(name: str) -> str:
    """The name of a property as FHIRPath writes it, without what can't be shown, and not without end."""
    if len(name) <= _MAX_SHOWN and _IDENTIFIER.fullmatch(name):
        return name
    shown = _REFUSED_CHARACTER.sub("?", name[:_MAX_SHOWN]).replace("\\", "\\\\").replace("`", "\\`")
    return f"`{shown}`"


def _refused(fault: _Fault, place: str) -> Invalid:
    where = f" (`{place}`)" if place else ""
    return Invalid(Issue("error", "structure", f"{fault.text}{where}.", place or None))


def _not_json(problem: str, line: int, column: int) -> Invalid:
    where = f"line {line}, column {column}"
    text = f"This is not JSON: {problem} at {where}."
    return Invalid(Issue("error", "structure", text, diagnostics=where))


def _at_byte(data: bytes, offset: int, problem: str) -> Invalid:
    """The refusal of data for what lies at offset; what lies before it must be UTF-8."""
    start = data.rfind(b"\n", 0, offset) + 1
    return _not_json(problem, data.count(b"\n", 0, offset) + 1, len(data[start:offset].decode("utf-8")) + 1)
