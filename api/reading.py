"""What a GET asks of a Snapshot, be it of HTTP or of a Bundle's entry."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from api import conditions, everything, history, labels, search, validating
from api.request import parameters
from api.subsets import PARAMETERS as SUBSETS
from api.subsets import Subset, subset
from gitstore import Invalid, Issue, NotFound, Snapshot, Version
from gitstore.fhir.bundle import Request as Entry
from gitstore.fhir.bundle import is_search
from gitstore.fhir.definitions import compartments, is_resource_type
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


def scope_of(type: str | None = None, id: str | None = None, name: str | None = None) -> search.Scope:
    """What a search looks at: of a compartment, when there is an id, the resources of type `name`, all for None and `*`.

    Raises NotFound for unknown types and for what has no compartment, Invalid for what can't be an id.
    https://hl7.org/fhir/R4/compartmentdefinition.html
    """
    if type is None:
        return search.Scope()
    if id is None:
        return search.Scope(known_type(type))
    owner = known_id(type, id)
    inside = None if name in (None, "*") else known_type(name or "")
    if type not in compartments():
        text = f"`{type}` has no compartment to search in; {', '.join(sorted(compartments()))} have."
        raise NotFound(Issue("error", "not-supported", text))
    return search.Scope(inside, owner)


def vread(snapshot: Snapshot, resource_id: ResourceId, vid: str) -> Version:
    """Raises NotFound, also for what is no version id of ours: `01` is not another name of `1`; Gone for a deletion."""
    version_id = parse_version_id(vid)
    if version_id is None:
        raise NotFound(f"`{resource_id}` has no version `{vid[:80]}`.")
    return snapshot.vread(resource_id, version_id)


class Found(Struct, frozen=True):
    """The answer to the GET of a Bundle's entry: a version, perhaps one that the client holds, or a page.

    `part` is what is wanted of the version, None for all of it. `document` makes the page's Bundle.
    """

    version: Version | None = None
    not_modified: bool = False
    part: Subset | None = None
    document: Callable[[], bytes] | None = None


Finder = Callable[[Snapshot], Found]


_OPERATIONS = ("$everything", "$meta", "$validate")
"""Those that change nothing."""


def asks(entry: Entry) -> bool:
    """Whether an entry of a Bundle only reads: GET, HEAD, and the POST of a search or of an operation that changes nothing."""
    operates = entry.method == "POST" and bool(entry.path) and entry.path[-1] in _OPERATIONS
    return entry.method in ("GET", "HEAD") or is_search(entry) or operates


def finder(entry: Entry, base: str, judge: validating.Judge, *, strict: bool) -> Finder | None:
    """How to answer an entry of a Bundle that asks; None for `metadata`, which asks nothing of the record.

    `strict` is how searches treat parameters that they don't know. What can be refused without the record is refused
    here, and `judge` is what `$validate` goes by. Raises NotFound for unknown types and operations, Invalid.
    """
    match entry.path:
        case ("metadata",):
            return None
        case (type, "$validate"):
            return _validate(entry, known_type(type), None, judge)
        case (type, id, "$validate"):
            return _validate(entry, type, known_id(type, id), judge)
        case ("$meta",) | (_, "$meta"):
            _check_meta(entry)
            return _labels(known_type(entry.path[0]) if len(entry.path) > 1 else None)
        case (type, id, "$meta"):
            resource_id = known_id(type, id)
            _check_meta(entry)
            return lambda snapshot: _meta(snapshot, snapshot.read(resource_id))
        case (type, id, "_history", vid, "$meta"):
            resource_id = known_id(type, id)
            _check_meta(entry)
            return lambda snapshot: _meta(snapshot, vread(snapshot, resource_id, vid))
        case (type, id, "$everything"):
            return _everything(entry, base, known_id(type, id))
        case ("_history",):
            return _history(entry, base, None)
        case (type, "_history"):
            return _history(entry, base, known_type(type))
        case (type, id, "_history"):
            return _history(entry, base, known_id(type, id))
        case () | (_,) | (_, "_search") | (_, _, _) | (_, _, _, "_search"):
            return _search(entry, base, strict=strict)
        case (type, id):
            resource_id = known_id(type, id)
            part = subset(parameters(entry.query, SUBSETS))
            return lambda snapshot: _version(entry, snapshot.read(resource_id), part)
        case (type, id, "_history", vid):
            resource_id = known_id(type, id)
            part = subset(parameters(entry.query, SUBSETS))
            return lambda snapshot: _version(entry, vread(snapshot, resource_id, vid), part)
    raise NotFound(f"There is nothing at `{'/'.join(entry.path)[:200]}`.")


def _version(entry: Entry, version: Version, part: Subset | None) -> Found:
    fresh = conditions.not_modified(version, entry.if_none_match, entry.if_modified_since)
    return Found(version=version, not_modified=fresh, part=part)


def _validate(entry: Entry, type: str, target: ResourceId | None, judge: validating.Judge) -> Finder:
    asked = validating.question(type, entry.query, entry.content)
    if target is None:
        if asked.resource is None:
            raise validating.nothing_sent()
        target = validating.named(asked, type)

    def find(snapshot: Snapshot) -> Found:
        data = validating.outcome(asked, type, target, snapshot, judge)
        return Found(document=lambda: data)

    return find


def _meta(snapshot: Snapshot, version: Version) -> Found:
    return Found(document=lambda: labels.of_one(snapshot.body(version)))


def _check_meta(entry: Entry) -> None:
    parameters(entry.query, ())
    if entry.method == "POST" and entry.content is not None:
        labels.check_input(entry.content)


def _labels(type: str | None) -> Finder:
    def find(snapshot: Snapshot) -> Found:
        data = labels.of_many(snapshot, type)
        return Found(document=lambda: data)

    return find


def _search(entry: Entry, base: str, *, strict: bool) -> Finder:
    if entry.resource is not None:
        raise Invalid(
            Issue("error", "invalid", "A search within a Bundle has its parameters in its url alone.")
        )
    path = entry.path[:-1] if entry.path[-1:] == ("_search",) else entry.path
    asked = search.question(scope_of(*path), search.pairs(entry.query), strict=strict)

    def find(snapshot: Snapshot) -> Found:
        found = search.page(snapshot, asked, base)
        return Found(document=lambda: search.bundle(base, snapshot, asked, found))

    return find


def _everything(entry: Entry, base: str, focus: ResourceId) -> Finder:
    sent = entry.content if entry.method == "POST" else None
    given = everything.pairs_of_parameters(sent) if sent is not None else []
    asked = everything.question(focus, [*search.pairs(entry.query), *given], base)

    def find(snapshot: Snapshot) -> Found:
        found = everything.page(snapshot, asked)
        return Found(document=lambda: everything.bundle(base, asked, found))

    return find


def _history(entry: Entry, base: str, scope: history.Scope) -> Finder:
    given = parameters(entry.query, (*history.PARAMETERS, history.PAGE))
    if history.PAGE in given:
        raise Invalid(Issue("error", "not-supported", "Within a Bundle a history has its first page only."))
    asked = history.question(given)
    url = "/".join((base, *entry.path))

    def find(snapshot: Snapshot) -> Found:
        found = history.page(snapshot, scope, asked)
        return Found(document=lambda: history.bundle(url, base, snapshot, asked, found))

    return find
