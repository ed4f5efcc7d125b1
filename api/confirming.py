"""In fhir.replication = sync nothing is told that the hub doesn't have: an answer waits for the commit that it is from.

docs/scaling.md. Writes wait in the store, before there is anything to answer.
"""

from __future__ import annotations

from contextlib import suppress

import falcon

from api.journaling import UNTOLD, withhold
from api.request import Request
from api.responses import came_from, read_at
from gitstore import Cluster, Commit, Fenced, Gone, NotFound, NotReplicated, Snapshot, Store, StoreError
from gitstore.fhir.ids import ResourceId, VersionId

_TELLING = frozenset({404, 409, 410, 412, 422})
"""Refusals that may be due to what is in the record. They, too, say how it is."""


_UNCONFIRMED = "The hub has not confirmed in time what there is to tell."
_FENCED = "Another node has become the primary, and knows nothing of what there was to tell."
"""For who only asks: which commit it was, and where the hub is, is not told."""


class Confirming:
    """Holds answers back until the hub has what they tell. For a store that has a cluster."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def process_response(
        self, req: Request, resp: falcon.Response, _endpoint: object, _succeeded: bool
    ) -> None:
        """Raises NotReplicated, Fenced, and what reading raises; then the answer is that."""
        assert self._store.cluster is not None
        if not self._store.cluster.is_sync or req.passed_on:
            return
        try:
            commit = self._commit(req, resp)
            if commit is not None:
                self._store.confirm(commit)
        except StoreError as error:
            withhold(resp)
            if req.store.wrote:
                raise
            req.told = None
            if isinstance(error, NotReplicated):
                raise NotReplicated(_UNCONFIRMED) from error
            if isinstance(error, Fenced):
                raise Fenced(_FENCED) from error
            raise

    def _commit(self, req: Request, resp: falcon.Response) -> Commit | None:
        """What the answer is from: what it names or, where that isn't said, at most what there is now."""
        named = came_from(resp)
        if named is not None or req.interaction in UNTOLD or req.method == "OPTIONS":
            return named
        tells = resp.status_code < 400 or resp.status_code in _TELLING
        return self._store.snapshot().commit if tells else None


def narrow(resp: falcon.Response, cluster: Cluster | None, state: Commit, commit: Commit) -> None:
    """An answer from a state tells nothing later than `commit`: that is waited for, where the hub hasn't all of the state.

    Raises Fenced.
    """
    if cluster is not None and not cluster.has(state):
        read_at(resp, commit)


def narrow_to_deletion(
    resp: falcon.Response, cluster: Cluster | None, snapshot: Snapshot, resource_id: ResourceId, gone: Gone
) -> None:
    """As `narrow`, where a resource is gone; what doesn't show since when tells of all of its state."""
    if cluster is not None:
        with suppress(NotFound):
            deletion = snapshot.version(resource_id, VersionId(gone.version_id))
            narrow(resp, cluster, snapshot.commit, deletion.commit)
