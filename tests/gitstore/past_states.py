"""What the tests of the past share: a store that leaves the disk alone, writing into it, and the files of its states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from searches import ADA, id_of

from gitstore import Commit, Delete, Past, Settings, Store, Update
from gitstore.fhir.ids import ResourceId
from gitstore.search.states import FOLDER

UNCHECKED = Settings(durability="off", validation="off", maintenance="off", min_free=1)


def commit(store: Store, writes: list[Any]) -> Commit:
    store.commit(
        [Delete(one) if isinstance(one, ResourceId) else Update(id_of(one), one) for one in writes], ADA
    )
    return store.snapshot().commit


def past(store: Store, commit: Commit | None = None) -> Past:
    """As a commit left it, by default the newest; as long as it takes."""
    return store.past(commit or store.snapshot().commit, patience=None)


def files(store: Store) -> set[str]:
    """The commits of which there is an index."""
    folder = Path(store.git_dir) / "git-fhir" / FOLDER
    return {path.stem for path in folder.glob("*.sqlite")}


def leftovers(record: str) -> list[str]:
    folder = Path(record) / "git-fhir" / FOLDER
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".sqlite" and path.name != "lock")
