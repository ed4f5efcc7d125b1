"""Any two histories that part at any point: what is done again of one of them, and what of it isn't, by a model. docs/diverged.md"""

from __future__ import annotations

import itertools
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore import (
    Author,
    Create,
    Delete,
    Interaction,
    Settings,
    Store,
    Unit,
    Update,
    apply_diverged,
    diverged,
)
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId
from tests.conftest import START, Clock, copy_record
from tests.gitstore.conftest import run_git_in

OFF = Settings(durability="off", validation="off", maintenance="off")
ADA = Author("Ada Lovelace", "ada@clinic.example")
IDS = [ResourceId("Patient", id) for id in "abcd"]
HOUR = 3_600_000_000

# A unit of work: what it does to which of the resources, or creates; several are a transaction.
ACTIONS = st.tuples(st.sampled_from(["update", "update", "delete", "create"]), st.sampled_from(IDS))
UNITS = st.lists(st.lists(ACTIONS, min_size=1, max_size=3, unique_by=lambda action: action[1]), max_size=6)

Content = bytes | None
"""What a resource says, None where it is deleted or never was."""


@dataclass
class Side:
    """A node, and what each of its commits has made of which resource."""

    store: Store
    name: str
    numbers: itertools.count[int]
    commits: list[dict[ResourceId, Content]] = field(default_factory=list)

    def do(self, units: list[list[tuple[str, ResourceId]]]) -> None:
        for unit in units:
            kind = "transaction" if len(unit) > 1 else None
            [outcomes] = self.store.commit_each(
                [Unit([self._interaction(*action) for action in unit], ADA, interaction=kind)]
            )
            assert isinstance(outcomes, list)
            made = [outcome.version for outcome in outcomes if outcome.changed]
            if made:
                self.commits.append({one.resource_id: content(self.store, one.resource_id) for one in made})

    def _interaction(self, action: str, id: ResourceId) -> Interaction:
        if action == "delete":
            return Delete(id)
        # No two are alike, and each has digits that a number would lose.
        text = b'{"resourceType": "Patient", "id": "%b", "multipleBirthInteger": %d.10}'
        resource = json.loads(text % (id.id.encode(), next(self.numbers)))
        return Create(resource) if action == "create" else Update(id, resource)


def content(store: Store, id: ResourceId) -> Content:
    newest = store.snapshot().newest(id)
    if newest is None or newest.deleted:
        return None
    return re.sub(rb'"(versionId|lastUpdated)": "[^"]*"', rb'"\1": ""', store.body(newest))


def number(store: Store, id: ResourceId) -> int:
    newest = store.snapshot().newest(id)
    return 0 if newest is None else newest.version_id


def expected(old: Side, new: Side) -> tuple[list[str], dict[ResourceId, Content]]:
    """By a model of its own: what becomes of each diverged commit, and what the resources say in the end."""
    touched = {id for commit in old.commits + new.commits for id in commit}
    says = {id: content(new.store, id) for id in touched}
    main: dict[ResourceId, list[Content]] = {id: [] for id in touched}
    """What main has said since the fork."""
    for commit in new.commits:
        for id, body in commit.items():
            main[id].append(body)
    at: dict[ResourceId, int | None] = dict.fromkeys(touched, 0)
    """How far main is as the diverged side has left it; None where it isn't."""
    states = []
    for commit in old.commits:
        alike = {id: last(main[id], body, at[id] or 0) for id, body in commit.items()}
        if all(alike.values()) and not any(at[id] == len(main[id]) for id in commit):
            states.append("applied")
            at.update(alike)
        elif all(at[id] == len(main[id]) for id in commit):
            states.append("applies")
            for id, body in commit.items():
                main[id].append(body)
                at[id] = len(main[id])
        else:
            states.append("conflicts")
            at.update(dict.fromkeys(commit))
    return states, says | {id: said[-1] for id, said in main.items() if said}


def last(said: list[Content], body: Content, after: int) -> int:
    """The number of the last entry after some that is this one, from 1 on; 0 where there is none."""
    return max((number for number, each in enumerate(said, 1) if number > after and each == body), default=0)


@settings(max_examples=15)
@given(UNITS, UNITS, UNITS)
def test_what_does_not_conflict_is_done_again_and_what_does_is_left(new_record, before, old_units, new_units):
    """Resources end as the one side has them or the other, versions have no gap, and a second time changes nothing."""
    record = Path(new_record())
    copy = record.parent / f"{record.name}.old"
    try:
        _try(record, copy, before, old_units, new_units)
    finally:
        shutil.rmtree(record)
        shutil.rmtree(copy, ignore_errors=True)


def _try(record: Path, copy: Path, before: Any, old_units: Any, new_units: Any) -> None:
    numbers = itertools.count(1)
    with open_store(record, START, "base") as store:
        Side(store, "base", numbers).do(before)
    copy_record(record, copy)
    with (
        open_store(copy, START + HOUR, "old") as fenced,
        open_store(record, START + 2 * HOUR, "new") as store,
    ):
        old, new = Side(fenced, "old", numbers), Side(store, "new", numbers)
        old.do(old_units)
        new.do(new_units)
        run_git_in(record)("fetch", "--quiet", str(copy), "main:refs/git-fhir/diverged/20260101T130000Z-0")
        states, says = expected(old, new)

        assert [one.state for one in diverged(store)] == states
        found = [one.state for one in apply_diverged(store)]
        assert found == ["applied" if state == "applies" else state for state in states]
        assert {id: content(store, id) for id in says} == says
        for id in says:
            if number(store, id):
                history = store.snapshot().history(id, count=100).versions
                assert [version.version_id for version in history] == list(range(len(history), 0, -1))
        assert list(store.verify()) == []
        tip = store.snapshot().commit
        assert [one.state for one in apply_diverged(store)] == found
        assert store.snapshot().commit == tip


def open_store(path: Path, start: int, name: str) -> Store:
    ids = itertools.count(1)
    return Store.open(path, OFF, clock=Clock(start), new_id=lambda: f"{name}-{next(ids)}")
