"""The hub: a bare repository, on any git server, that the nodes of a record push to and fetch from.

A push is a compare-and-swap on the hub's main, made by the hub's own git. What git needs to get there (keys, passwords, proxies)
is configured for git, as for any remote.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress

from gitstore import cores
from gitstore.durable import storage_error, sync_folder
from gitstore.errors import HubUnreachable, StorageFailed
from gitstore.git import layout
from gitstore.git.direct import DURABLE, Direct
from gitstore.git.outbox import Outbox
from gitstore.git.repository import Repository, git_environment

_HUB_MAIN = "refs/git-fhir/hub"
_LONGEST = 3600.0
_MASTER_LIVES = 60
"""Seconds that an SSH connection is kept for the next push or fetch."""

_LONGEST_FOLDER = 48
"""Characters: ssh adds 58 for a socket's name, whose path may have 107."""

_PLAIN = ("-c", "pack.window=0", "-c", "pack.threads=1")
"""For packs of a few commits. To look for deltas takes as much processor time again, here and at the hub, and saves a third of
the bytes. Those that the record's packs have go along as they are, and the hub's git finds the others when it tidies up.
"""

_NO_MAIN = "couldn't find remote ref"
_LOCKED = ".lock': File exists"
_ABANDONED = 10.0
"""Seconds after which nobody is writing any more what a ref is locked for: the few bytes of its new value."""

_REJECTED = "!\t"


class Hub:
    """One repository's hub. One caller at a time, whichever process: who calls holds `git-fhir/hub.lock`."""

    def __init__(
        self, repository: Repository, url: str, timeout: float, outbox: Outbox | None = None
    ) -> None:
        """`outbox` has what was written last. `timeout` is how many seconds git may take; after each time that it took longer
        although the hub can be reached it gets twice as many, up to an hour, because the first push of a long history takes its time.
        """
        self._repository = repository
        self._git_dir = repository.git_dir
        self.url = url
        self._timeout = self._patience = timeout
        self._environment = _environment(self._git_dir)
        self._direct = Direct(self._git_dir, url, self._environment, timeout, outbox)

    def close(self) -> None:
        """Let go of the connection to the hub. May be used on, and then is to be closed again."""
        self._direct.close()

    def push(self, commit: str, after: str | None = None) -> bool:
        """Move the hub's main on to a commit of ours. False where it has commits that this one doesn't build on: of another node.

        `after` is the commit at which the hub's main most likely is. Raises HubUnreachable; then it may have happened all the same.
        """
        if self._direct.push(commit, after):
            return True
        pushed = self._push_by_git(commit)
        if pushed:
            self._direct.pushed_by_git()
        return pushed

    def _push_by_git(self, commit: str) -> bool:
        arguments = [*_PLAIN, "push", "--porcelain", "--no-verify", "--follow-tags", self.url]
        code, out, err = self._run([*arguments, f"{commit}:{layout.REFERENCE}"])
        if code == 0:
            return True
        if not any(line.startswith(_REJECTED) and layout.REFERENCE in line for line in out.splitlines()):
            raise self._unreachable(err or out)
        # Why is told in words only; what stands there tells it for certain.
        found = self.fetch()
        if found is None or self._repository.contains(found, commit):
            raise self._unreachable(out)
        return False

    def main(self) -> str | None:
        """The commit that the hub's main stands at, which need not be here; None for a hub without one. Raises HubUnreachable."""
        code, out, err = self._run(["ls-remote", self.url, layout.REFERENCE])
        if code != 0:
            raise self._unreachable(err)
        return out.partition("\t")[0] or None

    def fetch(self) -> str | None:
        """The commit that the hub's main stands at, once it and what it builds on is here; None for a hub without one.

        Tags come along, and what diverged elsewhere. Raises HubUnreachable.
        """
        main = self._direct.fetch()
        if main is None and (main := self._fetch_by_git()) is not None:
            self._direct.fetched_by_git()
        return main

    def _fetch_by_git(self) -> str | None:
        arguments = [*DURABLE, "-c", "fetch.unpackLimit=1", "fetch", "--quiet", "--no-write-fetch-head"]
        arguments += [
            "--no-auto-maintenance",
            "--end-of-options",
            self.url,
            f"+{layout.REFERENCE}:{_HUB_MAIN}",
            f"{layout.DIVERGED}/*:{layout.DIVERGED}/*",
        ]
        code, _, err = self._run_on_refs(arguments)
        if code != 0 and self._forget_what_is_lost():
            code, _, err = self._run_on_refs(arguments)
        if code != 0:
            if _NO_MAIN in err:
                return None
            raise self._unreachable(err)
        return self._repository.resolve(_HUB_MAIN)

    def _forget_what_is_lost(self) -> bool:
        """Remove our refs that lead to nothing, which keep git from fetching; whether there were any.

        git syncs a ref when it fetches, and no folder: a power cut may keep the ref and lose the pack. The hub has both.
        """
        _, refs, _ = self._run(
            ["for-each-ref", "--format=%(objectname) %(refname)", _HUB_MAIN, layout.DIVERGED]
        )
        lost = [
            (id, name)
            for id, _, name in (line.partition(" ") for line in refs.splitlines())
            if self._run(["cat-file", "-e", id])[0] != 0
        ]
        for id, name in lost:
            self._run_on_refs([*DURABLE, "update-ref", "-d", name, id])
        return bool(lost)

    def keep_diverged(self, name: str, commit: str) -> None:
        """Put a ref on a commit that is to be kept although main goes elsewhere, unless there is one; it is on the disk then.

        Raises StorageFailed.
        """
        _, there, _ = self._run(["for-each-ref", f"--points-at={commit}", layout.DIVERGED])
        if not there:
            code, _, err = self._run_on_refs([*DURABLE, "update-ref", f"{layout.DIVERGED}/{name}", commit])
            if code != 0:
                raise StorageFailed(f"The ref for what has diverged can't be written: {err.strip()}")
        # Also where it is there already: whoever put it there may have died before this.
        self._sync_folders(layout.DIVERGED)

    def push_diverged(self) -> None:
        """Take what has diverged to the hub, too, so that it outlasts this machine. Raises HubUnreachable."""
        code, out, err = self._run(
            ["push", "--porcelain", "--no-verify", self.url, f"{layout.DIVERGED}/*:{layout.DIVERGED}/*"]
        )
        if code != 0:
            raise self._unreachable(err or out)

    def add(self, data: bytes) -> str:
        """Put a commit object into this repository, on which nothing leads yet; returns its id. Raises StorageFailed."""
        git = ["git", "--git-dir", self._git_dir, *DURABLE]
        command = [*git, "hash-object", "-t", "commit", "-w", "--stdin"]
        done = subprocess.run(command, input=data, capture_output=True, check=False, env=self._environment)
        if done.returncode != 0:
            raise StorageFailed(
                f"The commit can't be written: {done.stderr.decode(errors='replace').strip()}"
            )
        id = done.stdout.decode().strip()
        self._sync_folders(os.path.join("objects", id[:2]))
        return id

    def _sync_folders(self, path: str) -> None:
        """Have on the disk what is in a folder of the git directory, and the folders that lead to it. Raises StorageFailed."""
        try:
            while path:
                with suppress(FileNotFoundError):  # refs that are packed, objects that are
                    sync_folder(os.path.join(self._git_dir, path))
                path = os.path.dirname(path)
        except OSError as error:
            raise storage_error(error, f"{path} can't be synced") from error

    def _run_on_refs(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """The same for what writes refs of ours. A git that was killed while it did has left them locked, for ever."""
        done = self._run(arguments)
        return self._run(arguments) if done[0] != 0 and _LOCKED in done[2] and self._unlock() else done

    def _unlock(self) -> bool:
        """Remove what locks refs that nobody but us writes, where it was left behind; whether there was any."""
        own = os.path.join(self._git_dir, layout.LOCAL, "hub.lock")
        with open(own, "ab"):
            os.utime(own)  # by the clock that dates all files, which need not be that of this process
        now, found = os.stat(own).st_mtime, False
        for folder, _, names in os.walk(os.path.join(self._git_dir, os.path.dirname(layout.DIVERGED))):
            for lock in (os.path.join(folder, name) for name in names if name.endswith(".lock")):
                with suppress(FileNotFoundError):
                    status = os.lstat(lock)
                    # Those of a swap of refs under way are links: gitstore/git/references.py
                    if status.st_nlink == 1 and now - status.st_mtime > _ABANDONED:
                        os.unlink(lock)
                        found = True
        return found

    def _run(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of git. Raises HubUnreachable where it takes too long."""
        try:
            done = self._git(arguments, self._patience)
        except subprocess.TimeoutExpired:
            seconds = self._patience
            # A hub that is cut off is given no more time: everybody else of this node waits meanwhile.
            self._patience = min(2 * seconds, _LONGEST) if self._answers() else self._timeout
            raise HubUnreachable(f"git had no answer of the hub within {seconds:g} s.") from None
        self._patience = self._timeout
        return done

    def _answers(self) -> bool:
        try:
            return self._git(["ls-remote", self.url, layout.REFERENCE], self._timeout)[0] == 0
        except subprocess.TimeoutExpired:
            return False

    def _git(self, arguments: Sequence[str], seconds: float) -> tuple[int, str, str]:
        """Raises subprocess.TimeoutExpired."""
        command = ["git", "--git-dir", self._git_dir, *arguments]
        # In a session of its own all its children end with it, and a terminal's Ctrl-C isn't theirs.
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            cores.release(process.pid)
            try:
                out, err = process.communicate(timeout=seconds)
            except BaseException:
                os.killpg(process.pid, 9)
                raise
        return process.returncode, out, err

    def _unreachable(self, said: str) -> HubUnreachable:
        """What git said last, which may name the hub but not a password in its URL."""
        lines = [line for line in said.splitlines() if line.strip() and line != "Done"]
        told = next((line for line in lines if line.startswith(("fatal:", "error:", _REJECTED))), "")
        return HubUnreachable(
            f"The hub can't be used: {(told or ' '.join(lines[-1:]) or 'git failed').strip()}"
        )


def _environment(git_dir: str) -> dict[str, str]:
    environment = git_environment() | {"GIT_TERMINAL_PROMPT": "0"}
    for name in ("GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_SSL_CAINFO"):
        if name in os.environ:
            environment[name] = os.environ[name]
    command = environment.get("GIT_SSH_COMMAND") or _configured_ssh(git_dir, environment)
    if os.path.basename(shlex.split(command)[0]) == "ssh":
        environment["GIT_SSH_COMMAND"] = f"{command} {_ssh_options(git_dir)}"
    return environment


def _configured_ssh(git_dir: str, environment: dict[str, str]) -> str:
    git = ["git", "--git-dir", git_dir, "config", "--get", "core.sshCommand"]
    done = subprocess.run(git, capture_output=True, text=True, check=False, env=environment)
    return done.stdout.strip() or "ssh"


def _ssh_options(git_dir: str) -> str:
    """One connection for many pushes, which would otherwise shake hands anew each time; none that hangs for long.

    https://man.openbsd.org/ssh_config#ControlMaster
    """
    options = ["BatchMode=yes", "ConnectTimeout=5", "ServerAliveInterval=3", "ServerAliveCountMax=2"]
    folder = runtime_folder(git_dir)
    if len(folder) <= _LONGEST_FOLDER:
        options += ["ControlMaster=auto", f"ControlPersist={_MASTER_LIVES}", f"ControlPath={folder}/%C"]
    return " ".join(f"-o {shlex.quote(option)}" for option in options)


def runtime_folder(git_dir: str) -> str:
    """A folder for the sockets and pipes of a git directory, which nobody else can use. Raises StorageFailed.

    Not in the git directory: the path of a socket has 100 characters at most, and copies of a repository should be of files.
    """
    name = hashlib.sha256(os.path.realpath(git_dir).encode()).hexdigest()[:16]
    folder = os.path.join(tempfile.gettempdir(), f"git-fhir-{os.geteuid()}-{name}")
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except OSError as error:
        raise StorageFailed(f"{folder} can't be made: {error.strerror}.") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o77:
        raise StorageFailed(f"{folder} belongs to somebody else.")
    return folder
