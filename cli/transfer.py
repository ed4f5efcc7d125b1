"""Bringing resources in: import."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import click
from msgspec.structs import replace

from cli import arguments
from cli.arguments import as_json, option
from cli.documents import STDIN, Inputs, Refusal
from cli.errors import DONE, INTERRUPTED, REFUSED, Failure
from cli.histories import take_over
from cli.importing import OUTCOMES, Importer, Refused, Rehearsal, Report
from cli.opening import configured_author, open_store, settings
from cli.output import print_json, visible
from cli.preparing import ENOUGH, Desk, Helpers
from cli.units import Planner
from gitstore import ANONYMOUS, Author, Issue, StoreError

_MOST_JOBS = 4
"""One process writes, and can't keep up with more than these."""


def jobs_of_cores() -> int:
    """How many processes there are to prepare where nobody says it."""
    return min(len(os.sched_getaffinity(0)), _MOST_JOBS)


_OBJECTS = 50_000
"""More of them made than gone before garbage is looked for."""

_REDRAW = 0.2
"""Seconds between two looks of the progress bar when nothing else has changed."""


@click.command("import")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(allow_dash=True))
@option(
    "--author",
    metavar="AUTHOR",
    type=arguments.author,
    help='Who says so: "Name <mail>"; by default who git says you are.',
)
@option("-m", "--message", metavar="TEXT", help="Why: for the body of each commit.")
@option("--force", is_flag=True, help="Write what is unchanged or already imported again, as new versions.")
@option("--dry-run", is_flag=True, help="Say what would happen, write nothing.")
@option("--strict", is_flag=True, help="Stop at the first refusal.")
@option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    default=jobs_of_cores,
    show_default="as many as cores, 4 at most",
    help="Prepare in so many processes, where there is enough to do; with 1, in the one that writes.",
)
@option(
    "--history",
    is_flag=True,
    help="Take over the histories of another record, with their version ids, dates and authors.",
)
@as_json
@click.pass_context
def import_(
    context: click.Context,
    *,
    paths: tuple[str, ...],
    author: Author | None,
    message: str | None,
    force: bool,
    dry_run: bool,
    strict: bool,
    jobs: int,
    history: bool,
    json: bool,
) -> None:
    """Import resources from files, folders and stdin (-).

    A document is a resource or a Bundle. A file holds one, or one a line (NDJSON), and may be gzip'd; in folders
    the .json, .ndjson and .gz files are read.

    A resource with an id is an update, or creates it under that id; one without is created. A transaction Bundle is
    a transaction: one commit. A batch is done entry by entry. Of any other Bundle the resources are imported, each by
    itself; as one commit if its entries call one another by urn:. Of a history only the newest version of each
    resource is imported. Reads in a batch or transaction do nothing.

    Running an import again resumes it: what the record already holds is left as it is. Resources without id and
    transactions are known by their content.

    With --history the documents are history Bundles, as `git fhir export --history` writes them, the oldest first. Each
    is taken over whole or not at all, into an empty record or one that it goes on from: every version must be the next
    of its resource, and every commit later than the last one. The first that is refused is the last.

    What is refused is reported in the end with file and line or entry, and the exit code is 1. A unit that refers to
    something unknown is tried again after the rest.
    """
    check_paths(context, paths)
    if history and (message or force or dry_run):
        raise click.UsageError(
            "--history takes commits over as they are, without --message, --force or --dry-run."
        )
    report, begun = Report(), time.monotonic()
    limits = settings()
    inputs = Inputs(paths, limits.max_bundle)
    author = author or (ANONYMOUS if dry_run else configured_author())
    planner = Planner(author, message, limits, force=force)
    several = jobs > 1 and not (history or dry_run) and (inputs.size is None or inputs.size >= ENOUGH)
    with (
        _seldom_collecting(),
        Helpers(jobs, planner) if several else nullcontext() as helpers,
        open_store() as store,
    ):
        if history:
            steps = take_over(store, inputs, author, report)
        elif dry_run:
            steps = _planned(inputs, planner, Rehearsal(store, report, strict=strict))
        else:
            importer = Importer(store, report, strict=strict)
            steps = (
                Desk(helpers, planner, store, importer).steps(inputs)
                if helpers
                else _planned(inputs, planner, importer)
            )
        _run(inputs, steps, report)
        head = store.snapshot().commit.id
    if json:
        print_json(_facts(report, dry_run=dry_run, head=head))
    else:
        _tell(report, time.monotonic() - begun, dry_run=dry_run)
    if report.interrupted:
        context.exit(INTERRUPTED)
    if report.stopped:
        raise Failure(f"stopped: {report.stopped}")
    context.exit(REFUSED if report.refused else DONE)


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Garbage in cycles is looked for less often: here is little of it, and very many objects to look through."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def check_paths(context: click.Context, paths: tuple[str, ...]) -> None:
    """Refuse the whole command for a path that isn't there, before anything is written."""
    for path in paths:
        if path != STDIN and not os.path.lexists(path):
            moved = context.find_root().params["directory"]
            hint = " Paths are looked up in the folder of -C, as git does." if moved else ""
            raise click.UsageError(f"There is no file or folder `{path}`.{hint}")


def _planned(inputs: Inputs, planner: Planner, work: Importer | Rehearsal) -> Iterator[None]:
    """Plan and do all of the inputs, a step for each document."""
    for document in inputs:
        planned = [document] if isinstance(document, Refusal) else planner.plan(document)
        for item in planned:
            work.add(item)
        yield
    work.finish()


def _run(inputs: Inputs, steps: Iterator[None], report: Report) -> None:
    """All steps, unless something stops it: then the report says so."""
    try:
        with _progress(inputs) as progress:
            for _ in steps:
                progress(report.counts.total())
            progress(report.counts.total())
    except Refused:
        return
    except KeyboardInterrupt:
        report.interrupted = True
    except StoreError as error:
        report.stopped = str(error)


@contextmanager
def _progress(inputs: Inputs) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, on a terminal only: bytes read of all, time left, resources and resources a second."""
    begun = time.monotonic()

    def rate(done: int | None) -> str:
        return f"{done or 0:,} resources, {(done or 0) / max(time.monotonic() - begun, 1e-3):,.0f}/s"

    unknown: Iterator[int] = filter(None, ())  # an iterator that tells no length, as stdin has none
    with click.progressbar(
        unknown,
        length=inputs.size,
        label="Importing",
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
        item_show_func=rate,
        update_min_steps=0,
    ) as bar:
        shown: tuple[float, int] = (0.0, -1)

        def progress(done: int) -> None:
            nonlocal shown
            # Drawn when there is news, and now and then while there is none; not for every document.
            if done != shown[1] or time.monotonic() - shown[0] > _REDRAW:
                shown = time.monotonic(), done
                bar.update(inputs.position - bar.pos, done)

        yield progress


def _facts(report: Report, *, dry_run: bool, head: str) -> dict[str, Any]:
    """The report for --json."""
    return {
        "dryRun": dry_run,
        "created": report.counts["created"],
        "updated": report.counts["updated"],
        "deleted": report.counts["deleted"],
        "unchanged": report.counts["unchanged"],
        "alreadyImported": report.counts["already imported"],
        "refused": [_refusal_facts(refusal) for refusal in report.refused],
        "interrupted": report.interrupted,
        "stopped": report.stopped,
        "commit": head,
    }


def _refusal_facts(refusal: Refusal) -> dict[str, Any]:
    place = refusal.place
    return {
        "file": place.file,
        "line": place.line,
        "entry": place.entry,
        "issues": [issue_facts(issue) for issue in refusal.issues],
    }


def issue_facts(issue: Issue) -> dict[str, Any]:
    """An issue for --json."""
    return {
        "severity": issue.severity,
        "code": issue.code,
        "text": issue.text,
        "expression": issue.expression,
        "diagnostics": issue.diagnostics,
    }


def _tell(report: Report, seconds: float, *, dry_run: bool) -> None:
    """The report for people."""
    if dry_run:
        click.echo("Nothing was written. This would happen:")
    for outcome in OUTCOMES:
        if report.counts[outcome]:
            click.echo(f"{report.counts[outcome]:>9,} {outcome}")
    if report.refused:
        click.echo(click.style(f"{len(report.refused):>9,} refused", fg="red"))
    elif not report.counts:
        click.echo("There was nothing to import.")
    for refusal in report.refused:
        for issue in refusal.issues:
            where, place = issue.expression or "", refusal.place
            if where.startswith("Bundle.entry"):
                place = replace(place, entry=None)  # it says so itself
            click.echo(visible(f"{place}: {issue.text}" + (f" ({where})" if where else "")))
            if issue.diagnostics:
                click.echo(f"    {visible(issue.diagnostics)}")
    if report.interrupted:
        click.echo("Interrupted. The same command goes on where this one ended.")
    done = sum(report.counts[outcome] for outcome in OUTCOMES)
    if done and not dry_run:
        click.echo(f"{seconds:.1f} s, {done / max(seconds, 1e-3):,.0f} resources/s")
