"""The names of parameters: with a modifier, chained, and with _has; and which resource types know them.

```
name                                  Leaf("name")
name:exact                            Leaf("name", "exact")
subject:Patient.name                  Link("subject", "Patient", Leaf("name"))
patient.organization.name             Link("patient", None, Link("organization", None, Leaf("name")))
_has:Observation:patient:code         Has("Observation", "patient", Leaf("code"))
patient._has:Group:member:_id         Link("patient", None, Has("Group", "member", Leaf("_id")))
```
https://hl7.org/fhir/R4/search.html#chaining https://hl7.org/fhir/R4/search.html#has
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct

from gitstore.errors import Invalid, Issue
from gitstore.fhir.definitions import is_resource_type
from gitstore.search import common
from gitstore.search.asking import Asking, UnknownError, not_supported, shown, too_costly
from gitstore.search.criteria_kinds import criterion, keys_of, targets_of
from gitstore.search.filters import Chain, Filter, ReferredBy
from gitstore.search.parameters import Parameter

_HAS = "_has"


class Leaf(Struct, frozen=True):
    code: str
    modifier: str | None = None


class Link(Struct, frozen=True):
    code: str
    type: str | None
    rest: Name


class Has(Struct, frozen=True):
    type: str
    code: str
    rest: Name


Name: TypeAlias = Leaf | Link | Has


def parse(text: str, max_links: int) -> Name:
    """Raises Invalid for a _has without its three parts, and for a chain of too many links."""
    links: list[tuple[type[Link] | type[Has], str, str | None]] = []
    rest = text
    while True:
        if rest == _HAS or rest.startswith(f"{_HAS}:"):
            parts = rest.split(":", 3)
            if len(parts) < 4 or not all(parts):
                raise Invalid(
                    Issue("error", "value", f"{shown(text)}: _has needs `_has:Type:reference:parameter`.")
                )
            links.append((Has, parts[1], parts[2]))
            rest = parts[3]
        elif "." in rest:
            head, _, rest = rest.partition(".")
            code, colon, kind = head.partition(":")
            links.append((Link, code, kind if colon else None))
        else:
            break
        if len(links) > max_links:
            raise too_costly(f"{shown(text)} has more than {max_links} links.")
    code, colon, modifier = rest.partition(":")
    name: Name = Leaf(code, modifier if colon else None)
    for link, first, second in reversed(links):
        name = Has(first, second or "", name) if link is Has else Link(first, second, name)
    return name


def filter_of(asking: Asking, types: Sequence[str], written: str, name: Name, text: str) -> Filter | None:
    """What the parameter asks of resources of these types, each of which must know it; None without a value.

    `written` is its name as the client wrote it. Raises UnknownError, and Invalid for what can't be.
    """
    known = knowing(asking, types, name)
    if len(known) < len(types):
        missed = [type for type in types if type not in known]
        where = missed[0] + (f" and {len(missed) - 1} more types" if len(missed) > 1 else "")
        raise UnknownError(f"The parameter {shown(written)} is not known for {where}.")
    if isinstance(name, Link):
        inner_types = knowing(asking, linked(asking, types, name.code, name.type), name.rest)
        inner = filter_of(asking, inner_types, written, name.rest, text)
        parameters = asking.parameters(types, name.code)
        return None if inner is None else chain(asking, parameters, inner_types, inner)
    if isinstance(name, Has):
        inner = filter_of(asking, (name.type,), written, name.rest, text)
        parameters = asking.parameters((name.type,), name.code)
        if any(asking.canonical_keys(parameters, types)):
            raise not_supported(
                f"{shown(written)}: `{name.code}` holds canonicals, which _has can't follow here."
            )
        return None if inner is None else ReferredBy(keys_of(parameters), inner)
    if name.code in common.CODES:
        return common.filter_of(asking, written, name.code, name.modifier, text)
    return criterion(asking, written, asking.parameters(types, name.code), name.modifier, text)


def knowing(asking: Asking, types: Iterable[str], name: Name) -> tuple[str, ...]:
    """Those of the types whose resources the parameter can be asked of, in their order."""
    if isinstance(name, Leaf):
        return tuple(
            type for type in types if name.code in common.CODES or asking.registry.find(type, name.code)
        )
    if isinstance(name, Has):
        return _referred(asking, types, name)
    inner = knowing(asking, linked(asking, types, name.code, name.type), name.rest)
    return leading(asking, types, name.code, inner)


def linked(asking: Asking, types: Iterable[str], code: str, type: str | None) -> tuple[str, ...]:
    """The types that a link leads to, or only `type`. Raises Invalid where it is no reference, or not to it."""
    parameters = asking.parameters(types, code)
    if not parameters:
        return ()
    able = [parameter for parameter in parameters if parameter.kind == "reference"]
    if not able:
        kind = parameters[0].kind
        raise not_supported(f"{shown(code)} is of type {kind}; only references can be followed in a chain.")
    targets = targets_of(able)
    if type is None:
        return targets
    if not is_resource_type(type):
        raise not_supported(f"{shown(f'{code}:{type}')}: only a resource type can stand here in a chain.")
    if type not in targets:
        raise not_supported(f"{shown(code)} leads to no {type}.")
    return (type,)


def leading(asking: Asking, types: Iterable[str], code: str, inner: Sequence[str]) -> tuple[str, ...]:
    """Those of the types whose reference leads to one of `inner`."""
    wanted = frozenset(inner)
    return tuple(
        type
        for type in types
        if (parameter := asking.registry.find(type, code)) is not None
        and not wanted.isdisjoint(parameter.targets)
    )


def chain(asking: Asking, parameters: Iterable[Parameter], types: Sequence[str], inner: Filter) -> Chain:
    """References by these parameters to resources of these types that fit."""
    wanted = frozenset(types)
    able = [parameter for parameter in parameters if not wanted.isdisjoint(parameter.targets)]
    return Chain(keys_of(able), tuple(types), inner, *asking.canonical_keys(able, types))


def _referred(asking: Asking, types: Iterable[str], name: Has) -> tuple[str, ...]:
    if not is_resource_type(name.type):
        raise Invalid(Issue("error", "value", f"_has: {shown(name.type)} is no resource type."))
    parameter = asking.registry.find(name.type, name.code)
    if parameter is None or not knowing(asking, (name.type,), name.rest):
        return ()
    if parameter.kind != "reference":
        raise not_supported(f"_has: {shown(f'{name.type}.{name.code}')} is no reference.")
    return tuple(type for type in types if type in parameter.targets)
