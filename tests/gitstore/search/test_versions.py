"""What the index answers, as of every commit of the record. https://hl7.org/fhir/R4/http.html#history"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gitstore.errors import Invalid
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.search import index, noting, periods, spans, versions
from gitstore.search.index import Index
from gitstore.search.periods import Period
from gitstore.search.versions import Cursor
from gitstore.version import Author, Change, Commit, Version

AUTHORS = [
    Author("Eve", "eve@example.org"),
    Author("Ada", "ada@example.org"),
    Author("Eve", "other@example.org"),
]
RESOURCES = [ResourceId("Patient", "a"), ResourceId("Patient", "b"), ResourceId("Observation", "a")]
REQUESTS = [None, "import-1", "import-2", "other"]


@dataclass
class Model:
    """The record as lists: what the index must agree with."""

    commits: list[Commit] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)

    def upto(self, sequence: int) -> list[Version]:
        return [version for version in self.versions if version.commit.sequence <= sequence]

    def of(self, resource_id: ResourceId, upto: int) -> list[Version]:
        return [version for version in self.upto(upto) if version.resource_id == resource_id]

    def current(self, upto: int) -> list[Version]:
        newest = [versions[-1] for one in RESOURCES if (versions := self.of(one, upto))]
        found = [version for version in newest if not version.deleted]
        return sorted(found, key=lambda version: version.resource_id)

    def in_period(self, period: Period, scope: ResourceId | str | None) -> list[Version]:
        """Newest first."""
        found = [
            version
            for version in self.versions
            if scope in (None, version.resource_id.type, version.resource_id)
        ]
        if period.current:
            found = [v for v in found if period.since <= v.commit.sequence <= period.last]
            found = [v for v in found if self._replaced(v) >= period.first]
        else:
            found = [v for v in found if period.first <= v.commit.sequence <= period.last]
        if period.author is not None:
            found = [v for v in found if period.author in (v.commit.author.name, v.commit.author.email)]
        return found[::-1]

    def _replaced(self, version: Version) -> float:
        later = [
            other.commit.sequence
            for other in self.versions
            if other.resource_id == version.resource_id and other.version_id == version.version_id + 1
        ]
        return later[0] if later else float("inf")


UNIT = st.tuples(
    st.lists(
        st.tuples(st.sampled_from(RESOURCES), st.booleans()), max_size=3, unique_by=lambda pair: pair[0]
    ),
    st.sampled_from(AUTHORS),
    st.sampled_from(REQUESTS),
)
STORY = st.lists(UNIT, min_size=1, max_size=12)


def tell(connection: index.Connection, story: list[Any]) -> Model:
    """Apply a story of commits, each of which replaces or deletes some resources."""
    model = Model()
    last: dict[ResourceId, tuple[int, bool]] = {}
    for sequence, (changes, author, request_id) in enumerate(story, 1):
        commit = Commit(f"{sequence:040x}", sequence, sequence * 1000, "transaction", author, request_id)
        made, blobs = [], []
        for resource_id, wanted in changes:
            number, deleted = last.get(resource_id, (0, True))
            delete = wanted and not deleted
            last[resource_id] = number + 1, delete
            made.append(Change("DELETE" if delete else "PUT", resource_id, VersionId(number + 1)))
            blobs.append(None if delete else f"{len(model.versions):040x}")
        model.commits.append(commit)
        model.versions += noting.apply(connection, commit, made, blobs)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("versions")


class Told:
    """An index that holds a story, and its model."""

    def __init__(self, folder: Path, story: list[Any]) -> None:
        self._index = Index(str(folder))
        with self._index.alone(), self._index.rebuilding() as generation:
            self.model = tell(generation.connection, story)
            generation.take_over()
        self.connection = self._index.reader()

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()


QUICK = settings(deadline=None, max_examples=40, derandomize=True)


@given(STORY)
@QUICK
def test_every_question_has_one_answer_for_each_commit(folder, story):
    """As of every `upto`: newest, version, current, counts. Later commits change none of them."""
    with Told(folder, story) as told:
        connection, model = told.connection, told.model
        for upto in range(len(story) + 1):
            for resource_id in RESOURCES:
                expected = model.of(resource_id, upto)
                assert versions.newest(connection, resource_id, upto) == (expected[-1] if expected else None)
                for number in range(len(story) + 2):
                    found = versions.version(connection, resource_id, VersionId(number), upto)
                    assert found == next((v for v in expected if v.version_id == number), None)
            current = model.current(upto)
            assert versions.current(connection, None, upto, None, 100) == current
            for type in ("Patient", "Observation", "Encounter"):
                of_type = [version for version in current if version.resource_id.type == type]
                assert versions.current(connection, type, upto, None, 100) == of_type
                assert periods.counts(connection, upto).get(type) == (len(of_type) or None)
            for after in RESOURCES:
                rest = [version for version in current if version.resource_id > after]
                assert versions.current(connection, None, upto, after, 1) == rest[:1]


@given(STORY)
@QUICK
def test_commits_are_found_by_each_of_their_names(folder, story):
    with Told(folder, story) as told:
        connection, model = told.connection, told.model
        assert versions.tip(connection) == model.commits[-1]
        assert versions.commit_at(connection, 0) is versions.commit_at(connection, len(story) + 1) is None
        for commit in model.commits:
            assert versions.commit_at(connection, commit.sequence) == commit
            assert versions.commit_of_time(connection, commit.last_updated) == commit
            assert versions.commit_of_time(connection, commit.last_updated + 1) is None
            assert versions.sequence_before(connection, commit.last_updated) == commit.sequence - 1
            assert versions.sequence_before(connection, commit.last_updated + 1) == commit.sequence
            made = [version for version in model.versions if version.commit == commit]
            assert versions.changes(connection, commit.sequence) == made
        for request_id in ("import-1", "import-2", "other"):
            for upto in range(len(story) + 1):
                of_import = [c for c in model.commits[:upto] if c.request_id == request_id != "other"]
                expected = of_import[0] if of_import else None
                assert versions.commit_of_import(connection, request_id, upto) == expected


@given(STORY, st.data())
@settings(deadline=None, max_examples=80, derandomize=True)
def test_a_history_is_what_the_period_says_in_pages_of_any_size(folder, story, data):
    """Both ways through the pages; the total is that of all pages."""
    last = data.draw(st.integers(0, len(story)))
    period = Period(data.draw(st.integers(1, last + 1)), last)
    if data.draw(st.booleans()):
        period = Period(period.first, last, current=True, since=data.draw(st.integers(1, last + 1)))
    period = replace(period, author=data.draw(st.sampled_from([None, "Eve", "ada@example.org", "nobody"])))
    scope = data.draw(st.sampled_from([None, "Patient", "Observation", "Encounter", *RESOURCES]))
    count = data.draw(st.integers(1, 5))
    with Told(folder, story) as told:
        expected = told.model.in_period(period, scope)

        def page(cursor: Cursor | None) -> list[Version]:
            if isinstance(scope, ResourceId):
                found, total = versions.instance_history(told.connection, scope, period, cursor, count)
            else:
                found, total = versions.history(told.connection, scope, period, cursor, count)
            assert total == len(expected)
            return found

        def at(version: Version, *, newer: bool) -> Cursor:
            if isinstance(scope, ResourceId):
                return Cursor(version.version_id, 0, newer)
            return Cursor(version.commit.sequence, version.position, newer)

        forward = page(None)
        assert forward == expected[:count]
        while len(forward) < len(expected):
            forward += (piece := page(at(forward[-1], newer=False)))
            assert piece
        assert forward == expected
        if expected:
            assert page(at(expected[-1], newer=False)) == []
            assert page(at(expected[0], newer=True)) == []
            backward = expected[-1:]
            while len(backward) < len(expected):
                piece = page(at(backward[0], newer=True))
                assert piece
                backward = piece + backward
            assert backward == expected


def steps(connection: index.Connection, ask: Any) -> str:
    """What SQLite does for each SELECT of what is asked."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    ask()
    connection.set_trace_callback(None)
    plans = [connection.execute(f"EXPLAIN QUERY PLAN {each}").fetchall() for each in statements]
    return "\n".join(step for plan in plans for *_, step in plan)


ALL = Period(1, 20)
BUSY = [([(resource, False) for resource in RESOURCES], AUTHORS[number % 3], None) for number in range(20)]


@pytest.mark.parametrize("type", [None, "Patient"])
@pytest.mark.parametrize("newer", [None, False, True])
@pytest.mark.parametrize(
    "period",
    [ALL, Period(5, 9), Period(9, 9, current=True), Period(9, 9, current=True, since=4)],
    ids=["all", "_since", "_at", "_at and _since"],
)
@pytest.mark.parametrize("author", [None, "Eve", "ada@example.org"])
def test_a_history_goes_by_an_index_from_where_it_begins(folder, type, newer, period, author):
    """No table is read from end to end, nothing is sorted, and what somebody wrote is not looked for among the rest."""
    cursor = None if newer is None else Cursor(9, 1, newer)
    period = replace(period, author=author)
    with Told(folder, BUSY) as told:
        done = steps(told.connection, lambda: versions.history(told.connection, type, period, cursor, 5))

    used = "versions_by_author" if author else "versions_by_type" if type else "versions_by_commit"
    assert f"SEARCH v USING INDEX {used} (" in done
    assert "TEMP B-TREE" not in done
    # Those who have a name are looked up among all authors, which are few, and so is what was purged.
    assert not re.findall(r"SCAN (?!(?:a|w|written|v USING INDEX versions_purged)\b)\w+", done)


def work(connection: index.Connection, ask: Any) -> int:
    """How many tens of instructions SQLite's machine takes for what is asked."""
    tens: list[None] = []
    connection.set_progress_handler(lambda: tens.append(None), 10)
    ask()
    connection.set_progress_handler(None, 0)
    return len(tens)


@pytest.mark.parametrize("type", [None, "Patient"])
@pytest.mark.parametrize("author", [None, "Eve"])
@pytest.mark.parametrize("newer", [False, True])
def test_a_page_in_the_middle_reads_nothing_of_those_before_it(folder, type, author, newer):
    """Whoever follows the links through a long history doesn't read it all over again for each page."""
    period = Period(1, 1000, author=author)
    with Told(folder, BUSY * 50) as told:

        def page(cursor: Cursor) -> int:
            return work(told.connection, lambda: versions.history(told.connection, type, period, cursor, 5))

        assert page(Cursor(500, 0, newer)) < 1.5 * page(Cursor(2 if newer else 999, 0, newer))


def test_a_later_page_of_changes_reads_nothing_of_those_before_it(folder):
    with Told(folder, BUSY * 50) as told:

        def page(cursor: Cursor) -> int:
            return work(told.connection, lambda: spans.spans(told.connection, 3, 1000, [], cursor, 5))

        assert page(Cursor(100, 0, False)) < page(Cursor(999, 0, False)) / 5


@pytest.mark.parametrize(
    ("types", "used"),
    [
        ((), "versions_by_commit"),
        (("Account",), "versions_by_type"),
        (("Account", "Patient"), "versions_by_type"),
    ],
)
def test_changes_go_by_an_index_from_the_newest_on(folder, types, used):
    """What there is of a rare type is not looked for among all that happened."""
    with Told(folder, BUSY) as told:
        done = steps(
            told.connection, lambda: spans.spans(told.connection, 3, 17, types, Cursor(15, 0, False), 5)
        )

    assert f"SEARCH v USING INDEX {used} (" in done
    assert "TEMP B-TREE" not in done
    assert "SCAN" not in done


def test_resources_are_counted_without_looking_at_them(folder):
    """As of any commit: the last version of each type knows."""
    with Told(folder, BUSY) as told:
        done = steps(told.connection, lambda: periods.counts(told.connection, 7))

    assert set(done.splitlines()) == {"SEARCH versions USING INDEX versions_by_type (type=? AND sequence<?)"}


def test_a_total_that_takes_too_long_is_not_told(folder, monkeypatch):
    """What was in force when a period began is counted one by one where it is not all that there was."""
    monkeypatch.setattr(periods, "MOST_COUNTED", 5)
    with Told(folder, BUSY) as told:

        def total(period: Period) -> int | None:
            return versions.history(told.connection, "Patient", period, None, 1)[1]

        assert total(Period(15, 16, current=True)) == 6
        assert total(Period(15, 16, current=True, since=13)) == 6
        assert total(Period(15, 16, current=True, since=2)) is None
        assert total(Period(15, 16, current=True, author="Eve")) is None
        assert total(Period(15, 16, author="Eve")) == 4
        assert total(Period(15, 16, current=True, since=15)) == 4


def test_types_that_do_not_exist_have_nothing(folder):
    with Told(folder, [([(RESOURCES[0], False)], AUTHORS[0], None)]) as told:
        connection = told.connection
        assert versions.newest(connection, ResourceId("Nothing", "a"), 1) is None
        assert versions.current(connection, "Nothing", 1, None, 10) == []
        assert versions.history(connection, "Nothing", Period(1, 1), None, 10) == ([], 0)
        assert versions.instance_history(connection, ResourceId("Nothing", "a"), Period(1, 1), None, 10) == (
            [],
            0,
        )


# Cursors


@given(st.integers(0, 10**17), st.integers(0, 10**6), st.booleans())
def test_a_cursor_is_read_back_from_its_text(first, second, newer):
    """It stands in URLs: letters, digits, dots."""
    cursor = Cursor(first, second, newer)

    assert Cursor.parse(str(cursor)) == cursor
    assert str(cursor).replace(".", "").isalnum()
    assert str(cursor).isascii()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o",
        "n1",
        "o1.",
        "o.1",
        "x1.2",
        "1.2",
        "o1.2.3",
        "o-1.2",
        "o1.-2",
        "o 1.2",
        "o1.2\n",
        "o١.2",
        "o1e3.2",
        "o" + "9" * 19 + ".0",
        "o0x1.2",
        "O1.2",
        "o1,2",
        "n².1",
    ],
)
def test_a_text_that_is_no_cursor_is_refused(text):
    """No 500 for a link that someone has edited."""
    with pytest.raises(Invalid, match="is no page of this server"):
        Cursor.parse(text)
