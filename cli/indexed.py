"""What the search index holds of one resource: indexed."""

from __future__ import annotations

import click
from msgspec.structs import asdict

from cli import arguments
from cli.arguments import Target, as_json
from cli.opening import open_store
from cli.output import columns, page, print_json, visible
from gitstore import Indexed


@click.command()
@click.argument("target", metavar="REF", type=arguments.target)
@as_json
def indexed(target: Target, json: bool) -> None:
    """Print by which parameters and values searches find a resource.

    One line for each value: the parameter, after a colon the modifier that looks at the value (or the part of a
    composite parameter, and which of its values), the kind, and the value as the index has it.
    """
    with open_store() as store:
        store.snapshot().read(target.resource_id)
        rows = store.indexed(target.resource_id)
    if json:
        print_json([asdict(row) for row in rows])
    else:
        page(columns([(_name(row), row.kind, visible(row.value)) for row in rows]))


def _name(row: Indexed) -> str:
    within = f"#{row.within} " if row.within else ""
    variant = f":{row.variant}" if row.variant else ""
    element = f"[{row.element}]" if row.element else ""
    return f"{within}{row.parameter}{variant}{element}"
