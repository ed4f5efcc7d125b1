"""An etcd of one member for tests, on this machine alone."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.etcd import Etcd, EtcdUnreachable

PATIENCE = 20.0
TIMEOUT = 5.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """An etcd of one member on this machine; gives its URL."""
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed (Debian: etcd-server)")
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    options = {
        "name": "one",
        "data-dir": str(folder / "data"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"one={peer}",
    }
    with open(folder / "log", "wb") as log:
        command = [
            "etcd",
            *(f"--{name}={value}" for name, value in options.items() if name != "unsafe-no-fsync"),
        ]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                Etcd([client], TIMEOUT).get("ready")
                break
            except EtcdUnreachable:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "etcd does not start"
                threading.Event().wait(0.02)
        yield client
    finally:
        process.terminate()
        process.wait(PATIENCE)
