"""A checker in the manner of Jepsen: whether what clients saw of each resource fits one order of its versions.

A resource is a register whose writes are numbered. Given the versions that the record holds in the end, every operation
says something about the instants at which they were made:

    a write that made version v             invoked <= t(v) <= completed
    a read that saw version v               t(v) <= completed and invoked <= t(v + 1)
    If-Match n, refused                     invoked <= t(n) or t(n + 1) <= completed
    and always                              t(1) <= t(2) <= …

The record is linearizable exactly if there are such instants. All lower bounds are known but those that a refusal may
give; one is forced by t(n + 1) being too late already. So raising the instants as far as they must be, and no
further, finds the earliest solution, or a version that would have to be made after it was seen.

Herlihy, Wing: Linearizability. https://doi.org/10.1145/78969.78972
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client asked for, and what it knows about the outcome.

    `ok`: done; `fail`: an If-Match that was refused; `unknown`: perhaps done, at any time after `invoked`. What surely
    has not happened and says nothing about the state isn't recorded at all.
    """

    kind: Literal["read", "write"]
    resource: str
    invoked: int
    completed: int
    """Of one clock that all clients share."""
    outcome: Literal["ok", "fail", "unknown"]
    value: str | None = None
    """What was written, different for each write, or read; None where nothing was there."""
    version: int | None = None
    """The version that was made or read; 0 where nothing was there, None where a writer isn't told."""
    if_match: int | None = None


def faults(operations: Iterable[Operation], record: Mapping[str, Sequence[str]]) -> list[str]:
    """Everything that no order explains; `record` holds the values of all versions of each resource, from version 1."""
    by_resource: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_resource[operation.resource].append(operation)
    return [
        f"{resource}: {fault}"
        for resource in sorted({*by_resource, *record})
        for fault in _register(by_resource[resource], record.get(resource, ()))
    ]


def _register(operations: list[Operation], values: Sequence[str]) -> list[str]:
    """The faults of one resource."""
    found = [fault for operation in operations for fault in _content(operation, values)]
    writers = {operation.value: operation for operation in operations if operation.kind == "write"}
    for version, value in enumerate(values, 1):
        if value not in writers:
            found.append(f"nobody wrote version {version}, `{value}`")
        elif values.index(value) != version - 1:
            found.append(f"version {version} is the write `{value}` a second time")
    # Times mean something only for what is there.
    return found or _order(operations, values)


def _content(operation: Operation, values: Sequence[str]) -> list[str]:
    """What an operation says about the record, times aside."""
    version = _version(operation, values)
    if operation.outcome == "ok" and (
        version is None or version > len(values) or _value(values, version) != operation.value
    ):
        return [f"the record lacks {operation}"]
    if operation.kind == "read" or version is None:
        return []
    if operation.outcome == "fail":
        return [f"version {version} was refused: {operation}"]
    if operation.if_match is not None and operation.if_match != version - 1:
        return [f"version {version} does not follow version {operation.if_match}: {operation}"]
    return []


def _version(operation: Operation, values: Sequence[str]) -> int | None:
    """The version that was made or read, as the client or else the record says; None where there is none."""
    if operation.version is not None:
        return operation.version
    return values.index(operation.value) + 1 if operation.value in values else None


def _value(values: Sequence[str], version: int) -> str | None:
    return values[version - 1] if 0 < version <= len(values) else None


def _order(operations: list[Operation], values: Sequence[str]) -> list[str]:
    """Whether the versions can have been made at instants that fit all operations."""
    last = len(values)
    # t(0) is the beginning and t(last + 1) never comes.
    earliest = [-math.inf] + [-math.inf] * last + [math.inf]
    latest = [math.inf] * (last + 2)
    refused = []
    for operation in operations:
        version = _version(operation, values)
        if operation.kind == "write" and operation.outcome == "fail":
            if operation.if_match is not None and 0 < operation.if_match <= last:
                refused.append(operation)
        elif operation.kind == "write" and version is not None:
            earliest[version] = max(earliest[version], operation.invoked)
            if operation.outcome == "ok":
                latest[version] = min(latest[version], operation.completed)
        elif operation.kind == "read" and operation.outcome == "ok" and version is not None:
            earliest[version + 1] = max(earliest[version + 1], operation.invoked)
            latest[version] = min(latest[version], operation.completed)
    _raise(earliest, refused)
    return [
        f"version {version} was seen or confirmed at {latest[version]:.0f}, but can't have been made before {earliest[version]:.0f}"
        for version in range(1, last + 1)
        if earliest[version] > latest[version]
    ]


def _raise(earliest: list[float], refused: list[Operation]) -> None:
    """Raise the instants until they increase and every refusal fits."""
    changed = True
    while changed:
        changed = False
        for version in range(1, len(earliest)):
            earliest[version] = max(earliest[version], earliest[version - 1])
        for operation in refused:
            expected = operation.if_match
            assert expected is not None
            if earliest[expected + 1] > operation.completed and earliest[expected] < operation.invoked:
                # The next version came later than the refusal, so the expected one was not there when it began.
                earliest[expected] = operation.invoked
                changed = True
