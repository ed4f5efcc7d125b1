"""The filter that one parameter with its modifier and value asks for; which modifiers each type admits.

https://hl7.org/fhir/R4/search.html#modifiers
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from gitstore.fhir.definitions import is_resource_type
from gitstore.search import criteria_values as values
from gitstore.search.asking import (
    Asking,
    all_of,
    any_of,
    bad_value,
    not_supported,
    shown,
    too_costly,
)
from gitstore.search.criteria_references import hierarchy, references
from gitstore.search.escapes import split, unescape
from gitstore.search.filters import (
    All,
    Any,
    Composite,
    Filter,
    Keys,
    Not,
    Present,
    Table,
    Tokens,
    TokenTexts,
    TokenValue,
)
from gitstore.search.parameters import Parameter
from gitstore.search.tokens import MEDIA_TYPES, term_code

MODIFIERS: Final[Mapping[str, frozenset[str]]] = {
    "number": frozenset({"missing"}),
    "date": frozenset({"missing"}),
    "quantity": frozenset({"missing"}),
    "string": frozenset({"missing", "exact", "contains"}),
    "token": frozenset({"missing", "text", "not", "above", "below", "in", "not-in", "of-type"}),
    "reference": frozenset({"missing", "identifier", "above", "below"}),
    "uri": frozenset({"missing", "above", "below"}),
    "composite": frozenset({"missing"}),
    "special": frozenset({"missing"}),
}
"""By type of parameter; references admit the names of resource types, too."""


def criterion(
    asking: Asking, name: str, parameters: Sequence[Parameter], modifier: str | None, text: str
) -> Filter | None:
    """What a value asks for of these parameters, one for each resource type; None where there is no value.

    `name` is what the client wrote before the `=`. Raises Invalid for a modifier that the parameters don't admit and
    for a value that isn't one.
    """
    check_modifier(name, parameters, modifier)
    texts = alternatives(asking, name, text)
    if not texts:
        return None
    if modifier == "missing":
        return Not(present(parameters)) if truth(name, text) else present(parameters)
    return any_of([_of_kind(asking, name, group, modifier, texts) for group in groups(parameters)])


def alternatives(asking: Asking, name: str, text: str) -> list[str]:
    """The values between commas, with their escapes, but for those that are empty."""
    texts = [part for part in split(text, ",") if part]
    if len(texts) > asking.limits.max_values:
        raise too_costly(f"{shown(name)} has more than {asking.limits.max_values} values.")
    return texts


def check_modifier(name: str, parameters: Iterable[Parameter], modifier: str | None) -> None:
    """Raises Invalid where a parameter doesn't admit the modifier: leaving it out would find something else."""
    for parameter in parameters:
        admitted = MODIFIERS[parameter.kind]
        if modifier is None or modifier in admitted:
            continue
        if parameter.kind == "reference" and is_resource_type(modifier):
            continue
        raise not_supported(
            f"{shown(name)}: a parameter of type {parameter.kind} has no modifier {shown(modifier)}, "
            f"but {', '.join(sorted(admitted))}."
        )


def groups(parameters: Iterable[Parameter]) -> list[list[Parameter]]:
    """The parameters by what they have in common: those of one group can be looked up together."""
    found: dict[tuple[str, ...], list[Parameter]] = {}
    for parameter in parameters:
        if parameter.kind != "composite" and parameter.table is None:
            continue
        kinds = (parameter.kind, *(component.kind for component in parameter.components))
        found.setdefault(kinds, []).append(parameter)
    return list(found.values())


def truth(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise bad_value(name, text, "true or false")
    return text == "true"


def keys_of(parameters: Iterable[Parameter]) -> tuple[int, ...]:
    return tuple(parameter.key for parameter in parameters)


def is_single(parameters: Iterable[Parameter]) -> bool:
    """Whether no resource has more than one value."""
    return all(parameter.single for parameter in parameters)


def targets_of(parameters: Iterable[Parameter]) -> tuple[str, ...]:
    """The types that any of these references may lead to, sorted."""
    return tuple(sorted({target for parameter in parameters for target in parameter.targets}))


def present(parameters: Sequence[Parameter]) -> Filter:
    """There is a value of one of the parameters, be it one without a code or literal reference.

    A composite has one where each component has: in R4 no element has just the first and another just the second.
    """
    tables: dict[Table, list[int]] = {}
    filters: list[Filter] = []
    for parameter in parameters:
        if parameter.table is None:
            filters.append(all_of([present([component]) for component in parameter.components]))
            continue
        tables.setdefault(parameter.table, []).append(parameter.key)
        tables.setdefault("tokens", []).extend(
            key for key in (parameter.text, parameter.identifier) if key is not None
        )
    return any_of([Present(table, tuple(keys)) for table, keys in tables.items() if keys] + filters)


def _of_kind(
    asking: Asking, name: str, parameters: Sequence[Parameter], modifier: str | None, texts: Sequence[str]
) -> Filter:
    """Several values, one of which must fit, for parameters of one kind."""
    kind, keys = parameters[0].kind, keys_of(parameters)
    if kind == "token":
        return _tokens(asking, name, parameters, modifier, texts)
    if kind == "reference":
        return _references(asking, name, parameters, modifier, texts)
    if kind == "string":
        return values.strings(name, keys, modifier, texts)
    if kind == "uri":
        return _uris(asking, parameters, modifier, texts)
    if kind == "composite":
        return any_of([_composite(asking, name, parameters, text) for text in texts])
    if kind == "special":
        return any_of([values.near(name, keys, text) for text in texts])
    single = is_single(parameters)
    return any_of(
        [values.compared(asking, name, kind, keys, *values.prefixed(text), single=single) for text in texts]
    )


# Tokens


def _tokens(
    asking: Asking, name: str, parameters: Sequence[Parameter], modifier: str | None, texts: Sequence[str]
) -> Filter:
    keys = keys_of(parameters)
    if modifier == "text":
        folded = tuple(values.folded(name, unescape(text)) for text in texts)
        return TokenTexts(_variants(name, [parameter.text for parameter in parameters]), "starts", folded)
    if modifier == "of-type":
        wanted = tuple(values.identifier_of_type(name, text) for text in texts)
        return Tokens(_variants(name, [parameter.of_type for parameter in parameters]), wanted)
    if modifier in ("in", "not-in"):
        members = any_of([members_of(asking, name, keys, unescape(text)) for text in texts])
        return Not(members) if modifier == "not-in" else members
    if modifier == "below" and asking.are_media_types(parameters):
        return any_of([_below_media_type(name, keys, text) for text in texts])
    if modifier in ("above", "below"):
        related = [value for text in texts for value in relatives(asking, name, modifier, text)]
        return Tokens(keys, tuple(dict.fromkeys(related)))
    found = Tokens(keys, tuple(values.token(name, text) for text in texts))
    return Not(found) if modifier == "not" else found


def members_of(asking: Asking, name: str, keys: Keys, value_set: str) -> Filter:
    """A code of a value set. Raises Invalid where the terminology can't tell what is in it."""
    codes = asking.terminology.codes_in(value_set) if asking.terminology is not None else None
    if codes is None:
        raise not_supported(f"{shown(name)}: what is in {shown(value_set)} can't be told here.")
    found = [TokenValue(system, code) for system in sorted(codes) for code in sorted(codes[system])]
    return Tokens(keys, tuple(found)) if found else Any()


def _below_media_type(name: str, keys: Keys, text: str) -> Filter:
    """A media type with whatever parameters. https://hl7.org/fhir/R4/search.html#mimetype"""
    value = values.token(name, text)
    if not value.code or value.system not in (None, MEDIA_TYPES):
        raise bad_value(name, text, "a media type such as text/xml")
    begin = term_code(MEDIA_TYPES, value.code) + ";"
    return Any((Tokens(keys, (value,)), TokenTexts(keys, "starts", (begin,), MEDIA_TYPES)))


def relatives(asking: Asking, name: str, modifier: str, text: str) -> tuple[TokenValue, ...]:
    """The code itself and those that subsume it (above) or that it subsumes (below)."""
    value = values.token(name, text)
    if not value.system or value.code is None:
        raise bad_value(name, text, "system|code, since only a code system can tell what is below or above")
    codes = None
    if asking.terminology is not None:
        find = asking.terminology.above if modifier == "above" else asking.terminology.below
        codes = find(value.system, value.code)
    if codes is None:
        raise not_supported(f"{shown(name)}: what is {modifier} {shown(text)} can't be told here.")
    return tuple(TokenValue(value.system, code) for code in sorted(codes | {value.code}))


def _variants(name: str, keys: Iterable[int | None]) -> tuple[int, ...]:
    found = tuple(key for key in keys if key is not None)
    if not found:
        raise not_supported(f"{shown(name)}: its values have nothing that this modifier could look at.")
    return found


# URIs, references and composites


def _uris(
    asking: Asking, parameters: Sequence[Parameter], modifier: str | None, texts: Sequence[str]
) -> Filter:
    """Where a resource has a version beside its url, `url|version` is one value for the two of them."""
    named = [parameter for parameter in parameters if parameter.code == "url"]
    types = [parameter.type for parameter in named if asking.registry.find(parameter.type, "version")]
    urls, versions = asking.keys(types, "url"), asking.keys(types, "version")
    plain: list[str] = []
    filters: list[Filter] = []
    for text in texts:
        url, *rest = split(text, "|", 1)
        if modifier is not None or not versions or not rest or not rest[0]:
            plain.append(text)
            continue
        version = Tokens(versions, (TokenValue(None, unescape(rest[0])),))
        filters.append(All((values.uris(urls, None, [url]), version)))
    if plain:
        filters.append(values.uris(keys_of(parameters), modifier, plain))
    return any_of(filters)


_DIRECTIONS: Final[Mapping[str, Literal["above", "below"]]] = {"above": "above", "below": "below"}


def _references(
    asking: Asking, name: str, parameters: Sequence[Parameter], modifier: str | None, texts: Sequence[str]
) -> Filter:
    keys, targets = keys_of(parameters), targets_of(parameters)
    if modifier == "identifier":
        identifiers = _variants(name, [parameter.identifier for parameter in parameters])
        return Tokens(identifiers, tuple(values.token(name, text) for text in texts))
    direction = _DIRECTIONS.get(modifier) if modifier is not None else None
    if direction is not None:
        canonical = not asking.are_literal(parameters)
        return any_of([hierarchy(asking, name, keys, targets, direction, text, canonical) for text in texts])
    return references(asking, name, keys, targets, modifier, texts)


def _composite(asking: Asking, name: str, parameters: Sequence[Parameter], text: str) -> Filter:
    kinds = [component.kind for component in parameters[0].components]
    parts = split(text, "$")
    if len(parts) != len(kinds) or not all(part.strip() for part in parts):
        raise bad_value(name, text, "$".join(kinds))
    filters = []
    for number, part in enumerate(parts):
        components = [parameter.components[number] for parameter in parameters]
        keys, targets = keys_of(components), targets_of(components)
        filters.append(values.component(asking, name, kinds[number], keys, targets, part))
    return Composite(tuple(filters))
