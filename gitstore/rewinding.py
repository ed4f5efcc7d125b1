"""Making the indexes of past states when they are asked for, one at a time, beside those who wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gitstore.errors import Preparing, StorageFailed, Unavailable
from gitstore.fhir import json
from gitstore.git.repository import Repository
from gitstore.indexing import stored_parameters
from gitstore.search import index, versions
from gitstore.search.extract import extract
from gitstore.search.index import Connection, Index
from gitstore.search.parameters import Registry
from gitstore.search.rows import Rows
from gitstore.search.states import Draft, States
from gitstore.version import Commit

_PIECE = 500
"""Resources between two reports of how far it is."""
_COPYING = 0.3
"""The part of the work that copying the index is taken for."""
_REGISTRIES = 8
_TURNS = 5
"""How often a state is made that is thrown away again before it could be opened."""

Report = Callable[[float], None]


@dataclass
class _Task:
    """One state that is being made. `part` is how much is done; None where another process does it, or did not begin."""

    commit: Commit
    done: threading.Event = field(default_factory=threading.Event)
    part: float | None = None
    error: Exception | None = None


class Rewinding:
    """The past states of one store. Any thread may call; one thread of ours makes what is missing."""

    def __init__(self, repository: Repository, states: States) -> None:
        self.states = states
        self._repository = repository
        self._lock = threading.Lock()
        self._task: _Task | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._registries: dict[tuple[int, str | None], Registry] = {}

    def registry(self, search_index: Index, commit: Commit) -> Registry:
        """The search parameters of a state, whether or not it has been made."""
        now = search_index.reader()
        # They change with the SearchParameters of the record, and with nothing else of it.
        key = index.generation(now), versions.last_change(now, "SearchParameter", commit.sequence)
        found = self._registries.get(key)
        if found is None:
            found = search_index.registry_with(stored_parameters(self._repository, now, commit.sequence))
            if len(self._registries) >= _REGISTRIES:
                self._registries.clear()
            self._registries[key] = found
        return found

    def close(self) -> None:
        """End what is under way; what is made so far is of no use."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """Wait until nothing is being made."""
        if self._thread is not None:
            self._thread.join()

    def open(self, commit: Commit, patience: float | None) -> Connection:
        """The index as a commit left it, for the caller to close. Waits so many seconds until it is there; None: as long as it takes.

        Raises Preparing when they are over, and whatever kept the last attempt from its end.
        """
        deadline = None if patience is None else time.monotonic() + patience
        for _ in range(_TURNS):
            found = self.states.open(commit.id)
            if found is not None:
                return found
            self._wait(commit, deadline)
        raise StorageFailed(
            "The index of this state is thrown away before it can be used: fhir.asOfCache is too small."
        )

    def _wait(self, commit: Commit, deadline: float | None) -> None:
        """Until the state has been made, as it seems."""
        while True:
            task = self._begin(commit)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not task.done.wait(left):
                raise Preparing(task.part if task.commit == commit else None)
            if task.commit == commit:
                self._end(task)
                return

    def _begin(self, commit: Commit) -> _Task:
        """The task that is under way, be it of another commit, or a new one. One that failed is told of once."""
        with self._lock:
            task = self._task
            if task is None or (task.done.is_set() and (task.commit != commit or task.error is None)):
                if self._stopped.is_set():
                    raise Unavailable("The record is being closed.")
                task = self._task = _Task(commit)
                self._thread = threading.Thread(target=self._run, args=(task,), daemon=True)
                self._thread.start()
            return task

    def _end(self, task: _Task) -> None:
        with self._lock:
            if self._task is task:
                self._task = None
        if task.error is not None:
            raise task.error

    def _run(self, task: _Task) -> None:
        try:
            with self.states.alone(self._stopped):
                found = self.states.open(task.commit.id)
                if found is not None:
                    found.close()  # another process has made it meanwhile
                else:
                    self._make(task)
        except Exception as error:  # noqa: BLE001  # raised again in the threads that wait
            task.error = error
        finally:
            task.done.set()

    def _make(self, task: _Task) -> None:
        def report(part: float) -> None:
            task.part = part
            if self._stopped.is_set():
                raise Unavailable("The record is being closed.")

        with self.states.drafting(task.commit) as draft:
            stored = stored_parameters(self._repository, draft.now, task.commit.sequence)
            if draft.is_near(stored):
                with draft.near(stored, _share(report, 0.0, _COPYING)) as (registry, wanted):
                    self._put(draft, registry, wanted, _share(report, _COPYING, 1.0))
            else:
                with draft.anew(stored) as (registry, wanted):
                    self._put(draft, registry, wanted, report)

    def _put(
        self, draft: Draft, registry: Registry, wanted: list[tuple[int, str | None]], report: Report
    ) -> None:
        for number, (key, blob) in enumerate(wanted):
            if number % _PIECE == 0:
                report(number / len(wanted))
            draft.renew(key, None if blob is None else self._rows(registry, blob))

    def _rows(self, registry: Registry, blob: str) -> Rows:
        # Not by way of the memory for blobs: this would push out what is read.
        return extract(registry, json.loads_trusted(self._repository.object(blob)))


def _share(report: Report, begin: float, end: float) -> Report:
    """Reports a part of the work as that of the whole which lies between these two."""
    return lambda part: report(begin + part * (end - begin))
