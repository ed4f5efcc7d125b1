"""Under which names the server may be called."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import falcon

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}?)\.?(:[0-9]{1,5})?", re.ASCII)


def host_name(header: str) -> str | None:
    """The name in a Host header, in lower case and without port; None where it is malformed."""
    match = _HOST.fullmatch(header)
    return match["name"].lower() if match else None


def is_loopback(name: str) -> bool:
    """Whether a host name or address always means this machine, whatever a DNS server says.

    https://www.rfc-editor.org/rfc/rfc6761#section-6.3
    """
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=256)
def answers_for(header: str, host_names: frozenset[str]) -> bool:
    """Whether an anonymous server answers a request with this Host header."""
    name = host_name(header)
    return name is not None and (is_loopback(name) or name in host_names)


def check_host(header: str | None, host_names: frozenset[str] | None) -> None:
    """Refuse a request that came under a foreign name; `host_names` None are all there can be.

    A web page can point its own name at 127.0.0.1 and have the browser of someone on this machine read the
    record for it (DNS rebinding); what it can't do is to send another Host than its own.
    Raises falcon.HTTPError 421.
    """
    if host_names is None:
        # What a page can't make the browser send along, it can't use: a token, or the cookie of another name.
        if header is None or host_name(header) is None:
            raise falcon.HTTPError(421, description="A request needs a Host that is a name or an address.")
        return
    if answers_for(header or "", host_names):
        return
    shown = f"`{header[:100]}`" if header else "a request without Host"
    raise falcon.HTTPError(
        421,
        description=f"This server does not answer for {shown}. Without authentication it answers for loopback names "
        "only; `git config --add fhir.hostName NAME` adds one.",
    )
