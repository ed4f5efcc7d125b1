"""XML Patch: operations on the XML of a resource (RFC 5261), in a document as RFC 7351 has it.

    <diff xmlns="http://hl7.org/fhir">
      <replace sel="Patient/birthDate/@value">1815-12-10</replace>
      <add sel="Patient/name[1]" pos="after"><name><family value="Byron"/></name></add>
      <remove sel="Patient/telecom[system/@value='fax']"/>
    </diff>

The root is `diff` or `patch`, of any namespace. Elements in the operations that have no namespace, or that of the
operation, are FHIR's. White space between elements means nothing in FHIR: where there is none, `ws` has nothing
to remove. A narrative that isn't changed keeps its text to the letter.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any
from xml.parsers import expat

from lxml import etree
from msgspec import Struct

from gitstore.errors import Invalid, Issue, TooLarge, Unprocessable
from gitstore.fhir import Resource, xml
from gitstore.fhir.narrative import NAMESPACE as XHTML
from gitstore.fhir.patch import xml_selectors
from gitstore.fhir.patch.result import Work, finished, refused
from gitstore.fhir.patch.xml_selectors import (
    Attribute,
    Declaration,
    Element,
    Selected,
    Selector,
    Text,
    text_before,
)
from gitstore.fhir.xhtml import NarrativeError, embedded
from gitstore.fhir.xml import NAMESPACE as FHIR
from gitstore.fhir.xml_elements import shown

MAX_OPERATIONS = 1_000
"""Each of them walks through the resource."""

_ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "add": frozenset({"sel", "pos", "type"}),
    "replace": frozenset({"sel"}),
    "remove": frozenset({"sel", "ws"}),
}
_POSITIONS = ("before", "after", "prepend")
_DIV = f"{{{XHTML}}}div"
_NUMBER = re.compile(r">([0-9]+)<")


class Operation(Struct, frozen=True):
    """One step of a patch. `content` is its element in the document; `number` is its place, from 0.

    `attribute` is the one to add, "" where that is the declaration of a namespace.
    """

    number: int
    name: str
    selector: Selector
    content: Element
    attribute: str | None
    position: str | None
    white_space: str | None

    def __str__(self) -> str:
        return f"operation {self.number + 1} ({self.name} `{shown(self.selector.text)}`)"


class XmlPatch(Struct, frozen=True):
    """The operations of one document, in order."""

    operations: tuple[Operation, ...]

    def apply(self, resource: Resource) -> Resource:
        """As `patch.Patch` says."""
        root, narratives = _document(resource)
        work = Work()
        for operation in self.operations:
            found = operation.selector.select(root, work)
            if len(found) != 1:
                count = f"{len(found)} nodes" if found else "no node"
                raise refused(f"In {operation}, the selector leads to {count}, and must lead to one.")
            _OPERATIONS[operation.name](operation, root, found[0])
        return finished(resource, _in_order_of(resource, _resource(root, narratives)))


# From a document.


def parse(body: bytes) -> XmlPatch:
    """The patch in an XML document. Nothing is fetched or expanded.

    Raises Invalid for what is malformed, has a document type or is not UTF-8, TooLarge beyond MAX_OPERATIONS.
    """
    _refuse_document_type(body)
    try:
        root = etree.fromstring(body, _parser(huge=False))
    except etree.XMLSyntaxError as error:
        raise _malformed(f"it is not XML: {shown(str(error.msg))}") from error
    if etree.QName(root).localname not in ("diff", "patch"):
        raise _malformed(f"its root is `{shown(etree.QName(root).localname)}`, and must be `diff`")
    items = list(xml_selectors.elements(root))
    if len(items) > MAX_OPERATIONS:
        raise TooLarge(f"The patch has {len(items)} operations; at most {MAX_OPERATIONS} may be.")
    return XmlPatch(tuple(_operation(number, item) for number, item in enumerate(items)))


def _parser(*, huge: bool) -> etree.XMLParser:
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=huge,
        remove_blank_text=False,
    )


def _refuse_document_type(body: bytes) -> None:
    parser = expat.ParserCreate("utf-8")

    def refuse(*_declaration: object) -> None:
        raise _malformed("it has a document type, which could define entities")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        where = f"line {error.lineno}, column {error.offset + 1}"
        raise _malformed(f"it is not XML: {expat.ErrorString(error.code)} at {where}") from error


def _operation(number: int, item: Element) -> Operation:
    name = etree.QName(item)
    if name.localname not in _ATTRIBUTES:
        expected = ", ".join(_ATTRIBUTES)
        raise _malformed(f"operation {number + 1} is `{shown(name.localname)}`; expected one of {expected}")
    given = {str(key): str(value) for key, value in item.attrib.items()}
    unknown = given.keys() - _ATTRIBUTES[name.localname]
    if unknown:
        raise _malformed(f"operation {number + 1} has an attribute `{shown(min(unknown))}`")
    if "sel" not in given:
        raise _malformed(f"operation {number + 1} has no sel")
    if given.get("ws", "both") not in ("before", "after", "both"):
        raise _malformed(f"ws of operation {number + 1} must be before, after or both")
    position = given.get("pos")
    if position is not None and (position not in _POSITIONS or "type" in given):
        raise _malformed(f"pos of operation {number + 1} must be {', '.join(_POSITIONS)}, and not with type")
    _give_namespace(item, name.namespace)
    return Operation(
        number,
        name.localname,
        xml_selectors.compile(given["sel"], item.nsmap),
        item,
        _type(number, given["type"], item) if "type" in given else None,
        position,
        given.get("ws"),
    )


def _type(number: int, type: str, item: Element) -> str:
    """The name of the attribute to add; none where it is the declaration of a namespace."""
    if type.startswith("namespace::"):
        return ""  # the resource has two namespaces however they are called, and JSON none
    if not xml_selectors.ATTRIBUTE.fullmatch(type):
        raise _malformed(f"type of operation {number + 1} must be @ and a name, or namespace:: and a prefix")
    return xml_selectors.attribute_name(type[1:], item.nsmap)


def _give_namespace(operation: Element, namespace: str | None) -> None:
    for element in operation.iterdescendants("*"):
        name = etree.QName(element)
        if name.namespace is None or (name.namespace == namespace and namespace != XHTML):
            element.tag = f"{{{FHIR}}}{name.localname}"


def _malformed(fault: str) -> Invalid:
    return Invalid(Issue("error", "structure", f"This is no XML Patch: {fault}."))


# The resource as a document, and back.


def _document(resource: Resource) -> tuple[Element, dict[str, str]]:
    """The XML of a resource, and the text of each narrative by what it looks like there."""
    texts: list[str] = []

    def numbered(div: str) -> str:
        texts.append(div)
        return _numbered(len(texts) - 1)

    try:
        data = xml.dumps(_with_narratives(resource, numbered))
        divs = [etree.fromstring(embedded(text).encode(), _parser(huge=True)) for text in texts]
    except Invalid as error:
        raise Unprocessable(*error.issues) from error
    except (NarrativeError, etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise refused(f"The narrative of the resource can't be given as XML: {error}.") from error
    root = etree.fromstring(data, _parser(huge=True))
    for place in list(root.iter(_DIV)):
        _replace_node(place, divs[int(place.text or "")])
    return root, {_printed(div): text for div, text in zip(divs, texts, strict=True)}


def _resource(root: Element, narratives: Mapping[str, str]) -> Resource:
    """The resource in a document. Narratives are taken out for as long as it is read: that would rewrite them."""
    texts: list[str] = []
    for div in list(root.iter(_DIV)):
        parent = div.getparent()
        if parent is None or etree.QName(parent).namespace == XHTML:
            continue
        printed = _printed(div)
        place = etree.fromstring(_numbered(len(texts)))
        place.tail = div.tail
        texts.append(narratives.get(printed, printed))
        _replace_node(div, place)
    try:
        resource = xml.loads(etree.tostring(root, encoding="utf-8"))
    except Invalid as error:
        raise Unprocessable(*error.issues) from error

    def text(place: str) -> str:
        number = _NUMBER.search(place)
        assert number is not None  # all narratives are of _numbered
        return texts[int(number[1])]

    result: Resource = _with_narratives(resource, text)
    return result


def _in_order_of(before: Any, after: Any) -> Any:
    """The properties in the order that they had, since XML has one of its own; new ones come last."""
    if isinstance(before, list) and isinstance(after, list):
        both = [_in_order_of(old, new) for old, new in zip(before, after, strict=False)]
        return both + after[len(both) :]
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    names = [name for name in before if name in after]
    return {name: _in_order_of(before.get(name), after[name]) for name in dict.fromkeys([*names, *after])}


def _numbered(number: int) -> str:
    return f'<div xmlns="{XHTML}">{number}</div>'


def _with_narratives(value: Any, change: Callable[[str], str]) -> Any:
    """A copy in which each Narrative.div is changed."""
    if isinstance(value, list):
        return [_with_narratives(item, change) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: change(item) if name == "div" and isinstance(item, str) else _with_narratives(item, change)
        for name, item in value.items()
    }


def _printed(div: Element) -> str:
    alone = copy.deepcopy(div)
    alone.tail = None
    etree.cleanup_namespaces(alone)
    return etree.tostring(alone, encoding="unicode")


def _replace_node(old: Element, new: Element) -> None:
    parent = old.getparent()
    assert parent is not None  # who calls has looked
    parent.replace(old, new)


# Operations.


def _add(operation: Operation, _root: Element, place: Selected) -> None:
    if operation.attribute is not None:
        _add_attribute(operation, place)
        return
    if isinstance(place, Text) and operation.position in ("before", "after"):
        _insert(operation, place.element, place.index, is_before_text=operation.position == "before")
        return
    if not isinstance(place, Element):
        raise refused(f"In {operation}, nothing can be added to what the selector leads to.")
    if operation.position in ("before", "after"):
        parent = place.getparent()
        if parent is None:
            raise refused(f"In {operation}, nothing can stand beside the resource.")
        is_after = operation.position == "after"
        _insert(operation, parent, parent.index(place) + is_after, is_before_text=is_after)
        return
    if not isinstance(place.tag, str):
        raise refused(
            f"In {operation}, the selector leads to a comment or instruction, which has no content."
        )
    is_first = operation.position == "prepend"
    _insert(operation, place, 0 if is_first else len(place), is_before_text=is_first)


def _add_attribute(operation: Operation, place: Selected) -> None:
    assert operation.attribute is not None  # who calls has looked
    if not isinstance(place, Element) or not isinstance(place.tag, str):
        raise refused(f"In {operation}, the selector must lead to an element.")
    value = _only_text(operation)
    if not operation.attribute:
        return
    if operation.attribute in place.attrib:
        raise refused(f"In {operation}, the element has the attribute already.")
    place.set(operation.attribute, value)


def _insert(operation: Operation, parent: Element, index: int, *, is_before_text: bool) -> None:
    """Put the content in front of the child number `index`, before or after the text that is there."""
    added = [copy.deepcopy(child) for child in operation.content]
    text, before = operation.content.text or "", text_before(parent, index)
    rest = before if is_before_text else ""
    _set_text(parent, index, ("" if is_before_text else before) + text + ("" if added else rest))
    for number, child in enumerate(added):
        parent.insert(index + number, child)
    if added and rest:
        added[-1].tail = (added[-1].tail or "") + rest


def _replace(operation: Operation, root: Element, place: Selected) -> None:
    if isinstance(place, Attribute):
        place.element.set(place.name, _only_text(operation))
    elif isinstance(place, Text):
        _set_text(place.element, place.index, _only_text(operation))
    elif isinstance(place, Declaration):
        raise refused(f"In {operation}, the declaration of a namespace can't be replaced.")
    elif place is root:
        raise refused(f"In {operation}, the resource as a whole can't be replaced; a PUT does that.")
    else:
        [*others] = operation.content
        if len(others) != 1 or (operation.content.text or "").strip() or (others[0].tail or "").strip():
            raise refused(f"In {operation}, exactly one node must be given for one.")
        if isinstance(place.tag, str) != isinstance(others[0].tag, str):
            raise refused(f"In {operation}, a node can only be replaced by one of its kind.")
        new = copy.deepcopy(others[0])
        new.tail = place.tail
        _replace_node(place, new)


def _remove(operation: Operation, root: Element, place: Selected) -> None:
    if operation.white_space is not None and not isinstance(place, Element):
        raise refused(f"In {operation}, ws can only be given for an element.")
    if isinstance(place, Attribute):
        del place.element.attrib[place.name]
    elif isinstance(place, Text):
        _set_text(place.element, place.index, "")
    elif isinstance(place, Declaration):
        raise refused(f"In {operation}, the declaration of a namespace can't be removed.")
    elif place is root:
        raise refused(f"In {operation}, the resource as a whole can't be removed; a DELETE does that.")
    else:
        parent = place.getparent()
        assert parent is not None  # it is not the root
        index = parent.index(place)
        before, after = text_before(parent, index), place.tail or ""
        if operation.white_space in ("before", "both") and not before.strip():
            before = ""
        if operation.white_space in ("after", "both") and not after.strip():
            after = ""
        parent.remove(place)
        _set_text(parent, index, before + after)


_OPERATIONS: Mapping[str, Callable[[Operation, Element, Selected], None]] = {
    "add": _add,
    "replace": _replace,
    "remove": _remove,
}


def _only_text(operation: Operation) -> str:
    if len(operation.content):
        raise refused(f"In {operation}, text is expected, and not elements.")
    return operation.content.text or ""


def _set_text(element: Element, index: int, text: str) -> None:
    if index == 0:
        element.text = text or None
    else:
        element[index - 1].tail = text or None
