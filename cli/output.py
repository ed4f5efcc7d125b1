"""What commands print: text for people, through the pager on a terminal, and JSON for programs."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import click

from gitstore import Finding, Version
from gitstore.fhir import json
from gitstore.fhir.compare import ABSENT, Difference
from gitstore.fhir.dates import format_instant

_VERB_COLOURS = {"POST": "green", "PUT": "cyan", "DELETE": "red"}
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's control, format (such as right-to-left override) and surrogate characters, line and paragraph separators."""

_NO_PAGER = ("", "cat")


def visible(text: str) -> str:
    r"""The text with control and format characters as `\x1b`: what others wrote must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _INVISIBLE
        else character
        for character in text
    )


def use_colour(context: click.Context) -> None:
    """Colour on a terminal, unless the user has said no. https://no-color.org"""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        context.color = False


def print_json(value: Any) -> None:
    """One JSON document on a line of its own."""
    click.echo(json.dumps(value))


def page(lines: Iterable[str]) -> None:
    """Print lines, on a terminal through the pager that git would use."""
    lines = iter(lines)
    # Taken before the pager starts, so that a refusal is one line and not an empty pager.
    first = next(lines, None)
    if first is None:
        return
    pager = _pager() if sys.stdout.isatty() else ""
    lines = chain([first], lines)
    if pager in _NO_PAGER:
        for line in lines:
            click.echo(line)
    else:
        _feed(pager, lines)


def _pager() -> str:
    """What git says: GIT_PAGER, core.pager, PAGER, or less. https://git-scm.com/docs/git-var"""
    answer = subprocess.run(["git", "var", "GIT_PAGER"], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def _feed(pager: str, lines: Iterator[str]) -> None:
    context = click.get_current_context(silent=True)
    plain = context is not None and context.color is False
    # Like git: the pager is a shell command, and less quits by itself when everything fits on the screen.
    process = subprocess.Popen(  # noqa: S602 - the user's own configuration says what it is
        pager, shell=True, stdin=subprocess.PIPE, env={"LESS": "FRX", "LV": "-c", **os.environ}
    )
    assert process.stdin is not None  # it is a pipe
    try:
        for line in lines:
            process.stdin.write(f"{click.unstyle(line) if plain else line}\n".encode())
        process.stdin.close()
    except (BrokenPipeError, KeyboardInterrupt):
        # The reader has seen enough, or stops a long command: the pager decides when it ends.
        pass
    finally:
        _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            process.communicate()
        except KeyboardInterrupt:
            continue  # Ctrl-C in less stops its search, and it goes on
        return


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows as lines with aligned columns."""
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)
        )
        yield "  ".join(cells).rstrip()


def date_text(instant: int) -> str:
    """An instant in whole seconds, for people; --json has the microseconds."""
    return f"{format_instant(instant)[:19]}Z"


def verb_text(verb: str) -> str:
    return click.style(verb, fg=_VERB_COLOURS[verb])


def version_facts(version: Version) -> dict[str, Any]:
    """A version for --json."""
    return {
        "resource": str(version.resource_id),
        "versionId": str(version.version_id),
        "lastUpdated": format_instant(version.last_updated),
        "method": version.verb,
        "created": version.created,
        "interaction": version.commit.interaction,
        "author": {"name": version.commit.author.name, "email": version.commit.author.email},
        "commit": version.commit.id,
        "requestId": version.commit.request_id,
    }


def print_finding(finding: Finding) -> None:
    """A finding as a line of NDJSON."""
    print_json({"kind": finding.kind, "where": finding.where, "text": finding.text})


def finding_line(finding: Finding) -> str:
    """`kind where: text`"""
    kind = click.style(visible(finding.kind), fg="red")
    return f"{kind} {visible(finding.where)}: {visible(finding.text)}"


def difference_facts(difference: Difference) -> dict[str, Any]:
    """A difference for --json: without `old` it is an addition, without `new` a removal."""
    sides = {"old": difference.old, "new": difference.new}
    return {"path": difference.path} | {name: value for name, value in sides.items() if value is not ABSENT}


def difference_line(difference: Difference) -> str:
    """`+ path: new`, `- path: old` or `~ path: old -> new`."""
    path = visible(difference.path)
    if difference.old is ABSENT:
        return click.style(f"+ {path}: {_value(difference.new)}", fg="green")
    if difference.new is ABSENT:
        return click.style(f"- {path}: {_value(difference.old)}", fg="red")
    old, new = (
        click.style(_value(side), fg=colour)
        for side, colour in ((difference.old, "red"), (difference.new, "green"))
    )
    return f"~ {path}: {old} -> {new}"


def _value(value: Any) -> str:
    return visible(json.dumps(value).decode())
