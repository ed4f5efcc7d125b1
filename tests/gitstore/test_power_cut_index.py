"""A power cut while the index catches up or is made anew: whatever is left of SQLite's files, no answer comes from half an index.

SQLite syncs its log only when it brings it into the database (`synchronous = NORMAL`), and a rebuild syncs nothing at all,
so a cut may leave any beginning of the log, a page of it that was never written, and any of the folder's entries or none.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from power_cut import SAMPLE

from gitstore import Author, Settings, Store, Update
from gitstore.fhir.ids import ResourceId
from gitstore.search.index import Generation

ADA = Author("Ada", "ada@clinic.example")
SETTINGS = Settings(validation="off", maintenance="off")
_LOG_HEADER = 32
_FRAME_HEADER = 24


def write(store: Store, *ids: str) -> None:
    bodies = [{"resourceType": "Patient", "id": id, "gender": "female"} for id in ids]
    units = [Update(ResourceId("Patient", body["id"]), body) for body in bodies]
    store.commit(units, ADA, interaction="transaction" if len(ids) > 1 else None)


def logs(log: bytes, places: int) -> Iterator[bytes]:
    """What may be left of a log, looked at in so many places: https://www.sqlite.org/fileformat2.html#the_write_ahead_log"""
    [page] = struct.unpack(">8xL20x", log[:_LOG_HEADER])
    frame = _FRAME_HEADER + page
    count = (len(log) - _LOG_HEADER) // frame
    yield b""
    for number in range(0, count, 1 if SAMPLE == "all" else max(1, count // places)):
        end = _LOG_HEADER + number * frame
        yield log[:end]
        yield log[: end + frame // 2]
        yield log[:end] + bytes(frame) + log[end + frame :]
    yield log


def check(record: str, clock: Callable[[], int], found: int) -> None:
    """That the whole record is answered from, and can be written."""
    with Store.open(record, SETTINGS, clock=clock) as store:
        assert list(store.verify()) == []
        with store.reading() as snapshot:
            assert snapshot.search(["Patient"], [("gender", "female")]).total == found
        write(store, "after")
        assert list(store.verify()) == []


def index_folder(record: Path) -> Path:
    return record / "git-fhir"


def test_it_catches_up_from_whatever_is_left_of_its_log(record: str, clock, tmp_path: Path) -> None:
    """The commits are in git: what the index has lost it learns again."""
    with Store.open(record, SETTINGS, clock=clock) as store:
        write(store, "a")
    kept = tmp_path / "kept.git"
    with Store.open(record, SETTINGS, clock=clock) as store:
        write(store, "b", "c")
        write(store, "a")
        write(store, "d")
        shutil.copytree(record, kept, symlinks=True)
    [log] = index_folder(kept).glob("*-wal")
    whole = log.read_bytes()
    for left in logs(whole, 4):
        restore(kept, record)
        Path(index_folder(Path(record)), log.name).write_bytes(left)
        check(record, clock, found=4)


def restore(kept: Path, record: str) -> None:
    """As the disk was, without the memory that processes share."""
    shutil.rmtree(record)
    shutil.copytree(kept, record, symlinks=True)
    for shared in index_folder(Path(record)).glob("*-shm"):
        shared.unlink()


def test_half_a_new_index_is_made_anew(
    record: str, clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have taken the place of the old one, and the old one may be gone, before anything of it was on the disk."""
    with Store.open(record, SETTINGS, clock=clock) as store:
        write(store, "a", "b")
        write(store, "c")
        kept, close = tmp_path / "kept.git", Generation.close

        def cut(self: Generation) -> None:
            shutil.copytree(record, kept, symlinks=True)
            close(self)

        monkeypatch.setattr(Generation, "close", cut)
        store.reindex()
        monkeypatch.undo()
    folder = index_folder(kept)
    name = folder.joinpath("index.sqlite").readlink().name
    whole = folder.joinpath(f"{name}-wal").read_bytes()
    here = index_folder(Path(record))

    for left in logs(whole, 2):
        for database in (folder.joinpath(name).read_bytes(), b"", None):
            restore(kept, record)
            (here / f"{name}-wal").write_bytes(left)
            if database is None:
                (here / name).unlink()
            else:
                (here / name).write_bytes(database)
            check(record, clock, found=3)
    for link in (None, "index-1.sqlite"):
        restore(kept, record)
        with suppress(FileNotFoundError):
            (here / "index.sqlite").unlink()
        if link is not None:
            (here / "index.sqlite").symlink_to(link)
        check(record, clock, found=3)
