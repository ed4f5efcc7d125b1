"""`_summary` and `_elements`: which part of each resource an answer carries. https://hl7.org/fhir/R4/http.html#parameters"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from gitstore import Invalid, Issue
from gitstore.fhir import Resource
from gitstore.fhir.summary import MODES, elements, summary

PARAMETERS = ("_summary", "_elements")


class Subset(Struct, frozen=True):
    """A value of `_summary`, or the names of `_elements`."""

    mode: str = "false"
    names: frozenset[str] = frozenset()

    def of(self, resource: Resource) -> Resource:
        return elements(resource, self.names) if self.names else summary(resource, self.mode)


def subset(parameters: Mapping[str, str], *, of_bundle: bool = False) -> Subset | None:
    """The part that is asked for; None for the whole, and for the count that a Bundle can be asked for.

    Raises Invalid for values that `_summary` doesn't have, and where both parameters want to decide.
    """
    mode = parameters.get("_summary", "false")
    modes = (*MODES, "count") if of_bundle else MODES
    if mode not in modes:
        text = f"`_summary={mode[:80]}` can't be answered here; it can be {', '.join(modes)}."
        raise Invalid(Issue("error", "value", text))
    names = frozenset(filter(None, map(str.strip, parameters.get("_elements", "").split(","))))
    if names and mode != "false":
        raise Invalid(Issue("error", "value", "Either `_summary` or `_elements` can say what is left out."))
    if names:
        return Subset(names=names)
    return None if mode in ("false", "count") else Subset(mode)
