"""What HTML a narrative may hold: no scripts, no forms, nothing from elsewhere.

https://hl7.org/fhir/R4/narrative.html#xhtml
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.entities import name2codepoint
from xml.parsers import expat

NAMESPACE = "http://www.w3.org/1999/xhtml"
MAX_DEPTH = 200
"""Elements of a narrative may lie this deep in one another."""

_ELEMENTS = frozenset(
    # chapters 7 to 11 (without section 4 of 9) and 15 of HTML 4.0, without forms, and with <a> and <img>
    re.findall(
        r"\S+",
        "a abbr acronym address b bdo big blockquote br caption center cite code col colgroup dd del dfn "
        "dir div dl dt em font h1 h2 h3 h4 h5 h6 hr i img ins kbd li ol p pre q s samp small span strike "
        "strong sub sup table tbody td tfoot th thead tr tt u ul var",
    )
)
_ATTRIBUTES = frozenset(
    re.findall(
        r"\S+",
        "abbr accesskey align alt axis bgcolor border cellhalign cellpadding cellspacing cellvalign char "
        "charoff charset cite class clear color colspan compact coords datetime dir face frame headers "
        "height href hreflang hspace id lang longdesc name noshade nowrap rel rev rowspan rules scope "
        "shape size span src start style summary tabindex title type valign value vspace width xml:id "
        "xml:lang xml:space",
    )
)
_IGNORED_IN_URLS = re.compile(r"[\s\x00-\x20]+")  # by browsers: java&#10;script: is a script
_SCRIPT_URL = re.compile(r"(?:javascript|vbscript|data:text)", re.IGNORECASE)
_ACTIVE_STYLE = re.compile(r"expression\s*\(|javascript:|@import|behavior\s*:|-moz-binding", re.IGNORECASE)
_NO_CONTENT = re.compile(r"[\s\u00a0]*")
_NOT_PREDEFINED = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]+|#x[0-9A-Fa-f]+);)([A-Za-z0-9]*);?")


def faults(div: str) -> tuple[str, ...]:
    """What is wrong with a Narrative.div, as ends of a sentence; nothing is ever fetched or expanded."""
    return tuple(dict.fromkeys(_Reader().read(div)))


class _Reader:
    """Goes through the events of one document and notes its faults."""

    def __init__(self) -> None:
        self._faults: list[str] = []
        self._depth = 0
        self._has_content = False

    def read(self, div: str) -> list[str]:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = _refuse_doctype
        parser.ProcessingInstructionHandler = self._instruction
        # Without a document type there are no entities but XML's five; the named ones of HTML are harmless.
        text = _NOT_PREDEFINED.sub(_character, div)
        try:
            parser.Parse(text.encode("utf-8", "surrogatepass"), True)
        except expat.ExpatError as error:
            where = f"line {error.lineno}, column {error.offset + 1}"
            return [f"is not well-formed XML: {expat.ErrorString(error.code)} at {where}"]
        except _RefusedError as refusal:
            return [str(refusal)]
        if not self._has_content:
            self._faults.append("has neither text nor an image (txt-2)")
        return self._faults

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _RefusedError(f"is nested more than {MAX_DEPTH} deep")
        namespace, _, local = name.rpartition(" ")
        if self._depth == 1 and (namespace, local) != (NAMESPACE, "div"):
            raise _RefusedError(f'is not a <div xmlns="{NAMESPACE}">')
        if namespace != NAMESPACE or local not in _ELEMENTS:
            self._faults.append(f"holds <{local}>, which is not allowed there (txt-1)")
        if local == "img":
            self._has_content = True
        for attribute, value in attributes.items():
            self._attribute(local, attribute.replace("http://www.w3.org/XML/1998/namespace ", "xml:"), value)

    def _attribute(self, element: str, name: str, value: str) -> None:
        if name not in _ATTRIBUTES:
            self._faults.append(f"holds <{element} {name}>, an attribute that is not allowed there (txt-1)")
        elif name in ("href", "src") and _SCRIPT_URL.match(_IGNORED_IN_URLS.sub("", value)):
            self._faults.append(f"holds <{element} {name}> with a script (txt-1)")
        elif name == "style" and _ACTIVE_STYLE.search(value):
            self._faults.append(f"holds <{element} style> with something that runs (txt-1)")

    def _end(self, _name: str) -> None:
        self._depth -= 1

    def _text(self, text: str) -> None:
        if not self._has_content and not _NO_CONTENT.fullmatch(text):
            self._has_content = True

    def _instruction(self, target: str, _data: str) -> None:
        self._faults.append(f"holds the processing instruction <?{target}>")


def _character(entity: re.Match[str]) -> str:
    code = name2codepoint.get(entity[1])
    return entity[0] if code is None else f"&#{code};"


class _RefusedError(Exception):
    """Nothing after this place needs to be looked at; the text is a fault."""


def _refuse_doctype(*_declaration: object) -> None:
    raise _RefusedError("has a document type, which could define entities")
