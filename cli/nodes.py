"""Several nodes of one record: how this one stands, and making it the primary."""

from __future__ import annotations

import subprocess

import click

from cli.arguments import as_json, option
from cli.errors import Failure
from cli.opening import configured_author, open_store
from cli.output import print_json, visible
from gitstore import Cluster, ClusterStatus, Store
from gitstore.fhir.dates import format_instant


@click.command()
@as_json
def replication(json: bool) -> None:
    """Show this node's place among the nodes of the record.

    Its role, the hub, and what the hub is not known to have yet. What is shown is what the node knows; nobody is asked.
    """
    with open_store() as store:
        status = _cluster(store).status()
    if json:
        print_json(_facts(status))
        return
    since = f" since {format_instant(status.since)}" if status.since else ""
    why = f": {visible(status.why)}" if status.why else ""
    click.echo(f"{click.style(status.role, fg='yellow')}{since}{why}")
    if status.suspended is not None:
        click.echo(click.style(f"no writes for now: {visible(status.suspended)}", fg="red"))
    click.echo(f"hub {visible(status.hub)} ({status.replication})")
    click.echo(_progress(status))


def _progress(status: ClusterStatus) -> str:
    tip = f"commit {status.tip.sequence} {status.tip.id}"
    if status.role == "replica":
        looked = "never" if status.seen is None else f"{status.seconds:.1f} s ago"
        return f"{tip}; last looked at the hub {looked}"
    if status.seen is None:
        return f"{tip}; what the hub has is not known yet"
    if status.pending == 0:
        return f"{tip}; the hub has it"
    return f"{tip}; the hub lacks {status.pending}, the oldest for {status.seconds:.1f} s"


def _facts(status: ClusterStatus) -> dict[str, object]:
    return {
        "role": status.role,
        "since": format_instant(status.since) if status.since else None,
        "why": status.why or None,
        "suspended": status.suspended,
        "hub": status.hub,
        "replication": status.replication,
        "commit": status.tip.id,
        "sequence": status.tip.sequence,
        "seen": status.seen,
        "pending": status.pending,
        "seconds": round(status.seconds, 3),
    }


@click.command()
@option("-m", "--message", default="", help="Why, for the commit that says so.")
@option("--despite-lease", is_flag=True, help="Also where another node holds the lease, and will undo it.")
def promote(message: str, despite_lease: bool) -> None:
    """Make this replica the primary.

    It takes over with a commit that the hub accepts from one node only. The old primary learns of it when it next looks at the hub, or
    tries to write: what it had not brought there is kept, see `git fhir diverged`.

    With fhir.etcd whoever holds the lease is the primary. While that is another node, as far as is known here, this is refused: stop the server there, and a replica takes over by itself.
    """
    with open_store() as store:
        cluster = _cluster(store)
        if cluster.leader is not None and not despite_lease:
            raise Failure(
                f"{cluster.leader} holds the lease, so this node would step down again at once: stop the server there, and"
                " a replica takes over. (--despite-lease promotes all the same.)"
            )
        commit = cluster.promote(configured_author(), message)
    click.echo(f"{click.style(commit.id, fg='yellow')} this node is the primary")


def _cluster(store: Store) -> Cluster:
    if store.cluster is None:
        raise Failure("this record has no other nodes: `git config fhir.hub URL` names where they meet.")
    return store.cluster


def find_hub(git_dir: str) -> None:
    """A clone follows where it was cloned from, unless it is told otherwise. Raises Failure."""
    git = ["git", "--git-dir", git_dir, "config"]
    if _output([*git, "--get", "fhir.hub"]):
        return
    origin = _output([*git, "--get", "remote.origin.url"])
    if not origin:
        raise Failure("there is no hub to follow: set it with `git config fhir.hub URL`.")
    subprocess.run([*git, "fhir.hub", origin], check=True)


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
