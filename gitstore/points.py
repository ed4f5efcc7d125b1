"""Points of the record as people name them: an instant, a day, a commit, a tag."""

from __future__ import annotations

import re

from gitstore.errors import Invalid, Issue, NotFound
from gitstore.fhir.dates import interval, parse_instant
from gitstore.store import Store
from gitstore.version import Commit

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9.-]+", re.ASCII)


def commit_at(store: Store, point: str) -> Commit:
    """The last commit of the record at a point.

        2026-02-21T22:30:00Z    an instant: what was there then
        2026-02-21              the end of that day, in UTC
        40 hexadecimal digits   the commit of this id
        v1.2                    the commit of the tag

    An instant may have another time zone than Z; one to come is now. What could be a day is never a tag.
    Raises NotFound for a time before the record and for commits and tags that aren't on it, Invalid for all else.
    """
    if _DAY.fullmatch(point):
        return store.snapshot_before(interval(point)[1]).commit
    if "T" in point and ":" in point:
        return store.snapshot_before(parse_instant(point) + 1).commit
    if _COMMIT.fullmatch(point):
        return store.resolve(point)
    if not _TAG.fullmatch(point):
        text = (
            f"`{point[:80]}` is none of an instant such as 2026-02-21T22:30:00Z, a day, a commit id or a tag."
        )
        raise Invalid(Issue("error", "value", text))
    try:
        return store.resolve(f"refs/tags/{point}")
    except NotFound as error:
        raise NotFound(f"The record has no tag `{point[:80]}`.") from error
