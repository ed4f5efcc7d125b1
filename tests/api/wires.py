"""A server of ours whose loop the test itself turns, by a clock that only the test moves; and certificates for TLS."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api.server import LOOKS, Server, bind, server

PATIENCE = 20
"""Seconds of real time after which a test that waits has failed."""


class Seconds:
    """A clock of seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pair(NamedTuple):
    """Files of a self-signed certificate and of its key."""

    certificate: str
    key: str
    serial: int

    def trusting(self) -> ssl.SSLContext:
        """A client's context that knows this certificate alone."""
        return ssl.create_default_context(cafile=self.certificate)


def certificate(folder: Path, host: str = "localhost", *, password: bytes | None = None) -> Pair:
    """A new certificate for `host` and its key, in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=10))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
        )
    )
    return Pair(str(folder / "cert.pem"), str(folder / "key.pem"), made.serial_number)


def dispose(served: Server) -> None:
    """Give back the threads and files of a server whose loop has ended."""
    served.task_dispatcher.shutdown()
    served.refusals.shutdown()
    served.close()


class Driven:
    """A server on a free port that does nothing but while the test turns it."""

    def __init__(self, app: Any, *, threads: int = 2, max_body: int = 10_000_000, **options: Any) -> None:
        self.clock = Seconds()
        listener = bind("127.0.0.1", 0)
        self.address = listener.getsockname()
        self.server = server(app, listener, threads=threads, max_body=max_body, clock=self.clock, **options)
        self._clients: list[socket.socket] = []

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        """A client that doesn't block."""
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(self.address)
        client.setblocking(False)
        self._clients.append(client)
        return client

    @property
    def channels(self) -> list[Any]:
        return self.server._channels()

    def turn(self, times: int = 5) -> None:
        for _ in range(times):
            self.server._turn(0.002)

    def turn_until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "what the test waits for doesn't happen"
            self.server._turn(0.01)

    def forward(self, seconds: float) -> None:
        """Time passes: a second, after which the server looks at its clients, and then the rest at once."""
        for step in (LOOKS, seconds - LOOKS):
            self.clock.now += max(step, 0)
            self.turn()

    def read(self, client: socket.socket, enough: Callable[[bytes], bool] = lambda _: False) -> bytes:
        """What comes until it is enough, or the server closes."""
        data = bytearray()
        ended = False

        def come() -> bool:
            nonlocal ended
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                piece = client.recv(1 << 16)
                ended = not piece
                data.extend(piece)
            return ended or enough(bytes(data))

        self.turn_until(come)
        return bytes(data)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and the whole answer of a request on a connection of its own."""
        client = self.connect()
        client.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        answer = self.read(client)
        return status_of(answer), answer

    def is_healthy(self) -> bool:
        return self.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        for channel in [*self.channels, *self.channels]:  # one that was refused lingers at first
            channel.handle_close()
        dispose(self.server)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
