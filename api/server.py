"""waitress as this house needs it: errors that are OperationOutcomes, a stop that loses no request, workers.

The master binds the socket and starts the workers. It opens no repository, database, lock or thread: a forked child would
inherit them, an flock included.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from waitress import wasyncore
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from api import log
from api.balance import Balance
from api.channel import Busy, Channel
from api.tls import SecureChannel, SecureSocket
from gitstore import StoreError

GRACE = 30.0
"""Seconds that requests in flight are given when the server stops."""

RETIREMENT = 5.0
"""Seconds that a worker which is being replaced leaves idle connections open: whoever sends a request meanwhile gets its
answer, with `Connection: close`, and not a closed connection.
"""

MAX_HEADER = 64 * 1024
BACKLOG = 1024
CONNECTIONS = 500
"""Of one worker. More wait in the kernel, until its queue is full, too (BACKLOG)."""

WAITING = 256
"""Requests of one worker that may wait for a thread, by default."""

COURTESY = 0.003
"""Seconds for which a worker leaves a connection to one that has fewer, and after which it takes it if that one doesn't."""

LOOKS = 1.0
"""Seconds between looks for clients that are too slow."""

SHORT_LIFE = 1.0
"""A worker that dies within so many seconds is replaced with a delay, doubled each time up to LONGEST_DELAY."""

LONGEST_DELAY = 5.0
MAX_FAILED_STARTS = 5

READY = "ready"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
"""What the master acts on at once."""

WAITED = (signal.SIGCHLD, signal.SIGHUP)
"""What the master acts on when it gets to it: always blocked, so that none is lost."""


class Server(TcpWSGIServer):
    """waitress on a socket that is bound already, in the main thread of a worker."""

    channel_class = Channel
    draining = False
    patience = 0.0
    """Seconds that idle connections are left open once the server drains."""

    tls: ssl.SSLContext | None
    refusals: ThreadedTaskDispatcher
    waiting: int
    clock: Callable[[], float]
    """Seconds, from any beginning."""

    count_refusal: Callable[[int, int], None]
    """Called with the status and the bytes of each answer to what never became a request of the application."""

    receive_timeout: float
    """Seconds for a request's header, and those in which its body has to move (api.channel.SLOWEST)."""

    balance: Balance | None
    number: int
    """Of this worker, in `balance`."""

    _next_look = -math.inf
    _leave_until = -math.inf

    def readable(self) -> bool:
        return super().readable() and not self._is_leaving()

    def _is_leaving(self) -> bool:
        """Whether the next connection is left to others for a moment."""
        return time.monotonic() < self._leave_until

    def _leave_to_others(self) -> bool:
        """Whether there is a worker with fewer connections, which has not had the time to take this one yet."""
        if self.balance is None or self.draining:
            return False
        now = time.monotonic()
        if self._leave_until > now - COURTESY or self.balance.has_fewest(self.number, len(self._channels())):
            return False
        self._leave_until = now + COURTESY
        return True

    def accept(self) -> Any:
        """The next connection and the client's address; None where it has gone already, or is left to others."""
        if self._leave_to_others():
            return None
        pair = super().accept()
        if pair is None or self.tls is None:
            return pair
        connection, address = pair
        try:
            return SecureSocket(self.tls, connection), address
        except OSError:
            connection.close()
            return None

    def add_task(self, task: Any) -> None:
        """Have a channel's first request carried out when a thread is free; refuse it where too many wait already.

        What is refused doesn't need to wait for those that aren't.
        """
        request = task.requests[0]
        if request.error is None and len(self.task_dispatcher.queue) >= self.waiting:
            request.error = Busy("More requests wait already than this server has room for; try again")
        (self.task_dispatcher if request.error is None else self.refusals).add_task(task)

    def maintenance(self, now: int) -> None:
        """waitress's way to find idle connections. Ours is Channel.look."""

    def serve(self, parent: int) -> None:
        """Answer requests until `stop` is called or the parent process is gone, then finish those that are there."""
        while not self.draining and os.getppid() == parent:
            self._turn(1.0)
        self.draining = True
        if self.balance is not None:
            self.balance.leave(self.number)
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
        now = self.clock()
        if now >= self._next_look:
            self._next_look = now + LOOKS
            for channel in self._channels():
                channel.look(now)
        if self.balance is not None and not self.draining:
            self.balance.note(self.number, len(self._channels()))
        if self._is_leaving():
            timeout = min(timeout, COURTESY)
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._map, count=1)  # type: ignore[attr-defined]  # not in the stubs


def server(
    app: Any,
    listener: socket.socket,
    *,
    threads: int,
    max_body: int,
    waiting: int = WAITING,
    receive_timeout: float = 30.0,
    connections: int = CONNECTIONS,
    tls: ssl.SSLContext | None = None,
    clock: Callable[[], float] = time.monotonic,
    count_refusal: Callable[[int, int], None] = lambda _status, _size: None,
    balance: Balance | None = None,
    number: int = 0,
) -> Server:
    """waitress around a WSGI application; bodies above `max_body` bytes are refused before they are read.

    `waiting` requests may wait for one of `threads`, clients have `receive_timeout` seconds for a header. With `balance`
    this is one of several workers.
    """
    made = Server(
        app,
        map={},
        _sock=listener,
        sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
        bind_socket=False,
        threads=threads,
        ident=None,
        url_scheme="http" if tls is None else "https",
        backlog=BACKLOG,
        # waitress counts the listening socket and the trigger, too.
        connection_limit=connections + 2,
        # A client that hangs up is no news; what happened to its request stands in the access log.
        log_socket_errors=False,
        max_request_header_size=MAX_HEADER,
        # waitress refuses what is as large as its limit.
        max_request_body_size=max_body + 1,
        # Ours are read by api.proxy, which knows whom to believe.
        clear_untrusted_proxy_headers=False,
        expose_tracebacks=False,
    )
    made.tls, made.channel_class = tls, Channel if tls is None else SecureChannel
    made.waiting, made.receive_timeout, made.clock = waiting, receive_timeout, clock
    made.count_refusal = count_refusal
    made.balance, made.number = balance, number
    made.refusals = ThreadedTaskDispatcher()
    made.refusals.set_thread_count(1)
    return made


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

Work = Callable[[socket.socket, int, Ready], None]
"""A worker's life: (listener, number, ready), the number being one that no other living worker has. It calls `ready(server)` and returns after the server's `stop` or `retire` was
called. It may raise StoreError before.
"""


class Master:
    """Keeps `count` workers alive until it is told to stop.

    SIGTERM and SIGINT stop it. SIGHUP replaces the workers one after the other: the settings are read anew.
    """

    def __init__(
        self,
        listener: socket.socket,
        work: Work,
        count: int,
        out: TextIO,
        err: TextIO,
        bury: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`bury(number)` is called when a worker has ended."""
        self._listener = listener
        self._work = work
        self._count = count
        self._bury = bury
        self._numbers: dict[int, int] = {}
        """The numbers of all workers, by process id."""
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
            if pid in self._numbers:
                self._bury(self._numbers.pop(pid))
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
        number = min({*range(len(self._numbers) + 1)} - {*self._numbers.values()})
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self._live(writer, number)
        self._numbers[pid] = number
        self._workers[pid] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(writer)
        with os.fdopen(reader, "rb") as words:
            said = words.readline().decode("utf-8", "replace").strip()
        if said != READY:
            os.waitpid(pid, 0)
            del self._workers[pid]
            self._bury(self._numbers.pop(pid))
        return said

    def _live(self, writer: int, worker: int) -> None:
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

            self._work(self._listener, worker, ready)
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
