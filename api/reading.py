"""What a GET asks of a Snapshot, be it of HTTP or of a Bundle's entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from api import conditions, history
from api.request import parameters
from api.subsets import PARAMETERS as SUBSETS
from api.subsets import Subset, subset
from gitstore import HistoryPage, Invalid, Issue, NotFound, NotSupported, Snapshot, Version
from gitstore.fhir.bundle import Request as Entry
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, check_id, parse_version_id


def known_type(type: str) -> str:
    """The type itself. Raises NotFound for one that R4 doesn't have, and for an operation, which has no definition."""
    if is_resource_type(type):
        return type
    if type.startswith("$"):
        raise NotFound(Issue("error", "not-supported", f"There is no operation `{type[:80]}` here."))
    raise NotFound(Issue("error", "not-supported", f"`{type[:80]}` is no resource type of FHIR R4."))


def known_id(type: str, id: str) -> ResourceId:
    """Raises NotFound for an unknown type or operation, Invalid for what can't be an id."""
    known_type(type)
    if id.startswith("$"):
        known_type(id)
    return ResourceId(type, check_id(id))


def vread(snapshot: Snapshot, resource_id: ResourceId, vid: str) -> Version:
    """Raises NotFound, also for what is no version id of ours: `01` is not another name of `1`; Gone for a deletion."""
    version_id = parse_version_id(vid)
    if version_id is None:
        raise NotFound(f"`{resource_id}` has no version `{vid[:80]}`.")
    return snapshot.vread(resource_id, version_id)


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to the GET of a Bundle's entry: a version, perhaps one that the client holds, or a page.

    `part` is what is wanted of the version, None for all of it.
    """

    version: Version | None = None
    not_modified: bool = False
    part: Subset | None = None
    url: str = ""
    asked: history.Question | None = None
    page: HistoryPage | None = None
    snapshot: Snapshot | None = None


Finder = Callable[[Snapshot], Found]


def finder(entry: Entry) -> Finder | None:
    """How to answer a GET or HEAD entry of a Bundle; None for `metadata`, which asks nothing of the record.

    What can be refused without the record is refused here.
    Raises NotFound for unknown types and operations, NotSupported for searches, Invalid.
    """
    match entry.path:
        case ("metadata",):
            return None
        case (*_, operation) if operation == "$validate" and len(entry.path) in (2, 3):
            raise NotSupported(
                "`$validate` as an entry of a Bundle is not built yet; it can be sent by itself."
            )
        case ("_history",):
            return _history(entry, None)
        case (type, "_history"):
            return _history(entry, known_type(type))
        case (type, id, "_history"):
            return _history(entry, known_id(type, id))
        case (type, id) if id != "_search":
            resource_id = known_id(type, id)
            part = subset(parameters(entry.query, SUBSETS))
            return lambda snapshot: _version(entry, snapshot.read(resource_id), part)
        case (type, id, "_history", vid):
            resource_id = known_id(type, id)
            part = subset(parameters(entry.query, SUBSETS))
            return lambda snapshot: _version(entry, vread(snapshot, resource_id, vid), part)
        case () | (_,) | (_, "_search") | (_, _, _):
            for type in entry.path[:1]:
                known_type(type)
            raise NotSupported("Search is not built yet.")
    raise NotFound(f"There is nothing at `{'/'.join(entry.path)[:200]}`.")


def _version(entry: Entry, version: Version, part: Subset | None) -> Found:
    fresh = conditions.not_modified(version, entry.if_none_match, entry.if_modified_since)
    return Found(version=version, not_modified=fresh, part=part)


def _history(entry: Entry, scope: history.Scope) -> Finder:
    given = parameters(entry.query, (*history.PARAMETERS, history.PAGE))
    if history.PAGE in given:
        raise Invalid(Issue("error", "not-supported", "Within a Bundle a history has its first page only."))
    asked = history.question(given)
    url = "/".join(entry.path)
    return lambda snapshot: Found(
        url=url, asked=asked, page=history.page(snapshot, scope, asked), snapshot=snapshot
    )
