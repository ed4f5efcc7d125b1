"""The load generator of the benchmarks: what it counts, and that nothing wrong goes unseen."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from benchmarks import load, scripts
from benchmarks.scripts import Record
from gitstore.fhir import validation

ANSWER = b'HTTP/1.1 200 OK\r\nEtag: W/"7"\r\nContent-Length: 3\r\n\r\nyes'
EMPTY = b"HTTP/1.1 304 Not Modified\r\n\r\n"

Serve = Callable[[bytes], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Gives the port of a server that sends these bytes for each request, in two pieces."""
    listeners = []

    def answer(connection: socket.socket, data: bytes) -> None:
        with connection:
            while connection.recv(65536):
                connection.sendall(data[:20])
                connection.sendall(data[20:])

    def start(data: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed: the test is over
                    return
                threading.Thread(target=answer, args=(connection, data), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def asks(count: int, *, status: bytes = b"200") -> load.MakeScript:
    return lambda _: scripts.Once([load.Ask("read", scripts.get("Patient/1"), status)] * count)


def drive(port: int, make: load.MakeScript, clients: int = 1, processes: int = 1) -> load.Tally:
    with load.crew(port, make, clients, processes) as crew:
        return crew.run(60)


def test_every_answer_is_counted_over_all_processes(serve: Serve) -> None:
    tally = drive(serve(ANSWER), asks(5), clients=4, processes=2)

    assert (tally.count, tally.failed, tally.errors) == (20, 0, [])
    assert all(0 < seconds < 60 for seconds in tally.taken["read"])


def test_another_status_than_expected_is_an_error_that_is_told(serve: Serve) -> None:
    tally = drive(serve(ANSWER), asks(5, status=b"201"))

    assert (tally.count, tally.failed) == (0, 1)
    assert "200 OK" in tally.errors[0]


def test_an_answer_without_a_body_ends_with_its_header(serve: Serve) -> None:
    assert drive(serve(EMPTY), asks(3, status=b"304")).count == 3


def test_a_connection_that_ends_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:

        def hang_up() -> None:
            connection = closing.accept()[0]
            connection.recv(65536)  # or its end would come as a reset, and maybe before the request
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        tally = drive(closing.getsockname()[1], asks(1))
    assert tally.errors == ["read: the connection was closed"]


def test_a_script_learns_from_the_header_of_its_answer() -> None:
    """Updates with If-Match send the tag that the last answer told."""
    script = scripts.updates(Record(10, 1))(0)
    first = script.next()
    assert first is not None
    assert first.learn is not None
    assert first.request.startswith(b"GET ")

    first.learn(ANSWER)
    for _ in range(len(Record(10, 1).own(0)[:5]) - 1):
        script.next()
    again = script.next()

    assert again is not None
    assert b'\r\nIf-Match: W/"7"\r\n' in again.request


@pytest.mark.parametrize("clients", [1, 8, 64])
def test_no_two_clients_update_the_same_and_what_is_read_at_a_version_is_never_updated(clients: int) -> None:
    record = Record(1000, clients)
    own = [set(record.own(client)) for client in range(clients)]

    assert sum(map(len, own)) == len(set().union(*own))
    assert set().union(*own) | set(record.still()) == set(range(1000))
    assert not set().union(*own) & set(record.still())


def test_what_is_sent_is_valid() -> None:
    """A benchmark of refusals would be fast."""
    found = [validation.issues(each) for each in scripts.initial(25)]

    assert [issue for issues in found for issue in issues if issue.severity == "error"] == []
