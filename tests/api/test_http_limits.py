"""What crosses a limit is refused, closed or made to wait; the server is well afterwards. docs/operations.md, "Limits" """

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.app import create_app
from api.channel import IDLE, IDLE_IN_A_CROWD, LINGER, SLOWEST, Stage, Watch
from api.tls import HANDSHAKE, context
from tests.api.wires import Driven, certificate, status_of

RECEIVE = 30
"""Seconds that a header may take."""

HEAD = b"PUT /fhir/Patient/example HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
ASKED = b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n"
BIG = 24 * 1024 * 1024


@pytest.fixture
def driven():
    """Makes servers; they are stopped at the end."""
    made = []

    def make(app, **options):
        made.append(Driven(app, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def fhir(driven, store, settings, clock):
    """The whole server."""
    return driven(create_app(store, settings, clock=clock), receive_timeout=RECEIVE)


def application(environ, start_response):
    """As large an answer as is asked for, in three pieces."""
    size = {"/big": BIG, "/half": BIG // 2}.get(environ["PATH_INFO"], 3)
    start_response("200 OK", [("Content-Length", str(size))])
    return [b"x" * (size // 3)] * 3


def is_full(server):
    """Whether the one connection has as much to send as waitress takes before it makes the application wait."""
    return server.channels and server.channels[0].total_outbufs_len > 15 * 1024 * 1024


def outcome_of(answer):
    return json.loads(answer.partition(b"\r\n\r\n")[2])["issue"][0]


def test_a_header_that_drips_is_not_waited_for(fhir):
    """Slowloris: a byte a second keeps a connection open for as long as a header may take, and no longer. 408"""
    client = fhir.connect()
    client.sendall(HEAD)
    for _ in range(RECEIVE):
        fhir.forward(1)
        client.sendall(b"x")
    assert len(fhir.channels) == 1

    fhir.forward(3)
    answer = fhir.read(client)

    assert status_of(answer) == 408
    assert outcome_of(answer)["code"] == "timeout"
    assert fhir.is_healthy()


def test_empty_lines_before_a_header_win_no_time(fhir):
    """https://www.rfc-editor.org/rfc/rfc9112#section-2.2"""
    client = fhir.connect()
    client.sendall(b"\r\nGET / HTTP/1.1\r\n")
    fhir.turn()

    fhir.forward(RECEIVE + 2)

    assert status_of(fhir.read(client)) == 408


def test_a_body_that_drips_is_not_waited_for(fhir):
    """Not even where it has come fast before: in any so many seconds so many bytes."""
    client = fhir.connect()
    client.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 90_000)
    fhir.turn()
    for _ in range(RECEIVE):
        fhir.forward(1)
        client.sendall(b"x")
    assert len(fhir.channels) == 1

    fhir.forward(3)
    answer = fhir.read(client)

    assert status_of(answer) == 408
    assert "less than" in outcome_of(answer)["details"]["text"]
    assert fhir.is_healthy()


def test_a_slow_body_that_keeps_coming_is_taken(fhir):
    """A client on a bad line is no attacker: 64 KiB in as many seconds as it needs at the slowest rate."""
    text = b'{"resourceType": "Patient", "id": "example"}'
    body = text + b" " * (40_000 - len(text))
    client = fhir.connect()
    client.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
    for start in range(0, len(body), SLOWEST + 100):
        fhir.forward(1)
        client.sendall(body[start : start + SLOWEST + 100])

    assert status_of(fhir.read(client)) == 201


def test_the_time_of_a_header_does_not_run_while_the_server_works(driven):
    """A second request that came with the first waits for its answer, however long that takes."""
    working, go_on = threading.Event(), threading.Event()

    def slow(environ, start_response):
        working.set()
        go_on.wait()
        return application(environ, start_response)

    server = driven(slow, receive_timeout=RECEIVE)
    client = server.connect()
    client.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n")
    server.turn_until(working.is_set)
    server.forward(10 * RECEIVE)
    go_on.set()
    assert status_of(server.read(client, lambda data: data.endswith(b"xxx"))) == 200

    server.forward(1)
    client.sendall(b"Host: a\r\nConnection: close\r\n\r\n")

    assert status_of(server.read(client)) == 200


def test_a_connection_without_requests_is_closed(fhir):
    """An idle one after two minutes; one that sends a request now and then stays."""
    idle, busy = fhir.connect(), fhir.connect()
    fhir.turn()
    for _ in range(5):
        fhir.forward(IDLE / 2)
        busy.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status_of(fhir.read(busy, lambda data: data.endswith(b"}"))) == 200
        fhir.turn_until(lambda: all(channel.idle for channel in fhir.channels))

    assert fhir.read(idle) == b""
    assert len(fhir.channels) == 1


def test_a_reader_that_takes_nothing_is_disconnected(driven):
    """Also while its request is still carried out: no thread waits for it for ever, and the answer takes no memory."""
    server = driven(application, threads=1)
    client = server.connect(receive_buffer=4096)
    client.sendall(ASKED)
    server.turn_until(lambda: is_full(server))

    server.forward(IDLE / 2)
    assert len(server.channels) == 1
    for _ in range(2):  # while the kernel's buffers fill up the answer still gets on
        server.forward(IDLE + 2)

    assert server.channels == []
    assert server.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200, "the only thread is free again"


def test_a_reader_that_drips_is_disconnected(driven):
    """A few bytes now and then are no progress."""
    server = driven(application)
    client = server.connect(receive_buffer=4096)
    client.sendall(ASKED)
    server.turn_until(lambda: is_full(server))
    for _ in range(12):
        server.forward(IDLE / 4)
        server.read(client, bool)

    assert server.channels == []


def test_a_slow_reader_that_goes_on_gets_it_all(driven):
    """Slow all the time, but never too slow: the answer is complete in the end."""
    server = driven(application)
    client = server.connect()
    client.sendall(b"GET /half HTTP/1.0\r\n\r\n")
    server.turn_until(lambda: server.channels and server.channels[0].sent)
    received = 0
    while server.channels:
        received += len(server.read(client, lambda data: len(data) >= BIG // 10))
        server.forward(IDLE * 0.9)

    assert received + len(server.read(client)) > BIG // 2


def test_an_answer_that_nobody_takes_is_kept_on_disk(driven):
    """Not in memory: of each connection a megabyte at most."""
    server = driven(application)
    client = server.connect(receive_buffer=4096)
    tracemalloc.start()
    client.sendall(ASKED)
    server.turn_until(lambda: is_full(server))
    server.turn()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert held < BIG // 3 + 4 * 1024 * 1024, "the piece that the application has in hand, and no more"


def test_a_refused_client_that_goes_on_sending_is_left_in_the_end(fhir):
    """413, and after some seconds the connection is cut."""
    client = fhir.connect()
    client.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n" + b"x" * 1000)
    assert status_of(fhir.read(client)) == 413
    fhir.forward(1)
    assert len(fhir.channels) == 1

    fhir.forward(LINGER + 2)

    assert fhir.channels == []
    assert fhir.is_healthy()


def test_more_requests_than_may_wait_are_refused(driven):
    """One runs, one waits, the third is 503 with Retry-After at once; afterwards all is as before."""
    working, go_on = threading.Event(), threading.Event()

    def slow(environ, start_response):
        working.set()
        go_on.wait()
        return application(environ, start_response)

    server = driven(slow, threads=1, waiting=1)
    clients = [server.connect() for _ in range(3)]
    clients[0].sendall(b"GET /1 HTTP/1.0\r\n\r\n")
    server.turn_until(working.is_set)
    clients[1].sendall(b"GET /2 HTTP/1.0\r\n\r\n")
    server.turn_until(lambda: server.server.task_dispatcher.queue)
    clients[2].sendall(b"GET /3 HTTP/1.0\r\n\r\n")

    refused = server.read(clients[2])
    go_on.set()

    assert status_of(refused) == 503
    assert b"\r\nRetry-After: 1\r\n" in refused
    assert outcome_of(refused)["code"] == "transient"
    assert [status_of(server.read(client)) for client in clients[:2]] == [200, 200]
    assert server.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200


def test_a_malformed_request_does_not_wait_for_a_thread(driven):
    """What is refused is refused at once, also where all threads are busy."""
    working, go_on = threading.Event(), threading.Event()

    def slow(environ, start_response):
        working.set()
        go_on.wait()
        return application(environ, start_response)

    server = driven(slow, threads=1)
    first, second = server.connect(), server.connect()
    first.sendall(b"GET /1 HTTP/1.0\r\n\r\n")
    server.turn_until(working.is_set)
    second.sendall(b"nonsense\r\n\r\n")

    assert status_of(server.read(second)) == 400
    go_on.set()
    assert status_of(server.read(first)) == 200


def test_one_connection_too_many_waits(driven):
    """Until another is closed: it is neither refused nor lost."""
    server = driven(application, connections=2)
    first, second, third = (server.connect() for _ in range(3))
    server.turn_until(lambda: len(server.channels) == 2)
    third.sendall(b"GET / HTTP/1.0\r\n\r\n")
    server.turn(20)
    assert len(server.channels) == 2

    first.close()

    assert status_of(server.read(third)) == 200
    second.close()
    assert server.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200


def test_in_a_crowd_idle_connections_make_room(driven):
    """Whoever holds many connections without a request can't keep others out for two minutes."""
    server = driven(application, connections=2)
    idle = [server.connect() for _ in range(2)]
    server.turn_until(lambda: len(server.channels) == 2)
    waiting = server.connect()
    waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
    server.turn()

    server.forward(IDLE_IN_A_CROWD + 2)

    assert status_of(server.read(waiting)) == 200
    assert [server.read(each) for each in idle] == [b"", b""]


def test_a_handshake_that_drips_is_not_waited_for(driven, tmp_path):
    """As for a header."""
    pair = certificate(tmp_path)
    server = driven(application, tls=context(pair.certificate, pair.key))
    silent, dripping = server.connect(), server.connect()
    server.turn_until(lambda: len(server.channels) == 2)
    for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03":
        dripping.sendall(bytes([byte]))
        server.forward(HANDSHAKE / 10)
    assert len(server.channels) == 2

    server.forward(2)

    assert server.read(silent) == b""
    assert server.read(dripping) == b""
    assert server.channels == []


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 65_536 + b"\r\n\r\n", 431, "too-long"),
        (
            b"GET /fhir/Patient?_id=" + b"x" * 65_536 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            431,
            "too-long",
        ),
        (
            b"GET /fhir/Patient?_id=" + b"x" * 57_344 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            413,
            "too-long",
        ),
        (HEAD + b"Content-Length: 10000001\r\n\r\n", 413, "too-long"),
        (HEAD + b"Content-Length: 60000\r\n\r\n" + b" " * 60_000, 413, "too-long"),
    ],
)
def test_what_is_too_large_is_refused(fhir, request_bytes, status, code):
    """Header, URL and body."""
    got, answer = fhir.ask(request_bytes)

    assert (got, outcome_of(answer)["code"]) == (status, code)
    assert fhir.is_healthy()


@given(
    st.floats(1, 1000),
    st.integers(1, 10_000),
    st.lists(st.tuples(st.floats(0.1, 50), st.integers(0, 100_000)), min_size=1, max_size=60),
)
def test_a_watch_lets_go_on_what_moves_and_nothing_else(seconds, rate, looks):
    """Whoever keeps to the rate in every interval is never overdue; whoever moves nothing is, soon after the time."""
    steady, stuck = Watch(), Watch()
    now, moved, last = 0.0, 0, False
    steady.is_overdue(Stage("x", seconds, rate, 0), now)
    stuck.is_overdue(Stage("x", seconds, rate, 0), now)
    for step, extra in looks:
        now += step
        moved += int(rate * (step + seconds)) + extra + 1
        assert not steady.is_overdue(Stage("x", seconds, rate, moved), now)
        last = stuck.is_overdue(Stage("x", seconds, rate, 0), now)
        assert last == (now > seconds)


@given(st.floats(1, 100), st.floats(0, 1000))
def test_a_watch_begins_anew_with_each_stage(seconds, before):
    """What went before says nothing about what comes."""
    watch = Watch()
    watch.is_overdue(Stage("one", seconds), 0.0)

    assert not watch.is_overdue(Stage("two", seconds), before)
    assert not watch.is_overdue(Stage("two", seconds), before + seconds / 2)
    assert watch.is_overdue(Stage("two", seconds), before + seconds * 2)


def test_a_worker_may_have_files_for_all_its_connections():
    """A connection takes up to three; most systems give a process 1,024 until it asks for more."""
    program = (
        "import resource as r; from api.serving import allow_files; r.setrlimit(r.RLIMIT_NOFILE, (100, 200)); "
        "allow_files(150); print(r.getrlimit(r.RLIMIT_NOFILE)); allow_files(5000); print(r.getrlimit(r.RLIMIT_NOFILE)); "
        "allow_files(10); print(r.getrlimit(r.RLIMIT_NOFILE))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["(150, 200)", "(200, 200)", "(200, 200)"]


def test_the_table_of_limits_names_tests_that_there_are():
    """docs/operations.md, "Limits": the last column is a promise."""
    root = Path(__file__).parents[2]
    section = (
        (root / "docs" / "operations.md").read_text().partition("\n## Limits\n")[2].partition("\n## ")[0]
    )
    named = set(re.findall(r"`(test_\w+)`", section))

    there = set()
    for path in (root / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    assert len(named) > 15
    assert named <= there
