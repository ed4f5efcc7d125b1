"""A connection: requests and answers as waitress has them, errors as OperationOutcomes, and an end to slow clients."""

from __future__ import annotations

import math
import secrets
import socket
import threading
from collections.abc import Hashable
from contextlib import suppress
from typing import Any

from msgspec import Struct
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import Error

from api import errors, log
from api.framing import Parser
from api.proxy import HSTS
from api.request import FHIR_JSON

LINGER = 10.0

IDLE = 120.0
"""Seconds after which a connection without a request is closed, and one whose client takes nothing of its answer."""

IDLE_IN_A_CROWD = 5.0
"""The same for connections without a request, while the worker has as many as it may have."""

SLOWEST = 4096
"""Bytes a second that a client has to send of a body, or to take of an answer."""


class TooSlow(Error):
    """https://www.rfc-editor.org/rfc/rfc9110#section-15.5.9"""

    code = 408
    reason = "Request Timeout"


class Busy(Error):
    """https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4"""

    code = 503
    reason = "Service Unavailable"


class NothingYet(Exception):
    """There is nothing to read, though the socket seemed to have something."""


class Stage(Struct, frozen=True):
    """What a connection is at. It has to end within `seconds`; but where `rate` is not 0 it may go on for as long as in
    so many seconds `rate` bytes a second have moved. `moved` is the count of all so far.
    """

    key: Hashable
    seconds: float
    rate: int = 0
    moved: int = 0


class Watch:
    """Tells when something doesn't get on, from looks that are taken at it now and then."""

    _stage: Stage | None = None
    _since = 0.0

    def is_overdue(self, stage: Stage, now: float) -> bool:
        """Whether this stage, which must be another look at the same connection, has had its time. `now` in seconds."""
        before = self._stage
        if before is None or before.key != stage.key:
            self._stage, self._since = stage, now
            return False
        if now - self._since <= stage.seconds:
            return False
        if stage.rate and stage.moved - before.moved >= stage.rate * stage.seconds:
            self._stage, self._since = stage, now
            return False
        return True


class OutcomeTask(ErrorTask):
    """What is answered without the application (a malformed request, one too large, too slow, too many) as an
    OperationOutcome.
    """

    def execute(self) -> None:
        fault = self.request.error  # type: ignore[attr-defined]  # types-waitress calls the parser an Error
        status = int(fault.code)
        request_id = secrets.token_hex(8)
        text = f"{fault.reason}: {fault.body.rstrip('.')}."
        if status == 413:
            text = f"The body is larger than the limit of {self.channel.adj.max_request_body_size - 1} bytes."
        if status == 500:
            text = f"The server failed unexpectedly. Its log tells more about request {request_id}."
        body = errors.outcome_bytes(errors.issues_of(status, text))
        self.status = f"{status} {fault.reason}"
        self.response_headers = [
            ("Content-Type", FHIR_JSON),
            ("Cache-Control", "private, no-cache"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Request-Id", request_id),
        ]
        if status == 503:
            self.response_headers.append(("Retry-After", str(errors.RETRY_AFTER)))
        if self.channel.adj.url_scheme == "https":
            self.response_headers.append(HSTS)
        self.set_close_on_finish()
        self.content_length = len(body)
        if isinstance(self.channel, Channel):
            self.channel.refused = True
            self.channel.server.count_refusal(status, len(body))
        log.access(
            request_id=request_id,
            author="anonymous",
            method="",
            path="",
            status=status,
            milliseconds=0.0,
            size=len(body),
        )
        self.write(body)


class Task(WSGITask):
    """One request of the application."""

    def set_close_on_finish(self) -> None:
        """Leave the connection open after a 204 or 304, and close it after any answer once the server stops.

        waitress closes where an answer has no Content-Length. These two end with their header whatever it says:
        https://www.rfc-editor.org/rfc/rfc9112#section-6.3
        """
        asked = self.request.headers.get("CONNECTION", "")  # type: ignore[attr-defined]  # as above
        if self.has_body or self.version == "1.0" or asked.lower() == "close" or self._is_the_last:
            super().set_close_on_finish()

    def build_response_header(self) -> bytes:
        if self._is_the_last:
            self.set_close_on_finish()
        return super().build_response_header()

    @property
    def _is_the_last(self) -> bool:
        return isinstance(self.channel, Channel) and bool(self.channel.server.draining)


class Channel(HTTPChannel):
    """A connection.

    A request that is refused for its size may still be arriving. To close the socket then would make the kernel send a
    reset, and that can overtake the answer: so the rest is read and dropped first, for LINGER seconds at most.
    https://www.rfc-editor.org/rfc/rfc9112#section-9.6
    """

    task_class = Task
    error_task_class = OutcomeTask
    parser_class = Parser
    server: Any  # api.server.Server, which knows this class
    requests: list[Any]
    requests_lock: threading.Lock
    refused = False
    lingering = False
    taken = 0
    """Bytes that came from the client."""

    sent = 0

    def __init__(self, server: Any, sock: Any, addr: Any, adj: Any, map: Any = None) -> None:
        super().__init__(server, sock, addr, adj, map)
        self._watch = Watch()

    @property
    def idle(self) -> bool:
        """Whether no request is running, waiting, or half received, and no answer is still going out."""
        return not self.requests and self.request is None and not self.total_outbufs_len

    def look(self, now: float) -> None:
        """End what takes its time. Called every second or so by the thread that reads; `now` in seconds.

        waitress by itself closes a connection only where nothing at all moves, so that a byte a minute keeps it open for
        ever; never while a request is carried out, though it may be waiting for the client to take the answer; and it
        waits for the socket to be writable even then.
        """
        stage = self.stage()
        if not self._watch.is_overdue(stage, now):
            return
        if stage.key is self.request:
            self._refuse(TooSlow(self._too_slow()))
            return
        if self.total_outbufs_len:
            log.SERVER.info("a client that takes too long over its answer is disconnected")
        self.handle_close()

    def stage(self) -> Stage:
        """What the connection is at, and how long it may be."""
        if self.lingering:
            return Stage("refused", LINGER)
        if self.total_outbufs_len:
            return Stage(("answer", self.taken), IDLE, SLOWEST, self.sent)
        if self.requests:
            return Stage("work", math.inf)
        request = self.request
        if request is None:
            return Stage(
                ("idle", self.taken), IDLE_IN_A_CROWD if self.server.in_connection_overflow else IDLE
            )
        if request.headers_finished:
            return Stage(request, self.server.receive_timeout, SLOWEST, request.body_bytes_received)
        return Stage(request, self.server.receive_timeout)

    def _too_slow(self) -> str:
        seconds = self.server.receive_timeout
        if self.request is not None and self.request.headers_finished:
            return f"In {seconds:g} s less than {seconds * SLOWEST:.0f} bytes of the body have arrived"
        return f"The header has not arrived within {seconds:g} s"

    def _refuse(self, fault: Error) -> None:
        """Answer the request that is only half there."""
        with self.requests_lock:
            request = self.request
            if request is None or self.requests:  # it has been completed meanwhile
                return
            request.error = fault
            request.completed = True
            self.requests.append(request)
            self.request = None
            self.server.add_task(self)

    def handle_close(self) -> None:
        if self.refused and not self.lingering and self.socket is not None:
            self.lingering = True
            self.will_close = False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:  # the client has gone: there is nobody to linger for
                super().handle_close()
        else:
            super().handle_close()

    def send(self, data: bytes, do_close: bool = True) -> int:
        count = super().send(data, do_close)
        self.sent += count
        return count

    def recv(self, buffer_size: int) -> bytes:
        """Raises NothingYet: waitress would take it for the end."""
        try:
            data = super().recv(buffer_size)
        except BlockingIOError as error:
            raise NothingYet from error
        self.taken += len(data)
        return data

    def readable(self) -> bool:
        return self.lingering or super().readable()

    def handle_read(self) -> None:
        with suppress(NothingYet):
            if self.lingering:
                self.recv(64 * 1024)  # closes the channel where the client has closed
            else:
                super().handle_read()

    def writable(self) -> bool:
        return self.will_close if self.lingering else super().writable()

    def handle_write(self) -> None:
        if self.lingering:
            super().handle_close()
        else:
            super().handle_write()
