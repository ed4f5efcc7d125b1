"""A load generator: clients with one connection each, that send a request, wait for its answer, and send the next.

It has to share the machine with what it measures, so it does as little as it can: requests are bytes made beforehand, of
an answer only the status and the length are looked at, one thread of each process waits for all its connections. What it
costs is counted too (`Tally.cpu`).
"""

from __future__ import annotations

import multiprocessing
import select
import socket
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol

PATIENCE = 60.0
"""Seconds without any answer after which the server is taken for dead."""

_ERRORS = 5
"""So many errors of a process are told; all are counted."""


class Ask(NamedTuple):
    """One request: what it is called in the tables, its bytes, and the status that it has to be answered with.

    `learn` gets the header of the answer.
    """

    verb: str
    request: bytes
    status: bytes = b"200"
    learn: Callable[[bytes], None] | None = None


class Script(Protocol):
    """What one client asks for."""

    def next(self) -> Ask | None:
        """None where there is nothing more."""


MakeScript = Callable[[int], Script]
"""The script of the client of this number."""


@dataclass
class Tally:
    """What came of some seconds of load.

    `taken` are the seconds of each request by verb, `spent` the seconds by the clock until the last answer, `cpu` those of
    the processor that the generator needed. `errors` are the first few of `failed` wrong answers.
    """

    taken: dict[str, array[float]] = field(default_factory=dict)
    spent: float = 0.0
    cpu: float = 0.0
    failed: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(map(len, self.taken.values()))

    def add(self, other: Tally) -> None:
        """Take in what another process did at the same time."""
        for verb, taken in other.taken.items():
            self.taken.setdefault(verb, array("d")).extend(taken)
        self.spent = max(self.spent, other.spent)
        self.cpu += other.cpu
        self.failed += other.failed
        self.errors += other.errors


class _Client:
    """One connection. `began` is when its request was sent."""

    def __init__(self, port: int, script: Script) -> None:
        self.script = script
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0
        self._had = b""

    def send(self) -> bool:
        """Send the next request; False where there is none."""
        ask = self.script.next()
        if ask is None:
            return False
        self.ask = ask
        self.began = time.perf_counter()
        self.socket.sendall(ask.request)
        return True

    def receive(self) -> str | None:
        """What is wrong with the answer, "" where nothing is; None while it is not whole."""
        data = self.socket.recv(262_144)
        if not data:
            return "the connection was closed"
        data = self._had = self._had + data if self._had else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        start = data.find(b"\r\nContent-Length: ", 0, end)
        length = int(data[start + 18 : data.find(b"\r\n", start + 18)]) if start >= 0 else 0
        if len(data) < end + 4 + length:
            return None
        self._had = b""
        status = data[9:12]
        if status != self.ask.status or (start < 0 and status not in (b"204", b"304")):
            return data[9:800].decode("utf-8", "replace")
        if self.ask.learn is not None:
            self.ask.learn(data[: end + 2])
        return ""


def _drive(clients: Sequence[_Client], seconds: float) -> Tally:
    """Let all clients ask for so many seconds, and wait for the last answers."""
    tally = Tally()
    taken: dict[str, array[float]] = {}
    waiting = select.epoll(len(clients))
    by_descriptor = {client.socket.fileno(): client for client in clients}
    cpu, begun = time.process_time(), time.perf_counter()
    end = begun + seconds
    for descriptor in by_descriptor:
        waiting.register(descriptor, select.EPOLLIN)
    now, open_requests = begun, sum(client.send() for client in clients)
    while open_requests:
        ready = waiting.poll(PATIENCE)
        if not ready:
            raise TimeoutError(f"no answer in {PATIENCE:g} s")
        for descriptor, _ in ready:
            client = by_descriptor[descriptor]
            fault = client.receive()
            if fault is None:
                continue
            now = time.perf_counter()
            if fault:
                tally.failed += 1
                tally.errors += [f"{client.ask.verb}: {fault}"] if len(tally.errors) < _ERRORS else []
                open_requests -= 1  # it may be out of step: this client has had its round
                continue
            times = taken.get(client.ask.verb)
            if times is None:
                times = taken[client.ask.verb] = array("d")
            times.append(now - client.began)
            if now >= end or not client.send():
                open_requests -= 1
    waiting.close()
    tally.taken, tally.spent, tally.cpu = taken, now - begun, time.process_time() - cpu
    return tally


def _process(port: int, numbers: range, make: MakeScript, orders: Connection) -> None:
    """A process of the generator: each number of seconds that it gets is answered with a Tally; None ends it."""
    clients = [_Client(port, make(number)) for number in numbers]
    orders.send(None)
    while (seconds := orders.recv()) is not None:
        orders.send(_drive(clients, seconds))
    for client in clients:
        client.socket.close()


class Crew:
    """So many clients in some processes, whose connections stay open between rounds."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def run(self, seconds: float) -> Tally:
        """One round."""
        for pipe in self._pipes:
            pipe.send(seconds)
        whole = Tally()
        for pipe in self._pipes:
            whole.add(pipe.recv())
        return whole


@contextmanager
def crew(port: int, make: MakeScript, clients: int, processes: int = 1) -> Iterator[Crew]:
    """Clients that are connected and ready, shared out among the processes."""
    fork = multiprocessing.get_context("fork")  # scripts need not be pickled
    pipes, children = [], []
    for first in range(min(processes, clients)):
        ours, theirs = fork.Pipe()
        numbers = range(first, clients, processes)
        child = fork.Process(target=_process, args=(port, numbers, make, theirs), daemon=True)
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    try:
        for pipe in pipes:
            pipe.recv()
        yield Crew(pipes)
        for pipe in pipes:
            pipe.send(None)
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.join(PATIENCE)
