"""Anchors of the record (docs/security.md): to be kept elsewhere, and to hold against the record later."""

from __future__ import annotations

from typing import IO

import click

from cli.arguments import as_json, option
from cli.errors import REFUSED
from cli.opening import open_store
from cli.output import finding_line, print_finding, print_json
from gitstore import Anchor, check_anchor, parse_anchor, take_anchor


@click.command()
@option(
    "--check",
    metavar="FILE",
    type=click.File(encoding="utf-8", errors="replace"),
    help="Compare the record with an anchor of it that was taken before; - is stdin.",
)
@option("--no-journal", is_flag=True, help="Leave the access journal out, as in a clone, which has none.")
@as_json
@click.pass_context
def anchor(context: click.Context, check: IO[str] | None, no_journal: bool, json: bool) -> None:
    """Print what to keep elsewhere, so that the past can't be changed unnoticed.

    The newest commit, its tree and number, the counts, and the end of the access journal, as lines or with --json.
    Publish it, have it timestamped, or send it to somebody who keeps it.

    With --check FILE it says whether the record still goes on from such an anchor: its commit is there, at the same place and with the same counts, and the line of the journal is as it was. Prints one contradiction a line, with --json as NDJSON, and exits with 1 if there is any.
    """
    journal = not no_journal
    if check is None:
        with open_store() as store:
            _print(take_anchor(store.git_dir, store.snapshot(), journal=journal), json)
        return
    expected = parse_anchor(check.read())
    with open_store() as store:
        snapshot = store.snapshot()
        found = list(check_anchor(store.git_dir, snapshot, expected, journal=journal))
    for finding in found:
        print_finding(finding) if json else click.echo(finding_line(finding))
    if found:
        context.exit(REFUSED)
    if not json:
        click.echo(
            f"the record goes on from it: {snapshot.commit.sequence - expected.sequence} commits since"
        )


def _print(found: Anchor, json: bool) -> None:
    if json:
        print_json(found.facts())
    else:
        for line in found.lines():
            click.echo(line)
