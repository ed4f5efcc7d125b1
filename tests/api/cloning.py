"""A server to clone from with real git, and a look at the processes that it starts."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitstore import Tokens, Update
from gitstore.fhir.ids import ResourceId
from tests.api.test_http_server import PATIENCE, Running, start

SCOPES = {
    "mirror": "user/*.rs git-fhir/history git-fhir/clone",
    "writer": "system/*.cruds git-fhir/history git-fhir/clone",
    "no role": "user/*.cruds git-fhir/history",
    "no history": "user/*.cruds git-fhir/clone",
    "no search": "user/*.r git-fhir/history git-fhir/clone",
    "one type": "user/Patient.cruds git-fhir/history git-fhir/clone",
    "selected": "user/*.rs?_tag=x user/Patient.rs git-fhir/history git-fhir/clone",
    "patient": "patient/*.cruds git-fhir/history git-fhir/clone",
}
MAY = ("mirror", "writer")
REFS = "/fhir.git/info/refs?service=git-upload-pack"
PULL = "/fhir.git/git-upload-pack"
ASKING = {"Content-Type": "application/x-git-upload-pack-request"}


def patient(id: str, **elements: object) -> Update:
    return Update(ResourceId("Patient", id), {"resourceType": "Patient", "id": id, **elements})


@dataclass
class Served:
    """A server with a record of some commits, and the secrets of its tokens by their names."""

    running: Running
    record: Path
    secrets: dict[str, str]

    def url(self, secret: str | None = None) -> str:
        who = f"x:{secret}@" if secret else ""
        return f"http://{who}127.0.0.1:{self.running.port}/fhir.git"

    def ask(
        self, method: str, path: str, kind: str = "mirror", body: bytes | None = None, **headers: str
    ) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["Authorization"] = f"Bearer {self.secrets[kind]}"
        connection = self.running.connect()
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers, content

    def git(self, *arguments: object, folder: Path | None = None, fails: bool = False) -> str:
        """What git prints; where it `fails`, on stderr."""
        result = subprocess.run(
            ["git", "-c", "user.name=Eve", "-c", "user.email=eve@example.org", *map(str, arguments)],
            cwd=folder or self.record.parent,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert bool(result.returncode) == fails, result.stderr
        return result.stderr if fails else result.stdout.strip()

    def clone(self, *options: object, kind: str = "mirror", into: Path) -> Path:
        self.git("clone", "--quiet", *options, self.url(self.secrets[kind]), into)
        return into

    def head(self) -> str:
        return self.git("rev-parse", "main", folder=self.record)

    def worker(self) -> int:
        return self.running.workers()[0]


def serve(folder: Path, *settings: str) -> Served:
    """A server of one worker, with these settings, such as `fhir.maxClones=1`."""
    for setting in settings:
        subprocess.run(["git", "config", "--file", folder / ".gitconfig", *setting.split("=")], check=True)
    running = start(folder, "--workers", "1", anonymous=False)
    record = folder / "record.git"
    tokens, secrets = Tokens(str(record)), {}
    for name, scope in SCOPES.items():
        secrets[name], _ = tokens.create(
            name="Ada Lovelace",
            email="ada@clinic.example",
            scope=scope,
            patient="a" if "patient/" in scope else None,
            now=time.time_ns() // 1000,
            expires=None,
        )
    return Served(running, record, secrets)


def eventually(happens: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "what the test waits for doesn't happen"


def fhir(folder: Path, *arguments: str) -> str:
    """What `git fhir` prints about a clone."""
    result = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "-C", folder, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def children(process: int) -> list[int]:
    """All that a process has started, and these again, which run or have not been asked how they ended."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [process]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def ended(process: int) -> bool:
    """Whether it ends while this waits. https://man7.org/linux/man-pages/man2/pidfd_open.2.html"""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        done = bool(selector.select(PATIENCE))
    os.close(descriptor)
    return done
