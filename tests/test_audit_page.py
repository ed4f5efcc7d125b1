"""docs/audit.md is real: its commands are typed and its requests sent, and what they answer is compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import falcon.testing
import pytest

from api.app import create_app
from gitstore import Settings, Store

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "sample_repo" / "clinic.bundle", tmp_path)
    return tmp_path


def pattern(shown: str) -> str:
    """What a page shows, `…` standing for anything."""
    return re.escape(shown).replace("…", ".*")


def test_the_commands_print_what_the_page_says(folder: Path) -> None:
    """As one shell session, with plain git."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL))
    commands = [line[2:] for line in blocks.splitlines() if line.startswith("$ ")]
    shown = [re.sub(r"^\$ .*\n", "", part, count=1) for part in re.split(r"(?m)^(?=\$ )", blocks) if part]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "\n".join(f"{command}\nprintf '\\0'" for command in commands)

    result = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "GIT_PAGER": "cat"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    printed = result.stdout.split("\0")
    assert len(commands) > 5
    for command, expected, found in zip(commands, shown, printed, strict=False):
        assert re.fullmatch(pattern(expected), found, re.DOTALL), (command, found)


def test_the_requests_are_answered_as_the_page_says(folder: Path) -> None:
    """JSON as the page prints it, without regard to space."""
    examples = re.findall(r"```http\nGET (\S+)\n```\n\n```json\n(.*?)```", PAGE, re.DOTALL)
    clone = folder / "clinic.git"
    subprocess.run(["git", "clone", "-q", "--bare", folder / "clinic.bundle", clone], check=True)
    with Store.open(clone, Settings(durability="off")) as store:
        client = falcon.testing.TestClient(create_app(store, patience=60.0))
        assert len(examples) == 4
        for url, shown in examples:
            answer = client.simulate_get(url, headers={"Host": "localhost:8080"})
            assert answer.status_code == 200, answer.text
            found = json.dumps(answer.json, ensure_ascii=False, separators=(",", ":"))
            expected = re.sub(r'("(?:[^"\\]|\\.)*")|\s+', lambda match: match[1] or "", shown)
            assert re.fullmatch(pattern(expected), found, re.DOTALL), (url, found)
