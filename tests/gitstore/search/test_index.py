"""The search index as a file: generations, damage, and what `apply` lets in."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gitstore import Author, Create, Settings, Store, Update
from gitstore.errors import Locked, RepositoryDamaged, StorageFailed, StorageFull, Unavailable
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.search import index, noting, versions
from gitstore.search.index import SCHEMA, Index
from gitstore.version import Change, Commit

EVE = Author("Eve", "eve@example.org")
PATIENT = ResourceId("Patient", "1")


def commit(sequence: int) -> Commit:
    return Commit(f"{sequence:040x}", sequence, sequence * 1_000_000, "update", EVE, None)


def put(version: int, resource_id: ResourceId = PATIENT) -> Change:
    return Change("PUT", resource_id, VersionId(version))


BLOB = "ab" * 20


@pytest.fixture
def search_index(tmp_path: Path) -> Iterator[Index]:
    """An index that holds one commit, the first of a record."""
    made = Index(str(tmp_path / "index"))
    with made.alone(), made.rebuilding() as generation:
        noting.apply(generation.connection, commit(1), [], [])
        generation.leave_unsearchable()
        generation.take_over()
    yield made
    made.close()


@pytest.fixture
def connection(search_index: Index) -> index.Connection:
    return search_index.writer()


# apply


@pytest.mark.parametrize("version", [2, 3, 7])
def test_a_first_version_that_is_not_1_is_damage(connection, version):
    with pytest.raises(
        RepositoryDamaged, match=f"makes version {version} of Patient/1, whose last one is 0"
    ) as found:
        noting.apply(connection, commit(2), [put(version)], [BLOB])

    assert found.value.commit == commit(2).id


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_version_that_is_not_the_next_one_is_damage(connection, version):
    """Counters have no gap, never repeat and never go back; much of what is fast leans on that."""
    noting.apply(connection, commit(2), [put(1)], [BLOB])
    noting.apply(connection, commit(3), [Change("DELETE", PATIENT, VersionId(2))], [None])

    with pytest.raises(RepositoryDamaged, match="whose last one is 2"):
        noting.apply(connection, commit(4), [put(version)], [BLOB])


def test_what_is_refused_leaves_no_row(search_index, connection):
    """Replay stops at such a commit, and keeps what came before it: nothing of it may be among that."""
    other = ResourceId("Observation", "1")

    with pytest.raises(RepositoryDamaged):
        noting.apply(connection, commit(2), [put(1, other), put(9)], [BLOB, BLOB])

    assert versions.tip(connection) == commit(1)
    assert versions.newest(connection, other, 9) is None
    assert connection.execute("SELECT count(*) FROM resources").fetchone() == (0,)


def test_a_sequence_or_instant_that_is_there_already_is_refused(connection):
    noting.apply(connection, commit(2), [], [])

    with pytest.raises(Unavailable):
        noting.apply(connection, commit(2), [], [])


def test_apply_says_what_it_made(connection):
    """Created: there was no current resource before; so for a revival too, and never for a deletion."""
    other = ResourceId("Observation", "1")
    made = [
        noting.apply(connection, commit(2), [put(1), put(1, other)], [BLOB, BLOB]),
        noting.apply(connection, commit(3), [put(2)], [BLOB]),
        noting.apply(connection, commit(4), [Change("DELETE", PATIENT, VersionId(3))], [None]),
        noting.apply(connection, commit(5), [put(4)], [BLOB]),
    ]

    assert [
        (version.resource_id, version.version_id, version.created, version.deleted, version.position)
        for versions in made
        for version in versions
    ] == [
        (PATIENT, 1, True, False, 0),
        (other, 1, True, False, 1),
        (PATIENT, 2, False, False, 0),
        (PATIENT, 3, False, True, 0),
        (PATIENT, 4, True, False, 0),
    ]
    assert versions.changes(connection, 2) == made[0]


# Savepoints


def test_a_savepoint_that_is_left_badly_takes_its_rows_with_it(search_index, connection):
    """A unit of work that fails leaves nothing in its group."""
    index.begin(connection)
    with index.savepoint(connection):
        noting.apply(connection, commit(2), [put(1)], [BLOB])
    with pytest.raises(RepositoryDamaged), index.savepoint(connection):
        noting.apply(connection, commit(3), [put(2), put(9)], [BLOB, BLOB])
    with pytest.raises(KeyError), index.savepoint(connection):
        raise KeyError(noting.apply(connection, commit(3), [put(2)], [BLOB]))
    with index.savepoint(connection):
        made = noting.apply(connection, commit(3), [put(2)], [BLOB])
    index.commit(connection)

    reader = search_index.reader()
    assert versions.newest(reader, PATIENT, 3) == made[0]
    assert versions.tip(reader) == commit(3)


def test_what_is_not_committed_is_not_seen(search_index, connection):
    index.begin(connection)
    noting.apply(connection, commit(2), [put(1)], [BLOB])

    assert versions.tip(search_index.reader()) == commit(1)
    assert versions.tip(connection) == commit(2)
    index.rollback(connection)
    index.rollback(connection)  # nothing to do any more
    assert versions.tip(connection) == commit(1)


def test_a_reader_can_not_write(search_index):
    with pytest.raises(Unavailable, match="readonly"):
        noting.apply(search_index.reader(), commit(2), [], [])


def test_errors_of_sqlite_leave_as_errors_of_the_store(search_index, connection):
    connection.execute("PRAGMA max_page_count = 1")
    many = [ResourceId("Patient", str(number)) for number in range(5000)]
    with pytest.raises(StorageFull, match="No room for the search index"):
        noting.apply(connection, commit(2), [put(1, one) for one in many], [BLOB] * len(many))

    other = Index(search_index._folder)
    other.writer().execute("PRAGMA busy_timeout = 0")
    index.begin(connection)
    with pytest.raises(Locked, match="busy"):
        index.begin(other.writer())
    index.rollback(connection)
    other.close()


# Generations


def rebuild(search_index: Index, last: int) -> None:
    with search_index.alone(), search_index.rebuilding() as generation:
        for sequence in range(1, last + 1):
            noting.apply(generation.connection, commit(sequence), [], [])
        generation.take_over()


def test_every_connection_sees_a_new_generation_at_its_next_transaction(search_index):
    """Of other threads and other processes, which have an Index of their own."""
    other = Index(search_index._folder)
    seen: list[Commit | None] = []
    ready, go = threading.Event(), threading.Event()

    def look() -> None:
        seen.append(versions.tip(search_index.reader()))
        ready.set()
        go.wait(30)
        seen.append(versions.tip(search_index.reader()))

    thread = threading.Thread(target=look)
    thread.start()
    ready.wait(30)
    for reader in (search_index.reader(), search_index.writer(), other.reader(), other.writer()):
        assert versions.tip(reader) == commit(1)

    rebuild(search_index, 3)
    go.set()
    thread.join()

    for reader in (search_index.reader(), search_index.writer(), other.reader(), other.writer()):
        assert versions.tip(reader) == commit(3)
    assert seen == [commit(1), commit(3)]
    other.close()


def test_only_the_newest_generation_stays(search_index):
    for _ in range(3):
        rebuild(search_index, 2)

    names = os.listdir(search_index._folder)
    assert [name for name in names if name.endswith(".sqlite") and name != "index.sqlite"] == [
        "index-4.sqlite"
    ]
    assert os.readlink(os.path.join(search_index._folder, "index.sqlite")) == "index-4.sqlite"


def test_a_rebuild_that_fails_leaves_the_old_generation(search_index):
    with pytest.raises(KeyError), search_index.alone(), search_index.rebuilding() as generation:
        raise KeyError(noting.apply(generation.connection, commit(1), [], []))

    assert versions.tip(search_index.reader()) == commit(1)
    assert not [name for name in os.listdir(search_index._folder) if name.startswith("index-2")]


def test_what_a_dead_rebuild_left_is_not_built_upon(search_index):
    """Its number is passed over, and its files go with the next one."""
    Path(search_index._folder, "index-2.sqlite").write_bytes(b"half written")

    rebuild(search_index, 2)

    assert versions.tip(search_index.reader()) == commit(2)
    assert not Path(search_index._folder, "index-2.sqlite").exists()


def test_two_rebuilds_at_once_both_succeed(tmp_path):
    """As when two workers start after an upgrade. Neither may fill, or remove, the file of the other."""
    indexes = [Index(str(tmp_path / "index")) for _ in range(4)]
    errors: list[BaseException] = []
    start = threading.Barrier(len(indexes))

    def run(one: Index) -> None:
        start.wait(30)
        try:
            rebuild(one, 50)
            assert versions.tip(one.reader()) == commit(50)
        except BaseException as error:  # noqa: BLE001  # shown by the test
            errors.append(error)
        one.close()

    threads = [threading.Thread(target=run, args=(one,)) for one in indexes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert versions.tip(indexes[0].reader()) == commit(50)
    indexes[0].close()


# What may lie there instead of an index


def test_without_an_index_reading_says_how_to_get_one(tmp_path):
    with pytest.raises(StorageFailed, match="`git fhir reindex` makes one"):
        Index(str(tmp_path)).reader()


def test_a_folder_that_can_not_be_made_is_an_error_of_the_store(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(StorageFailed, match="no place for a search index"):
        rebuild(Index(str(tmp_path / "file")), 1)


def index_file(record: str) -> Path:
    folder = Path(record, "git-fhir")
    return folder / os.readlink(folder / "index.sqlite")


def tamper(change: Callable[[Path], None], record: str) -> None:
    for suffix in ("-wal", "-shm"):
        index_file(record).with_name(index_file(record).name + suffix).unlink(missing_ok=True)
    change(index_file(record))


def other_schema(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()


def truncate(path: Path) -> None:
    os.truncate(path, 5000)


def scribble(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))


def without_a_table(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE commits")
    connection.close()


BROKEN = {
    "of another schema": other_schema,
    "empty": lambda path: path.write_bytes(b""),
    "no database": lambda path: path.write_bytes(b"x" * 10_000),
    "gone": lambda path: path.unlink(),
    "cut off": truncate,
    "scribbled over": scribble,
    "without a table": without_a_table,
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_an_index_that_can_not_be_used_is_made_anew_when_the_store_opens(record, clock, change):
    """Everything in it is derived from git; so nothing is lost, and nobody has to do anything."""
    with Store.open(record, Settings(durability="off", validation="off"), clock=clock) as store:
        for number in range(60):
            resource = {"resourceType": "Patient", "id": str(number)}
            store.commit([Update(ResourceId("Patient", str(number)), resource)], EVE)
        before = list(store.snapshot().history(count=100).versions)
    tamper(change, record)

    with Store.open(record, Settings(durability="off", validation="off"), clock=clock) as store:
        assert store.snapshot().history(count=100).versions == before
        store.commit([Create({"resourceType": "Patient"})], EVE)
        assert list(store.verify()) == []


def test_an_index_that_breaks_while_it_is_used_is_an_error_that_says_what_helps(record, clock):
    with Store.open(record, Settings(durability="off", validation="off"), clock=clock) as store:
        for number in range(60):
            resource = {"resourceType": "Patient", "id": str(number)}
            store.commit([Update(ResourceId("Patient", str(number)), resource)], EVE)
    with Store.open(record, Settings(durability="off", validation="off"), clock=clock) as store:
        scribble(index_file(record))

        with pytest.raises(StorageFailed, match="`git fhir reindex` makes it anew"):
            store.snapshot().history(count=100)

        store.reindex()
        assert store.snapshot().history(count=100).total == 60
        assert list(store.verify()) == []
