"""A primary wakes its replicas: POST /wake. And what monitors see of a node among others. docs/scaling.md"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from api.health import UNPUSHED, UNSEEN
from api.opening import join
from api.waking import MAX_BODY, Waker
from gitstore import ANONYMOUS, HubUnreachable, Invalid, Settings, Store, Update
from gitstore.cluster.cluster import Cluster
from tests.api.conftest import Client, Clock
from tests.api.neighbours import EXAMPLE, PATIENCE, Neighbours, cluster, git, serving, turn, unused
from tests.api.test_http_metrics import value

PATIENT = {"resourceType": "Patient", "id": "example"}


@pytest.fixture
def nodes(
    tmp_path: Path, empty_record: Path, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Neighbours]:
    monkeypatch.setattr(Cluster, "_begin", lambda self: None)
    found = Neighbours(tmp_path, empty_record, settings, clock)
    yield found
    found.close()


def client_of(store: Store, clock: Clock) -> Client:
    return Client(create_app(store, store.settings, clock=clock))


def write(store: Store) -> None:
    store.commit([Update(EXAMPLE, PATIENT)], ANONYMOUS)


# The door


def test_whoever_calls_wakes_the_node(nodes: Neighbours, clock: Clock) -> None:
    """Under any name, without credentials; however many call, it is one look."""
    store = nodes.primary()
    client = client_of(store, clock)
    assert not cluster(store)._state.heard()
    for _ in range(3):
        assert client.request("POST", "/wake", b"whatever", Host="10.0.0.7:80").status_code == 204
    assert cluster(store)._state.heard()
    assert not cluster(store)._state.heard()


def test_a_record_without_other_nodes_has_no_bell(client: Client) -> None:
    assert client.request("POST", "/wake").status_code == 404


def test_a_bell_takes_no_parcels(nodes: Neighbours, clock: Clock) -> None:
    client = client_of(nodes.primary(), clock)
    assert client.request("POST", "/wake", b"x" * (MAX_BODY + 1)).status_code == 413
    refused = client.get("/wake")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "OPTIONS, POST")


# The caller


class Listener:
    """An application that counts calls, and answers one when it may."""

    def __init__(self, status: str = "204 No Content") -> None:
        self.paths: list[str] = []
        self.called = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._status = status

    def __call__(self, environ: dict[str, Any], respond: Callable[..., Any]) -> list[bytes]:
        self.paths.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        self.called.release()
        assert self.may_answer.wait(PATIENCE)
        respond(self._status, [])
        return []

    def await_call(self) -> None:
        assert self.called.acquire(timeout=PATIENCE)


@contextmanager
def waking(*urls: str) -> Iterator[Waker]:
    waker = Waker(urls, timeout=PATIENCE)
    try:
        yield waker
    finally:
        waker.close()


def test_every_replica_is_called(nodes: Neighbours, clock: Clock) -> None:
    """When the hub has something new; also below a path."""
    first, second = Listener(), Listener()
    with serving(first) as one, serving(second) as two, waking(one, f"{two}/name/") as waker:
        store = nodes.primary()
        join(store, waker, as_replica=False)
        write(store)
        turn(store)
        first.await_call()
        second.await_call()
        turn(store)
        waker.close()
    assert (first.paths, second.paths) == (["POST /wake"], ["POST /name/wake"])
    assert waker.missed == 0


def test_what_is_new_during_a_call_is_one_more_call() -> None:
    """Nobody waits for it, and nothing is lost."""
    listener = Listener()
    with serving(listener) as url, waking(url) as waker:
        listener.may_answer.clear()
        waker()
        listener.await_call()
        for _ in range(50):
            waker()
        listener.may_answer.set()
        listener.await_call()
        waker.close()
    assert len(listener.paths) == 2


def test_calls_go_on_after_one_that_failed() -> None:
    """A replica that was started anew has closed the connection that was kept."""
    listener = Listener()
    with waking(unused()) as waker:
        waker()
        waker.close()
        assert waker.missed == 1
    with waking(unused()) as dead, serving(listener) as url, waking(url) as waker:
        dead()
        for _ in range(3):
            waker()
            listener.await_call()
    assert len(listener.paths) == 3


def test_a_replica_that_refuses_is_counted() -> None:
    listener = Listener("404 Not Found")
    with serving(listener) as url, waking(url) as waker:
        waker()
        waker.close()
    assert waker.missed == 1


def test_a_replica_that_is_no_server_is_refused_at_once() -> None:
    """git configuration alone says where calls go."""
    for url in ("ftp://x", "http://", "http://u:p@x", "http://x/?a", "http://x:99999", "x"):
        with pytest.raises(Invalid, match=r"fhir\.replica"):
            Waker([url])


def test_a_waker_of_nobody_starts_nothing() -> None:
    before = threading.active_count()
    with waking() as waker:
        waker()
        assert threading.active_count() == before


# Monitors


def replication(client: Client) -> tuple[str, str]:
    """The role, and the check."""
    answer = client.get("/ready")
    assert answer.status_code == (200 if set(answer.json["checks"].values()) == {"ok"} else 503)
    return answer.json["role"], answer.json["checks"]["replication"]


def test_a_primary_is_ready_while_the_hub_keeps_up(
    nodes: Neighbours, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """In async it may be away for a minute: pushes are late then, but nobody waits."""
    store = nodes.primary()
    client = client_of(store, clock)
    assert replication(client) == ("primary", "ok")
    write(store)
    assert replication(client) == ("primary", "ok")
    clock.forward(UNPUSHED)
    assert replication(client) == ("primary", "ok")
    clock.forward(1)
    assert replication(client) == ("primary", "unavailable")
    assert "The hub lacks 1 commits, the oldest for 61 s" in str(caplog.records[-1].__dict__["fields"])
    turn(store)
    assert replication(client) == ("primary", "ok")


def test_a_primary_in_sync_is_not_ready_without_the_hub(nodes: Neighbours, clock: Clock) -> None:
    """Its writes, and its reads of them, are answered 504."""
    store = nodes.primary(replication="sync")
    client = client_of(store, clock)
    cluster(store)._error = "the hub is away"
    assert replication(client) == ("primary", "ok"), "nothing is missing there"
    cluster(store)._settings = replace(cluster(store)._settings, hub_timeout=0)
    assert client.put("Patient/example", PATIENT).status_code == 504
    assert replication(client) == ("primary", "unavailable")
    cluster(store)._error = None
    turn(store)
    assert replication(client) == ("primary", "ok")


def test_a_primary_that_may_not_write_is_not_ready(nodes: Neighbours, clock: Clock) -> None:
    store = nodes.primary()
    client = client_of(store, clock)
    cluster(store).suspend("the lease is not held")
    assert replication(client) == ("primary", "unavailable")
    assert value(client.get("/metrics").text, "replication_suspended") == 1
    cluster(store).resume()
    assert replication(client) == ("primary", "ok")


def test_a_replica_is_ready_while_it_sees_the_hub(nodes: Neighbours, clock: Clock) -> None:
    """For ten looks, and ten seconds at least, it may miss it."""
    nodes.primary()
    for interval, longest in ((0.5, UNSEEN), (3.0, 10 * 3)):
        store = nodes.replica(f"replica-{longest}", poll_interval=interval)
        client = client_of(store, clock)
        clock.forward(longest)
        assert replication(client) == ("replica", "ok")
        clock.forward(1)
        assert replication(client) == ("replica", "unavailable")
        turn(store)
        assert replication(client) == ("replica", "ok")


def test_a_replica_that_cannot_follow_is_not_ready(nodes: Neighbours, clock: Clock) -> None:
    """A commit at the hub that is none of git-fhir's: what it has looked at last is older and older."""
    nodes.primary()
    store = nodes.replica()
    client = client_of(store, clock)
    by = ["-c", "user.name=x", "-c", "user.email=x@y", "--git-dir", str(nodes.hub)]
    commit = git(*by, "commit-tree", "main^{tree}", "-p", "main", "-m", "by hand")
    git(*by, "update-ref", "refs/heads/main", commit)
    with pytest.raises(Exception, match="not made by git-fhir"):
        turn(store)
    clock.forward(10 * store.settings.poll_interval + 1)
    assert replication(client) == ("replica", "unavailable")


def test_a_replica_that_has_never_seen_the_hub_is_not_ready(nodes: Neighbours, clock: Clock) -> None:
    store = nodes.primary()
    (Path(store.git_dir) / "git-fhir" / "hub").write_text("")
    git("--git-dir", str(nodes.hub), "update-ref", "-d", "refs/heads/main")
    cluster(store)._state.become("replica", "test", clock())
    with pytest.raises(HubUnreachable):
        turn(store)
    assert replication(client_of(store, clock)) == ("replica", "unavailable")


def test_a_role_that_nobody_wrote_is_told_as_unavailable(nodes: Neighbours, clock: Clock) -> None:
    store = nodes.primary()
    (Path(store.git_dir) / "git-fhir" / "role").write_text("king")
    answer = client_of(store, clock).get("/ready")
    assert answer.status_code == 503
    assert answer.json["checks"]["replication"] == "unavailable"
    assert "role" not in answer.json


def test_the_numbers_of_a_node(nodes: Neighbours, clock: Clock) -> None:
    """Looked up when they are asked for, so that it doesn't matter which worker is."""
    primary = nodes.primary()
    replica = nodes.replica()
    write(primary)
    clock.forward(7)
    text = client_of(primary, clock).get("/metrics").text
    assert value(text, "replication_role", role="primary") == 1
    assert value(text, "replication_role", role="replica") == 0
    assert value(text, "replication_pending_commits") == 1
    assert value(text, "replication_lag_seconds") == pytest.approx(7)
    assert "git_fhir_replication_suspended 0.0" in text

    text = client_of(replica, clock).get("/metrics").text
    assert value(text, "replication_role", role="replica") == 1
    assert value(text, "replication_pending_commits") == 0
    assert value(text, "replication_lag_seconds") == pytest.approx(7)


def test_a_record_of_one_node_has_no_such_numbers(client: Client) -> None:
    assert "replication" not in client.get("/metrics").text
    assert "replication" not in client.get("/ready").text


def test_the_log_says_which_role_a_node_has(nodes: Neighbours, caplog: pytest.LogCaptureFixture) -> None:
    """At the beginning, and when it changes, whoever has changed it."""
    store = nodes.primary()
    with waking() as waker, caplog.at_level(logging.INFO):
        join(store, waker, as_replica=False)
        for _ in range(2):
            cluster(store)._tell()
        cluster(store).step_down("for a test")
        for _ in range(2):
            cluster(store)._tell()
    said = [record.getMessage() for record in caplog.records if "this node is" in record.getMessage()]
    assert said == ["this node is the primary now", "this node is a replica now: for a test"]
