"""A search as clients write it, decoded pairs of name and value, made a Query.

```
birthdate=ge1970                 Dates(keys, "ge", low, high)
name:exact=Ada                   Strings(keys, "exact", ("Ada",))
identifier=urn:mrn|42            Tokens(keys, (TokenValue("urn:mrn", "42"),))
code=a,b                         Tokens(keys, (TokenValue(None, "a"), TokenValue(None, "b")))
subject:Patient.name=ada         Chain(keys, ("Patient",), Strings(keys of Patient.name, "starts", ("ada",)))
_has:Observation:patient:code=a  ReferredBy(keys of Observation.patient, Tokens(…))
_filter=active eq true           what gitstore.search.filter_meaning says
_sort=-date                      Query.sort, and so on: gitstore.search.results
```
A repeated parameter asks for both; an empty value for nothing. https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from gitstore.errors import Invalid, Issue
from gitstore.fhir import definitions
from gitstore.fhir.ids import ResourceId
from gitstore.search import chains, results
from gitstore.search.asking import (
    Asking,
    Limits,
    Terminology,
    UnknownError,
    any_of,
    bad_value,
    not_supported,
    shown,
    too_costly,
)
from gitstore.search.escapes import split
from gitstore.search.filter_meaning import meaning
from gitstore.search.filters import All, Any, Filter, Ids, OfTypes, Query, References, ReferenceValue
from gitstore.search.parameters import Registry

__all__ = ["Limits", "Terminology", "parse", "parse_filter"]

Pairs = Sequence[tuple[str, str]]

_SURROGATE = re.compile("[\ud800-\udfff]")
_TYPE, _FILTER, _QUERY = "_type", "_filter", "_query"
_FORM = results.IGNORED | {"_summary", "_elements"}
"""What a conditional interaction may carry besides its criteria: the form of the answer."""


def parse(
    registry: Registry,
    types: Sequence[str],
    pairs: Pairs,
    *,
    now: int,
    strict: bool = False,
    limits: Limits = Limits(),  # noqa: B008 - it never changes
    compartment: ResourceId | None = None,
    bases: Collection[str] = (),
    terminology: Terminology | None = None,
) -> Query:
    """The query that pairs of name and value ask for, with what of them had an effect.

    `types` are those searched; none stands for all, or those that can be in the compartment, and _type narrows them.
    `bases` are the URLs under which this server answers, `now` is an instant in microseconds.

    A parameter that is not known for all types that are searched is left out with a warning; if `strict`, that is
    Invalid too (code not-supported), as everything else that can't be understood or done is in any case: modifiers,
    values, chains through what is no reference, what lies beyond the limits (too-costly).
    """
    asking = Asking(registry, now, limits, bases, terminology)
    pairs = _checked(pairs, limits)
    named = [text for name, text in pairs if name == _TYPE]
    searched, filters = _searched(types, named, compartment)
    issues: list[Issue] = []

    def ignore(text: str) -> None:
        if strict:
            raise not_supported(text)
        issues.append(Issue("warning", "not-supported", f"{text} It was ignored."))

    found = results.Results(asking, searched, ignore)
    used: list[tuple[str, str]] = []
    for name, text in pairs:
        if name.partition(":")[0] in results.NAMES:
            effective = found.take(name, text)
            if effective is not None:
                used.append((name, effective))
        elif name == _TYPE or _takes(asking, searched, name, text, filters, ignore):
            used.append((name, text))
    if compartment is not None:
        filters.insert(0, _in_compartment(asking, searched, compartment))
    return Query(
        searched,
        All(tuple(filters)),
        found.sort,
        found.count,
        found.total,
        tuple(found.includes),
        found.contained,
        found.contained_type,
        found.summary,
        found.elements,
        tuple(used),
        tuple(issues),
    )


def parse_filter(
    registry: Registry,
    type: str,
    pairs: Pairs,
    *,
    now: int,
    limits: Limits = Limits(),  # noqa: B008 - it never changes
    bases: Collection[str] = (),
    terminology: Terminology | None = None,
) -> Filter:
    """The criteria of a conditional interaction on resources of a type.

    They are always strict. Raises Invalid also where they select nothing, since then they would fit everything, and
    for parameters that say how a search is answered. https://hl7.org/fhir/R4/http.html#ccreate
    """
    asking = Asking(registry, now, limits, bases, terminology)
    filters: list[Filter] = []
    for name, text in _checked(pairs, limits):
        bare = name.partition(":")[0]
        if bare in _FORM:
            continue
        if bare in results.NAMES or bare == _TYPE:
            raise not_supported(f"{shown(name)} selects no resource, and has no place among criteria.")
        _takes(asking, (type,), name, text, filters, _refuse)
    selecting = tuple(filter for filter in filters if filter != All())
    if not selecting:
        raise Invalid(
            Issue("error", "required", "The criteria select nothing: they would fit every resource.")
        )
    return All(selecting)


def _refuse(text: str) -> None:
    raise not_supported(text)


def _checked(pairs: Pairs, limits: Limits) -> list[tuple[str, str]]:
    """The pairs that have a value and aren't about the form of the answer alone."""
    if len(pairs) > limits.max_parameters:
        raise too_costly(f"There are {len(pairs)} parameters; at most {limits.max_parameters} may be.")
    for name, text in pairs:
        if _is_broken(name + text):
            shown_name = name.encode("ascii", "replace").decode("ascii")
            raise Invalid(
                Issue("error", "value", f"{shown(shown_name)} has characters that no text of FHIR has.")
            )
    return [(name, text) for name, text in pairs if text and name not in results.IGNORED]


def _is_broken(text: str) -> bool:
    """Whether it has what no database takes for text: U+0000, or half of a pair of UTF-16."""
    return "\0" in text or (not text.isascii() and _SURROGATE.search(text) is not None)


def _takes(
    asking: Asking,
    types: Sequence[str],
    name: str,
    text: str,
    filters: list[Filter],
    ignore: Callable[[str], None],
) -> bool:
    """Whether a parameter that selects has an effect; what it asks for is added to the filters."""
    bare = name.partition(":")[0]
    if bare == _QUERY:
        raise not_supported("_query: there are no named queries here.")
    if bare in (_FILTER, _TYPE) and bare != name:
        raise not_supported(f"{shown(name)}: {bare} has no modifiers.")
    if name == _FILTER:
        filters.append(meaning(asking, types, text))
        return True
    try:
        found = chains.filter_of(asking, types, name, chains.parse(name, asking.limits.max_chain), text)
    except UnknownError as error:
        ignore(error.text)
        return False
    if found is not None:
        filters.append(found)
    return found is not None


def _searched(
    types: Sequence[str], named: Sequence[str], compartment: ResourceId | None
) -> tuple[tuple[str, ...], list[Filter]]:
    """The types that are searched, never none, and what has to hold where _type leaves none of them."""
    if types:
        searched = tuple(types)
    elif compartment is not None:
        searched = tuple(sorted(type for type, codes in _members(compartment).items() if codes))
    else:
        searched = definitions.RESOURCE_TYPES
    if len(named) > 1:
        raise Invalid(
            Issue("error", "invalid", f"{_TYPE} may be given only once; it takes a list with commas.")
        )
    wanted = [type.strip() for text in named for type in split(text, ",") if type.strip()]
    for type in wanted:
        if not definitions.is_resource_type(type):
            raise bad_value(_TYPE, type, "a resource type")
    if not wanted:
        return searched, []
    narrowed = tuple(dict.fromkeys(type for type in wanted if type in searched))
    return (narrowed, []) if narrowed else (searched, [Any()])


# Compartments. https://hl7.org/fhir/R4/compartmentdefinition.html


def _members(compartment: ResourceId) -> dict[str, tuple[str, ...]]:
    found = definitions.compartments().get(compartment.type)
    if found is None:
        raise not_supported(f"There is no compartment of {shown(compartment.type)}.")
    return dict(found)


def _in_compartment(asking: Asking, types: Sequence[str], compartment: ResourceId) -> Filter:
    members = _members(compartment)
    filters: list[Filter] = []
    keys: list[int] = []
    for type in types:
        if type == compartment.type:  # in its own compartment, whether or not the definition says so by {def}
            filters.append(All((OfTypes((type,)), Ids((compartment.id,)))))
        for code in members.get(type, ()):
            keys += asking.keys((type,), code)  # none for {def}
    if keys:
        filters.insert(0, References(tuple(keys), (ReferenceValue(compartment.type, compartment.id),)))
    return any_of(filters)
