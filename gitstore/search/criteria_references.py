"""What the values of references mean: ids, literal references, URLs and canonicals.

```
123                          that id, of whatever type the parameter leads to
Patient/123                  whatever version the reference names, or none
Patient/123/_history/2       only references to that version
http://this.server/fhir/Patient/123   the same as Patient/123
http://elsewhere/x, urn:uuid:…        what is written so
http://acme.org/vs|1.0       a canonical, of that version
```
https://hl7.org/fhir/R4/search.html#reference
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from msgspec.structs import replace

from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import is_id
from gitstore.search.asking import Asking, bad_value, not_supported, shown
from gitstore.search.escapes import split, unescape
from gitstore.search.filters import Hierarchy, Keys, References, ReferenceValue

_EXPECTED = "an id, Type/id, Type/id/_history/version, or an absolute URL, perhaps with |version"
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_LITERAL = re.compile(r"(?P<type>[A-Za-z]+)/(?P<id>[^/]+)(?:/_history/(?P<version>[^/]+))?")


def references(
    asking: Asking, name: str, keys: Keys, targets: Sequence[str], type: str | None, texts: Sequence[str]
) -> References:
    """References to these resources, relative or as URLs of this server. `type` is what :[type] names."""
    if type is not None and type not in targets:
        raise not_supported(f"{shown(name)} leads to no {type}, only to {_some(targets)}.")
    values = [_reference(asking, name, targets, type, text) for text in texts]
    return References(keys, (*values, *(url for value in values for url in _urls(asking, value))))


def _urls(asking: Asking, value: ReferenceValue) -> list[ReferenceValue]:
    """The URLs that the resource has here, as references are stored the way they were written."""
    if value.type is None:
        return []
    version = f"/_history/{value.version}" if value.version else ""
    path = f"{value.type}/{value.id}{version}"
    return [ReferenceValue(url=f"{base.rstrip('/')}/{path}") for base in asking.bases]


def _reference(
    asking: Asking, name: str, targets: Sequence[str], type: str | None, text: str
) -> ReferenceValue:
    before, *versions = [unescape(part) for part in split(text, "|")]
    if len(versions) > 1 or "" in (before, *versions):
        raise bad_value(name, text, _EXPECTED)
    local = None if versions else _local(asking, before)
    if local is None:
        if not _ABSOLUTE.fullmatch(before):
            raise bad_value(name, text, _EXPECTED)
        return ReferenceValue(url=before, version=versions[0] if versions else None)
    if type is not None and local.type not in (None, type):
        raise bad_value(name, text, f"a {type}")
    if local.type is None and (type is not None or len(targets) == 1):
        return ReferenceValue(type=type or targets[0], id=local.id)
    return local


def _local(asking: Asking, text: str) -> ReferenceValue | None:
    """The resource of this server that is meant; None where it is none."""
    for base in asking.bases:
        root = base.rstrip("/") + "/"
        if text.startswith(root):
            text = text[len(root) :]
            break
    else:
        if is_id(text):
            return ReferenceValue(id=text)
    match = _LITERAL.fullmatch(text)
    if match is None or not is_resource_type(match["type"]) or not is_id(match["id"]):
        return None
    version = match["version"]
    if version is not None and not is_id(version):
        return None
    return ReferenceValue(match["type"], match["id"], version=version)


def hierarchy(
    asking: Asking,
    name: str,
    keys: Keys,
    targets: Sequence[str],
    direction: Literal["below", "above"],
    text: str,
    canonical: bool,
) -> Hierarchy | References:
    """What refers to something below or above a resource, whose type refers to its own kind by partOf.

    Below a canonical are all its versions, or those that go on where the given one ends: below 1 is 1.2.
    """
    value = _reference(asking, name, targets, None, text)
    if canonical and direction == "below" and value.url is not None:
        return References(keys, (replace(value, below=value.version is not None),))
    if value.id is None or value.version is not None:
        raise not_supported(f"{shown(name)} takes an id or Type/id, not {shown(text)}.")
    able = [type for type in targets if parents(asking, type)]
    if value.type is not None:
        able = [type for type in able if type == value.type]
    if not able:
        raise not_supported(f"{shown(name)} isn't possible: no tree of partOf holds what it leads to.")
    if len(able) > 1:
        raise bad_value(name, text, f"Type/id with one of {_some(able)}")
    return Hierarchy(keys, able[0], value.id, parents(asking, able[0]), direction)


def parents(asking: Asking, type: str) -> Keys:
    """The keys of the parameters by which resources of a type refer to those of their own type that they are part of."""
    part_of = re.compile(rf"(?:^|\|)\s*{type}\.partOf\s*(?:\||$)")
    return tuple(
        parameter.key
        for parameter in asking.registry.of(type).values()
        if parameter.kind == "reference"
        and type in parameter.targets
        and part_of.search(asking.registry.definition(parameter).expression)
    )


def _some(types: Sequence[str]) -> str:
    return ", ".join(types[:6]) + (", …" if len(types) > 6 else "")
