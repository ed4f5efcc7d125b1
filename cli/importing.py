"""Giving what is to be imported to the store, and keeping account of it."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeAlias

from cli.documents import Refusal
from cli.units import Item
from gitstore import (
    Ask,
    Delete,
    Interaction,
    NotConfirmed,
    NotFound,
    Outcome,
    RepositoryDamaged,
    RepositoryRefused,
    Store,
    StoreError,
    Unavailable,
    Write,
)
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId
from gitstore.fhir.stored import template

_GROUP_UNITS = 500
_GROUP_BYTES = 16 * 1024**2
"""How much goes to the store at a time: enough for its groups, little enough to be interrupted soon."""

Fatal: TypeAlias = Unavailable | NotConfirmed | RepositoryDamaged | RepositoryRefused
"""After these no other unit can be written either."""

OUTCOMES = ("created", "updated", "deleted", "unchanged", "already imported")
"""What can become of a resource, other than being refused."""


@dataclass(slots=True)
class Report:
    """What became of an import: resources by outcome, and every refusal."""

    counts: Counter[str] = field(default_factory=Counter)
    refused: list[Refusal] = field(default_factory=list)
    interrupted: bool = False
    stopped: str | None = None
    """Why the import ended early, if it did: the store can't go on."""


class Refused(Exception):
    """Something was refused, and the import is to stop at the first refusal."""


class Importer:
    """Gives units to the store in groups and keeps the report. With `strict` one by one, to stop at the first refusal."""

    def __init__(self, store: Store, report: Report, *, strict: bool = False) -> None:
        self._store = store
        self._report = report
        self._strict = strict
        self.again: Callable[[Sequence[Item]], Iterable[Item]] = iter
        """Prepares units once more ahead of time, where that is done."""

        self._group: list[Item | Refusal] = []
        self._bytes = 0
        self._requests: set[str | None] = set()
        self._unmatched: list[tuple[Item, StoreError]] = []

    def add(self, planned: Item | Refusal) -> None:
        """Take what comes next. Raises Refused, and what keeps the store from going on."""
        if isinstance(planned, Refusal):
            if self._strict:
                self.flush()
                self._refuse(planned)
            self._group.append(planned)
            return
        if planned.unit.request_id and planned.unit.request_id in self._requests:
            self.flush()  # the same again: what has become of the first decides
        self._group.append(planned)
        self._requests.add(planned.unit.request_id)
        self._bytes += planned.size
        if self._strict or len(self._group) >= _GROUP_UNITS or self._bytes >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has been taken."""
        group, self._group, self._bytes = self._group, [], 0
        self._requests.clear()
        self._write(group)

    def finish(self) -> None:
        """Write the rest, and then what referred to something that came after it, as long as that helps."""
        self.flush()
        while self._unmatched:
            again, self._unmatched = self._unmatched, []
            for item in self.again([item for item, _ in again]):
                self.add(item)
            self.flush()
            if len(self._unmatched) == len(again):
                break
        for item, error in self._unmatched:
            self._refuse(Refusal.of(item.place, error))

    def _write(self, group: list[Item | Refusal]) -> None:
        rest = list(self._not_yet_imported(group))
        units = [each.ahead or each.unit for each in rest if isinstance(each, Item)]
        fatal: StoreError | None = None
        with uninterrupted():
            results = iter(self._store.commit_in_order(units) if units else ())
            for each in rest:
                if isinstance(each, Refusal):
                    self._refuse(each)
                elif isinstance(result := next(results), Fatal):
                    fatal = fatal or result
                else:
                    self._note(each, result)
        if fatal is not None:
            raise fatal

    def _note(self, item: Item, result: list[Outcome] | StoreError) -> None:
        """What became of a unit."""
        if not isinstance(result, StoreError):
            self._count(item, result)
        elif all(issue.code == "not-found" for issue in result.issues):
            self._unmatched.append((item, result))
        else:
            self._refuse(Refusal.of(item.place, result))

    def _not_yet_imported(self, group: list[Item | Refusal]) -> Iterator[Item | Refusal]:
        """The items but those that an earlier import, or earlier input of this one, has brought in."""
        snapshot = self._store.snapshot()
        for item in group:
            if (
                isinstance(item, Item)
                and item.unit.request_id
                and snapshot.commit_of_request(item.unit.request_id)
            ):
                self._report.counts["already imported"] += item.writes
            else:
                yield item

    def _count(self, item: Item, outcomes: list[Outcome]) -> None:
        for kind, outcome in zip(item.kinds, outcomes, strict=True):
            if kind is not Ask:
                self._report.counts[_label(kind, outcome)] += 1

    def _refuse(self, refusal: Refusal) -> None:
        self._report.refused.append(refusal)
        if self._strict:
            raise Refused


def _label(kind: type[Interaction], outcome: Outcome) -> str:
    if not outcome.changed or outcome.version is None:
        return "unchanged"
    if kind is Delete:
        return "deleted"
    return "created" if outcome.version.created else "updated"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is done: a group is written and counted, or not begun."""
    caught: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


class Rehearsal:
    """Counts what an import would do, and writes nothing: --dry-run."""

    def __init__(self, store: Store, report: Report, *, strict: bool = False) -> None:
        self._store = store
        self._snapshot = store.snapshot()
        self._report = report
        self._strict = strict
        self._taken: set[str] = set()
        self._present: dict[ResourceId, bytes | None] = {}
        """The stored form, as version 0, of what the import has touched so far; None for what it would delete."""

    def add(self, planned: Item | Refusal) -> None:
        """Take what comes next. Raises Refused."""
        if isinstance(planned, Refusal):
            self._refuse(planned)
            return
        request_id = planned.unit.request_id
        if request_id in self._taken or (request_id and self._snapshot.commit_of_request(request_id)):
            self._report.counts["already imported"] += planned.writes
            return
        try:
            prepared = self._store.rehearse(planned.unit)
        except StoreError as error:
            self._refuse(Refusal.of(planned.place, error))
            return
        if request_id is not None:
            self._taken.add(request_id)
        for write in prepared.writes:
            self._report.counts[self._foresee(write)] += 1
        if prepared.left:
            self._report.counts["unchanged"] += len(prepared.left)

    def _refuse(self, refusal: Refusal) -> None:
        self._report.refused.append(refusal)
        if self._strict:
            raise Refused

    def finish(self) -> None:
        """Nothing is left over: references aren't looked up."""

    def _foresee(self, write: Write) -> str:
        if write.verb == "POST":
            return "created"
        before = self._now(write.resource_id)
        if write.template is None:
            self._present[write.resource_id] = None
            return "unchanged" if before is None else "deleted"
        now = self._present[write.resource_id] = write.template.fill(0, 0)
        if before is None:
            return "created"
        return "unchanged" if before == now and write.skip_unchanged else "updated"

    def _now(self, resource_id: ResourceId) -> bytes | None:
        if resource_id in self._present:
            return self._present[resource_id]
        try:
            body = self._snapshot.body(self._snapshot.read(resource_id))
        except NotFound:
            return None
        return template(resource_id, json.loads_trusted(body)).fill(0, 0)
