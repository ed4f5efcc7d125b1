"""What a document means to `import`: the units of work that it stands for.

A transaction Bundle is one unit. A batch Bundle is a unit for each entry, and so is any other Bundle, unless its
entries call one another by `urn:`: then only the whole Bundle makes sense, and it is one unit.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from cli.documents import Document, Place, Refusal
from gitstore import (
    Ahead,
    Ask,
    Author,
    Create,
    Delete,
    Interaction,
    Invalid,
    Settings,
    Snapshot,
    StoreError,
    TooLarge,
    Unit,
    Update,
    write_of,
)
from gitstore.fhir import Resource, json
from gitstore.fhir.bundle import Request, requests
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, check_id

_REQUEST_ID = "import-{}"
_READS = ("GET", "HEAD")


class Item(Struct, frozen=True):
    """A unit of work, where it comes from, and how many bytes it has.

    A unit with a request id creates resources under new ids: it must not happen twice, and the request id, which its
    content determines, tells whether it has happened. `digest` is that content's where there may be more of the same.
    `ahead` is what it came to where it is prepared already. `number` is its place among what the document was planned as.
    """

    place: Place
    unit: Unit
    size: int
    digest: bytes | None = None
    ahead: Ahead | None = None
    number: int = 0
    source: Document | None = None
    kinds: tuple[type[Interaction], ...] = ()
    """Those of the interactions, in their order."""

    def __post_init__(self) -> None:
        if not self.kinds:
            force_setattr(self, "kinds", tuple(map(type, self.unit.interactions)))

    @property
    def writes(self) -> int:
        return sum(kind is not Ask for kind in self.kinds)


Planned: TypeAlias = Item | Refusal


class Planner:
    """Turns documents into units of work of one author, for one reason.

    Resources without an id are told apart by their content. Where one content comes several times, the first is not the
    second: the planner counts, so that a second import of the same input names each of them as the first one did.
    """

    def __init__(
        self, author: Author, message: str | None, settings: Settings, *, force: bool = False
    ) -> None:
        self._author = author
        self._message = message
        self._settings = settings
        self._force = force
        self._seen: Counter[bytes] = Counter()

    def plan(self, document: Document) -> Iterator[Planned]:
        """The units of a document, or what is wrong with it."""
        return map(self.counted, self.outline(seeded(document)))

    def outline(self, document: Document) -> Iterator[Planned]:
        """The same, always the same for a document; what has to be `counted` is not, and has no request id yet."""
        for number, planned in enumerate(self._planned(document)):
            if isinstance(planned, Refusal):
                yield planned
            else:
                unit = replace(planned.unit, seed=f"{document.seed}/{number}")
                yield replace(planned, unit=unit, number=number)

    def counted(self, planned: Planned) -> Planned:
        """With the request id, if it depends on how many of the same came before. To be called in the order of all."""
        if isinstance(planned, Refusal) or planned.digest is None:
            return planned
        request_id = self._request_id(planned.digest + b"%d" % self._seen[planned.digest])
        self._seen[planned.digest] += 1
        return replace(planned, unit=replace(planned.unit, request_id=request_id))

    def _planned(self, document: Document) -> Iterator[Planned]:
        try:
            yield from self._document(document)
        except StoreError as error:
            yield Refusal.of(document.place, error)

    def _document(self, document: Document) -> Iterator[Planned]:
        resource = _resource(json.loads(document.data), "The document")
        if resource["resourceType"] != "Bundle":
            yield self._single(document.place, resource, document.data)
            return
        entries = resource.get("entry", [])
        if not isinstance(entries, list):
            raise Invalid("`Bundle.entry` must be a list.", expression="Bundle.entry")
        if len(entries) > self._settings.max_entries:
            raise TooLarge(
                f"The Bundle has {len(entries):,} entries; {self._settings.max_entries:,} are allowed."
            )
        match resource.get("type"):
            case "transaction":
                yield self._transaction(document, resource)
            case "batch":
                yield from self._batch(document, resource)
            case str() as type:
                yield from self._others(document, type, entries)
            case _:
                raise Invalid("`Bundle.type` is missing.", expression="Bundle.type")

    def _transaction(self, document: Document, bundle: Resource) -> Item:
        interactions = [self._interaction(request) for request in requests(bundle, self._bases)]
        return self._whole(document, interactions)

    def _batch(self, document: Document, bundle: Resource) -> Iterator[Planned]:
        for number, request in enumerate(requests(bundle, self._bases, each=True)):
            place = document.place.at_entry(number)
            if isinstance(request, StoreError):
                yield Refusal.of(place, request)
            elif request.method not in _READS:
                try:
                    yield self._item(place, self._interaction(request), None)
                except StoreError as error:
                    yield Refusal.of(place, error)

    def _others(self, document: Document, type: str, entries: list[Any]) -> Iterator[Planned]:
        """The resources of a collection, searchset, history and so on; of a history only the newest version of each."""
        if any(_is_urn(entry) for entry in entries):
            resources = [
                self._write(_resource(entry.get("resource"), f"Bundle.entry[{number}].resource"), _urn(entry))
                for number, entry in enumerate(entries)
                if isinstance(entry, dict)
            ]
            yield self._whole(document, resources)
            return
        newest: set[ResourceId] = set()
        for number, entry in enumerate(entries):
            place = document.place.at_entry(number)
            try:
                interaction = self._of_entry(entry)
            except StoreError as error:
                yield Refusal.of(place, error)
                continue
            if interaction is None or (type == "history" and _is_older(interaction, newest)):
                continue
            yield self._item(place, interaction, None)

    def _of_entry(self, entry: Any) -> Create | Update | Delete | None:
        """What an entry of a searchset, history, collection or the like stands for; None for nothing to import."""
        if not isinstance(entry, dict):
            raise Invalid("An entry of a Bundle must be a JSON object.")
        if isinstance(search := entry.get("search"), dict) and search.get("mode") == "outcome":
            return None
        request = entry.get("request")
        if "resource" not in entry and isinstance(request, dict) and request.get("method") == "DELETE":
            type, _, id = str(request.get("url")).partition("/")
            if not is_resource_type(type):
                raise Invalid("`request.url` of a deletion must be a reference such as Patient/example.")
            return Delete(ResourceId(type, check_id(id)))
        return self._write(_resource(entry.get("resource"), "`resource`"))

    def _interaction(self, request: Request) -> Interaction:
        if request.method in _READS:
            # Nothing to import, but it keeps the numbers of the entries.
            return Ask(_nothing)
        interaction = write_of(request, self._settings.patch_narrative, self._bases)
        if isinstance(interaction, Update):
            return replace(interaction, skip_unchanged=not self._force)
        return interaction

    def _write(self, resource: Resource, full_url: str | None = None) -> Create | Update:
        if "id" not in resource:
            return Create(resource, full_url)
        resource_id = ResourceId(resource["resourceType"], check_id(resource["id"], "id"))
        return Update(resource_id, resource, skip_unchanged=not self._force, full_url=full_url)

    def _single(self, place: Place, resource: Resource, data: bytes) -> Item:
        if len(data) > self._settings.max_body:
            raise TooLarge(f"The resource has {len(data):,} bytes; {self._settings.max_body:,} are allowed.")
        return self._item(place, self._write(resource), data)

    def _item(self, place: Place, interaction: Interaction, data: bytes | None) -> Item:
        """A unit of one interaction; `data` is its resource as it was read, if that is at hand."""
        resource = interaction.resource if isinstance(interaction, Create | Update) else {}
        data = data or json.dumps(resource)
        # Not of `data`: white space must not make another resource of it.
        digest = hashlib.sha256(json.dumps(resource)).digest() if isinstance(interaction, Create) else None
        return Item(place, Unit([interaction], self._author, None, self._message), len(data), digest)

    def _whole(self, document: Document, interactions: list[Interaction] | list[Create | Update]) -> Item:
        request_id = self._request_id(document.data)
        unit = Unit(interactions, self._author, request_id, self._message, "transaction")
        return Item(document.place, unit, len(document.data))

    def _request_id(self, content: bytes) -> str | None:
        return None if self._force else _REQUEST_ID.format(hashlib.sha256(content).hexdigest()[:32])

    @property
    def _bases(self) -> tuple[str, ...]:
        return (self._settings.base_url,) if self._settings.base_url else ()


def seeded(document: Document) -> Document:
    """The document with what its new ids are made of."""
    return replace(document, seed=secrets.token_hex(16))


def _nothing(_snapshot: Snapshot) -> None:
    """What a read asks that is of no use here."""


def _resource(value: Any, what: str) -> Resource:
    """The resource itself. Raises Invalid where it is no JSON object of a resource type."""
    if not isinstance(value, dict):
        raise Invalid(f"{what} must be a JSON object: a FHIR resource.")
    type = value.get("resourceType")
    if not isinstance(type, str) or not is_resource_type(type):
        said = "is missing" if type is None else f"is `{str(type)[:80]}`"
        raise Invalid(
            f"`resourceType` {said}: expected a resource type of FHIR R4.", expression="resourceType"
        )
    return value


def _urn(entry: Resource) -> str | None:
    full_url = entry.get("fullUrl")
    return full_url if isinstance(full_url, str) and full_url.startswith("urn:") else None


def _is_urn(entry: Any) -> bool:
    return isinstance(entry, dict) and _urn(entry) is not None


def _is_older(interaction: Create | Update | Delete, newest: set[ResourceId]) -> bool:
    """Whether a later version of the same resource has come before, as the newest come first in a history."""
    if isinstance(interaction, Create):
        return False
    assert isinstance(interaction.target, ResourceId)
    if interaction.target in newest:
        return True
    newest.add(interaction.target)
    return False
