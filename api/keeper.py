"""Holds this node's lease in etcd, and makes a replica the primary when nobody holds it.

Nothing here has to be right for the record to be safe: of two primaries the hub takes the pushes of one. The lease makes
it quick, and stops a primary that is alone before it has written much that nobody will take. docs/failover.md
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from api.etcd import EtcdError, Held, Lease
from api.lease_files import Files
from api.log import SERVER
from gitstore import Author, StoreError

KEEPER = Author("git-fhir", "git-fhir@fhir.invalid")
"""Whose commit a promotion is that no person asked for."""

WORDS = "Nobody held the lease"

LOOKS = 3
"""So many at the lease in its length."""

TRIES = 12
"""So often in its length a keeper that waits looks whether the one at work is gone."""

TRUSTED = 2 / 3
"""Of its length: for so long after it was renewed, a lease lets this node take writes. The rest is for noticing, and for
clocks that don't run alike.
"""


class Cluster(Protocol):
    """What of its node a keeper decides on. Each may raise StoreError."""

    @property
    def role(self) -> Literal["primary", "replica"]: ...
    def promote(self, author: Author, words: str) -> object: ...
    def step_down(self, why: str) -> None: ...
    def suspend(self, why: str) -> None: ...
    def resume(self) -> None: ...


class Leases(Protocol):
    """What a keeper asks of etcd; api.etcd.Etcd does it. Each may raise EtcdError."""

    def grant(self, ttl: int) -> Lease: ...
    def keep_alive(self, lease: int) -> float | None: ...
    def revoke(self, lease: int) -> None: ...
    def get(self, key: str) -> Held | None: ...
    def create(self, key: str, value: str, lease: int) -> Held: ...


Spawn = Callable[[Callable[[], object]], "Future[Any]"]
"""Has something done in another thread."""


def key_of(first_commit: str) -> str:
    """Where in etcd the primary of a record stands, by the id of the record's first commit."""
    return f"/git-fhir/{first_commit}/primary"


class Keeper:
    """One process's part in holding the lease. `step` is for one thread at a time; who calls it sleeps between."""

    def __init__(
        self,
        cluster: Cluster,
        etcd: Leases,
        files: Files,
        key: str,
        *,
        url: str,
        ttl: float,
        clock: Callable[[], float],
        spawn: Spawn,
        chance: Callable[[], float] = lambda: secrets.randbelow(1000) / 1000,
    ) -> None:
        """`url` is this node's, or empty, `ttl` the lease's length in seconds, `clock` in seconds and never standing still.

        `chance`, from 0 to 1, says how long a node waits after a promotion that failed, so that others have their turn.
        """
        self._cluster = cluster
        self._etcd = etcd
        self._files = files
        self._key = key
        self._url = url
        self._ttl = ttl
        self._clock = clock
        self._spawn = spawn
        self._chance = chance
        self._lease: int | None = None
        self._trusted_until = -math.inf
        self._not_before = -math.inf
        self._promotion: Future[Any] | None = None
        self._leads = self._leaves = False
        self._suspended: str | None = None
        self._missed = self._said = ""
        self.wake = threading.Event()
        """Set when the next step is due at once."""

    def step(self) -> float:
        """Look once, and do what follows from it. Returns the seconds after which the next step is due."""
        if not self._leads and not self._files.lead():
            return self._ttl / TRIES
        try:
            if not self._leads:
                self._lease, self._trusted_until = self._files.noted()
                self._leads = True
            self._guard(self._suspended or self._missed or "the lease is not held")
            try:
                self._turn()
                self._missed = ""
            except EtcdError as error:
                self._missed = str(error)
                self._guard(self._missed)
        except StoreError as error:
            self._missed = str(error)
            self._say(logging.ERROR, f"the lease can't be acted on: {error}")
        return self._pause()

    def leave(self) -> None:
        """From the next step on only renew: the node is about to stop, and pushes what is left."""
        self._leaves = True

    def give_back(self) -> None:
        """Give the lease back, so that another node takes over at once. After `leave` and the last step."""
        held = self._lease is not None
        self._return()
        if held and self._lease is None:
            self._say(logging.INFO, "the lease is given back")

    def _pause(self) -> float:
        now, usual = self._clock(), self._ttl / LOOKS
        awaited = [at - now for at in (self._trusted_until, self._not_before) if at > now]
        return min(usual / 2 if self._missed else usual, *awaited, usual)

    def _turn(self) -> None:
        if self._leaves:
            if self._lease is not None:
                self._etcd.keep_alive(self._lease)
            return
        if self._promotion is not None:
            if not self._promotion.done():
                self._hold()
                return
            self._conclude(self._promotion)
        if self._cluster.role == "primary":
            self._keep()
        else:
            self._look()

    def _guard(self, why: str) -> None:
        """No writes without the lease."""
        if not self._leaves and self._clock() >= self._trusted_until and self._cluster.role == "primary":
            self._suspend(why)

    # As primary

    def _keep(self) -> None:
        holder = self._hold()
        if holder.lease == self._lease:
            self._files.point("")
            self._resume()
            self._say(logging.INFO, "this node holds the lease and takes writes")
            return
        why = f"{holder.value or 'another node'} holds the lease"
        self._suspend(why)
        self._cluster.step_down(why)
        self._resume()
        self._return()
        self._point(holder)

    def _hold(self) -> Held:
        """Renew the lease, or get a new one, and take the key if nobody has it. Returns who has it then."""
        begun = self._clock()
        ttl = None if self._lease is None else self._etcd.keep_alive(self._lease)
        if self._lease is None or ttl is None:
            self._forget()
            lease = self._etcd.grant(math.ceil(self._ttl))
            self._lease, ttl = lease.id, lease.ttl
            self._files.note(self._lease, 0)
        holder = self._etcd.get(self._key) or self._etcd.create(self._key, self._url, self._lease)
        self._trusted_until = begun + TRUSTED * ttl if holder.lease == self._lease else -math.inf
        self._files.note(self._lease, max(0, self._trusted_until))
        return holder

    # As replica

    def _look(self) -> None:
        holder = self._etcd.get(self._key)
        if holder is None:
            self._files.point("")
            if self._clock() >= self._not_before:
                self._try()
        elif holder.lease == self._lease:
            self._stand_back("this node held the lease without being the primary")
        else:
            self._point(holder)

    def _try(self) -> None:
        """Become the primary, if no other node is faster. That may take longer than a lease lasts, hence the thread."""
        holder = self._hold()
        if holder.lease != self._lease:
            self._point(holder)
            self._return()
            return
        # A primary takes writes as soon as its file says so; this one has to look first whether it still has the lease.
        self._suspend("this node is becoming the primary")
        self._promotion = self._spawn(partial(self._cluster.promote, KEEPER, WORDS))
        self._promotion.add_done_callback(lambda _: self.wake.set())

    def _conclude(self, promotion: Future[Any]) -> None:
        self._promotion = None
        failure = promotion.exception()
        if isinstance(failure, StoreError):
            self._stand_back(f"this node could not become the primary: {failure}")
        elif failure is not None:
            raise failure

    def _stand_back(self, why: str) -> None:
        """Let others have their turn."""
        self._not_before = self._clock() + self._ttl / LOOKS * (1 + 2 * self._chance())
        self._say(logging.WARNING, why)
        if self._cluster.role == "replica":
            self._resume()
        self._return()

    def _point(self, holder: Held) -> None:
        """Note where to pass writes on to. Not to here, where a lease is left that could not be given back."""
        is_url = urlsplit(holder.value).scheme in ("http", "https") and len(holder.value.split()) == 1
        self._files.point(holder.value if is_url and holder.value != self._url else "")

    # Both

    def _return(self) -> None:
        """Give the lease back. Where that fails it is known on, so that this node doesn't take itself for another."""
        if self._lease is None:
            return
        self._trusted_until = -math.inf
        self._files.note(self._lease, 0)
        with suppress(EtcdError):  # it ends by itself, only later
            self._etcd.revoke(self._lease)
            self._forget()

    def _forget(self) -> None:
        self._lease, self._trusted_until = None, -math.inf
        self._files.note(None, 0)

    def _suspend(self, why: str) -> None:
        if why == self._suspended:
            return
        self._cluster.suspend(why)
        self._suspended = why
        if self._cluster.role == "primary":
            self._say(logging.WARNING, f"no writes for now: {why}")

    def _resume(self) -> None:
        """Always, because another process of this node may have suspended it."""
        self._cluster.resume()
        self._suspended = None

    def _say(self, level: int, text: str) -> None:
        """What is so still needs no second line."""
        if text != self._said:
            self._said = text
            SERVER.log(level, "%s", text)
