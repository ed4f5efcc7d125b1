"""Several nodes and a hub while networks break, machines die, sleep and disagree about the time: docs/scaling.md

The short runs are drawn from one seed. Longer, with others, and with another hub and number of workers than each has by itself:
`GIT_FHIR_LAB_SECONDS=600 GIT_FHIR_LAB_SEED=7 GIT_FHIR_LAB_HUB=ssh GIT_FHIR_LAB_WORKERS=2 pytest -s tests/test_lab.py -k nemesis`
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import cast

import cluster_clients as clients
import hubs
from cluster import HubKind, Lab, Node, lab
from cluster_clients import Client, Reign, Story, patient

SECONDS = float(os.environ.get("GIT_FHIR_LAB_SECONDS", "5"))
"""How long the nemesis is at work, in each of its tests."""
SEED = os.environ.get("GIT_FHIR_LAB_SEED", "1")
HUB = os.environ.get("GIT_FHIR_LAB_HUB")
WORKERS = os.environ.get("GIT_FHIR_LAB_WORKERS")
CLIENTS = 4
QUICK = {"fhir.pollInterval": "0.1", "fhir.hubTimeout": "2"}
SYNC = {**QUICK, "fhir.replication": "sync"}
AUTOMATIC = {**SYNC, "fhir.leaseTtl": "2"}


@contextmanager
def running(nodes: int, config: dict[str, str]) -> Iterator[Lab]:
    """A lab whose first node is the primary, and whose others are replicas."""
    with lab(nodes, config) as made:
        made.start(*made.nodes)
        yield made


@contextmanager
def tormentable(config: dict[str, str], hub: HubKind, workers: int, *, etcd: bool = False) -> Iterator[Lab]:
    """A lab of three nodes with such a hub and so many workers, unless the environment says otherwise."""
    kind = cast(HubKind, HUB or hub)
    with lab(3, config, etcd=etcd, slow=True, hub=kind, workers=int(WORKERS or workers)) as made:
        yield made


def put(lab: Lab, node: Node, value: str, id: str = "ada", **headers: str) -> int:
    """The version that was made."""
    answer = lab.wire(node).ask("PUT", f"Patient/{id}", patient(value, id), **headers)
    assert answer.status in (200, 201), answer.content
    return answer.version


def read(lab: Lab, node: Node, id: str = "ada", **headers: str) -> str:
    answer = lab.wire(node).ask("GET", f"Patient/{id}", **headers)
    assert answer.status == 200, answer.content
    return clients.value_of(answer.content)


def promote(lab: Lab, node: Node) -> None:
    done = lab.promote(node, "the primary is gone")
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for_role(lab: Lab, node: Node, role: str) -> None:
    hubs.wait_until(lambda: node.role == role, lambda: f"{node.name} is a {node.role}\n{lab.logs()}")


def test_a_replica_follows() -> None:
    """What the primary has written is read at the replica; with Min-Git-Commit at once, as it waits for that commit. A write there is 503."""
    with running(2, QUICK) as made:
        primary, replica = made.nodes
        wire = made.wire(primary)
        for number in range(10):
            answer = wire.ask("PUT", "Patient/ada", patient(f"v{number}", "ada"))
            commit = answer.headers["Git-Commit"]
            assert read(made, replica, Min_Git_Commit=commit) == f"v{number}"
        refused = made.wire(replica).ask("PUT", "Patient/ada", patient("refused", "ada"))

        assert refused.status == 503
        assert made.wait_until_alike() == commit
        assert made.faults() == []


def test_a_primary_that_is_stopped_brings_the_hub_what_it_has() -> None:
    """So a change of primaries that is planned loses nothing, in async either."""
    with lab(1, QUICK, slow=True) as made:
        [primary] = made.nodes
        made.start(primary)
        made.delay(0.1)
        for number in range(20):
            put(made, primary, f"v{number}")
        made.stop(primary)

        assert made.hub.head() == made.head(primary)
        assert len(clients.record_of(made)["Patient/ada"]) == 20


def test_a_replica_takes_over_when_the_primary_dies() -> None:
    """Writes go on at the replica that is promoted. The old primary comes back as one, is fenced by its first write, and follows."""
    with running(2, SYNC) as made:
        old, new = made.nodes
        put(made, old, "before")
        made.kill(old)
        promote(made, new)
        assert put(made, new, "after", If_Match='W/"1"') == 2

        made.partition(old, "hub")  # or it would learn of it before it is asked
        made.start(old)
        assert old.role == "primary"
        made.heal()
        answer = made.wire(old).ask("PUT", "Patient/ada", patient("fenced", "ada"))
        assert answer.status in (503, 504), answer.content
        wait_for_role(made, old, "replica")
        put(made, new, "and on")

        head = made.wait_until_alike()
        hubs.wait_until(lambda: read(made, old) == "and on", "it doesn't follow")
        assert clients.record_of(made) == {"Patient/ada": ["before", "after", "and on"]}
        assert made.faults() == []
        assert made.head(old) == head


def test_what_a_paused_primary_had_acknowledged_and_not_pushed_has_diverged() -> None:
    """In async that may happen. Nothing of it is on the record, all of it is kept: here, and on the hub."""
    with running(2, QUICK) as made:
        old, new = made.nodes
        assert put(made, old, "shared") == 1
        made.wait_until_alike()
        made.partition(old, "hub")
        lost = [(put(made, old, f"lost {number}"), f"lost {number}") for number in range(3)]
        made.pause(old)
        promote(made, new)
        assert put(made, new, "new", If_Match='W/"1"') == 2
        made.heal()
        made.resume(old)
        wait_for_role(made, old, "replica")
        made.wait_until_alike()

        expected = {("Patient/ada", version): {value} for version, value in lost}
        assert clients.diverged_of(old.git_dir) == expected
        hubs.wait_until(lambda: clients.diverged_of(made.hub.git_dir) == expected, "it isn't at the hub")
        assert made.diverged(old) == made.diverged(new) == {*expected}
        assert clients.record_of(made) == {"Patient/ada": ["shared", "new"]}
        assert read(made, old) == "new"
        assert made.faults() == []


def test_in_sync_a_paused_primary_has_acknowledged_nothing_that_is_lost() -> None:
    """504 while the hub can't be reached; after it has woken up, 503 for what waits. No reader has seen any of it."""
    with running(2, SYNC) as made, ThreadPoolExecutor(2) as pool:
        old, new = made.nodes
        assert put(made, old, "shared") == 1
        made.partition(old, "hub")
        unconfirmed = made.wire(old).ask("PUT", "Patient/ada", patient("unconfirmed", "ada"))
        assert unconfirmed.status == 504
        waiting = pool.submit(made.wire(old).ask, "PUT", "Patient/ada", patient("waits", "ada"))
        reading = pool.submit(made.wire(old).ask, "GET", "Patient/ada")
        made.pause(old)
        promote(made, new)
        assert put(made, new, "new", If_Match='W/"1"') == 2
        made.heal()
        made.resume(old)

        assert waiting.result().status in (503, 504)
        seen = reading.result()
        assert seen.status in (200, 503, 504)
        assert seen.status != 200 or clients.value_of(seen.content) in ("shared", "new")
        wait_for_role(made, old, "replica")
        made.wait_until_alike()
        assert clients.record_of(made) == {"Patient/ada": ["shared", "new"]}


def test_of_two_replicas_that_are_promoted_at_once_one_wins() -> None:
    """The other is refused, and follows; or it comes so much later that it takes over from the first."""
    with running(3, QUICK) as made, ThreadPoolExecutor(2) as pool:
        made.kill(made.nodes[0])
        rivals = made.nodes[1:]
        done = list(pool.map(made.promote, rivals))

        promoted = [one.stdout.split()[0] for one in done if one.returncode == 0]
        assert promoted, done
        [winner] = [
            node for node, one in zip(rivals, done, strict=True) if (made.hub.head() or "?") in one.stdout
        ]
        for loser in set(rivals) - {winner}:
            wait_for_role(made, loser, "replica")
        put(made, winner, "won")
        made.start(made.nodes[0])
        made.wait_until_alike()
        wait_for_role(made, made.nodes[0], "replica")


def test_with_etcd_a_replica_takes_over_by_itself() -> None:
    """When the lease of the primary runs out. What comes back follows, and passes writes on to the new primary."""
    with lab(2, AUTOMATIC, etcd=True) as made:
        made.start(*made.nodes)

        def is_written(value: str, *nodes: Node) -> bool:
            asked = [made.wire(node).ask("PUT", "Patient/ada", patient(value, "ada")) for node in nodes]
            return any(answer.status in (200, 201) for answer in asked)

        hubs.wait_until(lambda: is_written("before", *made.nodes), made.logs)
        old = made.primary()
        made.kill(old)
        [other] = [node for node in made.nodes if node is not old]
        hubs.wait_until(lambda: is_written("after", other), made.logs)
        made.start(old)
        wait_for_role(made, old, "replica")
        hubs.wait_until(lambda: is_written("passed on", old), made.logs)

        made.wait_until_alike()
        values = clients.record_of(made)["Patient/ada"]
        assert (values[0], values[-1]) == ("before", "passed on")
        assert made.primary() is other


class Nemesis:
    """Does to the lab what a seed draws; knows who was made primary, and when. With etcd it leaves that to the nodes."""

    def __init__(self, lab: Lab, story: Story, *, by_itself: bool) -> None:
        self._lab = lab
        self._story = story
        self._by_itself = by_itself
        self._chance = random.Random(SEED)
        self.reigns = [Reign(None if by_itself else lab.nodes[0].name, 0, 0)]
        self.done: Counter[str] = Counter()

    def torment(self, seconds: float) -> None:
        deeds = [self.cut_off, self.cut_one_way, self.heal, self.kill, self.pause, self.skew, self.delay]
        deeds.append(self.kill_worker)
        deeds.append(self.cut_off_etcd if self._by_itself else self.promote)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            deed = self._chance.choice(deeds)
            self.done[deed.__name__] += 1
            deed()
            self._story.wait(self._chance.randrange(10, 60), self._chance.uniform(0.2, 1.5))

    def _node(self) -> Node:
        """More often than not the one that was last made primary."""
        name = self.reigns[-1].node
        return next(
            (node for node in self._lab.nodes if node.name == name and self._chance.random() < 0.6),
            self._chance.choice(self._lab.nodes),
        )

    def cut_off(self) -> None:
        self._lab.partition(self._node(), "hub")

    def cut_one_way(self) -> None:
        ends: list[Node | str] = [self._node(), "hub"]
        self._chance.shuffle(ends)
        self._lab.partition(ends[0], ends[1], both=False)

    def heal(self) -> None:
        """Long enough, in a long run, that all find one another and go on: somebody has to be there to be harmed."""
        self._lab.heal()
        self._story.wait(30, min(SECONDS / 5, 10))

    def kill(self) -> None:
        node = self._node()
        if node.process is not None:
            self._lab.kill(node)
            self._perhaps_without(node)
            self._lab.start(node, wait=False)

    def kill_worker(self) -> None:
        node = self._node()
        if node.process is not None:
            self._lab.kill_worker(node, self._chance)

    def pause(self) -> None:
        node = self._node()
        self._lab.pause(node)
        self._perhaps_without(node)
        self._story.wait(30, 1)
        self._lab.resume(node)

    def _perhaps_without(self, node: Node) -> None:
        if self._chance.random() < 0.7:
            self._promote(self._chance.choice([other for other in self._lab.nodes if other is not node]))

    def cut_off_etcd(self) -> None:
        self._lab.partition(self._node(), "etcd")

    def promote(self) -> None:
        self._promote(self._chance.choice(self._lab.nodes))

    def _promote(self, node: Node) -> None:
        if self._by_itself:
            return
        begun = time.monotonic_ns()
        done = self._lab.promote(node, "the nemesis wants it")
        is_done = done.returncode == 0
        # A failure may be one of the answer alone. That this is the primary already isn't one.
        if is_done or "already" not in done.stderr:
            self.reigns.append(Reign(node.name if is_done else None, begun, time.monotonic_ns()))

    def skew(self) -> None:
        self._lab.skew(self._chance.choice(self._lab.nodes), self._chance.uniform(-600, 600))

    def delay(self) -> None:
        self._lab.delay(self._chance.choice([0, 0.005, 0.05]))

    def relent(self) -> None:
        """All is well again, and somebody is primary."""
        self._lab.heal()
        self._lab.wait_until_up(*self._lab.nodes)
        hubs.wait_until(
            self._has_one_primary, lambda: f"{[node.role for node in self._lab.nodes]}\n{self._lab.logs()}"
        )

    def _has_one_primary(self) -> bool:
        primaries = [node for node in self._lab.nodes if node.role == "primary"]
        if not primaries:
            self._promote(self._lab.nodes[0])
        return len(primaries) == 1


def tormented(made: Lab, *, by_itself: bool = False) -> tuple[Story, Nemesis]:
    """What clients have done while the nemesis was there, and for a while after it was gone."""
    made.start(*made.nodes)
    story, end = Story(), threading.Event()
    nemesis = Nemesis(made, story, by_itself=by_itself)
    crew = [Client(made, story, f"{SEED}-{number}", end) for number in range(CLIENTS)]
    for client in crew:
        client.start()
    try:
        nemesis.torment(SECONDS)
        nemesis.relent()
        story.wait(20, 10)
    finally:
        end.set()
        for client in crew:
            client.join()
    made.wait_until_alike()
    kinds = Counter((deed.kind, deed.if_match is not None, deed.outcome) for deed in story.deeds)
    print(f"{dict(nemesis.done)}, {len(nemesis.reigns)} reigns, {dict(kinds)}")
    assert story.surprises == []
    assert kinds["write", False, "ok"] > 20
    return story, nemesis


def test_in_sync_nothing_is_lost_whatever_the_nemesis_does() -> None:
    """Every acknowledged write is in the hub's record, at its version; no reader has seen what isn't; at the primary there is one order for all."""
    with tormentable(SYNC, "ssh", 1) as made:
        story, nemesis = tormented(made)

        record = clients.record_of(made)
        assert clients.sync_faults(story.deeds, record, nemesis.reigns) == []
        assert made.faults() == []


def test_with_etcd_nothing_is_lost_whatever_the_nemesis_does() -> None:
    """The same where the nodes themselves find a primary, also while some of them don't reach etcd."""
    with tormentable(AUTOMATIC, "http", 2, etcd=True) as made:
        story, nemesis = tormented(made, by_itself=True)

        record = clients.record_of(made)
        assert clients.sync_faults(story.deeds, record, nemesis.reigns) == []
        assert made.faults() == []


def test_in_async_what_is_lost_is_what_has_diverged_whatever_the_nemesis_does() -> None:
    """Every acknowledged write is in the hub's record at its version, or listed by `git fhir diverged`; none is both."""
    with tormentable(QUICK, "http", 1) as made:
        story, _ = tormented(made)

        record = clients.record_of(made)
        diverged = clients.diverged_of(*(node.git_dir for node in made.nodes))
        print(f"{sum(map(len, diverged.values()))} versions have diverged")
        assert clients.async_faults(story.deeds, record, diverged) == []
        hubs.wait_until(lambda: clients.diverged_of(made.hub.git_dir) == diverged, "it isn't at the hub")
        assert made.diverged(made.primary()) == {*diverged}
        assert made.faults() == []
