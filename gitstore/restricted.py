"""The record at one commit as an access sees it: what it may not see is not there.

A method that is not overridden here gives out no resource, or makes its answer of methods that are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from msgspec.structs import replace

from gitstore.access import Access
from gitstore.errors import Forbidden, NotFound, TooCostly
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git.repository import Repository
from gitstore.search import integrity, select, versions
from gitstore.search.filters import All, OfTypes, Query
from gitstore.search.index import Connection
from gitstore.search.periods import Period
from gitstore.search.rows import Rows
from gitstore.search.sight import NOTHING, patient_of
from gitstore.search.versions import Cursor
from gitstore.seeing import Seeing
from gitstore.snapshot import HistoryPage, Snapshot, cursor_of
from gitstore.version import Commit, Version

MOST = 20_000
"""Versions that are looked at for one page of a history."""

_PIECE = 500


class Restricted(Snapshot):
    """A Snapshot for an access. Raises Forbidden for types of which the access sees nothing at all."""

    def __init__(
        self,
        commit: Commit,
        connect: Callable[[], Connection],
        repository: Repository,
        searching: Callable[..., object] | None,
        seeing: Seeing,
        reading: Callable[[], AbstractContextManager[Connection]],
    ) -> None:
        """`reading` gives a connection inside of a transaction, in which what is looked at belongs together."""
        super().__init__(commit, connect, repository, searching)  # type: ignore[arg-type]  # Searching, which imports us
        self._seeing = seeing
        self._reading = reading

    @property
    def access(self) -> Access:
        return self._seeing.sight.access

    def _of(self, commit: Commit) -> Snapshot:
        return Restricted(
            commit, self._connect, self._repository, self._searching, self._seeing, self._reading
        )

    def read(self, resource_id: ResourceId) -> Version:
        self._check("r", resource_id.type)
        return super().read(resource_id)

    def newest(self, resource_id: ResourceId) -> Version | None:
        with self._reading() as connection:
            found = versions.newest(connection, resource_id, self.commit.sequence)
            return found if found is not None and self._seeing.version(connection, found) else None

    def version(self, resource_id: ResourceId, version_id: VersionId) -> Version:
        self._check("r", resource_id.type)
        return super().version(resource_id, version_id)

    def _version(self, resource_id: ResourceId, version_id: VersionId) -> Version | None:
        if not self.access.history:
            return None
        with self._reading() as connection:
            found = versions.version(connection, resource_id, version_id, self.commit.sequence)
            return found if found is not None and self._seeing.version(connection, found) else None

    def resources(self, type: str | None = None) -> Iterator[Version]:
        return (version for version in super().resources(type) if self.is_seen(version))

    def changes(self, commit: Commit) -> list[Version]:
        return [version for version in super().changes(commit) if self.is_seen(version)]

    def made(self, commit: Commit) -> list[Version]:
        made = self.all_changes(commit)
        if not self.access.history or not all(map(self.is_seen, made)):
            raise NotFound(f"Commit {commit.id} is not known, or not all that it changed.")
        return super().made(commit)

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with self._reading() as connection:
            for type in self._seeing.sight.types("s", RESOURCE_TYPES):
                query = self._seeing.sight.within(Query((type,), All()))
                number = select.total(connection, query, self.commit.sequence)
                found |= {type: number} if number else {}
        return found

    def is_seen(self, version: Version) -> bool:
        with self._reading() as connection:
            return self._seeing.version(connection, version)

    def permits(self, letter: str, resource_id: ResourceId) -> bool:
        if not self.access.is_limited(letter, resource_id.type):
            return self.access.may(letter, resource_id.type)
        with self._reading() as connection:
            return self._seeing.resource(connection, letter, resource_id)

    def permits_content(self, letter: str, resource_id: ResourceId, rows: Rows | None) -> bool:
        if not any(grant.is_limited for grant in self.access.of(letter, resource_id.type)):
            return self.access.may(letter, resource_id.type)
        return rows is not None and self._seeing.rows(letter, resource_id, rows)

    def dangling(self, resource_id: ResourceId) -> list[ResourceId]:
        missing = super().dangling(resource_id)
        hidden = [each for each in self._referred(resource_id) if not self.permits("r", each)]
        return sorted({*missing, *hidden} - {resource_id})

    def referrers(self, resource_id: ResourceId, limit: int = 5) -> list[ResourceId]:
        return [each for each in super().referrers(resource_id, MOST) if self.permits("r", each)][:limit]

    # Histories

    def history(
        self,
        scope: ResourceId | str | None = None,
        *,
        since: int | None = None,
        at: tuple[int, int] | None = None,
        author: str | None = None,
        cursor: Cursor | None = None,
        count: int = 50,
    ) -> HistoryPage:
        """See Snapshot. Whose past may not be seen has none: NotFound."""
        name = f"`{scope}`" if isinstance(scope, ResourceId) else "This history"
        if not self.access.history:
            raise NotFound(f"{name} is not known.")
        type = scope.type if isinstance(scope, ResourceId) else scope
        if type is not None:
            self._check("r" if isinstance(scope, ResourceId) else "s", type)
        with self._reading() as connection:
            period = replace(self._period(connection, since, at), author=author)
            if isinstance(scope, ResourceId):
                self._check_known(scope, self.newest(scope))
                own = [*self._seen(connection, scope, period, None, None)]
                return self._part(scope, own, cursor, count)
            keys = self._candidates(connection, scope)
            if keys is not None:
                own = [*self._seen(connection, scope, period, None, keys)]
                return self._part(scope, own, cursor, count)
            found = []
            for version in self._seen(connection, scope, period, cursor, None):
                found.append(version)
                if len(found) > count:
                    break
            backward = cursor is not None and cursor.newer
            return self._page(scope, found[::-1] if backward else found, None, cursor, count)

    def _part(
        self, scope: ResourceId | str | None, own: list[Version], cursor: Cursor | None, count: int
    ) -> HistoryPage:
        """The page of a whole history, newest first."""
        total = len(own)
        if cursor is not None:
            is_instance = isinstance(scope, ResourceId)
            edge = (cursor.first, cursor.second)

            def place(version: Version) -> tuple[int, int]:
                here = cursor_of(version, is_instance, newer=False)
                return (here.first, here.second)

            own = [each for each in own if (place(each) > edge if cursor.newer else place(each) < edge)]
            if cursor.newer:
                own = own[-(count + 1) :]
        return self._page(scope, own[: count + 1], total, cursor, count)

    def _seen(
        self,
        connection: Connection,
        scope: ResourceId | str | None,
        period: Period,
        cursor: Cursor | None,
        keys: Sequence[int] | None,
    ) -> Iterator[Version]:
        """The versions that are seen, away from the cursor. Raises TooCostly where too many are not."""
        looked = 0
        backward = cursor is not None and cursor.newer
        while True:
            if isinstance(scope, ResourceId):
                piece, _ = versions.instance_history(connection, scope, period, cursor, _PIECE)
            else:
                piece, _ = versions.history(connection, scope, period, cursor, _PIECE, keys)
            if backward:
                piece.reverse()
            for version in piece:
                if self._may_list(version, scope) and self._seeing.version(connection, version):
                    yield version
            looked += len(piece)
            if len(piece) < _PIECE:
                return
            if looked >= MOST:
                raise TooCostly("This history is too long to look through. Ask for that of one resource.")
            cursor = cursor_of(piece[-1], isinstance(scope, ResourceId), newer=backward)

    def _may_list(self, version: Version, scope: ResourceId | str | None) -> bool:
        """Histories of types are searches to SMART: https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html"""
        return isinstance(scope, ResourceId) or self.access.may("s", version.resource_id.type)

    def _candidates(self, connection: Connection, type: str | None) -> list[int] | None:
        """The keys of all resources that could be seen, where that is a patient's compartment; None where it isn't."""
        sight = self._seeing.sight
        types = sight.types("s", RESOURCE_TYPES if type is None else (type,))
        if not types:
            raise Forbidden("No history of any type may be seen with these scopes.")
        limit = sight.limit("s", types)
        if patient_of(self.access, "s", types) is None or limit == NOTHING:
            return None
        filter = All((OfTypes(types), limit))
        current = select.page(connection, Query(types, filter), MOST)
        gone = versions.deleted(connection, types, MOST)
        if current.next is not None or len(gone) == MOST:
            raise TooCostly("This history is too long to look through. Ask for that of one resource.")
        seen = [each for each in gone if self._seeing.resource(connection, "s", each)]
        return versions.keys_of(
            connection, [*(match.version.resource_id for match in current.matches), *seen]
        )

    def _referred(self, resource_id: ResourceId) -> list[ResourceId]:
        return integrity.referred(self._connect(), resource_id)

    def _check(self, letter: str, type: str) -> None:
        if not self.access.may(letter, type):
            verb = "Reading" if letter == "r" else "Searching"
            raise Forbidden(f"{verb} {type} is not allowed with these scopes.")
