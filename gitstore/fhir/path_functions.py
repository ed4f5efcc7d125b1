"""The functions of FHIRPath that the definitions of R4 use, and some more. http://hl7.org/fhirpath/N1/#functions"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from gitstore.fhir import definitions, nodes
from gitstore.fhir.nodes import Node
from gitstore.fhir.path_operators import (
    FALSE,
    TRUE,
    Items,
    boolean,
    distinct,
    key,
    truth,
    union,
)

if TYPE_CHECKING:
    from gitstore.fhir.paths import Context, Path

MAX_MATCHED = 10_000
"""Characters of a text that matches() and replaceMatches() look at."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_LITERAL_REFERENCE = re.compile(
    r"(?:.*/)?([A-Z][A-Za-z]+)/[A-Za-z0-9.-]{1,64}(?:/_history/[A-Za-z0-9.-]{1,64})?"
)


# With criteria: arguments that are evaluated for each item.


def _where(items: Items, context: Context, criteria: Path) -> Items:
    return [item for item in items if truth(criteria([item], context))]


def _exists(items: Items, context: Context, criteria: Path | None = None) -> Items:
    if criteria is None:
        return TRUE if items else FALSE
    return boolean(any(truth(criteria([item], context)) for item in items))


def _all(items: Items, context: Context, criteria: Path) -> Items:
    return boolean(all(truth(criteria([item], context)) for item in items))


def _select(items: Items, context: Context, projection: Path) -> Items:
    return [result for item in items for result in projection([item], context)]


def _repeat(items: Items, context: Context, projection: Path) -> Items:
    found: list[Node] = []
    seen = set()
    waiting = deque(items)
    while waiting:
        for result in projection([waiting.popleft()], context):
            if key(result) not in seen:
                seen.add(key(result))
                found.append(result)
                waiting.append(result)
    return found


def _iif(items: Items, context: Context, criterion: Path, then: Path, otherwise: Path | None = None) -> Items:
    if truth(criterion(items, context)):
        return then(items, context)
    return () if otherwise is None else otherwise(items, context)


WITH_CRITERIA: dict[str, tuple[Callable[..., Items], int, int]] = {
    "where": (_where, 1, 1),
    "exists": (_exists, 0, 1),
    "all": (_all, 1, 1),
    "select": (_select, 1, 1),
    "repeat": (_repeat, 1, 1),
    "iif": (_iif, 2, 3),
}
"""Name -> function and how few and how many arguments it has; the arguments are compiled expressions."""


# Of collections.


def _empty(items: Items) -> Items:
    return FALSE if items else TRUE


def _not(items: Items) -> Items:
    value = truth(items)
    return () if value is None else boolean(not value)


def _count(items: Items) -> Items:
    return [("integer", len(items), None)]


def _is_distinct(items: Items) -> Items:
    return boolean(len({key(item) for item in items}) == len(items))


def _intersect(items: Items, keys: frozenset[Hashable]) -> Items:
    return distinct([item for item in items if key(item) in keys])


def _exclude(items: Items, keys: frozenset[Hashable]) -> Items:
    return [item for item in items if key(item) not in keys]


def _is_subset(items: Items, keys: frozenset[Hashable]) -> Items:
    return boolean(all(key(item) in keys for item in items))


WITH_KEYS: dict[str, Callable[[Items, frozenset[Hashable]], Items]] = {
    "intersect": _intersect,
    "exclude": _exclude,
    "subsetOf": _is_subset,
}
"""Name -> function; its one argument is a collection, of which it gets the keys, to look each item up in."""


def _sliced(start: int | None, end: int | None) -> Callable[[Items], Items]:
    return lambda items: items[start:end]


def _skip(items: Items, count: Items) -> Items:
    return items[max(0, _whole(count)) :]


def _take(items: Items, count: Items) -> Items:
    return items[: max(0, _whole(count))]


def _whole(items: Items) -> int:
    return items[0][1] if len(items) == 1 and isinstance(items[0][1], int) else 0


def _each_is(wanted: bool, quantifier: Callable[..., bool]) -> Callable[[Items], Items]:
    return lambda items: boolean(quantifier(item[1] is wanted for item in items))


def _trace(items: Items, *_description: Items) -> Items:
    return items


# Of the tree.


def _children(items: Items) -> Items:
    return [child for item in items for child in nodes.children(item)]


def _descendants(items: Items) -> Items:
    return [descendant for item in items for descendant in nodes.descendants(item)]


def _extension(items: Items, url: Items) -> Items:
    wanted = url[0][1] if url else None
    return [
        extension
        for item in items
        for extension in nodes.children_named(item, "extension")
        if isinstance(extension[1], dict) and extension[1].get("url") == wanted
    ]


def resolve(items: Items, context: Context) -> Items:
    """What references lead to; it is not in FUNCTIONS because it needs the context."""
    return [target for item in items for target in _targets(item, context)]


def _targets(item: Node, context: Context) -> Sequence[Node]:
    value = item[1]
    text = value.get("reference") if isinstance(value, dict) else value
    if not isinstance(text, str):
        return ()
    if text.startswith("#"):
        if text == "#":
            return [context.root]
        contained = context.contained.get(text[1:])
        return () if contained is None else [contained]
    found = context.find(text) if context.find else None
    if found is not None:
        return [found]
    type = literal_type(text) or (value.get("type") if isinstance(value, dict) else None)
    return [(type, {"resourceType": type}, None)] if isinstance(type, str) else ()


def literal_type(reference: str) -> str | None:
    """The type that a literal reference names: Patient of `http://example.org/fhir/Patient/1/_history/2`."""
    match = _LITERAL_REFERENCE.fullmatch(reference)
    return match[1] if match and definitions.is_resource_type(match[1]) else None


# Of values.


def _has_value(items: Items) -> Items:
    return boolean(len(items) == 1 and items[0][1] is not None and not isinstance(items[0][1], dict))


def _to_integer(items: Items) -> Items:
    value = items[0][1] if len(items) == 1 else None
    if isinstance(value, int):
        return [("integer", int(value), None)]
    return [("integer", int(value), None)] if isinstance(value, str) and _INTEGER.fullmatch(value) else ()


def _to_string(items: Items) -> Items:
    value = items[0][1] if len(items) == 1 else None
    if value is None or isinstance(value, dict):
        return ()
    return [("string", str(value).lower() if isinstance(value, bool) else str(value), None)]


def _of_text(function: Callable[..., Any]) -> Callable[..., Items]:
    """A function of one text and of texts or numbers, for collections; empty where one of them is missing."""

    def lifted(items: Items, *arguments: Items) -> Items:
        if len(items) != 1 or any(len(argument) != 1 for argument in arguments):
            return ()
        text = items[0][1]
        if not isinstance(text, str):
            return ()
        result = function(text, *[argument[0][1] for argument in arguments])
        if isinstance(result, bool):
            return boolean(result)
        return [("string" if isinstance(result, str) else "integer", result, None)]

    return lifted


def _substring(text: str, start: int, length: int | None = None) -> str:
    return text[max(0, start) :][:length]


def _matches(text: str, pattern: str) -> bool:
    return re.fullmatch(pattern, text[:MAX_MATCHED], re.DOTALL) is not None


def _replace_matches(text: str, pattern: str, replacement: str) -> str:
    return re.sub(pattern, replacement, text[:MAX_MATCHED])


FUNCTIONS: dict[str, tuple[Callable[..., Items], int, int]] = {
    "empty": (_empty, 0, 0),
    "not": (_not, 0, 0),
    "count": (_count, 0, 0),
    "distinct": (distinct, 0, 0),
    "isDistinct": (_is_distinct, 0, 0),
    "union": (union, 1, 1),
    "combine": (lambda items, other: [*items, *other], 1, 1),
    "first": (_sliced(0, 1), 0, 0),
    "last": (_sliced(-1, None), 0, 0),
    "tail": (_sliced(1, None), 0, 0),
    "single": (_sliced(0, 1), 0, 0),
    "skip": (_skip, 1, 1),
    "take": (_take, 1, 1),
    "allTrue": (_each_is(True, all), 0, 0),
    "anyTrue": (_each_is(True, any), 0, 0),
    "allFalse": (_each_is(False, all), 0, 0),
    "anyFalse": (_each_is(False, any), 0, 0),
    "children": (_children, 0, 0),
    "descendants": (_descendants, 0, 0),
    "extension": (_extension, 1, 1),
    "hasValue": (_has_value, 0, 0),
    "toInteger": (_to_integer, 0, 0),
    "toString": (_to_string, 0, 0),
    "startsWith": (_of_text(str.startswith), 1, 1),
    "endsWith": (_of_text(str.endswith), 1, 1),
    "contains": (_of_text(str.__contains__), 1, 1),
    "substring": (_of_text(_substring), 1, 2),
    "matches": (_of_text(_matches), 1, 1),
    "replaceMatches": (_of_text(_replace_matches), 2, 2),
    "length": (_of_text(len), 0, 0),
    "upper": (_of_text(str.upper), 0, 0),
    "lower": (_of_text(str.lower), 0, 0),
    "trace": (_trace, 1, 2),
}
"""Name -> function and how few and how many arguments it has; the arguments are evaluated before."""
