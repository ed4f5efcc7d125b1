"""Who has looked: accesses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import click

from cli import arguments
from cli.arguments import option
from cli.opening import git_directory
from cli.output import columns, date_text, page, print_json, visible
from gitstore import NotFound, Recorded, journal_head
from gitstore import accesses as recorded_accesses
from gitstore.fhir.dates import format_instant

_PAGE = 100


@click.command()
@option("--patient", metavar="REF", help="Whose data was given out: Patient/example, or its id alone.")
@option("--principal", metavar="NAME", help="Who looked, by the whole name.")
@option(
    "--since", metavar="DATE", type=arguments.date, help="From the start of this date on, such as 2026-02."
)
@option("--until", metavar="DATE", type=arguments.date, help="To the end of this date.")
@option(
    "--head", is_flag=True, help="Print number and hash of the journal's last line, to keep them elsewhere."
)
@option("--json", is_flag=True, help="Print NDJSON, one line for each access.")
def accesses(
    patient: str | None,
    principal: str | None,
    since: tuple[int, int] | None,
    until: tuple[int, int] | None,
    head: bool,
    json: bool,
) -> None:
    """List who has looked at what, oldest first.

    From the access journal that a server keeps beside the record; git shows who wrote. Dates are FHIR's, in UTC if they don't say.
    """
    git_dir = git_directory()
    if head:
        _print_head(git_dir, json=json)
        return
    found = recorded_accesses(
        git_dir,
        since=since and since[0],
        until=until and until[1],
        patient=_patient_id(patient),
        principal=principal,
    )
    if json:
        for each in found:
            print_json(_facts(each))
    else:
        page(_lines(found))


def _patient_id(text: str | None) -> str | None:
    """Raises BadParameter for what can't be a Patient."""
    if text is None:
        return None
    named = arguments.target(text if "/" in text else f"Patient/{text}")
    if named.resource_id.type != "Patient" or named.version_id is not None:
        raise click.BadParameter(f"`{text}` is no Patient, such as Patient/example.")
    return named.resource_id.id


def _print_head(git_dir: str, *, json: bool) -> None:
    found = journal_head(git_dir)
    if found is None:
        raise NotFound(f"{git_dir} has no access journal.")
    if json:
        print_json({"number": found.number, "hash": found.hash})
    else:
        click.echo(f"{found.number} {found.hash}")


def _facts(found: Recorded) -> dict[str, Any]:
    """An access for --json, by the names that the journal has; what isn't known is left out."""
    entry = found.entry
    facts = {
        "number": found.number,
        "time": format_instant(found.time),
        "principal": entry.principal,
        "agent": entry.agent,
        "interaction": entry.interaction,
        "type": entry.type,
        "id": entry.id,
        "version": entry.version,
        "query": entry.query,
        "patient": list(entry.patients) or None,
        "more": entry.more or None,
        "request": entry.request_id,
        "status": entry.status,
        "remote": entry.remote,
        "purpose": entry.purpose,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _lines(found: Iterable[Recorded]) -> Iterator[str]:
    """A line for each access; columns are aligned page by page, as the rest isn't known yet."""
    found = iter(found)
    while rows := [_row(each) for each in islice(found, _PAGE)]:
        yield from columns(rows)


def _row(found: Recorded) -> tuple[str, ...]:
    entry = found.entry
    failed = entry.status >= 400
    return (
        date_text(found.time),
        visible(entry.principal),
        visible(entry.interaction),
        click.style(str(entry.status), fg="red" if failed else None),
        visible(_place(found)),
        visible(_patients(found)),
    )


def _place(found: Recorded) -> str:
    """`Patient/example/_history/3`, `Observation?code=1234`, as far as it goes."""
    entry = found.entry
    place = "/".join(filter(None, (entry.type, entry.id)))
    if entry.version:
        place += f"/_history/{entry.version}"
    return f"{place}?{entry.query}" if entry.query else place


def _patients(found: Recorded) -> str:
    """Those that the place doesn't name already."""
    entry = found.entry
    names = [f"Patient/{id}" for id in entry.patients if (entry.type, entry.id) != ("Patient", id)]
    return " ".join([*names, *(["…"] * entry.more)])
