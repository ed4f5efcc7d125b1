"""JSON Patch: operations on the JSON of a resource as it is stored (RFC 6902).

Ours and not the library `jsonpatch`, whose `test` takes true for 1, and which answers a `remove` at `-` or an
operation that is no object with a TypeError.

An operation must leave a resource, so that the document as a whole can be tested and copied, but not replaced,
moved or removed. `_given` and `given` are two arrays to JSON Patch; who changes one of them sees to the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from gitstore.errors import Invalid, Issue, TooLarge
from gitstore.fhir import Resource, json
from gitstore.fhir.json import MAX_DEPTH
from gitstore.fhir.patch.result import copied, depth, equal, finished, refused
from gitstore.fhir.xml_elements import shown

MAX_OPERATIONS = 10_000

MAX_COPIED = 16 * 1024**2
"""Bytes that all `copy` of one patch may add: a few of them, each of the last one's result, would fill a disk."""

Tokens: TypeAlias = tuple[str, ...]

_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_WRONG_ESCAPE = re.compile(r"~(?![01])")
_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "add": ("value",),
    "remove": (),
    "replace": ("value",),
    "move": ("from",),
    "copy": ("from",),
    "test": ("value",),
}


class Operation(Struct, frozen=True):
    """One step of a patch. `number` is its place in the document, from 0."""

    number: int
    op: str
    path: Tokens
    source: Tokens
    value: Any

    def __str__(self) -> str:
        return f"operation {self.number + 1} ({self.op} {_pointer(self.path)})"


class JsonPatch(Struct, frozen=True):
    """The operations of one document, in order."""

    operations: tuple[Operation, ...]

    def apply(self, resource: Resource) -> Resource:
        """As `patch.Patch` says."""
        document = _Document(copied(resource))
        for operation in self.operations:
            document.do(operation)
        return finished(resource, document.root)


def parse(document: Any) -> JsonPatch:
    """The patch in a JSON document. Raises Invalid for what is malformed, TooLarge beyond MAX_OPERATIONS."""
    if not isinstance(document, list):
        raise Invalid(Issue("error", "structure", "A JSON Patch must be an array of operations."))
    if len(document) > MAX_OPERATIONS:
        raise TooLarge(f"The patch has {len(document)} operations; at most {MAX_OPERATIONS} may be.")
    return JsonPatch(tuple(_operation(number, item) for number, item in enumerate(document)))


def _operation(number: int, item: Any) -> Operation:
    if not isinstance(item, dict):
        raise _malformed(number, "is no object")
    op = item.get("op")
    if not isinstance(op, str) or op not in _MEMBERS:
        given = f"`{shown(op)}`" if isinstance(op, str) else "no text"
        raise _malformed(number, f"has as op {given}; expected one of {', '.join(_MEMBERS)}")
    for name in ("path", *_MEMBERS[op]):
        if name not in item:
            raise _malformed(number, f"has no {name}, which {op} needs")
    path = _tokens(number, "path", item["path"])
    source = _tokens(number, "from", item["from"]) if op in ("move", "copy") else ()
    return Operation(number, op, path, source, item.get("value"))


def _tokens(number: int, member: str, pointer: Any) -> Tokens:
    """The steps of a JSON Pointer. RFC 6901"""
    if not isinstance(pointer, str):
        raise _malformed(number, f"has a {member} that is no text")
    if pointer and not pointer.startswith("/"):
        raise _malformed(number, f"has the {member} `{shown(pointer)}`; a JSON Pointer begins with /")
    if _WRONG_ESCAPE.search(pointer):
        raise _malformed(number, f"has the {member} `{shown(pointer)}`; after ~ only 0 or 1 may come")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])


def _malformed(number: int, fault: str) -> Invalid:
    return Invalid(Issue("error", "structure", f"This is no JSON Patch: operation {number + 1} {fault}."))


def _pointer(tokens: Tokens) -> str:
    text = "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)
    return f"`{shown(text)}`" if text else "the whole document"


class _Document:
    """A document while operations are done to it."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._copied = 0

    def do(self, operation: Operation) -> None:
        _OPERATIONS[operation.op](self, operation)

    def add(self, operation: Operation) -> None:
        self._add(operation, copied(operation.value))

    def remove(self, operation: Operation) -> None:
        self._removed(operation, operation.path)

    def replace(self, operation: Operation) -> None:
        parent, key = self._existing(operation, operation.path)
        self._check_depth(operation, operation.value)
        parent[key] = copied(operation.value)

    def move(self, operation: Operation) -> None:
        source, path = operation.source, operation.path
        if path[: len(source)] == source and path != source:
            raise refused(f"In {operation}, {_pointer(source)} would move into itself.")
        if path == source:
            self._value(operation, source)
            return
        self._add(operation, self._removed(operation, source))

    def copy(self, operation: Operation) -> None:
        value = self._value(operation, operation.source)
        self._copied += len(json.dumps(value))
        if self._copied > MAX_COPIED:
            raise TooLarge(f"The patch copies more than {MAX_COPIED} bytes by {operation}.")
        self._add(operation, copied(value))

    def test(self, operation: Operation) -> None:
        if not equal(self._value(operation, operation.path), operation.value):
            raise refused(f"The test of the patch fails: {operation} finds another value.")

    def _add(self, operation: Operation, value: Any) -> None:
        parent = self._parent(operation, operation.path)
        self._check_depth(operation, value)
        token = operation.path[-1]
        if isinstance(parent, dict):
            parent[token] = value
        elif token == "-":
            parent.append(value)
        else:
            parent.insert(_index(operation, operation.path, len(parent) + 1), value)

    def _removed(self, operation: Operation, path: Tokens) -> Any:
        parent, key = self._existing(operation, path)
        return parent.pop(key)

    def _existing(self, operation: Operation, path: Tokens) -> tuple[Any, Any]:
        """The array or object around an existing value, and its index or name in there."""
        parent = self._parent(operation, path)
        return parent, _key(operation, parent, path)

    def _parent(self, operation: Operation, path: Tokens) -> Any:
        if not path:
            raise refused(f"In {operation}, the resource as a whole can't be changed; a PUT replaces it.")
        parent = self._value(operation, path[:-1])
        if not isinstance(parent, dict | list):
            raise refused(f"In {operation}, {_pointer(path[:-1])} is neither an object nor an array.")
        return parent

    def _value(self, operation: Operation, path: Tokens) -> Any:
        value = self.root
        for end in range(1, len(path) + 1):
            value = value[_key(operation, value, path[:end])]
        return value

    def _check_depth(self, operation: Operation, value: Any) -> None:
        """What lies too deep is refused at once: nothing after this has to reckon with it."""
        if len(operation.path) + depth(value) > MAX_DEPTH:
            raise refused(f"With {operation}, values would lie more than {MAX_DEPTH} deep in one another.")


def _key(operation: Operation, parent: Any, path: Tokens) -> str | int:
    """Where in `parent` the value at `path` is, which must exist."""
    token = path[-1]
    if isinstance(parent, list):
        return _index(operation, path, len(parent))
    if not isinstance(parent, dict) or token not in parent:
        raise refused(f"In {operation}, there is nothing at {_pointer(path)}.")
    return token


def _index(operation: Operation, path: Tokens, end: int) -> int:
    token = path[-1]
    if not _INDEX.fullmatch(token):
        raise refused(f"In {operation}, `{shown(token)}` is no number of an item that is there.")
    if int(token) >= end:
        raise refused(f"In {operation}, {_pointer(path)} lies beyond the end of the array.")
    return int(token)


_OPERATIONS: Mapping[str, Callable[[_Document, Operation], None]] = {
    "add": _Document.add,
    "remove": _Document.remove,
    "replace": _Document.replace,
    "move": _Document.move,
    "copy": _Document.copy,
    "test": _Document.test,
}
