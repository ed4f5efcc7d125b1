"""The invariants of the base specification as functions of a node. https://hl7.org/fhir/R4/conformance-rules.html

Nearly all are compiled from their FHIRPath. The few in _NAMED are written by hand, because their expression
can't say what they mean or takes long to; the reasons stand at each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gitstore.fhir import definitions, paths
from gitstore.fhir.paths import Context

Check: TypeAlias = Callable[[Context], bool]


class Invariant(Struct, frozen=True):
    """`check` tells whether it holds for context.item; `text` says what is expected."""

    key: str
    severity: str
    text: str
    check: Check


@functools.cache
def invariants(path: str) -> tuple[Invariant, ...]:
    """What must hold for a type, backbone element, element (`Organization.telecom`) or profile."""
    return tuple(_invariant(constraint) for constraint in definitions.constraints(path))


def compiled(key: str, severity: str, expression: str) -> Invariant:
    """An invariant from its expression. Raises PathError for one that isn't known here.

    An empty result breaks it (`repeats = true or ...` without repeats), unless it is empty because an order
    can't be told, or it is only a warning.
    """
    path = paths.compile(expression)
    holds_when_empty = severity == "warning" or key in _HOLD_WHEN_EMPTY

    def check(context: Context) -> bool:
        result = paths.holds(path, context)
        return holds_when_empty or context.undecided if result is None else result

    return Invariant(key, severity, _TEXTS.get(key, f"`{expression}` must be true"), check)


def _invariant(constraint: definitions.Constraint) -> Invariant:
    named = _NAMED.get(constraint.key)
    if named is None:
        invariant = compiled(*constraint)
        return _of_contained(invariant) if constraint.key in _OF_CONTAINED else invariant
    return Invariant(constraint.key, constraint.severity, _TEXTS[constraint.key], named)


def _of_contained(invariant: Invariant) -> Invariant:
    """The same, but that it holds without a look at its expression where nothing is contained: nearly always."""
    check = invariant.check
    return replace(invariant, check=lambda context: "contained" not in context.item[1] or check(context))


def _contained_are_referred_to(context: Context) -> bool:
    """dom-3. The expression walks the resource anew for each that is contained."""
    resource = context.item[1]
    contained = resource.get("contained")
    if not contained:
        return True
    fragments = set(_fragments(resource))
    return all(
        f"#{child.get('id')}" in fragments or "#" in _fragments(child)
        for child in contained
        if isinstance(child, dict)
    )


def _fragments(value: Any) -> Iterator[str]:
    """All texts that may be links within the resource."""
    if isinstance(value, str):
        if value.startswith("#"):
            yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _fragments(child)
    elif isinstance(value, list):
        for child in value:
            yield from _fragments(child)


def _contained_reference_leads_somewhere(context: Context) -> bool:
    """ref-1. The expression knows nothing of `#` alone, by which what is contained refers to its container."""
    reference = context.item[1].get("reference")
    if not isinstance(reference, str) or not reference.startswith("#"):
        return True
    if reference == "#":
        return context.root is not context.resource
    return reference[1:] in context.contained


def _full_urls_are_unique(context: Context) -> bool:
    """bdl-7. The expression joins fullUrl and versionId to one text, in which two pairs can look alike."""
    bundle = context.item[1]
    if bundle.get("type") == "history":
        return True
    seen: set[tuple[Any, Any]] = set()
    for entry in bundle.get("entry", ()):
        if "fullUrl" in entry:
            meta = entry.get("resource", {}).get("meta", {})
            pair = entry["fullUrl"], meta.get("versionId")
            if pair in seen:
                return False
            seen.add(pair)
    return True


def _has_narrative_or_is_contained(context: Context) -> bool:
    """dom-6. The narrative of a container is for what it contains, too; the expression doesn't know that."""
    if context.root is not context.resource:
        return True
    text = context.item[1].get("text")
    return isinstance(text, dict) and "div" in text


_NAMED: dict[str, Check] = {
    "dom-6": _has_narrative_or_is_contained,
    "dom-3": _contained_are_referred_to,
    "ref-1": _contained_reference_leads_somewhere,
    "bdl-7": _full_urls_are_unique,
}

_OF_CONTAINED = frozenset({"dom-2", "dom-4", "dom-5"})

_HOLD_WHEN_EMPTY = frozenset({"bdl-8", "md-1", "ras-2"})
"""Their expression is empty where there is no fullUrl, no max, and no probability."""

_TEXTS = {
    "bdl-1": "only a searchset or history has a total",
    "bdl-2": "only the entries of a searchset have `search`",
    "bdl-3": "each entry of a batch, transaction or history has a request, and no other has",
    "bdl-4": "each entry of a batch-response, transaction-response or history has a response, and no other has",
    "bdl-5": "an entry has a resource, a request or a response",
    "bdl-7": "each fullUrl is there once, or its resources differ in meta.versionId",
    "bdl-8": "a fullUrl names no version",
    "bdl-9": "a document has an identifier with system and value",
    "bdl-10": "a document has a timestamp",
    "bdl-11": "a document begins with a Composition",
    "bdl-12": "a message begins with a MessageHeader",
    "con-3": "a Condition has a clinicalStatus unless it was entered in error",
    "con-4": "a Condition with an abatement is inactive, resolved or in remission",
    "con-5": "a Condition that was entered in error has no clinicalStatus",
    "cpt-2": "a ContactPoint with a value has a system",
    "dom-2": "what is contained contains nothing itself",
    "dom-3": "each contained resource is referred to from elsewhere in the resource, or refers to its container",
    "dom-4": "contained resources have no meta.versionId and no meta.lastUpdated",
    "dom-5": "contained resources have no security labels",
    "dom-6": "a resource should have a narrative",
    "ext-1": "an Extension has either a value or extensions, one of the two",
    "obs-3": "a reference range has low, high or text",
    "obs-6": "an Observation with a value has no dataAbsentReason",
    "obs-7": "where a component has the code of the Observation, the Observation has no value",
    "pat-1": "a contact has a name, a telecom, an address or an organization",
    "per-1": "a Period doesn't end before it starts",
    "qty-3": "a Quantity with a code has a system",
    "que-1": "groups have items, and displays have none",
    "que-2": "each linkId is there once",
    "rat-1": "a Ratio has numerator and denominator, or neither and an extension",
    "ref-1": "a reference that begins with # leads to a contained resource",
    "rng-2": "low is not higher than high",
    "sqty-1": "there is no comparator here",
}
