"""A Store, or the past of one, as one principal sees it: the same questions, within an access, and writes in its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from gitstore.access import FULL_ACCESS, Access
from gitstore.canonicals import Canonicals
from gitstore.errors import StoreError
from gitstore.interactions import Ask, Interaction, Outcome, Unit
from gitstore.past import Past
from gitstore.replication import Replica
from gitstore.search.parameters import Parameter
from gitstore.snapshot import Noted, Snapshot
from gitstore.store import Store
from gitstore.version import Author, Commit, Idempotency


class View:
    """What the methods mean stands in Store. Whatever may not be seen is as if it weren't there."""

    def __init__(
        self,
        store: Store | Past,
        access: Access = FULL_ACCESS,
        agent: str | None = None,
        noted: Noted | None = None,
    ) -> None:
        """`agent` is what the commits say about how the author came in; `noted` is told each body that is read, or written."""
        self.access = access
        self.wrote = False
        self._store = store
        self._agent = agent
        self._noted = noted

    @property
    def canonicals(self) -> Canonicals:
        return self._store.canonicals

    def snapshot(self, sequence: int | None = None) -> Snapshot:
        return self._noting(self._store.snapshot(sequence, access=self.access))

    def snapshot_before(self, instant: int) -> Snapshot:
        return self._noting(self._store.snapshot_before(instant, access=self.access))

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        with self._store.reading(access=self.access) as snapshot:
            yield self._noting(snapshot)

    def _noting(self, snapshot: Snapshot) -> Snapshot:
        snapshot.noted = self._noted
        return snapshot

    def past(self, commit: Commit, patience: float) -> View:
        """The record as a commit left it, to the same principal: what he saw then, and sees now. Not of a past itself."""
        assert isinstance(self._store, Store)
        return View(self._store.past(commit, patience), self.access, self._agent, self._noted)

    def search_parameters(self, type: str) -> Mapping[str, Parameter]:
        return self._store.search_parameters(type)

    def commit(
        self,
        interactions: Sequence[Interaction],
        author: Author,
        *,
        request_id: str | None = None,
        message: str | None = None,
        interaction: str | None = None,
        idempotency: Idempotency | None = None,
    ) -> list[Outcome]:
        outcomes = self._store.commit(
            [self._asking(each) for each in interactions],
            author,
            request_id=request_id,
            message=message,
            interaction=interaction,
            idempotency=idempotency,
            agent=self._agent,
            access=self.access,
        )
        self._note_written(outcomes)
        return outcomes

    def _asking(self, interaction: Interaction) -> Interaction:
        """What a transaction reads is noted, too."""
        if not isinstance(interaction, Ask) or self._noted is None:
            return interaction
        question = interaction.question
        return Ask(lambda snapshot: question(self._noting(snapshot)))

    def _note_written(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self.wrote = self.wrote or outcome.changed
            if (
                self._noted is not None
                and outcome.changed
                and outcome.version
                and not outcome.version.deleted
            ):
                self._noted(outcome.version, self._store.body(outcome.version))

    def commit_each(self, units: Iterable[Unit]) -> list[list[Outcome] | StoreError]:
        results = self._store.commit_each(
            replace(unit, access=self.access, agent=self._agent) for unit in units
        )
        for result in results:
            if not isinstance(result, StoreError):
                self._note_written(result)
        return results

    def replicate(self, replicas: Sequence[Replica]) -> list[Outcome]:
        outcomes = self._store.replicate(replicas)
        self._note_written(outcomes)
        return outcomes
