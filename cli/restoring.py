"""Bringing back what was there before (docs/audit.md): restore, revert."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from cli import arguments
from cli.arguments import Target, as_json, option
from cli.errors import Failure
from cli.opening import configured_author, open_store
from cli.output import (
    difference_facts,
    difference_line,
    page,
    print_json,
    verb_text,
    version_facts,
    visible,
)
from gitstore import (
    ANONYMOUS,
    Author,
    Conflict,
    Restore,
    Revert,
    Snapshot,
    Store,
    Unit,
    Version,
    Write,
)
from gitstore.fhir import Resource
from gitstore.fhir.compare import differences
from gitstore.fhir.ids import VersionId
from gitstore.fhir.json import loads_trusted

_why = option("-m", "--message", metavar="TEXT", help="Why: for the body of the commit.")
_who = option(
    "--author",
    metavar='"NAME <MAIL>"',
    type=arguments.author,
    help="Who restores; by default who git says you are.",
)
_dry = option("--dry-run", is_flag=True, help="Only show what would change.")


@click.command()
@click.argument("target", metavar="REF", type=arguments.target)
@click.argument("version", metavar="[VERSION]", type=click.IntRange(1), required=False)
@_why
@_who
@_dry
@as_json
def restore(
    target: Target, version: int | None, message: str | None, author: Author | None, dry_run: bool, json: bool
) -> None:
    """Make a resource what it was in an earlier version, in a new one.

    REF is Patient/example, and VERSION the number of a version that is not the current one; Patient/example/_history/2 says both. Without a version the resource has to be deleted, and gets back what it was before that. It has to be valid by today's rules.
    """
    if target.version_id is not None and version is not None:
        raise click.UsageError("The version is given twice: in the reference and as VERSION.")
    wanted = target.version_id or (VersionId(version) if version else None)
    with open_store() as store:
        _do(store, Restore(target.resource_id, wanted), message, author, dry_run=dry_run, json=json)


@click.command()
@click.argument("revision", metavar="COMMIT")
@_why
@_who
@_dry
@as_json
def revert(revision: str, message: str | None, author: Author | None, dry_run: bool, json: bool) -> None:
    """Undo all that a commit did, in one new commit.

    Each resource that it changed is again what it was before: what it created is deleted, what it deleted comes back. COMMIT is any revision that git understands. Where any of the resources has a later version nothing is written, and all that is in the way is listed on stderr.

    Whether references would be left that lead nowhere is found out only without --dry-run.
    """
    with open_store() as store:
        _do(store, Revert(store.resolve(revision)), message, author, dry_run=dry_run, json=json)


def _do(
    store: Store,
    interaction: Restore | Revert,
    message: str | None,
    author: Author | None,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    try:
        if dry_run:
            writes = store.rehearse(Unit([interaction], author or ANONYMOUS)).writes
            _print_planned(store.snapshot(), writes, json)
            return
        [outcome] = store.commit([interaction], author or configured_author(), message=message)
    except Conflict as error:
        for issue in error.issues[:-1]:
            click.echo(f"git-fhir: {visible(issue.text)}", err=True)
        raise Failure(error.issues[-1].text) from error
    assert outcome.version is not None
    made = [outcome.version, *outcome.others]
    commit = outcome.version.commit
    if json:
        print_json({"commit": commit.id, "versions": [version_facts(version) for version in made]})
    else:
        click.echo(f"{click.style(commit.id, fg='yellow')} {visible(commit.author.name)}")
        for version in made:
            click.echo(f"{verb_text(version.verb)} {visible(str(version))}")


def _print_planned(snapshot: Snapshot, writes: tuple[Write, ...], json: bool) -> None:
    if json:
        print_json({"commit": None, "changes": [_facts(snapshot, write) for write in writes]})
    else:
        page(line for write in writes for line in _lines(snapshot, write))


def _lines(snapshot: Snapshot, write: Write) -> Iterator[str]:
    before, after = _sides(snapshot, write)
    number = before.version_id + 1
    what = "" if write.restores is None else f", as version {write.restores}"
    yield f"{verb_text(write.verb)} {click.style(f'{write.resource_id}/_history/{number}', bold=True)}{what}"
    found = differences(_content(snapshot, before), _content(snapshot, after))
    yield from (f"  {difference_line(difference)}" for difference in found)


def _facts(snapshot: Snapshot, write: Write) -> dict[str, Any]:
    before, after = _sides(snapshot, write)
    found = differences(_content(snapshot, before), _content(snapshot, after))
    return {
        "resource": str(write.resource_id),
        "versionId": str(before.version_id + 1),
        "method": write.verb,
        "restores": None if write.restores is None else str(write.restores),
        "differences": [difference_facts(difference) for difference in found],
    }


def _sides(snapshot: Snapshot, write: Write) -> tuple[Version, Version | None]:
    """The newest version of what is written, and the one whose content it gets; None for a deletion."""
    newest = snapshot.newest(write.resource_id)
    assert newest is not None  # or there would be nothing to bring back
    return newest, None if write.restores is None else snapshot.version(write.resource_id, write.restores)


def _content(snapshot: Snapshot, version: Version | None) -> Resource | None:
    if version is None or version.deleted:
        return None
    resource: Resource = loads_trusted(snapshot.body(version))
    return resource
