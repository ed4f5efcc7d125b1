"""The lease as a part of a worker's life: the thread that keeps it, and how it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType

from api.etcd import Etcd
from api.keeper import Cluster, Keeper, key_of
from api.lease_files import Files, forget_primary, uptime
from api.log import SERVER
from gitstore import Invalid, Settings, Store

CALLS = 10
"""A call to etcd may take one part in so many of the length of a lease."""


def stop_worker() -> None:
    """Have this process finish what it has and end; the master starts another."""
    os.kill(os.getpid(), signal.SIGTERM)


class Keeping:
    """The lease for a worker's life, where fhir.etcd is set. To be entered before the store is opened.

    The last process of a node gives the lease back when this is left, which is after the store has pushed all that it had.
    """

    def __init__(self, settings: Settings, fail: Callable[[], object] = stop_worker) -> None:
        """`fail` is called should the thread break down: a process whose keeper is dead must not go on."""
        self._settings = settings
        self._fail = fail
        self._beat: _Beat | None = None

    def __enter__(self) -> Keeping:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._beat is not None:
            self._beat.close()

    @contextmanager
    def of(self, store: Store) -> Iterator[None]:
        """While the block lasts the keeper decides on the store's role.

        Right at its beginning the node has the lease, or is a replica, or takes no writes. Raises Invalid, StorageFailed.
        """
        if self._settings.etcd and self._settings.hub is None:
            raise Invalid("fhir.etcd is set, and fhir.hub isn't: without a hub there is one node only.")
        if store.cluster is None:
            yield
            return
        folder = os.path.join(store.git_dir, "git-fhir")
        if not self._settings.etcd:
            # What a keeper left before fhir.etcd was taken away would hold for ever.
            store.cluster.resume()
            forget_primary(folder)
            yield
            return
        self._beat = self._begun(store, store.cluster, folder)
        try:
            yield
        finally:
            self._beat.leave()

    def _begun(self, store: Store, cluster: Cluster, folder: str) -> _Beat:
        ttl = self._settings.lease_ttl
        etcd = Etcd(self._settings.etcd, ttl / CALLS)
        files = Files(folder)
        promotions = ThreadPoolExecutor(1, "promotion")
        keeper = Keeper(
            cluster,
            etcd,
            files,
            key_of(store.snapshot(1).commit.id),
            url=self._settings.node_url or "",
            ttl=ttl,
            clock=uptime,
            spawn=promotions.submit,
        )
        return _Beat(keeper, files, promotions, self._fail)


class _Beat:
    """The thread in which a keeper takes one step after another. The first is taken by who makes this."""

    def __init__(
        self, keeper: Keeper, files: Files, promotions: ThreadPoolExecutor, fail: Callable[[], object]
    ) -> None:
        self._keeper = keeper
        self._files = files
        self._promotions = promotions
        self._fail = fail
        self._stepping = threading.Lock()
        self._is_last = self._ended = False
        self._thread = threading.Thread(target=self._run, args=(keeper.step(),), name="keeper", daemon=True)
        self._thread.start()

    def _run(self, seconds: float) -> None:
        try:
            while True:
                self._keeper.wake.wait(seconds)
                self._keeper.wake.clear()
                if self._ended:
                    return
                with self._stepping:
                    seconds = self._keeper.step()
        except BaseException:
            SERVER.exception("the keeper of the lease failed")
            self._fail()
            raise

    def leave(self) -> None:
        """Decide nothing any more. The last process of a node renews the lease while it pushes; others leave it to those that stay."""
        self._is_last = self._files.is_last()
        with self._stepping:
            self._keeper.leave()
        # A promotion under way needs the store; what it made of this node is for the next keeper to see.
        self._promotions.shutdown()
        if not self._is_last:
            self._end()

    def close(self) -> None:
        """After `leave`, and after the store is closed."""
        if self._is_last:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._keeper.wake.set()
        self._thread.join()
        if self._is_last:
            self._keeper.step()  # it may never have been the one at work, and then doesn't know the lease
            self._keeper.give_back()
        self._files.close()
