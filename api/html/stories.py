"""What pages tell of versions and commits: who, when, why, and what became different."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from api.html import narrative
from api.html.links import Links
from api.html.summaries import shortened, title
from api.html.values import Value, place, values_at
from gitstore import Commit, NotFound, Snapshot, Version
from gitstore.fhir import Resource, json
from gitstore.fhir.compare import ABSENT, Difference, Steps, differences
from gitstore.fhir.dates import SECOND
from gitstore.fhir.ids import VersionId

Kind = Literal["added", "removed", "changed"]

MARKS: dict[Kind, str] = {"added": "+", "removed": "−", "changed": "~"}
"""What tells them apart without colour."""

MOST = 4
"""Differences of one version that a list of versions shows."""

LARGE = 100_000
"""Bytes of a resource whose differences no list shows: there may be 50 of them, and each would take a while."""

_VERBS = {"POST": "created", "PUT": "updated", "DELETE": "deleted"}


class Moment(Struct, frozen=True):
    """An instant for the eye, and for programs."""

    text: str
    iso: str

    @classmethod
    def of(cls, instant: int) -> Moment:
        """`instant` in microseconds since 1970."""
        when = datetime.fromtimestamp(instant // SECOND, UTC)
        return cls(f"{when:%Y-%m-%d %H:%M:%S} UTC", f"{when:%Y-%m-%dT%H:%M:%SZ}")


class Line(Struct, frozen=True):
    """One difference: where, and what was and is there. `path` is its FHIR name."""

    kind: Kind
    place: str
    path: str
    old: tuple[Value, ...]
    new: tuple[Value, ...]

    @property
    def mark(self) -> str:
        return MARKS[self.kind]


class Entry(Struct, frozen=True):
    """A version in a list. `before` is the number of the version that it replaced, None where there is none to be seen.

    `title` is what people call the resource, `lines` are the first differences, `more` how many there are besides.
    """

    version: Version
    verb: str
    when: Moment
    why: str
    title: str
    before: int | None
    lines: tuple[Line, ...]
    more: int


class Teller:
    """Tells what may be told to whom a snapshot is for.

    The words of a commit are told only to who may read all that it changed: they may be about any of it.
    """

    def __init__(
        self, snapshot: Snapshot, words: Callable[[Commit], str], links: Links, *, sees_all: bool
    ) -> None:
        """`words` are those of a commit, `sees_all` says that nothing is hidden from these eyes."""
        self._snapshot = snapshot
        self._all = sees_all
        self._words = words
        self.links = links
        self._told: dict[str, str] = {}

    def why(self, commit: Commit) -> str:
        """The author's words, "" where there are none for these eyes."""
        if commit.id not in self._told:
            self._told[commit.id] = self._words(commit) if self._sees_all(commit) else ""
        return self._told[commit.id]

    def entry(self, version: Version, before: Version | None = None, most: int = MOST) -> Entry:
        """`before` is the version that it replaced, where the caller happens to know it; `most` lines are told."""
        before = before or self.before(version)
        content = None if version.deleted else self.content(version)
        found: list[Line] = []
        if before is not None and not before.deleted and content is not None:
            old = self._snapshot.body(before)
            if len(old) <= LARGE:
                found = list(lines(json.loads_trusted(old), content, self.links))
        return Entry(
            version,
            verb_of(version),
            Moment.of(version.last_updated),
            self.why(version.commit),
            title(content, self.links) if content is not None else "",
            before.version_id if before is not None and not before.deleted else None,
            tuple(_short(line) for line in found[:most]),
            max(len(found) - most, 0),
        )

    def before(self, version: Version) -> Version | None:
        """The version that another replaced; None where there was none, or none that may be seen."""
        if version.created or version.version_id == 1:
            return None
        try:
            return self._snapshot.version(version.resource_id, VersionId(version.version_id - 1))
        except NotFound:
            return None

    def content(self, version: Version) -> Resource:
        resource: Resource = json.loads_trusted(self._snapshot.body(version))
        return resource

    def _sees_all(self, commit: Commit) -> bool:
        if self._all:
            return True
        try:
            self._snapshot.made(commit)
        except NotFound:
            return False
        return True


def verb_of(version: Version) -> str:
    if version.created and not version.deleted:
        return "created" if version.version_id == 1 else "brought back"
    return _VERBS[version.verb]


def lines(old: Resource, new: Resource, links: Links) -> Iterator[Line]:
    """What turns one resource into the other, element by element."""
    for each in differences(old, new):
        yield _line(each, old, new, links)


def _line(difference: Difference, old: Resource, new: Resource, links: Links) -> Line:
    before, after = difference.old, difference.new
    kind: Kind = "added" if before is ABSENT else "removed" if after is ABSENT else "changed"
    whole = old if kind == "removed" else new
    return Line(
        kind,
        place(whole, difference.steps),
        difference.path,
        () if before is ABSENT else _shown(whole, difference.steps, before, links),
        () if after is ABSENT else _shown(whole, difference.steps, after, links),
    )


def _shown(whole: Resource, steps: Steps, value: Any, links: Links) -> tuple[Value, ...]:
    """As on the page of the resource; of a narrative its words."""
    if steps[-1] == "div" and isinstance(value, str):
        return (Value(narrative.plain(value)),)
    if steps[-1] == "text" and isinstance(value, dict) and isinstance(value.get("div"), str):
        return (Value(narrative.plain(value["div"])),)
    return values_at(whole, steps, value, links)


def _short(line: Line) -> Line:
    return Line(line.kind, line.place, line.path, _brief(line.old), _brief(line.new))


def _brief(values: tuple[Value, ...]) -> tuple[Value, ...]:
    words = ", ".join(filter(None, (_words(value) for value in values)))
    return (Value(shortened(words)),) if words else ()


def _words(value: Value) -> str:
    """A value in a line, with what is below it where it says nothing itself."""
    if value.text:
        return value.text
    return ", ".join(filter(None, (_words(each) for group in value.groups for each in group.values)))
