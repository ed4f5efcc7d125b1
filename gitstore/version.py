"""The nouns of the record: Author, Commit, Version."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from gitstore.errors import Invalid, Issue
from gitstore.fhir.ids import ResourceId, VersionId

Verb = Literal["POST", "PUT", "DELETE"]
"""What history reports as request.method. https://hl7.org/fhir/R4/http.html#history"""


class Author(Struct, frozen=True):
    """Who is responsible for a unit of work: the author of its commit."""

    name: str
    email: str


ANONYMOUS = Author("anonymous", "anonymous@fhir.invalid")

SERVER = Author("git-fhir", "git-fhir@fhir.invalid")
"""The committer of every commit."""


class Idempotency(Struct, frozen=True):
    """A request that is to be done once, however often it is sent: the client's key, and a digest of what it sent.

    The digest is 64 hexadecimal digits. https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
    """

    key: str
    digest: str

    def __str__(self) -> str:
        return f"{self.key} {self.digest}"

    @classmethod
    def parse(cls, text: str) -> Idempotency:
        """Undoes str(). Raises Invalid."""
        match = _IDEMPOTENCY.fullmatch(text)
        if match is None:
            raise Invalid(
                Issue("error", "value", "An idempotency key is 1 to 128 visible characters of ASCII.")
            )
        return cls(match[1], match[2])


_IDEMPOTENCY = re.compile(r"([\x21-\x7e]{1,128}) ([0-9a-f]{64})", re.ASCII)


class Commit(Struct, frozen=True):
    """One unit of work, as the record holds it.

    `sequence` is its place in the first-parent chain of main, 1 for the first commit; `last_updated` is
    in microseconds since 1970 UTC and increases with it.
    """

    id: str
    sequence: int
    last_updated: int
    interaction: str
    author: Author
    request_id: str | None
    idempotency: Idempotency | None = None


class Change(Struct, frozen=True):
    """What a commit says of one resource: this version of it was made by this verb. A FHIR-Version trailer."""

    verb: Verb
    resource_id: ResourceId
    version_id: VersionId

    def __str__(self) -> str:
        return f"{self.verb} {self.resource_id}/_history/{self.version_id}"


class Purged(Struct, frozen=True):
    """A version that is no longer there. A FHIR-Purged trailer.

    `digest` is SHA-256 of its file in hexadecimal, NO_FILE of a deletion; None in the trailers of the commit that made it.
    """

    resource_id: ResourceId
    version_id: VersionId
    digest: str | None = None

    def __str__(self) -> str:
        name = f"{self.resource_id}/_history/{self.version_id}"
        return name if self.digest is None else f"{name} {self.digest}"


NO_FILE = "-"


class Version(Struct, frozen=True):
    """One version of a resource: the result of vread, an entry of history. A deletion has no blob.

    `created` says that there was no current resource before it: a first version, or a revival.
    `position` is its place among the versions of its commit, from 0.
    """

    resource_id: ResourceId
    version_id: VersionId
    verb: Verb
    created: bool
    blob: str | None
    commit: Commit
    position: int
    purged: int | None = None
    """The sequence of the commit that took its content out of the record, 0 where none says so; None where it is there."""

    @property
    def deleted(self) -> bool:
        return self.blob is None

    @property
    def last_updated(self) -> int:
        return self.commit.last_updated

    def __str__(self) -> str:
        return f"{self.resource_id}/_history/{self.version_id}"
