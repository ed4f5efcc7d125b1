"""What can be asked of the store. HTTP, a Bundle's entry and the CLI build these; below, no one can tell which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

from gitstore.access import FULL_ACCESS, Access
from gitstore.errors import Issue
from gitstore.fhir import Resource
from gitstore.fhir.conditions import Criteria
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.fhir.packed import Packed
from gitstore.version import Author, Commit, Idempotency, Version

if TYPE_CHECKING:
    from gitstore.snapshot import Snapshot

VersionTags: TypeAlias = frozenset[str]
"""The version ids that If-Match or If-None-Match names; `*` among them stands for any that exists."""

ANY_VERSION: VersionTags = frozenset("*")


class Create(Struct, frozen=True):
    """Store a new resource under an id of the store's making. https://hl7.org/fhir/R4/http.html#create

    `full_url` is what other entries of the same transaction call it. `unless` the criteria select a resource
    already, which is left as it is then. https://hl7.org/fhir/R4/http.html#ccreate
    `id` is the one that a store made for it before, of whose create this is a repetition; no resource ever had it here.
    """

    resource: Resource | Packed
    full_url: str | None = None
    unless: Criteria | None = None
    id: str | None = None


class Update(Struct, frozen=True):
    """Replace a resource, or create it under the client's id. https://hl7.org/fhir/R4/http.html#update

    The resource must say the same id as the target, or none where criteria select it: then it is created where they
    select nothing. With `skip_unchanged` nothing is written where the current version already has this content.
    """

    target: ResourceId | Criteria
    resource: Resource | Packed
    if_match: VersionTags | None = None
    if_none_match: VersionTags | None = None
    skip_unchanged: bool = False
    full_url: str | None = None


class Delete(Struct, frozen=True):
    """Remove a resource; its history stays. No effect where there is none. https://hl7.org/fhir/R4/http.html#delete"""

    target: ResourceId | Criteria
    if_match: VersionTags | None = None


class Patch(Struct, frozen=True):
    """Change a resource that is there. https://hl7.org/fhir/R4/http.html#patch

    `change` makes the new content of the current one, without touching that, and may tell of issues; it is called
    again where another write came between. What it raises, the patch raises.
    """

    target: ResourceId | Criteria
    change: Callable[[Resource], tuple[Resource, Sequence[Issue]]]
    if_match: VersionTags | None = None


class Restore(Struct, frozen=True):
    """Give a resource the content of one of its versions again, in a new version. docs/audit.md, "Restore"

    Without `version_id` the resource must be deleted, and gets back what it was before that. Stands alone in its unit,
    but for an Attest.
    """

    target: ResourceId
    version_id: VersionId | None = None
    if_match: VersionTags | None = None


class Revert(Struct, frozen=True):
    """Undo a whole commit: each resource that it changed is again as it was before. docs/audit.md, "Revert"

    Later versions of any of them are in the way. Stands alone in its unit, but for an Attest.
    """

    commit: Commit


class Ask(Struct, frozen=True):
    """Read within a transaction: `question` sees the record as the transaction leaves it, and may refuse it all.

    It runs under the writer's lock; bodies are read after that, from the Versions that it returns.
    """

    question: Callable[[Snapshot], Any]


class Attest(Struct, frozen=True):
    """Store a Provenance of all that the unit changes, in the same commit; nothing where it changes nothing.

    `resource` has no target: that becomes the versions which the unit makes. Stands last in the unit, and once.
    https://hl7.org/fhir/R4/provenance.html#header
    """

    resource: Resource


Interaction: TypeAlias = Create | Update | Delete | Patch | Restore | Revert | Ask | Attest


class Unit(Struct, frozen=True):
    """One unit of work: all of it happens in one commit, or none of it.

    `message` is the author's why, for the commit's body; without it, the reason of the Provenance. `interaction` names the unit in FHIR-Interaction:
    "transaction", or where it is None the one interaction itself. With `idempotency` it is done once: a unit whose key
    its author has used already is answered as the first time. `agent` tells through what the author works, for the
    commit. What the `access` does not allow is Forbidden, and what it does not see is not there. What was `accepted`
    before, by another node, is written as it stands: not validated again, with its references as they are, and as a new
    version also where it changes nothing. With a `seed`, which no one can guess, the unit has the same new ids however
    often it is prepared, and wherever.
    """

    interactions: Sequence[Interaction]
    author: Author
    request_id: str | None = None
    message: str | None = None
    interaction: str | None = None
    idempotency: Idempotency | None = None
    agent: str | None = None
    access: Access = FULL_ACCESS
    accepted: bool = False
    seed: str | None = None


Validate: TypeAlias = Callable[[Resource], Sequence[Issue]]
"""All that is wrong with a resource that is to be written."""


class Outcome(Struct, frozen=True):
    """What became of one interaction.

    `version` is the version made, or where `changed` is false the current one that was left as it is (None: there is
    none, and never was). `others` are made beside it, where criteria selected several resources to delete, or a commit
    that is undone had changed several. `answer` is what an Ask's question returned. `issues` are warnings about what was sent.
    """

    version: Version | None = None
    changed: bool = False
    answer: Any = None
    issues: tuple[Issue, ...] = ()
    others: tuple[Version, ...] = ()
