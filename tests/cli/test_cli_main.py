"""What all commands have in common: where they work, how they fail, what they print to whom."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli import docs
from cli.errors import EXIT_CODES
from cli.main import main
from tests.cli.conftest import GRACE, GitFhir, command, git, ndjson

COMMANDS = sorted(main.commands)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_dash_h_is_help_everywhere(name: str) -> None:
    """`git fhir --help` would look for a man page, so -h must do. https://git-scm.com/docs/git#_git_commands"""
    result = CliRunner().invoke(main, [*name.split(), "-h"], prog_name="git-fhir")

    assert result.exit_code == 0
    assert "Usage: git-fhir" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_told_with_its_environment_variable(name: str) -> None:
    """Each option also comes from the environment as GIT_FHIR_…, and the help says so."""
    shown = CliRunner().invoke(main, [name, "-h"], prog_name="git-fhir").stdout
    names = [
        f"GIT_FHIR_{name}_{parameter.opts[-1].lstrip('-').replace('-', '_')}".upper()
        for parameter in main.commands[name].params
        if isinstance(parameter, click.Option)
    ]

    assert [variable for variable in names if variable not in "".join(shown.split())] == []


def test_an_option_comes_from_the_environment(clinic: Path, git_fhir: GitFhir) -> None:
    """GIT_FHIR_LOG_JSON and GIT_FHIR_LOG_MAX_COUNT stand for --json and -n."""
    result = git_fhir("log", GIT_FHIR_LOG_JSON="1", GIT_FHIR_LOG_MAX_COUNT="1")

    assert len(ndjson(result)) == 1


def test_commands_work_on_the_repository_of_the_current_folder(
    clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As git does: in the repository itself, and below the top of a work tree."""
    monkeypatch.chdir(clinic)
    assert CliRunner().invoke(main, ["ls"]).exit_code == 0

    clone = clinic.parent / "clone"
    git(clinic, "clone", "--quiet", str(clinic), str(clone))
    below = next(clone.glob("Patient/*"))
    monkeypatch.chdir(below)
    assert "Patient" in CliRunner().invoke(main, ["ls"]).stdout


def test_dash_c_adds_up_and_is_left_again(clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-C a -C b` is `-C a/b`. https://git-scm.com/docs/git#Documentation/git.txt--Cltpathgt"""
    monkeypatch.chdir(clinic.parent.parent)
    arguments = ["-C", clinic.parent.name, "-C", clinic.name, "ls", "Observation"]

    result = CliRunner().invoke(main, arguments)

    assert result.stdout.startswith("Observation/new-1")
    assert Path.cwd() == clinic.parent.parent


def test_git_dir_is_honoured(clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`git --git-dir=clinic.git fhir ls` sets GIT_DIR."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", clinic.name)

    assert CliRunner().invoke(main, ["ls"]).exit_code == 0


def test_git_offers_the_command_as_its_own(clinic: Path, tmp_path: Path) -> None:
    """`git fhir` finds `git-fhir` on PATH."""
    script = tmp_path / "bin" / "git-fhir"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {" ".join(command())} "$@"\n')
    script.chmod(0o755)
    environment = os.environ | {"PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}

    answer = subprocess.run(
        ["git", "-C", clinic, "fhir", "ls"], env=environment, capture_output=True, text=True, check=True
    )

    assert answer.stdout.splitlines() == ["1  Observation", "2  Patient"]


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["ls"], 0),
        (["import", "bad.json"], 1),
        (["log", "--no-such-option"], 2),
        (["no-such-command"], 2),
        (["cat", "example"], 2),
        (["cat", "Foo/example"], 2),
        (["cat", "Patient/a/_history/0"], 2),
        (["ls", "Foo"], 2),
        (["log", "Foo"], 2),
        (["log", "Patient/example/_history/1"], 2),
        (["log", "--since", "yesterday"], 2),
        (["diff", "Patient/example", "a", "b"], 2),
        (["diff", "Patient/example", "1", "2", "3"], 2),
        (["cat", "Patient/example/_history/1", "--version", "1"], 2),
        (["import", "no-such-file"], 2),
        (["import", "--author", "Ada", "bad.json"], 2),
        (["cat", "Patient/nobody"], 3),
        (["cat", "Patient/example", "--version", "3"], 3),
        (["cat", "Patient/example", "--version", "9"], 3),
        (["log", "Patient/nobody"], 3),
        (["show", "no-such-commit"], 3),
        (["diff", "Patient/nobody"], 3),
        (["-C", "/", "ls"], 128),
        (["-C", "no-such-folder", "ls"], 128),
    ],
)
def test_exit_codes(clinic: Path, git_fhir: GitFhir, arguments: list[str], exit_code: int) -> None:
    """0 done, 1 refused or found, 2 usage, 3 not there, 128 no repository; never a traceback."""
    (clinic / "bad.json").write_text("{")

    result = git_fhir(*arguments)

    assert result.exit_code == exit_code
    assert exit_code in EXIT_CODES
    assert result.exception is None or isinstance(result.exception, SystemExit)
    if exit_code in (3, 128):
        assert result.stderr.startswith("git-fhir: ")
        assert result.stderr.count("\n") == 1


def test_an_unknown_format_is_refused_with_one_line(repository: Path, git_fhir: GitFhir) -> None:
    """A plain git repository is none of ours."""
    shutil.rmtree(repository)
    subprocess.run(["git", "init", "--quiet", "--bare", str(repository)], check=True)

    result = git_fhir("ls")

    assert result.exit_code == 128
    assert result.stderr.startswith("git-fhir: ")
    assert result.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(clinic: Path) -> None:
    """`git fhir log | head -1` prints nothing on stderr."""
    pipeline = f"{' '.join(command('-C', clinic, 'log', '--json'))} | true"

    answer = subprocess.run(["sh", "-c", pipeline], capture_output=True, text=True, check=True)

    assert answer.stderr == ""


def test_a_clone_that_cannot_be_written_can_be_read(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is then a private one in the user's cache folder, and writing is refused with one line."""
    shutil.rmtree(clinic / "git-fhir")
    (tmp_path / "patient.json").write_text('{"resourceType": "Patient", "id": "x"}')
    configuration = Path(os.environ["HOME"]) / ".gitconfig"
    configuration.write_text("[safe]\n\tdirectory = *\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    with read_only(clinic):
        result, refused = (
            subprocess.run(command("-C", clinic, *arguments), capture_output=True, text=True, check=False)
            for arguments in (["ls", "Observation"], ["import", tmp_path / "patient.json"])
        )

    assert result.stdout.startswith("Observation/new-1")
    assert not (clinic / "git-fhir").exists()
    assert list((tmp_path / "cache" / "git-fhir").iterdir())
    assert refused.returncode == 1
    assert refused.stderr.startswith("git-fhir: stopped: ")
    assert refused.stderr.count("\n") == 1


@contextmanager
def read_only(repository: Path) -> Iterator[None]:
    """Nobody may write; for root, to whom no permission matters, the repository is a trusted other's."""
    paths = [repository, *repository.rglob("*")]
    for path in paths:
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        elif path.is_dir():
            path.chmod(0o555)
    yield
    for path in paths:
        if path.is_dir():
            path.chmod(0o755)


def test_what_others_wrote_does_not_steer_the_terminal(repository: Path, git_fhir: GitFhir) -> None:
    """An escape sequence in a resource is shown, not obeyed; what is only space is printed."""
    evil = '{"resourceType": "Patient", "id": "evil", "name": [{"text": "\\u202e\\u009b31m 山田　太郎"}]}'
    git_fhir("import", "-", input=evil)

    shown = git_fhir("show").stdout

    assert "\\u202e\\x9b31m 山田　太郎" in shown
    assert "\u202e" not in shown


def test_the_documentation_of_the_commands_is_current() -> None:
    """docs/cli.md is what `python -m cli.docs` prints."""
    page = Path(__file__).parents[2] / "docs" / "cli.md"

    assert page.read_text() == docs.page(), "run: python -m cli.docs > docs/cli.md"


def test_the_author_must_be_known(
    repository: Path, git_fhir: GitFhir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As git does, import asks for a name rather than inventing one; --author answers, and so does git's configuration."""
    monkeypatch.delenv("GIT_AUTHOR_NAME")
    monkeypatch.delenv("GIT_AUTHOR_EMAIL")
    git(repository, "config", "user.useConfigOnly", "true")
    bundle = '{"resourceType": "Patient", "id": "a"}'

    refused = git_fhir("import", "-", input=bundle)
    assert refused.exit_code == 1
    assert "git-fhir: git doesn't know who you are" in refused.stderr

    assert git_fhir("import", "-", "--author", "A B <a@b.example>", input=bundle).exit_code == 0
    assert git(repository, "log", "-1", "--format=%an <%ae>") == "A B <a@b.example>\n"

    git(repository, "config", "user.name", GRACE.name)
    git(repository, "config", "user.email", GRACE.email)
    assert git_fhir("import", "-", "--force", input=bundle).exit_code == 0
    assert git(repository, "log", "-1", "--format=%an") == f"{GRACE.name}\n"
