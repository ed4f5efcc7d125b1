"""What stands on a command line: references, dates, authors, and the options that many commands share."""

from __future__ import annotations

import re
from functools import partial
from typing import NamedTuple

import click

from gitstore import Author, StoreError
from gitstore.fhir.dates import interval
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId, VersionId, is_id, parse_version_id

_AUTHOR = re.compile(r"\s*(?P<name>[^<>\r\n]*[^<>\s])\s*<(?P<email>[^<>\s]+)>\s*")

option = partial(click.option, show_default=True, show_envvar=True)
"""An option that tells its default and its environment variable in the help."""

as_json = option("--json", is_flag=True, help="Print JSON, for programs.")


class Target(NamedTuple):
    """A resource, and which version of it if that was said."""

    resource_id: ResourceId
    version_id: VersionId | None


def target(text: str) -> Target:
    """`Patient/example` or `Patient/example/_history/3`. Raises BadParameter for anything else."""
    reference, separator, version = text.partition("/_history/")
    type, _, id = reference.partition("/")
    version_id = parse_version_id(version)
    if not is_id(id) or (separator and version_id is None):
        raise click.BadParameter(
            f"`{text}` is no reference such as Patient/example or Patient/example/_history/3."
        )
    return Target(ResourceId(resource_type(type), id), version_id)


def date(text: str) -> tuple[int, int]:
    """A date of FHIR, as the half-open interval of instants that it stands for. Raises BadParameter."""
    try:
        return interval(text)
    except StoreError as error:
        raise click.BadParameter(str(error)) from error


def author(text: str) -> Author:
    """`Name <mail>`, as git writes it. Raises BadParameter."""
    match = _AUTHOR.fullmatch(text)
    if match is None:
        raise click.BadParameter(f'`{text}` is no author such as "Ada Lovelace <ada@example.org>".')
    return Author(match["name"], match["email"])


def resource_type(text: str) -> str:
    """The text itself. Raises BadParameter where it is no resource type."""
    if text not in RESOURCE_TYPES:
        raise click.BadParameter(f"`{text}` is no resource type of FHIR R4.")
    return text


def scope(text: str | None) -> ResourceId | str | None:
    """What `log` and the like look at: a resource, a type, or with None everything."""
    if text is None or "/" not in text:
        return None if text is None else resource_type(text)
    named = target(text)
    if named.version_id is not None:
        raise click.BadParameter(
            f"`{text}` is one version; expected a reference such as {named.resource_id}."
        )
    return named.resource_id
