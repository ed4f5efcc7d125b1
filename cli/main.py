"""The command `git-fhir`, which git offers as `git fhir`: one group, and the way out of it."""

from __future__ import annotations

import contextlib
import errno
from importlib.metadata import version
from typing import Any

import click

from cli import (
    accesses,
    adopt,
    anchor,
    audit,
    diverged,
    export,
    indexed,
    inspect,
    nodes,
    past,
    purging,
    repository,
    restoring,
    search,
    setup,
    stats,
    token,
    transfer,
    upkeep,
    validating,
)
from cli.arguments import option
from cli.errors import Failure, NoRepository, failure
from cli.output import use_colour
from gitstore import StoreError


class Group(click.Group):
    """Ends a command that the store or the system refuses with one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StoreError as error:
            raise failure(error) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly: whoever read our output has seen enough
            raise Failure(": ".join(filter(None, (error.filename, error.strerror or str(error))))) from error


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "GIT_FHIR"},
)
@option(
    "-C",
    "directory",
    type=click.Path(),
    multiple=True,
    help="Run as if started in this folder, as git does.",
)
@option("--at", metavar="POINT", help=f"Look at the record as it was: {past.POINTS}.")
@click.version_option(version("git-fhir"), message="git-fhir version %(version)s")
@click.pass_context
def main(context: click.Context, directory: tuple[str, ...], at: str | None) -> None:
    """A FHIR R4 server whose database is a plain git repository.

    Commands work on the repository of the current folder or of -C DIRECTORY, bare or with a work tree.
    Each option can also be given in the environment.
    """
    use_colour(context)
    past.check(context.invoked_subcommand, at)
    for folder in directory:
        try:
            context.with_resource(contextlib.chdir(folder))
        except OSError as error:
            raise NoRepository(f"cannot change to `{folder}`: {error.strerror}") from error


for command in (
    repository.init,
    repository.serve,
    transfer.import_,
    export.export,
    validating.validate,
    inspect.cat,
    inspect.log,
    accesses.accesses,
    inspect.show,
    inspect.diff,
    audit.blame_command,
    audit.changes_command,
    inspect.ls,
    inspect.path,
    past.tag,
    restoring.restore,
    restoring.revert,
    purging.purge,
    search.search,
    indexed.indexed,
    stats.stats,
    repository.verify,
    anchor.anchor,
    adopt.adopt,
    diverged.diverged,
    nodes.replication,
    nodes.promote,
    repository.reindex,
    upkeep.maintain,
    token.token,
    setup.setup,
    setup.textconv,
):
    main.add_command(command)
