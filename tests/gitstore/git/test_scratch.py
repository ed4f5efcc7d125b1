"""Bytes on their way to a file: it makes no difference how many of them are in memory."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.durable import storage_error
from gitstore.errors import StorageFailed, StorageFull
from gitstore.git.scratch import Scratch
from gitstore.git.writer import Writer

FEW = 64
"""Bytes in memory, for these tests."""


STEPS = st.lists(st.binary(max_size=2 * FEW) | st.integers(0, 12), max_size=40)
"""Pieces that are put there, and numbers of pieces that are left."""


@given(STEPS)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_each_piece_is_there_until_it_is_cut_off(steps):
    """In its place, and all of them in their order: beside a scratch that has no file."""
    with tempfile.TemporaryDirectory() as folder:
        on_disk, in_memory = Scratch(folder, in_memory=FEW), Scratch()
        pieces: list[bytes] = []
        for step in steps:
            pieces = pieces[:step] if isinstance(step, int) else [*pieces, step]
            for each in (on_disk, in_memory):
                if isinstance(step, int):
                    each.truncate(sum(map(len, pieces)))
                else:
                    each.append(step)
        for each in (on_disk, in_memory):
            assert b"".join(each.pieces()) == b"".join(pieces)
            start = 0
            for piece in pieces:
                assert each.read(start, start + len(piece)) == piece
                start += len(piece)
            each.close()


def test_the_file_has_no_name(tmp_path):
    """Whoever is killed leaves nothing that had to be removed."""
    one = Scratch(str(tmp_path), in_memory=FEW)
    for _ in range(10):
        one.append(b"x" * FEW)

    assert list(tmp_path.iterdir()) == []
    one.close()


def test_what_a_few_write_at_a_time_needs_no_file(tmp_path):
    """The folder isn't even looked at."""
    one = Scratch(str(tmp_path / "nowhere"), in_memory=FEW)
    one.append(b"x" * FEW)

    assert b"".join(one.pieces()) == b"x" * FEW


def test_a_full_disk_is_said_and_what_was_there_stays(tmp_path, monkeypatch):
    """So that the units of work before can still be written."""
    one = Scratch(str(tmp_path), lambda error: storage_error(error, "nothing was written"), FEW)
    one.append(b"a" * FEW)
    one.append(b"b" * FEW)

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StorageFull, match="nothing was written"):
            one.append(b"c" * FEW)

    assert b"".join(one.pieces()) == b"a" * FEW + b"b" * FEW
    one.append(b"d")
    assert b"".join(one.pieces()) == b"a" * FEW + b"b" * FEW + b"d"
    one.close()


def test_a_disk_that_takes_few_bytes_at_a_time_gets_them_all(tmp_path, monkeypatch):
    """https://pubs.opengroup.org/onlinepubs/9699919799/functions/write.html: fewer than were asked for may be written."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, place: real(descriptor, data[:7], place))
    one = Scratch(str(tmp_path), in_memory=FEW)
    pieces = [bytes([number]) * FEW for number in range(5)]
    for piece in pieces:
        one.append(piece)

    assert b"".join(one.pieces()) == b"".join(pieces)
    one.close()


def test_a_file_that_gives_back_less_than_was_written_is_an_error(tmp_path, monkeypatch):
    """A pack of it would have a digest that fits, and objects that don't."""
    one = Scratch(str(tmp_path), lambda error: storage_error(error, "nothing was written"), FEW)
    one.append(b"a" * FEW)
    one.append(b"b")
    monkeypatch.setattr(os, "pread", lambda descriptor, size, place: b"a" * (size - 1))

    with pytest.raises(StorageFailed, match="shorter"):
        list(one.pieces())
    with pytest.raises(StorageFailed, match="shorter"):
        one.read(0, FEW)
    one.close()


def test_a_writer_has_the_file_where_the_pack_will_be(record: str):
    """On the same disk: what has no room there is refused before anything has happened."""
    writer = Writer(record)
    try:
        pack = writer.pack()
        ids = {data: pack.add(3, data) for data in (os.urandom(200_000) for _ in range(9))}

        assert all(pack.data(id) == data for data, id in ids.items())
        assert not list(Path(record, "objects", "pack").glob("tmp*"))
        pack.close()
        assert all(pack.data(id) is None for id in ids.values())
    finally:
        writer.close()
