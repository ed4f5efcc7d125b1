"""The record at one commit: everything that one request reads comes from one Snapshot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gitstore.errors import Gone, NotFound, StorageFailed
from gitstore.fhir import Resource
from gitstore.fhir.conditions import Criteria
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git.repository import Repository
from gitstore.search import index, integrity, periods, spans, versions
from gitstore.search.index import Connection
from gitstore.search.periods import Period
from gitstore.search.rows import Rows
from gitstore.search.versions import Cursor
from gitstore.version import Author, Commit, Version

if TYPE_CHECKING:
    from gitstore.searching import Searching, SearchPage

_PIECE = 1000

Select: TypeAlias = Callable[[Criteria, int], list[ResourceId]]
"""The first so many resources that criteria select."""


Noted: TypeAlias = Callable[[Version, bytes], None]
"""Is told each body that is given out."""


class HistoryPage(Struct, frozen=True):
    """Versions of a history, newest first; `total` counts all pages. The cursors lead to the pages beside it.

    There is not always a total for who sees a part of the record only, nor for those of much that somebody wrote, or that
    was made since an instant, which were current in a later period: it would take too much work.
    """

    versions: list[Version]
    total: int | None
    older: Cursor | None
    newer: Cursor | None


class Snapshot:
    """The record as `commit` left it. A value: what it answers does not change while others write."""

    def __init__(
        self,
        commit: Commit,
        connect: Callable[[], Connection],
        repository: Repository,
        searching: Callable[[Connection, Commit], Searching] | None = None,
    ) -> None:
        self.commit = commit
        self._connect = connect
        self._repository = repository
        self._searching = searching
        self.noted: Noted | None = None

    def read(self, resource_id: ResourceId) -> Version:
        """The current version. Raises NotFound, or Gone where the resource is deleted."""
        found = self.newest(resource_id)
        if found is None:
            raise NotFound(f"`{resource_id}` is not known.")
        if found.deleted:
            raise self._gone(found) or Gone(
                f"`{resource_id}` was deleted.", found.version_id, found.last_updated
            )
        return found

    def _gone(self, found: Version) -> Gone | None:
        """The refusal of a version that was purged: by whom and when, and not why. None for any other."""
        if found.purged is None:
            return None
        commit = versions.commit_at(self._connect(), found.purged)
        if commit is None:
            return Gone(f"`{found}` was purged.", found.version_id, found.last_updated)
        text = f"`{found}` was purged by {commit.author.name} on {format_instant(commit.last_updated)}."
        return Gone(text, found.version_id, commit.last_updated)

    def version(self, resource_id: ResourceId, version_id: VersionId) -> Version:
        """One version, which may be a deletion. Raises NotFound, and Gone where it was purged."""
        found = self._version(resource_id, version_id)
        if found is None:
            raise NotFound(f"`{resource_id}` has no version {version_id}.")
        if (gone := self._gone(found)) is not None:
            raise gone
        return found

    def _version(self, resource_id: ResourceId, version_id: VersionId) -> Version | None:
        return versions.version(self._connect(), resource_id, version_id, self.commit.sequence)

    def vread(self, resource_id: ResourceId, version_id: VersionId) -> Version:
        """One version with content. Raises NotFound, or Gone where that version is a deletion or was purged."""
        found = self.version(resource_id, version_id)
        if found.deleted:
            raise Gone(
                f"`{found}` is the deletion of `{resource_id}`, on {format_instant(found.last_updated)}.",
                found.version_id,
                found.last_updated,
            )
        return found

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
        """A page of the history of an instance, a type, or of everything. https://hl7.org/fhir/R4/http.html#history

        `since` is an inclusive instant; `at` a half-open interval of instants: what was current at some time in it.
        `author` is a name or a mail address: only what they wrote.
        What was purged is left out. Raises NotFound for an instance that never existed, Gone for one that was purged whole.
        """
        connection = self._connect()
        period = replace(self._period(connection, since, at), author=author)
        total: int | None
        # One more than asked for shows whether there is another page.
        if isinstance(scope, ResourceId):
            self._check_known(scope, versions.newest(connection, scope, self.commit.sequence))
            found, total = versions.instance_history(connection, scope, period, cursor, count + 1)
        else:
            found, total = versions.history(connection, scope, period, cursor, count + 1)
        return self._page(scope, found, total, cursor, count)

    def _check_known(self, resource_id: ResourceId, newest: Version | None) -> None:
        if newest is None:
            raise NotFound(f"`{resource_id}` is not known.")
        known = versions.all_of(self._connect(), resource_id) if newest.purged is not None else []
        if known and all(version.purged is not None for version in known):
            raise self._gone(newest) or NotFound(f"`{resource_id}` is not known.")

    def _page(
        self,
        scope: ResourceId | str | None,
        found: list[Version],
        total: int | None,
        cursor: Cursor | None,
        count: int,
    ) -> HistoryPage:
        """The page of versions of which one more than asked for may have been found."""
        more = len(found) > count
        backward = cursor is not None and cursor.newer
        page = (found[1:] if backward else found[:-1]) if more else found
        older = newer = None
        if page:
            is_instance = isinstance(scope, ResourceId)
            if more or backward:
                older = cursor_of(page[-1], is_instance, newer=False)
            if (more and backward) or (cursor is not None and not cursor.newer):
                newer = cursor_of(page[0], is_instance, newer=True)
        return HistoryPage(page, total, older, newer)

    def _period(self, connection: Connection, since: int | None, at: tuple[int, int] | None) -> Period:
        first, last = 1, self.commit.sequence
        # What came after this snapshot is none of its business: an instant after it is its future.
        if since is not None:
            first = min(last, versions.sequence_before(connection, since)) + 1
        if at is None:
            return Period(first, last)
        start, end = at
        # A version of the very first instant replaces the one before it: that one is not current in the period.
        begin = min(last, versions.sequence_before(connection, start + 1)) + 1
        return Period(begin, min(last, versions.sequence_before(connection, end)), current=True, since=first)

    def resources(self, type: str | None = None) -> Iterator[Version]:
        """Every resource that is there and not deleted, by type and id."""
        after = None
        # In pieces, as a new generation of the index may take over between any two of them.
        while page := versions.current(self._connect(), type, self.commit.sequence, after, _PIECE):
            yield from page
            after = page[-1].resource_id

    def search(
        self,
        types: Sequence[str],
        pairs: Sequence[tuple[str, str]],
        *,
        strict: bool = False,
        compartment: ResourceId | None = None,
        page: str | None = None,
        bases: Collection[str] = (),
    ) -> SearchPage:
        """A page of resources of these types, of all without any, that fit the parameters. Only within `Store.reading`.

        `strict` refuses parameters that aren't known. `page` is that of a SearchPage before; later versions than its
        first page saw are left out. `bases` are URLs of this server: references below them are to its own resources.
        Raises Invalid, TooCostly, NotSupported; NotFound for a page of another record or index.
        """
        return self._search().page(
            types, pairs, strict=strict, compartment=compartment, page=page, bases=bases
        )

    def matching(self, criteria: Criteria, limit: int = 2) -> list[ResourceId]:
        """The first so many resources that criteria select; only within `Store.reading`. Raises Invalid, TooCostly."""
        return self._search().matching(criteria.type, criteria.pairs, bases=criteria.bases, limit=limit)

    def labels(self, type: str | None = None) -> Resource:
        """The profiles, tags and security labels of all current resources, or of those of a type, as a Meta has them.

        Each once and in order; nothing where there are none. Codes that differ by case alone are one where their system
        doesn't mind case. Only within `Store.reading`. Raises TooCostly, NotSupported.
        """
        return self._search().labels(type)

    def among(self, contents: Sequence[tuple[ResourceId, Rows]]) -> Select:
        """As `matching`, but in these resources alone, which nobody has written yet."""
        assert self._searching is not None
        searching = self._searching(index.of_contents(contents), self.commit)
        return lambda criteria, limit: searching.matching(
            criteria.type, criteria.pairs, bases=criteria.bases, limit=limit
        )

    def _search(self) -> Searching:
        assert self._searching is not None
        return self._searching(self._connect(), self.commit)

    def newest(self, resource_id: ResourceId) -> Version | None:
        """The newest version, which may be a deletion; None where there never was one."""
        return versions.newest(self._connect(), resource_id, self.commit.sequence)

    def is_seen(self, version: Version) -> bool:  # noqa: ARG002 - Restricted looks
        """Whether whoever asks may read a version that was found otherwise."""
        return True

    def permits(self, letter: str, resource_id: ResourceId) -> bool:  # noqa: ARG002 - Restricted looks
        """Whether whoever asks may do what a letter of "cruds" stands for with a resource that is or was there."""
        return True

    def permits_content(self, letter: str, resource_id: ResourceId, rows: Rows | None) -> bool:  # noqa: ARG002 - Restricted looks
        """Whether whoever asks may write what searches would find by these rows."""
        return True

    def standing(self, resource_id: ResourceId) -> Version | None:
        """As `newest`, for the one who writes it and no one else: it is there whoever asks."""
        return versions.newest(self._connect(), resource_id, self.commit.sequence)

    def counts(self) -> dict[str, int]:
        """How many resources there are and not deleted, by type; types without any are left out."""
        return periods.counts(self._connect(), self.commit.sequence)

    def changes(self, commit: Commit) -> list[Version]:
        """What a commit changed, in the order of its trailers; not what was purged of it."""
        return [version for version in self.all_changes(commit) if version.purged is None]

    def all_changes(self, commit: Commit) -> list[Version]:
        """As `changes`, with the versions that were purged."""
        return versions.changes(self._connect(), commit.sequence)

    def made(self, commit: Commit) -> list[Version]:
        """As `changes`, but all or nothing. Raises NotFound where whoever asks may not read all of it, past and present,
        and Gone where some of it was purged."""
        made = self.all_changes(commit)
        for version in made:
            if (gone := self._gone(version)) is not None:
                raise gone
        return made

    def spans(
        self, after: Commit, types: Sequence[str], cursor: Cursor | None, count: int
    ) -> list[tuple[Version, Version | None]]:
        """Resources that changed since a commit: the version now, and then. For `changes`, which looks at what is seen."""
        connection = self._connect()
        found: list[tuple[Version, Version | None]] = []
        for span in spans.spans(connection, after.sequence, self.commit.sequence, types, cursor, count):
            last, first = (
                versions.version(connection, span.resource_id, VersionId(number), self.commit.sequence)
                for number in (span.last, span.first)
            )
            assert last is not None  # or it would have no span
            found.append((last, first))
        return found

    def last_change(self, type: str) -> str | None:
        """The id of the last commit that changed a resource of this type; None where there is none."""
        return versions.last_change(self._connect(), type, self.commit.sequence)

    def commit_of_request(self, request_id: str) -> Commit | None:
        """The first commit of an import's request id, which begins with `import-`; other ids are not indexed."""
        return versions.commit_of_import(self._connect(), request_id, self.commit.sequence)

    def commit_of_key(self, author: Author, key: str) -> Commit | None:
        """The commit of an author's idempotency key."""
        return versions.commit_of_key(self._connect(), author, key, self.commit.sequence)

    def commits_of_key(self, key: str) -> list[Commit]:
        """The commits that have this idempotency key, of whichever authors; oldest first."""
        return versions.commits_of_key(self._connect(), key, self.commit.sequence)

    def past(self, sequence: int) -> Snapshot:
        """The record as the commit of this sequence left it. Raises NotFound for one that is not in its past."""
        commit = versions.commit_at(self._connect(), sequence)
        if commit is None or sequence > self.commit.sequence:
            raise NotFound(f"The record has no commit number {sequence}.")
        return self.at(commit)

    def at(self, commit: Commit) -> Snapshot:
        """The record as an earlier commit left it."""
        found = self._of(commit)
        found.noted = self.noted
        return found

    def _of(self, commit: Commit) -> Snapshot:
        return Snapshot(commit, self._connect, self._repository, self._searching)

    def dangling(self, resource_id: ResourceId) -> list[ResourceId]:
        """What a resource refers to and isn't there; only where fhir.referentialIntegrity is enforced."""
        return integrity.dangling(self._connect(), resource_id)

    def referrers(self, resource_id: ResourceId, limit: int = 5) -> list[ResourceId]:
        """The first so many resources that refer to one; only where fhir.referentialIntegrity is enforced."""
        return integrity.referrers(self._connect(), resource_id, limit)

    def body(self, version: Version) -> bytes:
        """The resource as it is stored: UTF-8 JSON, two-space indent, final newline. Not for a deletion."""
        if version.blob is None:
            raise Gone(f"`{version}` is a deletion.", version.version_id, version.last_updated)
        data = self._repository.blob(version.blob)
        if self.noted is not None:
            self.noted(version, data)
        return data


def as_indexed(connect: Callable[[], Connection], repository: Repository) -> Snapshot:
    """The record as the index has it; no lock is waited for, since the caller may hold it."""
    commit = versions.tip(connect())
    if commit is None:
        raise StorageFailed("The search index is empty. `git fhir reindex` makes it anew.")
    return Snapshot(commit, connect, repository)


def cursor_of(version: Version, is_instance: bool, *, newer: bool) -> Cursor:
    """The boundary right beside a version of a history."""
    if is_instance:
        return Cursor(version.version_id, 0, newer)
    return Cursor(version.commit.sequence, version.position, newer)
