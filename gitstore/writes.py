"""One write, prepared: what is known of it before the writer's lock, and what it comes to given the newest version."""

from __future__ import annotations

from msgspec import Struct

from gitstore.errors import Issue
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.fhir.stored import Template
from gitstore.git.pack import BLOB, object_id
from gitstore.interactions import VersionTags
from gitstore.search.parameters import Registry
from gitstore.search.rows import Rows
from gitstore.shelf import Printed, Shelved
from gitstore.version import Verb, Version


class Write(Struct, frozen=True):
    """One write, prepared; `entry` is its place in the unit. For a deletion nothing is printed. `issues` are warnings.

    The contents that are printed are what searches will find it by, where they are by the parameters of `registry`.
    """

    entry: int
    verb: Verb
    resource_id: ResourceId
    printed: Printed | Shelved | None
    if_match: VersionTags | None
    if_none_match: VersionTags | None
    skip_unchanged: bool
    issues: tuple[Issue, ...] = ()
    registry: Registry | None = None
    restores: VersionId | None = None
    """The version whose content this is again."""

    @property
    def template(self) -> Template | None:
        """The file, but for version and instant."""
        return None if self.printed is None else self.printed.template

    def contents_by(self, registry: Registry) -> Rows | None:
        """What searches by these parameters will find it by, where that is known already."""
        return self.printed.contents if self.printed is not None and self.registry is registry else None

    def version_after(self, newest: Version | None) -> VersionId | None:
        """The version that it makes where `newest` is there; None where it leaves that as it is."""
        if self.printed is None and (newest is None or newest.deleted):
            return None
        if self.skip_unchanged and newest is not None and (template := self.template) is not None:
            same = template.fill(newest.version_id, newest.last_updated)
            if object_id(BLOB, same).hex() == newest.blob:
                return None
        return VersionId(newest.version_id + 1 if newest is not None else 1)
