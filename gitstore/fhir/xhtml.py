"""Narratives on their way between JSON, where they are text, and XML, where they are elements.

The text is kept as it is wherever it can be: `&quot;` and `"` mean the same, but only one of them was signed.
https://hl7.org/fhir/R4/narrative.html
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from html.entities import name2codepoint
from xml.parsers import expat

from gitstore.fhir.narrative import MAX_DEPTH, NAMESPACE

XML = "http://www.w3.org/XML/1998/namespace"

_DECLARATION = re.compile(r"<\?xml\s[^>]*\?>")
_ENTITY = re.compile(r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|&([A-Za-z][A-Za-z0-9]*);", re.DOTALL)
_OF_XML = frozenset({"amp", "lt", "gt", "quot", "apos"})
_TAG = re.compile(rb"""<(?:[^"'>]|"[^"]*"|'[^']*')*+>""")
_REFERENCES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_REFERENCES_IN_ATTRIBUTE = str.maketrans(
    {"&": "&amp;", "<": "&lt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


class NarrativeError(ValueError):
    """A narrative that can't stand in XML; the text is the end of a sentence that says why."""


def embedded(div: str) -> str:
    """A Narrative.div as it can stand in a document of FHIR's XML.

    That is the text itself, without an XML declaration, and with numbers for the named characters of HTML,
    which XML doesn't know: `&nbsp;` becomes `&#160;`. Raises NarrativeError for what is no XHTML div.
    """
    text = _DECLARATION.sub("", div, count=1) if div.startswith("<?xml") else div
    if "&" in text:
        text = _ENTITY.sub(_as_number, text)
    parser = expat.ParserCreate("utf-8", " ")

    def check_root(name: str, _attributes: Mapping[str, str]) -> None:
        parser.StartElementHandler = None
        if name != f"{NAMESPACE} div":
            raise NarrativeError(f'is no <div xmlns="{NAMESPACE}">')

    parser.StartElementHandler = check_root
    parser.StartDoctypeDeclHandler = _refuse_document_type
    try:
        parser.Parse(text.encode("utf-8", "surrogatepass"), True)
    except expat.ExpatError as error:
        where = f"line {error.lineno}, column {error.offset + 1}"
        raise NarrativeError(f"is no XML: {expat.ErrorString(error.code)} at {where}") from error
    return text


def _as_number(entity: re.Match[str]) -> str:
    name = entity[1]
    if name is None or name in _OF_XML or name not in name2codepoint:
        return entity[0]
    return f"&#{name2codepoint[name]};"


def _refuse_document_type(*_declaration: object) -> None:
    raise NarrativeError("has a document type")


class Div:
    """One narrative while it is read: sees all of its elements, and is then the text for JSON.

    `start` is the place of its first byte in the document; `prefixes` are those that its first tag declares,
    None for the namespace of names without one. Its first element must be told to `open` as the others.
    """

    def __init__(self, start: int, prefixes: list[str | None]) -> None:
        self._start = start
        self._declared = Counter(prefixes)
        self._stands_alone = True
        self._namespaces: list[str] = []  # those of the elements that are open
        self._printed: list[str] = []
        self._in_tag = False

    @property
    def depth(self) -> int:
        return len(self._namespaces)

    def declare(self, prefix: str | None) -> None:
        self._declared[prefix] += 1

    def undeclare(self, prefix: str | None) -> None:
        self._declared[prefix] -= 1

    def open(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins. Names are namespace, local name and prefix with a space between, as expat has them."""
        if self.depth == MAX_DEPTH:
            raise NarrativeError(f"is nested more than {MAX_DEPTH} deep")
        namespace, local, prefix = split(name)
        self._use(prefix)
        self._close_tag()
        declared = {} if self._namespaces[-1:] == [namespace] else {"xmlns": namespace}
        given: dict[str, str] = {}
        for attribute, value in attributes.items():
            uri, attribute_name, attribute_prefix = split(attribute)
            if uri:
                attribute_prefix = attribute_prefix or "xml"
                attribute_name = f"{attribute_prefix}:{attribute_name}"
                self._use(attribute_prefix)
                if uri != XML:
                    declared[f"xmlns:{attribute_prefix}"] = uri
            given[attribute_name] = value
        printed = "".join(f' {key}="{_in_attribute(value)}"' for key, value in (declared | given).items())
        self._printed.append(f"<{local}{printed}")
        self._in_tag = True
        self._namespaces.append(namespace)

    def _use(self, prefix: str | None) -> None:
        if prefix != "xml" and not self._declared[prefix]:
            self._stands_alone = False

    def text(self, text: str) -> None:
        self._close_tag()
        self._printed.append(text.translate(_REFERENCES))

    def close(self, name: str) -> None:
        self._namespaces.pop()
        if self._in_tag:
            self._printed.append("/>")
            self._in_tag = False
        else:
            self._printed.append(f"</{split(name)[1]}>")

    def _close_tag(self) -> None:
        if self._in_tag:
            self._printed.append(">")
            self._in_tag = False

    def as_text(self, document: bytes, end: int) -> str:
        """The narrative as it lies in the document, its end tag at `end`.

        Where it needs prefixes that are declared outside of it, or the namespace from there, it is printed anew:
        without prefixes and comments, and each character that XML knows by a name or number as itself.
        """
        if not self._stands_alone:
            return "".join(self._printed)
        first = _TAG.match(document, self._start)
        assert first is not None
        stop = first.end() if first[0].endswith(b"/>") else document.index(b">", end) + 1
        return document[self._start : stop].decode("utf-8")


def split(name: str) -> tuple[str, str, str | None]:
    """Namespace, local name and prefix of a name as expat has it; no namespace is "", no prefix None."""
    parts = name.split(" ")
    if len(parts) == 1:
        return "", name, None
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None


def _in_attribute(text: str) -> str:
    return text.translate(_REFERENCES_IN_ATTRIBUTE)
