"""A primary, a replica and their hub, whose threads do nothing: the test itself says when one looks; and servers to call."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from api.server import bind, server
from gitstore import Cluster, Settings, Store
from gitstore.fhir.ids import ResourceId
from tests.api.wires import dispose
from tests.conftest import copy_record

PATIENCE = 20.0
"""Seconds after which a test that waits has failed."""


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


class Neighbours:
    """Opens nodes around a hub. Cluster._begin must be patched away."""

    def __init__(
        self, folder: Path, empty_record: Path, settings: Settings, clock: Callable[[], int]
    ) -> None:
        self.folder = folder
        self.hub = folder / "hub.git"
        self.clock = clock
        self.settings = replace(settings, hub=str(self.hub), hub_timeout=PATIENCE, poll_interval=3600.0)
        self._empty = empty_record
        self._opened: list[Store] = []
        git("init", "--quiet", "--bare", "-b", "main", str(self.hub))

    def primary(self, **settings: Any) -> Store:
        copy_record(self._empty, self.folder / "primary.git")
        store = self._open("primary", settings)
        turn(store)
        return store

    def replica(self, name: str = "replica", **settings: Any) -> Store:
        git("clone", "--quiet", "--bare", str(self.hub), str(self.folder / f"{name}.git"))
        store = self._open(name, settings)
        cluster(store).follow()
        turn(store)
        return store

    def _open(self, name: str, settings: dict[str, Any]) -> Store:
        store = Store.open(self.folder / f"{name}.git", replace(self.settings, **settings), clock=self.clock)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()


def cluster(store: Store) -> Cluster:
    assert store.cluster is not None
    return store.cluster


def turn(store: Store) -> None:
    """What the node's thread would do now."""
    cluster(store)._turn(asked=True)


def patience(store: Store, seconds: float) -> None:
    """For so long answers wait for the hub; git may take longer."""
    mine = cluster(store)
    mine._settings = replace(mine._settings, hub_timeout=seconds)


def lead_to(store: Store, url: str) -> None:
    """Let a node know where the primary is, as a lease would."""
    (Path(store.git_dir) / "git-fhir" / "primary").write_text(f"{url}\n")


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """A server of ours, in a thread; gives its base."""
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    served = server(app, listener, threads=4, max_body=10_000_000)
    thread = threading.Thread(target=served.serve, args=(os.getppid(),))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        served.stop()
        thread.join(PATIENCE)
        dispose(served)


@contextmanager
def rude(answer: bytes | None, *, whole: bool = True) -> Iterator[tuple[str, list[bytes]]]:
    """Somebody who takes one connection, reads the request, or only a beginning, says this (None: nothing), and hangs up."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)

        def listen() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(PATIENCE)
                data = b""
                while (whole and not _is_whole(data)) or not data:
                    piece = connection.recv(1 << 16)
                    if not piece:
                        break
                    data += piece
                heard.append(data)
                if answer is not None:
                    connection.sendall(answer)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
        finally:
            listener.close()
            thread.join(PATIENCE)


def _is_whole(request: bytes) -> bool:
    header, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", header)
    return bool(end) and len(body) >= int(length[1] if length else 0)


def unused() -> str:
    """A base where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


EXAMPLE = ResourceId("Patient", "example")
