"""Points of the record to come back to: the state at a point, and tags that name one for good."""

from __future__ import annotations

import re

from gitstore.errors import AlreadyExists, Invalid, Issue, NotFound
from gitstore.fhir.dates import interval
from gitstore.points import commit_at
from gitstore.store import Store
from gitstore.version import Author, Commit

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{4,64}", re.ASCII)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T.*)?", re.ASCII)


def state_at(store: Store, point: str) -> Commit:
    """As `commit_at`; but before its first commit the record was empty, as that one left it."""
    try:
        return commit_at(store, point)
    except NotFound:
        if _TIME.fullmatch(point):
            return store.snapshot(1).commit
        raise


def check_name(name: str) -> None:
    """That a tag of this name can be asked for as a point, and is nothing else. Raises Invalid."""
    reason = None
    if not _NAME.fullmatch(name):
        reason = "has letters, digits, `.` and `-`, begins with a letter or digit, and has 64 of them at most"
    elif ".." in name or name.endswith((".", ".lock")):
        reason = "is one that git takes: no `..` in it, and no `.` or `.lock` at its end"
    elif _is_date(name):
        reason = "can't be taken for a date"
    elif _COMMIT.fullmatch(name):
        reason = "can't be taken for the id of a commit"
    if reason is not None:
        raise Invalid(Issue("error", "value", f"`{name[:80]}` is no name for a tag: it {reason}."))


def _is_date(name: str) -> bool:
    try:
        interval(name)
    except Invalid:
        return bool(_TIME.match(name))
    return True


def tag(store: Store, name: str, commit: Commit, author: Author, message: str | None = None) -> None:
    """Name a commit for good: an annotated tag, by the author, with a reason.

    Raises Invalid for what can't be a name, AlreadyExists where another commit or time has it: tags are never moved.
    """
    check_name(name)
    if not store.add_tag(name, commit, author, message or name):
        raise AlreadyExists(f"There is a tag `{name}` already. A tag stays where it is: choose another name.")
