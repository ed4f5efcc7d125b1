"""Several nodes of one record around a hub: who pushes, who follows, who is fenced, and what becomes of its commits. docs/scaling.md"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import START, UNCHECKED, Clock

from gitstore import (
    Author,
    Conflict,
    Fenced,
    HubUnreachable,
    NotReplicated,
    Purgeable,
    ReadOnly,
    RepositoryDamaged,
    RepositoryRefused,
    Settings,
    Store,
    Update,
    durable,
    init,
)
from gitstore.cluster import cluster as cluster_module
from gitstore.cluster import state as state_module
from gitstore.cluster.cluster import Cluster
from gitstore.fhir.ids import ResourceId
from gitstore.git import hub as hub_module
from gitstore.git import writer as writer_module
from gitstore.git.writer import boot_id

ADA = Author("Ada", "ada@clinic.example")
ASYNC = replace(UNCHECKED, hub_timeout=20.0, poll_interval=3600.0)
SYNC = replace(ASYNC, replication="sync")


def git(*arguments: str, at: Path) -> str:
    command = ["git", "--git-dir", str(at), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Nodes:
    """A hub, and nodes around it whose threads sleep: `turn` does what they would do."""

    def __init__(self, folder: Path, clock: Clock, opened: ExitStack) -> None:
        self.folder = folder
        self.hub = folder / "hub.git"
        self.clock = clock
        self._opened = opened
        subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(self.hub)], check=True)
        git("config", "receive.denyNonFastForwards", "true", at=self.hub)

    def first(self, settings: Settings = ASYNC) -> Store:
        """The node with which it begins: a record, and the hub has it."""
        init(self.folder / "first.git", clock=self.clock)
        store = self.open("first", settings)
        turn(store)
        return store

    def clone(self, name: str, settings: Settings = ASYNC) -> Store:
        """A replica: a clone of the hub."""
        command = ["git", "clone", "--quiet", "--bare", str(self.hub), str(self.folder / f"{name}.git")]
        subprocess.run(command, check=True)
        store = self.open(name, settings)
        cluster(store).follow()
        turn(store)
        return store

    def open(self, name: str, settings: Settings) -> Store:
        settings = settings if settings.hub else replace(settings, hub=str(self.hub))
        store = Store.open(self.folder / f"{name}.git", settings, clock=self.clock)
        # Only those who wait for git are in a hurry here.
        cluster(store)._hub._timeout = cluster(store)._hub._patience = 60.0
        return self._opened.enter_context(store)

    def main(self, at: Path | Store | None = None) -> str:
        path = at if isinstance(at, Path) else Path(at.git_dir) if at is not None else self.hub
        return git("rev-parse", "refs/heads/main", at=path)


@pytest.fixture
def nodes(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setattr(Cluster, "_begin", lambda self: None)
    with ExitStack() as opened:
        yield Nodes(tmp_path, clock, opened)


def cluster(store: Store) -> Cluster:
    assert store.cluster is not None
    return store.cluster


def turn(store: Store) -> None:
    cluster(store)._turn(asked=True)


def write(store: Store, id: str, mark: str = "x", author: Author = ADA) -> str:
    """An update, and the commit that it is."""
    body = {"resourceType": "Patient", "id": id, "language": mark}
    [outcome] = store.commit([Update(ResourceId("Patient", id), body)], author)
    assert outcome.version is not None
    return outcome.version.commit.id


def marks(store: Store) -> dict[str, bytes]:
    """Every current resource with what it says."""
    with store.reading() as snapshot:
        found = {}
        for type in ("Patient", "Practitioner"):
            for version in snapshot.history(type, count=1000).versions:
                newest = snapshot.newest(version.resource_id)
                if newest is not None and newest.blob is not None:
                    found[str(version.resource_id)] = snapshot.body(newest)
        return found


def diverged(store: Store) -> list[str]:
    refs = git("for-each-ref", "--format=%(objectname)", "refs/git-fhir/diverged", at=Path(store.git_dir))
    return refs.split()


def is_clean(store: Store) -> bool:
    return list(store.verify()) == []


# Pushing and following


def test_what_the_primary_writes_is_at_the_hub_after_its_next_turn(nodes: Nodes) -> None:
    store = nodes.first()
    assert nodes.main() == nodes.main(store)
    write(store, "a")
    last = write(store, "b")
    assert (cluster(store).status().pending, nodes.main() == last) == (2, False)
    turn(store)
    assert (cluster(store).status().pending, nodes.main() == last) == (0, True)


def test_how_long_the_hub_lacks_a_commit_is_told(nodes: Nodes) -> None:
    store = nodes.first()
    assert cluster(store).status().seconds == 0
    write(store, "a")
    nodes.clock.now += 42_000_000
    assert 42 <= cluster(store).status().seconds < 50


def test_a_replica_has_what_the_hub_has_and_finds_it_by_search(nodes: Nodes) -> None:
    primary, replica = nodes.first(), nodes.clone("second")
    last = write(primary, "a", "de")
    turn(primary)
    assert not replica.wait_for(last, 0)
    turn(replica)
    assert replica.wait_for(last, 0)
    assert replica.snapshot().commit.id == last == nodes.main(replica)
    assert marks(replica) == marks(primary)
    assert is_clean(replica)


def test_a_call_that_another_process_of_the_node_took_is_none_to_this_one(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are woken by it. Were each to look at the hub, the next call would find them at it."""
    nodes.first()
    replica = cluster(nodes.clone("second"))
    replica.wake()
    with monkeypatch.context() as patched:
        patched.setattr(replica._state, "heard", lambda: False)
        assert not replica._is_called()
    assert replica._is_called()


def test_what_is_new_at_the_hub_is_found_without_a_walk_over_all_history(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes milliseconds for each ten thousand commits, at each look."""
    primary, replica = nodes.first(), nodes.clone("second")
    first = nodes.main()
    write(primary, "a")
    for store in (primary, replica):
        turn(store)
    last = write(primary, "b")
    turn(primary)
    asked = []
    contains = replica._repository.contains
    monkeypatch.setattr(replica._repository, "contains", lambda *ids: asked.append(ids[0]) or contains(*ids))
    turn(replica)
    assert replica.wait_for(last, 0)
    assert first not in asked


@pytest.mark.parametrize(("taken", "pause"), [(0.02, 0.02), (0.03, 0.03), (0.08, 0.02), (0.2, 0)])
def test_a_push_is_followed_by_as_long_a_pause_as_it_took_up_to_a_tenth_of_a_second_in_all(
    taken: float, pause: float, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = nodes.first()
    node = cluster(record)
    now = [time.monotonic_ns()]
    push = node._hub.push

    def slow(commit: str, after: str | None) -> bool:
        now[0] += int(taken * 1e9)
        return push(commit, after)

    monkeypatch.setattr(cluster_module, "ticks", lambda: now[0])
    monkeypatch.setattr(node._hub, "push", slow)
    now[0] += 10**9
    write(record, "a")
    assert node._turn(asked=True, spaced=True) == 0
    assert node._turn(asked=True, spaced=True) == pytest.approx(pause)


def test_a_replica_writes_nothing(nodes: Nodes) -> None:
    nodes.first()
    replica = nodes.clone("second")
    with pytest.raises(ReadOnly, match=r"This node is a replica \(started as one\); the primary writes"):
        write(replica, "a")
    with pytest.raises(ReadOnly):
        replica.adopt()
    assert nodes.main(replica) == nodes.main()


def test_tags_go_along(nodes: Nodes) -> None:
    primary, replica = nodes.first(), nodes.clone("second")
    write(primary, "a")
    primary.add_tag("frozen", primary.snapshot().commit, ADA, "for the paper")
    turn(primary)
    turn(replica)
    assert git("tag", "--list", at=Path(replica.git_dir)) == "frozen"


def test_a_hub_that_lost_its_last_commits_gets_them_again_and_no_replica_goes_back(nodes: Nodes) -> None:
    """As after a backup was put back."""
    primary, replica = nodes.first(), nodes.clone("second")
    before = nodes.main()
    last = write(primary, "a")
    turn(primary)
    turn(replica)
    git("update-ref", "refs/heads/main", before, at=nodes.hub)
    turn(replica)
    assert nodes.main(replica) == last
    write(primary, "b")
    turn(primary)
    turn(replica)
    assert nodes.main() == nodes.main(primary) == nodes.main(replica)
    assert diverged(replica) == diverged(primary) == []


def test_a_hub_that_cant_be_reached_keeps_nothing_from_being_written(nodes: Nodes) -> None:
    store = nodes.first()
    nodes.hub.rename(nodes.folder / "elsewhere.git")
    write(store, "a")
    with pytest.raises(HubUnreachable, match="does not appear to be a git repository"):
        turn(store)
    assert cluster(store).role == "primary"
    (nodes.folder / "elsewhere.git").rename(nodes.hub)
    turn(store)
    assert nodes.main() == nodes.main(store)


def test_a_hub_that_refuses_for_a_reason_of_its_own_fences_nobody(nodes: Nodes) -> None:
    store = nodes.first()
    hook = nodes.hub / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    write(store, "a")
    with pytest.raises(HubUnreachable, match="pre-receive hook declined"):
        turn(store)
    assert (cluster(store).role, diverged(store)) == ("primary", [])


def test_the_hub_of_another_record_is_not_taken_for_ours(nodes: Nodes) -> None:
    """A wrong URL must neither mix two records nor put one in the place of the other."""
    store = nodes.first()
    init(nodes.folder / "other.git", clock=Clock(START + 5_000_000))
    mine = nodes.main(store)
    for name, role in (("first", "primary"), ("second", "replica")):
        if name == "second":
            nodes.clone(name)
        lost = nodes.open(name, replace(ASYNC, hub=str(nodes.folder / "other.git")))
        with pytest.raises(HubUnreachable, match="The hub holds another record"):
            turn(lost)
        assert (cluster(lost).role, nodes.main(lost), diverged(lost)) == (role, mine, [])


def test_a_hub_without_main_gets_it_from_the_primary_and_gives_a_replica_nothing(nodes: Nodes) -> None:
    init(nodes.folder / "first.git", clock=nodes.clock)
    shutil.copytree(nodes.folder / "first.git", nodes.folder / "copy.git")
    replica = nodes.open("copy", ASYNC)
    cluster(replica)._state.become("replica", "a test", START)
    with pytest.raises(HubUnreachable, match="no branch main yet"):
        turn(replica)
    primary = nodes.open("first", ASYNC)
    turn(primary)
    turn(replica)
    assert nodes.main() == nodes.main(primary) == nodes.main(replica)


# Sync


def test_in_sync_a_write_is_answered_when_the_hub_has_it(tmp_path: Path, clock: Clock) -> None:
    with ExitStack() as opened:
        nodes = Nodes(tmp_path, clock, opened)
        store = nodes.first(SYNC)
        assert write(store, "a") == nodes.main()
        units = [
            store.commit([Update(ResourceId("Patient", "a"), {"resourceType": "Patient", "id": "a"})], ADA)
        ]
        assert units[0][0].version is not None
        assert units[0][0].version.commit.id == nodes.main()


def test_in_sync_a_write_that_the_hub_does_not_confirm_is_told_so(nodes: Nodes) -> None:
    """It is neither lost nor certain: 504, and never 503, which says that nothing was written."""
    store = nodes.first(replace(SYNC, hub_timeout=0.05))
    with pytest.raises(NotReplicated, match="the hub has not confirmed it in time"):
        write(store, "a")
    turn(nodes.open("first", SYNC))
    assert nodes.main() == nodes.main(store)


def test_in_sync_nothing_more_is_written_while_the_hub_is_known_to_be_away(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """504 says that a write may have happened: one is enough. And who waits holds a thread."""
    store = nodes.first(SYNC)
    monkeypatch.setattr(cluster(store), "_failing_since", time.monotonic() - 21)
    before = store.snapshot().commit
    with pytest.raises(HubUnreachable, match="nothing was written"):
        write(store, "a")
    assert store.snapshot().commit == before
    nodes.hub.rename(nodes.folder / "elsewhere.git")
    monkeypatch.setattr(cluster(store), "_failing_since", None)
    monkeypatch.setattr(cluster(store), "published", lambda: setattr(cluster(store), "_failing_since", -1e9))
    with pytest.raises(NotReplicated):
        write(store, "a")


def test_in_sync_what_the_hub_refused_was_not_written(nodes: Nodes) -> None:
    first, second = nodes.first(replace(SYNC, hub_timeout=0.05)), nodes.clone("second")
    cluster(second).promote(ADA, "")
    with pytest.raises(NotReplicated):
        write(first, "a")
    commit = first.snapshot().commit
    with pytest.raises(NotReplicated):
        cluster(first).confirm(commit)
    turn(first)
    with pytest.raises(
        Fenced, match=f"Another node has become the primary: {commit.id} is not on the record"
    ):
        cluster(first).confirm(commit)
    cluster(first).confirm(first.snapshot().commit)


def test_a_push_whose_answer_was_lost_is_confirmed_even_after_another_took_over(nodes: Nodes) -> None:
    """503 would say that it didn't happen."""
    first, second = nodes.first(replace(SYNC, hub_timeout=0.05)), nodes.clone("second")
    with pytest.raises(NotReplicated):
        write(first, "a")
    mine = first.snapshot().commit
    git("push", "--quiet", str(nodes.hub), "refs/heads/main", at=Path(first.git_dir))
    turn(second)
    cluster(second).promote(ADA, "")
    turn(first)
    assert cluster(first).role == "replica"
    cluster(first).confirm(mine)
    assert diverged(first) == []


# Who is primary


def test_promotion_is_a_commit_without_versions_that_says_why(nodes: Nodes) -> None:
    first, second = nodes.first(), nodes.clone("second")
    write(first, "a")
    turn(first)
    commit = cluster(second).promote(ADA, "The other machine is on fire.")
    assert commit.id == nodes.main() == nodes.main(second)
    assert (commit.interaction, commit.author, commit.sequence) == ("promote", ADA, 3)
    assert second.message(commit) == "The other machine is on fire."
    assert (cluster(second).role, is_clean(second)) == ("primary", True)
    assert write(second, "b") != commit.id


def test_of_two_replicas_that_are_promoted_one_is(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes.first()
    second, third = nodes.clone("second"), nodes.clone("third")
    push = hub_module.Hub.push

    def late(self: hub_module.Hub, commit: str) -> bool:
        monkeypatch.setattr(hub_module.Hub, "push", push)
        cluster(third).promote(ADA, "")
        return push(self, commit)

    monkeypatch.setattr(hub_module.Hub, "push", late)
    with pytest.raises(Conflict, match="Another node was faster"):
        cluster(second).promote(ADA, "")
    assert (cluster(second).role, cluster(third).role) == ("replica", "primary")
    turn(second)
    assert nodes.main() == nodes.main(second) == nodes.main(third)
    assert diverged(second) == []
    assert is_clean(second)


def test_the_primary_cant_be_promoted(nodes: Nodes) -> None:
    with pytest.raises(Conflict, match="is the primary already"):
        cluster(nodes.first()).promote(ADA, "")


def test_a_primary_whose_push_is_refused_stops_writing_keeps_its_own_and_follows(nodes: Nodes) -> None:
    first, second = nodes.first(), nodes.clone("second")
    write(first, "both", "before")
    turn(first)
    turn(second)
    mine = write(first, "both", "mine")
    cluster(second).promote(ADA, "")
    write(second, "both", "theirs")
    turn(second)
    turn(first)
    assert cluster(first).role == "replica"
    with pytest.raises(ReadOnly, match="another node has become the primary"):
        write(first, "both")
    assert diverged(first) == [mine]
    assert nodes.main(first) == nodes.main(second) == nodes.main()
    assert marks(first) == marks(second)
    assert b"theirs" in marks(first)["Patient/both"]
    assert is_clean(first)


def test_what_has_diverged_is_at_the_hub_and_with_every_node(nodes: Nodes) -> None:
    first, second = nodes.first(), nodes.clone("second")
    mine = write(first, "a")
    cluster(second).promote(ADA, "")
    turn(first)
    cluster(second).fetch_diverged()
    assert diverged(first) == diverged(second) == [mine]


def test_an_idle_primary_learns_that_it_is_none_any_more(nodes: Nodes) -> None:
    first, second = nodes.first(replace(ASYNC, poll_interval=1e-6)), nodes.clone("second")
    cluster(second).promote(ADA, "")
    turn(first)
    assert cluster(first).role == "replica"


def test_the_role_outlives_the_process_and_holds_for_every_other(nodes: Nodes) -> None:
    first, second = nodes.first(), nodes.clone("second")
    other = nodes.open("first", ASYNC)
    cluster(second).promote(ADA, "")
    write(first, "a")
    turn(first)
    with pytest.raises(ReadOnly):
        write(other, "a")
    first.close()
    assert cluster(nodes.open("first", ASYNC)).role == "replica"


def test_stepping_down_brings_the_hub_what_it_lacks(nodes: Nodes) -> None:
    first = nodes.first()
    last = write(first, "a")
    cluster(first).step_down("for the move")
    assert (nodes.main(), cluster(first).role) == (last, "replica")
    turn(first)
    assert diverged(first) == []


def test_without_leave_nothing_is_written_in_any_process_and_all_is_read(nodes: Nodes) -> None:
    first = nodes.first()
    other = nodes.open("first", ASYNC)
    write(first, "a")
    cluster(first).suspend("the lease is not held")
    for store in (first, other):
        with pytest.raises(ReadOnly, match="may not write for now: the lease is not held"):
            write(store, "a")
    assert list(marks(other)) == ["Patient/a"]
    cluster(other).resume()
    write(first, "a")


def test_a_primary_that_may_write_again_looks_first_whether_it_still_is_one(nodes: Nodes) -> None:
    """What it acknowledged before its first push would have diverged."""
    first, second = nodes.first(), nodes.clone("second")
    cluster(first).suspend("the lease is not held")
    cluster(second).promote(ADA, "")
    cluster(first).resume()
    with pytest.raises(ReadOnly, match="another node has become the primary"):
        write(first, "a")


@pytest.mark.parametrize(
    ("until", "boot", "holds"),
    [(1e9, "", True), (-1e9, "", False), (1e9, "another", False), (None, "", False)],
)
def test_a_lease_that_nobody_renews_runs_out_whoever_should_have_said_so(
    nodes: Nodes, until: float | None, boot: str, holds: bool
) -> None:
    """The process that keeps it may be stopped, or wait for a lock, when the time is over."""
    nodes.first()
    first = nodes.open("first", replace(ASYNC, etcd=("http://127.0.0.1:1",)))
    if until is not None:
        ends = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(until * 1e3)
        text = f"7 {ends} 1 {boot or boot_id().decode()}\n"
        Path(first.git_dir, "git-fhir", "lease").write_text(text)
    if holds:
        write(first, "a")
    else:
        with pytest.raises(ReadOnly, match="its lease has run out"):
            write(first, "a")


def test_one_that_was_promoted_stays_so_when_it_is_started_as_a_replica_again(nodes: Nodes) -> None:
    """The unit file that starts it says `--replica` for ever."""
    nodes.first()
    second = nodes.clone("second")
    cluster(second).promote(ADA, "")
    cluster(second).follow()
    assert cluster(second).role == "primary"


def test_a_role_that_cant_be_read_lets_nobody_write(nodes: Nodes) -> None:
    first = nodes.first()
    Path(first.git_dir, "git-fhir", "role").write_text("{")
    with pytest.raises(RepositoryDamaged):
        write(first, "a")


def test_a_purge_needs_the_hub_to_be_out_of_the_way(nodes: Nodes) -> None:
    first = nodes.first()
    write(first, "a")
    with pytest.raises(RepositoryRefused, match="the hub and its nodes hold the old one"):
        first.purge([Purgeable(ResourceId("Patient", "a"))], ADA, "erasure")


def test_the_hub_of_somebody_elses_commits_is_followed_as_far_as_it_can_be_read(nodes: Nodes) -> None:
    primary, replica = nodes.first(), nodes.clone("second")
    good = write(primary, "a")
    turn(primary)
    tree = git("rev-parse", "main^{tree}", at=nodes.hub)
    who = ["-c", "user.name=x", "-c", "user.email=x@x"]
    foreign = git(*who, "commit-tree", tree, "-p", good, "-m", "by hand", at=nodes.hub)
    git("update-ref", "refs/heads/main", foreign, at=nodes.hub)
    with pytest.raises(Exception, match="was not made by git-fhir"):
        turn(replica)
    assert replica.snapshot().commit.id == good
    assert "was not made by git-fhir" in str(replica.vitals.index())
    with pytest.raises(Exception, match="was not made by git-fhir"):
        cluster(replica).promote(ADA, "")


# Dying


class Mortal:
    """Stands in for a module; the process dies right before the n-th call of any of them."""

    def __init__(self, module: Any, names: frozenset[str], count: list[int], death: int) -> None:
        self._module, self._names, self._count, self._death = module, names, count, death

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name not in self._names:
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._count[0] += 1
            if self._count[0] > self._death:
                os.kill(os.getpid(), signal.SIGKILL)
            return found(*arguments, **named)

        return call


CALLS = frozenset(["open", "write", "pwrite", "link", "rename", "unlink", "fsync", "mkfifo"])
RUNS = frozenset(["Popen", "run"])


def dies(work: Callable[[], object], death: int) -> bool:
    """Whether a child that does the work, and is killed before its n-th call, was killed in the midst of it."""
    pid = os.fork()
    if pid == 0:
        try:
            count = [0]
            for module in (writer_module, state_module, durable):
                module.os = Mortal(os, CALLS, count, death)  # type: ignore[attr-defined]
            hub_module.subprocess = Mortal(subprocess, RUNS, count, death)  # type: ignore[attr-defined]
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status != 0


@pytest.mark.parametrize("event", ["fenced", "promoted", "following"])
def test_a_node_killed_at_any_step_goes_on_where_it_was(
    nodes: Nodes, event: str, tmp_path: Path, clock: Clock
) -> None:
    first, second = nodes.first(), nodes.clone("second")
    write(first, "a", "shared")
    turn(first)
    if event == "fenced":
        turn(second)
        mine = write(first, "a", "mine")
        cluster(second).promote(ADA, "")
        write(second, "b", "theirs")
        turn(second)
    first.close()
    second.close()
    subject = {"fenced": "first", "promoted": "second", "following": "second"}[event]
    saved = tmp_path / "saved"
    shutil.copytree(nodes.hub, saved / "hub.git")
    shutil.copytree(tmp_path / f"{subject}.git", saved / f"{subject}.git")

    def work() -> None:
        with Store.open(
            tmp_path / f"{subject}.git", replace(ASYNC, hub=str(nodes.hub)), clock=clock
        ) as store:
            if event == "promoted":
                cluster(store).promote(ADA, "")
            else:
                turn(store)

    death = 0
    while dies(work, death):
        with ExitStack() as opened:
            again = Nodes.__new__(Nodes)
            again.folder, again.hub, again.clock, again._opened = tmp_path, nodes.hub, clock, opened
            store = again.open(subject, ASYNC)
            turn(store)
            assert again.main(store) == again.main()
            assert is_clean(store)
            if event == "fenced":
                assert (cluster(store).role, diverged(store)) == ("replica", [mine])
            elif event == "promoted":
                if cluster(store).role == "replica":
                    cluster(store).promote(ADA, "")
                write(store, "c")
                turn(store)
                assert again.main(store) == again.main()
                assert is_clean(store)
        for name in ("hub", subject):
            shutil.rmtree(tmp_path / f"{name}.git")
            shutil.copytree(saved / f"{name}.git", tmp_path / f"{name}.git", symlinks=True)
        death += 3
    assert death > 20
