"""Taking resources out: export."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

import click

from cli.arguments import option, resource_type
from cli.errors import Failure
from cli.histories import history_lines
from cli.opening import open_store, settings
from gitstore import Invalid, Snapshot, Store, Version
from gitstore.fhir import json
from gitstore.fhir.dates import format_instant, interval

STDOUT = "-"
_BASE = "http://127.0.0.1:8080/fhir"
"""Of `git fhir serve` as it is: what the resources are called where fhir.baseUrl doesn't say otherwise."""


def _types(text: str) -> list[str]:
    """`Patient,Observation`. Raises BadParameter for what is no resource type."""
    return [resource_type(name.strip()) for name in text.split(",")]


@click.command()
@option(
    "--format",
    type=click.Choice(["ndjson", "bundle"]),
    default="ndjson",
    help="NDJSON, one resource a line, or one Bundle of type collection.",
)
@option(
    "--history", is_flag=True, help="All versions instead: history Bundles, one a line, the oldest first."
)
@option("--type", metavar="TYPE,...", type=_types, help="Only resources of these types.")
@option(
    "--at",
    metavar="DATE|COMMIT",
    help="The record as it was: at the end of a date, such as 2026-02-21 in UTC; at an instant; or as a commit left it.",
)
@option(
    "-o",
    "--output",
    metavar="PATH",
    default=STDOUT,
    type=click.Path(allow_dash=True),
    help="A folder for NDJSON, one file for each type; a file for a Bundle or the history; - is stdout.",
)
def export(format: str, history: bool, type: list[str] | None, at: str | None, output: str) -> None:
    """Write all current resources as NDJSON or as a Bundle.

    By type and id, each resource as it is stored but on one line, numbers as written. With -o FOLDER NDJSON goes into
    one file for each type: Patient.ndjson and so on. `git fhir import` reads what this writes. What is being written
    lies under another name until it is whole.

    With --history every version is written, with its author and commit: `git fhir import --history` makes the same
    record of it, and so does a server that takes the Bundles one after the other. A commit is never cut in two; a Bundle
    has 1,000 entries or 16 MiB, but for a commit that is larger by itself.

    Text that is both a date and the start of a commit's id, such as 2026, is the date.
    """
    if history and (type or format == "bundle"):
        raise click.UsageError(
            "--history writes the whole record as lines, without --type or --format bundle."
        )
    base = (settings().base_url or _BASE).rstrip("/")
    with open_store() as store:
        snapshot = _snapshot(store, at)
        if history:
            with _opened(output) as file:
                file.writelines(history_lines(store, snapshot.commit, base))
            return
        names = sorted(set(type)) if type else list(snapshot.counts())
        if format == "bundle":
            with _opened(output) as file:
                for piece in _bundle(snapshot, names, base):
                    file.write(piece)
        elif output == STDOUT:
            stdout = sys.stdout.buffer
            for name in names:
                _write_lines(snapshot, name, stdout)
        else:
            _write_folder(snapshot, names, output)


def _snapshot(store: Store, at: str | None) -> Snapshot:
    """The record now, at the end of a date, or as a commit left it. Raises NotFound."""
    if at is None:
        return store.snapshot()
    try:
        _, end = interval(at)
    except Invalid:
        return store.snapshot(store.resolve(at).sequence)
    return store.snapshot_before(end)


def _write_folder(snapshot: Snapshot, types: list[str], folder: str) -> None:
    """One file for each type that has resources. Raises Failure where another export is there already."""
    os.makedirs(folder, exist_ok=True)
    if any(name.endswith(".ndjson") for name in os.listdir(folder)):
        # A type that has no resources any more would keep its old file, and the folder would be no state of the record.
        raise Failure(f"{folder} holds NDJSON already; choose another folder or empty it.")
    present = snapshot.counts()
    with ExitStack() as files:
        for name in types:
            if name in present:
                _write_lines(
                    snapshot, name, files.enter_context(_opened(os.path.join(folder, f"{name}.ndjson")))
                )


def _write_lines(snapshot: Snapshot, type: str, file: IO[bytes]) -> None:
    for version in snapshot.resources(type):
        file.write(_line(snapshot, version) + b"\n")


def _bundle(snapshot: Snapshot, types: list[str], base: str) -> Iterator[bytes]:
    """The Bundle piece by piece: never more than one resource in memory. https://hl7.org/fhir/R4/bundle.html"""
    head = {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": format_instant(snapshot.commit.last_updated),
    }
    yield json.dumps(head).removesuffix(b"}")
    separator = b',"entry":[\n'
    for type in types:
        for version in snapshot.resources(type):
            entry = {
                "fullUrl": f"{base}/{version.resource_id}",
                "resource": json.Raw(_line(snapshot, version)),
            }
            yield separator + json.dumps(entry)
            separator = b",\n"
    # An empty list is no list: https://hl7.org/fhir/R4/json.html
    yield b"]}\n" if separator == b",\n" else b"}\n"


def _line(snapshot: Snapshot, version: Version) -> bytes:
    return json.dumps(json.loads_trusted(snapshot.body(version)))


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """A file to write, or stdout. What stands at the path is replaced once all is written; if that fails, it stays."""
    if path == STDOUT:
        yield sys.stdout.buffer
        return
    unfinished = f"{path}.{os.getpid()}.tmp"
    try:
        with open(unfinished, "wb") as file:
            yield file
        os.replace(unfinished, path)
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise
