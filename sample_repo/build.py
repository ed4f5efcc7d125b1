"""Replays the clinic's story into a record, always to the same HEAD: `python -m sample_repo.build --into DIR`.

Nothing that happens here depends on the machine: each step brings its own time, author and ids.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitstore import (
    Author,
    Create,
    Delete,
    Interaction,
    NotFound,
    RepositoryRefused,
    Store,
    StoreError,
    Update,
    VersionMismatch,
    init,
    write_of,
)
from gitstore.fhir import json
from gitstore.fhir.bundle import requests
from gitstore.fhir.conditions import version_tags
from gitstore.fhir.dates import parse_instant
from gitstore.fhir.ids import ResourceId

HERE = Path(__file__).parent
STORY = HERE / "story"
BUNDLE = HERE / "clinic.bundle"
OPENED = parse_instant("2026-01-05T07:30:00Z")
"""When the record was made, before the first step."""


@dataclass(frozen=True)
class Step:
    """One step of the story: what someone asked of the store, when and why. README.md explains the form.

    `name` is the file's, without .json; it becomes the request id of the commit. `at` is in microseconds since 1970
    UTC. `ids` are those that the server gives to what is created, in that order. A refused step leaves no commit.
    """

    name: str
    at: int
    author: Author
    why: str | None
    ids: tuple[str, ...]
    refused: bool
    interactions: tuple[Interaction, ...]
    is_transaction: bool


def steps(folder: Path = STORY) -> Iterator[Step]:
    """The story in its order. Numbers keep the digits that the files have."""
    for path in sorted(folder.glob("*.json")):
        yield _step(path.stem, json.loads(path.read_bytes()))


def _step(name: str, told: dict[str, Any]) -> Step:
    person, _, email = told["author"].rstrip(">").partition(" <")
    return Step(
        name,
        parse_instant(told["at"]),
        Author(person, email),
        told.get("why"),
        tuple(told.get("ids", ())),
        told.get("expect") == "refused",
        _interactions(told),
        told["do"] == "transaction",
    )


def _interactions(told: dict[str, Any]) -> tuple[Interaction, ...]:
    if_match = version_tags(told["if-match"]) if "if-match" in told else None
    match told["do"]:
        case "transaction":
            return tuple(write_of(request) for request in requests(told["bundle"]))
        case "create":
            return (Create(told["resource"]),)
        case "update":
            resource = told["resource"]
            return (Update(ResourceId(resource["resourceType"], resource["id"]), resource, if_match),)
        case "delete":
            type, _, id = told["target"].partition("/")
            return (Delete(ResourceId(type, id), if_match),)
        case other:
            raise ValueError(f"No step can `{other}`: expected create, update, delete or transaction.")


def build(folder: Path, story: Path = STORY) -> str:
    """Replay the story into a new record at `folder`, which must not exist or be empty; returns its HEAD.

    The folder appears whole or not at all. Raises ValueError where the story and the store disagree about what is
    refused or created, or any StoreError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".clinic-") as scratch:
        unfinished = Path(scratch, "clinic.git")
        head = _replay(unfinished, story)
        unfinished.rename(folder)
    return head


def _replay(folder: Path, story: Path) -> str:
    now = OPENED
    ids: list[str] = []

    def next_id() -> str:
        if not ids:
            raise ValueError("A step creates more resources than it gives ids for.")
        return ids.pop(0)

    git_dir = init(folder, clock=lambda: now)
    with Store.open(git_dir, clock=lambda: now, new_id=next_id) as store:
        for step in steps(story):
            now = step.at
            ids.extend(step.ids)
            _commit(store, step)
            if ids:
                raise ValueError(f"{step.name} gives more ids than it creates resources.")
        return store.snapshot().commit.id


def _commit(store: Store, step: Step) -> None:
    interaction = "transaction" if step.is_transaction else None
    try:
        store.commit(
            step.interactions, step.author, request_id=step.name, message=step.why, interaction=interaction
        )
    except VersionMismatch:
        if not step.refused:
            raise
    else:
        if step.refused:
            raise ValueError(f"{step.name} should have been refused.")


def expected_head(bundle: Path = BUNDLE) -> str:
    """The HEAD that the story comes to, as the committed bundle has it. https://git-scm.com/docs/gitformat-bundle"""
    with bundle.open("rb") as file:
        for line in file:
            id, _, name = line.decode("ascii").strip().partition(" ")
            if name == "HEAD":
                return id
    raise ValueError(f"{bundle} has no HEAD.")


def build_once(folder: Path) -> str:
    """Make sure that the clinic is at `folder`; returns a line that says what was found or done.

    A clinic that its user has written to is left as it is. Raises RepositoryRefused for anything else that is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return f"The sample clinic is in {folder}, HEAD {build(folder)}."
    refusal = f"{folder} holds something else than this sample clinic; choose another folder, or remove it."
    if not (folder / "HEAD").is_file():
        raise RepositoryRefused(refusal)
    head = expected_head()
    with Store.open(folder) as store:
        if not _is_on_record(store, head):
            raise RepositoryRefused(refusal)
        # Where someone has committed by hand, main itself is not on the record.
        if _is_on_record(store, "refs/heads/main") and store.resolve("refs/heads/main").id == head:
            return f"The sample clinic is in {folder} already, HEAD {head}."
    return f"The sample clinic in {folder} has been written to since it was built; it is left as it is."


def _is_on_record(store: Store, revision: str) -> bool:
    try:
        store.resolve(revision)
    except NotFound:
        return False
    return True


def write_bundle(record: Path, bundle: Path) -> None:
    """Write the whole record as a git bundle, from which `git clone` checks out main."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    git = ["git", "--git-dir", str(record), "-c", "pack.threads=1", "bundle", "create", "--quiet"]
    subprocess.run([*git, str(bundle.absolute()), "HEAD", "refs/heads/main"], check=True, env=environment)


def tour(folder: Path, host: str, port: int) -> str:
    """What to try first: three curl and three git commands for a clinic at `folder`, served at host and port."""
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}/fhir"
    history, first, mine = (
        shlex.quote(f"{base}/Patient/{path}")
        for path in ("li-xiulan/_history", "amara-okafor/_history/1", "me")
    )
    patient = '{"resourceType": "Patient", "id": "me", "name": [{"text": "Me"}]}'
    git = f"git -C {shlex.quote(str(folder))}"
    return f"""
Try, while it is served (Ctrl-C ends it):

  The patient who was deleted by mistake, with all that happened to her
    curl {history}
  A patient as she was before her birth date was corrected
    curl {first}
  A change of your own
    curl -X PUT -H 'Content-Type: application/fhir+json' -H 'X-Commit-Message: I was here' \\
      -d '{patient}' {mine}

and see the same record with git:

  Who did what and when
    {git} log --date=short --format='%ad %an: %s'
  Each version of a resource, and why it was changed
    {git} log -p -- 'Patient/*/amara-okafor.json'
  The last change: yours
    {git} show
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 with one line on standard error where the store refuses something."""
    parser = argparse.ArgumentParser("python -m sample_repo.build", description="The sample clinic.")
    parser.add_argument(
        "--into", type=Path, metavar="DIR", help="where the record is, or is made if there is nothing yet"
    )
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="build anew and write a git bundle of it")
    parser.add_argument("--tour", action="store_true", help="build nothing; print what to try with --into")
    parser.add_argument("--host", default="127.0.0.1", help="where the tour finds the server")
    parser.add_argument("--port", default=8080, type=int)
    options = parser.parse_args(arguments)
    if options.into is None and (options.tour or options.bundle is None):
        parser.error("--into DIR is needed, or --bundle FILE")
    if options.tour:
        print(tour(options.into, options.host, options.port))
        return 0
    try:
        if options.bundle is not None:
            with tempfile.TemporaryDirectory() as scratch:
                record = Path(scratch, "clinic.git")
                print(build(record))
                write_bundle(record, options.bundle)
        if options.into is not None:
            print(build_once(options.into))
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
