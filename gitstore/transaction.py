"""From interactions to the changes of one commit: what can be prepared before the lock, and what depends on the state.

https://hl7.org/fhir/R4/http.html#trules. Its order (DELETE, POST, PUT, then GET) needs no sorting here: no two writes
of a transaction may name the same resource, and questions are asked after all writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gitstore.errors import (
    AlreadyExists,
    Invalid,
    Issue,
    NotFound,
    NotSupported,
    StoreError,
    TooLarge,
    VersionMismatch,
)
from gitstore.fhir import Resource
from gitstore.fhir.bundle import Request, resolver
from gitstore.fhir.conditions import version_tags
from gitstore.fhir.conformance import without_replaced
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, VersionId, check_id
from gitstore.fhir.references import references, rewrite
from gitstore.fhir.stored import Template, template
from gitstore.fhir.validation import refusal
from gitstore.git.message import INTERACTIONS, safe_author, safe_request_id, safe_words
from gitstore.git.pack import BLOB, object_id
from gitstore.interactions import Ask, Create, Delete, Unit, Update, Validate, VersionTags
from gitstore.version import Author, Change, Verb, Version

MAX_STORED = 64 * 1024**2
"""Bytes of one file. Indentation can make deeply nested JSON 40 times larger than it was sent."""

_VERBS: dict[type, Verb] = {Create: "POST", Update: "PUT", Delete: "DELETE"}
_NAMES = {Create: "create", Update: "update", Delete: "delete"}


@dataclass(frozen=True, slots=True)
class Write:
    """One write, prepared; `entry` is its place in the unit. A deletion has no template. `issues` are warnings."""

    entry: int
    verb: Verb
    resource_id: ResourceId
    template: Template | None
    if_match: VersionTags | None
    if_none_match: VersionTags | None
    skip_unchanged: bool
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A unit of work with everything done that needs no lock. `size` is in bytes."""

    entries: int
    writes: tuple[Write, ...]
    questions: tuple[tuple[int, Ask], ...]
    interaction: str
    author: Author
    request_id: str | None
    words: str
    size: int
    adopts: str | None = None
    """The foreign tip that the unit takes into the record."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What one write comes to: a change and its file (None for a deletion), or the version that is left as it is."""

    write: Write
    change: Change | None
    body: bytes | None
    left: Version | None


def prepare(
    unit: Unit,
    new_id: Callable[[], str],
    validate: Validate | None = None,
    *,
    skip_unchanged: bool = False,
) -> Prepared:
    """Check, assign ids, rewrite references, validate and print, all before the lock.

    Raises Invalid, Unprocessable or NotSupported; in a transaction with the entry at fault.
    """
    if unit.interaction not in (None, *INTERACTIONS):
        raise ValueError(f"{unit.interaction} is no interaction of the format")
    is_transaction = unit.interaction == "transaction"
    targets = _targets(unit, new_id)
    urls = {
        interaction.full_url: str(target)
        for interaction, target in zip(unit.interactions, targets, strict=True)
        if isinstance(interaction, Create | Update) and interaction.full_url and target
    }
    writes, questions = [], []
    named: dict[ResourceId, int] = {}
    for entry, (interaction, target) in enumerate(zip(unit.interactions, targets, strict=True)):
        if isinstance(interaction, Ask):
            questions.append((entry, interaction))
            continue
        assert target is not None
        with _Entry(entry, is_transaction):
            if target in named:
                raise Invalid(
                    f"`{target}` is also named by entry {named[target]}: a resource may stand here once."
                )
            named[target] = entry
            write = _write(entry, interaction, target, urls, is_transaction, skip_unchanged, validate)
            writes.append(write)
    kinds = {type(interaction) for interaction in unit.interactions}
    name = unit.interaction or (_NAMES.get(kinds.pop(), "") if len(unit.interactions) == 1 else "transaction")
    return Prepared(
        len(unit.interactions),
        tuple(writes),
        tuple(questions),
        name,
        safe_author(unit.author),
        safe_request_id(unit.request_id),
        safe_words(unit.message),
        sum(len(write.template.tail) + 256 if write.template else 256 for write in writes),
    )


class _Entry:
    """Errors inside the block are those of this entry of the Bundle."""

    def __init__(self, entry: int, is_transaction: bool) -> None:
        self._entry = entry if is_transaction else None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._entry is not None and isinstance(error, StoreError):
            error.at_entry(self._entry)


def _targets(unit: Unit, new_id: Callable[[], str]) -> list[ResourceId | None]:
    targets: list[ResourceId | None] = []
    for entry, interaction in enumerate(unit.interactions):
        with _Entry(entry, unit.interaction == "transaction"):
            match interaction:
                case Create(resource):
                    targets.append(ResourceId(_checked_type(resource), new_id()))
                case Update(resource_id, resource):
                    targets.append(_checked_target(resource_id, resource))
                case Delete(resource_id):
                    targets.append(ResourceId(resource_id.type, check_id(resource_id.id)))
                case _:
                    targets.append(None)
    return targets


def _checked_type(resource: Resource) -> str:
    type = resource.get("resourceType")
    if isinstance(type, str) and is_resource_type(type):
        return type
    found = f"`{type}`" if type is not None else "nothing"
    raise Invalid(
        f"`resourceType` must name a resource type of R4; found {found}.", expression="resourceType"
    )


def _checked_target(resource_id: ResourceId, resource: Resource) -> ResourceId:
    type = _checked_type(resource)
    if type != resource_id.type:
        raise Invalid(
            f"The resource is a `{type}`, and the URL asks for a `{resource_id.type}`.",
            expression=resource_id.type,
        )
    check_id(resource_id.id)
    expression = f"{type}.id"
    if "id" not in resource:
        text = f"The resource must have the id of the URL, `{resource_id.id}`; it has none."
        raise Invalid(Issue("error", "required", text, expression))
    if check_id(resource["id"], expression) != resource_id.id:
        text = f"The resource has the id `{resource['id']}`, and the URL asks for `{resource_id.id}`."
        raise Invalid(Issue("error", "value", text, expression))
    return resource_id


def _write(
    entry: int,
    interaction: Create | Update | Delete,
    target: ResourceId,
    urls: dict[str, str],
    is_transaction: bool,
    skip_unchanged: bool,
    validate: Validate | None,
) -> Write:
    verb = _VERBS[type(interaction)]
    if isinstance(interaction, Delete):
        return Write(entry, verb, target, None, interaction.if_match, None, False)
    resource = interaction.resource
    if is_transaction:
        resource = rewrite(resource, resolver(urls, interaction.full_url))
        _refuse_conditional_references(resource)
    issues: tuple[Issue, ...] = ()
    if validate is not None:
        issues = _warnings(validate(without_replaced(resource, target.id)), entry if is_transaction else None)
    printed = template(target, resource)
    if len(printed.tail) > MAX_STORED:
        raise TooLarge(f"`{target}` is larger than {MAX_STORED} bytes in its stored form, which is indented.")
    if isinstance(interaction, Create):
        return Write(entry, verb, target, printed, None, None, False, issues)
    skip = skip_unchanged or interaction.skip_unchanged
    return Write(entry, verb, target, printed, interaction.if_match, interaction.if_none_match, skip, issues)


def _warnings(found: Sequence[Issue], entry: int | None) -> tuple[Issue, ...]:
    """What validation has found, if it is nothing worse. Raises Invalid or Unprocessable, in the entry of a transaction."""
    error = refusal(found)
    if error is None:
        return tuple(found)
    if entry is not None:
        # Not left to at_entry, which can't tell a Bundle that is to be stored from the one that was posted.
        error.issues = [_in_entry(issue, entry) for issue in error.issues]
    raise error


def _in_entry(issue: Issue, entry: int) -> Issue:
    _, dot, path = (issue.expression or "").partition(".")
    return replace(issue, expression=f"Bundle.entry[{entry}].resource{dot}{path}")


def _refuse_conditional_references(resource: Resource) -> None:
    for expression, text in references(resource):
        type, found, _ = text.partition("?")
        if found and is_resource_type(type):
            raise NotSupported(
                f"The conditional reference `{text[:200]}` needs search, which is not built yet.",
                expression=expression,
            )


def plan(
    prepared: Prepared, newest: Callable[[ResourceId], Version | None], last_updated: int
) -> list[Planned]:
    """What the writes of a unit come to, given the newest version of each resource; under the lock.

    Raises VersionMismatch or AlreadyExists where a condition fails.
    """
    planned = []
    for write in prepared.writes:
        with _Entry(write.entry, prepared.interaction == "transaction"):
            planned.append(_plan_write(write, newest(write.resource_id), last_updated))
    return planned


def _plan_write(write: Write, newest: Version | None, last_updated: int) -> Planned:
    exists = newest is not None and not newest.deleted
    _check_conditions(write, newest, exists=exists)
    if write.verb == "POST" and newest is not None:
        raise AlreadyExists(f"`{write.resource_id}` is in use; ids are never given twice.")
    if write.template is None and not exists:
        return Planned(write, None, None, newest)
    if write.skip_unchanged and newest is not None and write.template is not None:
        same = write.template.fill(newest.version_id, newest.last_updated)
        if object_id(BLOB, same).hex() == newest.blob:
            return Planned(write, None, None, newest)
    version_id = VersionId(newest.version_id + 1 if newest is not None else 1)
    body = write.template.fill(version_id, last_updated) if write.template else None
    return Planned(write, Change(write.verb, write.resource_id, version_id), body, None)


def _check_conditions(write: Write, newest: Version | None, *, exists: bool) -> None:
    """If-Match compares weakly, with the deletion's number where the resource is deleted; `*` asks for one that exists.

    https://hl7.org/fhir/R4/http.html#concurrency
    """
    if write.if_match is not None:
        asked = ", ".join(sorted(write.if_match))
        if newest is None:
            raise VersionMismatch(f"`{write.resource_id}` does not exist; If-Match asked for {asked}.")
        if not (exists and "*" in write.if_match) and str(newest.version_id) not in write.if_match:
            raise VersionMismatch(
                f"`{write.resource_id}` is at version {newest.version_id}; If-Match asked for {asked}."
            )
    if write.if_none_match is not None and newest is not None and exists:
        if "*" in write.if_none_match:
            raise AlreadyExists(f"`{write.resource_id}` exists; If-None-Match asked that it does not.")
        if str(newest.version_id) in write.if_none_match:
            raise AlreadyExists(
                f"`{write.resource_id}` is at version {newest.version_id}; If-None-Match asked that it is not."
            )


def write_of(request: Request) -> Create | Update | Delete:
    """The write that an entry of a Bundle asks for. https://hl7.org/fhir/R4/http.html#transaction

    Raises Invalid or NotFound where it names no place to write to, NotSupported for what is not built yet; each names
    the entry.
    """
    with _Entry(request.entry, is_transaction=True):
        return _write_of(request)


def _write_of(request: Request) -> Create | Update | Delete:
    if request.query or request.if_none_exist is not None:
        raise NotSupported("Conditional create, update and delete need search, which is not built yet.")
    if request.method == "PATCH":
        raise NotSupported("PATCH is not built yet.")
    if not request.path or not is_resource_type(request.path[0]):
        raise NotFound(f"`{'/'.join(request.path)}` does not begin with a resource type of R4.")
    type = request.path[0]
    if any(part.startswith("$") for part in request.path):
        raise NotSupported(f"The operation `{request.path[-1]}` is not built yet.")
    if request.method == "POST" and len(request.path) == 1:
        assert request.resource is not None
        if request.resource.get("resourceType") != type:
            found = request.resource.get("resourceType")
            raise Invalid(
                f"The resource is a `{found}`, and the URL asks for a `{type}`.", expression="resourceType"
            )
        return Create(request.resource, request.full_url)
    if request.method in ("PUT", "DELETE") and len(request.path) == 2:
        target = ResourceId(type, check_id(request.path[1]))
        if_match = version_tags(request.if_match) if request.if_match is not None else None
        if request.method == "DELETE":
            return Delete(target, if_match)
        assert request.resource is not None
        if_none_match = version_tags(request.if_none_match) if request.if_none_match is not None else None
        return Update(target, request.resource, if_match, if_none_match, full_url=request.full_url)
    raise Invalid(f"{request.method} `{'/'.join(request.path)}` names no place to write to.")
