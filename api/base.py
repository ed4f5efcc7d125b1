"""Where another server is, and how to get there."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPSConnection
from typing import Self
from urllib.parse import quote, urlsplit

from msgspec import Struct

from gitstore import Invalid

SAFE = "/$:@!&'()*+,;=~"
"""What stands in a path as it is."""


class Base(Struct, frozen=True):
    """A server, or what is below a path of one; `path` has no slash at its end. `port` None is that of the scheme."""

    scheme: str
    host: str
    port: int | None
    path: str

    @classmethod
    def parse(cls, setting: str, url: str) -> Self:
        """Raises Invalid for a setting that is no base: `http://host:8080`, `https://host/prefix`."""
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        else:
            if parts.scheme not in ("http", "https") or parts.query or parts.fragment or "@" in parts.netloc:
                host = None
        if not host or not host.isascii() or any(character <= " " for character in host):
            raise Invalid(
                f"{setting} is `{url[:200]}`; expected where a server is, such as http://host:8080."
            )
        return cls(parts.scheme, host, port, quote(parts.path.rstrip("/"), safe=SAFE + "%"))

    @property
    def netloc(self) -> str:
        """As it stands in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"

    def connection(self, timeout: float) -> HTTPConnection:
        """One that isn't open yet; each step may take `timeout` seconds."""
        kind = HTTPSConnection if self.scheme == "https" else HTTPConnection
        return kind(self.host, self.port, timeout=timeout)
