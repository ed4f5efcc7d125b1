"""What changed between two commits, net: one entry for each resource, whatever happened to it in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from gitstore.errors import Invalid, Issue, TooCostly
from gitstore.search.versions import Cursor
from gitstore.snapshot import Snapshot, cursor_of
from gitstore.version import Commit, Version

MOST = 20_000
"""Resources that are looked at for one page."""

_LEAST = 100
"""Resources that are taken from the index at once, where a page is smaller: not all of them may be seen."""


class Net(Struct, frozen=True):
    """What became of a resource: `before` is its version at the beginning where it was there, `version` that at the end.

    A resource that was changed and changed back is updated: it has a new version.
    """

    version: Version
    before: Version | None

    @property
    def kind(self) -> Literal["created", "updated", "deleted"]:
        if self.version.deleted:
            return "deleted"
        return "updated" if self.before else "created"

    @property
    def as_written(self) -> Version:
        """The version as one write would have made it out of what was there at the beginning."""
        verb = self.version.verb
        return replace(
            self.version, created=self.before is None, verb="PUT" if self.before and verb == "POST" else verb
        )


class ChangesPage(Struct, frozen=True):
    """Entries, the newest change first, and where the next page begins; None at the end."""

    entries: list[Net]
    older: Cursor | None


def changes(
    snapshot: Snapshot,
    after: Commit,
    *,
    types: Sequence[str] = (),
    cursor: Cursor | None = None,
    count: int = 50,
) -> ChangesPage:
    """A page of what is otherwise in the snapshot than the commit `after` left it, of all types where none is given.

    Left out is what came and went in between. Raises Invalid for a commit that is later than the snapshot; TooCostly
    where most may not be seen by who asks, NotFound where they may not see any history.
    """
    if after.sequence > snapshot.commit.sequence:
        text = "The changes end before they begin: `from` has to be the earlier commit."
        raise Invalid(Issue("error", "value", text))
    snapshot.history(count=1)  # so that whoever may see no history is refused
    found: list[Net] = []
    for number, net in enumerate(_all(snapshot, after, types, cursor, max(count + 1, _LEAST))):
        if net is not None:
            if len(found) == count:
                return ChangesPage(found, cursor_of(found[-1].version, is_instance=False, newer=False))
            found.append(net)
        if number >= MOST + count:
            raise TooCostly("There is too much between these commits to look through. Choose a shorter time.")
    return ChangesPage(found, None)


def _all(
    snapshot: Snapshot, after: Commit, types: Sequence[str], cursor: Cursor | None, size: int
) -> Iterator[Net | None]:
    """Each entry from the cursor on, None for one that may not be seen."""
    while True:
        piece = snapshot.spans(after, types, cursor, size)
        for version, before in piece:
            if not snapshot.permits("s", version.resource_id) or not snapshot.is_seen(version):
                yield None
            else:
                there = before is not None and not before.deleted and snapshot.is_seen(before)
                yield Net(version, before if there else None)
        if len(piece) < size:
            return
        cursor = cursor_of(piece[-1][0], is_instance=False, newer=False)
