"""What becomes of a narrative whose resource was patched: it must not say what isn't so any more.

https://hl7.org/fhir/R4/http.html#patch
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from gitstore.errors import Issue, Unprocessable
from gitstore.fhir import Resource
from gitstore.fhir.compare import same

Mode: TypeAlias = Literal["drop", "keep", "reject"]


def narrative_after(before: Resource, after: Resource, mode: Mode) -> tuple[Resource, tuple[Issue, ...]]:
    """The patched resource with a narrative that may be shown, and the warning that one was removed.

    A narrative that the patch itself changed stays, and so does one of which nothing but meta changed around.
    Otherwise `drop` removes it and `keep` leaves it; `reject` raises Unprocessable.
    """
    text = after.get("text")
    if text is None or mode == "keep" or not same(before.get("text"), text) or _says_the_same(before, after):
        return after, ()
    place = f"{after.get('resourceType')}.text"
    if mode == "reject":
        fault = "The patch changes the resource and not its narrative, which could contradict it then."
        raise Unprocessable(Issue("error", "business-rule", fault, place))
    warning = "The narrative was removed: the patch changed the resource, and not its narrative."
    without = {name: value for name, value in after.items() if name != "text"}
    return without, (Issue("warning", "business-rule", warning, place),)


def _says_the_same(before: Resource, after: Resource) -> bool:
    names = (before.keys() | after.keys()) - {"text", "meta"}
    return all(name in before and name in after and same(before[name], after[name]) for name in names)
