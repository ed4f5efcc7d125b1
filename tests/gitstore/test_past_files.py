"""The indexes of past states: made once, whole or not at all, few of them, and gone when they have to be."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from past_states import UNCHECKED, commit, files, leftovers, past
from searches import found, listed, resource

from gitstore import Commit, Preparing, Settings, StorageFull, Store
from gitstore.fhir.ids import ResourceId
from gitstore.search.states import FOLDER, Draft


@pytest.fixture
def store(record: str, clock: Callable[[], int]) -> Iterator[Store]:
    with Store.open(record, UNCHECKED, clock=clock) as opened:
        yield opened


def test_few_are_kept_and_those_that_are_of_use(record: str) -> None:
    """fhir.asOfCache: the one that was used longest ago goes."""
    with Store.open(record, Settings(durability="off", validation="off", min_free=1, as_of_cache=2)) as store:
        first, second, third, fourth = (commit(store, [resource("Patient", id)]) for id in "abcd")
        for at in (first, second, third):
            assert len(listed(past(store, at), "Patient?")) == at.sequence - 1
        assert files(store) == {second.id, third.id}
        folder = Path(record) / "git-fhir" / FOLDER
        os.utime(folder / f"{second.id}.sqlite", ns=(1, 1))
        os.utime(folder / f"{third.id}.sqlite", ns=(2, 2))

        listed(past(store, second), "Patient?")
        listed(past(store, fourth), "Patient?")

        assert files(store) == {second.id, fourth.id}
        assert listed(past(store, third), "Patient?") == ["a", "b", "c"]


def test_they_are_thrown_away_when_the_index_is_made_anew(store: Store, record: str) -> None:
    """So that what a rebuild is to get rid of is nowhere; whoever reads one goes on."""
    at = commit(store, [resource("Patient", "a")])
    with past(store, at).reading() as snapshot:
        assert files(store) == {at.id}
        store.reindex()
        assert files(store) == set()
        assert len(snapshot.search(("Patient",), []).matches) == 1

    assert listed(past(store, at), "Patient?") == ["a"]
    assert leftovers(record) == []


def test_one_that_is_being_made_meanwhile_does_not_take_its_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made again, of the new index."""
    at = commit(store, [resource("Patient", "a")])
    commit(store, [resource("Patient", "a", gender="male")])
    renew, turns = Draft.renew, iter(["reindex"])

    def interrupted(draft: Draft, *arguments: Any) -> None:
        if next(turns, None):
            store.reindex()
        renew(draft, *arguments)

    monkeypatch.setattr(Draft, "renew", interrupted)
    with past(store, at).reading():
        pass

    assert next(turns, None) is None
    assert found(past(store, at), "Patient?gender:missing=true") == {"a"}


@pytest.mark.parametrize("damage", ["half", "nothing", "foreign"])
def test_a_file_that_is_not_whole_is_made_again(store: Store, record: str, damage: str) -> None:
    """As a power cut may leave it, or another version of the software."""
    at = commit(store, [resource("Patient", "a")])
    listed(past(store, at), "Patient?")
    path = Path(record) / "git-fhir" / FOLDER / f"{at.id}.sqlite"
    whole = path.read_bytes()
    if damage == "foreign":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 1")
        connection.close()
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "half" else b"")
        if damage == "half":
            path.write_bytes(b"\0" * 100 + whole[100:])

    assert listed(past(store, at), "Patient?") == ["a"]


def test_what_a_killed_maker_leaves_is_swept_up(store: Store, record: str) -> None:
    """Nothing that has another name than a whole one is ever opened."""
    at = commit(store, [resource("Patient", "a")])
    folder = Path(record) / "git-fhir" / FOLDER
    child = multiprocessing.get_context("fork").Process(target=die_while_making, args=(record, at))
    child.start()
    child.join(60)
    assert child.exitcode == 9
    assert leftovers(record)[0] == f"{at.id}.sqlite.draft"
    assert files(store) == set()
    (folder / f"{'0' * 40}.sqlite.draft-wal").write_bytes(b"x")

    assert listed(past(store, at), "Patient?") == ["a"]

    assert leftovers(record) == []


def die_while_making(record: str, at: Commit) -> None:
    """In a process of its own."""
    Draft.renew = lambda *_: os._exit(9)  # type: ignore[method-assign, assignment]  # as if it was killed there
    with Store.open(record, UNCHECKED) as store:
        commit(store, [resource("Patient", "a", gender="male")])
        with past(store, at).reading():
            pass


def test_what_fails_while_one_is_made_is_told(
    store: Store, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To those who wait, and to the next who asks where nobody waited; then it is tried again."""
    at = commit(store, [resource("Patient", "a")])
    commit(store, [resource("Patient", "a", gender="male")])
    with monkeypatch.context() as patch:
        patch.setattr(Draft, "renew", lambda *_: (_ for _ in ()).throw(StorageFull("No room.")))
        with pytest.raises(StorageFull), past(store, at).reading():
            pass
        held = threading.Event()
        with store.rewinding.states.alone(held), pytest.raises(Preparing), store.past(at, 0.0).reading():
            pass
        store.rewinding.finish()
    with pytest.raises(StorageFull), store.past(at, 0.0).reading():
        pass

    assert listed(past(store, at), "Patient?") == ["a"]
    assert leftovers(record) == []


def test_it_needs_room_on_the_disk(record: str) -> None:
    """fhir.minFree stays free: the record itself has to go on."""
    with Store.open(record, Settings(durability="off", validation="off", min_free=2**61)) as store:
        with pytest.raises(StorageFull, match="no room"), past(store).reading():
            pass
        assert store.past(store.snapshot().commit).snapshot().counts() == {}


# Several at once


def test_it_is_made_once_however_many_ask(record: str, clock: Callable[[], int], tmp_path: Path) -> None:
    """Threads of several processes: each gets the answer, and one of them has made it."""
    with Store.open(record, UNCHECKED, clock=clock) as store:
        at = commit(store, [resource("Patient", id) for id in "abc"])
        commit(store, [ResourceId("Patient", "b")])
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=ask, args=(record, at, tmp_path / str(n))) for n in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)

    assert [child.exitcode for child in children] == [0, 0, 0]
    assert sum(int((tmp_path / str(n)).read_text()) for n in range(3)) == 1


def ask(record: str, at: Commit, report: Path) -> None:
    """Four threads that search; how many indexes they made is reported, and that all is well by the exit code."""
    made: list[Commit] = []
    close = Draft.close

    def counted(draft: Draft) -> None:
        made.append(draft._commit)
        close(draft)

    Draft.close = counted  # type: ignore[method-assign]  # in a process of its own
    results: list[list[str]] = []
    with Store.open(record, UNCHECKED) as store:
        threads = [
            threading.Thread(target=lambda: results.append(listed(past(store, at), "Patient?")))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert results == [["a", "b", "c"]] * 4
    report.write_text(str(len(made)))


def test_who_asks_for_another_state_waits_for_the_first(store: Store) -> None:
    """One is made at a time: an index for each of many commits at once would be too much for any disk."""
    points = [commit(store, [resource("Patient", id)]) for id in "abcd"]
    results: dict[int, list[str]] = {}

    def look(at: Commit) -> None:
        results[at.sequence] = listed(past(store, at), "Patient?")

    threads = [threading.Thread(target=look, args=(at,)) for at in points]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert results == {at.sequence: ["a", "b", "c", "d"][: at.sequence - 1] for at in points}


def test_closing_ends_what_is_being_made(record: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = threading.Event()
    store = Store.open(record, UNCHECKED)
    at = commit(store, [resource("Patient", id) for id in "ab"])
    commit(store, [ResourceId("Patient", "a")])

    def endlessly(_: Draft, *__: Any) -> None:
        reached.set()
        assert store.rewinding._stopped.wait(60)

    monkeypatch.setattr(Draft, "renew", endlessly)
    with pytest.raises(Preparing), store.past(at, 0.0).reading():
        pass
    assert reached.wait(60)

    store.close()

    assert leftovers(record) == []
