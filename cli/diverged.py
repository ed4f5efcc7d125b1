"""What a fenced node had not pushed (docs/diverged.md): listing it, and doing it again on main."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from cli.arguments import as_json, option
from cli.errors import REFUSED
from cli.opening import configured_author, open_store
from cli.output import date_text, page, print_json, verb_text, visible
from gitstore import Diverged, HubUnreachable, Obstacle, Store, apply_diverged, path_of, settle_diverged
from gitstore import diverged as held_against_main
from gitstore.fhir.dates import format_instant

_COLOURS = {"applies": "cyan", "applied": "green", "conflicts": "red", "foreign": "red", "settled": "green"}
_DONE = ("applied", "settled")


@click.group(invoke_without_command=True)
@option("--applied", is_flag=True, help="Also list what main has by now, and what is settled.")
@option("--json", is_flag=True, help="Print NDJSON, one line for each commit.")
@click.pass_context
def diverged(context: click.Context, applied: bool, json: bool) -> None:
    """List commits that a node had not pushed when another one took over, oldest first.

    They are kept below refs/git-fhir/diverged, here and at the hub. Of each it is said what has become of it on main:

    \b
    applies     it can be done again on main
    applied     main has it; listed with --applied
    conflicts   main has gone another way, and what is in the way
    foreign     git-fhir did not make it, or it can't be read
    settled     somebody has said so; listed with --applied

    `git show COMMIT` shows what it did. A conflict stays on the list until main says the same, or somebody settles it. The refs stay.
    """
    if context.invoked_subcommand is not None:
        return
    with open_store() as store:
        _fetch(store)
        found = (one for one in held_against_main(store) if applied or one.state not in _DONE)
        _print(found, "nothing is left of what has diverged", json=json)


@diverged.command()
@click.argument("refs", metavar="[REF…]", nargs=-1)
@option("--dry-run", is_flag=True, help="Only say what would be done.")
@as_json
@click.pass_context
def apply(context: click.Context, refs: tuple[str, ...], dry_run: bool, json: bool) -> None:
    """Do on main again what can be done again.

    Each commit that applies becomes a new one with the same author, request id and words, oldest first, and each resource gets its next version. What is there by now is not done twice: the command may be interrupted, and repeated. Without REF all that has diverged is looked at.

    Prints what was done, and what is left: then it exits with 1. How to go about that is in docs/diverged.md.
    """
    assert context.parent is not None  # it is the group's
    json, applied = json or context.parent.params["json"], context.parent.params["applied"]
    with open_store() as store:
        _fetch(store)
        found = held_against_main(store, refs) if dry_run else apply_diverged(store, refs)
        shown = (one for one in found if applied or one.is_new or one.state not in _DONE)
        if _print(shown, "nothing to apply", json=json):
            context.exit(REFUSED)


@diverged.command()
@click.argument("names", metavar="COMMIT|REF…", nargs=-1, required=True)
@option("-m", "--message", required=True, help="Why, for the commit that says so.")
@as_json
@click.pass_context
def settle(context: click.Context, names: tuple[str, ...], message: str, json: bool) -> None:
    """Say that a commit has been looked at, and nothing more is to be done with it.

    For a conflict that was resolved by hand, or where main is right. It is said by a commit on main that changes no resource: all nodes see it, and who did it. Nothing is dropped, the ref stays; the commit is listed with --applied only, and not applied.
    COMMIT is an id, or its first digits (seven or more). A REF stands for all that is left of it: conflicts and what is foreign, not what applies.
    """
    assert context.parent is not None  # it is the group's
    if not message.strip():
        raise click.UsageError("-m has to say why.")
    with open_store() as store:
        _fetch(store)
        settled = settle_diverged(store, names, configured_author(), message)
    _print(iter(settled), "", json=json or context.parent.params["json"])


def _fetch(store: Store) -> None:
    """Other nodes have brought to the hub what diverged there; without the hub there is what is here."""
    if store.cluster is not None:
        try:
            store.cluster.fetch_diverged()
        except HubUnreachable as error:
            click.echo(f"git-fhir: {visible(str(error))}", err=True)


def _print(found: Iterator[Diverged], nothing: str, *, json: bool) -> bool:
    """Print each commit as soon as it is found; whether any is left that somebody has to look at."""
    seen: list[bool] = []

    def noted() -> Iterator[Diverged]:
        for one in found:
            seen.append(one.is_left)
            yield one

    if json:
        for one in noted():
            print_json(_facts(one))
    else:
        page(_lines(noted()))
        if not seen:
            click.echo(nothing)
    return any(seen)


def _facts(one: Diverged) -> dict[str, Any]:
    return {
        "ref": one.ref,
        "base": one.base and one.base.id,
        "commit": one.id,
        "state": one.state,
        "author": one.author and {"name": one.author.name, "email": one.author.email},
        "lastUpdated": None if one.made is None else format_instant(one.made),
        "interaction": one.interaction,
        "changes": [
            {
                "method": change.verb,
                "resource": str(change.resource_id),
                "versionId": str(change.version_id),
                "path": path_of(change.resource_id),
            }
            for change in one.changes
        ],
        "by": one.by and one.by.id,
        "reasons": [_reason_facts(obstacle) for obstacle in one.obstacles],
    }


def _reason_facts(obstacle: Obstacle) -> dict[str, Any]:
    """Why it is left; of a resource with its versions at the base and on main, null where there was none."""
    change, main = obstacle.change, obstacle.main
    if change is None:
        return {"text": obstacle.text}
    return {
        "text": obstacle.text,
        "resource": str(change.resource_id),
        "path": path_of(change.resource_id),
        "versionId": str(change.version_id),
        "base": str(obstacle.base) if obstacle.base else None,
        "main": main and {"versionId": str(main.version_id), "commit": main.commit.id},
    }


def _lines(found: Iterator[Diverged]) -> Iterator[str]:
    ref = None
    for one in found:
        if one.ref != ref:
            ref = one.ref
            yield click.style(visible(f"{ref}{_base(one)}"), bold=True)
        yield _head(one)
        reasons = {obstacle.change: obstacle for obstacle in one.obstacles}
        for change in one.changes:
            what = f"  {verb_text(change.verb)} {change.resource_id}/_history/{change.version_id}"
            yield what + (_reason(reasons[change]) if change in reasons else "")
            if change in reasons:
                yield f"    git show {one.id[:10]} -- {path_of(change.resource_id)}"
        if None in reasons:
            yield f"  {visible(reasons[None].text)}"


def _base(one: Diverged) -> str:
    if one.base is None:
        return ""
    return f" builds on {one.base.id[:10]} of {date_text(one.base.last_updated)}"


def _head(one: Diverged) -> str:
    """`1a2b3c4d5e applied as 5e4d3c2b1a: update by Ada Lovelace on 2026-01-01T12:05:00Z`"""
    state = click.style(one.state, fg=_COLOURS[one.state])
    preposition = "in" if one.state == "settled" else "as"
    by = f" {preposition} {click.style(one.by.id[:10], fg='yellow')}" if one.by is not None else ""
    what = [
        one.interaction or "",
        f"by {one.author.name}" if one.author else "",
        f"on {date_text(one.made)}" if one.made is not None else "",
    ]
    told = visible(" ".join(filter(None, what)))
    return f"{click.style(one.id[:10], fg='yellow')} {state}{by}{told and ': '}{told}"


def _reason(obstacle: Obstacle) -> str:
    base = f"version {obstacle.base}" if obstacle.base else "no version"
    return visible(f": {obstacle.text}; the base has {base}")
