"""The operations that tell what happened: `$diff`, `$blame` and `$changes`.

docs/audit.md describes them. `$diff` is that of HAPI FHIR: https://hapifhir.io/hapi-fhir/docs/server_jpa/diff.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlencode

import falcon

from api import media
from api.endpoints import Endpoint
from api.history import count_of
from api.html import record
from api.reading import known_id, known_type
from api.request import Request
from api.responses import read_at
from gitstore import (
    Blamed,
    Cursor,
    Invalid,
    Issue,
    Net,
    NotFound,
    Snapshot,
    Version,
    blame,
    changes,
    commit_at,
    history_entry,
)
from gitstore.fhir import Resource, json
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId, VersionId, is_id, parse_version_id
from gitstore.fhir.patch.differences import difference

PAGE = "_page"
"""The one parameter of ours, made by the server and opaque: from where on."""

_VALUES = ("valueString", "valueCode", "valueId", "valueInteger", "valueBoolean", "valueInstant", "valueDate")
"""In which a parameter of a body may be."""


class OperationEndpoint(Endpoint):
    """An operation whose parameters stand in the query of a GET, or in the Parameters of a POST."""

    known: ClassVar[tuple[str, ...]] = ()
    """The names of the parameters."""

    def given(self, req: Request) -> dict[str, str]:
        """The parameters by name. Raises Invalid for what is unknown or stands twice."""
        found = req.parameters(*self.known)
        if req.method != "POST":
            return found
        data = media.body(req, self.settings.max_body)
        body = media.parsed(media.content_type(req.content_type), data) if data else {}
        for name, value in _parameters(body):
            if name not in self.known or name in found:
                what = "stands twice" if name in found else "is none of this operation's"
                raise Invalid(Issue("error", "value", f"The parameter `{name[:80]}` {what}."))
            found[name] = value
        return found


def _parameters(body: Resource) -> list[tuple[str, str]]:
    given = body.get("parameter", [])
    if body.get("resourceType", "Parameters") != "Parameters" or not isinstance(given, list):
        raise Invalid(
            Issue("error", "structure", "The body of the operation has to be Parameters.", "Parameters")
        )
    return [_parameter(each, f"Parameters.parameter[{number}]") for number, each in enumerate(given)]


def _parameter(parameter: Any, expression: str) -> tuple[str, str]:
    found = [parameter[name] for name in _VALUES if name in parameter] if isinstance(parameter, dict) else []
    if len(found) != 1 or not isinstance(parameter.get("name"), str):
        text = f"`{expression}` needs a name and one value: {' or '.join(_VALUES)}."
        raise Invalid(Issue("error", "value", text, expression))
    value = found[0]
    if not isinstance(value, str | int):
        raise Invalid(Issue("error", "value", f"The value of `{expression}` is no text.", expression))
    return parameter["name"], str(value).lower() if isinstance(value, bool) else str(value)


# $diff


class InstanceDiffEndpoint(OperationEndpoint):
    """`$diff` of two versions of a resource: by default of the newest and the one before it."""

    interactions: ClassVar = {"GET": ("$diff",), "POST": ("$diff",)}
    known: ClassVar = ("fromVersion", "toVersion", "includeMeta")

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        given = self.given(req)
        meta = _flag(given, "includeMeta")
        snapshot = self.snapshot(req, resp)
        to = _number(given, "toVersion", resource_id)
        after = snapshot.read(resource_id) if to is None else snapshot.vread(resource_id, to)
        number = _number(given, "fromVersion", resource_id)
        before = _before(snapshot, after) if number is None else snapshot.vread(resource_id, number)
        if req.html:
            record.send_difference(req, resp, snapshot, (before, after), self.teller(req, snapshot))
            return
        old = content(snapshot, before) if before else {"resourceType": type, "id": id}
        media.send(req, resp, json.dumps(difference(old, content(snapshot, after), meta=meta)))

    on_head = on_get
    on_post = on_get


class SystemDiffEndpoint(OperationEndpoint):
    """`$diff` of any two resources of one type, or versions of them."""

    interactions: ClassVar = {"GET": ("$diff",), "POST": ("$diff",)}
    known: ClassVar = ("from", "to", "includeMeta")

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        given = self.given(req)
        meta = _flag(given, "includeMeta")
        snapshot = self.snapshot(req, resp)
        before, after = (_referred(snapshot, _needed(given, name), name) for name in ("from", "to"))
        if req.html:
            record.send_difference(req, resp, snapshot, (before, after), self.teller(req, snapshot))
            return
        old, new = content(snapshot, before), content(snapshot, after)
        media.send(req, resp, json.dumps(difference(old, new, meta=meta)))

    on_head = on_get
    on_post = on_get


def content(snapshot: Snapshot, version: Version) -> Resource:
    resource: Resource = json.loads_trusted(snapshot.body(version))
    return resource


def _before(snapshot: Snapshot, version: Version) -> Version | None:
    """The version that another replaced; None where there was nothing to replace."""
    if version.created or version.version_id == 1:
        return None
    return snapshot.vread(version.resource_id, VersionId(version.version_id - 1))


def _number(given: Mapping[str, str], name: str, resource_id: ResourceId) -> VersionId | None:
    """Raises NotFound for what is no version id of ours."""
    if name not in given:
        return None
    version_id = parse_version_id(given[name])
    if version_id is None:
        raise NotFound(f"`{resource_id}` has no version `{given[name][:80]}`.")
    return version_id


def _referred(snapshot: Snapshot, reference: str, name: str) -> Version:
    """The version that `Patient/1` or `Patient/1/_history/2` names. Raises Invalid, NotFound, Gone."""
    target, separator, version = reference.partition("/_history/")
    type, _, id = target.partition("/")
    version_id = parse_version_id(version)
    if not is_id(id) or (separator and version_id is None):
        text = f"`{name}={reference[:80]}` is no reference such as Patient/1 or Patient/1/_history/2."
        raise Invalid(Issue("error", "value", text))
    resource_id = ResourceId(known_type(type), id)
    return snapshot.read(resource_id) if version_id is None else snapshot.vread(resource_id, version_id)


def _needed(given: Mapping[str, str], name: str) -> str:
    if name not in given:
        raise Invalid(Issue("error", "required", f"The parameter `{name}` is missing."))
    return given[name]


def _flag(given: Mapping[str, str], name: str) -> bool:
    value = given.get(name, "false")
    if value not in ("true", "false"):
        raise Invalid(Issue("error", "value", f"`{name}={value[:80]}` is neither true nor false."))
    return value == "true"


# $blame


class BlameEndpoint(OperationEndpoint):
    """`$blame`: the version that last set each element, with its author, time and commit."""

    interactions: ClassVar = {"GET": ("$blame",), "POST": ("$blame",)}
    known: ClassVar = ("version",)

    def on_get(self, req: Request, resp: falcon.Response, type: str, id: str) -> None:
        resource_id = known_id(type, id)
        number = _number(self.given(req), "version", resource_id)
        snapshot = self.snapshot(req, resp)
        found = blame(snapshot, resource_id, number)
        if req.html:
            version = snapshot.read(resource_id) if number is None else snapshot.vread(resource_id, number)
            record.send_blame(req, resp, snapshot, version, found, self.teller(req, snapshot))
            return
        elements = [_element(each) for each in found]
        parameters = {"resourceType": "Parameters", **({"parameter": elements} if elements else {})}
        media.send(req, resp, json.dumps(parameters))

    on_head = on_get
    on_post = on_get


def _element(blamed: Blamed) -> dict[str, Any]:
    version, commit = blamed.version, blamed.version.commit
    parts = [
        ("path", {"valueString": blamed.path}),
        ("version", {"valueId": str(version.version_id)}),
        ("author", {"valueString": f"{commit.author.name} <{commit.author.email}>"}),
        ("lastUpdated", {"valueInstant": format_instant(version.last_updated)}),
        ("commit", {"valueString": commit.id}),
    ]
    return {"name": "element", "part": [{"name": name, **value} for name, value in parts]}


# $changes


class ChangesEndpoint(OperationEndpoint):
    """`$changes`: what became of each resource between two points of the record, as a history."""

    interactions: ClassVar = {"GET": ("$changes",), "POST": ("$changes",)}
    known: ClassVar = ("from", "to", "_count", "_type", PAGE)

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        given = self.given(req)
        store = self.house.store
        after = commit_at(store, _needed(given, "from"))
        upto = commit_at(store, given["to"]) if "to" in given else req.store.snapshot().commit
        types = [known_type(type) for type in given["_type"].split(",")] if given.get("_type") else []
        cursor = Cursor.parse(given[PAGE]) if PAGE in given else None
        count = max(count_of(given), 1)
        snapshot = req.store.snapshot(upto.sequence)
        read_at(resp, snapshot.commit)
        found = changes(snapshot, after, types=types, cursor=cursor, count=count)
        links = [{"relation": "self", "url": f"{req.base}/$changes?{urlencode(given, safe=':')}"}]
        if found.older is not None:
            # By their commits: an instant may still have been to come.
            pinned = given | {"from": after.id, "to": upto.id, PAGE: str(found.older)}
            links.append({"relation": "next", "url": f"{req.base}/$changes?{urlencode(pinned, safe=':')}"})
        bundle: Resource = {
            "resourceType": "Bundle",
            "meta": {"lastUpdated": format_instant(snapshot.commit.last_updated)},
            "type": "history",
            "link": links,
        }
        if found.entries:
            bundle["entry"] = [_entry(req.base, snapshot, net) for net in found.entries]
        media.send(req, resp, json.dumps(bundle))

    on_head = on_get
    on_post = on_get


def _entry(base: str, snapshot: Snapshot, net: Net) -> dict[str, Any]:
    body = None if net.version.deleted else json.Raw(snapshot.body(net.version))
    return history_entry(base, net.as_written, body)
