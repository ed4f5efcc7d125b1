"""waitress as this house needs it: errors that are OperationOutcomes, a stop that loses no request, workers.

The master binds the socket and starts the workers. It opens no repository, database, lock or thread: a forked child would
inherit them, an flock included.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, WSGITask

from api import errors, log
from api.framing import Parser
from api.request import FHIR_JSON
from gitstore import StoreError

GRACE = 30.0
"""Seconds that requests in flight are given when the server stops."""

RETIREMENT = 5.0
"""Seconds that a worker which is being replaced leaves idle connections open: whoever sends a request meanwhile gets its
answer, with `Connection: close`, and not a closed connection.
"""

LINGER = 10.0

MAX_HEADER = 64 * 1024
BACKLOG = 1024
CONNECTIONS = 500
"""Of one worker. Each needs a file descriptor, and 1,024 are what a process usually has."""

IDLE = 120
"""Seconds after which a connection without a request is closed."""

SHORT_LIFE = 1.0
"""A worker that dies within so many seconds is replaced with a delay, doubled each time up to LONGEST_DELAY."""

LONGEST_DELAY = 5.0
MAX_FAILED_STARTS = 5

READY = "ready"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
"""What the master acts on at once."""

WAITED = (signal.SIGCHLD, signal.SIGHUP)
"""What the master acts on when it gets to it: always blocked, so that none is lost."""


class OutcomeTask(ErrorTask):
    """What waitress answers by itself (a malformed request, a header or body that is too large) as an OperationOutcome."""

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
        self.set_close_on_finish()
        self.content_length = len(body)
        if isinstance(self.channel, Channel):
            self.channel.refused = True
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
        server = self.channel.server
        asked = self.request.headers.get("CONNECTION", "")  # type: ignore[attr-defined]  # as above
        draining = isinstance(server, Server) and server.draining
        if self.has_body or self.version == "1.0" or asked.lower() == "close" or draining:
            super().set_close_on_finish()

    def build_response_header(self) -> bytes:
        server = self.channel.server
        if isinstance(server, Server) and server.draining:
            self.set_close_on_finish()
        return super().build_response_header()


class Channel(HTTPChannel):
    """A connection.

    A request that is refused for its size may still be arriving. To close the socket then would make the kernel send a
    reset, and that can overtake the answer: so the rest is read and dropped first, for LINGER seconds at most.
    https://www.rfc-editor.org/rfc/rfc9112#section-9.6
    """

    task_class = Task
    error_task_class = OutcomeTask
    parser_class = Parser
    refused = False
    lingering_until: float | None = None

    @property
    def idle(self) -> bool:
        """Whether no request is running, waiting, or half received, and no answer is still going out."""
        return not self.requests and self.request is None and not self.total_outbufs_len

    def handle_close(self) -> None:
        if self.refused and self.lingering_until is None and self.socket is not None:
            self.lingering_until = time.monotonic() + LINGER
            self.will_close = False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:  # the client has gone: there is nobody to linger for
                super().handle_close()
        else:
            super().handle_close()

    def readable(self) -> bool:
        return self.lingering_until is not None or super().readable()

    def handle_read(self) -> None:
        if self.lingering_until is None:
            super().handle_read()
        else:
            self.recv(64 * 1024)  # closes the channel where the client has closed

    def writable(self) -> bool:
        if self.lingering_until is None:
            return super().writable()
        return self.will_close or time.monotonic() > self.lingering_until

    def handle_write(self) -> None:
        if self.lingering_until is None:
            super().handle_write()
        else:
            super().handle_close()


class Server(TcpWSGIServer):
    """waitress on a socket that is bound already, in the main thread of a worker."""

    channel_class = Channel
    draining = False
    patience = 0.0
    """Seconds that idle connections are left open once the server drains."""

    def serve(self, parent: int) -> None:
        """Answer requests until `stop` is called or the parent process is gone, then finish those that are there."""
        while not self.draining and os.getppid() == parent:
            self._turn(1.0)
        self.draining = True
        self._accept_the_waiting()
        # Not self.close(): that would close the trigger too, with which the threads wake this loop.
        wasyncore.dispatcher.close(self)
        begun = time.monotonic()
        self._turn(0.0)
        while self._channels() and time.monotonic() < begun + GRACE:
            for channel in self._channels():
                if channel.idle and time.monotonic() >= begun + self.patience:
                    channel.will_close = True
            self._turn(0.1)

    def _accept_the_waiting(self) -> None:
        """Take the connections that the kernel has made already: closing the socket would reset them."""
        waiting = select.poll()
        waiting.register(self._fileno, select.POLLIN)  # type: ignore[attr-defined]  # not in the stubs
        for _ in range(BACKLOG):
            if not waiting.poll(0):
                return
            self.handle_accept()

    def stop(self) -> None:
        """May be called from a signal handler: it sets a flag and wakes the loop."""
        self.patience = 0.0
        self.draining = True
        self.pull_trigger()

    def retire(self) -> None:
        """Stop because another worker takes over: no hurry. May be called from a signal handler, too."""
        if not self.draining:
            self.patience = RETIREMENT
            self.draining = True
            self.pull_trigger()

    def _channels(self) -> list[Channel]:
        channels: Any = self.active_channels  # a dict by descriptor, which types-waitress calls a channel
        return list(channels.values())

    def _turn(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._map, count=1)  # type: ignore[attr-defined]  # not in the stubs


def server(app: Any, listener: socket.socket, *, threads: int, max_body: int) -> Server:
    """waitress around a WSGI application; bodies above `max_body` bytes are refused before they are read."""
    return Server(
        app,
        map={},
        _sock=listener,
        sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
        bind_socket=False,
        threads=threads,
        ident=None,
        backlog=BACKLOG,
        connection_limit=CONNECTIONS,
        channel_timeout=IDLE,
        # A client that hangs up is no news; what happened to its request stands in the access log.
        log_socket_errors=False,
        max_request_header_size=MAX_HEADER,
        # waitress refuses what is as large as its limit.
        max_request_body_size=max_body + 1,
        # Ours are read by api.proxy, which knows whom to believe.
        clear_untrusted_proxy_headers=False,
        expose_tracebacks=False,
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(BACKLOG)
    return listener


Ready = Callable[[Server], None]
"""What a worker calls once it can serve."""

Work = Callable[[socket.socket, Ready], None]
"""A worker's life: (listener, ready). It calls `ready(server)` and returns after the server's `stop` or `retire` was
called. It may raise StoreError before.
"""


class Master:
    """Keeps `count` workers alive until it is told to stop.

    SIGTERM and SIGINT stop it. SIGHUP replaces the workers one after the other: the settings are read anew.
    """

    def __init__(self, listener: socket.socket, work: Work, count: int, out: TextIO, err: TextIO) -> None:
        self._listener = listener
        self._work = work
        self._count = count
        self._out = out
        self._err = err
        self._workers: dict[int, float] = {}
        """When each was born, by process id."""
        self._retired: dict[int, float] = {}
        """Those that were replaced and finish what they have: when their patience ends, by process id."""
        self._stopping = False
        self._had_terminal = _has_terminal()

    def run(self, greeting: str) -> int:
        """Start the workers, say `greeting` once they serve, and stay. Returns the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._kill)
        for _ in range(self._count):
            said = self._start()
            if said != READY and not self._stopping:
                return self._give_up(said)
        if not self._stopping:
            print(greeting, file=self._out, flush=True)
        while self._workers or self._retired:
            received = signal.sigtimedwait(WAITED, GRACE)
            if received is not None and received.si_signo == signal.SIGHUP:
                self._hang_up()
            refusal = self._reap()
            if refusal is not None:
                return self._give_up(refusal)
            self._end_the_stuck()
        return 0

    def _reap(self) -> str | None:
        """Put another worker in the place of each that has died. Returns why where that can't be done."""
        while (ended := _ended_child()) is not None:
            pid, status = ended
            self._retired.pop(pid, None)
            born = self._workers.pop(pid, None)
            if born is None or self._stopping:
                continue
            log.SERVER.error("worker %d ended with wait status %d; starting another", pid, status)
            if time.monotonic() - born > SHORT_LIFE:
                self._delay = 0.0
            refusal = self._start_again()
            if refusal is not None:
                return refusal
        return None

    _delay = 0.0

    def _start_again(self) -> str | None:
        """Start one worker, with a few tries. Returns why where they all fail."""
        for _ in range(MAX_FAILED_STARTS):
            self._sleep(self._delay)
            self._delay = min(max(2 * self._delay, 0.1), LONGEST_DELAY)
            if self._stopping or (said := self._start()) == READY:
                return None
        return said

    def _hang_up(self) -> None:
        """SIGHUP: read the settings anew. Where our terminal has gone it means the end, as for any program."""
        if self._had_terminal and not _has_terminal():
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
                self._stop()
            return
        for pid in list(self._workers):
            said = "" if self._stopping else self._start()
            if self._stopping:
                return
            if said != READY:
                log.SERVER.error(
                    "the settings are not reloaded, the workers go on with the old ones: %s", said
                )
                return
            self._retired[pid] = time.monotonic() + GRACE + 5
            del self._workers[pid]
            os.kill(pid, signal.SIGUSR1)
        log.SERVER.info("settings reloaded")

    def _end_the_stuck(self) -> None:
        for pid, deadline in self._retired.items():
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)

    def _start(self) -> str:
        """Fork a worker and wait for its first word: `ready`, why it refuses, or "" where it died.

        One at a time, so that only the first builds the index if it has to be built.
        """
        reader, writer = os.pipe()
        # A signal has to wait until the master knows the child, and the child is no longer the master.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self._live(writer)
        self._workers[pid] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(writer)
        with os.fdopen(reader, "rb") as words:
            said = words.readline().decode("utf-8", "replace").strip()
        if said != READY:
            os.waitpid(pid, 0)
            del self._workers[pid]
        return said

    def _live(self, writer: int) -> None:
        """The child: never returns. os._exit keeps it from running the parent's remaining code."""
        code, said = 1, False
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: os._exit(0))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            # A terminal tells all processes that it goes; the master decides.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*SIGNALS, *WAITED))
            if self._stopping:
                os._exit(0)

            def ready(server: Server) -> None:
                nonlocal said
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, lambda *_: server.stop())
                signal.signal(signal.SIGUSR1, lambda *_: server.retire())
                log.SERVER.info("worker ready", extra={"fields": {"worker": os.getpid()}})
                os.write(writer, f"{READY}\n".encode())
                os.close(writer)
                said = True

            self._work(self._listener, ready)
            code = 0
        except StoreError as error:
            if said:  # the pipe is closed, and its number may belong to another file by now
                log.SERVER.exception("worker failed")
            else:
                os.write(writer, f"{error}\n".encode())
        except BaseException:
            log.SERVER.exception("worker failed")
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _give_up(self, said: str) -> int:
        reason = said or "its workers die at once; the log above tells why"
        print(f"git-fhir: {reason}", file=self._err, flush=True)
        self._stop()
        while self._workers or self._retired:
            pid, _ = os.wait()
            self._workers.pop(pid, None)
            self._retired.pop(pid, None)
        return 1

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._listener.close()  # or new connections would wait in the kernel for someone to accept them
        self._signal(signal.SIGTERM)
        signal.alarm(int(GRACE) + 5)

    def _kill(self, *_: object) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        for pid in {*self._workers, *self._retired}:
            os.kill(pid, number)

    def _sleep(self, seconds: float) -> None:
        """Sleep, but not through a signal to stop."""
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            select.select((), (), (), 0.05)


def _ended_child() -> tuple[int, int] | None:
    """A child process that has ended, with its wait status; None where there is none."""
    try:
        ended = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return ended if ended[0] else None


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def addresses(listener: socket.socket) -> Sequence[str]:
    """Host and port as they stand in a URL."""
    host, port = listener.getsockname()[:2]
    return (f"[{host}]" if ":" in host else host, str(port))
