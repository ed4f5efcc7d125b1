"""Taking something out of all history for good (docs/security.md, "Erasure"): purge."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli import arguments
from cli.arguments import as_json, option
from cli.errors import Failure
from cli.opening import configured_author, open_store
from cli.output import print_json, visible
from gitstore import Author, Erased, Purgeable, Selection
from gitstore.fhir.dates import format_instant

ELSEWHERE = "Clones, mirrors, bundles, exports and backups made before still have it: they are out of reach from here."


@click.command()
@click.argument("targets", metavar="REF...", type=arguments.target, nargs=-1, required=True)
@option("-m", "--message", metavar="REASON", required=True, help="Why: it stays in the record.")
@option(
    "--author",
    metavar='"NAME <MAIL>"',
    type=arguments.author,
    help="Who purges; by default who git says you are.",
)
@option("--yes", is_flag=True, help="Don't ask.")
@option("--dry-run", is_flag=True, help="Only show what would go.")
@as_json
def purge(
    targets: tuple[arguments.Target, ...],
    message: str,
    author: Author | None,
    yes: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """Remove resources, or past versions, from all history.

    REF is Patient/example for a resource with all its versions, or Patient/example/_history/2 for a version that is not the newest one. All commits from the first one concerned on are made anew without it and get other ids, under which the old ones are still found; what is removed can't be brought back. A new commit says what was purged, by whom and why. A server may run meanwhile: it refuses writes, and reads what was there until it is done.

    Copies elsewhere, as in clones and backups, stay what they are. Other resources may say the same, too.
    """
    wanted = [Purgeable(target.resource_id, target.version_id) for target in targets]
    with open_store() as store:
        selection = store.purgeable(wanted)
        if dry_run:
            _print_selection(selection, json)
            return
        who = author or configured_author()
        if not yes:
            _ask(selection)
        erased = store.purge(wanted, who, message)
    if json:
        print_json(_facts(erased))
    else:
        _print_erased(erased)


def _ask(selection: Selection) -> None:
    if not _is_terminal():
        raise Failure("nothing is purged without --yes, or somebody at a terminal who says so.")
    _print_selection(selection, json=False, err=True)
    if not click.confirm("Remove this from all history, for good?", err=True):
        raise Failure("nothing was purged.")


def _print_selection(selection: Selection, json: bool, *, err: bool = False) -> None:
    if json:
        print_json(
            {
                "purge": [str(version) for version in selection.versions],
                "alike": [str(version) for version in selection.alike],
                "words": [commit.id for commit in selection.wordy],
            }
        )
        return
    for version in selection.versions:
        date, name = format_instant(version.last_updated), visible(version.commit.author.name)
        click.echo(f"{visible(str(version))}  {date}  {name}", err=err)
    for version in selection.alike:
        click.echo(f"{visible(str(version))} stays, and says the same.", err=True)
    for commit in selection.wordy:
        click.echo(
            f"The words of commit {commit.id[:10]} stay, as it made other versions, too: git fhir show {commit.id[:10]}",
            err=True,
        )


def _facts(erased: Erased) -> dict[str, Any]:
    return {
        "commit": erased.commit.id,
        "purged": [str(version) for version in erased.versions],
        "commits": erased.commits,
        "cut": list(erased.cut),
        "refs": list(erased.refs),
        "outOfReach": ELSEWHERE,
    }


def _print_erased(erased: Erased) -> None:
    click.echo(f"{click.style(erased.commit.id, fg='yellow')} {visible(erased.commit.author.name)}")
    for version in erased.versions:
        click.echo(f"purged {visible(str(version))}")
    click.echo(
        f"{erased.commits} commits were made anew; these refs moved: {visible(', '.join(erased.refs))}"
    )
    for id in erased.cut:
        click.echo(
            f"{id} has lost the foreign commits that it had adopted: they had to do with what was purged."
        )
    click.echo(ELSEWHERE)


def _is_terminal() -> bool:
    return sys.stdin.isatty()
