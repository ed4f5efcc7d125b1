"""Who may use the repository over HTTP: token create, list, revoke."""

from __future__ import annotations

import re
from typing import Any

import click

import gitstore
from cli.arguments import as_json, date, option
from cli.opening import git_directory
from cli.output import columns, date_text, print_json, visible
from gitstore import Token, Tokens
from gitstore.fhir.dates import SECOND, format_instant

_DAYS = re.compile(r"([1-9][0-9]{0,4})d", re.ASCII)
_DAY = 86_400 * SECOND


@click.group()
def token() -> None:
    """Give, list and revoke the tokens that open the repository over HTTP.

    Only the owner of the git directory can: the tokens are in its file git-fhir/tokens, with a digest of each
    secret in place of the secret. What is changed holds for a running server at once.
    """


@token.command()
@option("--name", required=True, help="Whose it is: the author of what is written with it.")
@option("--email", required=True, help="The author's address.")
@option(
    "--scope",
    required=True,
    multiple=True,
    help="What it may do: SMART scopes such as user/Observation.rs, and git-fhir/ROLE; several with spaces, "
    "or several times.",
)
@option("--patient", metavar="ID", help="The Patient that patient/ scopes are about.")
@option(
    "--expires",
    metavar="WHEN",
    default="90d",
    help="From when on it no longer works: so many days from now (90d), a date, or never.",
)
@option("--note", help="What it is for, in a line.")
def create(
    name: str, email: str, scope: tuple[str, ...], patient: str | None, expires: str, note: str | None
) -> None:
    """Make a token.

    Prints its secret, which is shown this once, alone on stdout, and all words about it on stderr.
    """
    now = gitstore.now()
    secret, made = Tokens(git_directory()).create(
        name=name,
        email=email,
        scope=" ".join(scope),
        patient=patient,
        now=now,
        expires=_expiry(expires, now),
        note=note,
    )
    click.echo(
        f"Token {made.id} for {visible(_who(made))}: {visible(_what(made))}; {_until(made)}.\n"
        "This is its secret, which is not kept and will not be shown again:",
        err=True,
    )
    click.echo(secret)


@token.command("list")
@as_json
def list_(json: bool) -> None:
    """List all tokens ever made, oldest first, without their secrets."""
    now = gitstore.now()
    tokens = Tokens(git_directory())
    if warning := tokens.exposure():
        click.echo(f"git-fhir: warning: {visible(warning)}", err=True)
    if json:
        for each in tokens.all():
            print_json(_facts(each, now))
        return
    rows = [
        [each.id, _state(each, now), date_text(each.created), _until(each)]
        + [visible(text) for text in (_who(each), _what(each), each.note or "")]
        for each in tokens.all()
    ]
    for line in columns(rows):
        click.echo(line)


@token.command()
@click.argument("id")
def revoke(id: str) -> None:
    """Make the token with this ID useless, at once and for ever. The list names it still."""
    revoked = Tokens(git_directory()).revoke(id, gitstore.now())
    assert revoked.revoked is not None
    click.echo(f"Token {revoked.id} of {visible(_who(revoked))}: revoked {date_text(revoked.revoked)}")


def _expiry(text: str, now: int) -> int | None:
    """The instant that --expires means. Raises BadParameter."""
    if text == "never":
        return None
    days = _DAYS.fullmatch(text)
    if days:
        return now + int(days[1]) * _DAY
    try:
        return date(text)[0]
    except click.BadParameter as error:
        raise click.BadParameter(
            f"`{text}` is neither a number of days such as 90d, nor a date such as 2027-01-31, nor never.",
            param_hint="'--expires'",
        ) from error


def _who(token: Token) -> str:
    return f"{token.name} <{token.email}>"


def _what(token: Token) -> str:
    return token.scope + (f" (Patient/{token.patient})" if token.patient else "")


def _until(token: Token) -> str:
    return "never expires" if token.expires is None else f"expires {date_text(token.expires)}"


def _state(token: Token, now: int) -> str:
    refused = token.refused(now)
    return "valid" if refused is None else refused.value


def _facts(token: Token, now: int) -> dict[str, Any]:
    """A token for --json."""
    instants = {"created": token.created, "expires": token.expires, "revoked": token.revoked}
    return {
        "id": token.id,
        "state": _state(token, now),
        "author": {"name": token.name, "email": token.email},
        "scope": token.scope,
        "patient": token.patient,
        "note": token.note,
    } | {name: None if at is None else format_instant(at) for name, at in instants.items()}
