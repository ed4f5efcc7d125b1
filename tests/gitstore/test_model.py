"""Whatever is done in whatever order: the store answers as a plain dictionary would."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gitstore import Ask, Create, Delete, Gone, NotFound, Settings, Store, StoreError, Unit, Update
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git.repository import git_environment
from gitstore.search.contents import stored
from gitstore.version import Author

AUTHORS = [Author("Ada", "ada@example.org"), Author("", "<>"), Author("Eve\n", "eve@example.org")]
IDS = [ResourceId(type, id) for type in ("Patient", "Observation") for id in ("a", "b", "a.json")]


@dataclass
class Model:
    """What the record must hold: for each resource the languages of its versions, None for a deletion."""

    versions: dict[ResourceId, list[str | None]] = field(default_factory=dict)
    history: list[tuple[ResourceId, int]] = field(default_factory=list)
    commits: int = 1

    def newest(self, resource_id: ResourceId) -> str | None:
        return self.versions.get(resource_id, [None])[-1]

    def add(self, resource_id: ResourceId, language: str | None) -> None:
        self.versions.setdefault(resource_id, []).append(language)
        self.history.append((resource_id, len(self.versions[resource_id])))

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for resource_id in self.versions:
            if self.newest(resource_id) is not None:
                found[resource_id.type] = found.get(resource_id.type, 0) + 1
        return found


WRITE = st.tuples(
    st.sampled_from(IDS),
    st.sampled_from(["put", "put", "put", "delete", "create"]),
    st.sampled_from(["en", "de", "fr"]),
    st.sampled_from([None, None, None, "current", "stale", "skip"]),
)
UNITS = st.tuples(
    st.lists(WRITE, max_size=4, unique_by=lambda write: write[0]),
    st.sampled_from(AUTHORS),
    st.sampled_from(["nothing", "nothing", "nothing", "fails", "invalid"]),
)


class Machine(RuleBasedStateMachine):
    """Units of every kind, one by one and in groups, against the model; with the index made anew now and then."""

    new_record: Any

    @initialize()
    def start(self) -> None:
        self.record = self.new_record()
        self.time = 1_767_268_800_000_000
        self.ids = 0
        self.model = Model()
        self.store = self.open()

    def open(self) -> Store:
        return Store.open(
            self.record, Settings(durability="off", validation="off"), clock=self.clock, new_id=self.new_id
        )

    def clock(self) -> int:
        self.time += [1_000_000, 0, -5, 3][self.time % 4]
        return self.time

    def new_id(self) -> str:
        self.ids += 1
        return f"new-{self.ids}"

    # What is done

    @rule(unit=UNITS)
    def commit(self, unit: Any) -> None:
        self.run([unit])

    @rule(units=st.lists(UNITS, min_size=2, max_size=5))
    def commit_each(self, units: Any) -> None:
        self.run(units)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    @rule()
    def reindex(self) -> None:
        self.store.reindex()

    @rule()
    def repack(self) -> None:
        self.git("repack", "-ad", "--quiet")
        self.git("pack-refs", "--all")

    def run(self, described: list[Any]) -> None:
        """Do the units; for each, say from the model what has to come of it."""
        units = [self.unit(*one) for one in described]
        results = self.store.commit_each(units)
        for one, unit, result in zip(described, units, results, strict=True):
            self.expect(*one, unit, result)

    def unit(self, writes: list[Any], author: Author, fate: str) -> Unit:
        interactions: list[Any] = []
        for resource_id, what, language, condition in writes:
            resource = {"resourceType": resource_id.type, "id": resource_id.id, "language": language}
            # The tag is known only when the units before this one are done: so it is one that holds for some state.
            if_match = frozenset({"current": ["1", "2", "3"], "stale": ["999"]}.get(condition, []))
            if what == "create":
                interactions.append(Create(resource))
            elif what == "delete":
                interactions.append(Delete(resource_id, if_match or None))
            else:
                skip = condition == "skip"
                interactions.append(Update(resource_id, resource, if_match or None, skip_unchanged=skip))
        if fate == "fails":
            interactions.append(Ask(lambda snapshot: snapshot.read(ResourceId("Patient", "never"))))
        elif fate == "invalid":
            interactions.append(Create({"resourceType": "Nothing"}))
        else:
            interactions.insert(0, Ask(lambda snapshot: snapshot.counts()))
        return Unit(interactions, author, interaction="transaction")

    def expect(self, writes: list[Any], author: Author, fate: str, unit: Unit, result: Any) -> None:
        refused = fate != "nothing" or any(self.is_refused(*write) for write in writes)
        assert isinstance(result, StoreError) == refused
        if refused:
            return
        changed = False
        for (named, what, language, condition), outcome in zip(writes, result[1:], strict=True):
            resource_id = outcome.version.resource_id if what == "create" else named
            assert what != "create" or resource_id not in self.model.versions
            newest = self.model.newest(resource_id)
            if (what == "delete" and newest is None) or (
                what == "put" and condition == "skip" and newest == language
            ):
                assert not outcome.changed
                continue
            self.model.add(resource_id, None if what == "delete" else language)
            changed = True
            version = outcome.version
            assert outcome.changed
            assert version.resource_id == resource_id
            assert version.version_id == len(self.model.versions[resource_id])
            assert version.created == (newest is None)
            assert version.verb == {"put": "PUT", "create": "POST", "delete": "DELETE"}[what]
        self.model.commits += changed
        assert result[0].answer == self.model.counts()

    def is_refused(self, resource_id: ResourceId, what: str, _: str, condition: str | None) -> bool:
        versions = self.model.versions.get(resource_id, [])
        if what == "create" or condition not in ("current", "stale"):
            return False
        return condition == "stale" or len(versions) not in (1, 2, 3)

    # What must hold

    @invariant()
    def the_store_answers_as_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        snapshot, model = self.store.snapshot(), self.model
        assert snapshot.commit.sequence == model.commits
        assert snapshot.counts() == model.counts()
        page = snapshot.history(count=10_000)
        assert [(v.resource_id, v.version_id) for v in page.versions] == model.history[::-1]
        assert page.total == len(model.history)
        for resource_id in IDS:
            versions = model.versions.get(resource_id)
            if versions is None:
                with pytest.raises(NotFound):
                    snapshot.history(resource_id)
            elif versions[-1] is None:
                with pytest.raises(Gone):
                    snapshot.read(resource_id)
            else:
                assert snapshot.read(resource_id).version_id == len(versions)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        snapshot = self.store.snapshot()
        for resource_id, languages in self.model.versions.items():
            for number, language in enumerate(languages, 1):
                version = snapshot.version(resource_id, VersionId(number))
                assert version.deleted == (language is None)
                if language is not None:
                    resource = json.loads(snapshot.body(version))
                    assert (resource["id"], resource["language"]) == (resource_id.id, language)
                    assert resource["meta"]["versionId"] == str(number)
        times = [version.last_updated for version in snapshot.history(count=10_000).versions]
        assert times == sorted(times, reverse=True)
        assert list(self.store.verify()) == []
        before = rows(self.store)
        self.store.reindex()
        assert rows(self.store) == before
        self.store.close()
        assert self.git("fsck", "--full", "--strict", "--no-dangling") == ""
        assert self.git("rev-list", "--count", "main") == f"{self.model.commits}\n"

    def git(self, *arguments: str) -> str:
        result = subprocess.run(
            ["git", *arguments],
            cwd=self.record,
            capture_output=True,
            text=True,
            check=False,
            env=git_environment(),
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


def rows(store: Store) -> dict[str, Any]:
    """What the index holds; a rebuild gives the same, keys of the record included."""
    connection: sqlite3.Connection = store._index.reader()
    held: dict[str, Any] = {
        table: sorted(connection.execute(f"SELECT * FROM {table}"))
        for table in ("commits", "authors", "versions", "parameters", "facts")
    }
    resources = connection.execute("SELECT * FROM resources WHERE version > 0 ORDER BY key").fetchall()
    return held | {"resources": resources, "contents": [stored(connection, row[0]) for row in resources]}


def test_any_story_leaves_the_record_that_a_dictionary_would(new_record):
    """read, vread, history and counts at each step; at the end verify, fsck, and the index equal to one by replay."""

    class Bound(Machine):
        pass

    Bound.new_record = staticmethod(new_record)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Bound, settings=settings(deadline=None, max_examples=15, stateful_step_count=12, derandomize=True)
    )
