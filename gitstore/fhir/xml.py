"""FHIR's XML, made from JSON's values and made into them, as the definitions say. https://hl7.org/fhir/R4/xml.html

Nothing is lost either way: numbers keep their digits, narratives their text. What JSON can hold and XML can't,
such as a property that R4 doesn't have, is refused and not left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from gitstore.errors import Invalid, Issue
from gitstore.fhir import Resource, definitions
from gitstore.fhir.json import MAX_DEPTH
from gitstore.fhir.narrative import NAMESPACE as XHTML
from gitstore.fhir.xhtml import Div, NarrativeError, embedded, split
from gitstore.fhir.xml_elements import Fault, Property, Table, path_of, shown, table_of, text_of

__all__ = ["MAX_MARKUP", "NAMESPACE", "dumps", "dumps_pretty", "loads"]

NAMESPACE = "http://hl7.org/fhir"

MAX_MARKUP = 24 * 1024**2
"""Bytes of one tag or comment: the parser looks at an unfinished one again with each piece that it is given."""

_SCHEMA = "http://www.w3.org/2001/XMLSchema-instance"
_PLACES_OF_SCHEMAS = ("schemaLocation", "noNamespaceSchemaLocation")
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIECE = 1024**2
_ENCODINGS = ("utf-8", "utf8", "us-ascii")
_DOCUMENT_TYPE = re.compile(rb"(?:\s++|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE", re.DOTALL)


# From JSON's values to XML.


def dumps(resource: Resource) -> bytes:
    """A resource as XML in UTF-8 without white space, elements in the order of the definitions.

    Raises Invalid (code structure, the place as expression) for what FHIR's XML has no room for: properties that
    the type doesn't have, values of another JSON type than theirs, nulls that stand for nothing, empty arrays,
    characters outside of XML, narratives that are no XHTML.
    """
    return _document(resource, "")


def dumps_pretty(resource: Resource) -> bytes:
    """The same with a line for each element, a two-space indent and a final newline; narratives are not touched."""
    return _document(resource, "\n") + b"\n"


def _document(resource: Resource, pad: str) -> bytes:
    out = [_DECLARATION]
    try:
        _write_resource(out, resource, pad, f' xmlns="{NAMESPACE}"')
    except Fault as fault:
        type = resource.get("resourceType") if isinstance(resource, dict) else None
        place = path_of([str(type or "Resource"), *reversed(fault.steps)])
        text = f"This can't be given as XML: `{place}` {fault.text}."
        raise Invalid(Issue("error", "structure", text, place)) from fault
    return "".join(out).encode("utf-8")


def _write_resource(out: list[str], resource: Any, pad: str, attributes: str = "") -> None:
    if not isinstance(resource, dict):
        raise Fault("is no object, and must be a resource")
    type = resource.get("resourceType")
    if not isinstance(type, str) or not definitions.is_resource_type(type):
        raise Fault("is no resource type of R4", "resourceType")
    out.append(f"{pad}<{type}{attributes}>")
    _write_children(out, table_of(type), resource, pad and pad + "  ")
    out.append(f"{pad}</{type}>")


def _write_children(out: list[str], table: Table, value: Mapping[str, Any], pad: str) -> None:
    try:
        names = sorted(value, key=table.ranks.__getitem__)
    except KeyError as error:
        raise Fault("is a property that FHIR R4 does not have there", error.args[0]) from error
    for key in names:
        name = key
        if key[0] == "_":
            name = key[1:]
            if name in value:
                continue  # written together with it
        property = table.properties.get(name)
        if property is None:
            continue  # an attribute, written with the tag
        try:
            if property.write is not None and property.type != "xhtml":
                _write_primitives(out, property, value, pad)
            elif property.many:
                _write_all(out, property, value[name], pad)
            else:
                _write_complex(out, property, value[name], pad)
        except Fault as fault:
            fault.steps.append(name)
            raise


def _write_all(out: list[str], property: Property, values: Any, pad: str) -> None:
    if not isinstance(values, list):
        raise Fault("must be an array")
    if not values:
        raise Fault("is an empty array, which XML can't show")
    for number, value in enumerate(values):
        try:
            _write_complex(out, property, value, pad)
        except Fault as fault:
            fault.steps.append(number)
            raise


def _write_complex(out: list[str], property: Property, value: Any, pad: str) -> None:
    if property.type == "xhtml":
        _write_narrative(out, value, pad)
        return
    name = property.name
    if property.type == "Resource":
        out.append(f"{pad}<{name}>")
        _write_resource(out, value, pad and pad + "  ")
        out.append(f"{pad}</{name}>")
        return
    if not isinstance(value, dict):
        raise Fault("must be an object" if value is not None else "is null, which XML can't show")
    _write_element(out, property, value, pad, "")


def _write_element(
    out: list[str], property: Property, value: Mapping[str, Any], pad: str, content: str
) -> None:
    """An element with what is in `value`; `content` is the value attribute of a primitive."""
    table = table_of(property.type if property.write is None else "Element")
    attributes = [name for name in table.attributes if name in value]
    out.append(f"{pad}<{property.name}")
    for name in attributes:
        try:
            out.append(f' {name}="{text_of(value[name])}"')
        except Fault as fault:
            fault.steps.append(name)
            raise
    if len(value) == len(attributes):
        out.append(content + "/>")
        return
    out.append(content + ">")
    _write_children(out, table, value, pad and pad + "  ")
    out.append(f"{pad}</{property.name}>")


def _write_primitives(out: list[str], property: Property, parent: Mapping[str, Any], pad: str) -> None:
    """The elements for one primitive property: its values and their siblings, paired."""
    name = property.name
    extra = parent.get("_" + name)
    if not property.many:
        if name in parent and parent[name] is None:
            raise Fault("is null, which XML can't show")
        _write_primitive(out, property, parent.get(name), extra, pad)
        return
    values = parent.get(name, ())
    extras = () if extra is None else extra
    if not isinstance(values, list | tuple) or not isinstance(extras, list | tuple):
        raise Fault("must be an array")
    count = max(len(values), len(extras))
    if count == 0:
        raise Fault("is an empty array, which XML can't show")
    for number in range(count):
        try:
            _write_primitive(
                out,
                property,
                values[number] if number < len(values) else None,
                extras[number] if number < len(extras) else None,
                pad,
            )
        except Fault as fault:
            fault.steps.append(number)
            raise


def _write_primitive(out: list[str], property: Property, value: Any, extra: Any, pad: str) -> None:
    assert property.write is not None
    content = "" if value is None else f' value="{property.write(value)}"'
    if extra is None:
        if value is None:
            raise Fault("is null without an extension, which XML can't show")
        out.append(f"{pad}<{property.name}{content}/>")
    elif isinstance(extra, dict):
        _write_element(out, property, extra, pad, content)
    else:
        raise Fault("must have an object beside it for its id and extensions")


def _write_narrative(out: list[str], div: Any, pad: str) -> None:
    if not isinstance(div, str):
        raise Fault("is no text in JSON")
    try:
        out.append(pad + embedded(div))
    except NarrativeError as error:
        raise Fault(str(error)) from error


# From XML to JSON's values.


def loads(data: bytes) -> Resource:
    """The resource that someone sent as XML, as the values that its JSON would have.

    Comments, processing instructions and white space between elements are dropped, elements may come in any order
    and with any prefix, a leading byte order mark is tolerated. Raises Invalid (code structure; diagnostics with
    line and column, and where it is known the place as expression) for syntax that isn't XML, encodings other than
    UTF-8, a document type, elements, attributes and text that FHIR does not have there, elements given twice that
    are no array, numbers and booleans that are none, narratives nested beyond `narrative.MAX_DEPTH`, and whatever
    would lie deeper than `json.MAX_DEPTH` in JSON. No file is opened and nothing is fetched.
    """
    return _Reader(data.removeprefix(_BYTE_ORDER_MARK)).read()


@dataclass(slots=True)
class _Frame:
    """An element that is open. `value` is its JSON object; for a primitive, that of its id and extensions.

    A property of the type Resource has a frame of its own, in which `resource` is what it holds; so does the
    document. `depth` is how deep `value` lies in JSON.
    """

    property: Property | None
    table: Table | None
    value: dict[str, Any]
    depth: int
    content: Any = None
    resource: dict[str, Any] | None = field(default=None)


class _Reader:
    """Builds a resource from the events of one document."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._frames = [_Frame(None, None, {}, 0)]
        self._prefixes: list[str | None] = []  # declared by the tag that comes next
        self._div: Div | None = None
        parser = expat.ParserCreate("utf-8", " ")
        parser.namespace_prefixes = True
        parser.buffer_text = True
        self._parser = parser
        self._handlers: dict[str, Callable[..., None]] = {
            "XmlDeclHandler": self._declaration,
            "StartDoctypeDeclHandler": self._document_type,
            "StartNamespaceDeclHandler": self._declare,
            "EndNamespaceDeclHandler": self._undeclare,
            "StartElementHandler": self._placed(self._start),
            "EndElementHandler": self._placed(self._end),
            "CharacterDataHandler": self._placed(self._text),
        }
        for name, handler in self._handlers.items():
            setattr(parser, name, handler)

    def _let_go(self) -> None:
        """Part parser and reader, which hold one another: the document goes with its last user."""
        while self._handlers:
            name, _ = self._handlers.popitem()
            setattr(self._parser, name, None)

    def read(self) -> Resource:
        if self._data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in self._data[:4]:
            raise self._refused("This is not UTF-8")
        if _DOCUMENT_TYPE.match(self._data):
            self._document_type()
        try:
            for stop in range(_PIECE, len(self._data), _PIECE):
                self._parser.Parse(self._data[stop - _PIECE : stop], False)
                if stop - self._parser.CurrentByteIndex > MAX_MARKUP:
                    raise self._refused(f"A tag or comment has more than {MAX_MARKUP} bytes")
            self._parser.Parse(self._data[max(len(self._data) - 1, 0) // _PIECE * _PIECE :], True)
        except expat.ExpatError as error:
            where = f"line {error.lineno}, column {error.offset + 1}"
            text = f"This is not XML: {expat.ErrorString(error.code)} at {where}."
            raise Invalid(Issue("error", "structure", text, diagnostics=where)) from error
        finally:
            self._let_go()
        resource = self._frames[0].resource
        assert resource is not None
        return resource

    def _placed(self, handler: Callable[..., None]) -> Callable[..., None]:
        """A handler whose faults say where they are, which only it can: the parser goes on for a while after them."""

        def placed(*event: Any) -> None:
            try:
                handler(*event)
            except (Fault, NarrativeError) as fault:
                steps = fault.steps if isinstance(fault, Fault) else ["div"]
                place = path_of([*self._steps(), *reversed(steps)])
                raise self._refused(f"`{place}` {fault}", place) from fault

        return placed

    def _refused(self, text: str, place: str | None = None) -> Invalid:
        where = f"line {self._parser.CurrentLineNumber}, column {self._parser.CurrentColumnNumber + 1}"
        return Invalid(Issue("error", "structure", f"{text} ({where}).", place, diagnostics=where))

    def _steps(self) -> list[str | int]:
        """The way to the element that is open."""
        steps: list[str | int] = []
        for parent, frame in zip(self._frames, self._frames[1:], strict=False):
            if frame.property is None:
                if len(steps) == 0:
                    steps.append(str(frame.value["resourceType"]))
                continue
            steps.append(frame.property.name)
            if frame.property.many:
                steps.append(_count(parent.value, frame.property.name))
        return steps

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise self._refused(f"This is XML in `{shown(encoding)}`; FHIR is UTF-8")

    def _document_type(self, *_declaration: object) -> None:
        raise self._refused("The XML has a document type, which could define entities; FHIR has none")

    def _declare(self, prefix: str | None, _uri: str | None) -> None:
        if self._div is None:
            self._prefixes.append(prefix)
        else:
            self._div.declare(prefix)

    def _undeclare(self, prefix: str | None) -> None:
        if self._div is not None:
            self._div.undeclare(prefix)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._div is not None:
            self._div.open(name, attributes)
            return
        frame = self._frames[-1]
        namespace, local, _ = split(name)
        property = None if frame.table is None else frame.table.properties.get(local)
        if property is not None and property.type == "xhtml":
            if f"_{local}" in frame.value or local in frame.value:
                raise Fault("stands there twice", local)
            self._start_narrative(name, attributes)
        elif namespace != NAMESPACE:
            given = f"the namespace `{shown(namespace)}`" if namespace else "no namespace"
            raise Fault(f"is an element of {given}, and must be of `{NAMESPACE}`", local)
        elif frame.table is None:
            self._start_resource(frame, local, attributes)
        elif property is None:
            raise Fault("is an element that FHIR R4 does not have there", local)
        else:
            self._start_element(frame, property, attributes)
        self._prefixes.clear()

    def _start_narrative(self, name: str, attributes: dict[str, str]) -> None:
        if split(name)[0] != XHTML:
            raise Fault(f"is not of the namespace `{XHTML}`", "div")
        self._div = Div(self._parser.CurrentByteIndex, self._prefixes)
        self._div.open(name, attributes)

    def _start_resource(self, parent: _Frame, type: str, attributes: dict[str, str]) -> None:
        if not definitions.is_resource_type(type):
            raise Fault("is no resource type of R4", type)
        if parent.resource is not None:
            raise Fault("is a second resource where only one can be", type)
        parent.resource = {"resourceType": type}
        depth = parent.depth + 1 if parent.property is None else parent.depth
        self._frames.append(_Frame(None, table_of(type), parent.resource, depth))
        _check_attributes(attributes)

    def _start_element(self, parent: _Frame, property: Property, attributes: dict[str, str]) -> None:
        name = property.name
        if not property.many and (name in parent.value or f"_{name}" in parent.value):
            raise Fault("stands there twice, and can only be there once", name)
        frame = _Frame(property, None, {}, parent.depth + (2 if property.many else 1))
        if frame.depth > MAX_DEPTH + (property.write is not None):
            raise Fault(f"would lie more than {MAX_DEPTH} deep in JSON", name)
        self._frames.append(frame)
        if property.type == "Resource":
            _check_attributes(attributes)
            return
        frame.table = table_of(property.type if property.write is None else "Element")
        if property.read is not None and "value" in attributes:
            frame.content = property.read(attributes.pop("value"))
        for attribute in frame.table.attributes:
            if attribute in attributes:
                frame.value[attribute] = attributes.pop(attribute)
        if attributes:
            _check_attributes(attributes)

    def _end(self, name: str) -> None:
        if self._div is not None:
            self._div.close(name)
            if self._div.depth == 0:
                text = self._div.as_text(self._data, self._parser.CurrentByteIndex)
                self._frames[-1].value["div"] = text
                self._div = None
            return
        frame = self._frames[-1]
        property = frame.property
        if property is not None and property.type == "Resource" and frame.resource is None:
            raise Fault("has no resource in it")
        self._frames.pop()
        parent = self._frames[-1].value
        if property is None:
            return
        if property.write is not None:
            _add_primitive(parent, property, frame)
            return
        value = frame.value if frame.resource is None else frame.resource
        if property.many:
            parent.setdefault(property.name, []).append(value)
        else:
            parent[property.name] = value

    def _text(self, text: str) -> None:
        if self._div is not None:
            self._div.text(text)
        elif not text.isspace():
            raise Fault(f"has the text `{shown(text.strip())}` in it; values are attributes in FHIR's XML")


def _check_attributes(attributes: Mapping[str, str]) -> None:
    """Where a schema lies may stand anywhere; it says nothing about the resource."""
    for name in attributes:
        namespace, local, _ = split(name)
        if namespace != _SCHEMA or local not in _PLACES_OF_SCHEMAS:
            raise Fault(f"has an attribute `{shown(local)}`, which FHIR does not have there")


def _count(value: Mapping[str, Any], name: str) -> int:
    """How many items of an array there are so far."""
    return max(len(value.get(name, ())), len(value.get(f"_{name}", ())))


def _add_primitive(parent: dict[str, Any], property: Property, frame: _Frame) -> None:
    """Put a primitive in its place, and its id and extensions beside it, with nulls where there are none."""
    name = property.name
    extra = frame.value if frame.value or frame.content is None else None
    if extra is not None and frame.depth > MAX_DEPTH:
        raise Fault(f"would lie more than {MAX_DEPTH} deep in JSON", name)
    both = ((name, frame.content), (f"_{name}", extra))
    if not property.many:
        parent.update((key, item) for key, item in both if item is not None)
        return
    count = _count(parent, name)
    for key, item in both:
        if item is not None and key not in parent:
            parent[key] = [None] * count
        if key in parent:
            parent[key].append(item)
