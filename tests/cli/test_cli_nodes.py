"""`git fhir promote` and `git fhir replication` on a node whose hub is a folder. docs/scaling.md, docs/failover.md"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import GRACE, git, head

OTHER = "http://10.0.0.2:8080"


@pytest.fixture
def replica(clinic: Path, tmp_path: Path) -> Path:
    """The clinic as a replica of a hub that has all of it."""
    git(clinic, "clone", "--quiet", "--bare", str(clinic), str(tmp_path / "hub.git"))
    git(clinic, "config", "fhir.hub", str(tmp_path / "hub.git"))
    role = {"role": "replica", "since": "2026-01-01T00:00:00.000000Z", "why": "started as one"}
    (folder_of(clinic) / "role").write_text(json.dumps(role))
    return clinic


def folder_of(record: Path) -> Path:
    return Path(git(record, "rev-parse", "--absolute-git-dir").strip()) / "git-fhir"


def role_of(record: Path) -> str:
    return str(json.loads((folder_of(record) / "role").read_text())["role"])


def test_a_replica_is_promoted_by_who_git_says(git_fhir, replica, tmp_path):
    """By a commit that the hub has, too."""
    result = git_fhir("promote", "-m", "The other machine is being serviced.")

    assert (result.stdout, result.exit_code) == (f"{head(replica)} this node is the primary\n", 0)
    assert role_of(replica) == "primary"
    assert head(tmp_path / "hub.git") == head(replica)
    said = git(replica, "log", "-1", "--format=%an: %b", "main")
    assert said.startswith(f"{GRACE.name}: The other machine is being serviced.")
    assert git_fhir("replication").stdout.startswith("primary since ")


def test_what_a_lease_would_undo_is_refused(git_fhir, replica):
    """While another node holds it; nothing has happened then, and it is said what to do instead."""
    git(replica, "config", "fhir.etcd", "http://127.0.0.1:1")
    (folder_of(replica) / "primary").write_text(f"{OTHER}\n")
    tip = head(replica)

    refused = git_fhir("promote")

    assert (refused.exit_code, refused.stdout) == (1, "")
    [line] = refused.stderr.splitlines()
    assert line.startswith(f"git-fhir: {OTHER} holds the lease")
    assert "stop the server there" in line
    assert (role_of(replica), head(replica)) == ("replica", tip)
    assert git_fhir("promote", "--despite-lease").exit_code == 0
    assert role_of(replica) == "primary"


def test_where_nobody_is_known_to_hold_the_lease_a_person_may_promote(git_fhir, replica):
    git(replica, "config", "fhir.etcd", "http://127.0.0.1:1")

    assert git_fhir("promote").exit_code == 0


def test_what_a_lease_said_before_etcd_was_given_up_is_no_obstacle(git_fhir, replica):
    """The file that names the primary is taken away when the server is next started; nobody has to wait for that."""
    (folder_of(replica) / "primary").write_text(f"{OTHER}\n")

    assert git_fhir("promote").exit_code == 0


def test_a_record_of_one_node_can_t_be_promoted(git_fhir, clinic):
    refused = git_fhir("promote")

    assert refused.exit_code == 1
    assert "git config fhir.hub URL" in refused.stderr
