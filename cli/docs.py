"""docs/cli.md, written from the real help: `python -m cli.docs > docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cli.errors import EXIT_CODES
from cli.main import main

_WIDTH = 88

_HEAD = """\
# The command line

`git-fhir` on PATH is `git fhir`: git offers it as its own. The commands need no server; they work on any clone, bare
or with a work tree, also where it can't be written. This page is made from the commands' own help by
`python -m cli.docs`, and a test keeps it current.

## Where

A command works on the repository of the current folder, of `-C DIRECTORY`, or of `GIT_DIR`. As with git, `-C` changes
the folder first, so that paths on the rest of the command line are looked up there.

## People and programs

By default commands print for people: in colour on a terminal (not with `NO_COLOR` or `TERM=dumb`), long lists through
the pager that git would use (`GIT_PAGER`, `core.pager`, `PAGER`, `less`), and dates in UTC. Characters that could steer
a terminal are shown as `\\x1b`.

With `--json`, a command that lists (`log`, `accesses`, `diff`, `blame`, `changes`, `diverged`, `ls`, `verify`, `validate`, `token list`) prints NDJSON: one JSON object a line. All others print
one JSON object. What `export` writes is JSON in any case. Property names are FHIR's where it has them: `versionId`, `lastUpdated`, `method`.

Each option can be given in the environment too; the help names the variable.

## Exit codes

| code | meaning |
| --- | --- |
"""


def page() -> str:
    """The whole page as Markdown."""
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    return f"{_HEAD}{codes}\nA failure is one line on stderr that begins with `git-fhir:`.\n\n" + "\n".join(
        _sections()
    )


def _sections() -> Iterator[str]:
    context = _context(main, "git-fhir", None)
    yield _section("git-fhir", main.get_help(context))
    yield from _below(main, "git-fhir", context)


def _below(group: click.Group, title: str, context: click.Context) -> Iterator[str]:
    """The commands of a group, and of the groups in it."""
    for name in group.list_commands(context):
        command = group.commands[name]
        inner = _context(command, name, context)
        yield _section(f"{title} {name}", command.get_help(inner))
        if isinstance(command, click.Group):
            yield from _below(command, f"{title} {name}", inner)


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    """The context that the command line would make, with a width that no terminal changes."""
    settings = {} if parent else main.context_settings
    return click.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH, **settings)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n```\n{text}\n```\n"


if __name__ == "__main__":
    click.echo(page(), nl=False)
