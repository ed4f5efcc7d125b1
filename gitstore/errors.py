"""What can go wrong in the store, and the issue that says so.

StoreError
├─ Invalid                 invalid         what was sent can't be understood or isn't FHIR
│  └─ Unprocessable        business-rule   it is FHIR, but breaks a rule
├─ TooLarge                too-long
├─ TooCostly               too-costly      a search beyond the work it may cause
├─ NotSupported            not-supported   right, but not built yet
├─ NotAllowed              not-supported   refused by a setting
├─ Forbidden               forbidden       not for whoever asks, whether or not it is there
├─ NotFound                not-found
│  └─ Gone                 deleted         carries the deletion
├─ Conflict
│  ├─ VersionMismatch      conflict        If-Match
│  ├─ AlreadyExists        duplicate       If-None-Match
│  └─ MultipleMatches      multiple-matches
├─ Unavailable                             nothing was written; the same request may work later
│  ├─ Locked               lock-error
│  ├─ Preparing            informational   a state of the past, for searches; carries how far it is
│  ├─ ForeignCommit        conflict        carries the commit
│  ├─ ReadOnly             suppressed      this node is a replica, or may not write for now
│  ├─ Fenced               conflict        another node has written; this node's write is not on the record
│  ├─ HubUnreachable       transient
│  ├─ StorageFull          no-store
│  └─ StorageFailed        exception
│     └─ Outdated          exception       the index is of the record before a purge
├─ NotConfirmed            exception       written, but the disk did not confirm it
│  └─ NotReplicated        timeout         written, but the hub did not confirm it in time
├─ RepositoryDamaged       exception       carries the commit
└─ RepositoryRefused       not-supported   no repository of ours, or of a format this version doesn't know
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace


class Issue(Struct, frozen=True):
    """One entry of an OperationOutcome. https://hl7.org/fhir/R4/operationoutcome.html

    `code` is of the value set issue-type of R4 (so never "success"), `expression` a FHIRPath.
    """

    severity: str
    code: str
    text: str
    expression: str | None = None
    diagnostics: str | None = None


class StoreError(Exception):
    """Something was refused or failed; `issues` say what, for an OperationOutcome.

    `entry` is the number of the interaction within its unit of work, once known.
    """

    code = "exception"

    def __init__(self, *issues: Issue | str, expression: str | None = None) -> None:
        self.issues: Sequence[Issue] = [
            issue if isinstance(issue, Issue) else Issue("error", self.code, issue, expression)
            for issue in issues
        ]
        self.entry: int | None = None
        super().__init__("; ".join(issue.text for issue in self.issues))

    def __reduce__(self) -> tuple[Any, ...]:
        # Some are made of more than their text, and all of them travel between processes.
        return type(self).__new__, (type(self), *self.args), self.__dict__

    def at_entry(self, entry: int) -> None:
        """Say that the interaction number `entry` (from 0) of a Bundle is at fault."""
        if self.entry is not None:
            return
        self.entry = entry
        self.issues = [replace(issue, expression=_below(entry, issue.expression)) for issue in self.issues]


def _below(entry: int, expression: str | None) -> str:
    """`Patient.name[0]` of an entry's resource, seen from the Bundle."""
    place = f"Bundle.entry[{entry}]"
    if expression is None or expression.startswith("Bundle.entry["):
        return expression or place
    if expression[0].isupper():
        expression = expression.partition(".")[2]
    return f"{place}.resource.{expression}".rstrip(".")


class Invalid(StoreError):
    """What was sent can't be parsed, or breaks the rules of FHIR's structure."""

    code = "invalid"


class Unprocessable(Invalid):
    """What was sent is FHIR, but breaks a rule about content."""

    code = "business-rule"


class TooLarge(StoreError):
    """What was sent is larger than a limit."""

    code = "too-long"


class TooCostly(StoreError):
    """To answer would take more work than a limit allows."""

    code = "too-costly"


class NotSupported(StoreError):
    """What was asked for is part of FHIR, and is not built here."""

    code = "not-supported"


class NotAllowed(StoreError):
    """What was asked for is switched off by a setting."""

    code = "not-supported"


class Forbidden(StoreError):
    """Whoever asks may not do this. What it says never depends on what there is."""

    code = "forbidden"


class NotFound(StoreError):
    """There is no such resource or version."""

    code = "not-found"


class Gone(NotFound):
    """The resource or version asked for is a deletion: of this version id, at this instant (microseconds)."""

    code = "deleted"

    def __init__(self, message: str, version_id: int, last_updated: int) -> None:
        super().__init__(message)
        self.version_id = version_id
        self.last_updated = last_updated


class Conflict(StoreError):
    """A condition of the caller does not hold."""

    code = "conflict"


class VersionMismatch(Conflict):
    """If-Match names no version that is current."""


class AlreadyExists(Conflict):
    """If-None-Match names the current version."""

    code = "duplicate"


class MultipleMatches(Conflict):
    """Criteria that must select one resource select several."""

    code = "multiple-matches"


class Unavailable(StoreError):
    """The store can't do this now; nothing was written, and the same request may work later."""

    code = "transient"


class Locked(Unavailable):
    """Another holder kept a lock for too long."""

    code = "lock-error"


class Preparing(Unavailable):
    """What searches of a past state need is being made. The same request will work soon."""

    code = "informational"

    def __init__(self, part: float | None) -> None:
        """`part` is how much is done, from 0 to 1; None where that isn't known."""
        known = "" if part is None else f": {part:.0%} is done"
        super().__init__(
            Issue("information", self.code, f"This state is being prepared for searches{known}.")
        )


class Problem(Struct, frozen=True):
    """What keeps a foreign change from being adopted: a path in its tree, and why. `*` stands for all paths."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class ForeignCommit(Unavailable):
    """The branch holds a commit that this store did not make; `commit` is its id.

    `problems` say why it can't be adopted, once that was tried; `reason` is what shows that it is none of ours.
    """

    code = "conflict"

    def __init__(self, message: str, commit: str, problems: Sequence[Problem] = (), reason: str = "") -> None:
        super().__init__(message)
        self.commit = commit
        self.problems = problems
        self.reason = reason


class ReadOnly(Unavailable):
    """This node does not write: another one does, or nobody may for now."""

    code = "suppressed"


class Fenced(Unavailable):
    """Another node has become primary. What this one wrote since is kept beside the record, and is not on it."""

    code = "conflict"


class HubUnreachable(Unavailable):
    """The hub of the record's nodes does not answer, or refuses for a reason of its own."""


class StorageFull(Unavailable):
    """There is no room left on the disk."""

    code = "no-store"


class StorageFailed(Unavailable):
    """The disk or folder refused a write."""

    code = "exception"


class Outdated(StorageFailed):
    """The index is that of a history which has been rewritten since."""


class NotConfirmed(StoreError):
    """The units have happened, but the disk failed to confirm that they survive a power cut."""


class NotReplicated(NotConfirmed):
    """The units have happened here, and the hub has not confirmed them in time: whether they last will be seen."""

    code = "timeout"


class RepositoryDamaged(StoreError):
    """The record contradicts itself; `commit` is where."""

    def __init__(self, message: str, commit: str | None = None) -> None:
        super().__init__(message)
        self.commit = commit


class RepositoryRefused(StoreError):
    """There is no repository here, or it is not one that this version can read."""

    code = "not-supported"
