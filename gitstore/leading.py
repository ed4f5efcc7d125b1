"""What the writing thread does with a group of units: the lock, all that is to be there before, and one publication."""

from __future__ import annotations

import time
from collections.abc import Callable

from gitstore.adopting import Adopting
from gitstore.cluster.cluster import Cluster
from gitstore.errors import ForeignCommit, Outdated, StoreError
from gitstore.git.pack import Pack
from gitstore.git.writer import Writer
from gitstore.indexing import Indexing
from gitstore.maintenance import Maintenance
from gitstore.queue import Pending
from gitstore.search.index import Connection
from gitstore.settings import Settings
from gitstore.version import Commit
from gitstore.vitals import Vitals
from gitstore.writing import Writing

_TURN = 0.02
"""Seconds for which units of one caller may be put into a group while another process waits for the lock; where the disk is
slower than that, as long as the last publication took: else those who write much would do little but publish."""


class Leading:
    """Of one store that can be written. Only its writing thread calls."""

    def __init__(
        self,
        writer: Writer,
        indexing: Indexing,
        adopting: Adopting,
        writing: Writing,
        maintenance: Maintenance,
        cluster: Cluster | None,
        vitals: Vitals,
        settings: Settings,
    ) -> None:
        self._writer = writer
        self._indexing = indexing
        self._adopting = adopting
        self._writing = writing
        self._maintenance = maintenance
        self._cluster = cluster
        self._vitals = vitals
        self._settings = settings
        self._turn = _TURN

    def lead(self, take: Callable[[], list[Pending]]) -> list[Pending]:
        """Write what `take` gives, as for a WriteQueue."""
        group: list[Pending] = []
        rest: list[Pending] = []
        try:
            with self._indexing.locked():
                group = take()
                self._write(group, rest)
            self._vitals.wrote(None)
        except Exception as error:  # noqa: BLE001  # raised again in the callers' threads, by the store
            self._vitals.wrote(error)
            group = group or take()
            for pending in group[: len(group) - len(rest)]:
                pending.error = pending.error or error
            if isinstance(error, Outdated):
                self._replace_outdated()
        if self._cluster is not None:
            self._cluster.published()
        for pending in group[: len(group) - len(rest)]:
            pending.finish()
        self._maintenance.published()
        return rest

    def _replace_outdated(self) -> None:
        """A purge that died has been finished: its readers, and the next group, need an index of what is left."""
        try:
            self._indexing.replace_outdated()
        except StoreError as error:
            self._vitals.wrote(error)

    def _write(self, group: list[Pending], rest: list[Pending]) -> None:
        """Write a group of units: one transaction of the index, one pack, one move of main.

        `rest` gets those that another process's turn comes before.
        """
        if self._cluster is not None:
            self._cluster.check_writable()
        self._writer.check_space(2 * sum(pending.prepared.size for pending in group))
        try:
            self._indexing.catch_up()
        except ForeignCommit as error:
            if self._settings.foreign_commits != "adopt" or error.problems:
                raise
            self._adopting.take_over()

        def units(head: Commit, connection: Connection, pack: Pack) -> Commit:
            begun = time.monotonic()
            for number, pending in enumerate(group):
                is_late = pending.gives_way and time.monotonic() - begun > self._turn
                if number and is_late and self._writer.is_wanted():
                    rest.extend(group[number:])
                    break
                head = self._writing.unit(pending, head, connection, pack)
            planned.append(time.monotonic())
            return head

        planned: list[float] = []
        self._writing.publish(units)
        self._turn = max(_TURN, time.monotonic() - planned[-1])
