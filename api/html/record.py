"""The pages of one resource: a version of it, its history, two versions side by side, and who set what."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, pairwise
from typing import Any

import falcon

from api import history
from api.html import narrative, shell
from api.html.links import Links
from api.html.stories import Entry, Moment, Teller, lines
from api.html.summaries import title
from api.html.values import groups_of, place, values_at
from api.request import Request
from gitstore import (
    Blamed,
    Forbidden,
    Gone,
    HistoryPage,
    NotFound,
    NotSupported,
    Snapshot,
    TooCostly,
    Version,
)
from gitstore.fhir import Resource
from gitstore.fhir.definitions import compartments
from gitstore.fhir.ids import ResourceId


def send_version(
    req: Request, resp: falcon.Response, snapshot: Snapshot, version: Version, teller: Teller
) -> None:
    """A resource, current or past, with its narrative and all its elements."""
    resource = teller.content(version)
    newest = snapshot.newest(version.resource_id) or version
    past = req.store.access.history
    text = resource.get("text")
    shell.send(
        req,
        resp,
        "resource.html",
        title=name_of(resource, version.resource_id, teller.links),
        version=version,
        newest=newest,
        is_newest=newest.version_id == version.version_id,
        entry=teller.entry(version) if past else None,
        when_set=Moment.of(version.last_updated),
        narrative=narrative.shown(text.get("div")) if isinstance(text, dict) else None,
        groups=groups_of(resource, teller.links),
        has_compartment=version.resource_id.type in compartments(),
        restorable=_may_restore(req, snapshot, version, newest),
        read_at=shell.read_at(snapshot.commit),
    )


def name_of(resource: Resource, resource_id: ResourceId, links: Links) -> str:
    return title(resource, links) or str(resource_id)


def _is_gone(snapshot: Snapshot, resource_id: ResourceId) -> bool:
    newest = snapshot.newest(resource_id)
    return newest is not None and newest.deleted


def _may_restore(req: Request, snapshot: Snapshot, version: Version, newest: Version) -> bool:
    """Whether a button that makes this version the newest again would do something for who asks."""
    return (
        newest.version_id != version.version_id
        and req.at is None
        and req.principal.kind in ("session", "anonymous")
        and "restore" in req.principal.roles
        and snapshot.permits("u", version.resource_id)
    )


# History


def send_history(
    req: Request,
    resp: falcon.Response,
    snapshot: Snapshot,
    scope: history.Scope,
    asked: history.Question,
    found: HistoryPage,
    teller: Teller,
) -> None:
    """The history of a resource as a timeline, of a type or of everything as a feed."""
    versions = found.versions if asked.count else []
    known = _neighbours(versions) if isinstance(scope, ResourceId) else {}
    newest = snapshot.newest(scope) if isinstance(scope, ResourceId) else None
    entries = [teller.entry(version, known.get(version.version_id)) for version in versions]
    path = f"{teller.links.path}/{scope}/_history" if scope else f"{teller.links.path}/_history"
    shell.send(
        req,
        resp,
        "history.html",
        title=_heading(snapshot, scope, teller),
        scope=scope,
        is_instance=isinstance(scope, ResourceId),
        gone=newest is not None and newest.deleted,
        newest=newest.version_id if newest is not None else 0,
        path=path,
        entries=entries,
        commits=[] if isinstance(scope, ResourceId) else by_commit(entries),
        total=found.total,
        types=() if isinstance(scope, ResourceId) else sorted(counts_of(snapshot)),
        given=asked.given,
        relations=history.relations(path, snapshot.commit.sequence, asked, found),
        read_at=shell.read_at(snapshot.commit),
    )


def counts_of(snapshot: Snapshot) -> dict[str, int]:
    """How many resources there are, by type; nothing where that can't be found out for who asks."""
    try:
        return snapshot.counts()
    except (Forbidden, TooCostly, NotSupported):
        return {}


def by_commit(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Those that belong together in the order in which they come."""
    return [[*each] for _, each in groupby(entries, key=lambda entry: entry.version.commit.id)]


def _neighbours(versions: list[Version]) -> dict[int, Version]:
    """By the number of a version the one before it, where both are on the page."""
    return {
        newer.version_id: older
        for newer, older in pairwise(versions)
        if older.version_id == newer.version_id - 1 and not newer.created
    }


def _heading(snapshot: Snapshot, scope: history.Scope, teller: Teller) -> str:
    if isinstance(scope, ResourceId):
        try:
            return f"History of {name_of(teller.content(snapshot.read(scope)), scope, teller.links)}"
        except (NotFound, Gone):
            return f"History of {scope}"
    return f"What happened to {scope} resources" if scope else "What happened"


# Difference


def send_difference(
    req: Request,
    resp: falcon.Response,
    snapshot: Snapshot,
    versions: tuple[Version | None, Version],
    teller: Teller,
) -> None:
    """Two versions side by side, by element; without a first one everything was added."""
    before, after = versions
    new = teller.content(after)
    empty: Resource = {"resourceType": after.resource_id.type}
    old = teller.content(before) if before is not None else empty
    same = before is None or before.resource_id == after.resource_id
    newest = snapshot.newest(after.resource_id) if same else None
    shell.send(
        req,
        resp,
        "diff.html",
        title=f"Changes to {name_of(new, after.resource_id, teller.links)}"
        if same
        else f"{before} beside {after}",
        before=None if before is None else _side(before, teller),
        after=_side(after, teller),
        resource_id=after.resource_id if same else None,
        gone=newest is not None and newest.deleted,
        newest=newest.version_id if newest is not None else 0,
        lines=list(lines(_nameless(old), _nameless(new), teller.links)),
        read_at=shell.read_at(snapshot.commit),
    )


def _nameless(resource: Resource) -> Resource:
    """Without its id, by which two resources differ in any case."""
    return {name: value for name, value in resource.items() if name != "id"}


def _side(version: Version, teller: Teller) -> dict[str, Any]:
    return {
        "version": version,
        "when": Moment.of(version.last_updated),
        "why": teller.why(version.commit),
        "name": str(version),
    }


# Blame


def send_blame(
    req: Request,
    resp: falcon.Response,
    snapshot: Snapshot,
    version: Version,
    found: Iterable[Blamed],
    teller: Teller,
) -> None:
    """Each element with the version that last set it."""
    resource = teller.content(version)
    rows = [
        {
            "place": place(resource, each.steps),
            "path": each.path,
            "values": _value(resource, each, teller.links),
            "version": each.version,
            "when": Moment.of(each.version.last_updated),
            "why": teller.why(each.version.commit),
        }
        for each in found
    ]
    shell.send(
        req,
        resp,
        "blame.html",
        title=f"Who set what in {name_of(resource, version.resource_id, teller.links)}",
        version=version,
        gone=_is_gone(snapshot, version.resource_id),
        rows=rows,
        read_at=shell.read_at(snapshot.commit),
    )


def _value(resource: Resource, blamed: Blamed, links: Links) -> Any:
    if blamed.steps[-1] == "div" and isinstance(blamed.value, str):
        return values_at(resource, ("",), narrative.plain(blamed.value), links)
    return values_at(resource, blamed.steps, blamed.value, links)
