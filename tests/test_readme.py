"""The session in README.md is real: it is typed into a shell, and what it prints is compared."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
END = "--- end of output ---"


def session() -> list[tuple[str, str]]:
    """Commands and what they print, from the console blocks below "A session"."""
    text = README.read_text(encoding="utf-8").partition("## A session")[2].partition("\n## ")[0]
    lines = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).splitlines()
    found: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> "):
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def pattern(printed: str) -> str:
    """What a README shows, `…` standing for anything."""
    return re.escape(printed).replace("…", ".*")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_the_session_of_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    port = str(free_port())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "GIT_FHIR_SERVE_PORT": port, "GIT_PAGER": "cat", "PAGER": "cat"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    commands = session()
    assert len(commands) > 5
    # A server that does not start prints nothing, and the shell would wait for ever.
    limit = threading.Timer(60, shell.kill)
    limit.start()
    try:
        for command, printed in commands:
            runs_on = command.endswith("&")
            shell.stdin.write(
                command.replace("8080", port) + "\n" + ("" if runs_on else f"echo; echo '{END}'\n")
            )
            shell.stdin.flush()
            found = shell.stdout.readline() if runs_on else _until_end(shell)
            assert re.fullmatch(pattern(printed), found.replace(port, "8080"), re.DOTALL), (command, found)
    finally:
        limit.cancel()
        shell.stdin.write("kill %1; wait\n")
        shell.stdin.close()
        shell.wait(60)
        shell.stdout.close()


def _until_end(shell: subprocess.Popen[str]) -> str:
    assert shell.stdout is not None
    lines: list[str] = []
    while (line := shell.stdout.readline()) != f"{END}\n":
        assert line, "the shell ended"
        lines.append(line)
    # The line feed before the mark is ours, unless the output did not end in one.
    return "".join(lines).removesuffix("\n") if lines[-1] == "\n" else "".join(lines)
