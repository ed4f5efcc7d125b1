"""How the elements of each type look in XML: which there are, in which order, and their values as attributes.

https://hl7.org/fhir/R4/xml.html
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from gitstore.errors import Invalid
from gitstore.fhir import definitions
from gitstore.fhir.json import Number

_MAX_SHOWN = 80
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)")
_ESCAPED = re.compile('[\x00-\x1f&<"\ud800-\udfff\ufffe\uffff]')
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_REFERENCES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


class Fault(Exception):
    """Why a value can't be converted, as the end of a sentence, and the steps that lead there, last one first."""

    def __init__(self, text: str, *steps: str | int) -> None:
        super().__init__(text)
        self.text = text
        self.steps = list(steps)


class Property(Struct, frozen=True):
    """One element of a type: its place among the others, and whether it may repeat.

    `write` gives the value attribute of a primitive, `read` the JSON value of one; both raise Fault.
    """

    name: str
    rank: int
    type: str
    many: bool
    write: Callable[[Any], str] | None
    read: Callable[[str], Any] | None


class Table(Struct, frozen=True):
    """A type: its elements by name, their order by JSON property, and which of them XML has as attributes."""

    properties: Mapping[str, Property]
    ranks: Mapping[str, int]
    attributes: tuple[str, ...]


@functools.cache
def table_of(type: str) -> Table:
    """The elements of a resource type, data type or backbone element. Raises KeyError for an unknown type."""
    attributes: tuple[str, ...] = () if definitions.is_resource_type(type) else ("id",)
    if type == "Extension":
        attributes = ("id", "url")
    properties: dict[str, Property] = {}
    ranks = dict.fromkeys(attributes if attributes else ("resourceType",), -1)
    for rank, element in enumerate(definitions.elements(type).values()):
        name = element.name
        if name in attributes:
            continue
        write, read = _CONVERSIONS.get(element.type, (text_of, str))
        is_primitive = definitions.is_primitive(element.type)
        properties[name] = Property(
            name, rank, element.type, element.max != 1, *((write, read) if is_primitive else (None, None))
        )
        ranks[name] = rank
        if is_primitive and element.type != "xhtml":
            ranks["_" + name] = rank
    return Table(properties, ranks, attributes)


# Values of primitive types.


def text_of(value: Any) -> str:
    """A JSON text for an attribute. Raises Fault for what is no text, or has characters that XML excludes."""
    if value.__class__ is not str:
        raise Fault("is no text in JSON, which its type demands, and XML would not show that")
    text: str = value
    if _ESCAPED.search(text) is None:
        return text
    wrong = _NO_XML.search(text)
    if wrong:
        raise Fault(f"contains U+{ord(wrong[0]):04X}, a character that XML excludes")
    return text.translate(_REFERENCES)


def _boolean_text(value: Any) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    raise Fault("is not true or false in JSON, which its type demands, and XML would not show that")


def _whole_text(value: Any) -> str:
    if value.__class__ is int:
        return str(value)
    raise Fault("is no whole number in JSON, which its type demands, and XML would not show that")


def _decimal_text(value: Any) -> str:
    if value.__class__ is int or value.__class__ is Number:
        return str(value)
    raise Fault("is no number in JSON, which its type demands, and XML would not show that")


def _boolean(text: str) -> bool:
    if text in ("true", "false"):
        return text == "true"
    raise Fault(f"is `{shown(text)}`, which is neither true nor false")


def _whole(text: str) -> int:
    digits = text[1:] if text[:1] == "+" and text[1:2] in "123456789" else text
    if _WHOLE.fullmatch(digits) and digits != "-0":
        return int(_number(digits))
    raise Fault(f"is `{shown(text)}`, which is no whole number")


def _decimal(text: str) -> int | Number:
    number = _number(text)
    return int(text) if text != "-0" and _WHOLE.fullmatch(text) else number


def _number(text: str) -> Number:
    try:
        return Number(text)
    except Invalid as error:
        raise Fault(f"is no number that can be kept: {str(error).rstrip('.')}") from error


_CONVERSIONS: Mapping[str, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    "boolean": (_boolean_text, _boolean),
    "decimal": (_decimal_text, _decimal),
    **dict.fromkeys(("integer", "positiveInt", "unsignedInt"), (_whole_text, _whole)),
}


def shown(text: str) -> str:
    """Text of a client for a message: shortened, and without what can't be shown."""
    shown = _NO_XML.sub("?", text[:_MAX_SHOWN])
    return shown if len(text) <= _MAX_SHOWN else shown + "…"


def path_of(steps: list[str | int]) -> str:
    """Names of elements and numbers of items as FHIRPath: `Patient.name[0].family`."""
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
            continue
        name = step if _IDENTIFIER.fullmatch(step) else f"`{shown(step).replace('`', '?')}`"
        path += f".{name}" if path else name
    return path
