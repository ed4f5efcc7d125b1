"""Where a request ends: what waitress leaves open there is refused, as two servers in a row could read it differently.

Whoever can make a proxy and the server behind it disagree on that can hide a request in another one's body.
https://www.rfc-editor.org/rfc/rfc9112#section-11.2
"""

from __future__ import annotations

import re

from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver
from waitress.utilities import BadRequest, RequestEntityTooLarge

MAX_LINE = 4 * 1024
"""Bytes of a line that says how long a chunk is, with extensions, which nobody uses, or of a trailer."""

MAX_TRAILER = 64 * 1024

VERSIONS = ("1.0", "1.1")

_BARE_LF = re.compile(rb"(?<!\r)\n")
_SIZE = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n")


class Chunks(ChunkedReceiver):
    """A chunked body. Takes the place of waitress's, which lets lines end with `\\n\\r\\n`, passes over empty ones, sets
    them no limit, and takes the square of the time for long ones. https://www.rfc-editor.org/rfc/rfc9112#section-7.1
    """

    def received(self, s: bytes) -> int:
        """The number of bytes taken: all, up to the end of the body or the first mistake."""
        place = 0
        while place < len(s) and not self.completed and self.error is None:
            if self.chunk_remainder:
                piece = s[place : place + self.chunk_remainder]
                self.buf.append(piece)
                self.chunk_remainder -= len(piece)
                self.validate_chunk_end = True
                place += len(piece)
            else:
                end = s.find(b"\n", place) + 1 or len(s)
                self.control_line += s[place:end]
                place = end
                self._look_at_line()
        return place

    def _look_at_line(self) -> None:
        line = self.control_line
        if len(line) > MAX_LINE:
            self.error = BadRequest("A line between chunks is too long")
        elif line.endswith(b"\n"):
            self.control_line = b""
            self._take(line)

    def _take(self, line: bytes) -> None:
        if self.validate_chunk_end:
            self.validate_chunk_end = False
            if line != b"\r\n":
                self.error = BadRequest("A chunk is longer than its size")
        elif self.all_chunks_received:
            self._take_trailer(line)
        elif match := _SIZE.fullmatch(line):
            self.chunk_remainder = int(match["size"], 16)
            self.all_chunks_received = self.chunk_remainder == 0
        else:
            self.error = BadRequest("The size of a chunk is invalid")

    def _take_trailer(self, line: bytes) -> None:
        """Trailers are read and dropped: nothing that FHIR defines may come so late."""
        if line == b"\r\n":
            self.completed = True
            return
        self.trailer += line
        if not _FIELD.fullmatch(line) or len(self.trailer) > MAX_TRAILER:
            self.error = BadRequest("The trailer is invalid or too long")


class Parser(HTTPRequestParser):
    """waitress's parser, which is made stricter about the header and stops earlier in a body that can't be taken."""

    path = ""
    """Until the header is there. waitress asks for it where a client hangs up before it is told that it was too slow."""

    def received(self, data: bytes) -> int:
        """The number of bytes taken. An error is answered and the connection closed; it is never said to continue."""
        consumed = super().received(data)
        if not self.completed:
            self._check_unfinished()
        if self.error is not None or self.body_rcv is None:
            # waitress would say 100 and then wait for a body that it has refused, or that there is not.
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Raises ParsingError (400), or what waitress has for encodings that it doesn't know (501)."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # of int() for 5,000 digits, of urlsplit() for `http://[`
            raise ParsingError("The request line or Content-Length is invalid") from error
        if self.version not in VERSIONS:
            raise ParsingError("The version of HTTP is none of 1.0 and 1.1")
        lines = header_plus.split(b"\r\n")[1:]
        if any(line.startswith((b" ", b"\t")) for line in lines):
            raise ParsingError("A header is continued on another line")
        names = [line.partition(b":")[0].lower() for line in lines]
        if names.count(b"host") > 1:
            raise ParsingError("Host stands there twice")
        if b"transfer-encoding" in names:
            self._check_transfer_encoding(names, lines)
        if self.chunked:
            self.body_rcv = Chunks(OverflowableBuffer(self.adj.inbuf_overflow))

    def _check_transfer_encoding(self, names: list[bytes], lines: list[bytes]) -> None:
        """https://www.rfc-editor.org/rfc/rfc9112#section-6.3"""
        if self.version != "1.1":
            raise ParsingError("HTTP/1.0 has no Transfer-Encoding")
        if b"content-length" in names:
            raise ParsingError("Transfer-Encoding and Content-Length exclude one another")
        value = lines[names.index(b"transfer-encoding")].partition(b":")[2].strip(b" \t").lower()
        if names.count(b"transfer-encoding") > 1 or value != b"chunked":
            raise ParsingError("Transfer-Encoding can be chunked, once")

    def _check_unfinished(self) -> None:
        """Refuse now what can only end badly: a header that can have no end, and a chunk that is too large."""
        if not self.headers_finished and _BARE_LF.search(self.header_plus):
            self.error = BadRequest("A line of the header ends without CR")
        elif isinstance(self.body_rcv, Chunks):
            limit = self.adj.max_request_body_size
            if self.body_bytes_received + self.body_rcv.chunk_remainder >= limit:
                self.error = RequestEntityTooLarge(f"exceeds max_body of {limit}")
        self.completed = self.error is not None
