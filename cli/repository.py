"""The repository as a whole: init, serve, verify, reindex."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

import gitstore
from cli.arguments import as_json, option
from cli.errors import REFUSED
from cli.opening import git_directory, open_store
from cli.output import print_json, visible


@click.command()
@click.argument("directory", type=click.Path(), default=".")
@as_json
def init(directory: str, json: bool) -> None:
    """Make an empty repository.

    A bare git repository in DIRECTORY, by default the current folder; one that holds anything is refused.
    """
    gitstore.init(directory)
    place = os.path.abspath(directory)
    if json:
        print_json({"repository": place})
    else:
        click.echo(f"Initialized empty FHIR repository in {visible(place)}")


@click.command()
@option("--host", default="127.0.0.1", help="Address to listen on.")
@option("--port", type=click.IntRange(0, 65535), default=8080, help="TCP port; 0 takes a free one.")
@option("--workers", type=click.IntRange(1), help="Processes; by default one for each core.")
@option("--threads", type=click.IntRange(1), default=32, help="Threads of each process.")
@option(
    "--allow-anonymous",
    is_flag=True,
    help="Serve an address that others can reach without asking who they are.",
)
def serve(host: str, port: int, workers: int | None, threads: int, allow_anonymous: bool) -> None:
    """Serve the repository as a FHIR REST API at /fhir.

    Stops gracefully on SIGTERM and Ctrl-C. The log is JSON, one line for each request.
    """
    arguments = [git_directory(), "--host", host, "--port", str(port)]
    arguments += ["--threads", str(threads)]
    arguments += ["--workers", str(workers)] if workers else []
    arguments += ["--allow-anonymous"] * allow_anonymous
    # -P: a folder called `api` in the current one must not be taken for ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "api", *arguments])


@click.command()
@as_json
@click.pass_context
def verify(context: click.Context, json: bool) -> None:
    """Check the whole record against itself.

    Every trailer against the tree and the file's meta, counters, dates, whole transactions, foreign commits,
    and the version index against replay. Prints one finding a line, with --json as NDJSON, and exits with 1 if
    there is any.
    """
    found = 0
    with open_store() as store:
        with _progress("Verifying") as progress:
            findings = list(store.verify(progress))
        for finding in findings:
            found += 1
            if json:
                print_json({"kind": finding.kind, "where": finding.where, "text": finding.text})
            else:
                kind = click.style(visible(finding.kind), fg="red")
                click.echo(f"{kind} {visible(finding.where)}: {visible(finding.text)}")
        if not found and not json:
            click.echo(f"clean: {store.snapshot().commit.sequence} commits")
    if found:
        context.exit(REFUSED)


@click.command()
@as_json
def reindex(json: bool) -> None:
    """Build the index anew from the commits.

    Never needed in normal life: the index is derived, and is brought up to date by itself.
    """
    with open_store() as store:
        with _progress("Reindexing") as progress:
            store.reindex(progress)
        commit = store.snapshot().commit
    if json:
        print_json({"commits": commit.sequence, "commit": commit.id})
    else:
        click.echo(f"indexed {commit.sequence} commits")


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, on a terminal only, as the progress(done, total) that the store calls."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=hidden, show_pos=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield progress
