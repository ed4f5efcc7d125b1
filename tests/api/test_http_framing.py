"""Where requests end, over real sockets: Content-Length, chunks, 100-continue, and what would smuggle a request.

https://www.rfc-editor.org/rfc/rfc9112#section-6
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waitress.adjustments import Adjustments

from api.app import create_app
from api.framing import MAX_LINE, Chunks, Parser
from api.server import bind, server
from gitstore import Settings

MAX_BODY = 100_000
PATIENCE = 10
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"POST /seen HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Wire:
    """A server of ours on a free port, and what has reached the application behind it."""

    def __init__(self, app=None):
        self.seen = []
        listener = bind("127.0.0.1", 0)
        self.address = listener.getsockname()
        self._server = server(app or self._application, listener, threads=2, max_body=MAX_BODY)
        self._thread = threading.Thread(target=self._server.serve, args=(os.getppid(),))
        self._thread.start()

    def _application(self, environ, start_response):
        body = environ["wsgi.input"].read()
        self.seen.append((environ["PATH_INFO"], body))
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    def connect(self):
        return socket.create_connection(self.address, timeout=PATIENCE)

    def send(self, data, pause_after=()):
        """The answers to these bytes, until the server closes; it must, or this times out."""
        self.seen.clear()
        with self.connect() as connection:
            sent = 0
            for end in (*pause_after, len(data)):
                connection.sendall(data[sent:end])
                sent = end
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    def stop(self):
        self._server.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def wire():
    running = Wire()
    yield running
    running.stop()


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


REFUSED = {
    "two lengths of the same kind": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "lengths in a list": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length with a sign": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "a hexadecimal length": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with an underscore": HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
    "an empty length": HEAD + b"Content-Length:\r\n\r\n",
    "a length of 5,000 digits": HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a length in other digits": HEAD + "Content-Length: ٥\r\n\r\n".encode(),
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice in a list": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "an empty transfer encoding": HEAD + b"Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
    "a comma before chunked": HEAD + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab before chunked": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "a header on two lines": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a first header that is a continuation": b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /seen HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.2": CHUNKED.replace(b"1.1", b"1.2") + b"0\r\n\r\n",
    "HTTP/0.9": b"GET /seen\r\n\r\n",
    "HTTP/2.0": b"GET /seen HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a bare LF in the header": HEAD + b"X: a\nTransfer-Encoding: chunked\r\n\r\n",
    "bare LFs throughout": b"GET /seen HTTP/1.1\nHost: localhost\n\n",
    "a bare CR in a value": HEAD + b"X: a\rContent-Length: 5\r\n\r\n",
    "a NUL in a value": HEAD + b"X: a\0b\r\n\r\n",
    "a NUL in a name": HEAD + b"X\0: a\r\n\r\n",
    "a header without colon": HEAD + b"Content-Length 5\r\n\r\n",
    "a header without name": HEAD + b": 5\r\n\r\n",
    "two hosts": HEAD + b"Host: evil.example\r\n\r\n",
    "a tab in the request line": b"GET\t/seen\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two spaces in the request line": b"GET  /seen HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a target that can't be parsed": b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a chunk size with a sign": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with an underscore": CHUNKED + b"1_0\r\nhello\r\n0\r\n\r\n",
    "a space before a chunk size": CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "a chunk size that ends in LF": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "a chunk size that ends in LF CR LF": CHUNKED + b"5\n\r\nhello\r\n0\r\n\r\n",
    "a bare CR in a chunk's extension": CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a bare LF in a chunk's extension": CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an empty line for a chunk size": CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n",
    "a chunk that ends in LF": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "a chunk size of 30 digits": CHUNKED + b"F" * 30 + b"\r\n",
    "a chunk's extension without end": CHUNKED + b"5;" + b"x" * 2 * MAX_LINE,
    "a trailer that is none": CHUNKED + b"0\r\nnonsense\r\n\r\n",
    "a trailer with a bare LF": CHUNKED + b"0\r\nX: a\nY: b\r\n\r\n",
    "a trailer without end": CHUNKED + b"0\r\n" + b"X: a\r\n" * 20_000,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_two_servers_could_read_differently_is_refused(wire, case):
    """400, the connection is closed, and what comes after it is never taken for a request."""
    answer = wire.send(REFUSED[case] + HIDDEN)

    assert status_of(answer) == 400
    assert answer.count(b"X-Request-Id: ") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["issue"][0]["severity"] == "error"
    assert wire.seen == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n", 501),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (CHUNKED + b"FFFFFFFFFFFFFFFF\r\n", 413),
        (CHUNKED + b"%x\r\n" % (MAX_BODY + 1), 413),
        (CHUNKED + b"C350\r\n" + b"x" * 50_000 + b"\r\nC351\r\n", 413),
        (HEAD + b"X: " + b"x" * 70_000, 431),
    ],
)
def test_what_can_not_be_taken_is_refused_before_it_is_sent(wire, data, status):
    """413 as soon as the length is known: nothing of the body need come. 501: RFC 9112, section 6.1."""
    answer = wire.send(data)

    assert status_of(answer) == status
    assert wire.seen == []


BODIES = [
    (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    (HEAD + b"Content-Length: 005\r\n\r\nhello", b"hello"),
    (HEAD + b"\r\n", b""),
    (CHUNKED + b"0\r\n\r\n", b""),
    (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (CHUNKED + b"1\r\nh\r\n04\r\nello\r\n000\r\n\r\n", b"hello"),
    (CHUNKED + b'5;a=b;c="d;\xe4" \r\nhello\r\n0;x\r\n\r\n', b"hello"),
    (CHUNKED + b"5 ;a\r\nhello\r\n0\r\n\r\n", b"hello"),
    (CHUNKED + b"0\r\nX-Checksum: 1\r\nY:\r\n\r\n", b""),
    (CHUNKED + b"A\r\n0\r\n\r\n12345\r\n0\r\n\r\n", b"0\r\n\r\n12345"),
    (CHUNKED.replace(b"chunked", b"Chunked") + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
]


@pytest.mark.parametrize("pace", ["at once", "byte by byte"])
@pytest.mark.parametrize(("data", "body"), BODIES)
def test_a_body_ends_where_it_says(wire, data, body, pace):
    """And the request behind it is the next one, on the same connection."""
    last = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    answer = wire.send(data + last, pause_after=range(1, len(data)) if pace == "byte by byte" else ())

    assert answer.count(b"HTTP/1.1 200") == 2
    assert wire.seen == [("/seen", body), ("/last", b"")]


def test_a_chunked_body_of_the_limit_is_taken(wire):
    """And one byte more is 413, in whatever chunks it comes."""
    chunk = b"%x\r\n" % 1000 + b"x" * 1000 + b"\r\n"
    end = b"0\r\n\r\nGET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    fitting = (MAX_BODY - 1000) // len(chunk)

    assert status_of(wire.send(CHUNKED + chunk * fitting + end)) == 200
    assert len(wire.seen[0][1]) == 1000 * fitting
    assert status_of(wire.send(CHUNKED + chunk * 101)) == 413


def read_head(connection):
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += connection.recv(1)
    return data


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    ],
)
def test_a_client_that_waits_is_told_to_continue(wire, header, body):
    """https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1"""
    wire.seen.clear()
    with wire.connect() as connection:
        connection.sendall(HEAD + header + b"Expect: 100-Continue\r\n\r\n")
        assert read_head(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.seen == []
        connection.sendall(body)
        assert read_head(connection).startswith(b"HTTP/1.1 200")
    assert wire.seen == [("/seen", b"hello")]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Content-Length: 100001\r\n", 413),
        (b"Content-Length: x\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
    ],
)
def test_a_client_that_waits_is_told_at_once_that_it_is_in_vain(wire, header, status):
    """The final answer instead of 100: so it need not send what is refused."""
    answer = wire.send(HEAD + header + b"Expect: 100-continue\r\n\r\n")

    assert status_of(answer) == status
    assert b" 100 " not in answer


@pytest.mark.parametrize("header", [b"", b"Content-Length: 0\r\n"])
def test_a_client_without_a_body_need_not_wait(wire, header):
    """waitress alone would say 100, and then wait for ever for the body that there is not."""
    answer = wire.send(HEAD + header + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")

    assert status_of(answer) == 200
    assert wire.seen == [("/seen", b"")]


def test_an_old_client_does_not_wait(wire):
    """HTTP/1.0 has no 100."""
    data = b"POST /seen HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"

    assert status_of(wire.send(data)) == 200


def test_a_body_that_is_cut_off_reaches_nobody(wire):
    """The client has gone before its body was complete: there is no request."""
    wire.seen.clear()
    for data in (HEAD + b"Content-Length: 50\r\n\r\nhel", CHUNKED + b"5\r\nhello\r\n"):
        with wire.connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
    assert status_of(wire.send(HEAD + b"Connection: close\r\n\r\n")) == 200
    assert wire.seen == [("/seen", b"")]


def test_smuggling_does_not_get_through_to_the_record(store, clock, patient):
    """The whole server: the hidden DELETE of a refused request is not carried out, its neighbours are."""
    running = Wire(create_app(store, clock=clock))
    try:
        body = json.dumps(patient).encode()
        put = b"PUT /fhir/Patient/example HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        hidden = b"DELETE /fhir/Patient/example HTTP/1.1\r\nHost: localhost\r\n\r\n"
        close = b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert status_of(running.send(put + close + body)) == 201

        smuggled = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(hidden))
        assert status_of(running.send(put + smuggled + hidden)) == 400
    finally:
        running.stop()
    [version] = store.snapshot().resources("Patient")
    assert version.version_id == 1


def test_what_the_server_refuses_by_itself_is_not_sniffed(wire):
    """Section 18."""
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in wire.send(REFUSED["HTTP/0.9"])


def test_what_a_proxy_says_arrives(store, clock):
    """1.9: the peer's address is the socket's, and waitress leaves the headers alone."""
    head = b"GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nForwarded: proto=https\r\n\r\n"
    for trusted, base in (
        (("127.0.0.0/8",), b"https://localhost/fhir"),
        (("192.0.2.1",), b"http://localhost/fhir"),
    ):
        running = Wire(create_app(store, Settings(trusted_proxy=trusted), clock=clock))
        try:
            assert b'"url":"%b"' % base in running.send(head)
        finally:
            running.stop()


class Buffer:
    """Keeps what a receiver passes on."""

    def __init__(self):
        self.data = b""

    def append(self, data):
        self.data += data


def taken(data, cuts):
    """What a receiver makes of bytes that come in these pieces: the body, whether it ended, and how much it took."""
    buffer = Buffer()
    chunks = Chunks(buffer)
    used = 0
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        piece = data[start:end]
        count = chunks.received(piece)
        used += count
        if chunks.completed or chunks.error is not None:
            break
        assert count == len(piece)
    return SimpleNamespace(body=buffer.data, ended=chunks.completed, error=chunks.error, used=used)


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=20), st.lists(st.integers(0))
)
def test_what_was_cut_into_chunks_is_put_together(parts, behind, cuts):
    """However the network cuts it; and not a byte behind the end is taken."""
    data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"

    found = taken(data + behind, cuts)

    assert (found.body, found.ended, found.error) == (b"".join(parts), True, None)
    assert found.used == len(data)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.sampled_from("0123aF;\r\n x"), max_size=30), st.lists(st.integers(0), max_size=5))
def test_how_bytes_arrive_makes_no_difference(text, cuts):
    """The same end, mistake and body as in one piece."""
    whole, pieces = taken(text.encode(), []), taken(text.encode(), cuts)

    assert (whole.body, whole.ended, whole.error is None) == (pieces.body, pieces.ended, pieces.error is None)


def test_a_long_line_takes_no_long_time():
    """waitress's receiver looks at all of an endless line again with each packet."""
    chunks = Chunks(Buffer())
    started = time.process_time()

    for _ in range(10_000):
        chunks.received(b"5;" + b"x" * 8000)

    assert chunks.error is not None
    assert time.process_time() - started < 1


def test_half_a_header_has_a_path_to_be_logged():
    """A client that drips and hangs up just before its 408: waitress logs the path of what it was about to be told."""
    half = Parser(Adjustments())
    half.received(b"GET /fhir/Patient HTT")

    assert half.path == ""
