"""What is ready for the hub: the packs of the last groups, joined to one, or nothing that git would not do better."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.git import outbox as module
from gitstore.git.outbox import FILES, Outbox
from gitstore.git.pack import BLOB, Pack
from gitstore.git.repository import git_environment, run_git

Put = Callable[..., set[str]]


@pytest.fixture
def git_dir(tmp_path: Path) -> Path:
    path = tmp_path / "record.git"
    run_git(["init", "--quiet", "--bare", str(path)])
    (path / "git-fhir").mkdir()
    return path


@pytest.fixture
def outbox(git_dir: Path) -> Outbox:
    return Outbox(str(git_dir))


def id(number: int) -> str:
    """Of a commit; the outbox doesn't look at any."""
    return f"{number:040x}"


def put(outbox: Outbox, number: int, *blobs: bytes) -> None:
    """The group that leads from the commit `number` to the next."""
    pack = Pack()
    for blob in blobs or (b"%d" % number, b"more of %d" % number):
        pack.add(BLOB, blob)
    outbox.put(id(number), id(number + 1), pack)


def blobs(pack: bytes, git_dir: Path) -> list[str]:
    """What git finds in a pack."""
    command = ["git", "--git-dir", str(git_dir), "index-pack", "--strict", "--stdin"]
    subprocess.run(command, input=pack, check=True, capture_output=True, env=git_environment())
    names = list((git_dir / "objects" / "pack").glob("*.idx"))
    with names[0].open("rb") as file:
        shown = subprocess.run(
            ["git", "show-index"], stdin=file, check=True, capture_output=True, text=True
        ).stdout
    ids = [line.split()[1] for line in shown.splitlines()]
    return [run_git(["--git-dir", str(git_dir), "cat-file", "blob", one]) for one in ids]


def test_groups_become_one_pack_that_git_takes(outbox: Outbox, git_dir: Path) -> None:
    for number in range(5):
        put(outbox, number)
    pack = outbox.pack(id(1), id(4))
    assert pack is not None
    assert sorted(blobs(pack, git_dir)) == ["1", "2", "3", "more of 1", "more of 2", "more of 3"]


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 900), min_size=1, max_size=30), chance=st.data())
def test_the_last_groups_are_always_there(
    sizes: list[int], chance: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As many as fit into one file, and never any that doesn't belong there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FULL", 2000)
        folder = tmp_path_factory.mktemp("outbox")
        (folder / "git-fhir").mkdir()
        outbox = Outbox(str(folder))
        for number, size in enumerate(sizes):
            put(outbox, number, b"%d:" % number + os.urandom(size))
        first = chance.draw(st.integers(0, len(sizes) - 1))
        last = chance.draw(st.integers(first + 1, len(sizes)))
        pack = outbox.pack(id(first), id(last))
        if pack is not None:
            assert int.from_bytes(pack[8:12], "big") == last - first
        else:
            assert sum(size + 150 for size in sizes[first:]) > 2000


def test_what_is_not_there_is_left_to_git(outbox: Outbox) -> None:
    assert outbox.pack(id(0), id(1)) is None
    put(outbox, 0)
    assert outbox.pack(id(7), id(1)) is None
    assert outbox.pack(id(0), id(7)) is None
    assert outbox.pack(id(1), id(1)) is None


def test_a_group_that_is_large_is_left_to_git(outbox: Outbox) -> None:
    put(outbox, 0, os.urandom(600_000))
    put(outbox, 1)
    assert outbox.pack(id(0), id(2)) is None
    assert outbox.pack(id(1), id(2)) is not None


def test_an_object_that_two_groups_have_is_left_to_git(outbox: Outbox) -> None:
    """A hub with receive.fsckObjects refuses a pack that has an object twice."""
    put(outbox, 0, b"once", b"as it was")
    put(outbox, 1, b"other")
    put(outbox, 2, b"as it was")
    assert outbox.pack(id(0), id(3)) is None
    assert outbox.pack(id(1), id(3)) is not None


def test_what_a_full_disk_has_cut_off_hides_nothing_that_follows(outbox: Outbox, git_dir: Path) -> None:
    put(outbox, 0)
    file = git_dir / FILES[0]
    put(outbox, 1)
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 3)
    put(outbox, 2)
    put(outbox, 3)
    assert outbox.pack(id(0), id(1)) is not None
    assert outbox.pack(id(1), id(2)) is None
    assert outbox.pack(id(2), id(4)) is not None


@pytest.mark.parametrize("place", [-1, -20, 70])
def test_what_has_changed_on_the_disk_is_not_sent(outbox: Outbox, git_dir: Path, place: int) -> None:
    put(outbox, 0)
    file = git_dir / FILES[0]
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    assert outbox.pack(id(0), id(1)) is None


def test_damage_that_leads_in_a_circle_comes_to_an_end(outbox: Outbox) -> None:
    """No commit builds on itself; bytes on a disk may say so."""
    for old, new in ((2, 3), (3, 2)):
        outbox.put(id(old), id(new), Pack())
    assert outbox.pack(id(1), id(3)) is None


def test_a_disk_that_refuses_takes_nothing_from_who_writes(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group is in the record before: git packs it for the hub."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        put(outbox, 0)
    put(outbox, 1)
    assert outbox.pack(id(0), id(2)) is None
    assert outbox.pack(id(1), id(2)) is not None


def test_nobody_else_may_read_it(outbox: Outbox, git_dir: Path) -> None:
    put(outbox, 0)
    assert (git_dir / FILES[0]).stat().st_mode & 0o77 == 0
