"""A laboratory for records with several nodes: a hub, git-fhir nodes and etcd, each in a network namespace of its own.

    10.99.0.1  the switch, with the bridge that connects all; clients connect from here
    10.99.0.2  the hub: nginx with `git http-backend`, or sshd
    10.99.0.3  etcd, where it is asked for
    10.99.0.11 and on: the nodes, `git-fhir serve` on port 8080

The addresses exist only in these namespaces, and nothing outlives them (see namespaces). A node is what it is for whoever
runs git-fhir: a git directory with its configuration, commands, and what they answer.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import hubs
import pytest
import slow_link
from namespaces import PATIENCE, Namespace, children

from gitstore import Store, init

PORT = 8080
_SSH = 2222
_HUB, _ETCD, _FIRST_NODE = 2, 3, 11
_CLOCK = Path(__file__).with_name("skewed_clock.py")

HubKind = Literal["http", "ssh"]


class Answer(NamedTuple):
    """Of a node to a request."""

    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def version(self) -> int:
        """The number in its ETag."""
        return int(re.sub(r"\D", "", self.headers["ETag"]))


class Wire:
    """A client's connection to a node, made anew where it broke. One thread's."""

    def __init__(self, switch: Namespace, address: str, timeout: float) -> None:
        self._switch = switch
        self._address = address
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, resource: Any = None, **headers: str) -> Answer:
        """One request below /fhir; headers with _ for -.

        Raises ConnectionRefusedError where it surely didn't get there, OSError and HTTPException where nobody knows.
        """
        body = None if resource is None else json.dumps(resource)
        sent = {"Content-Type": "application/fhir+json"} if body else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request(method, f"/fhir/{path}", body, sent)
            response = self._connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if response.will_close:
            self.close()
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self._address, PORT, timeout=self._timeout)
        with self._switch.inside():
            plain = socket.socket()
        try:
            plain.settimeout(self._timeout)
            plain.connect((self._address, PORT))
        except OSError as error:
            plain.close()
            raise ConnectionRefusedError(str(error)) from error
        connection.sock = plain
        return connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Node:
    """A record of its own in a namespace of its own, and perhaps a server over it."""

    def __init__(self, space: Namespace, folder: Path) -> None:
        self.space = space
        self.name = space.name
        self.git_dir = folder / f"{space.name}.git"
        self.log = folder / f"{space.name}.log"
        self.customs = folder / f"{space.name}.python"
        self.url = f"http://{space.address}:{PORT}"
        self.config = {"fhir.nodeUrl": self.url, "fhir.hostName": space.address}
        self.process: subprocess.Popen[bytes] | None = None
        self.is_paused = False

    def git(self, *words: str) -> str:
        """What git says in the record, from outside of the namespace."""
        command = ["git", "-C", str(self.git_dir), *words]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | hubs.HARMLESS
        )
        return done.stdout.strip()

    @property
    def role(self) -> str:
        """What the node has written down: docs/scaling.md."""
        return str(json.loads(self._role.read_text())["role"]) if self.has_role else "primary"

    @property
    def has_role(self) -> bool:
        """Whether it has ever been anything but a primary."""
        return self._role.exists()

    @property
    def _role(self) -> Path:
        return self.git_dir / "git-fhir" / "role"


class Lab:
    """The nodes and what can be done to them. Everything is bounded in time: AssertionError where it takes longer."""

    def __init__(
        self,
        stack: ExitStack,
        nodes: int,
        config: Mapping[str, str],
        *,
        etcd: bool,
        slow: bool,
        hub: HubKind,
        workers: int,
    ) -> None:
        self._stack = stack
        self.serving = ("--workers", str(workers), "--threads", "16")
        """What a node is served with."""

        # A short name, or ssh could not keep connections: paths of sockets have 107 characters at most.
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lab-")))
        self.nodes: list[Node] = []
        self._wires: list[Wire] = []
        stack.callback(self._reap)
        names = {"switch": 1, "hub": _HUB, **({"etcd": _ETCD} if etcd else {})}
        names |= {f"node{number + 1}": _FIRST_NODE + number for number in range(nodes)}
        self._spaces: dict[str, Namespace] = {}
        for name, number in names.items():
            self._spaces[name] = Namespace(name, number)
            stack.callback(self._spaces[name].end)
        for space in self._spaces.values():
            space.wait()
        self.switch = self._spaces["switch"]
        self._link = self._lay_cables(slow=slow)
        self.hub = self._start_hub(hub)
        self.config = {"fhir.hub": self.hub.url, **self.hub.config, **config}
        if etcd:
            self.config["fhir.etcd"] = self._start_etcd()
        self.nodes += [Node(self._spaces[name], self.folder) for name in names if name.startswith("node")]
        self._make_records()

    def _reap(self) -> None:
        """When all processes are gone."""
        for node in self.nodes:
            if node.process is not None:
                node.process.wait(PATIENCE)
        for wire in self._wires:
            wire.close()

    # Building it

    def _lay_cables(self, *, slow: bool) -> subprocess.Popen[str] | None:
        """Connect all with the bridge; the hub, where it may become slow, by a cable that can be told to take its time."""
        spaces = [space for space in self._spaces.values() if space is not self.switch]
        pairs = [space for space in spaces if not (slow and space.name == "hub")]
        switch = [f"link add bridge address {self.switch.hardware} type bridge", "link set bridge up"]
        switch += [f"address add {self.switch.address}/24 dev bridge", "link set lo up"]
        for space in pairs:
            switch.append(f"link add {space.name} type veth peer name eth0 netns {space.holder.pid}")
        self.switch.run("ip", "-batch", "-", stdin="\n".join(switch))
        link = self._slow_cable(self._spaces["hub"]) if slow else None
        self.switch.run(
            "ip",
            "-batch",
            "-",
            stdin="".join(f"link set {space.name} master bridge up\n" for space in spaces),
        )
        for space in spaces:
            lines = ["link set lo up", f"link set eth0 address {space.hardware} up"]
            lines += [f"address add {space.address}/24 dev eth0"]
            lines += [
                _neighbour(other, other.hardware) for other in self._spaces.values() if other is not space
            ]
            space.run("ip", "-batch", "-", stdin="\n".join(lines))
        return link

    def _slow_cable(self, space: Namespace) -> subprocess.Popen[str]:
        if not os.access("/dev/net/tun", os.W_OK):
            pytest.skip("/dev/net/tun is not there: nothing can be made slow here")
        ends = [str(space.holder.pid), "eth0", str(self.switch.holder.pid), space.name]
        link = subprocess.Popen(
            [sys.executable, slow_link.__file__, *ends],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(_end_link, link)
        assert link.stdout is not None
        assert link.stdout.readline() == "ready\n"
        return link

    def _start_hub(self, kind: HubKind) -> hubs.Hub:
        space = self._spaces["hub"]
        if kind == "ssh":
            made = hubs.ssh_hub(address=space.address, port=_SSH, within=space.within)
        else:
            made = hubs.http_hub(address=space.address, port=80, within=space.within)
        return self._stack.enter_context(made)

    def _start_etcd(self) -> str:
        [etcd] = hubs.find("etcd")
        space = self._spaces["etcd"]
        url, peers = f"http://{space.address}:2379", "http://127.0.0.1:2380"
        command = [*space.within, etcd, "--data-dir", str(self.folder / "etcd")]
        command += ["--listen-client-urls", url, "--advertise-client-urls", url]
        command += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
        command += ["--initial-cluster", f"default={peers}"]
        self._stack.enter_context(
            hubs.daemon(command, self.folder / "etcd.log", lambda pid: hubs.listens(pid, 2379))
        )
        return url

    def _make_records(self) -> None:
        """One record, brought to the hub, and clones of it; the first node is the primary."""
        first = self.nodes[0]
        init(first.git_dir)
        first.git("push", "--quiet", str(self.hub.git_dir), "main")
        for node in self.nodes:
            node.customs.mkdir()
            shutil.copy(_CLOCK, node.customs / "sitecustomize.py")
            self.skew(node, 0)
            if node is not first:
                clone = ["git", "clone", "--quiet", "--bare", "--no-hardlinks", str(self.hub.git_dir)]
                subprocess.run([*clone, str(node.git_dir)], check=True, env=os.environ | hubs.HARMLESS)
            for key, value in {**self.config, **node.config}.items():
                node.git("config", key, value)
            for other in self.nodes:
                if other is not node:
                    node.git("config", "--add", "fhir.replica", other.url)

    # Nodes

    def environment(self, node: Node) -> dict[str, str]:
        """Of all that runs on a node."""
        paths = [str(node.customs), *filter(None, [os.environ.get("PYTHONPATH")])]
        here = {"HOME": str(self.folder), "TMPDIR": str(self.folder), "PYTHONPATH": ":".join(paths)}
        return os.environ | hubs.HARMLESS | here

    def command(self, node: Node, *words: str) -> list[str]:
        """git-fhir on a node; it dies with who started it."""
        return self._python(node, "cli", "-C", str(node.git_dir), *words)

    def _python(self, node: Node, module: str, *words: str) -> list[str]:
        command = [*node.space.within, "setpriv", "--pdeathsig", "KILL", sys.executable, "-P", "-m"]
        return [*command, module, *words]

    def run(self, node: Node, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of git-fhir on a node, with what it says; who calls looks at its exit code."""
        return subprocess.run(
            self.command(node, *words),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env=self.environment(node),
        )

    def start(self, *nodes: Node, wait: bool = True, host: str | None = None) -> None:
        """Serve, all at once, on this address or the node's own; all but the first as replicas when they start for the first time.

        Call it from the main thread: servers die with the thread that started them.
        """
        arguments = ["--port", str(PORT), "--allow-anonymous", *self.serving]
        for node in nodes:
            assert node.process is None, f"{node.name} runs already"
            role = ["--replica"] if node is not self.nodes[0] and not node.has_role else []
            with node.log.open("ab") as log:
                address = ["--host", host or node.space.address]
                node.process = subprocess.Popen(
                    # What `git fhir serve` becomes, at once: starting Python twice is most of what a lab costs.
                    self._python(node, "api", str(node.git_dir), *address, *arguments, *role),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=self.environment(node),
                )
        if wait:
            self.wait_until_up(*nodes)

    def wait_until_up(self, *nodes: Node) -> None:
        """Until each of them answers."""
        for node in nodes:
            hubs.wait_until(partial(self._is_up, node), f"{node.name} doesn't start", PATIENCE)

    def _is_up(self, node: Node) -> bool:
        assert node.process is not None
        assert node.process.poll() is None, f"{node.name} ended: {node.log.read_text()}"
        wire = Wire(self.switch, node.space.address, 5)
        try:
            return wire.ask("GET", "Patient/nobody").status == 404
        except (OSError, http.client.HTTPException):
            return False
        finally:
            wire.close()

    def wire(self, node: Node, timeout: float = PATIENCE) -> Wire:
        """A new connection to a node, which is closed with the lab."""
        self._wires.append(Wire(self.switch, node.space.address, timeout))
        return self._wires[-1]

    def kill(self, node: Node) -> None:
        """SIGKILL for all that runs on a node: as if its power were cut, but for the disk."""
        node.space.signal(signal.SIGKILL, "Z")
        assert node.process is not None
        node.process.wait(PATIENCE)
        node.process, node.is_paused = None, False

    def kill_worker(self, node: Node, chance: random.Random) -> None:
        """SIGKILL for one of its server's workers, if there is any: the others go on, and the server starts another."""
        assert node.process is not None
        workers = children(node.process.pid)
        if workers:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)

    def stop(self, node: Node) -> None:
        """As an administrator does it. It may bring the hub what that lacks, before."""
        assert node.process is not None
        node.process.terminate()
        assert node.process.wait(PATIENCE) == 0, node.log.read_text()
        node.process = None

    def pause(self, node: Node) -> None:
        """Nothing on this node goes on; its kernel still takes connections."""
        node.space.signal(signal.SIGSTOP, "TZ")
        node.is_paused = True

    def resume(self, node: Node) -> None:
        node.space.signal(signal.SIGCONT, "RSDZI")
        node.is_paused = False

    def promote(self, node: Node, words: str = "") -> subprocess.CompletedProcess[str]:
        return self.run(node, "promote", "-m", words)

    def primary(self) -> Node:
        """The one that takes itself for it; AssertionError where that isn't exactly one."""
        found = [node for node in self.nodes if node.role == "primary"]
        assert len(found) == 1, f"{[node.name for node in found]} are primaries"
        return found[0]

    def head(self, node: Node) -> str:
        return node.git("rev-parse", "refs/heads/main")

    def faults(self) -> list[str]:
        """What `git fhir verify` would find wrong on any node."""
        found = []
        for node in self.nodes:
            with Store.open(node.git_dir) as store:
                found += [f"{node.name}: {fault}" for fault in store.verify()]
        return found

    def diverged(self, node: Node) -> set[tuple[str, int]]:
        """Resource and version of all that `git fhir diverged` lists."""
        done = self.run(node, "diverged", "--applied", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        commits = map(json.loads, done.stdout.splitlines())
        changes = [change for commit in commits for change in commit["changes"]]
        return {(change["resource"], int(change["versionId"])) for change in changes}

    def skew(self, node: Node, seconds: float) -> None:
        """Its clock is so far ahead, at once."""
        made = node.customs / "ahead.new"
        made.write_text(str(int(seconds * 1e9)))
        made.rename(node.customs / "ahead")

    # The network

    def partition(self, one: Node | str, other: Node | str, *, both: bool = True) -> None:
        """Nothing gets from one to the other ("hub", "etcd"), and with `both` nothing back: it vanishes, and nobody is told."""
        pairs = [(self._space(one), self._space(other))]
        for here, there in pairs + [pair[::-1] for pair in pairs if both]:
            here.run("ip", *_neighbour(there, "02:63:ff:ff:ff:ff").split())

    def heal(self) -> None:
        """All reach all again, at once."""
        for space in self._spaces.values():
            if space is not self.switch:
                others = [other for other in self._spaces.values() if other is not space]
                lines = "\n".join(_neighbour(other, other.hardware) for other in others)
                space.run("ip", "-batch", "-", stdin=lines)
        if self._link is not None:
            self.delay(0)

    def _space(self, name: Node | str) -> Namespace:
        return name.space if isinstance(name, Node) else self._spaces[name]

    def delay(self, seconds: float) -> None:
        """To the hub and back everything takes so much longer. Only in a lab with `slow`."""
        assert self._link is not None
        assert self._link.stdin is not None
        self._link.stdin.write(f"{seconds / 2}\n")
        self._link.stdin.flush()

    # Waiting

    def wait_until_alike(self, patience: float = PATIENCE) -> str:
        """Until the main of every node is the hub's; that commit."""
        hubs.wait_until(lambda: len(self._heads()) == 1, lambda: f"{self._heads()}", patience)
        [head] = self._heads()
        return head

    def _heads(self) -> set[str]:
        return {*map(self.head, self.nodes), str(self.hub.head())}

    def logs(self, lines: int = 15) -> str:
        """The last lines that each has logged, and which refs are locked."""
        told = []
        for path in sorted(self.folder.glob("*.log")):
            told += [f"--- {path.stem}", *path.read_text(errors="replace").splitlines()[-lines:]]
        told += [f"locked: {path}" for path in self.folder.glob("*.git/refs/**/*.lock")]
        return "\n".join(told)


def _neighbour(other: Namespace, hardware: str) -> str:
    """Where frames for another go: the bridge drops those for an address that nobody has."""
    return f"neighbour replace {other.address} lladdr {hardware} dev eth0 nud permanent"


def _end_link(link: subprocess.Popen[str]) -> None:
    assert link.stdin is not None
    assert link.stdout is not None
    link.stdin.close()
    link.stdout.close()
    link.wait(PATIENCE)


@contextmanager
def lab(
    nodes: int = 3,
    config: Mapping[str, str] | None = None,
    *,
    etcd: bool = False,
    slow: bool = False,
    hub: HubKind = "http",
    workers: int = 1,
) -> Iterator[Lab]:
    """A lab whose nodes are made but not started; `config` is git configuration of each. Skips where the machine lacks something."""
    hubs.find("unshare", "nsenter", "setpriv", "ip")
    with ExitStack() as stack:
        made = Lab(stack, nodes, config or {}, etcd=etcd, slow=slow, hub=hub, workers=workers)
        try:
            yield made
        except BaseException:
            print(made.logs())
            raise
