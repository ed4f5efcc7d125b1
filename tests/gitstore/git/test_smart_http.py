"""A hub over HTTP that is spoken to without a git of ours in between, and git where that doesn't do. docs/scaling.md

The hub is git's own, behind nginx: tests/hubs.py.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hubs
import pytest
from conftest import UNCHECKED

from gitstore import Author, HubUnreachable, Store, Update
from gitstore.cluster.cluster import Cluster
from gitstore.fhir.ids import ResourceId
from gitstore.git import direct
from gitstore.git.smart_http import SmartHttp

ADA = Author("Ada", "ada@clinic.example")


class Node:
    """A record around the hub, whose thread sleeps: `turn` does what it would do. `gits` are the commands that the hub was asked by."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        assert store.cluster is not None
        self.store = store
        self.hub = store.cluster._hub
        self.cluster = store.cluster
        self.gits: list[str] = []
        run = self.hub._run

        def told(arguments: Any) -> tuple[int, str, str]:
            self.gits += [word for word in arguments if word in ("push", "fetch")]
            return run(arguments)

        monkeypatch.setattr(self.hub, "_run", told)

    def turn(self) -> list[str]:
        """Push, or follow; which commands of git that took."""
        self.gits.clear()
        self.cluster._turn(asked=True)
        return list(self.gits)

    def write(self, id: str, mark: str = "x") -> None:
        body = {"resourceType": "Patient", "id": id, "language": mark}
        self.store.commit([Update(ResourceId("Patient", id), body)], ADA)

    def git(self, *words: str) -> str:
        command = ["git", "--git-dir", self.store.git_dir, *words]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | hubs.HARMLESS
        )
        return done.stdout.strip()

    @property
    def main(self) -> str:
        return self.git("rev-parse", "main")


@pytest.fixture(params=[False, True], ids=["password in the URL", "credential helper"])
def hub(request: pytest.FixtureRequest) -> Iterator[hubs.Hub]:
    with hubs.http_hub(helper=request.param) as made:
        yield made


@pytest.fixture
def plain_hub() -> Iterator[hubs.Hub]:
    with hubs.http_hub() as made:
        yield made


@contextmanager
def opened(git_dir: str, hub: hubs.Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(Cluster, "_begin", lambda self: None)
    for key, value in hub.config.items():
        subprocess.run(["git", "--git-dir", git_dir, "config", key, value], check=True)
    settings = replace(UNCHECKED, hub=hub.url, hub_timeout=hubs.PATIENCE, poll_interval=3600.0)
    with Store.open(git_dir, settings) as store:
        yield Node(store, monkeypatch)


@pytest.fixture
def nodes(record: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[hubs.Hub], Any]:
    """A primary and a replica, which have seen the hub once."""

    @contextmanager
    def both(hub: hubs.Hub) -> Iterator[tuple[Node, Node]]:
        with opened(record, hub, monkeypatch) as primary:
            primary.turn()
            clone = ["git", "clone", "--quiet", "--bare", str(hub.git_dir), str(tmp_path / "replica.git")]
            subprocess.run(clone, check=True)
            with opened(str(tmp_path / "replica.git"), hub, monkeypatch) as replica:
                replica.cluster.follow()
                replica.turn()
                yield primary, replica

    return both


def test_what_is_written_goes_to_the_hub_and_to_replicas_without_git(hub: hubs.Hub, nodes: Any) -> None:
    with nodes(hub) as (primary, replica):
        for number in range(3):
            primary.write("a", f"{number}")
            primary.write(f"b{number}")
            assert primary.turn() == replica.turn() == []
            assert hub.head() == primary.main == replica.main
        assert list(replica.store.verify()) == []
    check = ["git", "-C", str(hub.git_dir), "fsck", "--strict"]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("allowed", ["true", "false"])
def test_a_replica_asks_by_name_where_it_may(
    allowed: str, plain_hub: hubs.Hub, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request instead of two, but for one in a second, which looks at the other refs."""
    subprocess.run(
        ["git", "-C", str(plain_hub.git_dir), "config", "uploadpack.allowRefInWant", allowed], check=True
    )
    now = [1000.0]
    monkeypatch.setattr(direct, "time", SimpleNamespace(monotonic=lambda: now[0]))
    looks: list[object] = []
    refs = SmartHttp.refs
    monkeypatch.setattr(SmartHttp, "refs", lambda self, names: looks.append(names) or refs(self, names))
    with nodes(plain_hub) as (primary, replica):
        replica.turn()
        for number, seconds in enumerate([0.1, 0.1, 1.1]):
            looks.clear()
            now[0] += seconds
            primary.write(f"{number}")
            assert primary.turn() == replica.turn() == []
            assert replica.main == primary.main
            assert len(looks) == (0 if allowed == "true" and seconds < 1 else 1)
        looks.clear()
        assert replica.turn() == []
        assert replica.main == primary.main


def test_a_hub_that_has_moved_is_left_as_it_is(plain_hub: hubs.Hub, nodes: Any) -> None:
    """The push names the commit that it replaces: a compare-and-swap, as git's is."""
    with nodes(plain_hub) as (primary, replica):
        replica.cluster.promote(ADA, "")
        other = plain_hub.head()
        primary.write("a")
        primary.turn()
        assert plain_hub.head() == other == primary.main
        assert primary.cluster.role == "replica"


def test_a_push_whose_answer_was_lost_has_happened(
    plain_hub: hubs.Hub, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nodes(plain_hub) as (primary, _):
        primary.write("a")
        move = SmartHttp.move

        def lost(*arguments: Any) -> bool:
            assert move(*arguments)
            raise HubUnreachable("The network is gone.")

        with monkeypatch.context() as patch:
            patch.setattr(SmartHttp, "move", lost)
            with pytest.raises(HubUnreachable):
                primary.turn()
        assert plain_hub.head() == primary.main
        primary.turn()
        assert primary.cluster.status().pending == 0


def test_a_connection_that_the_server_has_closed_is_made_anew(plain_hub: hubs.Hub, nodes: Any) -> None:
    with nodes(plain_hub) as (primary, replica):
        for node in (primary, replica):
            primary.write("a")
            primary.turn()
            replica.turn()
            node.hub._direct._http._connection.sock.shutdown(socket.SHUT_RDWR)
        primary.write("b")
        assert primary.turn() == replica.turn() == []
        assert plain_hub.head() == replica.main


def test_tags_go_along(plain_hub: hubs.Hub, nodes: Any) -> None:
    """git brings them, which is asked as often as there are other tags."""
    with nodes(plain_hub) as (primary, replica):
        primary.write("a")
        primary.git("tag", "--annotate", "--message", "as published", "v1")
        assert primary.turn() == ["push"]
        assert replica.turn() == ["fetch"]
        assert replica.git("rev-parse", "v1") == primary.git("rev-parse", "v1")
        primary.write("b")
        assert primary.turn() == replica.turn() == []


def test_what_has_diverged_elsewhere_comes_along(plain_hub: hubs.Hub, nodes: Any) -> None:
    with nodes(plain_hub) as (primary, replica):
        ref = "refs/git-fhir/diverged/20260101T000000Z-00000000"
        subprocess.run(["git", "-C", str(plain_hub.git_dir), "update-ref", ref, "main"], check=True)
        replica.turn()
        assert replica.git("rev-parse", ref) == primary.main


def test_a_pack_that_git_refuses_is_not_taken(
    plain_hub: hubs.Hub, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each object is looked at, and that what it refers to is there. Then git fetches by itself."""
    with nodes(plain_hub) as (primary, replica):
        primary.write("a")
        primary.turn()
        packs = Path(replica.store.git_dir, "objects", "pack")
        before = sorted(packs.glob("*.pack"))

        @contextmanager
        def spoilt(*_: str) -> Iterator[tuple[str, Iterator[bytes]]]:
            yield primary.main, iter([b"PACK\0\0\0\2", *[bytes(60_000)] * 20])

        with monkeypatch.context() as patch:
            patch.setattr(replica.hub, "_fetch_by_git", lambda: None)
            patch.setattr(replica.hub._direct._http, "pack", spoilt)
            assert replica.hub.fetch() is None
        assert sorted(packs.glob("*.pack")) == before
        assert replica.turn() == ["fetch"]
        assert replica.main == plain_hub.head()


@pytest.mark.parametrize("status", [b"302 Found", b"200 OK", b"500 Internal Server Error"])
def test_a_server_that_answers_something_else_is_left_to_git_for_a_minute(
    status: bytes, plain_hub: hubs.Hub, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(direct, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with nodes(plain_hub) as (primary, _), socket.create_server(("127.0.0.1", 0)) as page:
        primary.write("a")
        primary.turn()
        connection = primary.hub._direct._http._connection
        connection.close()
        connection.port = page.getsockname()[1]
        answer = (
            b"HTTP/1.1 %b\r\nLocation: /\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno" % status
        )
        primary.write("b")
        with answering(page, answer):
            assert primary.turn() == ["push"]
        primary.write("c")
        assert primary.turn() == ["push"]
        now[0] += 61
        primary.write("d")
        assert primary.turn() == []
        assert plain_hub.head() == primary.main


def test_a_certificate_that_is_not_known_here_is_git_s_to_judge(
    plain_hub: hubs.Hub, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nodes(plain_hub) as (primary, _):
        primary.write("a")
        primary.turn()

        def unknown(*_: object) -> None:
            raise ssl.SSLCertVerificationError("self-signed certificate")

        monkeypatch.setattr(SmartHttp, "_sent", unknown)
        primary.write("b")
        assert primary.turn() == ["push"]
        assert plain_hub.head() == primary.main


@contextmanager
def answering(listener: socket.socket, answer: bytes) -> Iterator[None]:
    """One request, whatever it is."""

    def answer_one() -> None:
        connection, _ = listener.accept()
        with connection:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += connection.recv(65536)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    thread = threading.Thread(target=answer_one)
    thread.start()
    yield
    thread.join()


def test_a_wrong_password_is_git_s_to_complain_of(plain_hub: hubs.Hub, record: str, monkeypatch: Any) -> None:
    stranger = replace(plain_hub, url=plain_hub.url.replace("secret", "guessed"))
    with opened(record, stranger, monkeypatch) as node:
        node.store.commit([Update(ResourceId("Patient", "a"), {"resourceType": "Patient", "id": "a"})], ADA)
        with pytest.raises(HubUnreachable, match="Authentication failed"):
            node.turn()


def test_a_hub_that_is_gone_is_said_to_be(plain_hub: hubs.Hub, nodes: Any) -> None:
    with nodes(plain_hub) as (primary, _):
        primary.write("a")
        primary.turn()
        primary.hub._direct._http._connection.close()
        primary.hub._direct._http._connection.port = hubs.free_port()
        primary.write("b")
        with pytest.raises(HubUnreachable, match="Connection refused"):
            primary.turn()


@pytest.mark.parametrize(
    ("url", "config"),
    [
        ("ssh://hub.example.org/record.git", {}),
        ("/srv/record.git", {}),
        ("http://[::1/record.git", {}),
        ("http://hub.example.org/my record.git", {}),
        ("http://hub.example.org/r%C3%A4cord.git?service=x", {}),
        ("http://hub.example.org/räcord.git", {}),
        ("http://hub.example.org/record.git", {"protocol.http.allow": "never"}),
        ("http://hub.example.org/record.git", {"http.proxy": "http://proxy.example.org"}),
        ("http://hub.example.org/record.git", {"http.http://hub.example.org/.extraHeader": "X: y"}),
        ("http://hub.example.org/record.git", {"url.http://other.example.org/.insteadOf": "http://hub."}),
        ("https://hub.example.org/record.git", {"http.sslCAInfo": "/nowhere/at/all"}),
        ("https://hub.example.org/record.git", {"http.sslVerify": "false"}),
    ],
)
def test_a_way_that_only_git_knows_is_left_to_git(url: str, config: dict[str, str], record: str) -> None:
    for key, value in config.items():
        subprocess.run(["git", "--git-dir", record, "config", key, value], check=True)
    assert SmartHttp.open(record, url, {**os.environ, **hubs.HARMLESS, "GIT_SSL_CAINFO": ""}, 1) is None


@pytest.mark.parametrize(
    ("variables", "goes"),
    [
        ({"http_proxy": "http://proxy.example.org"}, False),
        ({"all_proxy": "http://proxy.example.org"}, False),
        ({"https_proxy": "http://proxy.example.org"}, True),
        ({"http_proxy": "http://proxy.example.org", "no_proxy": "localhost,.example.org"}, True),
    ],
)
def test_a_proxy_of_the_environment_is_git_s_to_use(
    variables: dict[str, str], goes: bool, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://everything.curl.dev/usingcurl/proxies/env.html"""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    environment = os.environ | hubs.HARMLESS
    found = SmartHttp.open(record, "http://hub.example.org/record.git", environment, 1)
    assert (found is not None) is goes


def test_settings_that_change_nothing_are_no_reason_to_ask_git(record: str) -> None:
    for key, value in {
        "http.receivepack": "true",
        "http.https://elsewhere.example.org/.proxy": "http://p",
    }.items():
        subprocess.run(["git", "--git-dir", record, "config", key, value], check=True)
    environment = {**os.environ, **hubs.HARMLESS, "GIT_SSL_CAINFO": ""}
    assert SmartHttp.open(record, "http://hub.example.org/record.git", environment, 1) is not None
