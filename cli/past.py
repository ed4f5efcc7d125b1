"""The record as it was: `--at`, and tag, which names a point for good."""

from __future__ import annotations

import click

from cli import arguments
from cli.arguments import as_json, option
from cli.opening import configured_author, open_store
from cli.output import print_json
from gitstore import Author, Commit, NotFound, Past, Store, commit_at
from gitstore import tag as add_tag

POINTS = "2026-02-21 (its end, in UTC), 2026-02-21T22:30:00Z, or any revision that git understands"

COMMANDS = ("cat", "log", "show", "diff", "blame", "ls", "search")
"""Those that can look at the past."""

_COMMIT = f"{__name__}.commit"
"""Where the context keeps what --at came to: an instant may still be to come."""


def check(command: str | None, at: str | None) -> None:
    """That a command goes with --at. Raises UsageError."""
    if at is not None and command not in COMMANDS:
        raise click.UsageError(
            f"--at goes with {', '.join(COMMANDS)}; `{command}` looks at the record as it is."
        )


def as_asked(store: Store) -> Store | Past:
    """The record as --at asks for it, the same at each call; searches wait as long as it takes. Raises NotFound, Invalid."""
    root = click.get_current_context().find_root()
    point = root.params.get("at")
    if point is None:
        return store
    if _COMMIT not in root.meta:
        root.meta[_COMMIT] = commit_of(store, point)
    return store.past(root.meta[_COMMIT], patience=None)


def commit_of(store: Store, text: str) -> Commit:
    """The commit of a point as HTTP understands it, or else as git does. Raises NotFound, Invalid."""
    try:
        return store.resolve(text) if {"~", "^", "/", "@", "_"} & {*text} else commit_at(store, text)
    except NotFound as error:
        try:
            return store.resolve(text)
        except NotFound:
            raise error from None


@click.command("tag")
@click.argument("name", metavar="NAME")
@click.argument("point", metavar="[POINT]", required=False)
@option("-m", "--message", metavar="TEXT", help="Why; by default the name again.")
@option("--author", metavar='"NAME <MAIL>"', type=arguments.author, help="Who; by default whom git knows.")
@as_json
def tag(name: str, point: str | None, message: str | None, author: Author | None, json: bool) -> None:
    """Name a point of the record, and freeze it.

    \b
    tag study-2026-03 2026-02-28 -m "What the first paper is based on."

    POINT is 2026-02-21 (its end, in UTC), 2026-02-21T22:30:00Z, or any revision that git understands; without it now.
    A NAME has letters, digits, `.` and `-`, and looks like neither a date nor a commit. It stays where it is: a tag
    that is there is never moved. The record as it was then is found with --at NAME, and over HTTP at /at/NAME/fhir.
    """
    with open_store() as store:
        commit = store.snapshot().commit if point is None else commit_of(store, point)
        add_tag(store, name, commit, author or configured_author(), message)
    if json:
        print_json({"tag": name, "commit": commit.id})
    else:
        click.echo(f"{name} is {commit.id}")
