"""A search from its parameters to a page of the record. https://hl7.org/fhir/R4/search.html"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from msgspec import Struct

from gitstore.errors import Invalid, Issue, NotFound, NotSupported, TooCostly
from gitstore.fhir import Resource, json
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId
from gitstore.fhir.terminology import Terminology
from gitstore.git.repository import Repository
from gitstore.search import includes, index, labels, select, versions
from gitstore.search.criteria import Limits, parse, parse_filter
from gitstore.search.filters import All, Filter, Query, Strings
from gitstore.search.index import Connection
from gitstore.search.parameters import Registry
from gitstore.search.select import Cursor, Match, Page
from gitstore.search.sight import EVERYTHING
from gitstore.seeing import Seeing
from gitstore.version import Commit, Version

DEFAULT_COUNT = 50
MAX_COUNT = 1000
MAX_INCLUDED = 10_000
"""Of resources that _include and _revinclude may bring onto one page."""


class SearchPage(Struct, frozen=True):
    """What was found: `total` counts the matches of all pages. `next` and `previous` ask for the pages beside it.

    `query` is what was understood of the request, and `first` says that no page was asked for. `commit` is the state
    that all pages are pinned to.
    """

    commit: Commit
    query: Query
    matches: list[Match]
    included: list[Version]
    total: int | None
    next: str | None
    previous: str | None
    first: bool


class Place(Struct, frozen=True):
    """Where a page begins: in the record as the commit `sequence` left it, with the `total` that was counted then.

    `generation` is that of the index: the order of resources is its own.
    """

    sequence: int
    generation: int
    total: int | None
    cursor: Cursor

    def __str__(self) -> str:
        total = "" if self.total is None else str(self.total)
        return f"{self.sequence}.{self.generation}.{total}.{self.cursor}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Undoes str(). Raises Invalid."""
        sequence, generation, total, cursor = [*text.split(".", 3), "", "", ""][:4]
        if not (_is_number(sequence) and _is_number(generation) and (not total or _is_number(total))):
            raise Invalid(Issue("error", "value", f"`{text[:80]}` is no page of this server."))
        return cls(int(sequence), int(generation), int(total) if total else None, Cursor.parse(cursor))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19


def _labels(meta: Resource, name: str) -> list[Any]:
    """The profiles, tags or security labels; not what only a record without validation takes for some."""
    given, kind = meta.get(name), str if name == "profile" else dict
    return [each for each in given if isinstance(each, kind)] if isinstance(given, list) else []


def _identity(label: Any) -> tuple[str, str]:
    """What tells a label from others: a profile's URL, the system and code of a Coding."""
    return (label, "") if isinstance(label, str) else (str(label.get("system")), str(label.get("code")))


class _Terminology(Terminology):
    """What criteria may ask about the code systems and value sets of the record."""

    codes_in = Terminology.expansion
    below = Terminology.descendants
    above = Terminology.ancestors


class Searching:
    """Searches over one connection, which sees one state of the record; `commit` is its last."""

    def __init__(
        self,
        connection: Connection,
        repository: Repository,
        registry: Registry | None,
        commit: Commit,
        limits: Limits,
        steps: int,
        seeing: Seeing | None = None,
    ) -> None:
        """`steps` is how much work one search may cause, in steps of SQLite's machine.

        With `seeing` the resources that it doesn't see are as if they weren't there.
        """
        if registry is None:
            raise NotSupported("There is no search in this record: `fhir.search` is off.")
        self._connection = connection
        self._repository = repository
        self._registry = registry
        self._commit = commit
        self._limits = limits
        self._steps = steps
        self._seeing = seeing
        self._terminology = _Terminology(self._find)

    def page(
        self,
        types: Sequence[str],
        pairs: Sequence[tuple[str, str]],
        *,
        strict: bool = False,
        compartment: ResourceId | None = None,
        page: str | None = None,
        bases: Collection[str] = (),
    ) -> SearchPage:
        """See `Snapshot.search`."""
        with select.limited(self._connection, self._steps):
            place = Place.parse(page) if page is not None else None
            commit = self._commit if place is None else self._pinned(place)
            query = parse(
                self._registry,
                types,
                pairs,
                strict=strict,
                limits=self._limits,
                compartment=compartment,
                bases=bases,
                terminology=self._terminology,
                now=commit.last_updated,
            )
            if self._seeing is not None:
                query = self._seeing.sight.within(query)
            count = min(DEFAULT_COUNT if query.count is None else query.count, MAX_COUNT)
            if count == 0 or query.summary == "count":
                counted = select.total(self._connection, query)
                return SearchPage(commit, query, [], [], counted, None, None, first=place is None)
            cursor, upto = (None, None) if place is None else (place.cursor, place.sequence)
            found = select.page(self._connection, query, count, cursor, upto)
            included = self._as_of(commit, self._included(query, found))
            total = place.total if place is not None else self._total(query, found)
            generation = index.generation(self._connection)
            following, preceding = (
                str(Place(commit.sequence, generation, total, beside)) if beside is not None else None
                for beside in (found.next, found.previous)
            )
            return SearchPage(
                commit, query, found.matches, included, total, following, preceding, first=place is None
            )

    def matching(
        self, type: str, pairs: Sequence[tuple[str, str]], *, bases: Collection[str] = (), limit: int = 2
    ) -> list[ResourceId]:
        """The first so many resources that the criteria of a conditional interaction select. Raises Invalid.

        https://hl7.org/fhir/R4/http.html#cond-update
        """
        with select.limited(self._connection, self._steps):
            filter = parse_filter(
                self._registry,
                type,
                pairs,
                limits=self._limits,
                bases=bases,
                terminology=self._terminology,
                now=self._commit.last_updated,
            )
            return self._matching(filter, type, limit)

    def _matching(self, filter: Filter, type: str, limit: int) -> list[ResourceId]:
        if self._seeing is None:
            return select.matching(self._connection, filter, type, limit)
        query = self._seeing.sight.within(Query((type,), filter))
        return select.matching(self._connection, query.filter, type, limit)

    def _included(self, query: Query, found: Page) -> list[Version]:
        connection, seeing = self._connection, self._seeing
        if seeing is None:
            return includes.include(connection, query, found.matches, MAX_INCLUDED)
        included = includes.include(
            connection, query, found.matches, MAX_INCLUDED, lambda keys: seeing.keys(connection, "r", keys)
        )
        # A reference may name a past version, and a page may be pinned to one.
        return [version for version in included if seeing.version(connection, version)]

    def labels(self, type: str | None) -> Resource:
        """See `Snapshot.labels`."""
        found: dict[str, dict[tuple[str, str], Any]] = {"profile": {}, "security": {}, "tag": {}}
        types = (type,) if type else RESOURCE_TYPES
        with select.limited(self._connection, self._steps):
            carriers = self._carriers(types)
        for version in carriers:
            meta = json.loads_trusted(self._repository.blob(version.blob or ""))["meta"]
            for name, those in found.items():
                for label in _labels(meta, name):
                    those.setdefault(_identity(label), label)
        return {name: [those[key] for key in sorted(those)] for name, those in found.items() if those}

    def _carriers(self, types: Sequence[str]) -> list[Version]:
        """Resources that together have all labels there are. To one who doesn't see all, these are all he sees."""
        seeing = self._seeing
        if seeing is None or seeing.sight.limit("s", types) == EVERYTHING:
            return labels.carriers(self._connection, self._registry, types)
        query = seeing.sight.within(Query(tuple(types), All()))
        found = select.page(self._connection, query, labels.LIMIT)
        if found.next is not None:
            raise TooCostly(
                f"These labels are those of more than {labels.LIMIT} resources. Ask for one type."
            )
        return [match.version for match in found.matches]

    def _pinned(self, place: Place) -> Commit:
        commit = versions.commit_at(self._connection, place.sequence)
        if commit is None or commit.sequence > self._commit.sequence:
            raise NotFound(f"The record has no commit number {place.sequence}.")
        if place.generation != index.generation(self._connection):
            raise NotFound("This page is gone: the search index was made anew. Start with the first page.")
        return commit

    def _total(self, query: Query, first: Page) -> int | None:
        if query.total == "none":
            return None
        # Mostly there is one page only, and nothing left to count.
        return len(first.matches) if first.next is None else select.total(self._connection, query, page=first)

    def _as_of(self, commit: Commit, included: list[Version]) -> list[Version]:
        """Included resources as they were in the state that the pages are pinned to."""
        found = []
        for version in included:
            if version.commit.sequence <= commit.sequence:
                found.append(version)
            else:
                then = versions.newest(self._connection, version.resource_id, commit.sequence)
                if then is not None and not then.deleted and self._is_seen(then):
                    found.append(then)
        return found

    def _is_seen(self, version: Version) -> bool:
        return self._seeing is None or self._seeing.version(self._connection, version)

    def _find(self, canonical: str) -> Resource | None:
        """The CodeSystem or ValueSet of a canonical URL, the newest of several; or of a reference, `ValueSet/1`."""
        type, _, id = canonical.partition("/")
        if type in ("CodeSystem", "ValueSet"):
            named = versions.newest(self._connection, ResourceId(type, id), self._commit.sequence)
            is_there = named is not None and not named.deleted and self._is_seen(named)
            return self._resource(named) if named is not None and is_there else None
        url, _, wanted = canonical.partition("|")
        for type in ("CodeSystem", "ValueSet"):
            parameter = self._registry.find(type, "url")
            if parameter is None:
                continue
            filter = Strings((parameter.key,), "uri", (url,))
            found = [
                version
                for resource_id in select.matching(self._connection, filter, type, limit=100)
                if (version := versions.newest(self._connection, resource_id, self._commit.sequence))
                and self._is_seen(version)
            ]
            for version in sorted(found, key=lambda each: -each.last_updated):
                resource = self._resource(version)
                if not wanted or resource.get("version") == wanted:
                    return resource
        return None

    def _resource(self, version: Version) -> Resource:
        resource: Resource = json.loads_trusted(self._repository.blob(version.blob or ""))
        return resource
