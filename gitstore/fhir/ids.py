"""Ids, version ids and literal references. https://hl7.org/fhir/R4/datatypes.html#id"""

from __future__ import annotations

import hashlib
import itertools
import re
import uuid
from collections.abc import Callable
from typing import NamedTuple, NewType

from gitstore.errors import Invalid, Issue

VersionId = NewType("VersionId", int)
"""meta.versionId as the counter that it is here: 1 for the first version of a resource."""

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII)
_VERSION_ID = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


class ResourceId(NamedTuple):
    """Which resource: `Patient/example`, a literal reference without base and version."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"


def is_id(text: str) -> bool:
    """Whether text is an id that can stand in a URL: the grammar of FHIR without `.` and `..`."""
    return _ID.fullmatch(text) is not None and text not in (".", "..")


def check_id(text: object, expression: str | None = None) -> str:
    """The id itself. Raises Invalid (code value) with what is wrong about it."""
    if isinstance(text, str) and is_id(text):
        return text
    shown = repr(text)[:80] if not isinstance(text, str) else f"`{text[:80]}`"
    raise Invalid(
        Issue(
            "error",
            "value",
            f"{shown} is not an id: expected 1 to 64 of A-Z, a-z, 0-9, - and ., other than `.` and `..`.",
            expression,
        )
    )


def ids_of(seed: str) -> Callable[[], str]:
    """New ids, always the same ones for a seed: who can't guess that can't guess them. UUIDs by their form."""
    numbers = itertools.count()

    def next_id() -> str:
        digest = hashlib.sha256(f"{seed}/{next(numbers)}".encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))

    return next_id


def parse_version_id(text: str) -> VersionId | None:
    """The counter that text stands for; None where it can't be a version id of ours (`01`, `0`, `abc`)."""
    return VersionId(int(text)) if _VERSION_ID.fullmatch(text) else None
