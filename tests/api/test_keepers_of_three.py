"""Three nodes and their keepers, in whatever order things happen: never two that take writes, and one when all is quiet."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gitstore import HubUnreachable
from tests.api.keepers import ALL, KEY, LOOK, TTL, FakeEtcd, Node, Time


class Three(RuleBasedStateMachine):
    """Three nodes and one etcd; time, pauses and losses as they come. All clocks run alike, and tell different times."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.true = Time()
        self.etcd = FakeEtcd(self.true)
        self.nodes = [
            Node(self.etcd, self.true, role, Path(self._folder.name) / name, name)
            for name, role in (("one", "primary"), ("two", "replica"), ("three", "replica"))
        ]
        for node in self.nodes:
            node.step()
        self.due = [self.true() + LOOK for _ in self.nodes]
        self.held_up = [False] * 3
        """Those whose keeper had no turn when it was due; they may take writes meanwhile."""

    def teardown(self) -> None:
        for node in self.nodes:
            node.files.close()
        self._folder.cleanup()

    numbers = st.integers(0, 2)

    def _step(self, number: int) -> None:
        self.due[number] = math.inf
        seconds = self.nodes[number].step()
        self.due[number] = self.true() + seconds
        self.held_up[number] = False

    @rule(seconds=st.floats(0.01, 2 * TTL))
    def time_passes(self, seconds: float) -> None:
        """Each keeper that is on time has its turns."""
        end = self.true() + seconds
        while (number := self._next(end)) is not None:
            self.true.now = max(self.true.now, self.due[number])
            self._step(number)
            self.at_most_one_takes_writes()
            self.at_most_one_that_is_on_time_takes_writes()
        self.true.now = max(self.true.now, end)

    def _next(self, end: float) -> int | None:
        on_time = [number for number in range(3) if not self.held_up[number] and self.due[number] <= end]
        return min(on_time, key=lambda number: self.due[number], default=None)

    @rule(number=numbers)
    def a_keeper_is_held_up(self, number: int) -> None:
        self.held_up[number] = True

    @rule(number=numbers)
    def a_keeper_has_its_turn(self, number: int) -> None:
        self._step(number)

    @rule(number=numbers, cut=st.booleans(), loses=st.frozensets(st.sampled_from(sorted(ALL))))
    def the_way_to_etcd_changes(self, number: int, cut: bool, loses: frozenset[str]) -> None:
        self.nodes[number].way.is_cut = cut
        self.nodes[number].way.loses = loses

    @rule(number=numbers, seconds=st.floats(0.0, TTL / 20))
    def the_way_to_etcd_takes_longer(self, number: int, seconds: float) -> None:
        """Twice this for a call, which may take a tenth of the lease."""
        self.nodes[number].way.takes = seconds

    @rule(number=numbers, is_there=st.booleans())
    def the_hub_goes_or_comes(self, number: int, is_there: bool) -> None:
        self.nodes[number].cluster.refusal = None if is_there else HubUnreachable("no hub")

    @precondition(lambda self: any(node.later.waiting for node in self.nodes))
    @rule(number=numbers)
    def a_promotion_ends(self, number: int) -> None:
        self.nodes[number].later.do()

    @rule(number=numbers)
    def a_process_is_killed_and_another_begins(self, number: int) -> None:
        self.nodes[number].die()
        self.nodes[number].start()
        self._step(number)

    @rule(number=numbers)
    def the_hub_fences(self, number: int) -> None:
        self.nodes[number].cluster.role = "replica"

    @invariant()
    def at_most_one_takes_writes(self) -> None:
        """By what the workers can read, at this very moment, however long any keeper has been held up."""
        writing = [node.url for node in self.nodes if node.writes and self.true() < node.trusts]
        assert len(writing) <= 1, writing

    @invariant()
    def at_most_one_that_is_on_time_takes_writes(self) -> None:
        """By its suspension alone, as long as no keeper is held up."""
        if all(node.way.takes == 0 for node in self.nodes):
            on_time = [
                node
                for node, due, is_held_up in zip(self.nodes, self.due, self.held_up, strict=True)
                if not is_held_up and self.true() <= due
            ]
            assert sum(node.writes for node in on_time) <= 1

    @rule()
    def all_is_quiet_and_one_takes_writes(self) -> None:
        for node in self.nodes:
            node.way.is_cut, node.way.loses, node.way.takes = False, frozenset(), 0.0
            node.cluster.refusal = None
        self.held_up = [False] * 3
        end = self.true() + 6 * TTL
        while self.true() < end:
            self.time_passes(LOOK / 2)
            for node in self.nodes:
                node.later.do()
        primaries = [node for node in self.nodes if node.writes]
        assert len(primaries) == 1
        assert primaries[0].url == self.etcd.get(KEY).value
        assert {node.points for node in self.nodes} == {None, f"{primaries[0].url}\n"}


TestThree = Three.TestCase
TestThree.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
