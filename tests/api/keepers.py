"""Nodes with a keeper, an etcd and a hub for tests, all of them made up; time passes when it is told to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from api.etcd import EtcdRefused, EtcdUnreachable, Held, Lease
from api.keeper import KEEPER, Keeper, key_of
from api.lease_files import Files
from gitstore import Author, Conflict, HubUnreachable

TTL = 6.0
LOOK = TTL / 3
KEY = key_of("c0ffee")


class Time:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeEtcd:
    """One etcd for all nodes: leases that end by its clock, and keys that go with them."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._ids = itertools.count(100)
        self._ends: dict[int, tuple[float, float]] = {}
        self._keys: dict[str, Held] = {}

    def alive(self, lease: int) -> bool:
        return lease in self._ends and self._time() < self._ends[lease][0]

    def grant(self, ttl: int) -> Lease:
        lease = Lease(next(self._ids), float(ttl))
        self._ends[lease.id] = (self._time() + ttl, float(ttl))
        return lease

    def keep_alive(self, lease: int) -> float | None:
        if not self.alive(lease):
            return None
        _, ttl = self._ends[lease]
        self._ends[lease] = (self._time() + ttl, ttl)
        return ttl

    def revoke(self, lease: int) -> None:
        self._ends.pop(lease, None)

    def get(self, key: str) -> Held | None:
        held = self._keys.get(key)
        return held if held is not None and self.alive(held.lease) else None

    def create(self, key: str, value: str, lease: int) -> Held:
        if (held := self.get(key)) is not None:
            return held
        if not self.alive(lease):
            raise EtcdRefused("requested lease not found", 5)
        self._keys[key] = Held(value, lease)
        return self._keys[key]


ALL = frozenset({"grant", "keep_alive", "revoke", "get", "create"})


class Way:
    """A node's way to etcd. Questions or answers get lost on it, and it takes its time."""

    def __init__(self, etcd: FakeEtcd, time: Time) -> None:
        self._etcd = etcd
        self._time = time
        self.is_cut = False
        self.loses: frozenset[str] = frozenset()
        """The questions whose answers get lost."""
        self.takes = 0.0
        """Seconds that a question is under way, and its answer."""
        self.on_asked: Callable[[], object] = int

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.on_asked()
            self._time.now += self.takes
            if self.is_cut:
                raise EtcdUnreachable("etcd does not answer")
            answer = getattr(self._etcd, name)(*arguments)
            self._time.now += self.takes
            if name in self.loses:
                raise EtcdUnreachable("etcd does not answer")
            return answer

        return call


class FakeHub:
    """Takes a promotion from whoever knows the one before it."""

    def __init__(self) -> None:
        self.promotions = 0


class FakeCluster:
    """A node's role and suspension, and what was said of them."""

    def __init__(self, role: Literal["primary", "replica"], hub: FakeHub | None = None) -> None:
        self.role = role
        self.hub = hub or FakeHub()
        self.suspended: str | None = None
        self.told: list[str] = []
        self.refusal: Exception | None = None

    def promote(self, author: Author, words: str) -> str:
        assert author == KEEPER
        assert words
        if self.refusal is not None:
            raise self.refusal
        self.hub.promotions += 1
        self.role = "primary"
        return "commit"

    def step_down(self, why: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.role = "replica"
        self.told.append(why)

    def suspend(self, why: str) -> None:
        self.suspended = why

    def resume(self) -> None:
        self.suspended = None


class Later:
    """Work for another thread, done when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], object], Future[Any]]] = []

    def __call__(self, work: Callable[[], object]) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((work, future))
        return future

    def do(self) -> None:
        for work, future in self.waiting:
            try:
                future.set_result(work())
            except (Conflict, HubUnreachable, ZeroDivisionError) as error:
                future.set_exception(error)
        self.waiting = []


class Node:
    """A node with one process, whose keeper can be asked for a step."""

    def __init__(
        self, etcd: FakeEtcd, time: Time, role: Literal["primary", "replica"], folder: Path, name: str
    ) -> None:
        self.time = time
        self.folder = folder
        self.url = f"http://{name}:8080"
        self.cluster = FakeCluster(role)
        self.way = Way(etcd, time)
        self.later = Later()
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self, ttl: float = TTL) -> None:
        self.files = Files(str(self.folder))
        self.keeper = Keeper(
            self.cluster,
            self.way,
            self.files,
            KEY,
            url=self.url,
            ttl=ttl,
            clock=self.time,
            spawn=self.later,
            chance=lambda: 0.5,
        )

    def die(self) -> None:
        """As kill -9 does it: the kernel lets go of the locks, and nothing else happens."""
        self.files.close()
        self.later.waiting = []

    def step(self) -> float:
        return self.keeper.step()

    def settle(self) -> None:
        """A step, the promotion that it began, and the step that sees what came of it."""
        self.step()
        self.later.do()
        self.step()

    @property
    def writes(self) -> bool:
        return self.cluster.role == "primary" and self.cluster.suspended is None

    @property
    def points(self) -> str | None:
        path = self.folder / "primary"
        return path.read_text() if path.exists() else None

    @property
    def trusts(self) -> float:
        """Until when it trusts its lease, as its workers can read it."""
        lease, until, *_ = (self.folder / "lease").read_text().split()
        return int(until) / 1e9 if int(lease) else -math.inf
