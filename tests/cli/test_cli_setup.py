"""setup: git's diffs in a clone without the two lines that every version changes, and completion in the shell."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main
from gitstore import Update
from tests.cli.conftest import ADA, PATIENT, GitFhir, command, git, open_store, patient

NOISE = ('"versionId"', '"lastUpdated"')
PATH = "Patient/c/3/4/example.json"


@pytest.fixture
def clone(clinic: Path, tmp_path: Path) -> Path:
    """A clone with a work tree."""
    git(tmp_path, "clone", "--quiet", str(clinic), "clone")
    return tmp_path / "clone"


def setup(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(main, ["-C", str(folder), "setup", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def changed(text: str) -> list[str]:
    """The lines of a diff that were added or removed."""
    return [line for line in text.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_a_clone_shows_what_changed_and_nothing_else(clone: Path) -> None:
    """`git log -p`, `git show` and `git diff` leave out meta.versionId and meta.lastUpdated, on both sides."""
    before = git(clone, "log", "-p", "--", PATH)
    assert all(word in before for word in NOISE)

    setup(clone)

    log = git(clone, "log", "-p", "--", PATH)
    assert not any(word in "\n".join(changed(log)) for word in NOISE)
    diff = git(clone, "diff", "HEAD~4", "HEAD~3", "--", PATH)
    assert not any(word in diff for word in NOISE)
    assert [line for line in changed(diff) if "Lovelace" in line or "King" in line] == [
        '-      "family": "Lovelace"',
        '+      "family": "King"',
    ]


def test_a_bare_repository_too(clinic: Path) -> None:
    """git reads no .gitattributes there, so its info/attributes names the driver; what stands in it stays."""
    attributes = clinic / "info" / "attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("*.png binary")

    setup(clinic)

    assert attributes.read_text() == "*.png binary\n*.json diff=fhir\n"
    assert not any(word in "\n".join(changed(git(clinic, "log", "-p"))) for word in NOISE)


def test_a_second_time_changes_nothing(clinic: Path, clone: Path) -> None:
    """It says what it did."""
    for folder, count in ((clinic, 2), (clone, 1)):
        assert len(setup(folder).splitlines()) == count
        files = [
            path for path in folder.rglob("*") if path.is_file() and path.name in ("config", "attributes")
        ]
        first = {path: path.read_text() for path in files}
        assert setup(folder) == "Nothing to do: all is set up.\n"
        assert json.loads(setup(folder, "--json")) == {"changed": []}
        assert {path: path.read_text() for path in files} == first


def test_a_driver_of_another_kind_is_replaced(clone: Path) -> None:
    """As an older version may have set it."""
    git(clone, "config", "--add", "diff.fhir.textconv", "cat")
    git(clone, "config", "--add", "diff.fhir.textconv", "tac")

    assert setup(clone).startswith("Set diff.fhir.textconv")

    assert len(git(clone, "config", "--get-all", "diff.fhir.textconv").splitlines()) == 1


def test_git_fhir_as_textconv_shows_the_same(clone: Path) -> None:
    """`textconv` is for where there is no sed."""
    setup(clone)
    with_sed = git(clone, "show", "HEAD~3")
    git(clone, "config", "diff.fhir.textconv", shlex.join(command("textconv")))

    assert git(clone, "show", "HEAD~3") == with_sed
    assert not any(word in with_sed for word in NOISE)


@pytest.mark.parametrize("way", ["textconv", "sed"])
def test_only_the_two_lines_of_the_resource_itself_are_hidden(
    repository: Path, tmp_path: Path, way: str
) -> None:
    """Not those of a contained resource, which are content; nor anything of a file of another form."""
    inner = patient("inner", meta={"versionId": "9", "lastUpdated": "2026-01-01T00:00:00Z"})
    with open_store(repository) as store:
        store.commit([Update(PATIENT, patient(contained=[inner]))], ADA)
    stored = git(repository, "show", f"main:{PATH}")
    file = tmp_path / "file.json"
    setup(repository)
    configured = git(repository, "config", "diff.fhir.textconv").strip()
    program = command("textconv") if way == "textconv" else ["sh", "-c", f"{configured} $0"]

    def shown(text: str) -> str:
        file.write_text(text)
        return subprocess.run([*program, str(file)], check=True, capture_output=True, text=True).stdout

    lines = stored.splitlines(keepends=True)
    assert shown(stored) == "".join(lines[:4] + lines[6:])
    assert '"versionId": "9"' in shown(stored)
    assert shown("a\nb\nc\n\n\n\n") == "a\nb\nc\n\n\n\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_each_shell(git_fhir: GitFhir, shell: str) -> None:
    """The script names the command and the variable that it asks with; nothing else is changed."""
    result = git_fhir("setup", "--completion", shell)

    assert result.exit_code == 0
    assert f"_GIT_FHIR_COMPLETE={shell}_complete" in result.stdout
    assert git_fhir("setup").stdout.startswith("Set diff.fhir.textconv")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands(git_fhir: GitFhir, tmp_path: Path) -> None:
    """`git-fhir ex<TAB>` is export."""
    script = git_fhir("setup", "--completion", "bash").stdout
    program = tmp_path / "git-fhir"
    program.write_text("#!/bin/sh\nexec " + " ".join(command()) + ' "$@"\n')
    program.chmod(0o755)
    asked = f"{script}\nCOMP_WORDS=(git-fhir ex) COMP_CWORD=1\n_git_fhir_completion '{program}' 2>&1\necho \"${{COMPREPLY[@]}}\""

    said = subprocess.run(["bash", "-c", asked], check=True, capture_output=True, text=True).stdout

    assert said.split()[-1:] == ["export"]
