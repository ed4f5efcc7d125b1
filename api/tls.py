"""TLS for connections that waitress serves: the certificate, a socket that two threads may use, and the handshake.

waitress knows no TLS. Its loop never blocks, so the handshake is done in as many steps as the network makes of it.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from errno import EWOULDBLOCK
from typing import Any, TypeVar

from api import log
from api.channel import Channel, Stage
from gitstore import Invalid

HANDSHAKE = 10.0
"""Seconds that a client has for the handshake."""

RECORD = 16 * 1024
"""Bytes that a record of TLS can hold. https://www.rfc-editor.org/rfc/rfc8446#section-5.1"""

Result = TypeVar("Result")


def context(certificate: str, key: str | None) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with the certificate chain and the private key of these PEM files; without `key` one file has both.

    Raises Invalid where they can't be read or don't belong together.
    """
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could make the server negotiate again and again, at little cost to itself.
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    named = certificate if key is None else f"{certificate} and {key}"
    for path in (certificate, key or certificate):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:  # of load_cert_chain it would not say which of the two
            raise Invalid(f"The TLS file {path} can't be read: {error.strerror}.") from error
    try:
        # Without a pass phrase here OpenSSL would ask the terminal for one.
        made.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise Invalid(
            f"No TLS with {named}: {_words(getattr(error, 'reason', None))}. Expected is PEM: a certificate "
            "chain, and its private key without a pass phrase."
        ) from error
    return made


class SecureSocket:
    """The server's side of a TLS connection, with the methods of a socket that waitress uses.

    A thread may send an answer while the loop reads or closes. OpenSSL allows no two calls on one connection at a time,
    and Python 3.11 doesn't prevent them. What can't be done now is BlockingIOError, as with any socket.
    """

    def __init__(self, made: ssl.SSLContext, connection: socket.socket) -> None:
        """Raises OSError where the client has gone."""
        connection.setblocking(False)
        self._tls = made.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._lock = threading.Lock()
        self.wants_to_write = False
        """Whether the last step, of whatever kind, waits until the socket is writable."""

    def handshake(self) -> None:
        """Take the next steps. Raises BlockingIOError as long as it isn't done, other OSErrors where it has failed."""
        self._do(self._tls.do_handshake)

    def recv(self, size: int) -> bytes:
        """At least a whole record, if there is one: what stays inside OpenSSL, no poll() tells of."""

        def read() -> bytes:
            data = self._tls.recv(max(size, RECORD))
            while waiting := self._tls.pending():
                data += self._tls.recv(waiting)
            return data

        return self._do(read)

    def send(self, data: bytes) -> int:
        return self._do(lambda: self._tls.send(data))

    def _do(self, step: Callable[[], Result]) -> Result:
        with self._lock:
            self.wants_to_write = False
            try:
                return step()
            except ssl.SSLWantWriteError as error:
                self.wants_to_write = True
                raise BlockingIOError(EWOULDBLOCK, "TLS waits to write") from error
            except ssl.SSLWantReadError as error:
                raise BlockingIOError(EWOULDBLOCK, "TLS waits to read") from error

    def _say_goodbye(self) -> None:
        """close_notify, without waiting for the client's. https://www.rfc-editor.org/rfc/rfc8446#section-6.1"""
        try:
            self._tls.unwrap()
        except (
            OSError,
            ValueError,
        ):  # no answer yet, no room for it, or nobody there: there is nothing to lose
            return

    def shutdown(self, how: int) -> None:
        with self._lock:
            self._say_goodbye()
            self._tls.shutdown(how)

    def close(self) -> None:
        with self._lock:
            self._say_goodbye()
            self._tls.close()

    def fileno(self) -> int:
        return self._tls.fileno()

    def setblocking(self, blocking: bool) -> None:
        self._tls.setblocking(blocking)

    def setsockopt(self, level: int, name: int, value: int) -> None:
        self._tls.setsockopt(level, name, value)

    def getsockopt(self, level: int, name: int) -> int:
        return self._tls.getsockopt(level, name)


class SecureChannel(Channel):
    """A connection that begins with a handshake. One that fails is an everyday thing: a line in the log at most."""

    shaking = True

    def __init__(self, server: Any, sock: SecureSocket, addr: Any, adj: Any, map: Any = None) -> None:
        super().__init__(server, sock, addr, adj, map)
        self._secure = sock
        self.sendbuf_len = RECORD  # OpenSSL takes one at a time, and waitress would copy megabytes for each

    @property
    def idle(self) -> bool:
        """A client that is still shaking hands is about to send a request."""
        return super().idle and not self.shaking

    def stage(self) -> Stage:
        if self.shaking and not self.lingering:
            return Stage("handshake", HANDSHAKE)
        return super().stage()

    def readable(self) -> bool:
        if self.shaking and not self.lingering:
            return not self._secure.wants_to_write
        return super().readable()

    def handle_read(self) -> None:
        if self.shaking and not self.lingering:
            self._shake_hands()
        else:
            super().handle_read()

    def writable(self) -> bool:
        """Also where reading has to write first: a change of keys. https://www.rfc-editor.org/rfc/rfc8446#section-4.6.3"""
        return (self._secure.wants_to_write and not self.lingering) or super().writable()

    def handle_write(self) -> None:
        if self.shaking and not self.lingering and not self.will_close:
            self._shake_hands()
            return
        if self._secure.wants_to_write and not self.total_outbufs_len and not self.lingering:
            super().handle_read()
        super().handle_write()

    def _shake_hands(self) -> None:
        try:
            self._secure.handshake()
        except BlockingIOError:
            return
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            self.handle_close()
        except ssl.SSLError as error:
            what = "it speaks plain HTTP" if error.reason == "HTTP_REQUEST" else _words(error.reason)
            log.SERVER.info("no TLS with %s: %s", self.addr[0], what)
            self.refused = True  # what it goes on sending is read, so that it is not cut off by a reset
            self.handle_close()
        except OSError:  # it has gone
            self.handle_close()
        else:
            self.shaking = False


def _words(reason: str | None) -> str:
    """OpenSSL's name for what is wrong, as a few words."""
    return (reason or "unreadable").replace("_", " ").lower()
