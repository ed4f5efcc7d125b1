"""Who changed what: blame, changes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import click

from cli import arguments
from cli.arguments import Target, option, resource_type
from cli.opening import open_store
from cli.output import columns, date_text, page, print_json, version_facts, visible
from cli.past import as_asked, commit_of
from gitstore import Blamed, Commit, Cursor, Net, Snapshot, blame, changes
from gitstore.fhir import json as fhir_json
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import VersionId

_PAGE = 500
_LONGEST = 60
_COLOURS = {"created": "green", "updated": "cyan", "deleted": "red"}


@click.command("blame")
@click.argument("target", metavar="REF", type=arguments.target)
@option("--version", metavar="N", type=click.IntRange(1), help="Which version; the current one by default.")
@option("--json", is_flag=True, help="Print NDJSON, one line for each element.")
def blame_command(target: Target, version: int | None, json: bool) -> None:
    """Tell for each element which version set it last, who wrote that, and when.

    REF is Patient/example, or Patient/example/_history/3 for a version. An element that was moved within its list, or
    in front of which another was put, keeps its version. What the server maintains in meta is left out.
    """
    if target.version_id is not None and version is not None:
        raise click.UsageError("The version is given twice: in the reference and as --version.")
    wanted = target.version_id or (VersionId(version) if version else None)
    with open_store() as store:
        found = blame(as_asked(store).snapshot(), target.resource_id, wanted)
        if json:
            for each in found:
                print_json(_blame_facts(each))
        else:
            page(_blame_lines(found))


def _blame_facts(blamed: Blamed) -> dict[str, object]:
    commit = blamed.version.commit
    return {
        "path": blamed.path,
        "value": blamed.value,
        "versionId": str(blamed.version.version_id),
        "lastUpdated": format_instant(blamed.version.last_updated),
        "author": {"name": commit.author.name, "email": commit.author.email},
        "commit": commit.id,
    }


def _blame_lines(found: Iterator[Blamed]) -> Iterator[str]:
    rows = [
        (
            click.style(each.version.commit.id[:10], fg="yellow"),
            str(each.version.version_id),
            date_text(each.version.last_updated),
            visible(each.version.commit.author.name),
            visible(each.path),
            _short(visible(fhir_json.dumps(each.value).decode())),
        )
        for each in found
    ]
    return columns(rows) if rows else iter(())


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@click.command("changes")
@click.argument("first", metavar="FROM")
@click.argument("last", metavar="[TO]", required=False)
@option(
    "--type", "types", metavar="TYPE", multiple=True, help="Of this type alone; can be given several times."
)
@option("--json", is_flag=True, help="Print NDJSON, one line for each resource.")
def changes_command(first: str, last: str | None, types: tuple[str, ...], json: bool) -> None:
    """List what became of each resource between two points of the record.

    \b
    2026-02-21               the end of this day, in UTC
    2026-02-21T22:30:00Z     this instant
    v1.0, HEAD~2, 1f3a...    any revision that git understands

    Each resource is created, updated or deleted, whatever happened in between; what came and went in between is left
    out. The newest change stands first. Without TO, up to now.
    """
    with open_store() as store:
        after = commit_of(store, first)
        snapshot = store.snapshot() if last is None else store.snapshot(commit_of(store, last).sequence)
        found = _all(snapshot, after, [resource_type(type) for type in types])
        if json:
            for net in found:
                print_json({"change": net.kind} | version_facts(net.version) | _before_facts(net))
        else:
            page(_lines(found))


def _all(snapshot: Snapshot, after: Commit, types: list[str]) -> Iterator[Net]:
    cursor: Cursor | None = None
    while True:
        found = changes(snapshot, after, types=types, cursor=cursor, count=_PAGE)
        yield from found.entries
        if found.older is None:
            return
        cursor = found.older


def _before_facts(net: Net) -> dict[str, object]:
    return {"before": str(net.before.version_id)} if net.before else {}


def _lines(found: Iterator[Net]) -> Iterator[str]:
    while piece := list(islice(found, _PAGE)):
        yield from columns([_row(net) for net in piece])


def _row(net: Net) -> tuple[str, ...]:
    before = str(net.before.version_id) if net.before else ""
    return (
        click.style(net.kind, fg=_COLOURS[net.kind]),
        visible(str(net.version.resource_id)),
        f"{before}..{net.version.version_id}",
        date_text(net.version.last_updated),
        visible(net.version.commit.author.name),
    )
