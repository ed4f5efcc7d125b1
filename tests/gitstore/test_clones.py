"""Reading a record that is not ours to write: clones with a work tree, read-only folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pygit2
import pytest

from gitstore import RepositoryRefused, Settings, StorageFailed, Store, StoreError, Unit, Update, discover
from gitstore.fhir.ids import ResourceId

PATIENT = ResourceId("Patient", "p")


def update(**elements: object) -> Update:
    return Update(PATIENT, {"resourceType": "Patient", "id": "p", **elements})


@pytest.fixture
def clone(record, store, ada, git_in, tmp_path) -> str:
    """A clone with a work tree, of a record with two versions."""
    store.commit([update()], ada, message="why")
    store.commit([update(active=True)], ada)
    git_in(tmp_path)("clone", "--quiet", record, "clone")
    return str(tmp_path / "clone")


def test_a_clone_with_a_work_tree_is_read(clone, store):
    """It holds the whole record; the index is made at once."""
    with Store.open(discover(clone), Settings()) as read:
        snapshot, original = read.snapshot(), store.snapshot()
        assert snapshot.commit == original.commit
        assert snapshot.history() == original.history()
        assert snapshot.body(snapshot.read(PATIENT)) == original.body(original.read(PATIENT))
        assert read.message(read.resolve("main~1")) == "why"
        assert list(read.verify()) == []
    assert Path(clone, "Patient").is_dir()


def test_a_clone_with_a_work_tree_is_not_written(clone, ada, git_in):
    """Its files would stay behind."""
    head = git_in(clone)("rev-parse", "main")
    with Store.open(discover(clone), Settings()) as read:
        with pytest.raises(RepositoryRefused, match="has a work tree, which a write would leave behind"):
            read.commit([update()], ada)
        [refused] = read.commit_each([Unit([update()], ada)])
        assert isinstance(refused, RepositoryRefused)

    assert git_in(clone)("rev-parse", "main") == head
    assert git_in(clone)("status", "--porcelain") == ""


def test_a_bare_clone_is_a_record_of_its_own(record, store, clone, ada, git_in, tmp_path, clock):
    """Versions are counted on from where it was cloned."""
    git_in(tmp_path)("clone", "--quiet", "--bare", record, "bare.git")

    with Store.open(tmp_path / "bare.git", Settings(durability="off", validation="off"), clock=clock) as copy:
        [outcome] = copy.commit([update()], ada)
        assert outcome.version is not None
        assert outcome.version.version_id == 3
        assert list(copy.verify()) == []
    assert store.snapshot().read(PATIENT).version_id == 2


def test_a_clone_follows_what_is_fetched(clone, store, ada, git_in):
    with Store.open(discover(clone), Settings()) as read:
        assert read.snapshot().read(PATIENT).version_id == 2
    store.commit([update()], ada)
    git_in(clone)("pull", "--quiet", "--ff-only")

    with Store.open(discover(clone), Settings()) as read:
        assert read.snapshot().read(PATIENT).version_id == 3


@pytest.fixture
def unwritable(record, store, clone, tmp_path, monkeypatch) -> Iterator[str]:
    """A bare copy that this process may read and not write; for root, one that belongs to someone else."""
    path = tmp_path / "unwritable.git"
    shutil.copytree(record, path, ignore=shutil.ignore_patterns("git-fhir"))
    paths = [str(path), *(os.path.join(folder, name) for folder, a, b in os.walk(path) for name in a + b)]
    for name in paths:
        os.chmod(name, 0o555 if os.path.isdir(name) else 0o444)
        if os.geteuid() == 0:
            os.chown(name, 4242, 4242)
    (tmp_path / "gitconfig").write_text("[safe]\n\tdirectory = *\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setattr(pygit2.settings, "owner_validation", False)
    yield str(path)
    for name in paths:
        os.chmod(name, 0o755)  # noqa: S103 - of a temporary folder


def test_an_unwritable_record_is_read_through_a_private_index(unwritable, store, ada, tmp_path):
    """Nothing in it changes; the index lies in the user's cache folder, and is used again."""
    before = listing(unwritable)
    for _ in range(2):
        with Store.open(unwritable, Settings(), cache_folder=str(tmp_path / "cache")) as read:
            assert read.snapshot().history() == store.snapshot().history()
            assert list(read.verify()) == []
            read.reindex()
            assert read.snapshot().counts() == {"Patient": 1}
            with pytest.raises(StorageFailed, match="can't be written by this user"):
                read.commit([update()], ada)

    assert listing(unwritable) == before
    assert len(os.listdir(tmp_path / "cache")) == 1


def listing(folder: str) -> list[tuple[str, int]]:
    return sorted(
        (os.path.join(path, name), os.stat(os.path.join(path, name)).st_mtime_ns)
        for path, folders, files in os.walk(folder)
        for name in folders + files
    )


def test_each_record_has_a_private_index_of_its_own(unwritable, tmp_path):
    other = tmp_path / "other.git"
    shutil.copytree(unwritable, other)
    for path in (unwritable, str(other), str(tmp_path / "." / "other.git")):
        if os.geteuid() == 0:
            os.chown(path, 4242, 4242)
        Store.open(path, Settings(), cache_folder=str(tmp_path / "cache")).close()

    assert len(os.listdir(tmp_path / "cache")) == 2


def test_without_a_cache_folder_an_unwritable_record_is_refused(unwritable):
    with pytest.raises(StorageFailed, match="no folder for a private index"):
        Store.open(unwritable, Settings())


def test_a_repository_that_is_no_record_is_refused_in_one_line(tmp_path, git_in):
    """https://hl7.org/fhir/R4 doesn't say; an operator who mistypes a path must see it at once."""
    git = git_in(tmp_path)
    git("init", "--quiet", "-b", "main")
    (tmp_path / "git-fhir.json").write_text('{"format": 1, "fhirVersion": "4.0.1"}')
    git("add", "git-fhir.json")
    git("commit", "--quiet", "-m", "looks like one")

    with pytest.raises(RepositoryRefused, match="holds no git-fhir record: its first commit") as refused:
        Store.open(discover(tmp_path), Settings())

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("path", ["missing", "file"])
def test_a_path_that_leads_nowhere_is_refused_in_one_line(tmp_path, path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(StoreError) as refused:
        Store.open(tmp_path / path, Settings())

    assert isinstance(refused.value, RepositoryRefused)
    assert "\n" not in str(refused.value)


def test_a_record_is_opened_by_a_relative_path(record, monkeypatch):
    monkeypatch.chdir(Path(record).parent)

    with Store.open(Path(record).name) as read:
        assert read.snapshot().commit.sequence == 1
