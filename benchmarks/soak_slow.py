"""Those who hang on during a soak: they send a byte now and then, or take an answer a few bytes at a time."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import suppress

from benchmarks.soak_clients import JSON, PAUSE


class Dripper(threading.Thread):
    """Hangs on, again and again, until the server has had enough: `kind` is header, body or reader."""

    def __init__(self, kind: str, port: int, secret: str, running: threading.Event) -> None:
        super().__init__(name=f"slow {kind}", daemon=True)
        self.kind = kind
        self.ends: Counter[str] = Counter()
        self._port = port
        self._authorization = f"Authorization: Bearer {secret}\r\n"
        self._running = running

    def run(self) -> None:
        while self._running.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=1.0) as connection:
                    self.ends[self._hang_on(connection)] += 1
            except OSError as error:
                self.ends[type(error).__name__] += 1
                time.sleep(PAUSE)

    def _hang_on(self, connection: socket.socket) -> str:
        begin = (
            f"POST /fhir/Patient HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._authorization}Content-Type: {JSON}\r\n"
        )
        if self.kind == "reader":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            question = "GET /fhir/Patient/_history?_count=1000 HTTP/1.1"
            connection.sendall(f"{question}\r\nHost: 127.0.0.1\r\n{self._authorization}\r\n".encode())
            return self._take(connection)
        connection.sendall(begin.encode())
        if self.kind == "body":
            connection.sendall(b"Content-Length: 100000\r\n\r\n{")
        return self._drip(connection)

    def _take(self, connection: socket.socket) -> str:
        while self._running.is_set():
            with suppress(TimeoutError):
                if not connection.recv(64):
                    return "closed"
            time.sleep(0.2)
        return "still taking"

    def _drip(self, connection: socket.socket) -> str:
        connection.settimeout(0.3)
        while self._running.is_set():
            connection.sendall(b" " if self.kind == "body" else b"x")
            with suppress(TimeoutError):
                return connection.recv(100).decode(errors="replace").partition("\r\n")[0] or "closed"
        return "still dripping"
