"""One repository with all that its requests need: the store, who may come in, the access journal, the application."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from api import log
from api.app import create_app
from api.credentials import Credentials
from api.keeping import Keeping
from api.limits import Places
from api.metrics import Metrics
from api.waking import Waker
from gitstore import CACHE_BYTES, Journal, RepositoryRefused, Settings, Store, now

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""https://peps.python.org/pep-3333/"""

_ROLES = {"primary": "the primary", "replica": "a replica"}


@contextmanager
def opened(
    git_dir: str,
    settings: Settings,
    metrics: Metrics,
    *,
    allow_anonymous: bool,
    as_replica: bool = False,
    cache_bytes: int = CACHE_BYTES,
    places: Places | None = None,
) -> Iterator[Application]:
    """The application over a repository; when the block ends, nothing of it is open any more.

    Raises StoreError where it can't be opened: RepositoryRefused, Invalid for a setting, StorageFailed.
    """
    with (
        Waker(settings.replica) as waker,
        Keeping(settings) as lease,
        Store.open(git_dir, settings, observer=metrics, cache_bytes=cache_bytes) as store,
        journaled(settings, store) as journal,
    ):
        credentials = Credentials(git_dir, settings, now, allow_anonymous=allow_anonymous)
        join(store, waker, as_replica=as_replica)
        with lease.of(store):
            yield create_app(
                store, settings, credentials=credentials, metrics=metrics, journal=journal, places=places
            )


@contextmanager
def journaled(settings: Settings, store: Store) -> Iterator[Journal | None]:
    """The access journal while the repository is open; None where fhir.accessJournal is off."""
    if settings.access_journal == "off":
        yield None
        return
    journal = Journal.open(
        store.git_dir, durable=settings.durability == "full", timeout=settings.lock_timeout
    )
    try:
        yield journal
    finally:
        journal.close()


def join(store: Store, waker: Waker, *, as_replica: bool) -> None:
    """Take this node's place among the others, if it has any. Raises StoreError."""
    if store.cluster is not None:
        store.cluster.on_push = waker
        store.cluster.on_role = lambda standing: log.SERVER.info(
            "this node is %s now%s", _ROLES[standing.role], f": {standing.why}" if standing.why else ""
        )
        if as_replica:
            store.cluster.follow()
        store.cluster.start()
    elif as_replica:
        raise RepositoryRefused(
            f"{store.git_dir} has no hub to follow: set it with `git config fhir.hub URL`."
        )
