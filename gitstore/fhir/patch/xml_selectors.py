"""The selectors of XML Patch: the small part of XPath that leads to a node, walked without an XPath engine.

    /Patient/name[2]/given[1]/@value
    Patient/identifier[system/@value='urn:mrn']/value
    /f:Patient/f:text/xhtml:div/xhtml:p[2]/text()[1]

Names without a prefix are FHIR's, or of the default namespace of the patch where that is XHTML's; prefixes are
declared in the patch. A condition may go down several steps, which RFC 5261 doesn't have: FHIR's values are
attributes, and nothing could be selected by them otherwise. id() is refused; it needs a DTD.
RFC 5261, sections 4.1 and 4.2.2
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from lxml import etree
from msgspec import Struct

from gitstore.errors import Invalid, Issue
from gitstore.fhir.narrative import NAMESPACE as XHTML
from gitstore.fhir.patch.result import Work
from gitstore.fhir.xhtml import XML
from gitstore.fhir.xml import NAMESPACE as FHIR
from gitstore.fhir.xml_elements import shown

MAX_LENGTH = 4096
"""Characters of a selector."""

ANY = "*"
"""Stands for all names."""

Element: TypeAlias = etree._Element  # noqa: SLF001 - the name that lxml itself gives for annotations
_Comment: TypeAlias = etree._Comment  # noqa: SLF001 - likewise
_Instruction: TypeAlias = etree._ProcessingInstruction  # noqa: SLF001 - likewise

_NAME = r"[^\W\d][\w.\-]*(?::[^\W\d][\w.\-]*)?"
_STEP = rf"(?:{_NAME}|\*)"
ATTRIBUTE = re.compile(rf"@{_NAME}")
_STEP_OR_END = re.compile(
    rf"(?P<attribute>@{_NAME})"
    r"|namespace::(?P<namespace>[^\W\d][\w.\-]*)"
    r"|(?P<kind>text|comment|processing-instruction)\(\s*(?P<target>'[^']*'|\"[^\"]*\")?\s*\)"
    rf"|(?P<element>{_STEP})(?!\()"
)
_CONDITION = re.compile(
    r"\[\s*(?:(?P<position>[1-9][0-9]{0,8})"
    rf"|(?P<path>\.|@{_NAME}|{_STEP}(?:/{_STEP})*(?:/@{_NAME})?)\s*=\s*(?P<literal>'[^']*'|\"[^\"]*\"))\s*\]"
)


class Attribute(Struct, frozen=True):
    """An attribute that is there; `name` has its namespace in braces."""

    element: Element
    name: str


class Text(Struct, frozen=True):
    """The text in front of the child number `index` of an element, or behind its last child."""

    element: Element
    index: int


class Declaration(Struct, frozen=True):
    """The declaration of a namespace in scope of an element. JSON has no place for any."""

    element: Element


Selected: TypeAlias = "Element | Attribute | Text | Declaration"


class _Condition(Struct, frozen=True):
    """A position from 1, or else names of children, an attribute (or neither), and the text that is there."""

    position: int
    names: tuple[str, ...] = ()
    attribute: str | None = None
    literal: str = ""


class _Step(Struct, frozen=True):
    """One step: the kind of node, its name (ANY for all), and the conditions in their order."""

    kind: str
    name: str
    conditions: tuple[_Condition, ...]


class Selector(Struct, frozen=True):
    """A path to nodes of a document."""

    text: str
    steps: tuple[_Step, ...]

    def select(self, root: Element, work: Work) -> list[Selected]:
        """All nodes that the path leads to, in the order of the document.

        Raises TooLarge where there is too little work left.
        """
        found: list[Selected] = list(_met(self.steps[0], [root], work))
        for step in self.steps[1:]:
            found = [
                node
                for element in found
                if isinstance(element, Element)
                for node in _below(step, element, work)
            ]
        return found


def compile(text: str, namespaces: Mapping[str | None, str]) -> Selector:
    """A selector from its text, with the namespaces in scope of it. Raises Invalid for what isn't one."""
    if len(text) > MAX_LENGTH:
        raise _malformed(text, f"is longer than {MAX_LENGTH} characters")
    path = text.strip()
    position = 1 if path.startswith("/") else 0
    steps: list[_Step] = []
    while True:
        match = _STEP_OR_END.match(path, position)
        if match is None:
            raise _malformed(text, f"is not understood at character {position + 1}")
        kind, name = _kind_and_name(text, match, namespaces)
        conditions, position = _conditions(text, path, match.end(), namespaces)
        if conditions and kind in ("attribute", "namespace"):
            raise _malformed(text, "has a condition where none can be")
        steps.append(_Step(kind, name, conditions))
        if position == len(path):
            break
        if path[position] != "/" or kind != "element":
            raise _malformed(text, f"is not understood at character {position + 1}")
        position += 1
    if steps[0].kind != "element":
        raise _malformed(text, "must begin with an element")
    return Selector(text, tuple(steps))


def attribute_name(name: str, namespaces: Mapping[str | None, str]) -> str:
    """The name of an attribute with its namespace in braces; without a prefix it has none."""
    return _qualified(name, name, namespaces) if ":" in name else name


def _kind_and_name(text: str, match: re.Match[str], namespaces: Mapping[str | None, str]) -> tuple[str, str]:
    if match["attribute"]:
        return "attribute", attribute_name(match["attribute"][1:], namespaces)
    if match["namespace"]:
        return "namespace", match["namespace"]
    if match["kind"]:
        if match["target"] and match["kind"] != "processing-instruction":
            raise _malformed(text, f"gives {match['kind']}() an argument")
        return match["kind"], (match["target"] or "")[1:-1] or ANY
    return "element", _qualified(text, match["element"], namespaces)


def _conditions(
    text: str, path: str, position: int, namespaces: Mapping[str | None, str]
) -> tuple[tuple[_Condition, ...], int]:
    found: list[_Condition] = []
    while path.startswith("[", position):
        match = _CONDITION.match(path, position)
        if match is None:
            raise _malformed(text, f"has a condition at character {position + 1} that is none of RFC 5261's")
        position = match.end()
        if match["position"]:
            found.append(_Condition(int(match["position"])))
            continue
        names, _, attribute = match["path"].partition("@")
        found.append(
            _Condition(
                0,
                tuple(
                    _qualified(text, name, namespaces) for name in names.split("/") if name not in ("", ".")
                ),
                attribute_name(attribute, namespaces) if attribute else None,
                match["literal"][1:-1],
            )
        )
    return tuple(found), position


def _qualified(text: str, name: str, namespaces: Mapping[str | None, str]) -> str:
    if name == ANY:
        return ANY
    prefix, _, local = name.rpartition(":")
    if not prefix:
        default = namespaces.get(None)
        return f"{{{XHTML if default == XHTML else FHIR}}}{local}"
    uri = XML if prefix == "xml" else namespaces.get(prefix)
    if uri is None:
        raise _malformed(text, f"uses the prefix `{shown(prefix)}`, which is not declared")
    return f"{{{uri}}}{local}"


def _malformed(text: str, fault: str) -> Invalid:
    return Invalid(
        Issue("error", "structure", f"This is no XML Patch: the selector `{shown(text)}` {fault}.")
    )


# In a document.


def elements(parent: Element) -> Iterator[Element]:
    """The children that are elements, without comments and processing instructions."""
    return (child for child in parent if isinstance(child.tag, str))


def text_before(element: Element, index: int) -> str:
    """The text in front of the child number `index`, or behind the last child."""
    return (element.text if index == 0 else element[index - 1].tail) or ""


def _below(step: _Step, parent: Element, work: Work) -> Sequence[Selected]:
    work.spend(1 + len(parent))
    if step.kind == "element":
        return _met(step, list(elements(parent)), work)
    if step.kind == "attribute":
        return [Attribute(parent, step.name)] if step.name in parent.attrib else []
    if step.kind == "namespace":
        return [Declaration(parent)] if step.name in parent.nsmap else []
    found: list[Selected] = []
    if step.kind == "text":
        texts = [parent.text, *(child.tail for child in parent)]
        found = [Text(parent, index) for index, text in enumerate(texts) if text]
    elif step.kind == "comment":
        found = [child for child in parent if isinstance(child, _Comment)]
    else:
        found = [
            child for child in parent if isinstance(child, _Instruction) and step.name in (ANY, child.target)
        ]
    for condition in step.conditions:
        if not condition.position:
            return []
        found = found[condition.position - 1 : condition.position]
    return found


def _met(step: _Step, candidates: list[Element], work: Work) -> list[Element]:
    found = [element for element in candidates if step.name in (ANY, element.tag)]
    for condition in step.conditions:
        if condition.position:
            found = found[condition.position - 1 : condition.position]
        else:
            found = [element for element in found if _is_met(condition, element, work)]
    return found


def _is_met(condition: _Condition, element: Element, work: Work) -> bool:
    found = [element]
    for name in condition.names:
        work.spend(sum(1 + len(parent) for parent in found))
        found = [child for parent in found for child in elements(parent) if name in (ANY, child.tag)]
    work.spend(len(found))
    if condition.attribute is not None:
        return any(each.get(condition.attribute) == condition.literal for each in found)
    return any("".join(_texts(each, work)) == condition.literal for each in found)


def _texts(element: Element, work: Work) -> Iterator[str]:
    """The text of an element and all in it; what comments say is none."""
    for event, node in etree.iterwalk(element, events=("start", "end", "comment", "pi")):
        work.spend(1)
        if event == "start":
            yield node.text or ""
        elif node is not element:
            yield node.tail or ""
