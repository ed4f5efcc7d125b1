"""Commits that git-fhir did not make: taking them into the record, and judging them before they come."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from cli.arguments import as_json, option
from cli.errors import REFUSED, Failure
from cli.opening import open_store, pushed_objects
from cli.output import print_json, verb_text, version_facts, visible
from gitstore import Adoption, Commit, ForeignCommit, Problem, Store

_MAIN = "refs/heads/main"


@click.command()
@option("--check", is_flag=True, help="Only say whether that can be done, and what is in the way.")
@as_json
@click.pass_context
def adopt(context: click.Context, check: bool, json: bool) -> None:
    """Take commits into the record that git-fhir did not make.

    Somebody committed to main by hand, merged a pull request or pushed: what that changed becomes the next version of each resource, under the name of the last commit's author. Exits with 1 where a change can't be taken over, and says why, one path a line.

    With --check it serves as git's pre-receive hook: lines `OLD NEW REF` on stdin are what a push asks for.
    """
    if check:
        _check(context, list(_pushed()), json)
        return
    with open_store() as store:
        try:
            commit = store.adopt()
        except ForeignCommit as error:
            if not error.problems:
                raise
            _print_problems(context, error.commit, error.problems, json)
            return
        _print_adopted(store, commit, json)


def _pushed() -> Iterator[str]:
    """The commits to which a push wants to move main, where git runs us as a hook."""
    if sys.stdin.isatty():
        return
    for line in sys.stdin:
        fields = line.split()
        if len(fields) != 3:
            raise click.UsageError(f"Expected lines `OLD NEW REF` on stdin; found `{visible(line.strip())}`.")
        _, new, reference = fields
        if reference == _MAIN and not new.strip("0"):
            raise Failure("main is the record; it can't be deleted.")
        yield new if reference == _MAIN else ""


def _check(context: click.Context, pushed: Sequence[str], json: bool) -> None:
    wanted = [new for new in pushed if new]
    if pushed and not wanted:
        return  # other branches are nobody's business
    with open_store(pushed_objects()) as store:
        found = [store.foreign(new) for new in wanted] or [store.foreign()]
    for adoption in found:
        if adoption is not None and adoption.problems:
            _print_problems(context, adoption.tip, adoption.problems, json)
        elif json:
            print_json({"commit": adoption.tip if adoption else None, "problems": []})
        elif not pushed:
            click.echo(_fine(adoption))


def _fine(adoption: Adoption | None) -> str:
    if adoption is None:
        return "nothing to adopt"
    count = adoption.prepared.entries
    return f"{adoption.tip} can be adopted: {count} changed file{'' if count == 1 else 's'}"


def _print_problems(context: click.Context, tip: str, problems: Sequence[Problem], json: bool) -> None:
    if json:
        facts = [{"path": problem.path, "reason": problem.reason} for problem in problems]
        print_json({"commit": tip, "problems": facts})
    else:
        for problem in problems:
            click.echo(f"{click.style(visible(problem.path), fg='red')}: {visible(problem.reason)}")
    context.exit(REFUSED)


def _print_adopted(store: Store, commit: Commit | None, json: bool) -> None:
    made = store.snapshot().changes(commit) if commit else []
    if json:
        facts = [version_facts(version) for version in made]
        print_json({"commit": commit.id if commit else None, "versions": facts})
    elif commit is None:
        click.echo("nothing to adopt")
    else:
        click.echo(f"{click.style(commit.id, fg='yellow')} {visible(commit.author.name)}")
        for version in made:
            click.echo(f"{verb_text(version.verb)} {visible(str(version))}")
