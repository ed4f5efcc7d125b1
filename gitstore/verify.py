"""Checking a record against itself: trailers, tree, files and index must tell one story."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from gitstore.adoption import contradictions as contradictions_of_adoption
from gitstore.errors import ForeignCommit, RepositoryDamaged, StoreError
from gitstore.fhir import json
from gitstore.fhir.dates import SECOND
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.fhir.stored import template
from gitstore.git import layout
from gitstore.git.exactness import oddity, tree_oddities
from gitstore.git.history import Step, walk
from gitstore.git.message import Message, format_message, safe_request_id, safe_words
from gitstore.git.pack import BLOB, object_id
from gitstore.git.repository import Repository
from gitstore.git.trees import Trees
from gitstore.git.writer import read_main
from gitstore.replay import OnProgress, missing, read_step
from gitstore.search import contents, index, versions
from gitstore.search.extract import extract
from gitstore.search.parameters import Registry
from gitstore.search.soundness import contradictions
from gitstore.version import Change, Commit

_EVERY = 1000


class Finding(Struct, frozen=True):
    """One contradiction. `kind` is one word for programs, `where` a commit, a version or a path."""

    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.text}"


@dataclass(slots=True)
class _State:
    """What the record holds so far, by replay."""

    last: dict[ResourceId, tuple[int, bool]] = field(default_factory=dict)
    """The newest version of each resource, and whether it is a deletion."""
    files: dict[str, str] = field(default_factory=dict)
    commit: Commit | None = None
    gaps: dict[tuple[ResourceId, VersionId], str] = field(default_factory=dict)
    """Versions that are said to be purged by the commit that made them, and by no purge commit yet: that one's id."""
    purged: set[ResourceId] = field(default_factory=set)
    """Resources whose newest version has been purged."""

    def standing(self, resource_id: ResourceId) -> Literal["there", "absent", "purged"]:
        if layout.path(resource_id) in self.files:
            return "there"
        return "purged" if resource_id in self.purged else "absent"


def verify(
    repository: Repository,
    connection: index.Connection,
    registry: Registry | None,
    progress: OnProgress | None = None,
) -> Iterator[Finding]:
    """Everything that contradicts itself, commit by commit, then the tree of main, then what the index has too much.

    Last, whether searches by the parameters of `registry` find each resource by what it says. A foreign commit ends
    the walk: what follows it is not part of the record.
    """
    main = read_main(repository.git_dir)
    if main is None:
        yield Finding("branch", layout.REFERENCE, "there is no such branch")
        return
    state = _State()
    try:
        ids = missing(repository, None, main)
        for step in walk(repository, ids):
            yield from _commit(repository, connection, state, step)
            if progress is not None and state.commit and state.commit.sequence % _EVERY == 0:
                progress(state.commit.sequence, len(ids))
    except ForeignCommit as error:
        yield Finding("foreign", error.commit, str(error))
    except RepositoryDamaged as error:
        yield Finding("damaged", state.commit.id if state.commit else main, str(error))
    else:
        yield from _tree(repository, state, main)
        for (resource_id, number), id in state.gaps.items():
            text = "it was purged, and no purge commit says so"
            yield Finding("purge", f"{resource_id}/_history/{number}", f"{text} (it was made by {id})")
    tip = versions.tip(connection)
    if tip is not None and (state.commit is None or tip.sequence > state.commit.sequence):
        yield Finding("index", tip.id, "the index holds a commit that the record does not")
    for where, text in contradictions(connection):
        yield Finding("index", where, text)
    if registry is not None:
        yield from _contents(repository, connection, registry)


def _contents(repository: Repository, connection: index.Connection, registry: Registry) -> Iterator[Finding]:
    after = 0
    while piece := versions.newest_since(connection, 0, after, _EVERY):
        after = piece[-1][0]
        for key, resource_id, blob, _ in piece:
            try:
                resource = json.loads(repository.blob(blob)) if blob is not None else None
            except StoreError:
                continue  # It is among the findings about files.
            expected = contents.meant(extract(registry, resource)) if resource is not None else set()
            if contents.stored(connection, key) != expected:
                yield Finding("index", str(resource_id), "searches find it by other values than it has")


def _commit(
    repository: Repository, connection: index.Connection, state: _State, step: Step
) -> Iterator[Finding]:
    before = state.commit
    commit, message = read_step(step, before, state.standing)
    state.commit = commit
    yield from _message(step, message)
    if message.adopts is not None:
        yield from _adopted(repository, commit, before, message.adopts)
    if commit.sequence == 1:
        state.files.update({path: blob for path, blob in step.files.items() if blob is not None})
        yield from _first_files(state)
    if message.interaction == "purge":
        yield from _purge(state, commit, message)
    gone = {one.resource_id for one in message.purged}
    for change in message.changes:
        path = layout.path(change.resource_id)
        blob = step.files.get(path)
        yield from _counter(state, change)
        state.purged -= {change.resource_id}
        if change.resource_id in gone and message.interaction != "purge":
            state.gaps[change.resource_id, change.version_id] = commit.id
            state.purged.add(change.resource_id)
        if blob is None:
            state.files.pop(path, None)
        else:
            state.files[path] = blob
            yield from _file(repository, change, message.last_updated, blob)
    yield from _restores(repository, connection, commit, message, step)
    yield from _index(connection, commit, message.changes, step)


def _purge(state: _State, commit: Commit, message: Message) -> Iterator[Finding]:
    for one in message.purged:
        if state.gaps.pop((one.resource_id, one.version_id), None) is None:
            name = f"{one.resource_id}/_history/{one.version_id}"
            yield Finding(
                "purge", commit.id, f"it says that {name} was purged, and no commit before it says so"
            )
        number, _ = state.last.get(one.resource_id, (0, True))
        if number == one.version_id:
            state.last[one.resource_id] = (number, True)


def _first_files(state: _State) -> Iterator[Finding]:
    for name in (layout.FORMAT_FILE, layout.ATTRIBUTES_FILE):
        if state.files[name] != object_id(BLOB, layout.FIRST_FILES[name].encode()).hex():
            yield Finding("file", name, "it doesn't have the content that each record begins with")


def _message(step: Step, message: Message) -> Iterator[Finding]:
    for trailer in message.unknown:
        yield Finding("trailer", step.id, f"`{trailer}` is unknown to this version of git-fhir")
    words, request_id = safe_words(message.words), safe_request_id(message.request_id)
    ours = message
    if (words, request_id) != (message.words, message.request_id):
        ours = replace(message, words=words, request_id=request_id)
    if not message.unknown and format_message(ours) != step.commit.message:
        yield Finding("message", step.id, "the message is not as git-fhir writes it")
    if step.commit.seconds != message.last_updated // SECOND:
        yield Finding("date", step.id, "the commit's time is not that of its FHIR-Last-Updated")
    if (odd := oddity(step.data, step.commit)) is not None:
        yield Finding("header", step.id, odd)


def _adopted(repository: Repository, commit: Commit, before: Commit | None, adopts: str) -> Iterator[Finding]:
    if before is None or not repository.contains(before.id, adopts):
        yield Finding(
            "adopt", commit.id, f"{adopts}, which it adopts, does not build on the commit before it"
        )
    for problem in contradictions_of_adoption(repository, commit.id, adopts):
        yield Finding("adopt", commit.id, str(problem))


def _restores(
    repository: Repository, connection: index.Connection, commit: Commit, message: Message, step: Step
) -> Iterator[Finding]:
    """What FHIR-Restores says: in a restore commit, and no other, of each resource that it doesn't delete."""
    put = {change.resource_id: change for change in message.changes if change.verb == "PUT"}
    gone = {one.resource_id for one in message.purged}
    named = [resource_id for resource_id, _ in message.restores]
    expected = list(put) if message.interaction == "restore" else []
    if named != expected:
        text = "FHIR-Restores stands once for each PUT of a restore commit, in that order, and nowhere else"
        yield Finding("restore", commit.id, text)
    for resource_id, number in message.restores:
        if (change := put.get(resource_id)) is None:
            continue
        # Where the index has none of this number, _index has told so.
        before = versions.version(connection, resource_id, number, commit.sequence - 1)
        blob = step.files.get(layout.path(resource_id))
        where = f"{resource_id}/_history/{number}"
        if resource_id in gone or (before is not None and before.purged is not None):
            continue  # there is nothing left to compare
        if number >= change.version_id:
            yield Finding("restore", str(change), f"it restores {where}, and there was no such version")
        elif before is not None and before.blob is None:
            yield Finding("restore", str(change), f"it restores {where}, and that version was a deletion")
        elif before is not None and blob and not _is_same(repository, resource_id, str(before.blob), blob):
            yield Finding("restore", str(change), f"it restores {where}, and has another content")


def _is_same(repository: Repository, resource_id: ResourceId, *blobs: str) -> bool:
    """Whether files say the same but for meta.versionId and meta.lastUpdated; of one that can't be read, `_file` tells."""
    try:
        first, second = (template(resource_id, json.loads(repository.object(blob))).tail for blob in blobs)
    except (StoreError, AttributeError):
        return True
    return first == second


def _counter(state: _State, change: Change) -> Iterator[Finding]:
    version, deleted = state.last.get(change.resource_id, (0, True))
    if change.version_id != version + 1:
        yield Finding(
            "counter", str(change), f"the version before it is {version}, so {version + 1} was expected"
        )
    if (change.verb == "POST" and version) or (change.verb == "DELETE" and deleted):
        yield Finding("verb", str(change), f"{change.verb} does not fit what was there before")
    state.last[change.resource_id] = (change.version_id, change.verb == "DELETE")


def _file(repository: Repository, change: Change, last_updated: int, blob: str) -> Iterator[Finding]:
    where = str(change)
    try:
        body = repository.object(blob)
        resource = json.loads(body)
        expected = template(change.resource_id, resource).fill(change.version_id, last_updated)
    except (StoreError, AttributeError) as error:
        yield Finding("file", where, f"the file can't be read: {error}")
        return
    if body == expected:
        return
    meta = resource.get("meta")
    found = (
        resource.get("resourceType"),
        resource.get("id"),
        meta.get("versionId") if isinstance(meta, dict) else None,
    )
    if found != (change.resource_id.type, change.resource_id.id, str(change.version_id)):
        yield Finding("meta", where, "the file says {}/{} version {}".format(*found))
    else:
        yield Finding(
            "file", where, "the file is not in the stored form, or its lastUpdated is not the commit's"
        )


def _index(
    connection: index.Connection, commit: Commit, changes: Sequence[Change], step: Step
) -> Iterator[Finding]:
    indexed = versions.commit_at(connection, commit.sequence)
    if indexed != commit:
        yield Finding("index", commit.id, f"the index has {indexed or 'nothing'} in its place")
        return
    found = [
        (v.verb, v.resource_id, v.version_id, v.blob) for v in versions.changes(connection, commit.sequence)
    ]
    expected = [
        (c.verb, c.resource_id, c.version_id, step.files.get(layout.path(c.resource_id))) for c in changes
    ]
    if found != expected:
        yield Finding("index", commit.id, "the index has other versions for it")


def _tree(repository: Repository, state: _State, main: str) -> Iterator[Finding]:
    root = bytes.fromhex(repository.commit(main).tree)
    read = partial(_object, repository)
    found = dict(Trees(read).blobs(root))
    for path in sorted(found.keys() ^ state.files.keys()):
        what = "no commit put it there" if path in found else "it is missing"
        yield Finding("tree", path, f"in the tree of {layout.BRANCH}, {what}")
    for path in sorted(found.keys() & state.files.keys()):
        if found[path] != state.files[path]:
            yield Finding(
                "tree", path, f"in the tree of {layout.BRANCH}, it is not what the last commit put there"
            )
    for path, what in tree_oddities(read, root):
        yield Finding("tree", path, f"in the tree of {layout.BRANCH}, {what}")


def _object(repository: Repository, id: bytes) -> bytes:
    return repository.object(id.hex())
