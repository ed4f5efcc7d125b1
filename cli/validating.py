"""Telling what is wrong with resources that are nowhere yet: validate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeAlias

import click

from cli.arguments import as_json, option
from cli.documents import Document, Inputs, Place, Refusal
from cli.errors import REFUSED
from cli.opening import open_store
from cli.output import print_json, visible
from cli.transfer import check_paths, issue_facts
from gitstore import Issue, RepositoryRefused, Settings, StoreError
from gitstore.fhir import conformance, json
from gitstore.fhir.profiles import Profiles

_COLOURS = {"error": "red", "warning": "yellow"}

_Check: TypeAlias = Callable[[Any, Sequence[str]], list[Issue]]
"""What is wrong with a resource, by FHIR and by the profiles that it claims and those named."""


@click.command()
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(allow_dash=True))
@option(
    "--profile", "profiles", metavar="URL", multiple=True, help="Apply this profile, too; may be repeated."
)
@as_json
@click.pass_context
def validate(context: click.Context, paths: tuple[str, ...], profiles: tuple[str, ...], json: bool) -> None:
    """Say what is wrong with the resources in files, folders and stdin (-).

    The answers are those of the server's $validate: all that FHIR R4 asks for, and the profiles that resources claim,
    as far as they are in the repository of the current folder. No repository is needed, and nothing is written.

    A file holds one resource or one a line (NDJSON), and may be gzip'd; in folders the .json, .ndjson and .gz files are
    read. Of a Bundle all resources are validated with it.

    Prints a line for each problem, with --json a line of NDJSON for each resource. Exits with 1 if there is any error;
    warnings are none.
    """
    check_paths(context, paths)
    count = refused = 0
    with _checker() as (check, settings):
        for document in Inputs(paths, settings.max_bundle):
            name, found = _validated(document, check, profiles)
            count += 1
            refused += any(issue.severity == "error" for issue in found)
            _tell(document.place, name, found, json=json)
    if not json:
        click.echo(
            f"{count:,} validated, {refused:,} with errors" if count else "There was nothing to validate."
        )
    if refused:
        context.exit(REFUSED)


@contextmanager
def _checker() -> Iterator[tuple[_Check, Settings]]:
    """How to validate: with the profiles of the repository, where there is one."""
    with ExitStack() as stack:
        profiles, settings = _none_known, Settings()
        with suppress(RepositoryRefused):
            store = stack.enter_context(open_store())
            profiles, settings = store.canonicals.profiles, store.settings
        yield lambda resource, asked: conformance.issues(resource, profiles, asked=asked), settings


def _none_known() -> Profiles:
    return Profiles(lambda _: None)


def _validated(
    document: Document | Refusal, check: _Check, profiles: Sequence[str]
) -> tuple[str | None, Sequence[Issue]]:
    """What a resource calls itself, and its issues."""
    if isinstance(document, Refusal):
        return None, document.issues
    try:
        resource = json.loads(document.data)
    except StoreError as error:
        return None, error.issues
    return _name(resource), check(resource, profiles)


def _name(resource: Any) -> str | None:
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        return None
    id = resource.get("id")
    return f"{resource['resourceType']}/{id}" if isinstance(id, str) else str(resource["resourceType"])


def _tell(place: Place, name: str | None, found: Sequence[Issue], *, json: bool) -> None:
    if json:
        facts = {"file": place.file, "line": place.line, "resource": name}
        print_json(facts | {"issues": [issue_facts(issue) for issue in found]})
        return
    for issue in found:
        severity = click.style(issue.severity, fg=_COLOURS.get(issue.severity))
        where = f" ({visible(issue.expression)})" if issue.expression else ""
        click.echo(f"{visible(str(place))}: {severity}: {visible(issue.text)}{where}")
        if issue.diagnostics:
            click.echo(f"    {visible(issue.diagnostics)}")
