"""How a failure looks at a terminal: one line on stderr and an exit code."""

from __future__ import annotations

from typing import IO, Any

import click

from cli.output import visible
from gitstore import NotFound, RepositoryRefused, StoreError

DONE = 0
REFUSED = 1
USAGE = 2
NOT_FOUND = 3
NO_REPOSITORY = 128
INTERRUPTED = 130

EXIT_CODES = {
    DONE: "Done; nothing was refused or found wrong.",
    REFUSED: "Something was refused, found wrong, or failed; stderr or the report says what.",
    USAGE: "The command line can't be understood.",
    NOT_FOUND: "There is no such resource, version or commit, or it is deleted.",
    NO_REPOSITORY: "There is no repository here, or none that this version can read.",
    INTERRUPTED: "Interrupted by Ctrl-C; the report says what was done.",
}
"""What docs/cli.md says about each exit code."""


class Failure(click.ClickException):
    """Ends the command with `git-fhir: message` on stderr and an exit code."""

    exit_code = REFUSED

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"git-fhir: {visible(' '.join(self.message.split()))}", file=file, err=file is None)


class NotThere(Failure):
    """What was asked for doesn't exist."""

    exit_code = NOT_FOUND


class NoRepository(Failure):
    """There is nothing to work on."""

    exit_code = NO_REPOSITORY


def failure(error: StoreError) -> Failure:
    """What a refusal by the store becomes."""
    if isinstance(error, RepositoryRefused):
        return NoRepository(str(error))
    return NotThere(str(error)) if isinstance(error, NotFound) else Failure(str(error))
