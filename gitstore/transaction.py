"""From prepared interactions to the changes of one commit, given the state under the writer's lock.

https://hl7.org/fhir/R4/http.html#trules. Its order (DELETE, POST, PUT, then GET) needs no sorting here: no two writes
of a transaction may name the same resource, and questions are asked after all writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from gitstore.assumptions import check_if_match
from gitstore.errors import AlreadyExists, Conflict, Invalid, Issue, NotFound, NotSupported, Unprocessable
from gitstore.fhir import Resource, json, labels, patch
from gitstore.fhir.bundle import Request
from gitstore.fhir.conditions import Criteria, version_tags
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, VersionId, check_id
from gitstore.fhir.packed import unpacked
from gitstore.fhir.patch.narrative import Mode as NarrativeMode
from gitstore.interactions import Create, Delete, Outcome, Patch, Update
from gitstore.preparation import Prepared, at_entry
from gitstore.search.extract import extract
from gitstore.search.parameters import Registry
from gitstore.search.rows import Rows
from gitstore.snapshot import Snapshot
from gitstore.version import Change, Version
from gitstore.writes import Write


class Planned(Struct, frozen=True):
    """What one write comes to: a change at an instant (microseconds), or the version that is left as it is."""

    write: Write
    change: Change | None
    last_updated: int
    left: Version | None

    def body(self) -> bytes | None:
        """The file, None for a deletion. It is made anew each time, as those of all writes of a unit can be large."""
        template = self.write.template
        if self.change is None or template is None:
            return None
        return template.fill(self.change.version_id, self.last_updated)

    @property
    def restores(self) -> tuple[ResourceId, VersionId] | None:
        """The version whose content this is again."""
        number = self.write.restores
        return None if number is None else (self.write.resource_id, number)


def plan(
    prepared: Prepared, newest: Callable[[ResourceId], Version | None], last_updated: int
) -> list[Planned]:
    """What the writes of a unit come to, given the newest version of each resource; under the lock.

    Raises VersionMismatch or AlreadyExists where a condition fails.
    """
    planned = []
    for write in prepared.writes:
        with at_entry(prepared.blamed(write)):
            planned.append(_plan_write(write, newest(write.resource_id), last_updated))
    return planned


def _plan_write(write: Write, newest: Version | None, last_updated: int) -> Planned:
    exists = newest is not None and not newest.deleted
    _check_conditions(write, newest, exists=exists)
    if write.verb == "POST" and newest is not None:
        raise AlreadyExists(f"`{write.resource_id}` is in use; ids are never given twice.")
    version_id = write.version_after(newest)
    if version_id is None:
        return Planned(write, None, last_updated, newest)
    return Planned(write, Change(write.verb, write.resource_id, version_id), last_updated, None)


def outcomes_of(
    prepared: Prepared,
    planned: Sequence[Planned],
    made: Sequence[Version],
    newest: Callable[[ResourceId], Version | None],
) -> list[Outcome]:
    """What became of each entry but the questions; `made` are the versions of the planned changes, in their order.

    `newest` gives the newest version of a resource that is left as it is, after the changes.
    """
    outcomes = [Outcome()] * prepared.entries
    others: dict[int, list[Version]] = {}
    versions = iter(made)
    for one in planned:
        entry, version = one.write.entry, one.left if one.change is None else next(versions)
        if outcomes[entry].version is not None and version is not None:
            others.setdefault(entry, []).append(version)
        else:
            outcomes[entry] = Outcome(version, changed=one.change is not None, issues=one.write.issues)
    for entry, more in others.items():
        outcomes[entry] = replace(outcomes[entry], others=tuple(more))
    for entry, left in prepared.left:
        outcomes[entry] = Outcome(newest(left) if left is not None else None)
    return outcomes


def contents_of(planned: Sequence[Planned], registry: Registry | None) -> Iterator[Rows | None] | None:
    """What searches will find each of the changed resources by; None where there is no search.

    What was extracted before the lock holds unless the index was made anew meanwhile, with other search parameters.
    """
    return None if registry is None else (_contents(one, registry) for one in planned)


def _contents(planned: Planned, registry: Registry) -> Rows | None:
    contents = planned.write.contents_by(registry)
    if contents is not None:
        return contents
    body = planned.body()
    return None if body is None else extract(registry, json.loads_trusted(body))


def _check_conditions(write: Write, newest: Version | None, *, exists: bool) -> None:
    check_if_match(write.resource_id, write.if_match, newest)
    if write.if_none_match is not None and newest is not None and exists:
        if "*" in write.if_none_match:
            raise AlreadyExists(f"`{write.resource_id}` exists; If-None-Match asked that it does not.")
        if str(newest.version_id) in write.if_none_match:
            raise AlreadyExists(
                f"`{write.resource_id}` is at version {newest.version_id}; If-None-Match asked that it is not."
            )


def check_references(prepared: Prepared, after: Snapshot) -> None:
    """That no reference leads nowhere once a unit is done: neither of what it wrote, nor to what it deleted.

    Raises Unprocessable or Conflict, naming what is missing or in the way. https://hl7.org/fhir/R4/http.html#delete
    """
    for write in prepared.writes:
        with at_entry(prepared.blamed(write)):
            if write.printed is None:
                if found := after.referrers(write.resource_id):
                    names = ", ".join(f"`{each}`" for each in found)
                    raise Conflict(f"`{write.resource_id}` can't be deleted: {names} refer to it.")
            elif missing := after.dangling(write.resource_id):
                names = ", ".join(f"`{each}`" for each in missing)
                text = f"`{write.resource_id}` refers to what isn't there: {names}."
                raise Unprocessable(Issue("error", "not-found", text, write.resource_id.type))


def write_of(
    request: Request, narrative: NarrativeMode = "drop", bases: tuple[str, ...] = ()
) -> Create | Update | Delete | Patch:
    """The write that an entry of a Bundle asks for. https://hl7.org/fhir/R4/http.html#transaction

    `narrative` is what becomes of a narrative that a patch doesn't touch; `bases` are URLs of this server.
    Raises Invalid, NotFound or NotSupported, which name the entry, where it names no place to write to.
    """
    with at_entry(request.entry):
        return _write_of(request, narrative, bases)


def _write_of(
    request: Request, narrative: NarrativeMode, bases: tuple[str, ...]
) -> Create | Update | Delete | Patch:
    if request.path and request.path[-1] in ("$restore", "$revert"):
        raise NotSupported(f"`{request.path[-1]}` is a request of its own: it can't be an entry of a Bundle.")
    if not request.path or not is_resource_type(request.path[0]):
        raise NotFound(f"`{'/'.join(request.path)}` does not begin with a resource type of R4.")
    if request.method == "POST" and request.path[-1].startswith("$"):
        return _operation(request)
    if any(part.startswith("$") for part in request.path):
        raise NotSupported(f"There is no {request.method} of the operation `{request.path[-1]}`.")
    if request.method == "POST" and len(request.path) == 1 and not request.query:
        return _create(request, bases)
    target = _target(request, bases)
    if_match = version_tags(request.if_match) if request.if_match is not None else None
    if request.method == "DELETE":
        return Delete(target, if_match)
    if request.method == "PATCH":
        assert request.content is not None
        return Patch(target, patching(_patch_of(request.content), narrative), if_match)
    if_none_match = version_tags(request.if_none_match) if request.if_none_match is not None else None
    assert request.resource is not None
    return Update(target, request.resource, if_match, if_none_match, full_url=request.full_url)


def _operation(request: Request) -> Patch:
    """https://hl7.org/fhir/R4/resource-operation-meta-add.html"""
    match request.path:
        case (type, id, ("$meta-add" | "$meta-delete") as operation):
            target = ResourceId(type, check_id(id))
        case (_, _, "_history", _, ("$meta-add" | "$meta-delete") as operation):
            text = (
                f"`{operation}` is of a resource, and not of one of its versions: the past stays as it was."
            )
            raise Invalid(Issue("error", "not-supported", text))
        case _:
            text = f"There is no operation `{'/'.join(request.path)[:200]}` here."
            raise NotFound(Issue("error", "not-supported", text))
    if request.query:
        raise Invalid(Issue("error", "not-supported", f"`{operation}` has no parameters in its URL."))
    assert request.content is not None
    if_match = version_tags(request.if_match) if request.if_match is not None else None
    return Patch(target, relabelling(operation, request.content), if_match)


def relabelling(
    operation: str, parameters: Resource
) -> Callable[[Resource], tuple[Resource, Sequence[Issue]]]:
    """What `$meta-add` or `$meta-delete` with these Parameters does to a resource, as `interactions.Patch` wants it.

    Raises Invalid.
    """
    given, change = labels.labels_of(parameters), labels.CHANGES[operation]
    return lambda before: (labels.relabelled(before, given, change), ())


def patching(
    document: patch.Patch, narrative: NarrativeMode = "drop"
) -> Callable[[Resource], tuple[Resource, Sequence[Issue]]]:
    """What a patch document does to a resource, as `interactions.Patch` wants it."""

    def change(before: Resource) -> tuple[Resource, Sequence[Issue]]:
        return patch.narrative_after(before, document.apply(before), narrative)

    return change


def _patch_of(resource: Resource) -> patch.Patch:
    is_binary = resource.get("resourceType") == "Binary"
    return patch.of_binary(resource) if is_binary else patch.of_parameters(resource)


def _create(request: Request, bases: tuple[str, ...]) -> Create:
    [type] = request.path
    assert request.resource is not None
    found = unpacked(request.resource).get("resourceType")
    if found != type:
        raise Invalid(
            f"The resource is a `{found}`, and the URL asks for a `{type}`.", expression="resourceType"
        )
    criteria = request.if_none_exist
    unless = Criteria.parse(type, criteria, bases) if criteria is not None else None
    return Create(request.resource, request.full_url, unless)


def _target(request: Request, bases: tuple[str, ...]) -> ResourceId | Criteria:
    type = request.path[0]
    if request.method in ("PUT", "PATCH", "DELETE"):
        if len(request.path) == 2 and not request.query:
            return ResourceId(type, check_id(request.path[1]))
        if len(request.path) == 1 and request.query:
            return Criteria.parse(type, request.query, bases)
    query = f"?{request.query}" if request.query else ""
    raise Invalid(
        f"{request.method} `{'/'.join(request.path)}{query}`"[:200] + " names no place to write to."
    )
