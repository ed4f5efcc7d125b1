"""What can be asked of the store. HTTP, a Bundle's entry and the CLI build these; below, no one can tell which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from gitstore.errors import Issue
from gitstore.fhir import Resource
from gitstore.fhir.ids import ResourceId
from gitstore.version import Author, Version

if TYPE_CHECKING:
    from gitstore.snapshot import Snapshot

VersionTags: TypeAlias = frozenset[str]
"""The version ids that If-Match or If-None-Match names; `*` among them stands for any that exists."""

ANY_VERSION: VersionTags = frozenset("*")


@dataclass(frozen=True, slots=True)
class Create:
    """Store a new resource under an id of the store's making. https://hl7.org/fhir/R4/http.html#create

    `full_url` is what other entries of the same transaction call it.
    """

    resource: Resource
    full_url: str | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Replace a resource, or create it under the client's id. https://hl7.org/fhir/R4/http.html#update

    `resource_id` is the target; the resource must say the same. With `skip_unchanged` nothing is written where
    the current version already has this content.
    """

    resource_id: ResourceId
    resource: Resource
    if_match: VersionTags | None = None
    if_none_match: VersionTags | None = None
    skip_unchanged: bool = False
    full_url: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a resource; its history stays. No effect where there is none. https://hl7.org/fhir/R4/http.html#delete"""

    resource_id: ResourceId
    if_match: VersionTags | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Read within a transaction: `question` sees the record as the transaction leaves it, and may refuse it all.

    It runs under the writer's lock; bodies are read after that, from the Versions that it returns.
    """

    question: Callable[[Snapshot], Any]


Interaction: TypeAlias = Create | Update | Delete | Ask


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of work: all of it happens in one commit, or none of it.

    `message` is the author's why, for the commit's body. `interaction` names the unit in FHIR-Interaction:
    "transaction", or where it is None the one interaction itself.
    """

    interactions: Sequence[Interaction]
    author: Author
    request_id: str | None = None
    message: str | None = None
    interaction: str | None = None


Validate: TypeAlias = Callable[[Resource], Sequence[Issue]]
"""All that is wrong with a resource that is to be written."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one interaction.

    `version` is the version made, or where `changed` is false the current one that was left as it is (None: there is
    none, and never was). `answer` is what an Ask's question returned. `issues` are warnings about what was sent.
    """

    version: Version | None = None
    changed: bool = False
    answer: Any = None
    issues: tuple[Issue, ...] = ()
