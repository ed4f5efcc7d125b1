"""The house stands: who may import whom, what each file opens with, and the drawn family of errors."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gitstore
from gitstore import errors

ROOT = Path(__file__).parents[1]
ROOMS = ("gitstore", "api", "cli")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the rooms in a folder, with the contracts of its pyproject.toml."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_the_floors_are_kept():
    """pyproject.toml, [tool.importlinter]: each room imports only what is below it."""
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout + result.stderr


VIOLATIONS = [
    ("gitstore/fhir/ids.py", "import gitstore.store", "The house stands on its floors"),
    ("gitstore/git/pack.py", "import gitstore.search.index", "The house stands on its floors"),
    (
        "gitstore/version.py",
        "def late():\n    import falcon",
        "gitstore knows nothing about HTTP or terminals",
    ),
    ("cli/main.py", "import pygit2", "Callers come in through the front door"),
    ("api/app.py", "from gitstore.search import index", "Callers come in through the front door"),
    ("gitstore/store.py", "import pygit2", "Only gitstore.git speaks pygit2"),
    ("gitstore/snapshot.py", "import sqlite3", "Only gitstore.search speaks sqlite3"),
    (
        "gitstore/signatures.py",
        "import cryptography",
        "In gitstore, only gitstore.git speaks cryptography",
    ),
]


def test_every_broken_contract_is_noticed(tmp_path):
    """A test of the test: with these imports, each contract is broken where it should be."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, line, _ in VIOLATIONS:
        with (tmp_path / path).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")

    result = lint_imports(tmp_path)

    assert result.returncode != 0
    broken = set(re.findall(r"^(.+) BROKEN", result.stdout, re.MULTILINE))
    assert broken == {contract for _, _, contract in VIOLATIONS}


def test_every_room_is_looked_at():
    assert len(FILES) > 30
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_a_sentence_that_says_what_lives_there(path):
    opening = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))

    assert opening
    first = opening.split("\n\n")[0]
    assert len(first.split()) > 3
    assert first[-1] in '.:?"' or re.search(r"https?://\S+$", first), (
        "neither a sentence nor a source at its end"
    )


def drawn() -> dict[str, tuple[str, str]]:
    """The tree at the top of gitstore/errors.py: each name with its parent's name, and the code beside it."""
    parents: list[str] = []
    found = {}
    drawing = (errors.__doc__ or "").partition("\nStoreError\n")
    for line in "".join(drawing[1:]).splitlines():
        match = re.fullmatch(
            r"(?P<lines>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: +(?P<code>[a-z-]+)\b.*| {2,}.*)?", line
        )
        if match is None:
            continue
        depth = len(match["lines"]) // 3
        parents[depth:] = [match["name"]]
        found[match["name"]] = (parents[depth - 1] if depth else "Exception", match["code"] or "")
    return found


def test_the_drawn_family_of_errors_is_the_one_there_is():
    """Names, parents, and the issue code of each. https://hl7.org/fhir/R4/valueset-issue-type.html"""
    classes = {
        name: one
        for name, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, Exception) and one.__module__ == errors.__name__
    }
    tree = drawn()

    assert {name: one.__base__.__name__ for name, one in classes.items()} == {
        name: parent for name, (parent, _) in tree.items()
    }
    leaves = {name for name in classes if name not in {parent for parent, _ in tree.values()}}
    for name in leaves:
        assert classes[name].code == tree[name][1], name


def test_every_error_comes_through_the_front_door():
    """Who calls the store can catch what it raises."""
    assert set(drawn()) <= set(gitstore.__all__)


def test_the_front_door_is_in_order():
    assert gitstore.__all__ == sorted(
        set(gitstore.__all__), key=lambda name: (not name.isupper(), name[0].islower(), name)
    )
    for name in gitstore.__all__:
        assert hasattr(gitstore, name)
