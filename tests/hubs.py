"""Hubs for tests: a bare repository behind Debian's nginx with `git http-backend`, behind its sshd, or at a path.

Each is a context manager that gives a `Hub`. Daemons write into one new folder, are ready when the block begins, and are
gone after it. Nothing here reads the developer's configuration of git or ssh. `within` is put before the command of a
daemon, such as `nsenter` into a network namespace (see cluster).
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PATIENCE = 20.0
"""Seconds after which something that must happen has failed."""

SETTINGS = {
    "core.fsync": "all",
    "receive.denyNonFastForwards": "true",
    "receive.denyDeletes": "true",
    "receive.fsckObjects": "true",
    "receive.unpackLimit": "1",
    "uploadpack.allowRefInWant": "true",
    "http.receivepack": "true",
}
"""The configuration of a hub: what was pushed is on disk, nothing is ever taken back, and packs stay packs."""

HARMLESS = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@clinic.example",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@clinic.example",
}
"""An environment in which git knows nothing about who runs the tests, and never asks."""

PACKAGES = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
}
"""Debian's packages whose names aren't those of their commands."""

NGINX = """\
{user}daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    fastcgi_temp_path {folder}/fastcgi;
    proxy_temp_path {folder}/proxy;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address}:{port};
        client_max_body_size 0;
        auth_basic "the hub";
        auth_basic_user_file {folder}/users;
        location / {{
            fastcgi_pass unix:{folder}/fcgiwrap;
            fastcgi_param SCRIPT_FILENAME {backend};
            fastcgi_param GIT_PROJECT_ROOT {root};
            fastcgi_param GIT_HTTP_EXPORT_ALL 1;
            fastcgi_param PATH_INFO $uri;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param REMOTE_USER $remote_user;
            fastcgi_param REMOTE_ADDR $remote_addr;
        }}
    }}
}}
"""

SSHD = """\
ListenAddress {address}:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
AcceptEnv GIT_PROTOCOL
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PermitUserRC no
PidFile none
StrictModes no
UsePAM no
SetEnv GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 HOME={folder}
"""
"""In another home the developer's .bashrc isn't found, which bash reads before each command that sshd gives it."""


@dataclass(frozen=True)
class Hub:
    """Where nodes push to and fetch from."""

    url: str
    git_dir: Path
    """The repository itself, to look at."""
    config: Mapping[str, str] = field(default_factory=dict)
    """What has to stand in the git configuration of a node."""

    @property
    def environment(self) -> dict[str, str]:
        """The same for a git that has no configuration of its own. https://git-scm.com/docs/git#_environment_variables"""
        entries = {"GIT_CONFIG_COUNT": str(len(self.config))}
        for number, (key, value) in enumerate(self.config.items()):
            entries |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return os.environ | HARMLESS | entries

    def head(self) -> str | None:
        """The commit of main; None before the first push."""
        command = ["git", "-C", str(self.git_dir), "rev-parse", "--verify", "--quiet", "refs/heads/main"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | HARMLESS)
        return done.stdout.strip() or None


def find(*commands: str) -> list[str]:
    """Where these are; skips the test where one is not installed, and names its package."""
    found = []
    for command in commands:
        # Debian keeps daemons where not every user looks.
        path = shutil.which(command, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if path is None:
            package = PACKAGES.get(command, command)
            pytest.skip(f"{command} is not installed: `apt-get install {package}`")
        found.append(path)
    return found


def wait_until(
    condition: Callable[[], object], words: str | Callable[[], str], patience: float = PATIENCE
) -> None:
    """Look again and again until the condition holds; AssertionError with these words after so many seconds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, words if isinstance(words, str) else words()
        time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listens(pid: int, port: int) -> bool:
    """Whether anybody listens at this TCP port, in the network namespace of this process."""
    # https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
    rows = Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return any(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in map(str.split, rows))


@contextmanager
def daemon(
    command: Sequence[str],
    log: Path,
    ready: Callable[[int], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """A process in a group of its own, from when it is ready; the whole group ends with the block."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env={**os.environ, **HARMLESS, **(environment or {})},
        )
    try:
        wait_until(
            lambda: process.poll() is not None or ready(process.pid), lambda: f"{command}\n{log.read_text()}"
        )
        assert process.poll() is None, f"{command}\n{log.read_text()}"
        yield process.pid
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM for all of its group, and SIGKILL for what is left of it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(PATIENCE / 4)
    finally:
        with suppress(ProcessLookupError):  # nobody is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def bare(path: Path) -> Path:
    """A new bare repository that is configured as a hub."""
    quiet = os.environ | HARMLESS
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(path)], check=True, env=quiet)
    for key, value in SETTINGS.items():
        subprocess.run(["git", "-C", str(path), "config", key, value], check=True, env=quiet)
    return path


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder with a short name: that of a socket has at most 107 bytes, and pytest's folders are deep."""
    with tempfile.TemporaryDirectory(prefix="git-fhir-hub-") as name:
        yield Path(name)


@contextmanager
def path_hub(scheme: str = "") -> Iterator[Hub]:
    """A path, or with scheme "file://" a URL."""
    with _folder() as folder:
        git_dir = bare(folder / "record.git")
        yield Hub(f"{scheme}{git_dir}", git_dir)


@contextmanager
def http_hub(
    *, address: str = "127.0.0.1", port: int = 0, within: Sequence[str] = (), helper: bool = False
) -> Iterator[Hub]:
    """nginx, which asks for a password, before `git http-backend`. With `helper` git looks for that in a file, without it is in the URL.

    https://git-scm.com/docs/git-http-backend
    """
    nginx, fcgiwrap = find("nginx", "fcgiwrap")
    command = ["git", "--exec-path"]
    backend = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    with _folder() as folder:
        (folder / "root").mkdir()
        git_dir = bare(folder / "root" / "record.git")
        port = port or free_port()
        (folder / "users").write_text("node:{PLAIN}secret\n")
        (folder / "credentials").write_text(f"http://node:secret@{address}%3a{port}\n")
        (folder / "nginx.conf").write_text(
            NGINX.format(
                user="user root;\n" if os.getuid() == 0 else "",
                folder=folder,
                address=address,
                port=port,
                backend=backend / "git-http-backend",
                root=folder / "root",
            )
        )
        log = folder / "log"
        gateway = [*within, fcgiwrap, "-f", "-c", "4", "-s", f"unix:{folder}/fcgiwrap"]
        web = [*within, nginx, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
        with (
            daemon(gateway, log, lambda _: (folder / "fcgiwrap").exists()),
            daemon(web, log, lambda pid: listens(pid, port)),
        ):
            if helper:
                config = {"credential.helper": f"store --file {folder}/credentials"}
                yield Hub(f"http://{address}:{port}/record.git", git_dir, config)
            else:
                yield Hub(f"http://node:secret@{address}:{port}/record.git", git_dir)


@contextmanager
def ssh_hub(*, address: str = "127.0.0.1", port: int = 0, within: Sequence[str] = ()) -> Iterator[Hub]:
    """sshd with keys of its own; nodes know its key, and theirs is the only one that it knows."""
    sshd, ssh, keygen = find("sshd", "ssh", "ssh-keygen")
    with _folder() as folder:
        git_dir = bare(folder / "record.git")
        port = port or free_port()
        for name in ("host", "client"):
            key = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
            subprocess.run(key, check=True)
        (folder / "known").write_text(f"[{address}]:{port} {(folder / 'host.pub').read_text()}")
        (folder / "sshd.conf").write_text(SSHD.format(address=address, port=port, folder=folder))
        command = [*within, *_with_an_empty_folder(), sshd, "-D", "-e", "-f", str(folder / "sshd.conf")]
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": folder / "known",
        }
        words = " ".join(f"-o {name}={value}" for name, value in options.items())
        config = {"core.sshCommand": f"{ssh} -F none -i {folder}/client {words}"}
        with daemon(command, folder / "log", lambda pid: listens(pid, port)):
            yield Hub(f"ssh://{getpass.getuser()}@{address}:{port}{git_dir}", git_dir, config)


def _with_an_empty_folder() -> list[str]:
    """root's sshd wants an empty /run/sshd. Where there is none, it sees one of its own, and nobody else does."""
    if os.getuid() != 0 or Path("/run/sshd").is_dir():
        return []
    [unshare] = find("unshare")
    if subprocess.run([unshare, "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("sshd has no /run/sshd, and can't be given one here: `mkdir /run/sshd`")
    script = 'mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec "$@"'
    return [unshare, "--mount", "sh", "-c", script, "sh"]
