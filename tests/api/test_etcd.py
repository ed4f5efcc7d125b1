"""The client of etcd: against an etcd, and against what is none."""

from __future__ import annotations

import http.server
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.etcd import Etcd, EtcdRefused, EtcdUnreachable, Held
from gitstore import Invalid
from tests.api.etcds import PATIENCE, TIMEOUT, free_port, running
from tests.api.wires import certificate

NOT_FOUND = 5


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("etcd")) as url:
        yield url


@pytest.fixture
def etcd(url: str) -> Etcd:
    return Etcd([url], TIMEOUT)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return f"/{request.node.name}"


class TestAnEtcd:
    def test_a_key_is_taken_once(self, etcd, key):
        """A compare of create_revision with 0: https://etcd.io/docs/v3.4/learning/api/#transaction"""
        mine, other = etcd.grant(60), etcd.grant(60)

        assert etcd.get(key) is None
        assert etcd.create(key, "http://one:8080", mine.id) == Held("http://one:8080", mine.id)
        assert etcd.create(key, "http://two:8080", other.id) == Held("http://one:8080", mine.id)
        assert etcd.get(key) == Held("http://one:8080", mine.id)

    def test_to_take_a_key_twice_under_one_lease_changes_nothing(self, etcd, key):
        """An answer that got lost is asked for again."""
        lease = etcd.grant(60)
        etcd.create(key, "", lease.id)

        assert etcd.create(key, "", lease.id) == Held("", lease.id)

    def test_a_key_goes_with_its_lease(self, etcd, key):
        lease = etcd.grant(60)
        etcd.create(key, "x", lease.id)

        etcd.revoke(lease.id)

        assert etcd.get(key) is None
        assert etcd.keep_alive(lease.id) is None

    def test_a_lease_that_is_gone_can_be_revoked_and_takes_no_key(self, etcd, key):
        lease = etcd.grant(60)
        etcd.revoke(lease.id)

        etcd.revoke(lease.id)
        with pytest.raises(EtcdRefused, match="lease not found") as refusal:
            etcd.create(key, "x", lease.id)
        assert refusal.value.code == NOT_FOUND

    def test_a_lease_is_renewed_for_the_whole_of_its_length(self, etcd):
        assert etcd.keep_alive(etcd.grant(60).id) == 60

    def test_etcd_may_give_more_than_is_asked_for(self, etcd):
        """A lease is never shorter than an election takes."""
        assert etcd.grant(1).ttl >= 2

    def test_a_key_can_be_taken_away_by_anybody(self, etcd, key):
        etcd.create(key, "x", etcd.grant(60).id)

        assert etcd.delete(key)
        assert not etcd.delete(key)
        assert etcd.get(key) is None

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(value=st.text(max_size=200))
    def test_a_value_comes_back_as_it_was_written(self, etcd, key, value):
        etcd.delete(key)
        lease = etcd.grant(60)

        etcd.create(key, value, lease.id)

        assert etcd.get(key) == Held(value, lease.id)

    def test_an_endpoint_that_does_not_answer_is_passed_over(self, url, key):
        etcd = Etcd([f"http://127.0.0.1:{free_port()}", url], TIMEOUT)

        assert etcd.get(key) is None

    def test_the_endpoint_that_answered_last_is_asked_first(self, url):
        with answering(lambda _: (503, b"")) as (broken, asked):
            etcd = Etcd([broken, url], TIMEOUT)
            for _ in range(3):
                etcd.get("a")

        assert asked == ["/v3/kv/range"]

    def test_an_endpoint_that_never_answers_leaves_time_for_the_others(self, url):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            etcd = Etcd([f"http://127.0.0.1:{silent.getsockname()[1]}", url], 1.0)

            assert etcd.get("a") is None


COMMANDS = [
    "role add git-fhir",
    "role grant-permission git-fhir --prefix=true readwrite /git-fhir/",
    "user add node:s3cr:t",
    "user grant-role node git-fhir",
    "user add root:s3cr:t",
    "user grant-role root root",
    "auth enable",
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an etcd that asks for a password, set up as docs/failover.md says; the password is `s3cr:t`."""
    with running(tmp_path_factory.mktemp("guarded")) as url:
        for command in COMMANDS:
            subprocess.run(
                ["etcdctl", "--endpoints", url, *command.split()],
                check=True,
                capture_output=True,
                env={**os.environ, "ETCDCTL_API": "3"},
            )
        yield url


def as_node(url: str, password: str) -> Etcd:
    return Etcd([url.replace("http://", f"http://node:{password}@")], TIMEOUT)


class TestAnEtcdWithUsers:
    """https://etcd.io/docs/v3.4/op-guide/authentication/"""

    def test_the_user_and_password_of_the_url_are_used(self, guarded):
        etcd = as_node(guarded, "s3cr%3At")
        lease = etcd.grant(60)

        etcd.create("/git-fhir/a", "b", lease.id)

        assert etcd.keep_alive(lease.id) == 60
        assert etcd.get("/git-fhir/a") == Held("b", lease.id)
        etcd.revoke(lease.id)
        assert etcd.get("/git-fhir/a") is None

    def test_what_a_node_may_not_touch_is_refused(self, guarded):
        with pytest.raises(EtcdRefused, match="permission denied"):
            as_node(guarded, "s3cr%3At").get("/other")

    def test_a_token_that_has_ended_is_renewed(self, guarded):
        etcd = as_node(guarded, "s3cr%3At")
        etcd.get("/git-fhir/a")
        etcd._tokens = dict.fromkeys(etcd._tokens, "ended.1")

        etcd.get("/git-fhir/a")

        assert "ended.1" not in etcd._tokens.values()

    def test_without_a_user_nothing_is_answered(self, guarded):
        with pytest.raises(EtcdRefused, match="user name is empty"):
            Etcd([guarded], TIMEOUT).get("a")

    def test_a_wrong_password_is_refused_and_not_repeated(self, guarded):
        with pytest.raises(EtcdRefused, match="authentication failed") as refusal:
            as_node(guarded, "wr0ng").get("a")
        assert "wr0ng" not in str(refusal.value)


# What is no etcd

Answer = Callable[[str], tuple[int, bytes]]


@contextmanager
def answering(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """A server that answers as it is told; gives its URL, and the paths that it is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            status, content = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that goes away is no news."""

    server = Quiet(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://localhost:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b"<html>hello</html>"),
        (200, b""),
        (200, b"[]"),
        (200, b'{"kvs": 3}'),
        (200, b'{"kvs": [{"value": "no base64 \xc3\xa4"}]}'),
        (200, b'{"kvs": [{"value": "/w=="}]}'),
        (200, b'{"kvs": [{"value": "", "lease": "many"}]}'),
        (404, b"Not Found"),
        (302, b""),
        (400, b'{"error": "etcdserver: no", "code": "3"}'),
    ],
)
def test_what_no_etcd_would_say_is_refused(status, content):
    with answering(lambda _: (status, content)) as (url, _), pytest.raises(EtcdRefused, match="localhost"):
        Etcd([url], TIMEOUT).get("a")


@given(content=st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(["ID", "TTL", "result", "kvs", "value", "lease", "responses", "response_range", "error"]),
        inner,
        max_size=4,
    ),
))  # fmt: skip
def test_whatever_the_answer_is_it_is_understood_or_refused(content):
    """No answer makes a keeper break down."""
    etcd = Etcd(["http://localhost:1"], TIMEOUT)
    sent = json.dumps(content).encode()
    etcd._post = lambda endpoint, *_: etcd._answer(endpoint, 200, sent)  # type: ignore[method-assign]

    for call in (
        lambda: etcd.grant(5),
        lambda: etcd.keep_alive(1),
        lambda: etcd.get("a"),
        lambda: etcd.create("a", "b", 1),
        lambda: etcd.delete("a"),
    ):
        with suppress(EtcdRefused):
            call()


def test_an_answer_without_end_is_cut_off():
    with (
        answering(lambda _: (200, b" " * 1_000_000)) as (url, _),
        pytest.raises(EtcdUnreachable, match="more than"),
    ):
        Etcd([url], TIMEOUT).get("a")


def test_a_member_without_a_leader_is_as_good_as_none():
    """https://github.com/etcd-io/etcd/blob/release-3.4/etcdserver/api/v3rpc/rpctypes/error.go"""
    sentence = b'{"error": "etcdserver: no leader", "code": 14}'
    with answering(lambda _: (503, sentence)) as (url, _), pytest.raises(EtcdUnreachable, match="no leader"):
        Etcd([url], TIMEOUT).get("a")


def test_the_error_of_a_call_that_streams_is_one():
    """The gateway puts it into an object of its own."""
    sentence = b'{"error": {"grpc_code": 5, "code": 5, "message": "no such lease"}}'
    with answering(lambda _: (200, sentence)) as (url, _), pytest.raises(EtcdRefused, match="no such lease"):
        Etcd([url], TIMEOUT).keep_alive(1)


def test_where_nobody_answers_all_are_named_and_no_password_is():
    ports = [free_port(), free_port()]

    with pytest.raises(EtcdUnreachable) as failure:
        Etcd([f"http://root:s3cret@127.0.0.1:{port}" for port in ports], TIMEOUT).get("a")

    assert all(f"127.0.0.1:{port}: " in str(failure.value) for port in ports)
    assert "s3cret" not in str(failure.value)


def test_a_call_ends_in_time_though_bytes_keep_coming():
    """The limit is for the whole call, not for each piece of its answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
                while not over.wait(0.02):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        try:
            with pytest.raises(EtcdUnreachable, match="timed out"):
                Etcd([f"http://127.0.0.1:{listener.getsockname()[1]}"], 0.3).get("a")
            assert time.monotonic() - begun < PATIENCE / 2
        finally:
            over.set()
            thread.join()


def test_a_certificate_is_checked(tmp_path, monkeypatch):
    pair = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with answering(lambda _: (200, b"{}"), context) as (url, _):
        with pytest.raises(EtcdUnreachable, match="certificate verify failed"):
            Etcd([url], TIMEOUT).get("a")

        monkeypatch.setenv("SSL_CERT_FILE", str(pair.certificate))
        assert Etcd([url], TIMEOUT).get("a") is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "etcd:2379",
        "ftp://etcd:2379",
        "http://",
        "http://etcd:port",
        "http://etcd:2379/v3",
        "http://u:s3cret@[etcd:1",
    ],
)
def test_what_is_no_url_of_an_etcd_is_refused(url):
    with pytest.raises(Invalid, match=r"fhir\.etcd") as refusal:
        Etcd([url], TIMEOUT)
    assert "s3cret" not in str(refusal.value)
