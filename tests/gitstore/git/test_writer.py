"""Moving main: whatever fails, it has happened or nothing is left. docs/architecture.md, "Writing" """

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gitstore import durable
from gitstore.errors import ForeignCommit, Locked, NotConfirmed, RepositoryDamaged, StorageFailed, StorageFull
from gitstore.git import layout, writer
from gitstore.git.commits import format_commit
from gitstore.git.pack import BLOB, COMMIT, Pack
from gitstore.git.trees import Trees, nest
from gitstore.git.writer import Writer, read_main
from gitstore.version import Author

EVE = Author("Eve", "eve@example.org")
IO = ("open", "close", "write", "pwrite", "fsync", "fdatasync", "fstat", "link", "rename", "unlink")
"""The calls of the write path to the operating system, each of which can fail."""


class Disk:
    """Stands for `os` in the writer's module: the calls of IO are counted, and some of them fail.

    `fails(number)` says which. A call that fails has no effect, except that a close closes and, where `late`, that a
    rename is done before it reports the error.
    """

    def __init__(self, error: BaseException, fails: Callable[[int], bool], *, late: bool = False) -> None:
        self.calls = 0
        self.failed: list[str] = []
        self._error = error
        self._fails = fails
        self._late = late

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in IO:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if not self._fails(self.calls):
                return real(*arguments, **named)
            self.failed.append(name)
            if name == "close" or (name == "rename" and self._late):
                real(*arguments, **named)
            raise self._error

        return call


def next_commit(git_dir: str, text: str = "x") -> tuple[Pack, str | None, str]:
    """What `publish` takes: a commit on top of main."""
    old = read_main(git_dir)
    pack = Pack()
    tree = Trees(lambda _: b"").edit(None, nest({"file": pack.add(BLOB, text.encode())}), pack)
    assert tree is not None
    commit = pack.add(COMMIT, format_commit(tree, old, EVE, EVE, 0, f"{text}\n"))
    return pack, old, commit.hex()


def write(one: Writer, git_dir: str, text: str = "x") -> str:
    with one.locked():
        pack, old, new = next_commit(git_dir, text)
        one.publish(pack, old, new)
    return new


def files(git_dir: str) -> dict[str, set[str]]:
    """What lies where a write puts something; the packs without the number in their names."""
    return {
        "packs": {name.rpartition(".")[2] for name in os.listdir(os.path.join(git_dir, "objects", "pack"))},
        "heads": set(os.listdir(os.path.join(git_dir, "refs", "heads"))),
        "local": set(os.listdir(os.path.join(git_dir, layout.LOCAL))),
    }


CLEAN = {"packs": {"pack", "idx"}, "heads": {"main"}, "local": {"writer.lock", "writer.gate"}}


@pytest.fixture
def record(record: str) -> str:
    """As it was before a store opened it: what lies there is the writer's."""
    for name in os.listdir(os.path.join(record, layout.LOCAL)):
        if not name.startswith("writer."):
            os.unlink(os.path.join(record, layout.LOCAL, name))
    return record


@pytest.fixture
def one(record: str) -> Iterator[Writer]:
    opened = Writer(record, lock_timeout=0.05)
    yield opened
    opened.close()


# The way it should go


def test_publishing_moves_main_and_leaves_only_the_pack(record, git, one):
    new = write(one, record)

    assert git("rev-parse", "main") == new
    assert git("cat-file", "-p", "main:file") == "x"
    assert git("fsck", "--full", "--strict") == ""
    assert files(record) == CLEAN
    assert not one.index_is_behind()


def test_packs_can_not_be_written_to_by_accident(record, one):
    """git makes its packs read-only too."""
    write(one, record)

    for path in Path(record, "objects", "pack").iterdir():
        assert path.stat().st_mode & 0o777 == 0o444


def test_main_may_be_packed(record, git, one):
    """`git pack-refs` moves it into packed-refs; the next write makes a file of it again."""
    first = write(one, record)
    git("pack-refs", "--all", "--prune")
    assert not Path(record, layout.REFERENCE).exists()
    assert read_main(record) == first

    second = write(one, record, "y")

    assert git("rev-parse", "main", "main~1").split() == [second, first]
    assert files(record) == CLEAN


def test_without_durability_nothing_is_synced(record, monkeypatch):
    """`fhir.durability = off` is for throw-away test data."""
    disk = Disk(OSError(errno.EIO, "never"), lambda number: False)
    seen: list[str] = []
    monkeypatch.setattr(disk, "fsync", lambda descriptor: seen.append("fsync"), raising=False)
    monkeypatch.setattr(disk, "fdatasync", lambda descriptor: seen.append("fdatasync"), raising=False)
    for module in (writer, durable):
        monkeypatch.setattr(module, "os", disk)

    for is_durable in (False, True):
        opened = Writer(record, durable=is_durable)
        write(opened, record, str(is_durable))
        opened.close()
        assert bool(seen) == is_durable


def test_each_file_is_synced_before_it_counts(record, one, monkeypatch):
    """Pack, idx and main.lock before they get their names, the folders after."""
    story: list[str] = []
    names: dict[int, str] = {}

    class Watched:
        def __getattr__(self, name: str) -> Any:
            real = getattr(os, name)

            def call(*arguments: Any, **named: Any) -> Any:
                result = real(*arguments, **named)
                if name == "open":
                    names[result] = os.path.basename(arguments[0]).rpartition(".")[2]
                if name in ("fsync", "fdatasync"):
                    story.append(f"sync {names.get(arguments[0], 'writer.lock')}")
                if name in ("rename", "link"):
                    story.append(f"{name} {os.path.basename(arguments[1]).rpartition('.')[2]}")
                return result

            return call if name in (*IO,) else real

    watched = Watched()
    for module in (writer, durable):
        monkeypatch.setattr(module, "os", watched)
    write(one, record)

    assert story == [
        "sync writer.lock",
        "sync next",
        "link lock",
        "sync pack",
        "sync tmp_idx",
        "rename idx",
        "sync pack",  # the folder
        "rename main",
        "sync heads",
    ]


# What can be in the way


def test_a_lock_of_another_git_is_waited_for(record, one):
    """Never deleted: its owner may be about to move main."""
    lock = Path(record, layout.REFERENCE + ".lock")
    lock.write_text("")
    one._timeout = 60
    waiting = threading.Thread(target=write, args=(one, record))
    waiting.start()
    until(Path(record, layout.LOCAL, "main.next").exists)  # it has come to the lock

    assert lock.read_text() == ""
    assert waiting.is_alive()
    before = read_main(record)
    lock.unlink()
    waiting.join(timeout=30)

    assert read_main(record) != before
    assert files(record) == CLEAN


@pytest.mark.parametrize("content", ["", "1" * 40 + "\n"])
def test_a_lock_of_another_git_that_stays_is_left_alone(record, one, content):
    lock = Path(record, layout.REFERENCE + ".lock")
    lock.write_text(content)
    before = read_main(record)

    with pytest.raises(Locked, match="Another git holds refs/heads/main"):
        write(one, record)

    assert lock.read_text() == content
    assert read_main(record) == before
    lock.unlink()
    assert write(one, record) == read_main(record)
    assert files(record) == CLEAN


@pytest.mark.parametrize("packed", [False, True])
def test_main_that_another_git_has_moved_is_left_there(record, git, one, packed):
    """The write was planned on another parent; nothing of it remains."""
    with one.locked():
        pack, old, new = next_commit(record)
        foreign = git("commit-tree", "main^{tree}", "-p", "main", "-m", "foreign")
        git("update-ref", "refs/heads/main", foreign)
        if packed:
            git("pack-refs", "--all")

        with pytest.raises(ForeignCommit) as refused:
            one.publish(pack, old, new)

    assert refused.value.commit == foreign
    assert foreign in str(refused.value)
    assert git("rev-parse", "main") == foreign
    assert files(record)["heads"] <= {"main"}
    assert files(record)["local"] == CLEAN["local"]
    assert git("fsck", "--full", "--no-dangling") == ""
    assert not any(new in name for name in os.listdir(os.path.join(record, "objects", "pack")))


def test_a_folder_that_can_not_be_written_is_said_at_once(tmp_path):
    with pytest.raises(StorageFailed, match="can't be written"):
        Writer(str(tmp_path / "nowhere"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_only_the_owner_writes(record):
    """Files of another user would be in the way of the owner."""
    os.chown(record, 4242, 4242)

    with pytest.raises(StorageFailed, match="belongs to another user"):
        Writer(record)


def test_too_little_space_is_said_before_anything_is_written(record, one, monkeypatch):
    one.check_space(1000)
    free = os.statvfs(record).f_bavail * os.statvfs(record).f_frsize

    with pytest.raises(StorageFull, match="bytes are free on the disk; nothing was written"):
        one.check_space(free)


# What can fail


def fail_at(monkeypatch: pytest.MonkeyPatch, one: Writer, record: str, disk: Disk) -> BaseException | None:
    """Publish with a failing disk: the error, or None when it was not reached."""
    with one.locked():
        arguments = next_commit(record)
        with monkeypatch.context() as patched:
            for module in (writer, durable):
                patched.setattr(module, "os", disk)
            try:
                one.publish(*arguments)
            except BaseException as error:  # noqa: BLE001  # a dying process is played by a BaseException
                return error
    return None


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from-then-on"])
def test_a_failure_at_any_call_leaves_nothing_or_the_whole(record, git, one, monkeypatch, code, lasting):
    """Each call to the system in its turn fails, once or as all after it. Before main moves, nothing has happened, and
    nothing is left once the disk works again; after it, the write is there and the caller told so."""
    number, kinds = 0, set()
    while True:
        number += 1
        before = read_main(record)
        fails = (lambda n, at=number: n >= at) if lasting else (lambda n, at=number: n == at)
        disk = Disk(OSError(code, os.strerror(code)), fails)
        error = fail_at(monkeypatch, one, record, disk)
        if error is None:
            break
        kinds |= {disk.failed[0]}
        if lasting:
            with one.locked():
                pass
        if isinstance(error, NotConfirmed):
            assert read_main(record) != before, disk.failed
            assert one.index_is_behind() or not lasting
            with one.locked():
                assert one.index_is_behind()
                one.mark_index(behind=False)
        else:
            assert type(error) is (StorageFull if code == errno.ENOSPC else StorageFailed), disk.failed
            assert "nothing was written" in str(error)
            assert read_main(record) == before, disk.failed
            assert not one.index_is_behind()
        assert files(record) in (CLEAN, CLEAN | {"packs": set()}), f"call {number}, {disk.failed}"
        assert write(one, record, f"after {number}") == read_main(record)
    assert number > 20
    assert kinds == set(IO)
    assert git("fsck", "--full", "--strict", "--no-dangling") == ""


def test_a_rename_that_happened_and_was_reported_as_failed_is_not_taken_back(record, git, one, monkeypatch):
    """On some file systems an error doesn't mean that nothing happened. "Nothing was written" must never be a lie."""
    seen = set()
    for number in range(1, 100):
        before = read_main(record)
        disk = Disk(OSError(errno.EIO, "late"), lambda n, at=number: n == at, late=True)
        error = fail_at(monkeypatch, one, record, disk)
        if error is None:
            break
        if disk.failed == ["rename"]:
            seen.add(type(error))
            assert isinstance(error, NotConfirmed) == (read_main(record) != before)
        with one.locked():
            one.mark_index(behind=False)
    assert seen == {StorageFailed, NotConfirmed}
    assert git("fsck", "--full", "--strict", "--no-dangling") == ""


class Died(BaseException):
    """The process is gone: nothing after it runs."""


def test_whatever_a_dead_holder_left_the_next_one_removes(record, git, monkeypatch):
    """A holder that dies before any of its calls leaves an intent, and more and more beside it. Whoever takes the lock
    next finds the record as it was before, or as it is after: main is never moved by it, and nothing is left over."""
    number, found = 0, []
    while True:
        number += 1
        before = read_main(record)
        dying = Writer(record)
        disk = Disk(Died(), lambda n, at=number: n >= at)
        error = fail_at(monkeypatch, dying, record, disk)
        dying.close()
        if error is None:
            break
        moved = read_main(record)
        found.append(files(record))

        heir = Writer(record)
        with heir.locked():
            assert read_main(record) == moved
            assert files(record) in (CLEAN, CLEAN | {"packs": set()}), f"call {number}"
            assert heir.index_is_behind() == (moved != before)
            heir.mark_index(behind=False)
        assert write(heir, record, f"heir {number}") == read_main(record)
        heir.close()
    assert git("fsck", "--full", "--strict", "--no-dangling") == ""
    # Every state was met: each file alone, and together with what is written before it is gone.
    assert any("main.next" in state["local"] and "main.lock" not in state["heads"] for state in found)
    assert any("main.next" in state["local"] and "main.lock" in state["heads"] for state in found)
    assert any("main.lock" in state["heads"] and "keep" not in state["packs"] for state in found)
    assert any({"keep", "pack", "tmp_idx"} <= state["packs"] for state in found)
    assert any("main.lock" in state["heads"] and "tmp_idx" not in state["packs"] for state in found)
    assert any("main.lock" not in state["heads"] and "keep" in state["packs"] for state in found)


def test_an_heir_removes_no_lock_but_that_of_the_intent(record, git, monkeypatch):
    """A foreign git may have come after the holder died."""
    dying = Writer(record)
    fail_at(monkeypatch, dying, record, Disk(Died(), lambda n: n >= 3))
    dying.close()
    lock = Path(record, layout.REFERENCE + ".lock")
    lock.write_text("2" * 40 + "\n")

    heir = Writer(record)
    with heir.locked():
        pass
    heir.close()

    assert lock.read_text() == "2" * 40 + "\n"


TORN = [
    b"",
    b"idle\n",
    b"intent\n",
    b"intent\nold \nnew \npack ..\n",
    b"intent\nold 1\nnew 2\npack x\ncrc 00000000\n",
    b"\x00" * 512,
    b"\xff" * 512,
    b"crc " * 128,
]


@pytest.mark.parametrize("content", TORN, ids=lambda content: ascii(content[:20]))
def test_an_intent_that_is_not_whole_was_never_acted_on(record, one, content):
    """It is written and synced before anything else happens; so a torn one has no leftovers."""
    before = files(record)
    Path(record, layout.LOCAL, "writer.lock").write_bytes(content)

    with one.locked():
        assert files(record) == before
    assert write(one, record) == read_main(record)


def test_a_disk_that_takes_few_bytes_at_a_time_gets_them_all(record, git, one, monkeypatch):
    """write(2) may write less than it was given."""

    class Slow(Disk):
        def write(self, descriptor: int, data: memoryview) -> int:
            return os.write(descriptor, data[:7])

    failing = Slow(OSError(), lambda number: False)
    for module in (writer, durable):
        monkeypatch.setattr(module, "os", failing)
    write(one, record, "y" * 1000)
    monkeypatch.undo()

    assert git("cat-file", "-p", "main:file") == "y" * 1000
    assert git("fsck", "--full", "--strict", "--no-dangling") == ""


def test_a_file_of_another_size_than_was_written_is_an_error(record, one, monkeypatch):
    """Some file systems say yes and store less."""

    class Lying(Disk):
        def write(self, descriptor: int, data: memoryview) -> int:
            os.write(descriptor, data[:-1])
            return len(data)

    before = read_main(record)
    failing = Lying(OSError(), lambda number: False)
    for module in (writer, durable):
        monkeypatch.setattr(module, "os", failing)
    with pytest.raises(StorageFailed, match="another size"):
        write(one, record)

    assert read_main(record) == before
    assert files(record) == CLEAN | {"packs": {"pack", "idx"}}


def test_a_record_that_is_written_short_is_an_error(record, one, monkeypatch):
    class Short(Disk):
        def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
            return os.pwrite(descriptor, data[:100], offset)

    before = read_main(record)
    with one.locked(), monkeypatch.context() as patched:
        arguments = next_commit(record)
        failing = Short(OSError(), lambda number: False)
        for module in (writer, durable):
            patched.setattr(module, "os", failing)
        with pytest.raises(StorageFailed, match="written short"):
            one.publish(*arguments)

    assert read_main(record) == before
    assert write(one, record) == read_main(record)


# Who is next


def test_who_waits_comes_before_who_had_it(record, one):
    """Between processes, first come, first served. Two writers stand for them: a flock belongs to an open file."""
    other = Writer(record)
    order: list[str] = []
    gate = os.open(os.path.join(record, layout.LOCAL, "writer.gate"), os.O_RDWR)

    def wait_for_it() -> None:
        with other.locked():
            order.append("other")

    for _ in range(5):
        waiting = threading.Thread(target=wait_for_it)
        with one.locked():
            order.append("one")
            waiting.start()
            until(lambda: not is_free(gate))  # the other one stands at the gate
        with one.locked():
            order.append("one again")
        waiting.join()
    os.close(gate)
    other.close()

    assert order == ["one", "other", "one again"] * 5


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread; fail if it doesn't come."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline


def is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def test_threads_of_one_writer_take_turns(record, one):
    inside: list[int] = []

    def enter() -> None:
        for _ in range(20):
            with one.locked():
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == []


def test_a_child_process_inherits_no_lock(record, one):
    """A lock that lived on in a child would never come free."""
    for descriptor in (one._lock, one._gate):
        assert not os.get_inheritable(descriptor)


# Reading main


@pytest.mark.parametrize("text", ["ref: refs/heads/other\n", "1" * 39, "1" * 41, "G" * 40, "A" * 40])
def test_main_that_is_no_commit_id_is_damage(record, text):
    Path(record, layout.REFERENCE).write_text(text)

    with pytest.raises(RepositoryDamaged, match="which is no commit id"):
        read_main(record)


def test_before_the_first_commit_there_is_no_main(tmp_path):
    assert read_main(str(tmp_path)) is None


def test_packed_references_have_comments_peeled_tags_and_other_names(tmp_path):
    """https://git-scm.com/docs/git-pack-refs"""
    (tmp_path / "packed-refs").write_text(
        "# pack-refs with: peeled fully-peeled sorted \n"
        f"{'1' * 40} refs/heads/a/refs/heads/main\n"
        f"{'2' * 40} refs/heads/main\n"
        f"{'3' * 40} refs/tags/v1\n"
        f"^{'4' * 40}\n"
    )

    assert read_main(str(tmp_path)) == "2" * 40
