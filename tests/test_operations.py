"""What docs/operations.md says about backup and restore, done."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gitstore import Author, Store, Update
from gitstore.fhir.ids import ResourceId

PATIENT = ResourceId("Patient", "example")


def git(*arguments: object) -> str:
    result = subprocess.run(["git", *map(str, arguments)], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def write(store: Store, author: Author, mark: str) -> int:
    body = {"resourceType": "Patient", "id": "example", "language": mark}
    [outcome] = store.commit([Update(PATIENT, body)], author)
    assert outcome.version is not None
    return outcome.version.version_id


def test_a_mirror_that_is_fetched_now_and_then_restores_the_record(
    store: Store, record: str, ada: Author, tmp_path: Path
) -> None:
    """Backup beside a living server; the restored record is sound, equal, and goes on where it ended."""
    backup, restored = tmp_path / "backup.git", tmp_path / "restored.git"
    write(store, ada, "one")
    git("clone", "--quiet", "--mirror", record, backup)
    write(store, ada, "two")
    git("-C", backup, "fetch", "--quiet", "--prune")
    write(store, ada, "three")

    git("-C", backup, "fsck", "--full")
    git("clone", "--quiet", "--bare", backup, restored)

    assert git("-C", restored, "rev-parse", "main") == git("-C", record, "rev-parse", "main~1")
    with Store.open(restored) as other:
        assert list(other.verify()) == []
        version = other.snapshot().read(PATIENT)
        assert other.snapshot().body(version) == store.snapshot().body(
            store.snapshot().version(PATIENT, version.version_id)
        )
        assert write(other, ada, "four") == 3
