"""The record in numbers: stats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from cli.arguments import as_json
from cli.opening import open_store
from cli.output import columns, page, print_json, visible
from gitstore import Statistics
from gitstore.fhir.dates import format_instant


@click.command()
@as_json
def stats(json: bool) -> None:
    """Count what the record holds, how it grew, and what it takes up.

    Resources by type, versions by month (UTC), bytes on disk, the largest resources and the longest histories. A
    current resource counts in bytes of its file; packs hold it compressed.
    """
    with open_store() as store:
        found = store.statistics()
    if json:
        print_json(_facts(found))
    else:
        page(_lines(found))


def _facts(found: Statistics) -> dict[str, Any]:
    """The numbers for --json."""
    return {
        "resources": [
            {"type": one.type, "current": one.current, "deleted": one.deleted, "versions": one.versions}
            for one in found.types
        ],
        "current": sum(one.current for one in found.types),
        "deleted": sum(one.deleted for one in found.types),
        "versions": found.versions,
        "commits": found.last.sequence,
        "authors": found.authors,
        "first": format_instant(found.first.last_updated),
        "last": format_instant(found.last.last_updated),
        "packs": found.files.packs,
        "packBytes": found.files.pack_bytes,
        "looseObjects": found.files.loose,
        "indexBytes": found.index_bytes,
        "growth": [
            {"month": one.month, "commits": one.commits, "versions": one.versions} for one in found.months
        ],
        "largest": [{"resource": str(resource), "bytes": size} for resource, size in found.largest],
        "longest": [{"resource": str(resource), "versions": count} for resource, count in found.longest],
    }


def _lines(found: Statistics) -> Iterator[str]:
    last = found.last
    yield from _table(
        "Resources",
        ("", "current", "deleted", "versions"),
        [(one.type, one.current, one.deleted, one.versions) for one in found.types],
    )
    yield from _table(
        "Record",
        (),
        [
            ("current resources", sum(one.current for one in found.types)),
            ("deleted resources", sum(one.deleted for one in found.types)),
            ("versions", found.versions),
            ("commits", last.sequence),
            ("authors", found.authors),
        ],
    )
    yield f"  from {format_instant(found.first.last_updated)[:10]} to {format_instant(last.last_updated)[:10]}"
    yield from _table(
        "Disk",
        (),
        [
            ("bytes of packs", found.files.pack_bytes),
            ("packs", found.files.packs),
            ("loose objects", found.files.loose),
            ("bytes of the index", found.index_bytes),
        ],
    )
    growth = [(one.month, one.commits, one.versions) for one in found.months]
    yield from _table("Growth", ("", "commits", "versions"), growth)
    yield from _table("Largest resources", ("", "bytes"), [(str(one), size) for one, size in found.largest])
    longest = [(str(one), count) for one, count in found.longest]
    yield from _table("Longest histories", ("", "versions"), longest)


def _table(title: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    """A title and aligned rows: a name and numbers. Nothing where there are no rows."""
    if not rows:
        return
    texts = [[visible(name), *(f"{number:,}" for number in numbers)] for name, *numbers in rows]
    table = [list(head), *texts] if head else texts
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    yield click.style(title, bold=True)
    for line in columns(
        [
            [row[0], *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            for row in table
        ]
    ):
        yield f"  {line}"
