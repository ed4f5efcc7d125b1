"""The on-disk format, all of it at once: whoever changes a byte of what git-fhir writes changes this id."""

from __future__ import annotations

from pathlib import Path

from gitstore import Store
from gitstore.git.layout import FORMAT
from sample_repo.build import build

HEAD = "1f3890ca111ad5711fd4dd47c60a5e98bcd5b313"
"""A commit's id covers its message, its time, its author, every tree and every file, and all commits before it."""


def test_the_sample_record_has_this_head(tmp_path: Path) -> None:
    """docs/format.md, format 1.

    Once records exist that people keep, a difference here is a new format, not a new literal. Where it is the story
    that has changed: `python -m sample_repo.build --bundle sample_repo/clinic.bundle` prints the new id.
    """
    assert FORMAT == 1
    assert build(tmp_path / "clinic.git") == HEAD


def test_the_head_is_the_same_where_the_index_is_made_from_git_again(tmp_path: Path) -> None:
    """The index is derived: nothing that it holds goes into the record."""
    build(tmp_path / "clinic.git")
    with Store.open(tmp_path / "clinic.git") as store:
        store.reindex()
        assert store.snapshot().commit.id == store.resolve("refs/heads/main").id == HEAD
        assert list(store.verify()) == []
