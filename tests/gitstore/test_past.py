"""The record as it was: what it answered then it answers still, whatever was done since."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from past_states import UNCHECKED, commit, past
from search_strategies import IDS, asked, one_resource, sorts, types
from searches import found, id_of, listed, put, resource, search

from gitstore import (
    Commit,
    NotAllowed,
    NotFound,
    NotSupported,
    Settings,
    Store,
    StoreError,
    everything_about,
)
from gitstore.everything import Everything
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.search.contents import stored
from gitstore.search.states import FOLDER, Draft
from tests.conftest import copy_record

TRIED = settings(
    max_examples=int(os.environ.get("GIT_FHIR_PAST_EXAMPLES", "8")),
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # what shrinking would take minutes for, the steps tell as well
    suppress_health_check=list(HealthCheck),
)
PATIENT = ResourceId("Patient", "a")
PARAMETER = {
    "resourceType": "SearchParameter",
    "id": "hair",
    "url": "http://acme.org/hair",
    "status": "active",
    "code": "hair",
    "base": ["Patient"],
    "type": "token",
    "expression": "Patient.extension.where(url='http://acme.org/hair').value",
}


@pytest.fixture
def store(record: str, clock: Callable[[], int]) -> Iterator[Store]:
    with Store.open(record, UNCHECKED, clock=clock) as opened:
        yield opened


# Random histories


def id_of_write(write: Any) -> ResourceId:
    return write if isinstance(write, ResourceId) else id_of(write)


WRITES = st.one_of(one_resource, one_resource, st.builds(ResourceId, types, st.sampled_from(IDS)))
STEPS = st.lists(st.lists(WRITES, min_size=1, max_size=6, unique_by=id_of_write), max_size=7)
BESIDE = st.lists(
    st.one_of(
        st.tuples(st.just("_sort"), types.flatmap(sorts)),
        st.sampled_from(
            [
                ("_include", "*"),
                ("_include:iterate", "Encounter:part-of"),
                ("_revinclude", "Observation:subject"),
                ("_revinclude", "Observation:performer"),
                ("_total", "none"),
                ("_summary", "count"),
                ("_count", "2"),
                ("_lastUpdated", "ge2026-01-01T12:00:20Z"),
                ("_content", "straße or ng"),
            ]
        ),
    ),
    max_size=2,
)


def answers(store: Any, questions: list[Any]) -> list[Any]:
    """What is answered to each: matches in their order, what comes along, the total; or the refusal."""
    given: list[Any] = []
    with store.reading() as snapshot:
        for (type, pairs), beside in questions:
            try:
                page = snapshot.search((type,), [*pairs, *beside])
            except StoreError as error:
                given.append((error.__class__, str(error)))
                continue
            matches = [(match.version, match.contained) for match in page.matches]
            given.append((page.commit, matches, page.included, page.total, page.next is None))
        for id in IDS[:2]:
            try:
                given.append(everything_about(snapshot, Everything(ResourceId("Patient", id))))
            except NotFound as error:
                given.append((error.__class__, str(error)))
        given.append(snapshot.labels())
    snapshot = store.snapshot()
    given += [snapshot.commit, snapshot.counts(), list(snapshot.resources()), snapshot.history(count=1000)]
    return given


def contents(record: str | Path, commit: str) -> dict[str, Any]:
    """Everything that an index says, but for the keys in it. Raises where it refers to what it hasn't."""
    folder = Path(record) / "git-fhir"
    state = folder / FOLDER / f"{commit}.sqlite"
    with sqlite3.connect(
        f"{(state if state.exists() else folder / 'index.sqlite').as_uri()}?mode=ro", uri=True
    ) as one:
        faults = {fault for (fault,) in one.execute("PRAGMA integrity_check")}
        assert faults <= {"ok", "NULL value in dates.span"}  # SQLite 3.40 says so of any index; there is none
        assert one.execute("PRAGMA foreign_key_check").fetchall() == []
        names = {key: (type, id) for key, type, id in one.execute("SELECT key, type, id FROM resources")}
        there = one.execute(
            "SELECT key, version, deleted, sequence FROM resources WHERE version > 0"
        ).fetchall()
        words = one.execute(
            "SELECT t.resource FROM words w JOIN texts t ON t.key = w.rowid WHERE words MATCH 'ng'"
        )
        found = {
            "resources": {names[key]: (rest, stored(one, key)) for key, *rest in there},
            "nothing else": [stored(one, key) for key in names if key not in {row[0] for row in there}],
            "words": {names[key] for (key,) in words},
            "versions": {
                (names[key], *rest) for key, *rest in one.execute("SELECT * FROM versions").fetchall()
            },
            "commits": one.execute(
                """SELECT sequence, id, last_updated, interaction, name, email, request_id, idempotency, versions
                FROM commits JOIN authors ON key = author ORDER BY sequence"""
            ).fetchall(),
            "authors": sorted(one.execute("SELECT name, email FROM authors").fetchall()),
        }
        for table in ("parameters", "stored_parameters", "contained"):
            columns = "count(*)" if table == "contained" else "*"
            found[table] = one.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()
        found["registry"] = one.execute("SELECT value FROM facts WHERE name = 'registry'").fetchall()
        found["indexes"] = sorted(one.execute("SELECT name FROM sqlite_master").fetchall())
    one.close()
    assert not any(found.pop("nothing else"))
    return found


def test_a_past_state_answers_as_it_did_when_it_was_now(new_record: Callable[[], str]) -> None:
    """Searches with chains, _has, sorting, includes and totals, $everything, labels, and histories."""

    @TRIED
    @given(
        st.lists(one_resource, min_size=8, max_size=16, unique_by=id_of),
        STEPS,
        st.lists(st.tuples(asked(), BESIDE), min_size=4, max_size=8),
    )
    def run(first: list[Any], steps: list[Any], questions: list[Any]) -> None:
        ticks = itertools.count(1_767_268_810_000_000, 10_000_000)
        with Store.open(new_record(), UNCHECKED, clock=lambda: next(ticks)) as store:
            then = [(commit(store, writes), answers(store, questions)) for writes in [first, *steps]]
            for at, given in then[::-2]:
                assert answers(past(store, at), questions) == given

    run()


def test_its_index_says_what_that_of_a_clone_at_the_commit_says(
    new_record: Callable[[], str], tmp_path: Path
) -> None:
    """Row by row, whether it was made by changing a copy or anew."""
    ways: set[str] = set()
    numbers = itertools.count()

    @settings(TRIED, max_examples=TRIED.max_examples // 2)
    @given(st.lists(one_resource, min_size=8, max_size=16, unique_by=id_of), STEPS)
    def run(first: list[Any], steps: list[Any]) -> None:
        record = new_record()
        with Store.open(record, UNCHECKED) as store:
            points = [commit(store, writes) for writes in [first, *steps]]
            for at in {points[0], points[-2 % len(points)]}:
                with past(store, at).reading():
                    clone = wound_back(record, tmp_path / str(next(numbers)), at)
                    assert contents(record, at.id) == contents(clone, "none")

    with pytest.MonkeyPatch.context() as patch:
        for way in ("near", "anew"):
            patch.setattr(Draft, way, noted(ways, way, getattr(Draft, way)))
        run()
    assert ways == {"near", "anew"}


def noted(ways: set[str], way: str, method: Any) -> Any:
    def called(*arguments: Any) -> Any:
        ways.add(way)
        return method(*arguments)

    return called


def wound_back(record: str, clone: Path, at: Commit) -> Path:
    """A clone whose last commit is an earlier one, with an index of its own."""
    git = ["git", "-C", str(clone)]
    subprocess.run(["git", "clone", "-q", "--bare", record, str(clone)], check=True)
    subprocess.run([*git, "update-ref", "refs/heads/main", at.id], check=True)
    Store.open(clone, UNCHECKED).close()
    return clone


# SearchParameters of the record


def haired(id: str, colour: str) -> dict[str, Any]:
    return resource("Patient", id, extension=[{"url": "http://acme.org/hair", "valueCode": colour}])


def test_search_parameters_are_those_that_were_active_then(store: Store) -> None:
    """Whether or not the index of now knows them. docs/search.md, "SearchParameters of the record" """
    before = commit(store, [haired("a", "red")])
    with_it = commit(store, [PARAMETER])
    commit(store, [haired("a", "grey"), haired("b", "red")])
    store.reindex()
    after = commit(store, [ResourceId("SearchParameter", "hair")])

    assert found(past(store, with_it), "Patient?hair=red") == {"a"}
    assert "hair" in past(store, with_it).search_parameters("Patient")
    for at in (before, after):
        assert "hair" not in past(store, at).search_parameters("Patient")
        assert [issue.code for issue in search(past(store, at), "Patient?hair=red").query.issues]
    assert found(store, "Patient?hair=red") == {"b"}


# What there is besides searches


def test_reads_and_histories_need_no_index_of_their_own(store: Store) -> None:
    at = commit(store, [resource("Patient", "a")])
    commit(store, [resource("Patient", "a", gender="male")])
    then = store.past(at, 0.0)

    assert then.snapshot().read(PATIENT).version_id == 1
    assert then.snapshot().history(PATIENT).total == 1
    assert then.snapshot_before(2**60).commit == at
    with pytest.raises(NotFound):
        then.snapshot().version(PATIENT, VersionId(2))
    with pytest.raises(NotFound):
        then.snapshot(at.sequence + 1)
    assert then.snapshot(at.sequence - 1).counts() == {}
    assert not (Path(store.git_dir) / "git-fhir" / FOLDER).exists()


def test_nothing_is_written_there(store: Store) -> None:
    then = past(store, commit(store, [resource("Patient", "a")]))

    for write in (then.commit, then.commit_each, then.replicate):
        with pytest.raises(NotAllowed):
            write([])


def test_without_search_there_is_none_in_the_past(record: str) -> None:
    """501 over HTTP, as now; the rest works."""
    unsearchable = Settings(durability="off", validation="off", search="off")
    with Store.open(record, unsearchable) as store:
        at = commit(store, [resource("Patient", "a")])
        put(store, resource("Patient", "a", gender="male"))
        with pytest.raises(NotSupported), past(store, at).reading() as snapshot:
            snapshot.search(("Patient",), [])
        with past(store, at).reading() as snapshot:
            assert snapshot.read(PATIENT).version_id == 1
        assert past(store, at).search_parameters("Patient") == {}


def test_a_record_that_can_only_be_read_has_its_past_in_the_private_folder(
    store: Store, record: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = commit(store, [resource("Patient", "a")])
    commit(store, [ResourceId("Patient", "a")])
    copy = copy_record(record, tmp_path / "copy.git")
    monkeypatch.setattr("gitstore.store._is_ours", lambda _: False)
    with Store.open(copy, UNCHECKED, cache_folder=str(tmp_path / "private")) as reader:
        assert listed(past(reader, at), "Patient?") == ["a"]

    assert [path.name for path in (tmp_path / "private").glob(f"*/{FOLDER}/*.sqlite")] == [f"{at.id}.sqlite"]
