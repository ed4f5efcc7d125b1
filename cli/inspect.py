"""Looking at the record: cat, log, show, diff, ls, path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice

import click

from cli import arguments
from cli.arguments import Target, as_json, option, resource_type, scope
from cli.opening import open_store
from cli.output import (
    columns,
    date_text,
    difference_facts,
    difference_line,
    page,
    print_json,
    verb_text,
    version_facts,
    visible,
)
from cli.past import as_asked
from gitstore import Commit, Cursor, NotFound, Snapshot, Store, Version, path_of
from gitstore.fhir import Resource
from gitstore.fhir.compare import differences
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId, VersionId, parse_version_id
from gitstore.fhir.json import loads_trusted
from gitstore.fhir.patch import differences as patches
from gitstore.fhir.xml import dumps_pretty

_PAGE = 100


@click.command()
@click.argument("target", metavar="REF", type=arguments.target)
@option("--version", metavar="N", type=click.IntRange(1), help="Which version; the current one by default.")
@option("--json", is_flag=True, help="Print it on one line, numbers as written: a line for NDJSON.")
@option("--xml", is_flag=True, help="Print it as FHIR's XML.")
def cat(target: Target, version: int | None, json: bool, xml: bool) -> None:
    """Print a resource, byte for byte as it is stored.

    REF is Patient/example, or Patient/example/_history/3 for a version.
    """
    if target.version_id is not None and version is not None:
        raise click.UsageError("The version is given twice: in the reference and as --version.")
    if json and xml:
        raise click.UsageError("It is either --json or --xml.")
    wanted = target.version_id or (VersionId(version) if version else None)
    with open_store() as store:
        snapshot = as_asked(store).snapshot()
        resource_id = target.resource_id
        found = snapshot.vread(resource_id, wanted) if wanted else snapshot.read(resource_id)
        body = snapshot.body(found)
    if json:
        print_json(loads_trusted(body))
    else:
        click.echo(dumps_pretty(loads_trusted(body)) if xml else body, nl=False)


@click.command()
@click.argument("subject", metavar="[REF|TYPE]", required=False)
@option("-n", "--max-count", metavar="COUNT", type=click.IntRange(0), help="Stop after so many versions.")
@option(
    "--since",
    metavar="DATE",
    type=arguments.date,
    help="Versions from the start of this date on, such as 2026-02.",
)
@option("--until", metavar="DATE", type=arguments.date, help="Versions to the end of this date.")
@option("--json", is_flag=True, help="Print NDJSON, one line for each version.")
def log(
    subject: str | None,
    max_count: int | None,
    since: tuple[int, int] | None,
    until: tuple[int, int] | None,
    json: bool,
) -> None:
    """List versions, newest first.

    Of a resource (Patient/example), of a type (Patient), or without argument of everything. Dates are FHIR's (2026, 2026-02, 2026-02-21, 2026-02-21T22:30:00Z), in UTC if they don't say.
    """
    wanted = scope(subject)
    with open_store() as store:
        pages = _history(as_asked(store).snapshot(), wanted, since and since[0], until and until[1])
        versions = islice((version for page in pages for version in page), max_count)
        if json:
            for version, message in _with_messages(store, versions):
                print_json(version_facts(version) | {"message": message})
        else:
            page(_log_lines(_with_messages(store, versions)))


def _history(
    snapshot: Snapshot, scope: ResourceId | str | None, since: int | None, until: int | None
) -> Iterator[list[Version]]:
    """Pages of versions, newest first, from the instant `since` on and before the instant `until`."""
    cursor: Cursor | None = None
    while True:
        found = snapshot.history(scope, since=since, cursor=cursor, count=_PAGE)
        yield [version for version in found.versions if until is None or version.last_updated < until]
        if found.older is None:
            return
        cursor = found.older


def _with_messages(store: Store, versions: Iterable[Version]) -> Iterator[tuple[Version, str]]:
    """Each version with its author's why, which is read once for all versions of a commit."""
    for commit, versions_of_commit in groupby(versions, key=lambda version: version.commit):
        message = store.message(commit)
        for version in versions_of_commit:
            yield version, message


def _log_lines(versions: Iterator[tuple[Version, str]]) -> Iterator[str]:
    """A line for each version; columns are aligned page by page, as the rest isn't known yet."""
    while rows := [_log_row(*one) for one in islice(versions, _PAGE)]:
        yield from columns(rows)


def _log_row(version: Version, message: str) -> tuple[str, ...]:
    commit = version.commit
    why = message.partition("\n")[0]
    return (
        click.style(commit.id[:10], fg="yellow"),
        visible(str(version)),
        date_text(version.last_updated),
        visible(commit.author.name),
        verb_text(version.verb),
        visible(f"{commit.interaction}: {why}" if why else commit.interaction),
    )


@click.command()
@click.argument("revision", metavar="[COMMIT]", required=False)
@as_json
def show(revision: str | None, json: bool) -> None:
    """Show a commit as FHIR changes.

    Who, when, why, and each change by element. COMMIT is any revision that git understands: an id or the start of one, a tag, HEAD~2. By default the last.
    """
    with open_store() as store:
        snapshot = as_asked(store).snapshot()
        commit = snapshot.commit if revision is None else store.resolve(revision)
        if commit.sequence > snapshot.commit.sequence:
            raise NotFound(f"`{revision}` came later than that.")
        changes = snapshot.changes(commit)
        if json:
            print_json(
                {
                    "commit": commit.id,
                    "sequence": commit.sequence,
                    "lastUpdated": format_instant(commit.last_updated),
                    "author": {"name": commit.author.name, "email": commit.author.email},
                    "interaction": commit.interaction,
                    "requestId": commit.request_id,
                    "message": store.message(commit),
                    "changes": [_change_facts(snapshot, version) for version in changes],
                }
            )
        else:
            page(_show_lines(commit, store.message(commit), snapshot, changes))


def _change_facts(snapshot: Snapshot, version: Version) -> dict[str, object]:
    old, new = _before(snapshot, version), _content(snapshot, version)
    return {
        "resource": str(version.resource_id),
        "versionId": str(version.version_id),
        "method": version.verb,
        "created": version.created,
        "differences": [difference_facts(difference) for difference in differences(old, new)],
    }


def _show_lines(commit: Commit, message: str, snapshot: Snapshot, changes: list[Version]) -> Iterator[str]:
    yield click.style(f"commit {commit.id}", fg="yellow")
    yield f"Author: {visible(commit.author.name)} <{visible(commit.author.email)}>"
    yield f"Date:   {format_instant(commit.last_updated)}"
    yield f"FHIR:   {commit.interaction}" + (f", request {commit.request_id}" if commit.request_id else "")
    if message:
        yield ""
        yield from (f"    {visible(line)}" for line in message.splitlines())
    for version in changes:
        yield ""
        yield f"{verb_text(version.verb)} {click.style(str(version), bold=True)}"
        old, new = _before(snapshot, version), _content(snapshot, version)
        yield from (f"  {difference_line(difference)}" for difference in differences(old, new))


def _before(snapshot: Snapshot, version: Version) -> Resource | None:
    """The resource as the version found it; None where there was none, or where that version was purged."""
    if version.created or version.version_id == 1:
        return None
    try:
        previous = snapshot.version(version.resource_id, VersionId(version.version_id - 1))
    except NotFound:
        return None
    return _content(snapshot, previous)


def _content(snapshot: Snapshot, version: Version) -> Resource | None:
    """The resource, None for a deletion."""
    if version.deleted:
        return None
    resource: Resource = loads_trusted(snapshot.body(version))
    return resource


@click.command()
@click.argument("first", metavar="REF", type=arguments.target)
@click.argument("others", metavar="[V1 [V2]]", nargs=-1)
@option("--json", is_flag=True, help="Print NDJSON, one line for each element.")
@option("--patch", is_flag=True, help="Print a FHIRPath Patch that leads from the one to the other.")
def diff(first: Target, others: tuple[str, ...], json: bool, patch: bool) -> None:
    """Compare two versions by element: path, old, new.

    \b
    diff Patient/example            the last two versions
    diff Patient/example 2          version 2 and the current one
    diff Patient/example 2 4        versions 2 and 4
    diff Patient/a Patient/b        two resources
    diff Patient/a/_history/1 Patient/a/_history/3

    Without `old` an element was added, without `new` removed. meta.versionId and meta.lastUpdated are left out.
    """
    if json and patch:
        raise click.UsageError("It is either --json or --patch.")
    with open_store() as store:
        snapshot = as_asked(store).snapshot()
        old, new = _sides(snapshot, first, others)
        sides = [None if version is None else _content(snapshot, version) for version in (old, new)]
        found = differences(*sides)
        if patch:
            # What isn't there is a resource with nothing in it: a patch has to begin somewhere.
            nothing: Resource = {"resourceType": new.resource_id.type}
            print_json(patches.difference(*(side or nothing for side in sides)))
        elif json:
            for difference in found:
                print_json(difference_facts(difference))
        else:
            header = [click.style(f"--- {old or 'nothing'}", bold=True), click.style(f"+++ {new}", bold=True)]
            page([*header, *(difference_line(difference) for difference in found)] if found else [])


def _sides(snapshot: Snapshot, first: Target, others: tuple[str, ...]) -> tuple[Version | None, Version]:
    """The two versions that the arguments of diff name; None stands before a first version."""
    if not others and first.version_id is None:
        new, *older = snapshot.history(first.resource_id, count=2).versions
        return (older[0] if older else None), new
    if len(others) == 1 and "/" in others[0]:
        return _version(snapshot, first), _version(snapshot, arguments.target(others[0]))
    versions = [parse_version_id(text) for text in others]
    if len(others) > 2 or None in versions or (versions and first.version_id is not None):
        raise click.UsageError(
            "Expected one reference, a reference and one or two versions, or two references."
        )
    targets = [Target(first.resource_id, version_id) for version_id in versions] or [first]
    if len(targets) < 2:
        targets.append(Target(first.resource_id, None))
    return _version(snapshot, targets[0]), _version(snapshot, targets[1])


def _version(snapshot: Snapshot, target: Target) -> Version:
    """The version, which may be a deletion, or the current one."""
    if target.version_id is not None:
        return snapshot.version(target.resource_id, target.version_id)
    return snapshot.read(target.resource_id)


@click.command()
@click.argument("type", required=False)
@option("--json", is_flag=True, help="Print NDJSON, one line for each resource or type.")
def ls(type: str | None, json: bool) -> None:
    """List current resources, or count them by type.

    With TYPE the id, version and date of each, in the order of ids; without it a count for each type.
    """
    if type is not None:
        resource_type(type)
    with open_store() as store:
        snapshot = as_asked(store).snapshot()
        if type is not None:
            versions = snapshot.resources(type)
            if json:
                for version in versions:
                    print_json(version_facts(version))
            else:
                page(_ls_lines(versions))
            return
        counts = sorted(snapshot.counts().items())
    if json:
        for name, count in counts:
            print_json({"resourceType": name, "count": count})
    elif counts:
        width = max(len(str(count)) for _, count in counts)
        page(f"{count:>{width}}  {name}" for name, count in counts)


def _ls_lines(versions: Iterator[Version]) -> Iterator[str]:
    while rows := [
        (visible(str(version.resource_id)), str(version.version_id), date_text(version.last_updated))
        for version in islice(versions, _PAGE)
    ]:
        yield from columns(rows)


@click.command()
@click.argument("target", metavar="REF", type=arguments.target)
@as_json
def path(target: Target, json: bool) -> None:
    """Print the path of a resource in the tree, for git's own commands.

    \b
    git log -p -- "$(git fhir path Patient/example)"
    """
    place = path_of(target.resource_id)
    if json:
        print_json({"resource": str(target.resource_id), "path": place})
    else:
        click.echo(place)
