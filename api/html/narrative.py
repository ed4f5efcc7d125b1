"""A resource's own narrative on a page: the HTML that FHIR allows there, less whatever could do or fetch something.

https://hl7.org/fhir/R4/narrative.html#security
"""

from __future__ import annotations

import re

from lxml import etree
from markupsafe import Markup, escape
from msgspec import Struct

from gitstore.fhir.narrative import NAMESPACE, faults
from gitstore.fhir.xhtml import NarrativeError, embedded

_KEPT = frozenset(
    re.findall(
        r"\S+",
        "abbr acronym address b bdo big blockquote br caption cite code col colgroup dd del dfn div dl dt em h4 h5 h6 "
        "hr i ins kbd li ol p pre q s samp small span strike strong sub sup table tbody td tfoot th thead tr tt u ul var",
    )
)
_HEADINGS = {"h1": "h4", "h2": "h5", "h3": "h6", "h4": "h6", "h5": "h6"}
"""Below those of the page, which has a heading for the narrative."""
_EMPTY = frozenset({"br", "col", "hr"})
_ATTRIBUTES = frozenset(
    {"abbr", "colspan", "dir", "lang", "rowspan", "scope", "span", "start", "summary", "title"}
)
_LINK = re.compile(r"(?:https?://[^\s\x00-\x20]+|#[A-Za-z0-9._:-]+)", re.IGNORECASE)
_ID = re.compile(r"[A-Za-z0-9._:-]+")
_PREFIX = "narrative-"
"""In front of the ids that a narrative gives, so that they are none of the page's."""


class Shown(Struct, frozen=True):
    """A narrative to be seen: `html` of it, or where it holds what it must not, its source as `text` and why."""

    html: Markup | None
    text: str = ""
    why: str = ""


def shown(div: object) -> Shown | None:
    """What a page shows of a Narrative.div; None where there is none. Nothing is ever fetched or expanded."""
    if not isinstance(div, str) or not div.strip():
        return None
    wrong = [fault for fault in faults(div) if "(txt-2)" not in fault]
    if wrong:
        return Shown(None, div, f"It {wrong[0]}.")
    try:
        root = _parsed(div)
    except (NarrativeError, etree.XMLSyntaxError) as error:
        return Shown(None, div, f"It can't be read: {error}.")
    return Shown(Markup("").join(_printed(root)))


def plain(div: str) -> str:
    """The text of a narrative without its elements; the source where it can't be read."""
    try:
        words = " ".join(str(each) for each in _parsed(div).itertext()).split()
    except (NarrativeError, etree.XMLSyntaxError):
        return div
    return " ".join(words)


def _parsed(div: str) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True
    )
    return etree.fromstring(embedded(div).encode("utf-8", "replace"), parser)


def _printed(element: etree._Element) -> list[Markup]:
    """An element that may stand there with its attributes that may; of all others what is in them."""
    name = str(element.tag).removeprefix(f"{{{NAMESPACE}}}")
    name = _HEADINGS.get(name, name)
    inside = [escape(element.text or "")]
    for child in element:
        inside += _printed(child)
        inside.append(escape(child.tail or ""))
    if name == "img":
        return [Markup("<span>[{}]</span>").format(element.get("alt") or "image")]
    if name == "a":
        name, attributes = "a", _of_link(element)
    elif name in _KEPT:
        attributes = _attributes(element)
    else:
        return inside
    start = Markup("<{}{}>").format(name, attributes)
    return [start] if name in _EMPTY else [start, *inside, Markup("</{}>").format(name)]


def _attributes(element: etree._Element) -> Markup:
    kept = [(str(name), str(value)) for name, value in element.items() if name in _ATTRIBUTES]
    id = element.get("id")
    if id and _ID.fullmatch(id):
        kept.append(("id", _PREFIX + id))
    return _joined(kept)


def _of_link(element: etree._Element) -> Markup:
    attributes = _attributes(element)
    href = (element.get("href") or "").strip()
    if not _LINK.fullmatch(href):
        return attributes
    if href.startswith("#"):
        return attributes + _joined([("href", f"#{_PREFIX}{href[1:]}")])
    return attributes + _joined([("href", href), ("rel", "noreferrer noopener external")])


def _joined(attributes: list[tuple[str, str]]) -> Markup:
    return Markup("").join(Markup(' {}="{}"').format(name, value) for name, value in attributes)
