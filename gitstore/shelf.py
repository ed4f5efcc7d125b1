"""What is to be written: printed and extracted before the lock, and in a unit of very many writes compressed until then.

A resource as a file and as rows takes five times the memory of its JSON; compressed together with its neighbours,
which are much like it, a third.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from gitstore.fhir.drawers import Drawers
from gitstore.fhir.stored import Template
from gitstore.search.rows import Rows, pack_rows, unpack_rows


class Printed(NamedTuple):
    """A resource in its stored form, and what searches will find it by."""

    template: Template
    contents: Rows | None


class Shelved:
    """The same, on a shelf. It is made anew each time that it is asked for."""

    __slots__ = ("_place", "_shelf")

    def __init__(self, shelf: Shelf, place: int) -> None:
        self._shelf = shelf
        self._place = place

    @property
    def template(self) -> Template:
        return self._shelf.item(self._place)[0]

    @property
    def contents(self) -> Rows | None:
        packed = self._shelf.item(self._place)[1]
        return None if packed is None else unpack_rows(packed)


class Shelf:
    """Keeps what is printed for one unit."""

    def __init__(self) -> None:
        self._drawers = Drawers()

    def put(self, printed: Printed) -> Shelved:
        contents = None if printed.contents is None else pack_rows(printed.contents)
        return Shelved(self, self._drawers.put(_ENCODER.encode((printed.template, contents))))

    def item(self, place: int) -> tuple[Template, bytes | None]:
        """The template, and the rows packed."""
        return _DECODER.decode(self._drawers.get(place))


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[Template, bytes | None])
