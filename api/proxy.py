"""What a reverse proxy says about the request as its client sent it.

`Forwarded` (https://www.rfc-editor.org/rfc/rfc7239) is looked at first, without it X-Forwarded-Proto, -Host, -Port and
-Prefix. Only a peer that fhir.trustedProxy names is believed; from others all of them are ignored.

waitress has settings for this too, but they know one address or all, no networks, and no X-Forwarded-Prefix.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct

from api.auth import host_name
from gitstore import Invalid, Issue

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HEADERS = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
)
HSTS = ("Strict-Transport-Security", "max-age=31536000")
"""A year without plain HTTP, for this name. https://www.rfc-editor.org/rfc/rfc6797"""

_DEFAULT_PORTS = {"http": "80", "https": "443"}

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rf"({_TOKEN})=({_TOKEN}|{_QUOTED})")
_QUOTES_END = re.compile(rf'(?:[^"]|{_QUOTED})*')
_ELEMENTS = re.compile(rf'(?:[^,"]|{_QUOTED})+')
_PAIRS = re.compile(rf'(?:[^;"]|{_QUOTED})+')
_ESCAPED = re.compile(r"\\(.)")
_NODE = re.compile(r"(?P<address>\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]+?)(?::[0-9]{1,5})?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~!$&'()*+;=:@%-]+)*/?", re.ASCII)


class Public(Struct, frozen=True):
    """Where the client believes the server to be; None for what no proxy says. `prefix` has no slash at its end."""

    scheme: str | None = None
    host: str | None = None
    prefix: str = ""


def networks(given: Iterable[str]) -> tuple[Network, ...]:
    """The peers that fhir.trustedProxy names. Raises Invalid for what is neither address nor network."""
    found = []
    for each in given:
        try:
            found.append(ipaddress.ip_network(each.strip()))
        except ValueError as error:
            raise Invalid(
                f"fhir.trustedProxy is `{each}`; expected an address or a network such as 10.0.0.0/8."
            ) from error
    return tuple(found)


@lru_cache(maxsize=1024)
def is_trusted(peer: str, trusted: tuple[Network, ...]) -> bool:
    """Whether a peer, as its address is written, is one of these proxies."""
    try:
        address: Address = ipaddress.ip_address(peer.strip("[]"))
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in trusted)


def public(environ: Mapping[str, Any], trusted: tuple[Network, ...]) -> Public:
    """What the proxies say that can be believed.

    Each proxy adds to the end of what it was sent, so the last element is the peer's; the one before it counts if the
    peer says that it, too, had it from a trusted one, and so on. The first of those is the nearest to the client.
    Raises Invalid for what is malformed: links would be made from a guess.
    """
    if not trusted or not is_trusted(environ.get("REMOTE_ADDR", ""), trusted):
        return Public()
    forwarded = environ.get("HTTP_FORWARDED")
    if forwarded is not None:
        return _of_forwarded(forwarded, trusted)
    if not any(header in environ for header in HEADERS):
        return Public()
    nodes = _list(environ, "HTTP_X_FORWARDED_FOR")
    count = _believable(nodes, trusted)

    def first(header: str) -> str | None:
        values = _list(environ, header)[-count:]
        return values[0] if values else None

    scheme = _scheme(first("HTTP_X_FORWARDED_PROTO"))
    port = _port(first("HTTP_X_FORWARDED_PORT"))
    host = _host(first("HTTP_X_FORWARDED_HOST")) or (environ.get("HTTP_HOST") if port else None)
    if host is not None and port is not None and not _has_port(host):
        host = host if port == _DEFAULT_PORTS.get(scheme or "http") else f"{host}:{port}"
    return Public(scheme, host, _prefix(first("HTTP_X_FORWARDED_PREFIX")))


def is_secure(environ: Mapping[str, Any], trusted: tuple[Network, ...]) -> bool:
    """Whether the client came with TLS, to this server or to a proxy that can be believed."""
    if environ["wsgi.url_scheme"] == "https":
        return True
    try:
        return public(environ, trusted).scheme == "https"
    except Invalid:  # which has been answered; nobody knows what it was meant to say
        return False


def _of_forwarded(header: str, trusted: tuple[Network, ...]) -> Public:
    elements = _elements(header)
    count = _believable([each.get("for", "") for each in elements], trusted)
    believed = elements[-count:]
    scheme = next((each["proto"] for each in believed if "proto" in each), None)
    host = next((each["host"] for each in believed if "host" in each), None)
    return Public(_scheme(scheme), _host(host))


def _elements(header: str) -> list[dict[str, str]]:
    """https://www.rfc-editor.org/rfc/rfc7239#section-4"""
    if not _QUOTES_END.fullmatch(header):
        raise _malformed("Forwarded", header)
    return [_pairs(each, header) for part in _ELEMENTS.findall(header) if (each := part.strip(" \t"))]


def _pairs(element: str, header: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in _PAIRS.findall(element):
        match = _PAIR.fullmatch(part.strip(" \t"))  # some proxies put a space that the grammar has not
        if match is None or match[1].lower() in pairs:
            raise _malformed("Forwarded", header)
        value = match[2]
        pairs[match[1].lower()] = _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
    return pairs


def _believable(nodes: Sequence[str], trusted: tuple[Network, ...]) -> int:
    """How many elements from the end come from trusted proxies: the peer's, and one more for each that it names."""
    count = 1
    for node in reversed(nodes):
        match = _NODE.fullmatch(node)
        if match is None or not is_trusted(match["address"], trusted):
            break
        count += 1
    return count


def _list(environ: Mapping[str, Any], header: str) -> list[str]:
    return [text for each in environ.get(header, "").split(",") if (text := each.strip(" \t"))]


def _scheme(text: str | None) -> str | None:
    if text is None or text.lower() in _DEFAULT_PORTS:
        return text and text.lower()
    raise _malformed("protocol", text)


def _host(text: str | None) -> str | None:
    if text is None or host_name(text) is not None:
        return text
    raise _malformed("host", text)


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def _port(text: str | None) -> str | None:
    if text is None or (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        return text and str(int(text))
    raise _malformed("port", text)


def _prefix(text: str | None) -> str:
    """The part of the path that the proxy took away; `/` is none."""
    if text is None:
        return ""
    if not _PREFIX.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise _malformed("prefix", text)
    return text.rstrip("/")


def _malformed(what: str, text: str) -> Invalid:
    named = "The header Forwarded" if what == "Forwarded" else f"The forwarded {what}"
    return Invalid(Issue("error", "value", f"{named} is malformed: `{text[:100]}`."))
