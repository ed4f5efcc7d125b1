"""Clones beside all else that a server does: places, memory, deadlines, writes and maintenance. docs/audit.md, "Clone" """

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.cloning import ASKING, PULL, REFS, Served, children, ended, eventually, fhir, serve
from tests.api.test_http_server import PATIENCE, stop


def with_a_large_tag(served: Served) -> Served:
    """Larger than all the buffers on the way."""
    large = served.record.parent / "large"
    large.write_bytes(os.urandom(32 * 1024**2))
    served.git("config", "core.compression", "0", folder=served.record)
    blob = served.git("hash-object", "-w", large, folder=served.record)
    served.git("tag", "large", blob, folder=served.record)
    return served


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts a server with settings such as `fhir.maxClones=1`; however the test ends, it is stopped."""
    started = []

    def start(*settings: str) -> Served:
        started.append(serve(tmp_path, *settings))
        return started[-1]

    yield start
    assert [stop(each.running) for each in started] == [0]


def begin_clone(served: Served) -> tuple[socket.socket, bytes]:
    """A client that asks for everything, and the beginning of the answer, which is all that it takes."""
    ids = served.git("rev-parse", "main", "large", folder=served.record).split()
    body = b"".join(b"0032want %s\n" % each.encode() for each in ids) + b"00000009done\n"
    head = (
        f"POST {PULL} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served.secrets['mirror']}\r\n"
        f"Content-Type: {ASKING['Content-Type']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    client = socket.socket()
    client.settimeout(PATIENCE)
    client.connect(("127.0.0.1", served.running.port))
    client.sendall(head.encode() + body)
    begun = client.recv(2048)
    assert begun.startswith(b"HTTP/1.1 200")
    return client, begun


def memory(process: int) -> int:
    """Bytes of a process in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


def test_who_takes_an_answer_slowly_keeps_one_place_and_no_memory(serving):
    """Others are told to come again, FHIR goes on, and when the client has gone nothing of its git is left."""
    busy = with_a_large_tag(serving("fhir.maxClones=1", "fhir.maxInFlight=1"))
    worker = busy.running.workers()[-1]
    assert busy.ask("GET", REFS)[0] == 200
    before = memory(worker)
    client, _ = begin_clone(busy)
    eventually(lambda: len(children(worker)) >= 2)

    said = busy.git("clone", busy.url(busy.secrets["writer"]), "never", fails=True)
    status, headers, _ = busy.ask("GET", REFS, "writer")

    assert "remote: As many clones and fetches as may be at once (1) are under way" in said
    assert (status, headers["Retry-After"]) == (503, "30")
    assert busy.ask("GET", "/fhir/Patient", "writer")[0] == 200
    assert busy.ask("GET", "/fhir/Patient", "mirror")[0] == 429, "a clone is under way until it ends"
    assert memory(worker) - before < 8 * 1024**2, "what waits for the client waits on the disk"

    processes = children(worker)
    client.close()

    assert processes
    assert all(map(ended, processes))
    eventually(lambda: busy.ask("GET", REFS)[0] == 200)
    assert children(worker) == []
    assert any(each["message"] == "who was cloning has gone" for each in busy.running.lines())


def test_a_clone_that_takes_too_long_is_cut(serving):
    """fhir.cloneTimeout: the connection ends before the body does, so that nobody takes what came for all."""
    served = with_a_large_tag(serving("fhir.cloneTimeout=1"))
    client, received = begin_clone(served)
    processes = children(served.running.workers()[-1])
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    while piece := client.recv(1 << 16):
        received += piece
    client.close()

    assert processes
    assert all(map(ended, processes))
    assert b"Transfer-Encoding: chunked" in received
    assert len(received) < 32 * 1024**2
    assert not received.endswith(b"\r\n0\r\n\r\n")
    assert any("took longer than fhir.cloneTimeout" in each["message"] for each in served.running.lines())


WRITES = 200


def test_clones_are_whole_whatever_is_written_and_tidied_meanwhile(serving, tmp_path):
    """Packs are merged and removed under them."""
    served = serving()
    done = threading.Event()
    maintaining = subprocess.Popen(
        [sys.executable, "-P", "-m", "cli", "-C", served.record, "maintain", "--full"],
        stdout=subprocess.DEVNULL,
    )

    def write() -> None:
        connection = served.running.connect()
        headers = {
            "Authorization": f"Bearer {served.secrets['writer']}",
            "Content-Type": "application/fhir+json",
        }
        for number in range(WRITES):
            body = json.dumps({"resourceType": "Patient", "id": "busy", "language": f"x-{number}"})
            connection.request("PUT", "/fhir/Patient/busy", body, headers)
            response = connection.getresponse()
            response.read()
            assert response.status in (200, 201)
        connection.close()
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    clones = []
    while not done.is_set() or not clones:
        clones.append(served.clone("--bare", into=tmp_path / f"{len(clones)}.git"))
        assert writer.is_alive() or done.is_set()
    writer.join()
    assert maintaining.wait(PATIENCE) == 0
    fhir(served.record, "maintain")  # what the server has begun may not be done yet
    packs = len(list(served.record.glob("objects/pack/*.pack")))
    assert packs < WRITES / 2, "they have been merged"

    last = served.clone("--bare", into=tmp_path / "last.git")
    assert served.git("rev-parse", "main", folder=last) == served.head()
    for clone in clones:
        main = served.git("rev-parse", "main", folder=clone)
        served.git("merge-base", "--is-ancestor", main, "main", folder=served.record)
        served.git("fsck", "--connectivity-only", folder=clone)
    assert fhir(last, "verify").startswith("clean")
