"""/ready: whether requests should come here, and by which check if not. docs/operations.md, "Watching it" """

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gitstore import ANONYMOUS, StorageFailed, Store, Update
from gitstore.fhir.ids import ResourceId

CHECKS = {"record", "clock", "index", "disk", "maintenance", "writer"}
SECOND = 1_000_000


def git(repository: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", repository, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def unavailable(client) -> set[str]:
    """The names of the checks that fail."""
    response = client.get("/ready")
    checks = response.json["checks"]
    failed = {name for name, state in checks.items() if state == "unavailable"}
    assert response.status_code == (503 if failed else 200)
    assert response.json["status"] == ("unavailable" if failed else "ok")
    assert set(checks.values()) <= {"ok", "unavailable"}
    return failed


@pytest.fixture
def foreign(repository):
    """Puts a commit on main that the store did not make."""

    def make():
        commit = git(repository, "commit-tree", "main^{tree}", "-p", "main", "-m", "by hand")
        git(repository, "update-ref", "refs/heads/main", commit)

    return make


def test_a_sound_record_is_ready(client, patient):
    """200, each check by name, under any name of the host, and not for keeping."""
    client.put("Patient/example", patient)

    response = client.get("/ready", Host="10.0.0.1")

    assert response.status_code == 200
    assert response.json == {"status": "ok", "checks": dict.fromkeys(CHECKS, "ok")}
    assert response.headers["Content-Type"] == "application/json"
    assert "no-cache" in response.headers["Cache-Control"]


def test_a_foreign_commit_makes_it_unready(client, foreign, repository):
    """Writes fail until somebody adopts it or moves main back."""
    before = git(repository, "rev-parse", "main")
    foreign()
    assert unavailable(client) == {"index"}

    git(repository, "update-ref", "refs/heads/main", before)
    assert unavailable(client) == set()


def test_a_foreign_commit_that_will_be_adopted_does_not(make_client, repository, settings, clock, foreign):
    """fhir.foreignCommits = adopt: the next write takes it over."""
    settings = replace(settings, foreign_commits="adopt")
    with Store.open(repository, settings, clock=clock) as store:
        foreign()
        assert unavailable(make_client(settings, store)) == set()


def test_what_keeps_a_foreign_commit_from_being_adopted_does(
    make_client, repository, settings, clock, tmp_path
):
    """A file that is no resource."""
    settings = replace(settings, foreign_commits="adopt")
    with Store.open(repository, settings, clock=clock) as store:
        client = make_client(settings, store)
        git(tmp_path, "clone", "--quiet", str(repository), "clone")
        (tmp_path / "clone" / "notes.txt").write_text("to do")
        git(tmp_path / "clone", "add", ".")
        git(tmp_path / "clone", "commit", "--quiet", "-m", "Notes")
        git(tmp_path / "clone", "push", "--quiet", "origin", "HEAD:main")
        assert client.put("Patient/example", {"resourceType": "Patient", "id": "example"}).status_code == 503

        assert unavailable(client) == {"index"}


@pytest.fixture
def ahead(repository, settings, clock, tmp_path):
    """Moves main on by a commit of git-fhir that the index has not seen: its writer has died in between."""

    def make():
        git(tmp_path, "clone", "--quiet", "--bare", str(repository), "other.git")
        with Store.open(tmp_path / "other.git", settings, clock=clock) as other:
            resource_id = ResourceId("Patient", "elsewhere")
            other.commit([Update(resource_id, {"resourceType": "Patient", "id": "elsewhere"})], ANONYMOUS)
        git(tmp_path / "other.git", "push", "--quiet", str(repository), "main")

    return make


def test_commits_that_the_index_has_not_seen_go_there(client, ahead):
    """They are ours, so the record is ready once they are."""
    ahead()
    assert client.get("Patient/elsewhere").status_code == 404

    assert unavailable(client) == set()

    assert client.get("Patient/elsewhere").status_code == 200


def test_it_does_not_wait_for_whoever_writes(client, ahead, store):
    """Main is ahead of the index in the middle of every write."""
    with store._writer.locked():
        ahead()
        assert unavailable(client) == set()


@pytest.mark.parametrize("name", ["writer.gate", "writer.lock"])
def test_nor_for_another_process(client, ahead, repository, name):
    """Whether that has the lock, or waits for it."""
    other = os.open(repository / "git-fhir" / name, os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    ahead()
    assert unavailable(client) == set()
    assert client.get("Patient/elsewhere").status_code == 404, "it is not our turn to catch up"
    os.close(other)

    assert unavailable(client) == set()
    assert client.get("Patient/elsewhere").status_code == 200


def test_a_record_ahead_of_the_clock_is_not_ready(client, clock, patient):
    """Five minutes are tolerated."""
    client.put("Patient/example", patient)
    clock.forward(-300)
    assert unavailable(client) == set()

    clock.forward(-1)
    assert unavailable(client) == {"clock"}


def test_too_little_room_on_the_disk_is_not_ready(make_client, repository, settings, clock):
    """fhir.minFree"""
    settings = replace(settings, min_free=2**61)
    with Store.open(repository, settings, clock=clock) as store:
        assert unavailable(make_client(settings, store)) == {"disk"}


def test_maintenance_may_take_an_hour(client, clock, repository):
    lock = os.open(repository / "git-fhir" / "maintenance.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.utime(lock, (clock.now / SECOND, clock.now / SECOND))
    clock.forward(3600)
    assert unavailable(client) == set()

    clock.forward(1)
    assert unavailable(client) == {"maintenance"}

    os.close(lock)
    assert unavailable(client) == set()


def test_another_gits_lock_is_in_the_way_of_writes(client, clock, repository):
    """After fhir.lockTimeout, which is what a write waits for it."""
    lock = repository / "refs" / "heads" / "main.lock"
    lock.write_text("")
    os.utime(lock, (clock.now / SECOND, clock.now / SECOND))
    clock.forward(10)
    assert unavailable(client) == set()

    clock.forward(1)
    assert unavailable(client) == {"writer"}


def test_a_write_that_the_disk_refused_makes_it_unready_for_a_while(client, store, patient):
    """Until one succeeds; or until its time is over, because nobody writes to what is not ready."""
    store.vitals.wrote(StorageFailed("Input/output error"))
    assert unavailable(client) == {"writer"}

    client.put("Patient/example", patient)
    assert unavailable(client) == set()


def test_a_writer_that_does_not_get_on_is_not_ready(client, store, patient):
    """The lock is held by somebody who never lets go."""
    with store._writer.locked():
        thread = threading.Thread(target=client.put, args=("Patient/example", patient))
        thread.start()
        while not store._queue.busy_for():
            thread.join(0.001)
        assert unavailable(client) == set()

        store.vitals.patience = 0
        assert unavailable(client) == {"writer"}
    thread.join()
    end = time.monotonic() + 60
    while store._queue.busy_for():  # it answers before it is done with the group
        assert time.monotonic() < end
    assert unavailable(client) == set()


def test_the_reasons_stand_in_the_log_alone(client, foreign, caplog):
    """Whoever asks learns the name of the check; the log has the rest, once, and that it is over."""
    foreign()

    first = client.get("/ready")
    client.get("/ready")

    assert "by hand" not in first.text
    [line] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert line.getMessage() == "not ready"
    assert "was not made by git-fhir" in line.fields["checks"]["index"]


def test_other_methods_are_refused(client):
    assert client.request("HEAD", "/ready").status_code == 200
    assert client.post("/ready", {}).headers["Allow"] == "GET, HEAD, OPTIONS"
