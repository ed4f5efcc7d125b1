"""The parameters that every resource has and that have no rows of their own: _id, _lastUpdated, _text and so on.

https://hl7.org/fhir/R4/search.html#all
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gitstore.fhir.ids import is_id
from gitstore.search.asking import Asking, any_of, bad_value, not_supported, shown
from gitstore.search.criteria_kinds import alternatives, truth
from gitstore.search.criteria_values import moments, prefixed
from gitstore.search.escapes import unescape
from gitstore.search.filters import All, Any, Comparison, Filter, Ids, Listed, Not, Updated
from gitstore.search.words import words

CODES: Final = frozenset({"_id", "_lastUpdated", "_text", "_content", "_list"})
_MODIFIERS: Final = {"_id": ("missing", "not"), "_lastUpdated": ("missing",)}


def filter_of(asking: Asking, name: str, code: str, modifier: str | None, text: str) -> Filter | None:
    """What one of CODES asks for; None where there is no value. Raises Invalid."""
    if modifier is not None and modifier not in _MODIFIERS.get(code, ()):
        raise not_supported(f"{shown(name)}: {code} has no modifier {shown(modifier)}.")
    texts = alternatives(asking, name, text)
    if not texts:
        return None
    if modifier == "missing":
        return Any() if truth(name, text) else All()  # no resource is without
    if code == "_id":
        found = ids([unescape(text) for text in texts])
        return Not(found) if modifier == "not" else found
    if code == "_lastUpdated":
        return any_of([updated(asking, name, *prefixed(unescape(text))) for text in texts])
    if code == "_list":
        return _listed(asking, name, texts)
    return words(name, "narrative" if code == "_text" else "content", text)


def ids(texts: Sequence[str]) -> Filter:
    """What can't be an id is that of no resource."""
    found = tuple(text for text in texts if is_id(text))
    return Ids(found) if found else Any()


def updated(asking: Asking, name: str, comparison: Comparison, text: str) -> Updated:
    return Updated(comparison, *moments(asking.now, name, text, comparison))


def _listed(asking: Asking, name: str, texts: Sequence[str]) -> Listed:
    """`_list=1`; `_list=List/1` is understood, too."""
    named = [text.removeprefix("List/") for text in texts]
    for text in named:
        if text.startswith("$"):
            raise not_supported(
                f"{shown(name)}: {shown(text)} is not kept here, only List resources by their id."
            )
        if not is_id(text):
            raise bad_value(name, text, "the id of a List")
    return Listed(tuple(named), asking.keys(("List",), "item"))
