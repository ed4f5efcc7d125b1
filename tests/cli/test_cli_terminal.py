"""What a terminal gets: colour, the pager, a progress bar."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

from tests.cli.conftest import command, git

ESCAPE = "\x1b["


def on_terminal(*arguments: str | Path, **environment: str) -> str:
    """What git-fhir prints when stdout and stderr are a terminal."""
    mine, its = pty.openpty()
    with subprocess.Popen(
        command(*arguments),
        stdin=its,
        stdout=its,
        stderr=its,
        env=os.environ | {"TERM": "xterm"} | environment,
    ) as process:
        os.close(its)
        text = b""
        while True:
            try:
                chunk = os.read(mine, 4096)
            except OSError:
                break  # how Linux tells that the other end is closed
            if not chunk:
                break
            text += chunk
        os.close(mine)
    assert process.returncode == 0
    return text.decode()


def test_long_output_goes_through_the_pager_that_git_would_use(clinic: Path) -> None:
    """core.pager of the repository, or GIT_PAGER, which comes first; a shell command as in git."""
    git(clinic, "config", "core.pager", "sed 's/^/configured: /'")

    assert "configured: " in on_terminal("-C", clinic, "log")
    assert "wanted: " in on_terminal("-C", clinic, "log", GIT_PAGER="sed 's/^/wanted: /' | cat")
    assert "configured: " not in on_terminal("-C", clinic, "log", GIT_PAGER="")
    assert "configured: " not in on_terminal("-C", clinic, "cat", "Patient/example")


def test_a_pager_that_ends_early_is_no_error(clinic: Path) -> None:
    """As after `q` in less."""
    assert "Traceback" not in on_terminal("-C", clinic, "log", GIT_PAGER="true")


def test_colour_is_for_terminals_and_only_if_wanted(clinic: Path) -> None:
    """https://no-color.org"""
    assert ESCAPE in on_terminal("-C", clinic, "log", GIT_PAGER="cat")
    assert ESCAPE in on_terminal("-C", clinic, "show", GIT_PAGER="tr a-z A-Z")
    assert ESCAPE not in on_terminal("-C", clinic, "log", GIT_PAGER="cat", NO_COLOR="1")
    assert ESCAPE not in on_terminal("-C", clinic, "show", GIT_PAGER="tr a-z A-Z", NO_COLOR="1")
    piped = subprocess.run(command("-C", clinic, "log"), capture_output=True, text=True, check=True)
    assert ESCAPE not in piped.stdout


def test_import_shows_its_progress_on_a_terminal(repository: Path, tmp_path: Path) -> None:
    """Share done, resources and resources a second."""
    lines = "".join(f'{{"resourceType": "Patient", "id": "p{number}"}}\n' for number in range(1200))
    (tmp_path / "patients.ndjson").write_text(lines)

    shown = on_terminal("-C", repository, "import", tmp_path / "patients.ndjson")

    assert "Importing" in shown
    assert "100%" in shown
    assert "resources, " in shown
    assert "1,200 created" in shown
