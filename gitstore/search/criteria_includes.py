"""What _include and _revinclude name. https://hl7.org/fhir/R4/search.html#include

```
_include=Observation:subject              what the reference leads to
_include=Observation:subject:Patient      only Patients
_include=Observation:*                    by every reference of an Observation
_include=*                                by every reference of what is searched
_include:iterate=…  _include:recurse=…    from what was included, too; the second is the older name
_revinclude=Provenance:target             Provenances that refer to what was found
```
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from gitstore.fhir.definitions import RESOURCE_TYPES, is_resource_type
from gitstore.search.asking import Asking, UnknownError, not_supported, shown
from gitstore.search.criteria_kinds import keys_of, targets_of
from gitstore.search.filters import Include
from gitstore.search.parameters import Parameter

NAMES: Final = frozenset({"_include", "_revinclude"})
_ITERATE = frozenset({"iterate", "recurse"})


class _Asked(NamedTuple):
    """A value of _include or _revinclude, which stands in `written`. None in a part is any."""

    written: str
    source: str | None
    code: str | None
    target: str | None
    iterate: bool


def include(asking: Asking, types: Sequence[str], name: str, modifier: str | None, text: str) -> Include:
    """Raises UnknownError for what would bring in nothing, Invalid for another modifier than :iterate."""
    if modifier is not None and modifier not in _ITERATE:
        raise not_supported(f"{name} has no modifier {shown(modifier)}, but iterate.")
    asked = _parse(f"{name}={text}", text, modifier is not None)
    return _forward(asking, types, asked) if name == "_include" else _reverse(asking, types, asked)


def _parse(written: str, text: str, iterate: bool) -> _Asked:
    if text == "*":
        return _Asked(written, None, None, None, iterate)
    source, _, rest = text.partition(":")
    code, colon, target = rest.partition(":")
    for type in (source, target) if colon else (source,):
        if not is_resource_type(type):
            raise UnknownError(f"{shown(written)}: {shown(type)} is no resource type.")
    if not code:
        raise UnknownError(f"{shown(written)} names no parameter: expected Type:parameter.")
    return _Asked(written, source, None if code == "*" else code, target or None, iterate)


def _forward(asking: Asking, types: Sequence[str], asked: _Asked) -> Include:
    if asked.source is None:
        sources = RESOURCE_TYPES if asked.iterate else tuple(types)
    elif asked.source in types or asked.iterate:
        sources = (asked.source,)
    else:
        raise UnknownError(
            f"{shown(asked.written)} has no effect, as no {asked.source} is searched; "
            "only with :iterate an include goes on from what was included."
        )
    parameters = _references(asking, asked, sources, None if asked.target is None else (asked.target,))
    brought = frozenset(targets_of(parameters) if asked.target is None else (asked.target,))
    return _made(asking, asked, parameters, brought, brought)


def _reverse(asking: Asking, types: Sequence[str], asked: _Asked) -> Include:
    if asked.target is not None and asked.target not in types and not asked.iterate:
        raise UnknownError(f"{shown(asked.written)} has no effect, as no {asked.target} is searched.")
    if asked.target is not None and (asked.iterate or len(types) > 1):
        raise not_supported(
            f"{shown(asked.written)}: references to {asked.target} can't be told here from those to other types "
            "of the answer."
        )
    referred = RESOURCE_TYPES if asked.iterate else tuple(types)
    sources = RESOURCE_TYPES if asked.source is None else (asked.source,)
    parameters = _references(asking, asked, sources, referred)
    brought = frozenset(parameter.type for parameter in parameters)
    return _made(asking, asked, parameters, brought, frozenset(referred).intersection(targets_of(parameters)))


def _made(
    asking: Asking,
    asked: _Asked,
    parameters: Sequence[Parameter],
    brought: frozenset[str],
    referred: frozenset[str],
) -> Include:
    """`referred` are the types that canonicals may lead to."""
    return Include(
        asked.written.startswith("_revinclude"),
        keys_of(parameters),
        brought,
        asked.iterate,
        *asking.canonical_keys(parameters, sorted(referred)),
    )


def _references(
    asking: Asking, asked: _Asked, sources: Sequence[str], targets: Collection[str] | None
) -> list[Parameter]:
    """The references of these types, or those of one code, that can lead to one of the targets."""
    if asked.code is not None:
        parameters = list(asking.parameters(sources, asked.code))
        if not parameters or parameters[0].kind != "reference":
            what = "is no reference" if parameters else "is not known"
            raise UnknownError(f"{shown(asked.written)}: the parameter {shown(asked.code)} {what}.")
    else:
        parameters = [
            parameter
            for source in sources
            for parameter in asking.registry.of(source).values()
            if parameter.kind == "reference"
        ]
    wanted = None if targets is None else frozenset(targets)
    able = [
        parameter for parameter in parameters if wanted is None or not wanted.isdisjoint(parameter.targets)
    ]
    if not able:
        raise UnknownError(f"{shown(asked.written)} has no effect: no reference leads there.")
    return able
