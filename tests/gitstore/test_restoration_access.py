"""Who may restore and revert what: what may not be seen is not there, and both are changes as others are."""

from __future__ import annotations

from typing import Any

import pytest

from gitstore import (
    ANONYMOUS,
    Access,
    Commit,
    Create,
    Forbidden,
    Grant,
    Interaction,
    NotFound,
    Restore,
    Revert,
    Store,
    Unit,
    Update,
    Version,
    View,
)
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.queue import Pending

P = ResourceId("Patient", "p")
Q = ResourceId("Patient", "q")
ALL = frozenset("cruds")


def patient(id: str, **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, **elements}


def done(store: Store | View, *interactions: Interaction) -> Version:
    """Do them as one unit of work; the first version that it makes."""
    kind = "transaction" if len(interactions) > 1 else None
    version = store.commit(interactions, ANONYMOUS, interaction=kind)[0].version
    assert version is not None
    return version


def put(store: Store | View, target: ResourceId, **elements: Any) -> Commit:
    return done(store, Update(target, {"resourceType": target.type, "id": target.id, **elements})).commit


def restore(store: Store | View, version: int, target: ResourceId = P) -> Version:
    return done(store, Restore(target, VersionId(version)))


@pytest.fixture
def shared(store: Store) -> tuple[Store, Commit]:
    """A commit about two patients, of which most may see one."""
    put(store, P, gender="female")
    put(store, Q, gender="male")
    both = done(store, Update(P, patient("p", gender="other")), Update(Q, patient("q", gender="other")))
    return store, both.commit


def seeing(store: Store, *grants: Grant, **more: Any) -> View:
    return View(store, Access(grants, **more))


def test_a_commit_that_is_seen_in_part_is_not_there(shared: tuple[Store, Commit]) -> None:
    store, commit = shared
    own = put(store, P, gender="unknown")
    of_p = seeing(store, Grant(None, ALL, patient="p"))

    with pytest.raises(NotFound) as raised:
        of_p.commit([Revert(commit)], ANONYMOUS)
    assert "Patient" not in str(raised.value)
    with pytest.raises(NotFound):
        seeing(store, Grant(None, ALL), history=False).commit([Revert(own)], ANONYMOUS)
    done(of_p, Revert(own))
    assert store.snapshot().read(P).version_id == 4


def test_who_may_not_write_all_of_it_may_not_undo_it(shared: tuple[Store, Commit]) -> None:
    """Not even where all is seen; what it is that may not be written is not told."""
    store, commit = shared
    made = done(store, Create({"resourceType": "Basic"})).commit
    readers = Grant(None, frozenset("rs"))

    for view, undone in (
        (seeing(store, readers), commit),
        (seeing(store, readers, Grant(None, ALL, patient="p")), commit),
        (seeing(store, readers, Grant("Basic", frozenset("cu"))), made),
    ):
        with pytest.raises(Forbidden) as raised:
            view.commit([Revert(undone)], ANONYMOUS)
        assert "Patient" not in str(raised.value)
        assert "Basic" not in str(raised.value)
    done(seeing(store, readers, Grant("Basic", frozenset("d"))), Revert(made))
    done(seeing(store, readers, Grant("Patient", frozenset("u"))), Revert(commit))


def test_who_may_restore_what(shared: tuple[Store, Commit]) -> None:
    """It takes the past, and the right to read and to change this resource."""
    store, _ = shared
    for access, error in (
        (Access((Grant(None, frozenset("rs")),)), Forbidden),
        (Access((Grant("Patient", frozenset("u")),)), Forbidden),
        (Access((Grant(None, ALL, patient="q"),)), Forbidden),
        (Access((Grant(None, ALL),), history=False), NotFound),
    ):
        with pytest.raises(error):
            restore(View(store, access), 1)
    assert restore(seeing(store, Grant(None, ALL, patient="p")), 1).version_id == 3


def test_no_content_comes_back_that_may_not_be_written(store: Store) -> None:
    """What a resource was before it came into somebody's hands is not theirs to restore, or to see."""
    target = ResourceId("Observation", "o")
    for subject in ("q", "p"):
        put(store, target, status="final", subject={"reference": f"Patient/{subject}"})
    put(store, target, status="amended", subject={"reference": "Patient/p"})
    of_p = seeing(store, Grant(None, ALL, patient="p"))

    with pytest.raises(NotFound):
        restore(of_p, 1, target)
    with pytest.raises(Forbidden):
        restore(seeing(store, Grant(None, frozenset("rs")), Grant(None, ALL, patient="p")), 1, target)
    assert restore(of_p, 2, target).version_id == 4


def test_what_an_access_loses_before_the_lock_it_does_not_undo(shared: tuple[Store, Commit]) -> None:
    store, _ = shared
    target = ResourceId("Observation", "o")
    put(store, target, status="final", subject={"reference": "Patient/p"})
    own = put(store, target, status="amended", subject={"reference": "Patient/p"})
    of_p = Access((Grant(None, ALL, patient="p"),))
    late = [
        Pending(store.rehearse(Unit([each], ANONYMOUS, access=of_p)))
        for each in (Revert(own), Restore(target, VersionId(1)))
    ]
    put(store, target, status="final", subject={"reference": "Patient/q"})

    store._queue.submit(late)
    for each in late:
        store._queue.wait(each)

    assert [type(each.error) for each in late] == [NotFound, Forbidden]
