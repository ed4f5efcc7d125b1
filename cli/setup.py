"""Making git and the shell comfortable: setup, textconv."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import click
from click.shell_completion import get_completion_class

from cli.arguments import as_json, option
from cli.errors import Failure
from cli.opening import git_directory
from cli.output import print_json, visible

_DRIVER = "diff.fhir.textconv"
_SED = r"""sed -e '5{/^    "versionId": /d;}' -e '6{/^    "lastUpdated": /d;}'"""
"""What `textconv` does, a hundred times faster: git runs it for each side of each file. docs/format.md fixes the lines."""

_ATTRIBUTE = "*.json diff=fhir"
_META = {5: b'    "versionId": ', 6: b'    "lastUpdated": '}
"""The two lines of a file that change with every version, and how they begin."""


@click.command()
@option(
    "--completion",
    metavar="SHELL",
    type=click.Choice(["bash", "zsh", "fish"]),
    help="Print what bash, zsh or fish needs to complete git-fhir's commands, and change nothing.",
)
@as_json
@click.pass_context
def setup(context: click.Context, completion: str | None, json: bool) -> None:
    """Teach git in this clone to show changes without the noise.

    Sets git's diff driver `fhir`, so that `git diff`, `git show` and `git log -p` leave out meta.versionId and
    meta.lastUpdated, which every version changes. Only this clone's configuration is written; where it has no
    work tree, also its info/attributes. Running it again changes nothing.

    \b
    Completion, for bash in ~/.bashrc (zsh, fish: likewise):
    eval "$(git fhir setup --completion bash)"
    """
    if completion is not None:
        click.echo(_completion(context.find_root().command, completion))
        return
    git_dir = git_directory()
    done = [text for text in (_set_driver(git_dir), _set_attribute(git_dir)) if text]
    if json:
        print_json({"changed": done})
    else:
        for text in done or ["Nothing to do: all is set up."]:
            click.echo(visible(text))


def _completion(command: click.Command, shell: str) -> str:
    """The script that a shell reads; what it calls is git-fhir itself. https://click.palletsprojects.com/shell-completion/"""
    kind = get_completion_class(shell)
    assert kind is not None
    return kind(command, {}, "git-fhir", "_GIT_FHIR_COMPLETE").source()


def _set_driver(git_dir: str) -> str | None:
    """Configure the diff driver. Returns what was done."""
    if _git(git_dir, "config", "--get", _DRIVER) == _SED:
        return None
    if _git(git_dir, "config", "--local", "--replace-all", _DRIVER, _SED) is None:
        raise Failure(f"git could not set {_DRIVER} in {git_dir}.")
    return f"Set {_DRIVER}: diffs leave out meta.versionId and meta.lastUpdated."


def _set_attribute(git_dir: str) -> str | None:
    """Name the driver where git doesn't read .gitattributes, for want of a work tree. Returns what was done."""
    if _git(git_dir, "rev-parse", "--is-bare-repository") != "true":
        return None
    path = os.path.join(git_dir, "info", "attributes")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    if _ATTRIBUTE in text.splitlines():
        return None
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{'' if not text or text.endswith(chr(10)) else chr(10)}{_ATTRIBUTE}\n")
    return f"Added `{_ATTRIBUTE}` to {path}."


def _git(git_dir: str, *arguments: str) -> str | None:
    """What git prints; None where it fails."""
    result = subprocess.run(
        ["git", "--git-dir", git_dir, *arguments], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() if result.returncode == 0 else None


@click.command()
@click.argument("file", type=click.File("rb"))
def textconv(file: IO[bytes]) -> None:
    """Print a resource's FILE without meta.versionId and meta.lastUpdated.

    A textconv for git, on machines without sed: git config diff.fhir.textconv "git-fhir textconv"
    """
    out = sys.stdout.buffer
    for line in _without_meta(file):
        out.write(line)


def _without_meta(lines: IO[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        if not line.startswith(_META.get(number, b"\n\n")):
            yield line
