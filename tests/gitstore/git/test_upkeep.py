"""Merging packs so that nothing is lost, whatever else is going on. docs/architecture.md, "Maintenance" """

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore import durable
from gitstore.errors import StorageFailed
from gitstore.git import upkeep
from gitstore.git.pack import BLOB, Pack
from gitstore.git.upkeep import PackFile, Storage, Upkeep, count_packs, smallest, storage
from gitstore.git.writer import KEEP_TEXT

Git = Callable[..., str]


def add_pack(record: str, *texts: str) -> str:
    """A pack with these blobs, which no ref reaches; returns its name."""
    pack = Pack()
    for text in texts:
        pack.add(BLOB, text.encode())
    name, pieces, index_bytes = pack.files()
    folder = packs_of(record)
    (folder / f"pack-{name}.pack").write_bytes(b"".join(pieces))
    (folder / f"pack-{name}.idx").write_bytes(index_bytes)
    return name


def packs_of(record: str) -> Path:
    return Path(record, "objects", "pack")


def names(record: str) -> set[str]:
    return {path.stem.removeprefix("pack-") for path in packs_of(record).glob("*.idx")}


def objects(git: Git) -> set[str]:
    return set(git("cat-file", "--batch-all-objects", "--batch-check=%(objectname)", "--unordered").split())


def merge_all(record: str, *, afresh: bool = False) -> Upkeep:
    """All packs into one, by either way."""
    work = Upkeep(record, durable=False)
    if afresh:
        work.merge_all()
    else:
        work.merge([pack for pack in work.packs() if pack.free])
    return work


# Which packs


def pack_files(*sizes: int) -> list[PackFile]:
    return [PackFile(f"{number:040}", size, True) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "merged"),
    [
        ([], []),
        ([5], []),
        ([1, 1], [1, 1]),
        ([1, 2], []),
        ([1, 2, 6], []),
        ([1, 2, 5], [1, 2, 5]),
        ([1, 1, 4, 100], [1, 1]),
        ([100, 1, 4, 1], [1, 1]),
        ([7] * 64, [7] * 64),
        ([7] * 64 + [448, 100_000], [7] * 64 + [448]),
    ],
)
def test_small_packs_are_merged_and_large_ones_left(sizes, merged):
    assert [pack.objects for pack in smallest(pack_files(*sizes))] == merged


@given(st.lists(st.integers(1, 10**6), max_size=300))
def test_what_remains_at_least_triples_from_pack_to_pack(sizes):
    """Each has twice the objects of all smaller ones together, so 64 packs never remain."""
    chosen = {pack.name for pack in smallest(pack_files(*sizes))}
    remaining = sorted(pack.objects for pack in pack_files(*sizes) if pack.name not in chosen)
    total = sum(pack.objects for pack in pack_files(*sizes) if pack.name in chosen)

    for size in remaining:
        assert not total or size >= 2 * total
        total += size
    assert len(remaining) < 30


def test_a_pack_that_may_not_be_merged_is_not_chosen():
    assert smallest([PackFile("a", 1, True), PackFile("b", 1, False)]) == []


def test_packs_are_counted_with_those_that_the_multi_pack_index_covers(record):
    """The two figures that decide what is due."""
    assert count_packs(record) == (1, 0)
    add_pack(record, "a")
    Upkeep(record, durable=False).write_index()
    kept = add_pack(record, "b")
    (packs_of(record) / f"pack-{kept}.keep").write_bytes(KEEP_TEXT)

    assert count_packs(record) == (2, 2)


# Merging


@pytest.mark.parametrize("afresh", [False, True])
def test_every_object_is_in_the_new_pack(record, git, afresh):
    """Also those that nothing reaches, and loose ones: maintenance throws nothing away."""
    git("hash-object", "-w", "--stdin", input="loose")
    for number in range(5):
        add_pack(record, f"text {number}", "in all of them")
    before = objects(git)

    work = merge_all(record, afresh=afresh)
    work.prune_packed()

    assert len(names(record)) == 1
    assert not work.has_loose_objects()
    assert objects(git) == before
    git("fsck", "--full", "--strict")


def test_only_the_chosen_packs_are_merged(record, git):
    first, second, third = (add_pack(record, text) for text in ("a", "b", "c"))
    work = Upkeep(record, durable=False)

    work.merge([pack for pack in work.packs() if pack.name in {first, second}])

    assert third in names(record)
    assert len(names(record)) == 3
    assert not names(record) & {first, second}
    assert git("multi-pack-index", "verify") == ""


@pytest.mark.parametrize("afresh", [False, True])
@pytest.mark.parametrize("kind", ["keep", "promisor", "mtimes"])
def test_a_pack_that_somebody_has_set_apart_stays(record, kind, afresh):
    """`.keep` is git's own word for it; a partial clone's and a cruft pack are marked likewise."""
    name = add_pack(record, "a")
    add_pack(record, "b")
    (packs_of(record) / f"pack-{name}.{kind}").write_bytes(b"")

    merge_all(record, afresh=afresh)

    assert name in names(record)
    assert len(names(record)) == 2


def test_a_pack_that_gets_a_keep_meanwhile_stays(record, git, monkeypatch):
    """Its objects are there twice then, which does no harm."""
    name = add_pack(record, "a")
    write_index = Upkeep.write_index

    def keep_then_write(self, **options):
        (packs_of(record) / f"pack-{name}.keep").write_bytes(b"mine")
        write_index(self, **options)

    monkeypatch.setattr(Upkeep, "write_index", keep_then_write)
    merge_all(record)

    assert name in names(record)


@pytest.mark.parametrize("afresh", [False, True])
def test_a_write_under_way_that_is_undone_takes_nothing_with_it(record, git, afresh):
    """Its pack holds a blob that an older pack holds too. `git repack -ad` would leave the blob to the one with the
    `.keep`, and remove the older pack."""
    add_pack(record, "shared", "a")
    add_pack(record, "b")
    under_way = add_pack(record, "shared", "new")
    (packs_of(record) / f"pack-{under_way}.keep").write_bytes(KEEP_TEXT)
    shared = git("hash-object", "--stdin", input="shared")

    merge_all(record, afresh=afresh)
    assert under_way in names(record)
    for kind in ("idx", "pack", "keep"):
        (packs_of(record) / f"pack-{under_way}.{kind}").unlink()

    assert git("cat-file", "blob", shared) == "shared"
    git("fsck", "--full")


def test_the_multi_pack_index_leaves_out_a_write_under_way(record, git):
    """git looks for an object only in the pack that the index names: were that undone, the object would be missing."""
    add_pack(record, "shared")
    under_way = add_pack(record, "shared", "new")
    (packs_of(record) / f"pack-{under_way}.keep").write_bytes(KEEP_TEXT)

    Upkeep(record, durable=False).write_index()
    for kind in ("idx", "pack", "keep"):
        (packs_of(record) / f"pack-{under_way}.{kind}").unlink()

    assert count_packs(record) == (2, 2)
    assert git("cat-file", "blob", git("hash-object", "--stdin", input="shared")) == "shared"
    assert git("multi-pack-index", "verify") == ""


def test_large_packs_are_left_to_their_own_idx(record, monkeypatch):
    """A multi-pack-index is written whole each time, so it must not grow with the record."""
    monkeypatch.setattr(upkeep, "_LARGE", 20)
    add_pack(record, *(str(number) for number in range(20)))
    add_pack(record, *(str(number) for number in range(100, 119)))

    Upkeep(record, durable=False).write_index()

    assert count_packs(record) == (3, 2)


def test_one_pack_needs_no_multi_pack_index(record):
    add_pack(record, "a")
    work = Upkeep(record, durable=False)
    work.write_index()
    assert (packs_of(record) / "multi-pack-index").exists()

    merge_all(record)

    assert not (packs_of(record) / "multi-pack-index").exists()


# When something fails


def test_where_git_fails_nothing_is_removed(record, git):
    """A lock of a git that still lives, or of one that died lately. Nor is anything there twice afterwards."""
    old = {add_pack(record, text) for text in ("a", "b")}
    before, packs_before = objects(git), names(record)
    (packs_of(record) / "multi-pack-index.lock").touch()
    work = Upkeep(record, durable=False)

    with pytest.raises(StorageFailed, match="multi-pack-index"):
        work.merge([pack for pack in work.packs() if pack.name in old])

    assert names(record) == packs_before
    assert objects(git) == before


def test_a_pack_that_is_none_stops_the_merge(record):
    name = add_pack(record, "a")
    (packs_of(record) / f"pack-{name}.pack").write_bytes(b"")

    with pytest.raises(StorageFailed, match=f"{name}.pack is no pack"):
        merge_all(record)


def test_without_git_it_fails_in_one_line(record, monkeypatch):
    add_pack(record, "a")
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(StorageFailed, match="git can't be run"):
        merge_all(record)


def test_old_packs_go_only_once_the_new_one_is_sure_to_stay(record, monkeypatch):
    """A power cut may lose a rename and keep a removal, unless an fsync of the folder stands between them."""
    add_pack(record, "a")
    events: list[str] = []

    class Noted:
        """The module os, with what is done to the pack folder noted down."""

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def fsync(self, descriptor: int) -> None:
            events.append(f"fsync {os.readlink(f'/proc/self/fd/{descriptor}')}")

        def unlink(self, path: str) -> None:
            events.append(f"unlink {Path(path).suffix or Path(path).name}")
            os.unlink(path)

    failing = Noted()
    for module in (upkeep, durable):
        monkeypatch.setattr(module, "os", failing)
    work = Upkeep(record)
    work.merge([pack for pack in work.packs() if pack.free])

    begin = events.index(f"fsync {packs_of(record)}")
    assert [event for event in events[:begin] if event != "unlink multi-pack-index"] == []
    assert events[begin + 1 : begin + 3] == ["unlink .idx", "unlink .pack"]


# Tidying


def test_what_dead_processes_left_is_removed(record):
    """Temporary files older than an hour, halves of packs, and each `.keep` of ours: under the lock no write needs it."""
    folder = packs_of(record)
    name = add_pack(record, "a")
    old = [
        "tmp_pack_a1B2c3",
        "tmp_idx_x",
        ".tmp-77-pack-1.pack",
        "multi-pack-index.lock",
        f"pack-{'1' * 40}.pack",
    ]
    for file in (*old, "tmp_pack_young", f"pack-{'2' * 40}.pack"):
        (folder / file).touch()
    for file in old:
        os.utime(folder / file, (1000, 1000))
    os.utime(folder / f"pack-{name}.pack", (1000, 1000))
    (folder / f"pack-{name}.keep").write_bytes(KEEP_TEXT)
    (folder / f"pack-{'3' * 40}.keep").write_bytes(b"fetch-pack 1 on host")
    before = set(os.listdir(folder))

    Upkeep(record).remove_leftovers(before=2000.0)

    assert before - set(os.listdir(folder)) == {*old, f"pack-{name}.keep"}
    assert Upkeep(record).leftovers(before=2000.0) == []


def test_an_idx_whose_removal_a_power_cut_took_back_hinders_nothing(record):
    """The pack is gone and its objects are in another one: it is not merged, and after an hour it is removed."""
    name = add_pack(record, "a")
    left = packs_of(record) / f"pack-{'0' * 40}.idx"
    left.write_bytes(left.with_name(f"pack-{name}.idx").read_bytes())
    os.utime(left, (3600.0, 3600.0))

    assert "0" * 40 not in {pack.name for pack in Upkeep(record).packs()}
    Upkeep(record).remove_leftovers(before=3600.0)
    assert left.exists()
    Upkeep(record).remove_leftovers(before=3601.0)
    assert not left.exists()
    assert name in {pack.name for pack in Upkeep(record).packs()}


def test_a_lock_on_the_commit_graph_that_nobody_holds_is_removed(record):
    lock = Path(record, "objects", "info", "commit-graphs", "commit-graph-chain.lock")
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (1000, 1000))

    Upkeep(record).remove_leftovers(before=1000.0)
    assert lock.exists()
    Upkeep(record).remove_leftovers(before=1001.0)

    assert not lock.exists()


# git


@pytest.mark.parametrize("whole", [False, True])
def test_the_commit_graph_knows_the_paths_of_each_commit(record, git, whole):
    """Which makes `git log -- PATH` several times faster; they are the chunk BDAT."""
    Upkeep(record).write_graph(whole=whole)

    graphs = list(Path(record, "objects", "info", "commit-graphs").glob("graph-*.graph"))
    assert len(graphs) == 1
    assert b"BDAT" in graphs[0].read_bytes()[:200]
    git("commit-graph", "verify")


def test_nobodys_git_configuration_matters(record, git, tmp_path, monkeypatch):
    """Not that of the machine, and not that of the repository."""
    hostile = {
        "core.multiPackIndex": "false",
        "core.commitGraph": "false",
        "pack.packSizeLimit": "1m",
        "pack.writeReverseIndex": "true",
    }
    for name, value in hostile.items():
        git("config", name, value)
    for _ in range(2):
        add_pack(record, *(os.urandom(400_000).hex() for _ in range(4)))

    work = merge_all(record, afresh=True)
    assert len(names(record)) == 1
    add_pack(record, "another")
    work.write_index()
    work.write_graph()

    assert count_packs(record) == (2, 2)
    assert not list(packs_of(record).glob("*.rev"))
    assert list(Path(record, "objects", "info", "commit-graphs").glob("*.graph"))


@pytest.mark.parametrize("hurried", [False, True])
def test_git_runs_at_the_lowest_priority_and_holds_the_lock(record, tmp_path, monkeypatch, hurried):
    """So that the server comes first, unless it is about to wait for this, and so that two never work at once, even when
    the first one's parent was killed.
    """
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    script.write_text(
        f"#!/bin/sh\ncat > {tmp_path}/stdin\ncut -d' ' -f19 /proc/self/stat > {tmp_path}/nice\n"
        f"readlink /proc/self/fd/* > {tmp_path}/files; exit 0\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    add_pack(record, "a")

    with (tmp_path / "the.lock").open("w") as lock:
        Upkeep(record, inherited=(lock.fileno(),), hurried=hurried).write_index()

    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert (tmp_path / "nice").read_text() == f"{usual if hurried else 19}\n"
    assert f"{tmp_path}/the.lock" in (tmp_path / "files").read_text().splitlines()


def test_storage_is_what_lies_under_objects(record, git):
    """Packs, and bytes of all files: as `du` counts them."""
    add_pack(record, "a")
    git("hash-object", "-w", "--stdin", input="loose")

    answer = subprocess.run(
        ["find", f"{record}/objects", "-type", "f", "-printf", "%s\n"], capture_output=True, check=True
    )

    assert storage(record) == Storage(2, sum(map(int, answer.stdout.split())))
