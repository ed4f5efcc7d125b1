"""Bundles of very many entries: each entry is kept as compressed JSON, and is a dict only while it is looked at.

As a dict a resource takes five to ten times the memory of its JSON.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gitstore.errors import Invalid
from gitstore.fhir import Resource, json
from gitstore.fhir.drawers import Drawers

MANY = 256 * 1024
"""Bytes from which on a Bundle is read so: below, it takes more time than memory is worth."""

_KINDS = ("batch", "transaction")


class Packed:
    """A value, as JSON that is known to be right; where `of_entry`, the resource of the Bundle's entry that lies there."""

    __slots__ = ("_drawers", "_of_entry", "_place")

    def __init__(self, drawers: Drawers, place: int, *, of_entry: bool = False) -> None:
        self._drawers = drawers
        self._place = place
        self._of_entry = of_entry

    def unpack(self) -> Any:
        """The value, made anew each time."""
        data = self._drawers.get(self._place)
        return json.loads_trusted(bytes(_ENTRY.decode(data).resource) if self._of_entry else data)

    def resource(self) -> Packed:
        """The resource of an entry which has one that is an object."""
        return Packed(self._drawers, self._place, of_entry=True)


def pack(resource: Resource, drawers: Drawers) -> Packed:
    """A resource as its JSON."""
    return Packed(drawers, drawers.put(json.dumps(resource)))


def unpacked(value: Any) -> Any:
    """The value itself, of a Packed what it holds."""
    return value.unpack() if value.__class__ is Packed else value


def loads(data: bytes) -> Any:
    """The same as `json.loads`, but for the entries of a batch or transaction, which are Packed.

    Raises Invalid, as that does.
    """
    try:
        bundle = _bundle(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Invalid):
        # Who looks at all of it finds the place of the first fault.
        return json.loads(data)
    return json.loads(data) if bundle is None else bundle


def _bundle(data: bytes) -> Resource | None:
    """A Bundle with Packed entries; None where it is something else. Raises where anything may be wrong with it."""
    entries = _BUNDLE.decode(data).entry
    at, size = data.find(memoryview(entries)), memoryview(entries).nbytes
    bundle: Resource = json.loads(data[:at] + b"null" + data[at + size :])
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") not in _KINDS:
        return None
    if bundle.get("entry", entries) is not None:
        return None  # the same stands somewhere before it
    drawers, packed = Drawers(), []
    for entry in _ENTRIES.decode(entries):
        one = bytes(entry)
        if json.is_deeper(one, json.loads(one), json.MAX_DEPTH - 2):
            return None
        packed.append(Packed(drawers, drawers.put(one)))
    drawers.close()
    return {**bundle, "entry": packed}


class _Bundle(msgspec.Struct):
    entry: json.Raw


class _Entry(msgspec.Struct):
    resource: json.Raw


_BUNDLE = msgspec.json.Decoder(_Bundle)
_ENTRIES = msgspec.json.Decoder(list[json.Raw])
_ENTRY = msgspec.json.Decoder(_Entry)
