"""A git repository behind an HTTP server, spoken to without a git of ours in between: one request over one kept connection.

git starts anew for each push, connects, asks what there is, and has another program make the pack. Who pushes ten times a second
knows what there is, since nobody else may write there, and has the pack. https://git-scm.com/docs/http-protocol
"""

from __future__ import annotations

import base64
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from gitstore.errors import HubUnreachable
from gitstore.git import packets
from gitstore.git.packets import Misunderstood

_PUSH, _FETCH = "git-receive-pack", "git-upload-pack"
_KNOWN = {"http.sslcainfo", "http.receivepack", "http.uploadpack", "http.getanyfile", "http.postbuffer"}
"""Of git's settings for HTTP the one that is heeded here, and those that have no meaning for it."""


class SmartHttp:
    """One repository, by its URL. One caller at a time."""

    def __init__(
        self,
        git_dir: str,
        parts: SplitResult,
        authorities: str | None,
        environment: Mapping[str, str],
        timeout: float,
    ) -> None:
        """Use `open`."""
        self._git = ["git", "--git-dir", git_dir]
        self._parts = parts
        self._timeout = timeout
        self._environment = environment
        self._authorization: str | None = None
        self._knows_names: bool | None = None
        assert parts.hostname is not None
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=authorities)
            self._connection: HTTPConnection = HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout, context=context
            )
        else:
            self._connection = HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        if parts.username is not None and parts.password is not None:
            self._authorization = _basic(unquote(parts.username), unquote(parts.password))

    @classmethod
    def open(cls, git_dir: str, url: str, environment: Mapping[str, str], timeout: float) -> Self | None:
        """None where git has to be asked: for another kind of URL, and where git, which runs with this environment, is
        configured to get there in a way that isn't known here. Each step of a request may take `timeout` seconds.
        """
        try:
            parts = urlsplit(url)
            is_ours = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
        except ValueError:
            return None
        # What git would quote, or send in another alphabet, is its business, too.
        if not is_ours or parts.query or not url.isascii() or not url.isprintable() or " " in url:
            return None
        # The URL may stand for another one, or git not be allowed to go there.
        if _has_proxy(parts) or _config(git_dir, environment, "--get-regexp", r"^(url|protocol)\."):
            return None
        settings = _config(git_dir, environment, "--get-urlmatch", "http", url)
        authorities = environment.get("GIT_SSL_CAINFO") or settings.get("http.sslcainfo")
        if settings.keys() - _KNOWN:
            return None
        try:
            return cls(git_dir, parts, authorities, environment, timeout)
        except OSError:  # authorities that can't be read: git will say so
            return None

    def close(self) -> None:
        """Let go of the connection; another one is made when it is needed."""
        self._connection.close()

    def move(self, ref: str, old: str, new: str, pack: bytes) -> bool:
        """Push: move a ref on, with what the server lacks. Whether it did so, which it doesn't where the ref isn't at `old`.

        Raises Misunderstood, and HubUnreachable: then it may have happened all the same.
        """
        with self._asked(_PUSH, packets.move(ref, old, new) + pack) as response:
            return packets.has_moved(response.read, ref)

    def refs(self, prefixes: Sequence[str]) -> dict[str, str]:
        """The ids of the refs whose names begin so, by their names. Raises Misunderstood, HubUnreachable."""
        with self._asked(_FETCH, packets.tell(prefixes)) as response:
            return packets.told(response.read)

    def knows_names(self) -> bool:
        """Whether `pack` takes the name of a ref. Raises Misunderstood, HubUnreachable."""
        if self._knows_names is None:
            with self._asked(_FETCH, None) as response:
                self._knows_names = packets.knows_names(response.read)
        return self._knows_names

    @contextmanager
    def pack(self, want: str, have: str) -> Iterator[tuple[str, Iterator[bytes]]]:
        """A commit that is wanted, by its id or the name of a ref, and the pieces of a pack with what it builds on and `have` doesn't.

        Raises Misunderstood, HubUnreachable; so do the pieces.
        """
        with self._asked(_FETCH, packets.fetch(want, have)) as response:
            yield packets.fetched(response.read, want)

    @contextmanager
    def _asked(self, service: str, body: bytes | None) -> Iterator[HTTPResponse]:
        """A successful response, whose content is git's. Without a body a service tells what it can do."""
        try:
            response = self._response(service, body)
            if response.status == 401 and (found := self._credentials()) is not None:
                response.read()
                self._authorization = found
                response = self._response(service, body)
            _check(response, f"application/x-{service}-{'advertisement' if body is None else 'result'}")
            yield response
            response.read()  # the end of it, or the connection could not be used again
        except ssl.SSLError as error:
            self._connection.close()
            raise Misunderstood(str(error)) from error
        except (OSError, HTTPException, subprocess.TimeoutExpired) as error:
            self._connection.close()
            raise HubUnreachable(f"The hub can't be used: {error or type(error).__name__}") from error
        except BaseException:
            self._connection.close()
            raise

    def _response(self, service: str, body: bytes | None) -> HTTPResponse:
        is_kept = self._connection.sock is not None
        try:
            return self._sent(service, body)
        except (ConnectionError, HTTPException):
            # One that was kept may have been closed at the other end, which shows only now. Nothing is done twice: what was
            # done by the first request, the second finds done.
            self._connection.close()
            if not is_kept:
                raise
            return self._sent(service, body)

    def _sent(self, service: str, body: bytes | None) -> HTTPResponse:
        headers = {"User-Agent": "git-fhir"}
        if service == _FETCH:
            headers["Git-Protocol"] = "version=2"
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        base = self._parts.path.rstrip("/")
        if body is None:
            self._connection.request("GET", f"{base}/info/refs?service={service}", headers=headers)
        else:
            headers |= {
                "Content-Type": f"application/x-{service}-request",
                "Accept": f"application/x-{service}-result",
            }
            self._connection.request("POST", f"{base}/{service}", body, headers)
        return self._connection.getresponse()

    def _credentials(self) -> str | None:
        """What git's helpers know, if that is something new. https://git-scm.com/docs/git-credential"""
        parts = self._parts
        facts = {"protocol": parts.scheme, "host": parts.netloc.rpartition("@")[2], "path": parts.path[1:]}
        if parts.username is not None:
            facts["username"] = unquote(parts.username)
        done = subprocess.run(
            [*self._git, "credential", "fill"],
            input="".join(f"{key}={value}\n" for key, value in facts.items()) + "\n",
            capture_output=True,
            text=True,
            check=False,
            env=self._environment,
            start_new_session=True,
            timeout=self._timeout,
        )
        told = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        if done.returncode != 0 or "password" not in told:
            return None
        found = _basic(told.get("username", ""), told["password"])
        return found if found != self._authorization else None


def _check(response: HTTPResponse, kind: str) -> None:
    found = response.getheader("Content-Type")
    if response.status != 200 or found != kind:
        raise Misunderstood(f"{response.status}, {found}")


def _has_proxy(parts: SplitResult) -> bool:
    """https://everything.curl.dev/usingcurl/proxies/env.html"""
    proxies = getproxies()
    is_named = parts.scheme in proxies or "all" in proxies
    return is_named and not proxy_bypass(parts.netloc.rpartition("@")[2])


def _basic(name: str, password: str) -> str:
    """https://www.rfc-editor.org/rfc/rfc7617"""
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def _config(git_dir: str, environment: Mapping[str, str], *arguments: str) -> dict[str, str]:
    """What git finds in its configuration; of several values the last. https://git-scm.com/docs/git-config"""
    command = ["git", "--git-dir", git_dir, "config", "--null", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return dict(entry.partition("\n")[::2] for entry in done.stdout.split("\0") if entry)
