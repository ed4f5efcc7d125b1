"""The repository as a whole: init, serve, verify, reindex."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import click

import gitstore
from cli import nodes
from cli.arguments import as_json, option
from cli.errors import REFUSED, Failure
from cli.opening import configured_file, git_directory, open_store
from cli.output import finding_line, print_finding, print_json, visible
from gitstore import AllowedSigners, check_signatures, parse_allowed_signers


@click.command()
@click.argument("directory", type=click.Path(), default=".")
@option(
    "--signing-key",
    metavar="FILE",
    type=click.Path(),
    help="Sign every commit with this private key of OpenSSH, from the first one on; by default with the one that git's"
    " own configuration names as fhir.signingKey.",
)
@as_json
def init(directory: str, signing_key: str | None, json: bool) -> None:
    """Make an empty repository.

    A bare git repository in DIRECTORY, by default the current folder; one that holds anything is refused.
    """
    key = signing_key or configured_file("fhir.signingKey", here=False)
    gitstore.init(directory, signing_key=os.path.abspath(key) if key else None)
    place = os.path.abspath(directory)
    if json:
        print_json({"repository": place})
    else:
        click.echo(f"Initialized empty FHIR repository in {visible(place)}")


@click.command()
@option(
    "--root",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Serve every repository in this folder, NAME or NAME.git at /NAME/fhir.",
)
@option(
    "--open",
    type=click.IntRange(1),
    help="With --root: repositories that each process has open at once; by default 32.",
)
@option("--host", default="127.0.0.1", help="Address to listen on.")
@option("--port", type=click.IntRange(0, 65535), default=8080, help="TCP port; 0 takes a free one.")
@option("--workers", type=click.IntRange(1), help="Processes; by default one for each core.")
@option("--no-pin", is_flag=True, help="Let workers move between cores; each keeps to one otherwise.")
@option("--threads", type=click.IntRange(1), default=32, help="Threads of each process.")
@option(
    "--queue",
    type=click.IntRange(1),
    default=256,
    help="Requests that may wait for a thread, in each process; more are answered 503.",
)
@option("--tls-cert", metavar="FILE", help="Speak TLS, with the certificate chain in this PEM file.")
@option("--tls-key", metavar="FILE", help="Its private key, where the chain's file doesn't hold it.")
@option(
    "--allow-anonymous",
    is_flag=True,
    help="Answer those who bring no credentials, too.",
)
@option("--replica", is_flag=True, help="Follow fhir.hub, or where this was cloned from, and write nothing.")
@click.pass_context
def serve(
    context: click.Context,
    root: str | None,
    open: int | None,
    host: str,
    port: int,
    workers: int | None,
    no_pin: bool,
    threads: int,
    queue: int,
    tls_cert: str | None,
    tls_key: str | None,
    allow_anonymous: bool,
    replica: bool,
) -> None:
    """Serve the repository as a FHIR REST API at /fhir, or with --root all those of a folder.

    Stops gracefully on SIGTERM and Ctrl-C. The log is JSON, one line for each request.
    """
    if open and root is None:
        raise click.UsageError("--open is for --root.")
    served = _repository_to_serve(replica=replica) if root is None else _root_to_serve(context, root, open)
    arguments = [*served, "--host", host, "--port", str(port)]
    arguments += ["--threads", str(threads), "--queue", str(queue)]
    arguments += ["--tls-cert", tls_cert] if tls_cert else []
    arguments += ["--tls-key", tls_key] if tls_key else []
    arguments += ["--workers", str(workers)] if workers else []
    arguments += ["--no-pin"] * no_pin
    arguments += ["--allow-anonymous"] * allow_anonymous
    arguments += ["--replica"] * replica
    # -P: a folder called `api` in the current one must not be taken for ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "api", *arguments])  # noqa: S606 - a shell is not wanted


def _repository_to_serve(*, replica: bool) -> list[str]:
    git_dir = git_directory()
    if replica:
        nodes.find_hub(git_dir)
    if warning := gitstore.Tokens(git_dir).exposure():
        click.echo(f"git-fhir: warning: {visible(warning)}", err=True)
    return [git_dir]


def _root_to_serve(context: click.Context, root: str, most: int | None) -> list[str]:
    if os.environ.get("GIT_DIR") or (context.parent is not None and context.parent.params["directory"]):
        raise click.UsageError(
            "--root serves the repositories of a folder: without -C, --git-dir and GIT_DIR."
        )
    return ["--root", os.path.abspath(root), *(["--open", str(most)] if most else [])]


@click.command()
@option("--signatures", is_flag=True, help="Also check that each commit was signed by who may.")
@option(
    "--allowed-signers",
    metavar="FILE",
    type=click.File(encoding="utf-8", errors="surrogateescape"),
    help="Who may, for --signatures: as git's gpg.ssh.allowedSignersFile, which is the default.",
)
@as_json
@click.pass_context
def verify(context: click.Context, signatures: bool, allowed_signers: IO[str] | None, json: bool) -> None:
    """Check the whole record against itself.

    Every trailer against the tree and the file's meta, counters, dates, whole transactions, foreign commits,
    the version index against replay, and the chain of the access journal. With --signatures every commit must be
    signed with a key that the file of allowed signers names, for git and for the time of the commit. Prints one
    finding a line, with --json as NDJSON, and exits with 1 if there is any.
    """
    if allowed_signers is not None and not signatures:
        raise click.UsageError("--allowed-signers is for --signatures.")
    allowed = _allowed(allowed_signers) if signatures else None
    with open_store() as store:
        with _progress("Verifying") as progress:
            findings = list(store.verify(progress))
        if allowed is not None:
            with _progress("Signatures") as progress:
                findings += check_signatures(store.git_dir, allowed, progress)
        count = store.snapshot().commit.sequence
    for finding in findings:
        print_finding(finding) if json else click.echo(finding_line(finding))
    if findings:
        context.exit(REFUSED)
    if not json:
        click.echo(f"clean: {count} commits{', all signed' if signatures else ''}")


def _allowed(file: IO[str] | None) -> AllowedSigners:
    if file is not None:
        return parse_allowed_signers(file.read(), file.name)
    name = configured_file("gpg.ssh.allowedSignersFile")
    if name is None:
        raise Failure(
            "nothing says who may sign: name a file with --allowed-signers, or as gpg.ssh.allowedSignersFile in git's"
            " configuration."
        )
    with open(name, encoding="utf-8", errors="surrogateescape") as configured:
        return parse_allowed_signers(configured.read(), name)


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
