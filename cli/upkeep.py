"""Looking after a repository: maintain."""

from __future__ import annotations

import click

from cli.arguments import as_json, option
from cli.opening import open_store
from cli.output import columns, print_json


@click.command()
@option("--full", is_flag=True, help="Make one pack of all, with new deltas.")
@as_json
def maintain(full: bool, json: bool) -> None:
    """Make the repository smaller and quicker to read.

    Merges its packs, and writes git's multi-pack-index and commit-graph. A server and an import do so by themselves
    as packs add up. Reads and writes go on meanwhile. Prints packs, and bytes of all objects, before and after.
    """
    with open_store() as store:
        done = store.maintain(full=full)
    sides = {"before": done.before, "after": done.after}
    if json:
        print_json({name: {"packs": side.packs, "bytes": side.bytes} for name, side in sides.items()})
    else:
        rows = [[name, f"{side.packs:,} packs", f"{side.bytes:,} bytes"] for name, side in sides.items()]
        for line in columns(rows):
            click.echo(line)
