"""What a fenced node had not pushed: each of its commits is held against main, and done again there (docs/diverged.md).

A ref below refs/git-fhir/diverged leads to commits that build on main at some point, the base, and were never on it since.
They are looked at oldest first, as if each that can be done again were done before the next one is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gitstore.cluster.redoing import Numbers, Redone, read_files, redone, said_since, unit_of
from gitstore.cluster.settling import settlement, settling
from gitstore.errors import (
    Conflict,
    ForeignCommit,
    Invalid,
    NotFound,
    RepositoryDamaged,
    StoreError,
    TooLarge,
)
from gitstore.fhir import Resource
from gitstore.fhir.dates import format_instant
from gitstore.fhir.ids import ResourceId, VersionId, parse_version_id
from gitstore.fhir.references import references
from gitstore.git import layout
from gitstore.git.history import Step, chain, walk
from gitstore.git.layout import DIVERGED
from gitstore.git.message import Message
from gitstore.git.repository import Repository, run_git
from gitstore.git.rewritten import successor
from gitstore.interactions import Outcome, Unit
from gitstore.replay import read_step
from gitstore.snapshot import Snapshot
from gitstore.version import Author, Change, Commit, Version

_REFUSALS = (Conflict, Invalid, NotFound, TooLarge)
"""What says of a unit that it can't be done. All else says that nothing can be done now."""


class Record(Protocol):
    """What is asked of the Store."""

    @property
    def git_dir(self) -> str: ...

    def snapshot(self, sequence: int | None = None) -> Snapshot: ...

    def resolve(self, revision: str) -> Commit: ...

    def commit_each(self, units: Iterable[Unit]) -> list[list[Outcome] | StoreError]: ...


class Obstacle(Struct, frozen=True):
    """Why a diverged commit can't be done again on main. `change` is what it did to the resource that is in the way.

    `base` is the number of the resource's version at the base, 0 where it had none; `main` its newest version on main.
    """

    text: str
    change: Change | None = None
    base: int = 0
    main: Version | None = None


class Diverged(Struct, frozen=True):
    """A commit that was never pushed, held against main: `made` in microseconds since 1970 UTC.

    "applies": it can be done again. "applied": main has what it did, by the commit `by`, where it changed anything at all;
    `is_new` where that was done just now. "conflicts": `obstacles` say why. "foreign": it is no commit of ours, or can't
    be read. "settled": somebody has looked at it, which the commit `by` says, and nothing is done with it any more.
    """

    ref: str
    base: Commit | None
    id: str
    state: Literal["applies", "applied", "conflicts", "foreign", "settled"]
    author: Author | None = None
    made: int | None = None
    interaction: str | None = None
    changes: tuple[Change, ...] = ()
    by: Commit | None = None
    is_new: bool = False
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def is_left(self) -> bool:
        """Whether somebody has to look at it."""
        return self.state in ("conflicts", "foreign")


def diverged(record: Record, refs: Sequence[str] = ()) -> Iterator[Diverged]:
    """Every commit that was never pushed, of these refs or of all, oldest first, each commit once.

    What it says of one is what `apply_diverged` with the same refs would come to. Raises NotFound for an unknown ref.
    """
    return _held(record, _Main(record), refs)


def apply_diverged(record: Record, refs: Sequence[str] = ()) -> Iterator[Diverged]:
    """As `diverged`, and each commit that applies is done again on main before the next one is looked at.

    Each becomes one unit of work of the same author. It may be stopped and called again at any time: nothing is done
    twice. Raises what `Store.commit` raises where nothing can be written.
    """
    return _held(record, _Main(record, is_applying=True), refs)


def settle_diverged(record: Record, names: Sequence[str], author: Author, words: str) -> list[Diverged]:
    """Say on main, where all nodes see it, that somebody has looked at these commits; the refs stay.

    A name is the beginning of a commit's id, or a ref: that stands for all that is left of it. Raises NotFound for what
    names none that is left or applies, Invalid for what may name several, and what `Store.commit` raises.
    """
    found = list(diverged(record))
    chosen = {one.id: one for name in names for one in _named(found, name)}
    units = [settling(one.id, author, words) for one in chosen.values() if one.state != "settled"]
    for result in record.commit_each(units):
        if isinstance(result, StoreError):
            raise result
    snapshot = record.snapshot()
    return [
        replace(one, state="settled", by=settlement(snapshot, one.id), is_new=True, obstacles=())
        for one in chosen.values()
    ]


_SHORTEST = 7
"""Digits of a commit's id."""


def _named(found: Sequence[Diverged], name: str) -> list[Diverged]:
    ref = f"{DIVERGED}/{name.removeprefix(f'{DIVERGED}/')}"
    if of_ref := [one for one in found if one.ref == ref]:
        if left := [one for one in of_ref if one.is_left]:
            return left
        raise NotFound(f"Nothing is left of `{ref}`.")
    named = [one for one in found if len(name) >= _SHORTEST and one.id.startswith(name)]
    if len(named) > 1:
        raise Invalid(f"`{name}` may be any of {', '.join(one.id for one in named)}.")
    if not named:
        raise NotFound(f"`{name}` is no commit that has diverged, and no ref of one.")
    if named[0].state == "applied":
        raise NotFound(f"`{name}` is not left: main has it.")
    return named


def _held(record: Record, main: _Main, refs: Sequence[str]) -> Iterator[Diverged]:
    """Each commit with what becomes of it. What is foreign may be settled as well as what conflicts."""
    for one in _judged(record, main, refs):
        by = settlement(main.snapshot, one.id) if one.state == "foreign" else None
        yield one if by is None else replace(one, state="settled", by=by, obstacles=())


def _judged(record: Record, main: _Main, refs: Sequence[str]) -> Iterator[Diverged]:
    repository = Repository(record.git_dir)
    for name, tip in _refs(record.git_dir, refs):
        try:
            base, ids = _fork(record, repository, main, tip)
            parents = repository.commit(ids[0]).parents if ids else ()
        except RepositoryDamaged as error:
            yield Diverged(name, None, tip, "foreign", obstacles=(Obstacle(str(error)),))
            continue
        if base is None and not repository.contains(tip, main.snapshot.commit.id):
            problem = Obstacle("it is no commit that builds on main")
            yield from (Diverged(name, None, id, "foreign", obstacles=(problem,)) for id in ids or [tip])
        elif base is not None and ids:
            yield from _Branch(record, repository, main, base, name).judge(parents[0], ids)


def _refs(git_dir: str, wanted: Sequence[str]) -> list[tuple[str, str]]:
    """The name of each ref and the object that it names, in the order of names: of dates."""
    form = "--format=%(refname) %(objectname)"
    lines = run_git(["--git-dir", git_dir, "for-each-ref", form, DIVERGED]).splitlines()
    found = {name: id for name, _, id in (line.partition(" ") for line in lines)}
    names = {f"{DIVERGED}/{name.removeprefix(f'{DIVERGED}/')}" for name in wanted}
    for name in names - found.keys():
        raise NotFound(f"There is no `{name}`: nothing has diverged under that name.")
    return [(name, id) for name, id in found.items() if not names or name in names]


def _fork(record: Record, repository: Repository, main: _Main, tip: str) -> tuple[Commit | None, list[str]]:
    """The commit of main that a branch builds on, None where there is none, and those that main doesn't have.

    What the base was before a purge has made it anew stands for what it is now.
    """
    ids = chain(repository, tip, main.snapshot.commit.id)
    base = (repository.commit(ids[0]).parents or ("",))[0] if ids else tip
    while ids and (new := successor(record.git_dir, ids[0])) is not None:
        base = new
        del ids[0]
    try:
        return record.resolve(base), ids
    except NotFound:
        return None, ids


class _Main:
    """Main as it will be once the commits that apply have been done again: where it is `is_applying`, as it is."""

    def __init__(self, record: Record, *, is_applying: bool = False) -> None:
        self.record = record
        self.is_applying = is_applying
        self.snapshot = record.snapshot()
        self.known: dict[str, Numbers] = {}
        """What has become of the diverged commits that were looked at."""
        self._coming: dict[ResourceId, int] = {}

    def look(self) -> None:
        """See what others write meanwhile."""
        if self.is_applying:
            self.snapshot = self.record.snapshot()

    def number(self, resource_id: ResourceId) -> int:
        """The number of a resource's newest version, 0 where it has none."""
        coming = self._coming.get(resource_id)
        return coming if coming is not None else _number(self.snapshot.newest(resource_id))

    def is_as_seen(self, resource_id: ResourceId) -> bool:
        """Whether nothing is still to be done to a resource."""
        return resource_id not in self._coming

    def expect(self, numbers: Numbers) -> None:
        """These versions will be there."""
        self._coming.update((each, number) for each, number in numbers.items() if number is not None)


def _number(version: Version | None) -> int:
    return 0 if version is None else version.version_id


class _Made(Struct, frozen=True):
    """A version that a diverged commit made: `main` is the number of the same on main, None where it isn't there.

    `number` is None of what a commit made that is none of ours.
    """

    commit: str
    number: int | None
    blob: str | None
    main: int | None


class _Branch:
    """The commits of one ref, oldest first."""

    def __init__(self, record: Record, repository: Repository, main: _Main, base: Commit, name: str) -> None:
        self._record = record
        self._repository = repository
        self._main = main
        self._base = base
        self._name = name
        self._then = record.snapshot(base.sequence)
        self._before = base
        self._newest: dict[ResourceId, _Made] = {}
        self._made: dict[tuple[ResourceId, int], _Made] = {}

    def judge(self, parent: str, ids: Sequence[str]) -> Iterator[Diverged]:
        """What becomes of each of the commits, which follow the `parent`: the base, or what that was before a purge.

        What was looked at before is not told again.
        """
        self._before = replace(self._base, id=parent)
        steps = walk(self._repository, ids, parent)
        for number, id in enumerate(ids):
            is_known = id in self._main.known
            try:
                step = next(steps)
            except RepositoryDamaged as error:
                problem = Obstacle(str(error))
                for lost in ids[number:]:
                    yield Diverged(self._name, self._base, lost, "foreign", obstacles=(problem,))
                return
            found = self._judge(step)
            if not is_known:
                yield found

    def _judge(self, step: Step) -> Diverged:
        blank = Diverged(self._name, self._base, step.id, "foreign", step.commit.author)
        try:
            commit, message = self._read(step)
        except (ForeignCommit, RepositoryDamaged) as error:
            self._taint(step)
            self._main.known[step.id] = {}
            reason = error.reason if isinstance(error, ForeignCommit) else str(error)
            return replace(blank, obstacles=(Obstacle(reason),))
        self._before = commit
        told = replace(
            blank, made=message.last_updated, interaction=message.interaction, changes=message.changes
        )
        found, numbers = told, self._main.known.get(step.id)
        if numbers is None:
            found, numbers = self._held(told, step, message)
            self._main.known[step.id] = numbers
        for change in message.changes:
            self._note(change, step, numbers.get(change.resource_id))
        return found

    def _read(self, step: Step) -> tuple[Commit, Message]:
        """Raises ForeignCommit, with the reason, for what no node of ours has written, RepositoryDamaged."""
        commit, message = read_step(step, self._before, self._standing)
        for change in message.changes:
            expected = self._number_before(change.resource_id)
            if expected is not None and change.version_id != expected + 1:
                reason = (
                    f"it makes {change.resource_id}/_history/{change.version_id} after version {expected}"
                )
                raise ForeignCommit(
                    f"Commit {step.id} is none of git-fhir's: {reason}.", step.id, reason=reason
                )
        for _ in read_files(self._repository, step, message):
            pass  # reading them is the check
        return commit, message

    def _standing(self, resource_id: ResourceId) -> Literal["there", "absent", "purged"]:
        made = self._newest.get(resource_id)
        if made is not None:
            return "there" if made.blob is not None else "absent"
        newest = self._then.newest(resource_id)
        if newest is None or not newest.deleted:
            return "absent" if newest is None else "there"
        return "absent" if newest.purged is None else "purged"

    def _number_before(self, resource_id: ResourceId) -> int | None:
        """The newest version of a resource on this branch; None where a foreign commit keeps that from being known."""
        made = self._newest.get(resource_id)
        return made.number if made is not None else _number(self._then.newest(resource_id))

    def _note(self, change: Change, step: Step, main: int | None) -> None:
        blob = step.files.get(layout.path(change.resource_id))
        made = _Made(step.id, change.version_id, blob, main)
        self._newest[change.resource_id] = made
        self._made[change.resource_id, change.version_id] = made

    def _taint(self, step: Step) -> None:
        """Nothing that builds on a foreign commit can be done again."""
        self._before = replace(self._before, id=step.id)
        for path, blob in step.files.items():
            if (resource_id := layout.resource_id(path)) is not None:
                self._newest[resource_id] = _Made(step.id, None, blob, None)

    # Against main

    def _held(self, told: Diverged, step: Step, message: Message) -> tuple[Diverged, Numbers]:
        """What becomes of a commit, and which numbers its versions have on main then."""
        self._main.look()
        before = {change.resource_id: self._expected(change.resource_id) for change in message.changes}
        known = redone(self._main.snapshot, self._repository, step, message)
        if known is None and not message.purged:
            base = {each: _number(self._then.newest(each)) for each in before}
            since = {each: base[each] if number is None else number for each, number in before.items()}
            known = said_since(self._main.snapshot, self._repository, step, message, since)
        if known is not None:
            return replace(told, state="applied", by=known.by), known.numbers
        if (by := settlement(self._main.snapshot, step.id)) is not None:
            return replace(told, state="settled", by=by), {}
        obstacles = self._obstacles(step, message, before)
        if not obstacles:
            expected: Numbers = {each: (number or 0) + 1 for each, number in before.items()}
            if not self._main.is_applying:
                self._main.expect(expected)
                return replace(told, state="applies"), expected
            made = self._apply(step, message, before)
            if isinstance(made, Redone):
                return replace(told, state="applied", by=made.by, is_new=True), made.numbers
            self._main.look()
            # Mostly somebody has written meanwhile, and then there is more to be said than what the refusal says.
            obstacles = self._obstacles(step, message, before) or [Obstacle(made)]
        return replace(told, state="conflicts", obstacles=tuple(obstacles)), {}

    def _apply(self, step: Step, message: Message, before: Numbers) -> Redone | str:
        """Do it again; or why that is refused. Raises StoreError where it was not refused and yet not done."""
        unit = unit_of(self._main.snapshot, self._repository, step, message, before)
        [result] = self._record.commit_each([unit])
        if isinstance(result, _REFUSALS):
            return " ".join(issue.text for issue in result.issues)
        if isinstance(result, StoreError):
            raise result
        self._main.look()
        made = redone(self._main.snapshot, self._repository, step, message)
        assert made is not None  # it has the key of the unit
        return made

    def _expected(self, resource_id: ResourceId) -> int | None:
        """The number that a resource's newest version on main must have; None where it can't be what it builds on."""
        made = self._newest.get(resource_id)
        return made.main if made is not None else _number(self._then.newest(resource_id))

    def _obstacles(self, step: Step, message: Message, before: Numbers) -> list[Obstacle]:
        if message.interaction == "purge":
            names = ", ".join(f"{one.resource_id}/_history/{one.version_id}" for one in message.purged)
            return [Obstacle(f"it purged {names}: what main has of that has to be purged there")]
        purged = {one.resource_id for one in message.purged}
        own = {
            (change.resource_id, int(change.version_id)): (before[change.resource_id] or 0) + 1
            for change in message.changes
        }
        found = []
        for change, resource in read_files(self._repository, step, message):
            text = (
                "its content was purged" if change.resource_id in purged else self._in_the_way(change, before)
            )
            if text is None and resource is not None:
                text = self._astray(resource, own)
            if text is not None:
                base = _number(self._then.newest(change.resource_id))
                found.append(Obstacle(text, change, base, self._main.snapshot.newest(change.resource_id)))
        return found

    def _in_the_way(self, change: Change, before: Numbers) -> str | None:
        resource_id = change.resource_id
        expected = before[resource_id]
        if expected is None:
            made = self._newest[resource_id]
            return f"it builds on what commit {made.commit} made of it, which main doesn't have"
        if expected == self._main.number(resource_id):
            return None
        newest = self._main.snapshot.newest(resource_id)
        if newest is None or not self._main.is_as_seen(resource_id):
            return "a commit that diverged before changes it, too"
        commit, what = newest.commit, "deleted" if newest.deleted else "made"
        return (
            f"main is at version {newest.version_id}, {what} by {commit.author.name} on"
            f" {format_instant(newest.last_updated)} ({commit.interaction} {commit.id})"
        )

    def _astray(self, resource: Resource, own: dict[tuple[ResourceId, int], int]) -> str | None:
        """The first reference to what this branch has made and main doesn't have, or has under another number."""
        for _, text in references(resource):
            type, _, rest = text.partition("/")
            id, _, version = rest.partition("/_history/")
            target, number = ResourceId(type, id), parse_version_id(version)
            if number is not None:
                if (there := self._number_on_main(target, number, own)) != number:
                    known = f"is version {there} on main" if there else "main doesn't have"
                    return f"it refers to {text}, which {known}"
            elif self._is_missing(target):
                return f"it refers to {text}, which main doesn't have"
        return None

    def _number_on_main(
        self, target: ResourceId, number: VersionId, own: dict[tuple[ResourceId, int], int]
    ) -> int | None:
        if (target, number) in own:
            return own[target, number]
        made = self._made.get((target, number))
        return int(number) if made is None else made.main

    def _is_missing(self, target: ResourceId) -> bool:
        """Whether main lacks a resource that this branch has."""
        made = self._newest.get(target)
        if made is None or made.main is not None or made.blob is None:
            return False
        newest = self._main.snapshot.newest(target)
        return newest is None or newest.deleted
